"""Above which probability a voxel is occupied: one number, or a curve over the distance from the vehicle.

What labels teach depends on distance: near the vehicle many rays pass a voxel and many return from it, far away few do.
So a network that is right about which of two far voxels is the likelier may still be less sure of both than of near
ones; a threshold that follows the distance takes that back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..geometry.grid import VoxelGrid

__all__ = ["DistanceThreshold", "Threshold", "checked_threshold", "plain_threshold", "threshold_of_voxels"]


@dataclass(frozen=True)
class DistanceThreshold:
    """A threshold that rises or falls with the horizontal distance from base_link's origin.

    Between two distances the optical depth of a voxel length, -log(1 - probability), is interpolated; below the first
    and above the last one it stays what it is there.

    Attributes:
        distances: two or more, ascending, >= 0, metres.
        probabilities: as many, in (0, 1), nowhere falling or nowhere rising.
        flat: the best threshold that is one number, for programs that know no others.
    Raises:
        ValueError: they are not that.

    >>> curve = DistanceThreshold((0.0, 20.0), (0.1, 0.19), flat=0.12)
    >>> curve.at(np.array([0.0, 10.0, 30.0])).round(4).tolist()
    [0.1, 0.1462, 0.19]
    >>> f"occupied above {curve:.3g}"
    'occupied above 0.1 (at 0 m) to 0.19 (at 20 m)'
    """

    distances: tuple[float, ...]
    probabilities: tuple[float, ...]
    flat: float

    def __post_init__(self) -> None:
        for name in ("distances", "probabilities"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not all(map(_is_number, values)):
                raise ValueError(f"threshold: {name} are {values!r:.80}; expected a list of numbers")
            object.__setattr__(self, name, tuple(map(float, values)))
        steps = np.diff(self.probabilities)
        if len(self.distances) != len(self.probabilities) or len(self.distances) < 2:
            raise ValueError(
                f"threshold: there are {len(self.distances)} distances and {len(self.probabilities)} probabilities; "
                "expected two or more, as many of both"
            )
        if not (self.distances[0] >= 0 and (np.diff(self.distances) > 0).all() and np.isfinite(self.distances[-1])):
            raise ValueError(f"threshold: distances are {self.distances}; expected ascending metres")
        for value in (*self.probabilities, self.flat):
            if not (_is_number(value) and 0 < value < 1):
                raise ValueError(f"threshold is {value!r}; expected a probability between 0 and 1")
        if not ((steps >= 0).all() or (steps <= 0).all()):
            raise ValueError(f"threshold: probabilities are {self.probabilities}; expected all to rise or all to fall")

    def at(self, distances: np.ndarray) -> np.ndarray:
        """Thresholds at horizontal distances, metres, of any shape."""
        depths = -np.log1p(-np.array(self.probabilities))
        return -np.expm1(-np.interp(distances, self.distances, depths))

    def of_grid(self, grid: VoxelGrid) -> np.ndarray:
        """(X, Y, 1) float32 thresholds at the voxels' centres."""
        x, y = (low + (np.arange(count) + 0.5) * grid.voxel_size for low, count in zip(grid.lower[:2], grid.shape[:2]))
        return self.at(np.hypot(x[:, None], y))[..., None].astype(np.float32)

    def to_dict(self) -> dict:
        """Plain data; `from_dict` reads it back."""
        return {"distances": list(self.distances), "probabilities": list(self.probabilities), "flat": self.flat}

    @staticmethod
    def from_dict(content: Mapping) -> DistanceThreshold:
        """
        Raises:
            ValueError: the content is something else.
        """
        if not isinstance(content, Mapping) or set(content) != {"distances", "probabilities", "flat"}:
            raise ValueError(f"threshold is {content!r:.80}; expected distances, probabilities and flat")
        return DistanceThreshold(content["distances"], content["probabilities"], content["flat"])

    def __format__(self, spec: str) -> str:
        ends = zip(self.probabilities[:: len(self.distances) - 1], self.distances[:: len(self.distances) - 1])
        return " to ".join(f"{probability:{spec}} (at {distance:.3g} m)" for probability, distance in ends)


Threshold = float | DistanceThreshold


def checked_threshold(value: Threshold) -> Threshold:
    """The threshold itself.

    Raises:
        ValueError: a number that is no probability between 0 and 1.
    """
    if isinstance(value, DistanceThreshold):
        return value
    if not (_is_number(value) and 0 < value < 1):
        raise ValueError(f"threshold is {value}; expected an occupancy probability between 0 and 1")
    return float(value)


def plain_threshold(threshold: Threshold) -> float | dict:
    """As data for JSON; `DistanceThreshold.from_dict` reads a curve back."""
    return threshold.to_dict() if isinstance(threshold, DistanceThreshold) else threshold


def threshold_of_voxels(threshold: Threshold, grid: VoxelGrid, device: torch.device | str = "cpu") -> Tensor:
    """(X, Y, 1) float32, what the probability of each voxel is compared with."""
    if isinstance(threshold, DistanceThreshold):
        return torch.from_numpy(threshold.of_grid(grid)).to(device)
    return torch.full((*grid.shape[:2], 1), threshold, dtype=torch.float32, device=device)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
