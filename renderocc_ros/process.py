"""Settings that ROS and PyTorch read once, when they are loaded; signals; and how a process ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_M_ARENA_MAX = -8  # of malloc.h
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def config_file(name: str) -> Path:
    """A file of the folder `config`, in the source tree, a ROS install or a Python environment.

    Raises:
        FileNotFoundError: it is in none of these places.
    """
    folders = [Path(__file__).resolve().parent.parent]
    folders += [
        Path(prefix) / "share" / "renderocc_ros"
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if prefix
    ]
    folders.append(Path(sys.prefix) / "share" / "renderocc_ros")
    for folder in folders:
        if (path := folder / "config" / name).is_file():
            return path
    raise FileNotFoundError(
        f"config/{name} is not beside the package nor in {', '.join(map(str, folders[1:]))}; install it again"
    )


def prepare_process() -> None:
    """Make the settings; call it before ROS and PyTorch start their threads. Settings of the user stay.

    - Threads of the network sleep while they wait for each other, instead of spinning. On a computer that also runs
      other programs, as in a vehicle, spinning makes a frame take many times as long.
    - Fast DDS gets buffers that hold a burst of images (config/fastdds.xml says why).
    - All threads share two heaps. glibc would make eight for each core, and about twenty threads, with new ones after
      each configuration, would fill them with fragments: hundreds of MiB in an hour.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not any(variable in os.environ for variable in PROFILE_VARIABLES):
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(config_file("fastdds.xml"))))
    share_heaps(2)


def share_heaps(count: int) -> None:
    """Let glibc make at most `count` heaps. Other C libraries, and MALLOC_ARENA_MAX if it is set, stay as they are."""
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)


def return_free_memory() -> None:
    """Give the system the freed memory that glibc keeps. Making a network and releasing one leave much of it."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def end_at_first_signal() -> None:
    """Let the first SIGINT or SIGTERM raise KeyboardInterrupt in the main thread, and ignore later ones.

    Ctrl-C on `ros2 launch` comes twice, from the terminal and from launch. The second must not kill a process that is
    ending already, so it stays ignored while Python shuts down. Use it with rclpy.init without rclpy's own handlers.
    """

    def interrupt(_number, _frame) -> None:
        ignore_signals()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Delay SIGINT and SIGTERM to the end of the block: an exception while PyTorch is loading can crash it in C++.

    In other threads than the main one it does nothing, because Python handles signals only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def leave(status: int) -> NoReturn:
    """End this process at once, without the interpreter's clean-up.

    The process must have given everything back, above all its ROS node. Otherwise other programs see the node for 20 s,
    and its shared memory stays until the next boot. The interpreter's clean-up would collect all objects of PyTorch,
    which takes a second or more, and five on a busy computer.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader is gone, or it is closed
            stream.flush()
    os._exit(status)


def ignore_signals() -> None:
    """Ignore signals while the process ends. Unlike a handler, SIG_IGN also works in the shutdown."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
