"""What a network loses by INT8: two predictors on the same frames, against each other and against 3D truth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.inference.predictor import Predictor

from ..metrics import VolumeScores
from ..rayiou import cast_frame
from .frames import FrameWithTruth

__all__ = ["Agreement", "Comparison", "compared"]


@dataclass
class Agreement:
    """How alike two volumes are, over any number of frames. Unknown voxels are not occupied.

    Attributes:
        both, either: voxels that both volumes, or at least one of them, have occupied.
        same: of the first, those of the same class.
    """

    both: int = 0
    either: int = 0
    same: int = 0

    def add(self, one: np.ndarray, other: np.ndarray, classes: ClassTable) -> None:
        """Count a frame: volumes (X, Y, Z) of class ids."""
        first, second = ((volume != classes.free) & (volume != UNLABELLED) for volume in (one, other))
        both = first & second
        self.both += int(both.sum())
        self.either += int((first | second).sum())
        self.same += int((both & (one == other)).sum())

    @property
    def occupied_iou(self) -> float:
        """IoU of the occupied voxels; NaN if there are none."""
        return self.both / self.either if self.either else math.nan

    @property
    def same_class(self) -> float:
        """Share of the same class among the voxels that both have occupied; NaN if there are none."""
        return self.same / self.both if self.both else math.nan


@dataclass
class Comparison:
    """The figures of two predictors.

    Attributes:
        plain, int8: their scores against the truth, over the frames that have some.
        agreement: of their volumes, over all frames.
        frames: number of frames.
    """

    plain: VolumeScores
    int8: VolumeScores
    agreement: Agreement = field(default_factory=Agreement)
    frames: int = 0

    def as_dict(self) -> dict:
        """Plain numbers for the provenance of a file: ratios in 0..1; None where there was nothing to count."""
        figures: dict = {
            "frames": self.frames,
            "occupied_iou_with_float32": _plain(self.agreement.occupied_iou),
            "same_class_as_float32": _plain(self.agreement.same_class),
        }
        if self.plain.frames:
            for name, scores in (("float32", self.plain.as_dict()), ("int8", self.int8.as_dict())):
                figures[name] = {key: scores[key] for key in ("miou", "iou_occupied", "rayiou")}
        return figures

    def text(self) -> str:
        """For people: a table with 3D truth, and how far both agree."""
        lines = []
        if self.plain.frames:
            lines += [f"{self.plain.frames} frames with 3D truth, in %", "", "| | mIoU | occupied IoU | RayIoU |"]
            lines += ["|---|---|---|---|"]
            rows = [scores.as_dict() for scores in (self.plain, self.int8)]
            values = [[row[key] for key in ("miou", "iou_occupied", "rayiou")] for row in rows]
            for name, row in zip(("float32", "INT8"), values):
                lines.append(f"| {name} | {' | '.join(_percent(value) for value in row)} |")
            changes = [None if None in pair else pair[1] - pair[0] for pair in zip(*values)]
            lines += [f"| change | {' | '.join(_percent(change, '+.2f') for change in changes)} |", ""]
        else:
            lines.append("there is no 3D truth, so this is only how far INT8 agrees with float32, not how good it is:")
        lines.append(
            f"{self.frames} frames: IoU of the occupied voxels of INT8 and float32 "
            f"{_percent(_plain(self.agreement.occupied_iou), '.1f')} %, the same class in "
            f"{_percent(_plain(self.agreement.same_class), '.1f')} % of those that both have"
        )
        return "\n".join(lines)


def compared(plain: Predictor, int8: Predictor, frames: Iterable[FrameWithTruth]) -> Comparison:
    """Predict frames with both networks, and compare.

    Args:
        plain, int8: of the same grid and classes.
        frames: with or without truth.
    """
    classes, grid = plain.classes, plain.grid
    found = Comparison(VolumeScores.empty(classes, True), VolumeScores.empty(classes, True))
    for frame in frames:
        volumes = [frame.inputs.semantics(predictor) for predictor in (plain, int8)]
        found.agreement.add(volumes[0], volumes[1], classes)
        found.frames += 1
        if frame.truth is None:
            continue
        both = (found.plain, found.int8)
        counted = [scores.rays for scores in both if scores.rays is not None]
        if frame.origins is not None and len(frame.origins):
            cast_frame(counted, volumes, frame.truth.semantics, grid, frame.origins)
        for scores, volume in zip(both, volumes):
            scores.voxels.add(volume, frame.truth.semantics, frame.truth.mask)
            scores.frames += 1
    return found


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(100 * value, form)
