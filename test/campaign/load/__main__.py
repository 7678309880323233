"""`make load`: more and larger images, until the node's newest result is too old."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from campaign.options import add_stage_options, campaign_parser, on_own_domain, recording_and_network

__all__ = ["main"]

DOMAIN = 74
SIZES = ("352x128", "704x256", "1280x720", "1936x1216")
RATES = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)


def parser() -> argparse.ArgumentParser:
    made = campaign_parser(
        "load",
        "Send the real node six cameras' images, of rising size and rate, as JPEG and raw, from a process "
        "of its own, and look how old its newest result is, what it takes in, what it sheds and whether it says so. A "
        "cell that is measured is not measured again.",
        "example: make load LOAD='--sizes 704x256 --docs docs/reliability.md'",
    )
    made.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH", help=f"of images (default {' '.join(SIZES)})")
    made.add_argument("--rates", nargs="+", type=float, default=RATES, metavar="HZ", help="5 to 60 by default")
    made.add_argument("--transports", nargs="+", default=("jpeg", "raw"), choices=("jpeg", "raw"), metavar="KIND")
    made.add_argument("--seconds", type=float, default=12.0, help="of each measurement (default 12)")
    made.add_argument("--age", type=float, default=1.0, metavar="S", help="bound of the age's p99 (default 1)")
    made.add_argument("--threads", type=int, default=0, help="of the network (default: all cores)")
    add_stage_options(made, DOMAIN)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`make load`: 0 when the table is whole, 2 where something could not be measured."""
    arguments = parser().parse_args(argv)
    return on_own_domain("load", arguments, lambda out: _load(out, arguments))


def _load(out: Path, arguments: argparse.Namespace) -> int:
    from campaign.output import noted_command

    from .table import conclude

    sizes = [size_of(text) for text in arguments.sizes]
    if not all(0.1 <= rate <= 1000 for rate in arguments.rates) or arguments.seconds < 1 or arguments.age <= 0:
        raise ValueError("--rates are 0.1 to 1000 Hz, --seconds at least 1, --age above 0")
    out.mkdir(parents=True, exist_ok=True)
    noted_command(out, f"make load LOAD='--seconds {arguments.seconds:g} --threads {arguments.threads}'")
    measure_all(out, arguments, sizes)
    return conclude(out, arguments.age, arguments.docs)


def size_of(text: str) -> tuple[int, int]:
    """Raises:
    ValueError: not WIDTHxHEIGHT of at least 32 pixels."""
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise ValueError(f"--sizes: {text!r}; expected WIDTHxHEIGHT of at least 32 pixels, as in 704x256")
    return int(found[1]), int(found[2])


def measure_all(out: Path, arguments: argparse.Namespace, sizes: list[tuple[int, int]]) -> None:
    """Measure the cells without a result; the rates of a size and transport rise until the node failed at two."""
    from campaign.json_lines import append, read_lines
    from campaign.recordings import load_scene

    from .measure import Cell, LoadedNode
    from .table import bounded

    results = out / "results.jsonl"
    bag, checkpoint = recording_and_network(arguments, out)
    cameras = load_scene(bag).cameras
    for transport in arguments.transports:
        for width, height in sizes:
            cells = [Cell((width, height, transport, rate)) for rate in sorted(arguments.rates)]
            known = {Cell((r["width"], r["height"], r["transport"], r["rate"])): r for r in read_lines(results)}
            if _enough([known[cell] for cell in cells if cell in known], arguments.age, len(cells)):
                continue
            with LoadedNode(out, bag, checkpoint, cameras, arguments.domain, arguments.threads) as node:
                for cell in cells:
                    row = known.get(cell)
                    if row is None:
                        row = known[cell] = {**node.measure(cell, arguments.seconds), "cameras": len(cameras)}
                        append(results, row)
                        good = "bounded" if bounded(row, arguments.age) else "too old, or not sent so fast"
                        age = row["age_p99"]
                        told = "no result" if age is None else f"newest result at most {age:.2f} s old (p99)"
                        print(
                            f"{cell.name}: sent {row['sent_rate']:.1f} Hz, out {row['output_rate']:.1f} Hz, {told}: "
                            f"{good}",
                            flush=True,
                        )
                    if _enough([known[each] for each in cells if each in known], arguments.age, len(cells)):
                        break


def _enough(rows: list[dict], age: float, count: int) -> bool:
    """Whether all rates are measured, or the node failed at the two fastest."""
    from .table import bounded

    rows = sorted(rows, key=lambda row: row["rate"])
    return len(rows) == count or (len(rows) >= 2 and not any(bounded(row, age) for row in rows[-2:]))


if __name__ == "__main__":
    sys.exit(main())
