"""Writes report.html: one file, with its images inside, about what `renderocc learn` has done."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.files import replacing
from training.evaluate.report import evaluation_text

from .pictures import curve, embedded, label_picture, truth_picture
from .plan import Plan

__all__ = ["write_report"]

_STYLE = (
    "body{font:15px sans-serif;max-width:1280px;margin:2em auto;padding:0 1em;color:#1e2228}"
    "img,svg{max-width:100%;height:auto}svg{width:640px;font:12px sans-serif}"
    "pre{background:#f6f7f9;padding:1em;overflow-x:auto;white-space:pre-wrap}"
)


def write_report(plan: Plan, learned: Sequence[str], held_out: Sequence[str]) -> Path:
    """Write the report. All steps before it are done.

    Args:
        plan: what was done.
        learned, held_out: names of the recordings that were trained on, and of the others.
    Returns:
        its path, report.html in the plan's folder.
    Raises:
        ValueError, OSError: a result cannot be read, or the report not written.
    """
    parts = [_used(plan, learned, held_out), _checked(plan), _labels(plan), _truth(plan), _curves(plan)]
    parts += [_figures(plan, learned, held_out), _views(plan, held_out)]
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(plan.out.name)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>What was learned: {html.escape(plan.out.name)}</h1>"
        f"{''.join(parts)}</body></html>\n"
    )
    path = plan.out / "report.html"
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _section(title: str, *content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{''.join(content)}"


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _used(plan: Plan, learned: Sequence[str], held_out: Sequence[str]) -> str:
    lines = [plan.text(), "", *(f"{bag.name}: {bag.bag}" for bag in plan.bags)]
    lines += [f"trained on: {', '.join(learned)}", f"held out: {', '.join(held_out) or 'none'}"]
    lines += [f"classes: {', '.join(plan.bags[0].table.names)}"]
    lines += [f"network for the node: {plan.out / 'run' / 'checkpoint.safetensors'}"]
    return _section("What was used", _pre("\n".join(lines)))


def _checked(plan: Plan) -> str:
    texts = [(plan.out / "check" / f"{bag.name}.txt").read_text(encoding="utf-8") for bag in plan.bags]
    found = [f"<details><summary>{bag.name}</summary>{_pre(text)}</details>" for bag, text in zip(plan.bags, texts)]
    return _section("Checks", *found)


def _labels(plan: Plan) -> str:
    content = ["<p>Depth (red is near, blue is far), and classes below it in the colours of their table.</p>"]
    for bag in plan.bags:
        picture = label_picture(bag.bag, bag.sidecar, plan.vehicle, bag.table)
        shown = "<p>no image has labels</p>" if picture is None else embedded(picture, f"labels of {bag.name}")
        content.append(f"<h3>{html.escape(bag.name)}</h3>{shown}")
    return _section("Labels", *content)


def _truth(plan: Plan) -> str:
    """The 3D truth that was accumulated; empty if there is none."""
    made = [bag for bag in plan.bags if bag.truth is not None]
    if not made:
        return ""
    content = [
        "<p>Accumulated from the LiDAR's sweeps, seen from above: forward is up, and a column has the colour of its "
        "topmost class. Evaluation compares the network with it. It is as good as LiDAR, ego poses and classes are: "
        "look for streets that are double or smeared.</p>"
    ]
    for bag in made:
        picture = truth_picture(plan.out / "truth" / bag.name, bag.table)
        shown = "<p>no volume</p>" if picture is None else embedded(picture, f"3D truth of {bag.name}")
        content.append(f"<h3>{html.escape(bag.name)}</h3>{shown}")
    return _section("3D truth", *content)


def _curves(plan: Plan) -> str:
    path = plan.out / "run" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    drawn = []
    for kind, key, title in (
        ("train", "loss", "loss of training"),
        ("held_out", "delta_1", "held-out distances within 25 % (share)"),
        ("held_out", "miou_2d", "held-out 2D mIoU"),
    ):
        points = [(row["step"], row[key]) for row in rows if row["kind"] == kind and row.get(key) is not None]
        drawn.append(curve(points, title))
    found = [text for text in drawn if text]
    return _section("Curves", *(found or ["<p>too few steps for a curve</p>"]))


def _figures(plan: Plan, learned: Sequence[str], held_out: Sequence[str]) -> str:
    result = json.loads((plan.out / "eval" / "evaluation.json").read_text(encoding="utf-8"))
    names = ", ".join(held_out or learned)
    note = (
        f"Of {names}, which was held out." if held_out else f"Of {names}, WHICH WAS TRAINED ON: nothing was held out."
    )
    if held_out and result["calibration"] is None:
        note += (
            " Training found the threshold of occupancy with its 2D labels, so the volumes' figures favour it a little."
        )
    truth = "" if plan.has_truth else " No recording has 3D truth, so there is no mIoU and no RayIoU."
    confusion = plan.out / "eval" / "confusion.png"
    picture = embedded(confusion, "confusion of classes") if plan.has_truth and confusion.exists() else ""
    return _section("Figures", f"<p>{html.escape(note + truth)}</p>", _pre(evaluation_text(result)), picture)


def _views(plan: Plan, held_out: Sequence[str]) -> str:
    pictures = sorted((plan.out / "run" / "pictures").glob("*.jpg"))
    last = pictures[-1].name.rpartition("_")[0] if pictures else ""
    shown = [embedded(path, path.stem) for path in pictures if path.name.rpartition("_")[0] == last]
    whose = "Held-out frames" if held_out else "Frames that were trained on (nothing was held out)"
    text = f"<p>{whose}: images, labelled and rendered classes and distances; on the right the volume from above.</p>"
    return _section("Views and the volume", text, *shown)
