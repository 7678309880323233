"""What the campaigns have in common: where they write, the options of a stage, and how such a command ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_stage_options", "campaign_parser", "on_own_domain", "recording_and_network"]

OUTPUT = Path("campaign_output")  # each campaign has a folder in it


def campaign_parser(package: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of `python -m campaign.<package>`, with --out and --docs."""
    made = argparse.ArgumentParser(
        prog=f"python -m campaign.{package}",
        description=description if "\n" in description else textwrap.fill(description, 100),
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = OUTPUT / package
    made.add_argument("--out", type=Path, default=default, help="folder for results and logs (default %(default)s)")
    made.add_argument(
        "--docs",
        type=Path,
        metavar="FILE",
        help="also write its section of this Markdown file, and its figures into the folder of the same name beside it",
    )
    return made


def add_stage_options(made: argparse.ArgumentParser, domain: int) -> None:
    """--bag, --checkpoint and --domain."""
    made.add_argument("--bag", type=Path, help="recording to show (default: a street of the simulated town)")
    made.add_argument("--checkpoint", default="tiny", help="a file, tiny (the package's own; default) or small")
    made.add_argument("--domain", type=int, default=domain, help=f"ROS domain (default {domain})")


def recording_and_network(arguments: argparse.Namespace, out: Path) -> tuple[Path, Path]:
    """The recording to show and the checkpoint's file, made in `out` where none is named.

    Raises:
        ValueError: there is no such checkpoint. SceneError: the town could not be made.
    """
    from system import small_network

    from renderocc_model.network.packaged import checkpoint_file

    from .recordings import surround_recording

    if arguments.checkpoint == "small":
        network = small_network(out / "small.safetensors")
    else:
        network = checkpoint_file(arguments.checkpoint).resolve()
        if not network.is_file():
            raise ValueError(f"{network} is not there; name a .safetensors checkpoint, or small")
    return arguments.bag.resolve() if arguments.bag else surround_recording(out), network


def on_own_domain(name: str, arguments: argparse.Namespace, work: Callable[[Path], int]) -> int:
    """Call `work` with the output folder, in a process whose ROS domain reaches this machine alone.

    Args:
        name: of the campaign, for its errors.
        arguments: with `out` and `domain`.
        work: gives the exit status; what it has measured when it is stopped is kept.
    Returns:
        its status; 2 and a line where the input is bad, 130 where Ctrl-C or SIGTERM stopped it.
    """
    os.environ.update(ROS_DOMAIN_ID=str(arguments.domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    for number in (signal.SIGINT, signal.SIGTERM):  # the shell ignores the former for what runs in the background
        signal.signal(number, signal.default_int_handler)
    from renderocc_ros.process import prepare_process

    prepare_process()
    from .stage import StageError

    out: Path = arguments.out.resolve()
    try:
        return work(out)
    except KeyboardInterrupt:
        print(f"stopped; give the same command again to go on: {out}")
        return 130
    except (ValueError, OSError, StageError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
