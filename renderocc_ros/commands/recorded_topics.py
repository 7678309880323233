"""How a recorded topic is published again: with which message class and which QoS."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from rosbags.interfaces import Qos, QosDurability, QosReliability

from renderocc_model.rosio.bags import Topic

NO_LIMIT_S = 2**31 - 1  # DDS writes "infinite" as this many seconds or more
DEFAULT_DEPTH = {"/tf": 100}  # what tf2's broadcaster uses; 10 elsewhere
MAX_LATCHED = 5000


class ReplayError(ValueError):
    """The request cannot be played. The text says what was asked, what there is, and what to do."""


def message_class(type_name: str) -> type:
    """Import a message class by its recorded name, 'sensor_msgs/msg/Image'.

    Raises:
        ReplayError: the package or the message is not installed; the text says what to install.
    """
    package, _, name = type_name.partition("/")
    name = name.rpartition("/")[2]
    try:
        if not _has_messages(package):  # checked first: importing a package that a recording names would run its code
            raise ImportError(f"no module named '{package[:80]}.msg'")
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except ImportError as error:
        debian, wheel = f"ros-$ROS_DISTRO-{package.replace('_', '-')}", f"ros-jazzy-{package.replace('_', '-')}"
        raise ReplayError(
            f"{type_name} needs the package {package} ({error}); sudo apt install {debian}, or pip install {wheel}"
        ) from None
    except (AttributeError, ValueError):
        raise ReplayError(
            f"the installed {package} has no message {name!r} ({type_name}); install the release it was recorded with"
        ) from None


def _has_messages(package: str) -> bool:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = (spec.submodule_search_locations or ()) if spec else ()
    return any(Path(place, "msg", "__init__.py").is_file() for place in places)


def qos_profile(topic: Topic):
    """The rclpy QoSProfile to publish a topic with: the strongest that any recorded publisher offered.

    A reliable publisher serves best-effort subscriptions too, and a transient local one serves volatile ones too.
    Therefore the strongest offer reaches every subscription that was reached in the recording. If the recording has no
    QoS: reliable and volatile.
    """
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    offers = topic.qos
    best_effort = bool(offers) and all(offer.reliability is QosReliability.BEST_EFFORT for offer in offers)
    latched = is_latched(topic)
    recorded_depth = max((offer.depth for offer in offers), default=0)
    depth = recorded_depth if 0 < recorded_depth <= MAX_LATCHED else DEFAULT_DEPTH.get(topic.name, 10)
    if latched:
        # Several publishers kept `depth` messages each, and one publisher has to keep them all. Static transforms do
        # not replace each other.
        everything = topic.count if topic.name.endswith("/tf_static") else depth * len(offers)
        depth = min(max(depth, everything), MAX_LATCHED)
    profile = QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
    carry_time_limits(profile, offers)
    return profile


def is_latched(topic: Topic) -> bool:
    """Whether a late subscription receives messages that were published before."""
    if not topic.qos:
        return topic.name.endswith("/tf_static")
    return any(offer.durability is QosDurability.TRANSIENT_LOCAL for offer in topic.qos)


def carry_time_limits(profile, offers: Sequence[Qos]) -> None:
    """Offer the recorded deadline, lifespan and lease if all publishers had the same finite one."""
    from rclpy.duration import Duration

    for name in ("deadline", "lifespan", "liveliness_lease_duration"):
        limits = {getattr(offer, name) for offer in offers}
        if len(limits) == 1:
            limit = limits.pop()
            if 0 <= limit.sec < NO_LIMIT_S and (limit.sec or limit.nsec):
                setattr(profile, name, Duration(seconds=limit.sec, nanoseconds=limit.nsec))
