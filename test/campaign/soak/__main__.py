"""`make soak`: the node on six cameras under random faults for hours; its memory and latency over time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from campaign.options import add_stage_options, campaign_parser, on_own_domain, recording_and_network

__all__ = ["main"]

DOMAIN = 70


def parser() -> argparse.ArgumentParser:
    made = campaign_parser(
        "soak",
        "Run the real node on six cameras for a long time, inject faults at random moments, and look every "
        "second at its memory, threads, files, queues and latency. Says how memory and latency change with time, and "
        "how surely. A soak that was interrupted goes on, with a new process, when the same command is given again.",
        "example: make soak SOAK='--minutes 30 --docs docs/reliability.md'",
    )
    made.add_argument("--minutes", type=float, default=30.0, help="how long, over all interruptions (default 30)")
    made.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="frames a second (default 5)")
    made.add_argument(
        "--pause", type=float, default=5.0, metavar="S", help="mean time between two faults (default 5); 0: no faults"
    )
    made.add_argument("--seed", type=int, default=0, help="of faults and their moments (default 0)")
    add_stage_options(made, DOMAIN)
    made.add_argument("--summary", action="store_true", help="run nothing: sum up the samples there are")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`make soak`: 0 when it is summed up, 1 where the node ended or failed by itself, 2 on bad input."""
    arguments = parser().parse_args(argv)
    return on_own_domain("soak", arguments, lambda out: _soak(out, arguments))


def _soak(out: Path, arguments: argparse.Namespace) -> int:
    from campaign.json_lines import read_lines
    from campaign.output import noted_command

    from .document import conclude

    if arguments.minutes <= 0 or not 0.2 <= arguments.rate <= 100 or arguments.pause < 0:
        raise ValueError("--minutes is above 0, --rate 0.2 to 100, --pause at least 0")
    out.mkdir(parents=True, exist_ok=True)
    if not arguments.summary:
        from .run import Soak

        settings = f"--minutes {arguments.minutes:g} --rate {arguments.rate:g} --seed {arguments.seed}"
        noted_command(out, f"make soak SOAK='{settings}'")
        soak = Soak(out, *recording_and_network(arguments, out), arguments.domain, arguments.rate)
        soak.run(arguments.minutes * 60, arguments.pause, arguments.seed)
    if not read_lines(out / "samples.jsonl"):
        raise ValueError(f"{out}: no samples in it")
    return conclude(out, arguments.docs)


if __name__ == "__main__":
    sys.exit(main())
