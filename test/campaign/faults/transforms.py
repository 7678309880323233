"""Faults of TF: missing, late, contradictory, not a rotation, not numbers, loops, two parents."""

from __future__ import annotations

import math
import time

from system import SECOND, transform_message
from tf2_msgs.msg import TFMessage

from campaign.faults.cameras import bent_bytes, cut, noise
from campaign.faults.fault import Fault, Injection
from campaign.player import Message

__all__ = ["TF_FAULTS"]

BEFORE_JUMP = 1.0  # seconds
STILL = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def of_tf(change):
    return lambda injection, message: change(injection, message) if message.kind == "tf" else (message,)


def silent(injection: Injection, message: Message):
    return ()


def bent(bend):
    """Change each transform of /tf by `bend(random, transform)`."""

    def change(injection: Injection, message: Message):
        new = message.copy()
        for transform in new.ros.transforms:
            bend(injection.random, transform)
        return (new,)

    return of_tf(change)


def longer(random, transform) -> None:
    q, factor = transform.transform.rotation, random.choice((0.3, 2.0))
    q.x, q.y, q.z, q.w = q.x * factor, q.y * factor, q.z * factor, q.w * factor


def no_rotation(random, transform) -> None:
    q = transform.transform.rotation
    q.x = q.y = q.z = q.w = 0.0


def not_numbers(random, transform) -> None:
    setattr(transform.transform.translation, random.choice("xyz"), random.choice((math.nan, math.inf)))


def far_away(random, transform) -> None:
    transform.transform.translation.x = 1e300


def shifted(message: Message, x: float, y: float) -> Message:
    """A copy with the vehicle elsewhere."""
    new = message.copy()
    for transform in new.ros.transforms:
        if transform.child_frame_id == "base_link":
            transform.transform.translation.x += x
            transform.transform.translation.y += y
    return new


def jumped(injection: Injection, message: Message):
    """The odometry goes on as it was for some frames, so that the map has something, and then elsewhere."""
    if injection.elapsed < BEFORE_JUMP:
        return (message,)
    if "jump" not in injection.state:
        angle, distance = injection.random.uniform(-math.pi, math.pi), injection.random.uniform(8.0, 40.0)
        injection.state["jump"] = distance * math.cos(angle), distance * math.sin(angle)
    return (shifted(message, *injection.state["jump"]),)


def drifting(injection: Injection, message: Message):
    """The odometry drifts by a fifth of a metre a second, and is corrected at once in the end."""
    return (shifted(message, 0.2 * injection.elapsed, 0.0),)


def of_another_day(random, transform) -> None:
    transform.header.stamp.sec = random.choice((0, 1, 2**31 - 1))


def with_more(make):
    """Send /tf, and then the transforms that `make(injection, stamp)` gives."""

    def change(injection: Injection, message: Message):
        stamp = message.ros.transforms[0].header.stamp
        more = make(injection, stamp.sec * SECOND + stamp.nanosec)
        return message, Message("tf", "", TFMessage(transforms=more))

    return of_tf(change)


def elsewhere(injection: Injection, stamp: int) -> list:
    return [transform_message("odom", "base_link", stamp + 1, (5.0, 3.0, 0.0), STILL[1])]


def backward_link(injection: Injection, stamp: int) -> list:
    return [transform_message("base_link", "odom", stamp, *STILL)]


def other_parent(injection: Injection, stamp: int) -> list:
    frame = injection.player.scene.frame_ids[injection.player.scene.cameras[0]]
    return [transform_message("odom", frame, stamp, *STILL)]


def under_both(injection: Injection, message: Message):
    """Send the mounts again and again, too, as a static publisher that is restarted does."""
    if message.kind == "tf":
        mounts_again(injection)
    return with_more(other_parent)(injection, message)


def made_up(injection: Injection, stamp: int) -> list:
    number = injection.random.randrange(10**9)
    return [transform_message(f"made_up_{number}", f"made_up_{number + i}", stamp, *STILL) for i in range(1, 40)]


def nameless(injection: Injection, stamp: int) -> list:
    return [transform_message("", "base_link", stamp, *STILL), transform_message("a", "", stamp, *STILL)]


def to_itself(injection: Injection, stamp: int) -> list:
    return [transform_message("base_link", "base_link", stamp, *STILL)]


def send_static(injection: Injection, transforms: list) -> None:
    injection.player.send(Message("tf_static", "", TFMessage(transforms=transforms)))


