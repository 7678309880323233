"""Shows metrics: tables for the terminal and in Markdown, and the confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from renderocc_model.field.threshold import DistanceThreshold

__all__ = [
    "confusion_picture",
    "evaluation_markdown",
    "evaluation_text",
    "markdown_table",
    "percent",
    "text_table",
    "volume_table",
]

_CELL, _MARGIN, _ROOM = 54, 16, 190  # pixels: a cell; around the picture; for the names of classes
_INK, _PAPER = (30, 34, 40), (255, 255, 255)  # RGB
_NONE, _FULL = np.array([246, 247, 249]), np.array([8, 81, 156])  # of a share of 0 and of 1


def percent(value: float | None) -> str:
    """A ratio in percent; a dash for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal. The first column is aligned left, the others right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. The first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def volume_table(scores: dict) -> str:
    """The figures of `VolumeScores.as_dict` in percent, for the terminal."""
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


def evaluation_text(result: dict) -> str:
    """The results of `renderocc eval`, for the terminal."""
    return _evaluation(result, text_table, "{}")


def evaluation_markdown(result: dict) -> str:
    """The results of `renderocc eval` as a Markdown document."""
    return "# Evaluation\n\n" + _evaluation(result, markdown_table, "## {}") + "\n"


def _evaluation(result: dict, table: Callable[[Sequence[str], Sequence[Sequence[str]]], str], title: str) -> str:
    volumes, counts = result["volumes"], result["rays"]["counts"]
    recordings = result["recordings"]
    shown = ", ".join(recordings[:5]) + (", ..." if len(recordings) > 5 else "")
    parts = [
        f"{result['checkpoint']} on {result['frames']} frames of {len(recordings)} recordings ({shown}), occupied "
        f"above {_threshold(result['threshold'])}" + (", found with their 2D labels" if result["calibration"] else ""),
        title.format(f"2D labels: {counts['returns']} rays that return, {counts['empty']} that leave the grid"),
        table(["", "value"], _ray_rows(result["rays"])),
    ]
    if len(result["cameras"]) > 1:
        parts += [title.format("Distances by camera"), table(*_camera_rows(result["cameras"]))]
    if volumes:
        parts += [title.format(f"3D truth: {_truth_counts(volumes['counts'])}"), table(*_comparison(result))]
    if "map" in result:
        head = f"Map of {result['map']['frames']} frames beside each frame alone, both with unknown as free, %"
        parts += [title.format(head), table(*_map_rows(result["map"]))]
    parts += [title.format("Classes, %"), table(*_class_rows(result["rays"], volumes))]
    return "\n\n".join(parts)


def _map_rows(figures: dict) -> tuple[list[str], list[list[str]]]:
    names = {"mIoU": "miou", "occupied IoU": "iou_occupied", "RayIoU": "rayiou"}
    names |= {f"RayIoU within {distance} m": f"rayiou_{distance}" for distance in (1, 2, 4)}
    found = {title: [figures[which][key] for which in ("frame", "map")] for title, key in names.items()}
    ages = list(figures["map"]["ghosts"]["shares"])
    for age, until in zip(ages, [*ages[1:], "3"]):
        title = f"ghosts where a moving object left {age} to {until} s ago"
        found[title] = [figures[which]["ghosts"]["shares"][age] for which in ("frame", "map")]
    rows = []
    for title, (frame, volume) in found.items():
        change = "-" if frame is None or volume is None else f"{100 * (volume - frame):+.2f}"
        rows.append([title, percent(frame), percent(volume), change])
    return ["", "frame", "map", "change"], rows


def _threshold(plain: float | dict) -> str:
    return f"{DistanceThreshold.from_dict(plain) if isinstance(plain, dict) else plain:.3f}"


def _truth_counts(counts: dict) -> str:
    return f"{counts['frames']} frames, {counts['voxels']} voxels, {counts['rays']} rays of {counts['origins']} origins"


