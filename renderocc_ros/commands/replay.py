"""`renderocc replay`: play a rosbag2 recording on its topics, for machines without `ros2 bag`.

Messages are published as the recorded bytes: nothing is deserialised, and no stamp is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fnmatch
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from renderocc_model.rosio.bags import Bag, BagError, Topic
from renderocc_model.rosio.camera_search import find_cameras, no_cameras, topic_types
from renderocc_model.rosio.transform_topics import TransformReader
from renderocc_model.rosio.vehicle import Vehicle, absolute
from renderocc_model.rosio.vehicle_options import add_vehicle_options, vehicle_from
from renderocc_ros.commands.player import CLOCK_TOPIC, Part, Played, Player
from renderocc_ros.commands.recorded_topics import ReplayError
from renderocc_ros.process import ignore_signals

__all__ = ["Played", "ReplayError", "main", "play"]


def play(
    path: str | Path,
    *,
    rate: float = 1.0,
    loop: bool = False,
    clock_hz: float | None = None,
    topics: Sequence[str] | None = None,
    start: float = 0.0,
    duration: float | None = None,
    wait_for: float = 30.0,
    remap: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    ros_args: Sequence[str] = (),
) -> Played:
    """Play a recording with a node and context of its own. Returns at the end, or when `stop` is set.

    Args:
        path: folder with metadata.yaml, or one .mcap or .db3 file.
        rate: recorded seconds per second, > 0.
        loop: begin again at the end; stamps then go back.
        clock_hz: publish /clock (record time) at this rate and before each message; None for no /clock.
        topics: names or shell patterns to play; None for all.
        start, duration: the part to play, in recorded seconds from the first message. Earlier latched messages, such as
            /tf_static, are published first.
        wait_for: most seconds to wait for subscriptions before the first message.
        remap: {recorded name: name to publish on}.
        stop: set it to end the replay early.
        say: receives messages for the user, one line each; default: standard error.
        progress: draw a progress bar on standard error.
        ros_args: passed to rclpy, starting with '--ros-args'.
    Raises:
        BagError: the recording cannot be read.
        ReplayError: an argument is out of range, or nothing of the recording can be played.
    """
    check_arguments(rate, clock_hz, start, duration, wait_for)
    stop = stop or threading.Event()
    say = say or (lambda line: print(f"[replay] {line}", file=sys.stderr, flush=True))
    with Bag(path) as bag:
        for note in bag.notes:
            say(note)
        if not bag.message_count:
            raise BagError(f"{bag.path}: the recording holds no messages")
        part = Part.of(bag, start, duration)
        played = Played()
        chosen = choose_topics(bag, topics, clock_hz is not None, played)
        with Player(bag, chosen, remap or {}, clock_hz, played, ros_args) as player:
            for topic, reason in played.skipped.items():
                say(f"{topic} is skipped: {reason}")
            if not player.publishers:
                raise ReplayError(f"{bag.path}: none of its topics can be played; see the lines above")
            player.wait_for_subscriptions(wait_for, part.start_ns, stop, say)
            with progress_bar(part.seconds, progress) as advance:
                player.play(part, rate, loop, stop, advance)
            player.wait_until_acknowledged(stop)
    return played


def check_arguments(rate: float, clock_hz: float | None, start: float, duration: float | None, wait_for: float) -> None:
    for name, value, positive in (
        ("rate", rate, True),
        ("clock", clock_hz, True),
        ("start", start, False),
        ("duration", duration, True),
        ("wait-for", wait_for, False),
    ):
        if value is None:
            continue
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise ReplayError(
                f"{name} is {value}; expected a finite number {'above 0' if positive else 'of at least 0'}"
            )


def choose_topics(bag: Bag, wanted: Sequence[str] | None, with_clock: bool, played: Played) -> list[Topic]:
    """The topics to play, without empty ones.

    Raises:
        ReplayError: a wanted name or pattern fits no topic of the recording.
    """
    names = set(bag.topics)
    if wanted is not None:
        names = set()
        for pattern in wanted:
            found = fnmatch.filter(bag.topics, pattern if pattern.startswith(("/", "*")) else "/" + pattern)
            if not found:
                nearest = difflib.get_close_matches(pattern, bag.topics, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(sorted(bag.topics))}"
                raise ReplayError(f"{bag.path} has no topic {pattern}; {hint}")
            names.update(found)
    if with_clock and CLOCK_TOPIC in names:
        names.remove(CLOCK_TOPIC)
        played.skipped[CLOCK_TOPIC] = "--clock publishes it from the record times"
    return [topic for topic in bag.topics.values() if topic.name in names and topic.count]


def vehicle_topics(path: Path, vehicle: Vehicle) -> list[str]:
    """The topics of a recording that a vehicle's description names or finds.

    Raises:
        BagError: the recording cannot be read, or has no camera of this vehicle.
    """
    with Bag(path) as bag:
        found = find_cameras(topic_types(bag.topics.values()), vehicle)
        if not found.cameras:
            raise BagError(f"{path}: no camera can be used: {no_cameras(bag.topics.values(), vehicle, found)}")
        names = {topic for source in found.cameras.values() for topic in (source.image_topic, source.info_topic)}
        names |= TransformReader(bag.topics, vehicle).topics | {absolute(name) for name in vehicle.lidar_topics}
        return sorted(names & {topic.name for topic in bag.topics.values() if topic.count})


@contextlib.contextmanager
def progress_bar(seconds: float, shown: bool) -> Iterator[Callable[[float], None]]:
    """`with progress_bar(seconds, shown) as advance`: `advance(position)` moves the bar, if it is shown."""
    if not shown:
        yield lambda position: None
        return
    from tqdm import tqdm

    with tqdm(total=seconds, bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s", leave=False, mininterval=0.2) as bar:
        yield lambda position: bar.update(position - bar.n)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc replay",
        description="Play a rosbag2 recording (MCAP or SQLite3) on its topics, with the QoS it was recorded with.",
        epilog="example: renderocc replay recordings/drive_01 --clock --rate 0.5 --topics '/front/*' /tf /tf_static",
    )
    made.add_argument("bag", type=Path, help="folder with metadata.yaml, or one .mcap or .db3 file")
    made.add_argument("--rate", type=float, default=1.0, help="recorded seconds per second (default 1)")
    made.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    made.add_argument(
        "--clock",
        type=float,
        nargs="?",
        const=100.0,
        default=None,
        metavar="HZ",
        help="publish /clock (record time) at HZ, default 100, and before each message; for nodes with use_sim_time",
    )
    made.add_argument("--topics", nargs="+", metavar="TOPIC", help="play these only; shell patterns are allowed")
    made.add_argument(
        "--only-vehicle",
        action="store_true",
        help="play only the topics of the vehicle that --params and the options below describe",
    )
    made.add_argument("--start", type=float, default=0.0, metavar="S", help="begin S seconds into the recording")
    made.add_argument("--duration", type=float, metavar="S", help="play S seconds of the recording")
    made.add_argument(
        "--wait-for",
        type=float,
        default=30.0,
        metavar="S",
        help="wait at most S seconds for subscriptions before the first message (default 30)",
    )
    made.add_argument(
        "--remap", nargs="+", default=[], metavar="FROM:=TO", help="publish a recorded topic under another name"
    )
    add_vehicle_options(made)
    return made


def parse_remaps(pairs: Sequence[str]) -> dict[str, str]:
    remap = {}
    for pair in pairs:
        name, separator, target = pair.partition(":=")
        if not separator or not name.strip("/") or not target.strip("/"):
            raise ReplayError(f"--remap {pair}: expected FROM:=TO, as in /cam/image:=/front/image_raw")
        remap[name] = target
    return remap


def ros_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(own arguments, ROS arguments). `ros2 launch` appends '--ros-args ... [--]' to the command."""
    own, ros, target = [], [], None
    for argument in argv:
        if argument == "--ros-args":
            target = ros
        elif argument == "--" and target is ros:
            target = None
            continue
        (own if target is None else ros).append(argument)
    return own, ros