def struck_frame(injection: Injection) -> str:
    return injection.player.scene.frame_ids[injection.camera]


def mount_not_finite(injection: Injection) -> None:
    send_static(injection, [transform_message("base_link", struck_frame(injection), 1, (math.nan, 0, 0), STILL[1])])


def mount_moved(injection: Injection) -> None:
    """Turn the camera by up to a right angle about the vertical."""
    angle = injection.random.uniform(-math.pi / 2, math.pi / 2) / 2
    t, (x, y, z, w) = injection.player.scene.mounts[injection.camera]
    s, c = math.sin(angle), math.cos(angle)  # (0, 0, s, c) times (x, y, z, w)
    turned = (c * x - s * y, c * y + s * x, c * z + s * w, c * w - s * z)
    send_static(injection, [transform_message("base_link", struck_frame(injection), 1, t, turned)])


def mount_missing(injection: Injection) -> None:
    """Configure the node again while /tf_static lacks the camera."""
    injection.player.send_mounts(leave_out=(injection.camera,))
    injection.stage.cycle()


def mounts_again(injection: Injection) -> None:
    injection.player.send_mounts()


def mounts_prevail(injection: Injection) -> None:
    """Send the mounts once more after the last contradiction: what comes last on /tf or /tf_static counts."""
    time.sleep(0.2)
    mounts_again(injection)


def two_publishers_of_a_mount(injection: Injection, message: Message):
    """Two static publishers contradict each other, ten times a second."""
    if message.kind == "tf":
        (mount_moved if injection.random.random() < 0.5 else mounts_again)(injection)
    return (message,)


def tf(name: str, what: str, change=None, **more) -> Fault:
    settings = {"strikes": "node", "line": "tf", **({"change": change} if change else {}), **more}
    return Fault(name, "TF", what, **settings)


TF_FAULTS = (
    tf("no odometry", "/tf stops", of_tf(silent), named="static mounts"),
    tf("late odometry", "0.3 s late", of_tf(lambda i, m: (m.copy(delay=m.delay + 0.3),)), named="static mounts"),
    tf("contradictory odometry", "two publishers, 5 m apart", with_more(elsewhere), judge_free=False),
    tf("quaternion not of unit length", "0.3 or 2 times", bent(longer)),
    tf("quaternion of zeros", "all four numbers are zero", bent(no_rotation), named="ignored|static mounts"),
    tf("odometry not finite", "NaN or infinity", bent(not_numbers), named="ignored|static mounts"),
    tf(
        "odometry jumps",
        "by 8 to 40 m, and back",
        of_tf(jumped),
        named="jump",
        within=BEFORE_JUMP,
        seconds=(2.5, 3.2),
    ),
    tf("odometry drifts", "0.2 m/s, then back", of_tf(drifting)),
    tf("odometry far away", "1e300 m", bent(far_away), judge_free=False),
    tf("odometry of another day", "stamps of 1970 and 2038", bent(of_another_day), named="static mounts|ignored"),
    tf("loop in TF", "base_link is also a child of odom", with_more(backward_link)),
    tf(
        "two parents",
        "a camera's frame is also a child of odom",
        under_both,
        named="under|parent",
        judge_free=False,
        end=mounts_prevail,
        strikes="anchor mount",
    ),
    tf("made-up frames", "hundreds of new frame names a second", with_more(made_up)),
    tf("nameless frames", "empty frame ids", with_more(nameless), named="ignored"),
    tf("a frame in itself", "child and parent have the same name", with_more(to_itself), named="ignored"),
    tf("TF truncated", "cut at a random byte", of_tf(bent_bytes(cut)), named="dropped|static mounts"),
    tf(
        "TF of random bytes",
        "random bytes in place of a message",
        of_tf(bent_bytes(noise)),
        named="dropped|static mounts|ignored",
    ),
    tf(
        "mount not finite",
        "NaN on /tf_static",
        begin=mount_not_finite,
        end=mounts_again,
        strikes="mount",
        named="ignored",
    ),
    tf("mount changes", "a camera turned while running", begin=mount_moved, end=mounts_again, strikes="mount"),
    tf(
        "mount missing",
        "it comes only later",
        begin=mount_missing,
        end=mounts_again,
        strikes="mount",
        line="camera {camera}",
        named="cannot be placed",
        alone=True,
    ),
    tf(
        "two publishers of a mount",
        "they contradict each other",
        two_publishers_of_a_mount,
        end=mounts_prevail,
        strikes="mount",
    ),
)
