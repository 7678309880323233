"""From image features to voxels: where each feature pixel's depth bins lie in the grid, and how likely each bin is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderocc_model.network.config import DepthConfig, LiftConfig, ModelConfig
from renderocc_model.network.layers import ResidualBlock, convolution, without_effect
from renderocc_model.ops.heights import height_logits
from renderocc_model.ops.voxel_pooling import PoolingPlan, make_plan, place_points

__all__ = [
    "CAMERA_PARAMETERS",
    "DepthContextHead",
    "Frustums",
    "LiftGeometry",
    "PinholeView",
    "depth_bin_centres",
    "depth_bin_edges",
    "depths_of_bins",
    "spread_over_subpixels",
]

# Camera parameters that the depth prediction is given: fx / width, fy / height, (cx + 1/2) / width,
# (cy + 1/2) / height, height above the base frame's origin [m], upward component of the optical axis, of the image's
# x axis and of its y axis. Yaw and position on the ground plane do not change what a depth looks like: they are left
# out.
CAMERA_PARAMETERS = 8
_GATE_PARAMETERS = 7  # the y axis follows from the others, but for its sign


class PinholeView(Protocol):
    """The parts of a view that are used here; `renderocc_model.geometry.undistortion.View` has them."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def K(self) -> np.ndarray: ...


def depth_bin_edges(config: DepthConfig) -> np.ndarray:
    """Edges of the depth bins, (count + 1,) float64, metres of z-depth."""
    if config.spacing == "log":
        return np.geomspace(config.minimum, config.maximum, config.count + 1)
    return np.linspace(config.minimum, config.maximum, config.count + 1)


def depth_bin_centres(config: DepthConfig) -> np.ndarray:
    """Depths the bins stand for, (count,) float64: the middles of linear bins, the geometric middles of log ones."""
    edges = depth_bin_edges(config)
    return np.sqrt(edges[:-1] * edges[1:]) if config.spacing == "log" else (edges[:-1] + edges[1:]) / 2


