"""Confusion of class ids and the mIoU that follows from it (Occ3D, Tian et al. 2023, its published evaluation code)."""

from __future__ import annotations

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable

__all__ = ["Confusion", "mean_of_known"]


class Confusion:
    """One histogram of truth against prediction over everything that is added.

    IoU_c = diagonal / (row + column - diagonal); mIoU is the mean over the classes other than free that occur in the
    truth or the prediction. Free takes part in the histogram, so that a hole and a ghost both cost.

    Attributes:
        classes: what the ids mean.
        histogram: (C, C) int64; rows are the truth.
    """

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes
        self.histogram = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Count volumes, or anything else of one shape.

        Args:
            prediction: class ids; 255 (unknown) counts as free: a miss where the truth is occupied.
            truth: class ids, same shape; ids outside of the table are left out.
            mask: same shape; where it is zero nothing counts.
        Raises:
            ValueError: the shapes differ, or a prediction that counts is no class.
        """
        for name, other in (("truth", truth), ("mask", mask)):
            if other is not None and other.shape != prediction.shape:
                raise ValueError(f"prediction has shape {prediction.shape}, {name} {other.shape}; expected the same")
        count = len(self.classes)
        kept = (truth >= 0) & (truth < count)
        if mask is not None:
            kept &= mask != 0
        predicted, wanted = known_ids(prediction[kept], self.classes), truth[kept].astype(np.int64)
        self.histogram += np.bincount(wanted * count + predicted, minlength=count * count).reshape(count, count)

    def merge(self, other: Confusion) -> None:
        """Add what another has counted."""
        self.histogram += other.histogram

    def iou(self) -> np.ndarray:
        """(C,) float64; NaN for a class that occurs nowhere."""
        diagonal = np.diag(self.histogram).astype(np.float64)
        union = self.histogram.sum(axis=0) + self.histogram.sum(axis=1) - diagonal
        return np.divide(diagonal, union, out=np.full(len(diagonal), np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU of the classes other than free; NaN when none of them occurs."""
        return mean_of_known(self.iou()[list(self.classes.occupied_ids)])

    def occupied_iou(self) -> float:
        """IoU of occupied against free, whatever the class; NaN when nothing is occupied anywhere."""
        occupied = list(self.classes.occupied_ids)
        free = self.histogram[self.classes.free, self.classes.free]
        union = self.histogram.sum() - free
        return float(self.histogram[np.ix_(occupied, occupied)].sum() / union) if union else float("nan")


def known_ids(ids: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Predicted ids as int64, unknown (255) as free. ValueError for an id that is no class."""
    ids = np.where(ids == UNLABELLED, classes.free, ids).astype(np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(classes):
        wrong = ids[(ids < 0) | (ids >= len(classes))][0]
        raise ValueError(
            f"prediction has class id {wrong}; expected 0 to {len(classes) - 1}, or {UNLABELLED} for unknown"
        )
    return ids


def mean_of_known(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN when nothing is left."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
