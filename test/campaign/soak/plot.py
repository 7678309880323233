"""Curves over time, drawn with OpenCV: one panel above the other, faults as ticks below."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["Curve", "Panel", "draw"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _GAP = 1100, 170, 90, 20, 50
_INK, _GRID, _FAULT = (60, 60, 60), (225, 225, 225), (190, 190, 190)
_COLOURS = ((176, 100, 30), (40, 80, 200), (60, 150, 60))  # BGR


@dataclass(frozen=True)
class Curve:
    """times (N,) seconds, values (N,); NaN is a gap."""

    name: str
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis; `least` is the least height of its range."""

    title: str
    curves: tuple[Curve, ...]
    least: float = 0.0


def draw(panels: list[Panel], faults: list[tuple[float, float]]) -> np.ndarray:
    """(H, W, 3) uint8 BGR.

    Args:
        faults: (beginning, end) in seconds, shaded in every panel.
    """
    last = max(float(curve.times[-1]) for panel in panels for curve in panel.curves if len(curve.times))
    image = np.full(((_HEIGHT + _GAP) * len(panels) + 40, _WIDTH, 3), 255, np.uint8)
    for index, panel in enumerate(panels):
        top = index * (_HEIGHT + _GAP) + _GAP
        _draw_panel(image, panel, top, last, faults)
    _text(image, "minutes; grey: a fault is on", (_LEFT, image.shape[0] - 6))
    return image


def _draw_panel(image: np.ndarray, panel: Panel, top: int, last: float, faults: list[tuple[float, float]]) -> None:
    span = _WIDTH - _LEFT - _RIGHT
    x_of = lambda seconds: _LEFT + span * np.asarray(seconds) / max(last, 1e-9)
    for begin, end in faults:
        cv2.rectangle(
            image,
            (int(x_of(begin)), top),
            (max(int(x_of(end)), int(x_of(begin)) + 1), top + _HEIGHT),
            (240, 240, 240),
            -1,
        )
    known = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in panel.curves])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    if high - low < panel.least:
        low, high = (low + high - panel.least) / 2, (low + high + panel.least) / 2
    step = _round_step((high - low) / 3 or 1.0)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    y_of = lambda value: top + _HEIGHT - _HEIGHT * (np.asarray(value) - low) / (high - low or 1.0)
    for value in np.arange(low, high + step / 2, step):
        cv2.line(image, (_LEFT, int(y_of(value))), (_WIDTH - _RIGHT, int(y_of(value))), _GRID, 1)
        _text(image, f"{value:g}", (8, int(y_of(value)) + 4))
    for minute in np.arange(0, last / 60 + 1e-6, _round_step(last / 60 / 8 or 1.0)):
        x = int(x_of(60 * minute))
        cv2.line(image, (x, top + _HEIGHT), (x, top + _HEIGHT + 4), _INK, 1)
        _text(image, f"{minute:g}", (x - 6, top + _HEIGHT + 18))
    offset = _LEFT
    _text(image, panel.title, (offset, top - 8))
    offset += 9 * len(panel.title) + 20
    for colour, curve in zip(_COLOURS, panel.curves):
        finite = np.isfinite(curve.values)
        points = np.stack([x_of(curve.times[finite]), y_of(curve.values[finite])], axis=1)
        cv2.polylines(image, [np.round(points).astype(np.int32)], False, colour, 1, cv2.LINE_AA)
        if len(panel.curves) > 1:
            _text(image, curve.name, (offset, top - 8), colour)
            offset += 9 * len(curve.name) + 20


def _round_step(step: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten that is not smaller."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999))


def _text(image: np.ndarray, text: str, at: tuple[int, int], colour: tuple = _INK) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