@dataclass(frozen=True)
class LiftGeometry:
    """Where the features of each camera go, for one frame or a batch of frames.

    Attributes:
        voxel_index: (B, N, D, H, W) int64, cell of the pooled volume for each depth bin of each place that is lifted
            (`ModelConfig.lifted_shape`), counted as (x * Y + y) * S + s within one frame; -1 outside the grid and for
            absent cameras.
        cameras: (B, N, CAMERA_PARAMETERS) float32.
        base_from_pixel: (B, N, 4, 4) float64, from (u d, v d, d, 1) of a feature pixel (u, v) at z-depth d to the base
            frame; zeros for absent cameras.
    """

    voxel_index: Tensor
    cameras: Tensor
    base_from_pixel: Tensor

    def plan(self, cells: int) -> PoolingPlan:
        """Which feature pixels are pooled into which cell; sorted when it is first asked for, then kept.

        Args:
            cells: of the pooled volume of one frame; those of the next frame of the batch follow.
        """
        kept: PoolingPlan | None = self.__dict__.get("_plan")
        if kept is None or kept.cells != cells * self.voxel_index.shape[0]:
            kept = make_plan(self.voxel_index.flatten(0, 1), cells, frames=self.voxel_index.shape[0])
            object.__setattr__(self, "_plan", kept)
        return kept

    @staticmethod
    def batch(geometries: Sequence[LiftGeometry]) -> LiftGeometry:
        """Join the geometries of several frames, which must have as many cameras each."""
        return LiftGeometry(
            torch.cat([geometry.voxel_index for geometry in geometries]),
            torch.cat([geometry.cameras for geometry in geometries]),
            torch.cat([geometry.base_from_pixel for geometry in geometries]),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LiftGeometry:
        parts = (self.voxel_index, self.cameras, self.base_from_pixel)
        return LiftGeometry(*(part.to(device, non_blocking=non_blocking) for part in parts))


class Frustums:
    """The frustum points of a set of views, ready to be placed in the grid for each frame's camera poses.

    What is lifted stands for the `lifted_stride` x `lifted_stride` image pixels it covers, so its ray passes through
    their middle; pixel centres have integer coordinates. Depth is z-depth. What depends on the views alone is computed
    once, and a frame with the same poses as the last one costs nothing.

    Args:
        config: gives grid, image size, stride and depth bins.
        views: one pinhole view for each camera, all of the configured image size.
        device: where the geometry is computed and lies.
    Raises:
        ValueError: a view has another size, or its K is not an invertible, finite pinhole matrix.
    """

    def __init__(self, config: ModelConfig, views: Sequence[PinholeView], device: torch.device | str = "cpu") -> None:
        self._config = config
        self._device = torch.device(device)
        self._views = len(views)
        intrinsics = (
            np.stack([_checked_intrinsics(config, view, number) for number, view in enumerate(views)])
            if views
            else np.empty((0, 3, 3))
        )
        height, width = config.lifted_shape
        step, stride = config.lifted_stride, config.backbone.stride
        v, u = np.meshgrid(
            np.arange(height) * step + (step - 1) / 2, np.arange(width) * step + (step - 1) / 2, indexing="ij"
        )
        pixels = np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
        image_from_feature = np.array([[stride, 0, (stride - 1) / 2], [0, stride, (stride - 1) / 2], [0, 0, 1]])
        self._camera_from_pixel = np.tile(np.eye(4), (self._views, 1, 1))
        self._camera_from_pixel[:, :3, :3] = np.linalg.solve(
            intrinsics, np.broadcast_to(image_from_feature, intrinsics.shape)
        )
        self._directions = np.linalg.solve(intrinsics, np.broadcast_to(pixels, (self._views, *pixels.shape)))  # z is 1
        self._depths = torch.tensor(depth_bin_centres(config.lift.depth), dtype=torch.float32, device=self._device)
        size = np.array([config.images.width, config.images.height])
        focal = intrinsics[:, [0, 1], [0, 1]] / size
        centre = (intrinsics[:, [0, 1], [2, 2]] + 0.5) / size
        self._optics = np.concatenate([focal, centre], axis=1)
        self._last: tuple[np.ndarray, np.ndarray, LiftGeometry] | None = None

    def place(self, base_from_camera: np.ndarray, present: np.ndarray | None = None) -> LiftGeometry:
        """The lift geometry (B = 1) of one frame.

        Args:
            base_from_camera: (N, 4, 4), pose of each camera at its own stamp, in the grid's frame at the frame's stamp.
            present: (N,) bool, false for cameras without an image; their poses are not looked at. None: all present.
        Raises:
            ValueError: a shape is wrong, or the pose of a present camera is not finite.
        """
        count = self._views
        base_from_camera = np.asarray(base_from_camera, dtype=np.float64)
        present = np.ones(count, dtype=bool) if present is None else np.asarray(present, dtype=bool)
        if base_from_camera.shape != (count, 4, 4) or present.shape != (count,):
            raise ValueError(
                f"lift: base_from_camera is {base_from_camera.shape} and present {present.shape}; "
                f"expected ({count}, 4, 4) and ({count},) for {count} views"
            )
        base_from_camera = np.where(present[:, None, None], base_from_camera, np.eye(4))
        if not np.isfinite(base_from_camera).all():
            culprit = int(np.flatnonzero(~np.isfinite(base_from_camera).all(axis=(1, 2)))[0])
            raise ValueError(f"lift: base_from_camera of view {culprit} is not finite; mark the camera absent instead")
        if self._last is not None:
            last_base_from_camera, last_present, geometry = self._last
            if np.array_equal(last_present, present) and np.array_equal(last_base_from_camera, base_from_camera):
                return geometry
        geometry = LiftGeometry(
            self._voxel_index(base_from_camera, present),
            self._camera_parameters(base_from_camera),
            self._base_from_pixel(base_from_camera, present),
        )
        self._last = (base_from_camera, present, geometry)
        return geometry

    def _voxel_index(self, base_from_camera: np.ndarray, present: np.ndarray) -> Tensor:
        grid = self._config.grid
        height, width = self._config.lifted_shape
        cells = self._config.pooled_shape
        # Positions in units of cells, linear in depth: start + depth * step. A slab in z is several voxels high.
        cell_size = np.array([grid.voxel_size, grid.voxel_size, grid.voxel_size * grid.shape[2] / cells[2]])
        step = base_from_camera[:, :3, :3] @ self._directions / cell_size[:, None]
        start = (base_from_camera[:, :3, 3] - np.array(grid.lower)) / cell_size
        start[~present] = _FAR_OUTSIDE
        step = torch.tensor(step, dtype=torch.float32, device=self._device).view(-1, 3, height, width)
        start = torch.tensor(start, dtype=torch.float32, device=self._device)
        return place_points(start, step, self._depths, cells)[None]

    def _camera_parameters(self, base_from_camera: np.ndarray) -> Tensor:
        height = base_from_camera[:, 2, 3:4]
        upward = base_from_camera[:, 2, [2, 0, 1]]  # z of the optical axis, of the image's x axis, of its y axis
        parameters = np.concatenate([self._optics, height, upward], axis=1)
        return torch.tensor(parameters, dtype=torch.float32, device=self._device)[None]

    def _base_from_pixel(self, base_from_camera: np.ndarray, present: np.ndarray) -> Tensor:
        base_from_pixel = base_from_camera @ self._camera_from_pixel * present[:, None, None]
        return torch.from_numpy(base_from_pixel).to(self._device)[None]


_FAR_OUTSIDE = -1e8  # in cells: no depth bin reaches the grid from there, and 32-bit integers can hold it


def _checked_intrinsics(config: ModelConfig, view: PinholeView, number: int) -> np.ndarray:
    images = config.images
    if (view.height, view.width) != (images.height, images.width):
        raise ValueError(
            f"lift: view {number} is {view.width} x {view.height}, the network's images are {images.width} x "
            f"{images.height} (width x height); make the view with network_view(model, {images.height}, {images.width})"
        )
    intrinsics = np.asarray(view.K, dtype=np.float64)
    pinhole = intrinsics.shape == (3, 3) and np.isfinite(intrinsics).all() and (intrinsics[2] == (0, 0, 1)).all()
    if not pinhole or intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0 or intrinsics[1, 0] != 0:
        raise ValueError(
            f"lift: K of view {number} is {intrinsics.tolist()}; "
            f"expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive fx, fy"
        )
    return intrinsics


class DepthContextHead(nn.Module):
    """Per-pixel depth distribution and context from image features, aware of the camera (as in BEVDepth).

    The same picture means other depths under another focal length, mounting height or pitch. A gate computed from the
    camera's parameters lets one set of weights serve different cameras.

    Two settings give it the geometry itself. With `lift.rays` the layers are told each pixel's ray (`ray_features`).
    With `lift.heights` they predict, beside depths, how high above the ground a pixel's surface is; a height's logit
    is added to the depths at which the pixel's ray has this height. So "this is road" fixes a depth under any camera.
    Both begin without effect: a network that learned without them can learn on with them.

    With `lift.subpixels` a feature pixel is lifted as several places, a sub-pixel convolution (Shi et al., 2016): at
    15 m a feature pixel of eight image pixels is 1 m wide, more than two voxels.

    Takes features (M, C_in, h, w), cameras (M, CAMERA_PARAMETERS) and the backend of `height_logits`; returns the
    logits of depth (M, D, H, W), in float32 at least, and context (M, C, H, W), H and W `subpixels` times h and w.
    """

    def __init__(self, inputs: int, config: LiftConfig) -> None:
        super().__init__()
        hidden = config.hidden_channels
        self.config = config
        self.reduce = convolution(2, inputs, hidden)
        self.gate = nn.Sequential(
            nn.Linear(_GATE_PARAMETERS, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden), nn.Sigmoid()
        )
        self.rays = without_effect(nn.Conv2d(RAY_FEATURES, hidden, 1)) if config.rays else None
        self.block = ResidualBlock(2, hidden)  # by itself: the files of networks with one block have it under this name
        self.further_blocks = nn.Sequential(*(ResidualBlock(2, hidden) for _ in range(config.blocks - 1)))
        places, heights = config.subpixels**2, config.heights.count
        self.predict = nn.Conv2d(hidden, places * (config.depth.count + config.context_channels), 1)
        self.predict_height = without_effect(nn.Conv2d(hidden, places * heights, 1)) if heights else None

    def forward(self, features: Tensor, cameras: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
        logits, context, heights = self.predictions(features, cameras)
        return self.with_heights(logits, heights, cameras, backend), context

    def predictions(self, features: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits of depth (M, D, H, W), context (M, C, H, W), and logits of heights (M, K, H, W) or None."""
        dtype = self.gate[0].weight.dtype
        gate = self.gate(cameras[:, :_GATE_PARAMETERS].to(dtype))
        features = self.reduce(features) * gate[:, :, None, None]
        if self.rays is not None:
            features = features + self.rays(ray_features(cameras, features.shape[2:]).to(dtype))
        features = self.further_blocks(self.block(features))
        predicted = self._finer(self.predict(features))
        bins = self.config.depth.count
        heights = None if self.predict_height is None else self._finer(self.predict_height(features))
        return predicted[:, :bins], predicted[:, bins:], heights

    def with_heights(self, logits: Tensor, heights: Tensor | None, cameras: Tensor, backend: str = "auto") -> Tensor:
        """Logits of depth, in float32 at least, from what `predictions` gives."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if heights is None else logits + self._logits_of_heights(heights, cameras, backend)

    def _finer(self, values: Tensor) -> Tensor:
        """(M, s^2 C, h, w) as (M, C, s h, s w)."""
        return F.pixel_shuffle(values, self.config.subpixels) if self.config.subpixels > 1 else values

    def _logits_of_heights(self, heights: Tensor, cameras: Tensor, backend: str = "auto") -> Tensor:
        """The logits of heights (M, K, h, w) at the height of each depth bin, (M, D, h, w); linear in between."""
        config = self.config.heights
        heights = heights.to(torch.promote_types(heights.dtype, torch.float32))
        slope, depths = upward_slope(cameras, heights.shape[2:]), depths_of_bins(self.config.depth, cameras)
        return height_logits(heights, cameras[:, 4], slope, depths, config.minimum, config.maximum, backend)


def spread_over_subpixels(head: Mapping[str, Tensor], config: LiftConfig) -> dict[str, Tensor]:
    """The parameters of a head with `config.subpixels` from those of one that lifts each feature pixel once.

    All places of a feature pixel begin with its depth, and with an equal part of its context: the sum stays the same.

    Args:
        head: parameters by name, of a `DepthContextHead`.
    """
    places, bins = config.subpixels**2, config.depth.count
    found = dict(head)
    for name, one in head.items():
        if name.startswith(("predict.", "predict_height.")):
            found[name] = one.repeat_interleave(places, dim=0)
        if name.startswith("predict."):
            found[name][bins * places :] /= places
    return found


def depths_of_bins(config: DepthConfig, like: Tensor) -> Tensor:
    """`depth_bin_centres` as a tensor, computed where it is needed: a buffer would be rounded with the weights."""
    number = torch.arange(config.count, device=like.device, dtype=torch.float32) + 0.5
    if config.spacing == "log":
        return config.minimum * torch.exp(number * (math.log(config.maximum / config.minimum) / config.count))
    return config.minimum + number * ((config.maximum - config.minimum) / config.count)


def _tangents(cameras: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x / z (M, 1, w) and y / z (M, h, 1) of each feature pixel's ray, in the camera's optical frame."""
    height, width = shape
    fx, fy, cx, cy = cameras[:, :4, None].unbind(1)
    u = (torch.arange(width, device=cameras.device, dtype=torch.float32) + 0.5) / width
    v = (torch.arange(height, device=cameras.device, dtype=torch.float32) + 0.5) / height
    return ((u - cx) / fx)[:, None], ((v - cy) / fy)[:, :, None]


def upward_slope(cameras: Tensor, shape: Sequence[int]) -> Tensor:
    """How many metres each feature pixel's ray rises for a metre of z-depth, (M, h, w) float32.

    Args:
        cameras: (M, CAMERA_PARAMETERS) float32.
        shape: h, w of the feature map.
    """
    x, y = _tangents(cameras, shape)
    axis, x_axis, y_axis = cameras[:, 5:8, None, None].unbind(1)
    return axis + x_axis * x + y_axis * y


# Features of a ray: its upward slope; 1 / z-depth at which it meets level ground through the base frame's origin, in
# 1/m (0 above the horizon); the same depth in units of `_FAR`; x / z; y / z; the camera's height in metres.
RAY_FEATURES = 6
_FAR = 30.0  # metres


def ray_features(cameras: Tensor, shape: Sequence[int]) -> Tensor:
    """What the geometry alone says about each feature pixel, (M, RAY_FEATURES, h, w) float32, bounded.

    Args:
        cameras: (M, CAMERA_PARAMETERS) float32.
        shape: h, w of the feature map.
    """
    slope = upward_slope(cameras, shape)
    height = cameras[:, 4, None, None].expand_as(slope)
    ground = (-slope / height.clamp(min=0.1)).clamp(0, 2)
    far = (1 / (ground * _FAR).clamp(min=1e-3)).clamp(max=1)
    x, y = (tangent.expand_as(slope) for tangent in _tangents(cameras, shape))
    return torch.stack([slope.clamp(-3, 3), ground, far, x.clamp(-4, 4), y.clamp(-4, 4), height.clamp(-5, 5)], dim=1)