def main(argv: Sequence[str] | None = None) -> int:
    """Run `renderocc replay`. Exit status: 0 at the end or after Ctrl-C, 2 if nothing could be played."""
    own, ros_args = ros_arguments(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(own)
    stop = threading.Event()
    topics = arguments.topics
    try:
        if arguments.only_vehicle or arguments.params is not None:
            topics = [*vehicle_topics(arguments.bag, vehicle_from(arguments)), *(topics or ())]
    except ValueError as error:
        print(f"renderocc replay: {error}", file=sys.stderr)
        return 2
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        played = play(
            arguments.bag,
            rate=arguments.rate,
            loop=arguments.loop,
            clock_hz=arguments.clock,
            topics=topics,
            start=arguments.start,
            duration=arguments.duration,
            wait_for=arguments.wait_for,
            remap=parse_remaps(arguments.remap),
            stop=stop,
            progress=sys.stderr.isatty(),
            ros_args=ros_args,
        )
    except (BagError, ReplayError) as error:
        print(f"renderocc replay: {error}", file=sys.stderr)
        return 2
    finally:
        if stop.is_set():
            ignore_signals()  # launch repeats the terminal's Ctrl-C, which must not kill a process that is ending
        else:
            for number, handler in previous.items():
                signal.signal(number, handler)
    late = f", at most {played.late_s * 1e3:.0f} ms late" if played.messages else ""
    print(f"played {played.messages} messages of {arguments.bag} in {played.seconds:.1f} s{late}", file=sys.stderr)
    return 0
