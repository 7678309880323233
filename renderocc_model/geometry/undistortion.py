"""Resampling of distorted camera pictures into the pinhole views that the network sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .rig import CameraModel

__all__ = ["FILL_COLOUR", "UndistortTable", "View", "check_sees_ahead", "network_view"]

FILL_COLOUR = (124, 116, 104)  # ImageNet's mean colour, RGB: zero after normalisation
FACTORS = (1, 2, 4, 8)  # reductions that JPEG decoding and the area filters offer

_WIDEST = math.radians(55)  # to each side: beyond it a pinhole view spends most of its pixels on its margins
_HIGHEST = math.radians(80)
_HORIZON = 0.45  # part of the view above the horizon: the grid lies below and a little above the cameras
_UPRIGHT = 0.3  # smallest share of "up" along the image's columns for the horizon to be a row at all
_ZOOM_STEP, _ZOOM_STEPS = 1.02, 36  # 1.02 ** 35 is 2
_NEARLY_WHOLE = 0.95  # part of a reduction factor that the scale must reach, so that 3.9 px a pixel still count as 4


@dataclass(frozen=True, eq=False)
class View:
    """A pinhole view without distortion that shares its camera's optical frame.

    Args:
        width, height: pixels.
        K: (3, 3) [[f, 0, cx], [0, f, cy], [0, 0, 1]], pixels; integer coordinates are pixel centres.
    """

    width: int
    height: int
    K: np.ndarray

    def __post_init__(self) -> None:
        K = np.array(self.K, dtype=np.float64)
        if self.width < 1 or self.height < 1 or K.shape != (3, 3) or not np.isfinite(K).all() or not np.diag(K).all():
            raise ValueError(f"view: {self.width}x{self.height}, K {K.tolist()}; expected a size and a 3x3 matrix")
        K.setflags(write=False)
        object.__setattr__(self, "K", K)

    def strided(self, stride: int) -> View:
        """The view of the rays of `camera_rays(view, ..., stride)`: one pixel for each ray.

        Its pixel (column, row) is the ray through pixel (stride - 1) // 2 + stride * (column, row) of this view.

        Raises:
            ValueError: the view has no such pixel.
        """
        first = (stride - 1) // 2
        K = self.K.copy()
        K[:2, 2] -= first
        K[:2] /= stride
        return View(len(range(first, self.width, stride)), len(range(first, self.height, stride)), K)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return self.width, self.height, self.K.tobytes()

    def directions(self) -> np.ndarray:
        """Direction of every pixel, (height, width, 3) float64 unit vectors in the camera's optical frame."""
        columns, rows = np.meshgrid(np.arange(self.width), np.arange(self.height))
        return self.directions_of(np.stack([columns, rows], axis=-1))

    def directions_of(self, pixels: np.ndarray) -> np.ndarray:
        """Directions (..., 3), unit vectors in the optical frame, of pixels (..., 2) given as (column, row)."""
        pixels = np.asarray(pixels, dtype=np.float64)
        directions = np.ones((*pixels.shape[:-1], 3))
        directions[..., 1] = (pixels[..., 1] - self.K[1, 2]) / self.K[1, 1]
        directions[..., 0] = (pixels[..., 0] - self.K[0, 2] - self.K[0, 1] * directions[..., 1]) / self.K[0, 0]
        return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def check_sees_ahead(model: CameraModel) -> None:
    """Raise ValueError, as `network_view`, if a camera sees nothing within 55 degrees of its optical axis."""
    _tangents(model)


def _tangents(model: CameraModel) -> tuple[float, float, float, float]:
    """Tangents of the angles that a view may show to the left, to the right, above and below the optical axis."""
    left, right = (math.tan(min(angle, _WIDEST)) for angle in model.horizontal_extent)
    above, below = (math.tan(min(angle, _HIGHEST)) for angle in model.vertical_extent)
    if left + right <= 0 or above + below <= 0:
        raise ValueError(
            f"the camera sees nothing within 55 degrees of its optical axis, as its principal point is at "
            f"({model.K[0, 2]:g}, {model.K[1, 2]:g}) of {model.width}x{model.height} pixels; check its K"
        )
    return left, right, above, below


