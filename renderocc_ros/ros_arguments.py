"""Start ROS with a program's arguments. Arguments that ROS refuses become an error of one line with the remedy."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

__all__ = ["RosArgumentsError", "start_ros"]

_PLACES = re.compile(r",? at /\S+\.c:\d+")  # places in ROS's own source
_MAPPING = re.compile(r"(?P<name>[\w./]+):=(?P<value>\{.*)")


class RosArgumentsError(ValueError):
    """The arguments after --ros-args cannot be read."""


def start_ros(args: Sequence[str] | None, **options) -> None:
    """Call rclpy.init without its signal handlers.

    Args:
        args: the program's arguments without its name; None for those of this process.
        options: as for rclpy.init.
    Raises:
        RosArgumentsError: ROS cannot read the arguments, or a file that they name.
    """
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation as implementation
    from rclpy.signals import SignalHandlerOptions

    refusals = tuple(
        getattr(implementation, name)
        for name in ("RCLError", "RCLInvalidROSArgsError", "UnknownROSArgsError")
        if hasattr(implementation, name)
    )
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO, **options)
    except refusals as error:
        words = sys.argv[1:] if args is None else args
        raise RosArgumentsError(explained(type(error).__name__, str(error), words)) from None


def explained(kind: str, text: str, words: Sequence[str]) -> str:
    """One line for what ROS reported about the arguments `words`, with the remedy if it is known."""
    if kind == "UnknownROSArgsError":
        return f"unknown arguments after --ros-args: {text}"
    text = _PLACES.sub("", text.removeprefix("failed to initialize rcl: "))
    for match in filter(None, map(_MAPPING.search, words)):
        if match[0] in text:
            name, value = match["name"], match["value"]
            text += (
                "; a value that begins with '{' is a mapping in YAML: write "
                f"-p '{name}:={value.replace('{camera}', '<camera>')}', or with quotes inside -p '{name}:=\"{value}\"'"
            )
    return text
