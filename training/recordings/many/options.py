"""The options of commands that work on many recordings."""

from __future__ import annotations

import argparse
import os

from .task import Workers

__all__ = ["add_recordings", "add_sharing", "workers_from"]

_MAX_THREADS = 8  # of one recording, where nobody gives a number


def add_recordings(parser: argparse.ArgumentParser) -> None:
    """Add the words that name recordings, `bags`; see `find_recordings`."""
    parser.add_argument(
        "bags",
        nargs="+",
        metavar="BAG",
        help="recordings; or folders, globs ('drives/**', quoted) and text files (@list.txt) that name recordings",
    )


def add_sharing(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add `--jobs` and `--ray`.

    Args:
        parser: of the command.
        also: what else `--jobs` is the number of.
    """
    parser.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help=f"recordings at a time{also} (default: number of CPU cores; on a Ray cluster, all)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="share the recordings out over a Ray cluster: its address, as host:6379, or 'local' for workers on this "
        "machine (python3 -m pip install -r requirements-ray.txt)",
    )


def workers_from(arguments: argparse.Namespace, recordings: int, gpus: int = 0) -> Workers:
    """Who works on recordings, by the options of `add_sharing`.

    Args:
        arguments: the options.
        recordings: their number.
        gpus: GPUs that each needs.
    Raises:
        ValueError: a number is wrong.
    """
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ValueError(f"--jobs is {arguments.jobs}; expected at least 1")
    cores = len(os.sched_getaffinity(0))
    wanted = arguments.jobs or (cores if arguments.ray in (None, "local") else recordings)
    at_once = min(wanted, recordings)
    threads = 1 if arguments.ray else wanted // at_once
    return Workers(at_once, threads if arguments.jobs else min(threads, _MAX_THREADS), arguments.ray, gpus)