def network_view(model: CameraModel, height: int, width: int, base_from_camera: np.ndarray | None = None) -> View:
    """The pinhole view of a camera that the network sees, in training and at run time alike.

    Square pixels, never stretched. The view keeps the camera's horizontal field of view, up to 55 degrees to each side
    of the optical axis, and takes the rows it needs so that the horizon lies at 45 % of its height, as far as the
    camera has rows above and below. A camera with too few rows, or whose corners the lens leaves empty, is zoomed until
    the view is full; where even a zoom of 2 leaves it partly empty, it is zoomed no further than its rows ask for, and
    `UndistortTable.valid` says which pixels exist.

    Args:
        model: the camera.
        height, width: size of the view, pixels.
        base_from_camera: (4, 4) mount. It says where the horizon is for a camera that looks down or up; without it, and
            for a camera mounted on its side or looking straight down, the optical axis is taken to be level.
    Returns:
        the view, a function of the arguments alone.
    Raises:
        ValueError: the size is not positive, or the camera sees nothing within 55 degrees of its optical axis.
    """
    if width < 1 or height < 1:
        raise ValueError(f"view: size is {width}x{height}; expected positive numbers of pixels")
    left, right, above, below = _tangents(model)
    horizon, share = _horizon(base_from_camera)

    def zoomed(zoom: float) -> View:
        focal = zoom * width / (left + right)
        spare = focal * (left + right) - width  # cut off equally at both sides
        cx = focal * left - 0.5 * spare
        cy = share * height - focal * horizon
        cy = min(max(cy, height - focal * below), focal * above)  # top edge first where both cannot be kept
        return View(width, height, np.array([[focal, 0, cx - 0.5], [0, focal, cy - 0.5], [0, 0, 1]]))

    # Exactly full where the rows are what is scarce; the steps are for corners, where a formula is not to be had.
    enough_rows = max(1.0, height * (left + right) / (width * (above + below)))
    for step in range(_ZOOM_STEPS):
        view = zoomed(enough_rows * _ZOOM_STEP**step)
        if _is_full(model, view):
            return view
    return zoomed(enough_rows)


def _horizon(base_from_camera: np.ndarray | None) -> tuple[float, float]:
    """Row of the horizon below the optical axis, in focal lengths, and the part of the view to be above that row."""
    if base_from_camera is None:
        return 0.0, _HORIZON
    up = np.asarray(base_from_camera, dtype=np.float64)[2, :3]  # base z in the optical frame
    if abs(up[1]) < _UPRIGHT:
        return 0.0, _HORIZON
    share = _HORIZON if up[1] < 0 else 1 - _HORIZON  # a camera mounted upside down has its sky below
    return float(-up[2] / up[1]), share


def _is_full(model: CameraModel, view: View) -> bool:
    """Whether the camera sees every pixel along the view's border."""
    columns, rows = np.arange(view.width), np.arange(view.height)
    border = [np.stack([columns, np.full_like(columns, row)], axis=-1) for row in (0, view.height - 1)]
    border += [np.stack([np.full_like(rows, column), rows], axis=-1) for column in (0, view.width - 1)]
    return bool(model.project(view.directions_of(np.concatenate(border)))[1].all())


