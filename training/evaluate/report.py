"""What the scores look like: tables on the screen, Markdown, and the confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table", "percent", "text_table", "volume_table"]


def percent(value: float | None) -> str:
    """A ratio in percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns for the screen: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def volume_table(scores: dict) -> str:
    """What `VolumeScores.as_dict` says, in percent, for the screen."""
    counts = scores["counts"]
    with_rays = "rayiou" in scores
    header = ["class", "IoU %", *(["RayIoU @1m", "@2m", "@4m"] if with_rays else [])]
    rows = []
    for name, value in scores["iou"].items():
        rays = map(percent, scores["rayiou_by_class"][name]) if with_rays else ()
        rows.append([name, percent(value), *rays])
    mean = [scores[f"rayiou_{threshold}"] for threshold in (1, 2, 4)] if with_rays else []
    rows.append(["mean", percent(scores["miou"]), *map(percent, mean)])
    lines = [text_table(header, rows), ""]
    lines.append(f"mIoU {percent(scores['miou'])} % over {counts['voxels']} voxels of {counts['frames']} frames")
    if with_rays:
        origins = f"{counts['origins']} origins"
        lines.append(f"RayIoU {percent(scores['rayiou'])} % over {counts['rays']} rays from {origins}")
    return "\n".join(lines)
