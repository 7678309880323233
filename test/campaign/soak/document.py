"""The results of a soak: soak.json, soak.jpg and its section of the document."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from campaign.json_lines import read_lines
from campaign.output import Image, machine, noted_command, write_results

from .plot import Curve, Panel, draw
from .statistics import column, longest_life, summary

__all__ = ["conclude"]

_OLDEST_S = 10.0  # ages above are drawn as this one


def conclude(out: Path, document: Path | None) -> int:
    """Write summary and curves beside the samples and, if asked for, into the document; 1 if anything went wrong."""
    samples, events = read_lines(out / "samples.jsonl"), read_lines(out / "events.jsonl")
    found = summary(samples, events)
    found["machine"], found["made_by"] = machine(), noted_command(out)
    caption = "Memory, latency, age of the newest result, queues, threads and files over time"
    image = Image("soak.jpg", caption, curves(samples, events))
    write_results(out, "soak", found, describe(found), document, [image])
    return 1 if found["ended"] or found["failed"] or found["wrong"] else 0


def curves(samples: list[dict], events: list[dict]) -> bytes:
    """The curves of the process that lived longest, as a JPEG."""
    life = longest_life(samples)
    times = column(life, "t")

    def curve(name: str, label: str = "", factor: float = 1.0) -> Curve:
        return Curve(label or name, times, factor * column(life, name))

    # A fault that changes stamps can make results seem of any age.
    ages = [np.minimum(entry["ages"], _OLDEST_S) if entry["ages"] else np.array([np.nan]) for entry in life]
    worst = Curve("worst of a second", times, np.array([age.max() for age in ages]))
    middle = Curve("median of a second", times, np.array([np.median(age) for age in ages]))
    panels = [
        Panel("memory [MiB]", (curve("memory", "resident"), curve("pss", "by share"), curve("own", "its own")), 20.0),
        Panel("latency [ms]", (curve("p99"), curve("p50")), 20.0),
        Panel(f"age of the newest result, up to {_OLDEST_S:g} [s]", (worst, middle), 0.5),
        Panel("images waiting in the node", (curve("held"),), 5.0),
        Panel("threads, files", (curve("files"), curve("threads")), 5.0),
    ]
    number = life[0]["life"]
    faults = [(event["t"], event["end"]) for event in events if event["life"] == number and "end" in event]
    return cv2.imencode(".jpg", draw(panels, faults), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def describe(found: dict) -> str:
    """The summary as Markdown."""
    memory = found[found["memory_kind"]]
    lines = [
        f"{found['minutes']:.0f} minutes, {found['processes']} process{'es' * (found['processes'] != 1)}, "
        f"{found['faults']} faults of {found['kinds']} kinds; {found['machine']} ({found['made_by']}). The process "
        f"that lived longest ({found['minutes_of_longest_life']:.0f} minutes) published {found['published']} frames, "
        f"skipped {found['skipped']} for newer ones and failed at {found['failed']}. "
        f"Processes that ended by themselves: {len(found['ended'])}.{beside(found['load'])}",
        "",
        "| figure | median | p99 | change per hour, 95 % confidence | of that in the second half |",
        "|---|---|---|---|---|",
        _row(f"memory ({'its own, heap and stacks' if found['memory_kind'] == 'own' else 'resident'}), MiB", memory, 1),
        _row("threads", found["threads"], 0),
        _row("open files", found["files"], 0),
        _row("images waiting", found["held"], 0),
        _row("latency p50 of the last frames, ms", found["p50"], 0),
        _row("latency p99 of the last frames, ms", found["p99"], 0),
    ]
    for name, what in (("all", "over all"), ("without_fault", "while no fault was on")):
        ages = found["age_of_newest_result"][name]
        if ages:
            lines.append(f"| age of the newest result {what}, s | {ages['p50']:.2f} | {ages['p99']:.2f} | | |")
    lines += [
        "",
        "Medians and change: of all but the first third, in which buffers and heaps grow to their size; change by "
        "least squares, its confidence by a moving-block bootstrap of the residuals, in blocks of 2 minutes.",
    ]
    for event in (*found["ended"], *found["wrong"]):
        told = "; ".join(str(event.get(key)) for key in ("said", "broken", "unexpected") if event.get(key))
        lines.append(f"- at {event['t'] / 60:.1f} minutes, {event.get('fault', 'no fault')}: {told[:300]}")
    return "\n".join(lines)


def beside(load: dict) -> str:
    """How busy the machine was."""
    return f" Load average of the machine: {load['p50']:.1f}, at most {load['most']:.1f}." if load else ""


def _row(name: str, figures: dict, digits: int) -> str:
    cells = [f"{figures[key]:.{digits}f}" if key in figures else "-" for key in ("p50", "p99")]
    for key in ("trend", "second_half"):
        one = figures[key]
        cells.append("-" if one is None else f"{one['per_hour']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})")
    return f"| {name} | {' | '.join(cells)} |"
