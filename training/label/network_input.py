"""What a network of another project wants as its input, from the YAML file that describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .mapping import LabelError

__all__ = ["INPUT_KEYS", "NetworkInput"]

INPUT_KEYS = ("size", "mean", "std", "channels")


@dataclass(frozen=True)
class NetworkInput:
    """How an image becomes a network's input, (image / 255 - mean) / std.

    Attributes:
        size: height and width of the input; None: those of the image.
        mean, std: (3,) float32 of red, green and blue in 0..1.
        flipped: whether the channels are blue, green and red.
    """

    size: tuple[int, int] | None
    mean: np.ndarray
    std: np.ndarray
    flipped: bool

    @staticmethod
    def read(options: Mapping[str, Any], where: Path) -> NetworkInput:
        """The input that the entries `INPUT_KEYS` of a description say; those that are missing have their defaults.

        Args:
            options: the entries.
            where: the file that they are from, for error texts.
        Raises:
            LabelError: an entry is wrong.
        """
        size = _numbers(where, "size", options.get("size"), 2, lambda v: float(v).is_integer() and v > 0)
        mean = _numbers(where, "mean", options.get("mean", (0.485, 0.456, 0.406)), 3, np.isfinite)
        std = _numbers(where, "std", options.get("std", (0.229, 0.224, 0.225)), 3, lambda v: v > 0)
        channels = options.get("channels", "rgb")
        if channels not in ("rgb", "bgr"):
            raise LabelError(f"{where}: channels is {channels!r}; expected rgb or bgr")
        whole = None if size is None else (int(size[0]), int(size[1]))
        return NetworkInput(whole, np.array(mean, np.float32), np.array(std, np.float32), channels == "bgr")

    def array(self, image: np.ndarray) -> np.ndarray:
        """The input (3, H, W) float32 for an image (H, W, 3) uint8 RGB."""
        if self.size:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        normal = (image.astype(np.float32) / np.float32(255) - self.mean) / self.std
        normal = normal[..., ::-1] if self.flipped else normal
        return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


def _numbers(where: Path, name: str, values: Any, count: int, good: Callable[[float], Any]) -> tuple | None:
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values)
        if len(numbers) == count and all(good(value) for value in numbers):
            return numbers
    except (TypeError, ValueError):
        pass
    raise LabelError(f"{where}: {name} is {values!r}; expected {count} numbers in their range")
