"""What a campaign found: growth of the node's processes, the table of docs/reliability.md, the results as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import defaultdict
from pathlib import Path

import numpy as np

from campaign.faults.catalogue import FAULTS
from campaign.faults.judge import Promises
from campaign.json_lines import append, read_lines
from campaign.stage import CAMERA_TIMEOUT, DIAGNOSTICS_PERIOD

__all__ = ["finished", "growth", "mended", "set_aside_broken", "summary", "table"]

FEWEST = 30  # runs of one process from which its growth is told, by their second half
STEEP = 0.1  # MiB a run: if even the lower end of the confidence interval is above, memory leaks
MANY = 0.02  # threads, descriptors or waiting images a run


def set_aside_broken(out: Path) -> None:
    """Move the records of broken runs from results.jsonl to earlier.jsonl, so that the runs are made again."""
    path = out / "results.jsonl"
    records = read_lines(path)
    for record in records:
        if record["broken"]:
            append(out / "earlier.jsonl", record)
    kept = path.with_suffix(".new")
    kept.write_text("".join(json.dumps(record) + "\n" for record in records if not record["broken"]))
    kept.replace(path)


def mended(records: list[dict], earlier: list[dict]) -> list[dict]:
    """Runs in which an invariant broke once, and all of them held when the run was made again."""
    whole = {record["index"] for record in records if not record["broken"]}
    return [
        {"only": " + ".join(record["faults"]), "seed": record["seed"], "broken": record["broken"]}
        for record in earlier
        if record["index"] in whole
    ]


def finished(records: list[dict]) -> set[int]:
    return {record["index"] for record in records}


def slope(values: list[float]) -> tuple[float, float]:
    """Least-squares rise per run and the half width of its 95 % confidence interval (normal errors)."""
    x, y = np.arange(len(values), dtype=float), np.array(values, float)
    x -= x.mean()
    rise = float((x * y).sum() / (x * x).sum())
    rest = y - y.mean() - rise * x
    return rise, 1.96 * math.sqrt(float((rest**2).sum()) / max(1, len(y) - 2) / float((x * x).sum()))


def growth(records: list[dict]) -> list[dict]:
    """How much memory (MiB), threads, descriptors and waiting images rise from run to run, for each long-lived process.

    Of the second half of its life: in the first, every kind of fault takes its path through the code for the first
    time, and what is loaded and allocated then stays.
    """
    lives: dict[int, list[dict]] = defaultdict(list)
    for record in records:
        if record.get("after"):
            lives[record["node"]].append(record["after"])
    found = []
    for pid, held in lives.items():
        if len(held) < FEWEST:
            continue
        entry: dict = {"process": pid, "runs": len(held)}
        for name in ("memory", "threads", "files", "images"):
            values = [holdings[name] for holdings in held]
            rise, half = slope(values[len(values) // 2 :])
            entry[name] = {
                "first": values[0],
                "middle": values[len(values) // 2],
                "last": values[-1],
                "per_run": round(rise, 4),
                "confidence": round(half, 4),
            }
        entry["broken"] = [
            f"growth: {name} rises by {entry[name]['per_run']:.3g} +- {entry[name]['confidence']:.2g} a run"
            for name, limit in (("memory", STEEP), ("threads", MANY), ("files", MANY), ("images", MANY))
            if entry[name]["per_run"] - entry[name]["confidence"] > limit
        ]
        found.append(entry)
    return found


def middle_and_worst(values: list[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{float(np.median(known)):.2f}, {known[-1]:.2f}" if known else "-"


def summary(records: list[dict]) -> dict:
    """Figures of a campaign, for JSON and the table."""
    rows = []
    for name, fault in FAULTS.items():
        alone = [record for record in records if record["faults"] == [name]]
        combined = [record for record in records if name in record["faults"] and len(record["faults"]) > 1]
        both = alone + combined
        if not both:
            continue
        rows.append(
            {
                "fault": name,
                "group": fault.group,
                "what": fault.what,
                "runs": len(alone),
                "combined": len(combined),
                "report": [r["report"][r["faults"].index(name)] for r in both] if fault.named or fault.said else [],
                "recovery": [record["recovery"] for record in alone],
                "exits": sorted({r["exit"] for r in alone if r["exit"] is not None}),
                "broken": [
                    {
                        "seed": r["seed"],
                        "only": " + ".join(r["faults"]),
                        "simulated": r["simulated"],
                        "broken": r["broken"],
                    }
                    for r in both
                    if r["broken"]
                ],
            }
        )
    combos = [record for record in records if len(record["faults"]) > 1]
    lives = growth(records)
    return {
        "runs": len(records),
        "faults": sum(len(record["faults"]) for record in records),
        "kinds": len(rows),
        "combinations": len(combos),
        "broken_runs": sum(bool(record["broken"]) for record in records),
        "grids": sum(record["grids"] for record in records),
        "volumes_judged": sum(record["saved_judged"] for record in records),
        "grids_judged": sum(record["grids"] for record in records if record["free_judged"]),
        "maps": sum(record["maps"] for record in records),
        "moving": sum(record["moving"] for record in records),
        "maps_judged": sum(record["maps"] for record in records if record["free_judged"]),
        "repeated": sum(record["attempt"] for record in records),
        "recovery_combined": [record["recovery"] for record in combos],
        "load": [min(r["load"] for r in records), max(r["load"] for r in records)] if records else [],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "growth": lives,
        "rows": rows,
    }


def table(result: dict) -> str:
    """The campaign as Markdown."""
    least, most = result["load"]
    lines = [
        f"{result['faults']} faults of {result['kinds']} kinds in {result['runs']} runs, {result['combinations']} of "
        f"them with two or three at once. Of {result['grids']} grids, {result['grids_judged']} were compared with what "
        f"the cameras can have seen, and so were {result['maps_judged']} of {result['maps']} maps, "
        f"{result['moving']} voxels of what moves in them, and the volumes of {result['volumes_judged']} calls of "
        f"~/save. "
        f"{result['machine']}; load {least:.1f} to {most:.1f}. "
        f"{result['repeated']} runs were repeated because the machine itself stalled. "
        f"Runs in which an invariant broke: {result['broken_runs']}.",
        "",
        f"`camera_timeout` was {CAMERA_TIMEOUT:g} s and diagnostics came every {DIAGNOSTICS_PERIOD:g} s: a fault "
        f"had to be reported within {Promises().report:g} s, and outputs had to be back within "
        f"{Promises().recovery:g} s.",
        "",
        "| fault | what happens | runs alone + with other faults | reported after, s: median, longest "
        "| outputs back after, s: median, longest | runs in which an invariant broke |",
        "|---|---|---|---|---|---|",
    ]
    group = ""
    for row in result["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| **{group}** | | | | | |")
        ended = f"; ended with {', '.join(map(str, row['exits']))}" if row["exits"] else ""
        broken = ", ".join(f"`--only '{case['only']}' --seed {case['seed']}`" for case in row["broken"]) or "0"
        lines.append(
            f"| {row['fault']} | {row['what']}{ended} | {row['runs']} + {row['combined']} | "
            f"{middle_and_worst(row['report'])} | {middle_and_worst(row['recovery'])} | {broken} |"
        )
    lines.append(
        f"| combinations | two or three of the above | {result['combinations']} | | "
        f"{middle_and_worst(result['recovery_combined'])} | |"
    )
    if result.get("mended"):
        lines += [
            "",
            "In these runs an invariant broke at first. They were repeated after the faults that they found had been "
            "mended, and every invariant held:",
            "",
        ]
        for case in result["mended"]:
            lines.append(f"- `--only '{case['only']}' --seed {case['seed']}`: {case['broken'][0][:160]}")
    lines += ["", *growth_lines(result["growth"])]
    return "\n".join(lines)


def growth_lines(lives: list[dict]) -> list[str]:
    lines = [
        "| process | runs | memory, MiB: at first, in the middle, at last; increase per run in the second half "
        "| threads | open files | images waiting |",
        "|---|---|---|---|---|---|",
    ]
    for number, life in enumerate(lives, 1):
        memory, threads, files, images = (life[name] for name in ("memory", "threads", "files", "images"))
        lines.append(
            f"| {number} | {life['runs']} | {memory['first']:.0f}, {memory['middle']:.0f}, "
            f"{memory['last']:.0f}; {memory['per_run']:+.3f} ± {memory['confidence']:.3f} | "
            f"{threads['first']} to {threads['last']} | "
            f"{files['first']} to {files['last']} | {images['first']} to {images['last']} |"
        )
    open_growth = [f"- process {number}: {line}" for number, life in enumerate(lives, 1) for line in life["broken"]]
    if open_growth:
        lines += ["", f"Open: memory may rise by no more than {STEEP} MiB a run.", "", *open_growth]
    return lines
