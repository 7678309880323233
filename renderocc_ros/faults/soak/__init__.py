"""`renderocc soak`: hours of six cameras and random faults, with what the node holds and how late it is over time."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

DOMAIN = 70


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc soak",
        description="Run the real node on six cameras for a long time, hurt it at random moments, and look every "
        "second at its memory, threads, files, queues and latency. Says how memory and latency change with time, and "
        "how surely. A soak that was interrupted goes on, with a new process, when the same command is given again.",
        epilog="example: renderocc soak --minutes 30 --out soak_output --docs docs/reliability.md",
    )
    made.add_argument("--out", type=Path, required=True, help="folder for samples, logs, summary and picture")
    made.add_argument("--minutes", type=float, default=30.0, help="how long, over all interruptions (default 30)")
    made.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="frames a second (default 5)")
    made.add_argument(
        "--pause", type=float, default=5.0, metavar="S", help="mean time between two faults (default 5); 0: no faults"
    )
    made.add_argument("--seed", type=int, default=0, help="of faults and their moments (default 0)")
    made.add_argument("--bag", type=Path, help="recording to show (default: a street of the simulated town)")
    made.add_argument("--checkpoint", default="tiny", help="a file, tiny (the package's own; default) or small")
    made.add_argument("--domain", type=int, default=DOMAIN, help=f"ROS domain (default {DOMAIN})")
    made.add_argument("--summary", action="store_true", help="run nothing: sum up the samples there are")
    made.add_argument("--docs", type=Path, metavar="FILE", help="also write its section of this document, and "
                      "soak.json and soak.jpg into the folder of the same name beside it")  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc soak`: 0 when it is summed up, 1 where the node ended or failed by itself, 2 on bad input."""
    arguments = parser().parse_args(argv)
    os.environ.update(ROS_DOMAIN_ID=str(arguments.domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    from renderocc_ros.process import prepare_process

    prepare_process()
    from ..origin import origin
    from ..scene import SceneError
    from ..stage import StageError
    from .document import conclude
    from .samples import read_lines

    out: Path = arguments.out.resolve()
    try:
        if arguments.minutes <= 0 or not 0.2 <= arguments.rate <= 100 or arguments.pause < 0:
            raise ValueError("--minutes is above 0, --rate 0.2 to 100, --pause at least 0")
        out.mkdir(parents=True, exist_ok=True)
        if not arguments.summary:
            from .run import Soak

            settings = f"--minutes {arguments.minutes:g} --rate {arguments.rate:g} --seed {arguments.seed}"
            origin(out, f"renderocc soak {settings}")
            bag = arguments.bag.resolve() if arguments.bag else six_cameras(out)
            soak = Soak(out, bag, network(arguments.checkpoint, out), arguments.domain, arguments.rate)
            soak.run(arguments.minutes * 60, arguments.pause, arguments.seed)
        if not read_lines(out / "samples.jsonl"):
            raise ValueError(f"{out}: no samples in it")
        return conclude(out, arguments.docs)
    except KeyboardInterrupt:
        print(f"stopped; give the same command again to go on: {out}")
        return 130
    except (ValueError, OSError, SceneError, StageError) as error:
        print(f"renderocc soak: {error}", file=sys.stderr)
        return 2


def six_cameras(out: Path) -> Path:
    """A street of the simulated town through six cameras, recorded once.

    Raises:
        SceneError: the town could not be made.
    """
    from ..scene import SceneError

    bag = out / "town"
    if not bag.exists():
        print("recording a street of the simulated town", flush=True)
        command = (
            "simulate", str(bag), "--frames", "8", "--rate", "5", "--seed", "11", "--width", "640", "--height", "240",
            "--no-lidar", "--no-labels", "--no-truth",
        )  # fmt: skip
        done = subprocess.run([sys.executable, "-m", "renderocc_model.cli", *command], capture_output=True, text=True)
        if done.returncode:
            raise SceneError(f"the town could not be simulated: {done.stderr.strip()[-300:]}; name one with --bag")
    return bag


def network(named: str, out: Path) -> Path:
    """The checkpoint's file.

    Raises:
        ValueError: there is none.
    """
    from renderocc_model.packaged import checkpoint_file

    from ..scene import small_network

    if named == "small":
        return small_network(out / "small.safetensors")
    path = checkpoint_file(named)
    if not path.is_file():
        raise ValueError(f"{path} is not there; name a .safetensors checkpoint, or small")
    return path.resolve()
