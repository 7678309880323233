"""From image bytes to network input, the same at run time and in training: decode, undistort, resize, normalise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.rig import CameraModel, Rig
from ..geometry.undistortion import UndistortTable, View, network_view
from .compiled import compiled_loops
from .decoding import compressed_size, decode_compressed
from .encodings import decode_raw
from .reduction import ImageError

if TYPE_CHECKING:
    import torch

__all__ = [
    "IMAGE_MEAN",
    "IMAGE_STD",
    "Preprocessor",
    "check_camera_size",
    "normalise",
    "scaled",
    "view_from_compressed",
    "view_from_raw",
    "view_from_rgb",
]

# Of ImageNet, RGB in 0..1, which timm's weights were trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def view_from_raw(
    table: UndistortTable,
    data: np.ndarray,
    height: int,
    width: int,
    step: int,
    encoding: str,
    is_bigendian: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A camera's view of a raw image; only the bytes that the view shows are read.

    Args:
        table: of the camera and its view.
        data, height, width, step, encoding, is_bigendian: as in `decode_raw`.
        out: as in `UndistortTable.apply`.
    Returns:
        (view height, view width, 3) uint8 RGB, `out` if it is given.
    Raises:
        ImageError: not the camera's size, or not decodable.
    """
    check_camera_size(table.model, height, width)
    return table.apply(decode_raw(data, height, width, step, encoding, is_bigendian, table.factor, table.region), out)


def view_from_compressed(table: UndistortTable, data: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A camera's view of a JPEG or PNG, data (bytes,) uint8; results and errors as in `view_from_raw`."""
    check_camera_size(table.model, *compressed_size(data))
    return table.apply(decode_compressed(data, table.factor, region=table.region), out)


def view_from_rgb(table: UndistortTable, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A camera's view of an RGB picture of its size, (H, W, 3) uint8; results and errors as in `view_from_raw`."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"image is a {type(image).__name__}; expected an array, uint8 RGB of shape (H, W, 3)")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"image is {image.dtype} of shape {image.shape}; expected uint8 RGB of shape (H, W, 3)")
    height, width = image.shape[:2]
    rows = np.ascontiguousarray(image).reshape(-1)
    return view_from_raw(table, rows, height, width, 3 * width, "rgb8", out=out)


class Preprocessor:
    """Turns the images of a rig's cameras into the views that the network sees.

    Errors of the methods name the camera.

    Args:
        rig: the cameras, with their mounts.
        height, width: size of the network's input, pixels.
    """

    def __init__(self, rig: Rig, height: int, width: int) -> None:
        self.rig, self.height, self.width = rig, height, width
        self._tables = {
            camera.name: UndistortTable(
                camera.model, network_view(camera.model, height, width, camera.base_from_camera)
            )
            for camera in rig
        }

    def table(self, name: str) -> UndistortTable:
        """The resampling table of a camera; ValueError lists the cameras there are."""
        if name not in self._tables:
            raise ValueError(f"camera '{name}' is not in the rig; it has {', '.join(self._tables)}")
        return self._tables[name]

    def view(self, name: str) -> View:
        """The pinhole view that a camera's images are resampled into."""
        return self.table(name).view

    def valid(self, name: str) -> np.ndarray:
        """(height, width) bool: view pixels that exist in the camera's image."""
        return self.table(name).valid

    def from_compressed(self, name: str, data: np.ndarray) -> np.ndarray:
        """`view_from_compressed` of the camera of this name."""
        table = self.table(name)
        with _naming(name):
            return view_from_compressed(table, data)

    def from_rgb(self, name: str, image: np.ndarray) -> np.ndarray:
        """`view_from_rgb` of the camera of this name."""
        table = self.table(name)
        with _naming(name):
            return view_from_rgb(table, image)


@contextmanager
def _naming(camera: str) -> Iterator[None]:
    """Put the camera's name before what is wrong with its image."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"camera '{camera}': {error}") from None


def normalise(views: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Network input from views, on the views' device.

    Args:
        views: (..., H, W, 3) uint8 RGB.
        dtype: of the result; float32 when not given.
    Returns:
        (..., 3, H, W), ImageNet's mean subtracted and divided by its standard deviation.
    Raises:
        ValueError: not uint8, or not three channels last.
    """
    import torch

    if views.dtype != torch.uint8 or views.ndim < 3 or views.shape[-1] != 3:
        raise ValueError(f"views are {views.dtype} of shape {tuple(views.shape)}; expected uint8 (..., H, W, 3)")
    return scaled(views, *_scale_and_offset(views.device), dtype or torch.float32)


def scaled(views: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """views * scale + offset, channels first: what `normalise` does, by any numbers.

    Args:
        views: (..., H, W, 3) uint8.
        scale, offset: (3, 1, 1) float32 on the views' device.
        dtype: of the result; it is computed in float32.
    Returns:
        (..., 3, H, W), channels last in memory where views are.
    """
    import torch

    if views.device.type != "cpu" or not views.is_contiguous() or torch.compiler.is_compiling():
        values = views.movedim(-1, -3).float()
        return torch.addcmul(offset, values, scale, out=values).to(dtype)
    loops = compiled_loops()  # one pass; PyTorch makes two, into new memory each
    values = torch.empty(views.shape, dtype=torch.float32)
    numbers = (np.resize(three.numpy(), loops.LANES) for three in (scale, offset))
    loops.normalise(views.view(-1).numpy(), *numbers, values.view(-1).numpy())
    return values.movedim(-1, -3).to(dtype)


@lru_cache(maxsize=8)
def _scale_and_offset(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(3, 1, 1) factors with which value * scale + offset = (value / 255 - mean) / std."""
    import torch

    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


def check_camera_size(model: CameraModel, height: int, width: int) -> None:
    """ImageError unless a picture is of the size that its camera's calibration is for."""
    if (width, height) != (model.width, model.height):
        raise ImageError(
            f"image is {width}x{height} but camera_info says {model.width}x{model.height}; "
            f"publish a matching camera_info"
        )