class UndistortTable:
    """Fixed-point maps from one camera's picture, reduced by a power of two, to one view of it.

    A picture of more than one source pixel per view pixel is first averaged over `factor` x `factor` pixels, which
    keeps fine texture from aliasing; the maps then interpolate bilinearly in the reduced picture. Only the part of the
    picture that the view shows, `region`, is needed.

    Args:
        model: the camera.
        view: what to make of its pictures.
    Attributes:
        factor: how far pictures are to be reduced, one of 1, 2, 4, 8.
        region: (rows, columns) as slices of the camera's picture, starting at multiples of 2 * factor, and stopping
            there or where the picture ends: pixels of some encodings come in pairs.
        valid: (height, width) bool; False where the camera has no pixel, which `apply` fills with `FILL_COLOUR`.
    """

    def __init__(self, model: CameraModel, view: View) -> None:
        self.model, self.view = model, view
        pixels, valid = model.project(view.directions().reshape(-1, 3))
        pixels = pixels.reshape(view.height, view.width, 2)
        self.valid = valid.reshape(view.height, view.width)
        self.valid.setflags(write=False)
        self._invalid = np.flatnonzero(~self.valid)
        self.factor = _reduction(pixels, self.valid, (model.height, model.width))
        # Reduced pixel i averages the pixels factor * i ... factor * i + factor - 1.
        reduced = (pixels - (self.factor - 1) / 2) / self.factor
        self.region = self._needed_region(reduced)
        origin = np.array([self.region[1].start, self.region[0].start]) // self.factor
        maps = np.where(self.valid[..., None], reduced - origin, 0.0).astype(np.float32)
        self._maps = cv2.convertMaps(maps, np.empty(0, np.float32), cv2.CV_16SC2)

    @property
    def reduced_shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole reduced picture; rows and columns that fill no reduced pixel are left out."""
        return self.model.height // self.factor, self.model.width // self.factor

    @property
    def region_shape(self) -> tuple[int, int]:
        """(rows, columns) of `region` in the reduced picture."""
        rows, columns = self.region
        return (rows.stop - rows.start) // self.factor, (columns.stop - columns.start) // self.factor

    def apply(self, reduced: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The view of a reduced picture.

        Args:
            reduced: (rows, columns, 3) uint8 RGB, of `reduced_shape` or only its `region`, of `region_shape`.
            out: (height, width, 3) uint8, contiguous, to be written to; new memory if it is not given.
        Returns:
            (height, width, 3) uint8 RGB, `out` if it is given.
        Raises:
            ValueError: another size or type.
        """
        if reduced.dtype != np.uint8 or reduced.ndim != 3 or reduced.shape[2] != 3:
            raise ValueError(f"picture is {reduced.dtype} of shape {reduced.shape}; expected uint8 (rows, columns, 3)")
        if reduced.shape[:2] == self.reduced_shape:
            rows, columns = (slice(part.start // self.factor, part.stop // self.factor) for part in self.region)
            reduced = reduced[rows, columns]
        elif reduced.shape[:2] != self.region_shape:
            raise ValueError(
                f"reduced picture is {reduced.shape[1]}x{reduced.shape[0]}; expected {self.reduced_shape[1]}x"
                f"{self.reduced_shape[0]}, the camera's {self.model.width}x{self.model.height} by {self.factor}"
            )
        if out is not None:
            self._check_out(out)
        places, fractions = self._maps
        picture = cv2.remap(reduced, places, fractions, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)
        if self._invalid.size:
            picture.reshape(-1, 3)[self._invalid] = FILL_COLOUR
        return picture

    def fixed_point(self) -> tuple[np.ndarray, np.ndarray]:
        """The maps as other resamplers want them, of pixels row by row.

        Returns:
            (height * width, 2) int16 column and row in the reduced region, of the upper left of four pixels; it and
            its neighbours may lie outside, and stand for the nearest inside.
            (height * width,) int16 32 * y + x: how far the place is from there to the next, in 32nds; -1: not valid.
        """
        places, fractions = self._maps
        fractions = np.where(self.valid, fractions.astype(np.int16), np.int16(-1))
        return places.reshape(-1, 2).copy(), fractions.reshape(-1)

    def _check_out(self, out: np.ndarray) -> None:
        expected = (self.view.height, self.view.width, 3)
        if out.dtype != np.uint8 or out.shape != expected or not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"out is {out.dtype}, {out.shape}; expected writable uint8 {expected} without gaps")

    def _needed_region(self, reduced: np.ndarray) -> tuple[slice, slice]:
        sides = []
        for axis, size in ((1, self.model.height), (0, self.model.width)):
            limit = size // self.factor
            values = reduced[..., axis][self.valid]
            lowest, highest = (values.min(), values.max()) if values.size else (0.0, 0.0)
            start = min(max(int(math.floor(lowest)), 0), limit - 1) // 2 * 2
            stop = min(max(int(math.floor(highest)) + 3, start + 2) // 2 * 2, limit)
            sides.append(slice(start * self.factor, stop * self.factor))
        return sides[0], sides[1]


def _reduction(pixels: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> int:
    """Largest factor that leaves the reduced picture about as fine as the view, over most of the view."""
    across, down = pixels[:-1, 1:] - pixels[:-1, :-1], pixels[1:, :-1] - pixels[:-1, :-1]
    area = np.abs(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0])  # source pixels per view pixel
    seen = valid[:-1, :-1] & valid[:-1, 1:] & valid[1:, :-1]
    if not seen.any():
        return 1
    scale = math.sqrt(float(np.median(area[seen])))
    return max(factor for factor in FACTORS if factor == 1 or (factor * _NEARLY_WHOLE <= scale and factor <= min(size)))
