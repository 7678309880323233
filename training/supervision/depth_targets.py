"""Targets for the network's depth head: the depth bin of each feature pixel, from 2D labels."""

from __future__ import annotations

import torch
from torch import Tensor

from renderocc_model.geometry.rays import Rays

__all__ = ["depth_bin_targets", "z_depth_cosine"]


def z_depth_cosine(rays: Rays, cameras: Tensor, base_from_camera: Tensor) -> Tensor:
    """(R,) z-depth per metre of distance: the cosine between each ray and its camera's optical axis.

    For a ray of another frame, the axis is that of the same camera in the current frame, because the sample does not
    hold the other one. Its error is the vehicle's rotation between the two frames.

    Args:
        cameras: (R,) int64, camera of each ray.
        base_from_camera: (N, 4, 4) of the current frame, of determinant 1 or, mirrored, -1.
    """
    axes = base_from_camera[:, :3, 2].to(rays.directions.dtype)
    return (rays.directions * axes[cameras]).sum(dim=1)


def depth_bin_targets(
    rays: Rays,
    cameras: Tensor,
    base_from_camera: Tensor,
    intrinsics: Tensor,
    present: Tensor,
    feature_shape: tuple[int, int],
    stride: int,
    edges: Tensor,
) -> Tensor:
    """The depth bin of the nearest return in each feature pixel (BEVDepth), from the rays of the current frame.

    Feature pixel (i, j) stands for the stride x stride image pixels from (stride * i, stride * j) on, whose centres
    have integer coordinates. Returns outside of the grid count too, because their depth is known.

    Args:
        rays: rays with distances; without frame_offsets, all are of the current frame.
        cameras: (R,) int64, the camera of each ray.
        base_from_camera: (N, 4, 4).
        intrinsics: (N, 3, 3) of the views.
        present: (N,) bool.
        feature_shape: (h, w).
        stride: image pixels per feature pixel.
        edges: (D + 1,) ascending, metres of z-depth.
    Returns:
        (N, h, w) int64; -1 for pixels without a return, or whose nearest return lies in no bin.
    """
    height, width = feature_shape
    count = len(base_from_camera)
    dtype = torch.float32
    assert rays.distances is not None, "labelled rays need distances"
    distances = rays.distances.to(dtype)
    measured = (distances > 0) & (distances < torch.inf) & present[cameras]
    if rays.frame_offsets is not None:
        measured = measured & (rays.frame_offsets == 0)
    distances = torch.where(measured, distances, torch.ones_like(distances))
    points = rays.origins.to(dtype) + distances[:, None] * rays.directions.to(dtype)

    rotation, position = base_from_camera[:, :3, :3].to(dtype), base_from_camera[:, :3, 3].to(dtype)
    # camera_from_base of an orthogonal matrix, mirrored or not: its transpose.
    in_camera = torch.einsum("rji,rj->ri", rotation[cameras], points - position[cameras])
    depth = in_camera[:, 2]
    pixels = torch.einsum("rij,rj->ri", intrinsics.to(dtype)[cameras, :2], in_camera) / depth[:, None]
    column, row = ((pixels + 0.5) / stride).floor().unbind(dim=1)
    seen = measured & (depth > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)

    # Returns that are not seen are written to one extra place, which is then removed.
    row, column = (torch.where(seen, place, torch.zeros_like(place)).to(torch.int64) for place in (row, column))
    cell = torch.where(seen, (cameras * height + row) * width + column, count * height * width)
    nearest = torch.full((count * height * width + 1,), torch.inf, device=depth.device)
    nearest = nearest.scatter_reduce_(0, cell, depth, "amin")[:-1]
    bins = torch.bucketize(nearest, edges.to(dtype), right=True) - 1
    return torch.where(bins < len(edges) - 1, bins, -1).view(count, height, width)
