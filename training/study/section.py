"""Writes a study's section of docs/study.md: what was run, tables and pictures."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluate.report import markdown_table
from .description import EXACT, LIDAR, MOTION, PARTS, Study, Table
from .results import Spread, spread

__all__ = ["NOT_RUN", "render_part", "render_table"]

NOT_RUN = "not run"
# (figure, heading, factor, digits)
_COLUMNS = (
    ("miou", "mIoU %", 100, 2),
    ("rayiou", "RayIoU %", 100, 2),
    ("rayiou_1", "@1 m", 100, 2),
    ("rayiou_2", "@2 m", 100, 2),
    ("rayiou_4", "@4 m", 100, 2),
    ("iou_occupied", "occupied IoU %", 100, 2),
    ("abs_rel", "AbsRel", 1, 3),
    ("rmse", "RMSE m", 1, 2),
    ("delta_1", "δ<1.25 %", 100, 1),
    ("miou_2d", "2D mIoU %", 100, 1),
)
_RELATIVE = ("miou", "rayiou")


def render_table(table: Table, study: Study, results: Mapping[str, dict]) -> str:
    """A table in Markdown. Cells are mean ± sample standard deviation over the seeds that were run."""
    header = ["", table.paper, *(heading for _, heading, _, _ in _COLUMNS), "runs"]
    if table.relative_to:
        header += [f"{heading.removesuffix(' %')}, % of it" for name, heading, _, _ in _COLUMNS if name in _RELATIVE]
    rows = []
    for row in table.rows:
        found = _figures(row.variant, study, results)
        cells = [row.label, row.paper or "–"]
        cells += [_cell(spread(found[name]), factor, digits) for name, _, factor, digits in _COLUMNS]
        cells.append(f"{len(_runs_of(row.variant, study, results))} of {len(study.config.seeds)}")
        if table.relative_to:
            reference = _figures(table.relative_to, study, results)
            cells += [_ratio(spread(found[name]), spread(reference[name])) for name in _RELATIVE]
        rows.append(cells)
    return markdown_table(header, rows)


def render_part(study: Study, results: Mapping[str, dict], pictures: Mapping[str, str]) -> str:
    """A study's section of the document.

    Args:
        study: the study.
        results: results by name of the run.
        pictures: captions by path relative to the document.
    """
    comparison = study.comparison
    parts = [f"## {study.config.title}", _what_was_run(study, results)]
    for table in comparison.tables if results else ():  # without results the tables would be empty
        parts.append(f"### {table.title}")
        parts += [table.note] if table.note else []
        parts.append(render_table(table, study, results))
    baselines = _baselines(results)
    if baselines:
        parts += ["### Without a network", baselines]
    parts += [f"![{caption}]({path})" for path, caption in pictures.items()]
    parts += ["### Variants", _variants(study)]
    return "\n\n".join(parts) + "\n"


def _runs_of(variant: str, study: Study, results: Mapping[str, dict]) -> list[dict]:
    names = [f"{variant}_{seed}" for seed in study.config.seeds]
    return [results[name] for name in names if name in results]


def _figures(variant: str, study: Study, results: Mapping[str, dict]) -> dict[str, list[float]]:
    runs = _runs_of(variant, study, results)
    return {
        name: [run["figures"][name] for run in runs if run["figures"][name] is not None] for name, _, _, _ in _COLUMNS
    }


def _cell(value: Spread | None, factor: float, digits: int) -> str:
    if value is None:
        return NOT_RUN
    text = f"{factor * value.mean:.{digits}f}"
    return text if value.deviation is None else f"{text} ± {factor * value.deviation:.{digits}f}"


def _ratio(value: Spread | None, reference: Spread | None) -> str:
    if value is None or reference is None:
        return NOT_RUN
    if not reference.mean:
        return "–"
    return f"{100 * value.mean / reference.mean:.1f}"


def _what_was_run(study: Study, results: Mapping[str, dict]) -> str:
    """The runs, towns, settings and machine that the figures are from."""
    config, data = study.config, study.config.data
    runs = list(study.runs())
    train = study.train_config(next(run for run in runs if run.variant.name == study.comparison.main))
    model, grid = train.model, train.model.grid
    towns = "; ".join(
        f"{part}: {len(getattr(data, part).seeds)} x {getattr(data, part).frames} frames, seeds "
        f"{_ranges(getattr(data, part).seeds)}"
        for part in PARTS
    )
    labels = f"{data.pixels_per_image:,} drawn evenly from each image" if data.pixels_per_image else "every pixel"
    size = " x ".join(f"{high - low:g}" for low, high in zip(grid.lower, grid.upper))
    lines = [
        f"- **Runs**: {len(results) or 'none'} of {len(runs)} ({len(study.comparison.variants)} variants, seeds "
        f"{_ranges(config.seeds)}){'' if len(results) == len(runs) else '; the rest was not run'}.",
        f"- **Towns**, simulated, at {data.rate:g} frames a second, images {data.width}x{data.height}: {towns}.",
        f"- **Labels**: class and distance of {labels}.{_made_labels(study)} Occupancy thresholds are found with the "
        "2D labels of the validation towns; test towns are used for nothing but the figures.",
        f"- **Network**: {model.backbone.name}, views {model.images.width}x{model.images.height}, grid {size} m at "
        f"{grid.voxel_size:g} m.",
        f"- **Training**: {train.steps:,} steps of {train.batch} sample{'s' * (train.batch > 1)}, at most "
        f"{train.sample.rays:,} rays each, learning rate {train.optimiser.learning_rate:g}.",
    ]
    if results:
        devices = sorted({f"{run['device']}, {run['threads']} threads a run" for run in results.values()})
        minutes = statistics.fmean(run["training_seconds"] / 60 for run in results.values())
        commits = sorted({str(run["source"]["commit"]) for run in results.values()})
        frames = next(iter(results.values()))["tested_on"]["frames"]
        lines.append(
            f"- **Machine**: {'; '.join(devices)}. {minutes:.1f} minutes of training a run, torch "
            f"{', '.join(sorted({run['source']['torch'] for run in results.values()}))}, source {', '.join(commits)}."
        )
        lines.append(
            f"- **Figures** are means over the seeds ± sample standard deviation, on {frames} test frames. "
            "mIoU is over voxels that the cameras see; RayIoU as SparseOcc defines it; AbsRel, RMSE, δ and 2D mIoU "
            "compare the rendered field with held-out labelled rays. The paper's figures are of nuScenes, with another "
            "network and 17 classes in real traffic: orders can be compared, values cannot."
        )
    return "\n".join(lines)


def _made_labels(study: Study) -> str:
    """What is to be said of labels that are not the simulator's; empty if there are none."""
    known = {
        LIDAR: " Labels `lidar` are the LiDAR's returns, as `renderocc label` makes them.",
        MOTION: " Labels `motion` are depth from motion with exact classes (`renderocc label --depth-from motion "
        "--semantic-topic`), at as many pixels as it finds.",
    }
    return "".join(known[labels] for labels in study.labels() if labels != EXACT)


