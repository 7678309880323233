"""Faults of time: stamps that are wrong, clocks that jump or stop, recordings that loop."""

from __future__ import annotations

from system import SECOND, stamp_message

from campaign.faults.cameras import images
from campaign.faults.fault import Fault, Injection
from campaign.player import CLOCK_START, Message

__all__ = ["TIME_FAULTS"]


def shifted(seconds: float):
    """Add so many seconds to the stamps of images."""
    return images(lambda i, m: (m.restamped(max(0, m.stamp + round(seconds * SECOND))),))


def without_stamp(injection: Injection, message: Message):
    return (message.restamped(0).copy(usable=False),)


def backwards(injection: Injection, message: Message):
    """Let stamps fall by as much as they should rise."""
    start = injection.state.setdefault("start", message.stamp)
    return (message.restamped(2 * start - message.stamp),)


def frozen(injection: Injection, message: Message):
    return (message.restamped(injection.state.setdefault("start", message.stamp)),)


def jittered(injection: Injection, message: Message):
    return (message.restamped(message.stamp + round(injection.random.uniform(-0.04, 0.04) * SECOND)),)


def once_in_a_while_old(injection: Injection, message: Message):
    old = injection.random.random() < 0.3
    return (message.restamped(message.stamp - 30 * SECOND),) if old else (message,)


def sensors_set_back(injection: Injection, message: Message):
    """Stamp images, calibrations and poses by a clock that is seconds behind."""
    back = round(injection.state.setdefault("back", injection.random.uniform(2, 60)) * SECOND)
    new = message.copy()
    for stamped in new.ros.transforms if message.kind == "tf" else [new.ros]:
        stamp = stamped.header.stamp
        stamped.header.stamp = stamp_message(stamp.sec * SECOND + stamp.nanosec - back)
    return (new,)


def jump(low: float, high: float):
    """Let the clock, and every stamp with it, jump by between `low` and `high` seconds."""

    def begin(injection: Injection) -> None:
        player = injection.player
        player.set_clock(max(SECOND, player.now_ns() + round(injection.random.uniform(low, high) * SECOND)))

    return begin


def loop(injection: Injection) -> None:
    """Set the clock back to its start, as a recording that loops does."""
    injection.player.set_clock(CLOCK_START)


def loop_again_and_again(injection: Injection, message: Message):
    if message.kind == "clock" and injection.elapsed >= injection.state.setdefault("next", 0.6):
        injection.state["next"] += 0.6
        injection.player.set_clock(injection.player.now_ns() - SECOND)
    return (message,)


def clock_only(change):
    return lambda injection, message: change(injection, message) if message.kind == "clock" else (message,)


def moved_clock(message: Message, seconds: float) -> Message:
    new = message.copy()
    now = new.ros.clock.sec * SECOND + new.ros.clock.nanosec
    new.ros.clock = stamp_message(max(0, now + round(seconds * SECOND)))
    return new


def two_clocks(injection: Injection, message: Message):
    """Publish a second clock that is an hour apart, as two players at once do."""
    return message, moved_clock(message, -3600 if injection.player.now_ns() > CLOCK_START else 3600)


def still(injection: Injection, message: Message):
    return ()


def restart_clock(injection: Injection) -> None:
    injection.player.set_clock(injection.player.now_ns() + SECOND)


def set_speed(speed: float):
    return lambda injection: injection.player.set_clock(speed=speed)


def stamps(name: str, what: str, change, **more) -> Fault:
    return Fault(name, "stamps", what, change=change, **more)


def clock(name: str, what: str, **more) -> Fault:
    settings = {"strikes": "node", "clock": "sim", "back": True, "stops": True, **more}
    return Fault(name, "clock and loops", what, **settings)


TIME_FAULTS = (
    stamps("stamps of zero", "the driver does not fill them", images(without_stamp), named="stamp is zero"),
    stamps("stamps an hour old", "a camera whose clock is behind", shifted(-3600), named="nearest|silent|stamp|unus"),
    stamps("stamps of the future", "10 s ahead", shifted(10), named="ahead of the node's clock"),
    stamps("stamps half a second ahead", "too little to be refused", shifted(0.5)),
    stamps("stamps 0.15 s behind", "more than images may differ", shifted(-0.15)),
    stamps("stamps run backwards", "each is earlier than the one before", images(backwards)),
    stamps("stamps stand still", "all are equal", images(frozen), named="silent|nearest|duplicate"),
    stamps("stamps jitter", "by up to 40 ms, earlier or later", images(jittered)),
    stamps("strays from the past", "three in ten are 30 s old", images(once_in_a_while_old)),
    clock("clock jumps back", "by 2 to 60 s, stamps with it", begin=jump(-60, -2)),
    clock("clock jumps ahead", "by 2 s to an hour, stamps with it", begin=jump(2, 3600), back=False),
    clock("recording loops", "the recording begins again, stamps too", begin=loop),
    clock("short loops", "the recording goes back by a second, many times", change=loop_again_and_again),
    clock(
        "clock stands still",
        "/clock stops, images continue",
        change=clock_only(still),
        end=restart_clock,
        back=False,
        line="camera {anchor}",
        named="ahead of the node's clock",
        within=1.0,
    ),  # max_future
    clock("everything pauses", "no clock, no images, no TF", change=still, end=restart_clock, back=False),
    clock("two clocks", "two players, an hour apart", change=clock_only(two_clocks), judge_free=False),
    clock(
        "playback slows down",
        "to a third",
        begin=set_speed(0.33),
        end=set_speed(1.0),
        back=False,
        stops=False,
        alone=True,
    ),  # the node's watchdogs count by /clock, and so are three times as late
    clock("playback speeds up", "to double", begin=set_speed(2.0), end=set_speed(1.0), back=False, stops=False),
    clock(
        "sensors' clock set back",
        "by 2 to 60 s, on the wall clock: images, camera_info, /tf",
        clock="wall",
        change=sensors_set_back,
    ),
)
