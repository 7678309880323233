"""Stacks samples into batches for the network and the losses, with the lift geometry of every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderocc_model.geometry.rays import Rays
from renderocc_model.geometry.undistortion import View
from renderocc_model.images.preprocessing import normalise
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.lift import CAMERA_PARAMETERS, Frustums, LiftGeometry

from .sample import FrameViews, Sample

__all__ = ["Batch", "BatchMaker", "Frames", "make_batch"]


@dataclass(frozen=True, eq=False)
class Frames:
    """One frame of each of B vehicles: the network's input.

    Attributes:
        images: (B, N, 3, H, W) uint8 RGB; channels lie last in memory. A camera that is not present has the image of
            the first one that is, so that batch statistics come from real images; zeros if the frame is missing.
        geometry: the voxels that feature pixels go to.
        intrinsics: (B, N, 3, 3) float64 of the views.
        base_from_camera: (B, N, 4, 4) float64, base_link at the frame's own moment.
        present: (B, N) bool.
        odom_from_base: (B, 4, 4) float64.
        valid: (B,) bool; false for samples without this frame.
    """

    images: Tensor
    geometry: LiftGeometry
    intrinsics: Tensor
    base_from_camera: Tensor
    present: Tensor
    odom_from_base: Tensor
    valid: Tensor

    def network_input(self) -> Tensor:
        """(B, N, 3, H, W) float32, normalised, on the images' device."""
        return normalise(self.images.movedim(2, -1))


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples.

    Attributes:
        current: the frames to predict.
        previous: earlier frames, nearest first; the same number for all samples, `valid` for those that have them.
        rays: of each sample, labelled rays in base_link of its current frame; their numbers differ.
        ray_cameras: of each sample (R,) int64, the camera of each ray.
        depth_rays: of each sample, rays for its depth bins alone and their cameras, or None.
        truth: of each sample, Occ3D arrays (X, Y, Z) uint8 of its current frame, or None.
        label_voxels: of each sample, the voxels that its labels mark (`VoxelLabels` by name), or None.
        names: of each sample, recording and frame, for error messages.
        indices: of each sample, its index in the dataset.
    """

    current: Frames
    previous: tuple[Frames, ...]
    rays: tuple[Rays, ...]
    ray_cameras: tuple[Tensor, ...]
    depth_rays: tuple[tuple[Rays, Tensor] | None, ...]
    truth: tuple[dict[str, Tensor] | None, ...]
    label_voxels: tuple[dict[str, Tensor] | None, ...]
    names: tuple[str, ...]
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rays)

    @property
    def ray_count(self) -> int:
        return sum(map(len, self.rays))

    @property
    def images(self) -> Tensor:
        return self.current.images

    @property
    def geometry(self) -> LiftGeometry:
        return self.current.geometry

    @property
    def intrinsics(self) -> Tensor:
        return self.current.intrinsics

    @property
    def base_from_camera(self) -> Tensor:
        return self.current.base_from_camera

    @property
    def present(self) -> Tensor:
        return self.current.present

    @property
    def odom_from_base(self) -> Tensor:
        return self.current.odom_from_base

    def only(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        frames = [_mapped(one, lambda tensor: tensor[index : index + 1]) for one in (self.current, *self.previous)]
        return Batch(
            frames[0],
            tuple(frames[1:]),
            (self.rays[index],),
            (self.ray_cameras[index],),
            (self.depth_rays[index],),
            (self.truth[index],),
            (self.label_voxels[index],),
            (self.names[index],),
            (self.indices[index],),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return _mapped(self, Tensor.pin_memory)


class BatchMaker:
    """`make_batch` for a model; it can be a DataLoader's `collate_fn`.

    Args:
        config: gives image size, grid and depth bins.
        previous: earlier frames of each batch, as the samples' `SampleConfig.previous`.
    """

    def __init__(self, config: ModelConfig, previous: int = 0) -> None:
        self.config, self.previous = config, previous

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        return make_batch(samples, self.config, self.previous)


def make_batch(samples: Sequence[Sample], config: ModelConfig, previous: int | None = None) -> Batch:
    """Stack samples and compute the voxels of their feature pixels, on the CPU.

    Args:
        samples: one or more, with views of the model's image size. Samples with fewer cameras than others are padded
            with absent cameras.
        config: settings of the model.
        previous: number of earlier frames; if None, the largest number that a sample has. Samples with fewer are
            padded.
    Raises:
        ValueError: there is no sample, or the views are not of the model's size.
    """
    if not samples:
        raise ValueError("there is no sample; give at least one")
    count = max(len(sample.previous) for sample in samples) if previous is None else previous
    earlier = [
        [sample.previous[step] if step < len(sample.previous) else None for sample in samples] for step in range(count)
    ]
    return Batch(
        _frames([sample.current for sample in samples], samples, config),
        tuple(_frames(step, samples, config) for step in earlier),
        tuple(sample.rays for sample in samples),
        tuple(_cameras(sample.ray_cameras) for sample in samples),
        tuple(
            None if sample.depth_rays is None else (sample.depth_rays[0], _cameras(sample.depth_rays[1]))
            for sample in samples
        ),
        tuple(None if sample.truth is None else _tensors(sample.truth) for sample in samples),
        tuple(None if sample.label_voxels is None else _tensors(sample.label_voxels) for sample in samples),
        tuple(f"{sample.recording} frame {sample.frame}" for sample in samples),
        tuple(sample.index for sample in samples),
    )


def _frames(views: Sequence[FrameViews | None], samples: Sequence[Sample], config: ModelConfig) -> Frames:
    """Stack one frame of each sample. A missing frame (None) has the cameras of the current one, all absent."""
    most = max(len(sample.current.present) for sample in samples)
    filled = [_filled_up(sample.current if view is None else view, most) for view, sample in zip(views, samples)]
    valid = np.array([view is not None for view in views])
    present = np.stack([view.present for view in filled]) & valid[:, None]
    images = np.stack([view.views for view in filled])
    images[~valid] = 0
    for frame, seen in zip(images, present):
        frame[~seen] = frame[seen.argmax()] if seen.any() else 0
    intrinsics = np.stack([view.intrinsics for view in filled])
    poses = np.stack([view.base_from_camera for view in filled])
    geometries = [_geometry(config, images.shape[2:4], *frame) for frame in zip(intrinsics, poses, present)]
    return Frames(
        torch.from_numpy(images).movedim(-1, 2),
        LiftGeometry(
            torch.cat([geometry.voxel_index for geometry in geometries]),
            torch.cat([geometry.cameras for geometry in geometries]).view(len(views), -1, CAMERA_PARAMETERS),
            torch.cat([geometry.base_from_pixel for geometry in geometries]).view(len(views), -1, 4, 4),
        ),
        torch.from_numpy(intrinsics),
        torch.from_numpy(poses),
        torch.from_numpy(present),
        torch.from_numpy(np.stack([view.odom_from_base for view in filled])),
        torch.from_numpy(valid),
    )


def _filled_up(frame: FrameViews, count: int) -> FrameViews:
    """The frame padded to a number of cameras. Added cameras are absent, and otherwise copies of the first one."""
    lacking = count - len(frame.present)
    if not lacking:
        return frame
    views = np.concatenate([frame.views, np.zeros((lacking, *frame.views.shape[1:]), np.uint8)])
    intrinsics, poses = (
        np.concatenate([array, np.repeat(array[:1], lacking, axis=0)])
        for array in (frame.intrinsics, frame.base_from_camera)
    )
    present = np.append(frame.present, np.zeros(lacking, bool))
    return replace(frame, views=views, present=present, intrinsics=intrinsics, base_from_camera=poses)


def _geometry(config: ModelConfig, size: tuple[int, int], intrinsics, base_from_camera, present) -> LiftGeometry:
    """The lift geometry of one frame. Frustums are not cached, because making them takes only a millisecond."""
    views = [View(size[1], size[0], K) for K in intrinsics]
    return Frustums(config, views).place(base_from_camera, present)


def _cameras(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(numbers, np.int64))


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a structure of dataclasses, tuples and dicts, with `change` applied to its tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(entry, change) for entry in value)
    if isinstance(value, dict):
        return {name: _mapped(entry, change) for name, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(_mapped(getattr(value, field.name), change) for field in fields(value)))
    return value