def _ranges(numbers: Sequence[int]) -> str:
    """Whole numbers as text, with ranges, such as '1 to 3, 7'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _baselines(results: Mapping[str, dict]) -> str:
    found = next((run["baselines"] for run in results.values() if run["baselines"]), None)
    if found is None:
        return ""
    columns = [column for column in _COLUMNS if column[0] in next(iter(found.values()))]
    titles = {
        "flat_ground": "a flat road everywhere",
        "most_frequent": "each voxel's most frequent class in the training towns (from 3D truth)",
    }
    rows = [
        [titles.get(name, name), *(_cell(spread([values[key]]), factor, digits) for key, _, factor, digits in columns)]
        for name, values in found.items()
    ]
    return markdown_table(["", *(heading for _, heading, _, _ in columns)], rows)


def _variants(study: Study) -> str:
    lines = []
    for variant in study.comparison.variants:
        words = ", ".join(f"`{word}`" for word in variant.settings) or "nothing"
        labels = "" if variant.labels == EXACT else f" Learns from the labels `{variant.labels}`."
        lines.append(f"- **{variant.name}**: {variant.about}. Changes {words}.{labels}")
    return "\n".join(lines)


def relative_path(path: Path, document: Path) -> str:
    """The path of a file relative to a document."""
    return Path(os.path.relpath(path, document.parent)).as_posix()