def _ray_rows(rays: dict) -> list[list[str]]:
    def number(value: float | None, unit: str = "") -> str:
        return "-" if value is None else f"{value:.3f}{unit}"

    return [
        ["AbsRel", number(rays["abs_rel"])],
        ["RMSE", number(rays["rmse"], " m")],
        ["delta < 1.25", number(rays["delta_1"])],
        ["AbsRel of the median", number(rays["abs_rel_median"])],
        ["delta < 1.25 of the median", number(rays["delta_1_median"])],
        ["2D mIoU, %", percent(rays["miou_2d"])],
        ["opacity of returns", number(rays["opacity_returns"])],
        ["opacity of empty rays", number(rays["opacity_empty"])],
    ]


def _camera_rows(cameras: dict) -> tuple[list[str], list[list[str]]]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        [name, f"{one['returns']}", number(one["abs_rel"]), number(one["delta_1"])] for name, one in cameras.items()
    ]
    return ["camera", "returns", "AbsRel", "delta < 1.25"], rows


def _comparison(result: dict) -> tuple[list[str], list[list[str]]]:
    others = ((name.replace("_", " "), scores) for name, scores in result["baselines"].items())
    rows = [("network", result["volumes"]), *others]
    keys = ("miou", "iou_occupied", "rayiou", "rayiou_1", "rayiou_2", "rayiou_4")
    header = ["%", "mIoU", "occupied", "RayIoU", "@1m", "@2m", "@4m"]
    return header, [[name, *(percent(scores[key]) for key in keys)] for name, scores in rows]


def _class_rows(rays: dict, volumes: dict | None) -> tuple[list[str], list[list[str]]]:
    header = ["class", *(["IoU", "RayIoU @1m", "@2m", "@4m"] if volumes else []), "2D IoU"]
    rows = []
    for name, value in rays["iou_2d"].items():
        three = [volumes["iou"][name], *volumes["rayiou_by_class"][name]] if volumes else []
        rows.append([name, *map(percent, three), percent(value)])
    mean = [volumes[key] for key in ("miou", "rayiou_1", "rayiou_2", "rayiou_4")] if volumes else []
    rows.append(["mean", *map(percent, mean), percent(rays["miou_2d"])])
    return header, rows


def confusion_picture(histogram: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix. A row has the shares of a true class that were predicted as each class (column).

    Classes that do not occur in truth or prediction are left out.

    Args:
        histogram: (C, C) counts, rows are the truth.
        names: C names.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    import cv2

    used = np.flatnonzero(histogram.sum(axis=0) + histogram.sum(axis=1))
    counts = histogram[np.ix_(used, used)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    top, left = _MARGIN + _ROOM, _MARGIN + _ROOM
    size = len(used) * _CELL
    picture = np.full((top + size + 2 * _MARGIN + 20, left + size + 110 + _MARGIN, 3), _PAPER, np.uint8)

    def write(canvas: np.ndarray, text: str, right: int, middle: int, scale: float = 0.5, colour=_INK) -> None:
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        at = (right - width, middle + height // 2)
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)

    for row in range(len(used)):
        for column in range(len(used)):
            share = shares[row, column]
            y, x = top + row * _CELL, left + column * _CELL
            colour = np.rint(_NONE + (_FULL - _NONE) * share**0.7).astype(int).tolist()
            cv2.rectangle(picture, (x, y), (x + _CELL - 2, y + _CELL - 2), colour, -1)
            if share >= 0.005:
                ink = _PAPER if share > 0.4 else _INK
                text = f"{100 * share:.0f}"
                (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
                write(picture, text, x + (_CELL + width) // 2, y + _CELL // 2, colour=ink)
        write(picture, names[used[row]], left - 8, top + row * _CELL + _CELL // 2)
        write(picture, f"{counts[row].sum():,}", left + size + 108, top + row * _CELL + _CELL // 2, 0.45)
    # Names of columns are drawn on a strip, which is then turned by 90 degrees.
    strip = np.full((size, _ROOM, 3), _PAPER, np.uint8)
    for column in range(len(used)):
        name = names[used[column]]
        (width, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        write(strip, name, 8 + width, column * _CELL + _CELL // 2)
    picture[_MARGIN : _MARGIN + _ROOM, left : left + size] = strip.swapaxes(0, 1)[::-1]
    write(picture, "truth / predicted, %", left - 8, top - 14, 0.45)
    write(picture, "count", left + size + 108, top - 14, 0.45)
    return picture
