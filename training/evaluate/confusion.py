"""Confusion of class ids and the mIoU that follows from it (Occ3D, Tian et al. 2023, its published evaluation code)."""

from __future__ import annotations

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable

__all__ = ["Confusion", "mean_of_known"]


class Confusion:
    """A histogram of truth against prediction, over everything that is added.

    IoU_c = diagonal / (row + column - diagonal). mIoU is the mean over the classes other than free that occur in the
    truth or the prediction. Free is a row and a column of the histogram, so missing and invented voxels both count.

    Attributes:
        classes: the class table.
        histogram: (C, C) int64; rows are the truth.
    """

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes
        self.histogram = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Count a volume, or any other array.

        Args:
            prediction: class ids; 255 (unknown) counts as free, so it is a miss if the truth is occupied.
            truth: class ids of the same shape; ids that are not in the table do not count.
            mask: array of the same shape; elements where it is zero do not count.
        Raises:
            ValueError: the shapes differ, or a predicted id that counts is not a class.
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
        """Add the counts of another histogram."""
        self.histogram += other.histogram

    def iou(self) -> np.ndarray:
        """IoU by class, (C,) float64; NaN for a class that does not occur."""
        diagonal = np.diag(self.histogram).astype(np.float64)
        union = self.histogram.sum(axis=0) + self.histogram.sum(axis=1) - diagonal
        return np.divide(diagonal, union, out=np.full(len(diagonal), np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU of the classes other than free; NaN if none of them occurs."""
        return mean_of_known(self.iou()[list(self.classes.occupied_ids)])

    def occupied_iou(self) -> float:
        """IoU of occupied against free, without regard to classes; NaN if no voxel is occupied."""
        occupied = list(self.classes.occupied_ids)
        free = self.histogram[self.classes.free, self.classes.free]
        union = self.histogram.sum() - free
        return float(self.histogram[np.ix_(occupied, occupied)].sum() / union) if union else float("nan")


def known_ids(ids: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Predicted ids as int64, with unknown (255) as free. ValueError: an id is not a class."""
    ids = np.where(ids == UNLABELLED, classes.free, ids).astype(np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(classes):
        wrong = ids[(ids < 0) | (ids >= len(classes))][0]
        raise ValueError(
            f"prediction has class id {wrong}; expected 0 to {len(classes) - 1}, or {UNLABELLED} for unknown"
        )
    return ids


def mean_of_known(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
