"""`make command-faults`: inject faults into every command, each in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from campaign.options import campaign_parser

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    from .injections import FAULTS
    from .subjects import SUBJECTS

    made = campaign_parser(
        "commands",
        "Inject faults into the commands that write recordings, labels, tables, networks and figures: signals at "
        "random moments, a full or locked disk, no memory, damaged inputs. Each run checks whether the command said "
        "what was wrong, left no process and nothing half-written that looks whole, and came to the same result when "
        "given again. A run that has a result in OUT is not made again.",
        "example: make command-faults COMMAND_FAULTS='--runs 200 --jobs 2'",
    )
    made.add_argument("--runs", type=int, default=200, metavar="N", help="runs, of all of them (default 200)")
    made.add_argument("--seed", type=int, default=0, help="which faults, when and where (default 0)")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    made.add_argument("--commands", nargs="+", default=[], choices=tuple(SUBJECTS), metavar="NAME", help="these only")
    made.add_argument("--faults", nargs="+", default=[], choices=tuple(FAULTS), metavar="FAULT", help="these only")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`make command-faults`: 0 where every command reacted to every fault as it should, 1 where not, 2 on bad input."""
    arguments = parser().parse_args(argv)
    from .campaign import Campaign
    from .report import table, update_document

    try:
        if arguments.runs < 1 or arguments.jobs < 1 or arguments.seed < 0:
            raise ValueError("--runs and --jobs are at least 1, --seed at least 0")
        campaign = Campaign(arguments.out, arguments.seed)
        campaign.out.mkdir(parents=True, exist_ok=True)
        plan = campaign.plan(arguments.runs, arguments.commands, arguments.faults)
        for result in campaign.run(plan, arguments.jobs):
            print(line(result, len(plan)), flush=True)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"command-faults: {error}", file=sys.stderr)
        return 2
    results = campaign.read()
    print(table(results))
    if arguments.docs is not None:
        update_document(arguments.docs, results, arguments.seed)
        print(f"wrote {arguments.docs.resolve()}")
    print(f"wrote {campaign.results}")
    return 1 if any(result["wrong"] for result in results) else 0


def line(result: dict, total: int) -> str:
    """One run as a line for the terminal."""
    where = f" in {result['damaged']}" if result["damaged"] else ""
    wrong = f"\n    WRONG: {'; '.join(result['wrong'])}\n    said: {result['said']}" if result["wrong"] else ""
    return (
        f"[{result['run']}, {total} runs] {result['command']}: {result['fault']}{where} ({result['detail']}): "
        f"{result['met']}{wrong}"
    )


if __name__ == "__main__":
    sys.exit(main())
