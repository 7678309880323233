"""The table of the load test."""

from __future__ import annotations

from pathlib import Path

from campaign.json_lines import read_lines
from campaign.output import machine, markdown_table, noted_command, write_results

__all__ = ["bounded", "conclude", "load_table"]

_KEPT_UP = 0.95  # of the wanted rate: below, the source is the limit


def bounded(row: dict, age: float) -> bool:
    """Whether the source kept its rate and the newest result stayed young."""
    return row["age_p99"] is not None and row["age_p99"] < age and row["sent_rate"] >= _KEPT_UP * row["rate"]


def load_table(rows: list[dict], age: float) -> str:
    """Markdown: of each size and transport, the highest rate that was kept, and the next one."""
    heading = [
        "images",
        "rate, Hz",
        "sent, Hz (MB/s)",
        "taken in, Hz",
        "results, Hz",
        "age of the newest, s: p50, p99, most",
        "frames skipped for newer",
        "images dropped, by reason",
        "cores: node, source",
        "kept",
    ]
    lines: list[list[str]] = []
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["transport"], row["width"], row["height"]), []).append(row)
    for (transport, width, height), those in groups.items():
        those.sort(key=lambda row: row["rate"])
        kept = [row for row in those if bounded(row, age)]
        shown = [*kept[-1:], *[row for row in those if not kept or row["rate"] > kept[-1]["rate"]][:1]]
        lines += [_cells(row, f"{width}x{height} {transport}", bounded(row, age)) for row in shown]
    return markdown_table(heading, lines)


def _cells(row: dict, images: str, kept: bool) -> list[str]:
    dropped = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items()) or "none"
    ages = "no result"
    if row["age_p50"] is not None:
        ages = f"{row['age_p50']:.2f}, {row['age_p99']:.2f}, {row['age_most']:.2f}"
    slow = row["sent_rate"] < _KEPT_UP * row["rate"]
    return [
        images,
        f"{row['rate']:g}",
        f"{row['sent_rate']:.1f} ({row['sent_rate'] * row['bytes_of_a_frame'] / 1e6:.0f})",
        f"{row['received_rate']:.1f}",
        f"{row['output_rate']:.1f}",
        ages,
        str(row["skipped"]),
        dropped,
        f"{row['node_cores']:.1f}, {row['source_cores']:.1f}",
        "yes" if kept else "source too slow" if slow else "no",
    ]


def conclude(out: Path, age: float, document: Path | None) -> int:
    """Write load.json and, if asked for, the section of the document."""
    rows = read_lines(out / "results.jsonl")
    figures = {"machine": machine(), "made_by": noted_command(out), "age_bound": age, "rows": rows}
    cameras = max((row["cameras"] for row in rows), default=0)
    text = (
        f"{cameras} cameras, the node with its usual parameters beside the source on {figures['machine']} "
        f"({figures['made_by']}). Of each size "
        f"and transport, the highest rate at which the newest result's age stayed below {age:g} s (p99, the age of an "
        "image counts from its stamp), and the first rate that was too much. Frames that are skipped and images that "
        "are dropped are what the node counts and says in /diagnostics.\n\n" + load_table(rows, age)
    )
    write_results(out, "load", figures, text, document)
    return 0
