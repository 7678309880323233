"""Settings of a process that ROS and PyTorch read once, when they are loaded, and how a process ends."""

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
        FileNotFoundError: it is in none of them.
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
    """Call before rclpy and torch are imported or initialised; what the user has set is left alone.

    - Threads of a network that wait for each other sleep instead of spinning: on a computer that is busy with other
      programs too, as vehicles' are, spinning makes a frame take many times as long.
    - Fast DDS gets buffers that hold a burst of images (config/fastdds.xml says why).
    - Threads share two heaps: of glibc's eight for each core, twenty threads, and new ones after each configuration,
      fill one after the other with what lies between images and volumes: hundreds of MiB in an hour.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not any(variable in os.environ for variable in PROFILE_VARIABLES):
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(config_file("fastdds.xml"))))
    share_heaps(2)


def share_heaps(count: int) -> None:
    """Let glibc make no more than so many heaps; elsewhere, and where MALLOC_ARENA_MAX is set, nothing is changed."""
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)


def return_free_memory() -> None:
    """Give the system what glibc keeps of freed memory; a network that is made and one that goes leave much of it."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def end_at_first_signal() -> None:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread; later ones change nothing.

    Ctrl-C on `ros2 launch` comes twice, from the terminal and from launch. The second must not kill a process that is
    about to end by itself, so it stays ignored while Python shuts down. For rclpy.init without its own handlers.
    """

    def interrupt(_number, _frame) -> None:
        ignore_signals()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """SIGINT and SIGTERM are heard at the end of the block: an exception in the middle of loading PyTorch can end the
    process in C++. Elsewhere than in the main thread, where no signal is heard, nothing is changed."""
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
    """End this process at once. It must have given everything back, its ROS node above all: what ends without that
    stays on the graph of other programs for 20 s, and its shared memory until the next boot.

    The interpreter would still collect all objects of PyTorch: a second or more, and five on a busy computer.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(status)


def ignore_signals() -> None:
    """For a process that already ends. Unlike a Python handler, SIG_IGN holds while the interpreter shuts down too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
