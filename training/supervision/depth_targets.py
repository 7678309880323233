"""Targets for the network's depth head: the depth bins of each feature pixel, from 2D labels."""

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
    kind: str = "nearest",
) -> Tensor:
    """What the depth bins of each feature pixel should be, from the rays of the current frame.

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
        kind: nearest: all of the bin of the nearest return (BEVDepth), where it lies in one. shares: the share of the
            returns in each bin; those behind the last one count as in it, so that what is far is not without a label.
    Returns:
        (N, D, h, w) float32, sums to one over D; zeros for pixels without a label.
    """
    height, width = feature_shape
    places, bins, dtype = len(base_from_camera) * height * width, len(edges) - 1, torch.float32
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
    depth = in_camera[:, 2].contiguous()
    pixels = torch.einsum("rij,rj->ri", intrinsics.to(dtype)[cameras, :2], in_camera) / depth[:, None]
    column, row = ((pixels + 0.5) / stride).floor().unbind(dim=1)
    seen = measured & (depth > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)

    # Returns that are not seen are written to one extra place, which is then removed: a GPU need not count them first.
    row, column = (torch.where(seen, part, torch.zeros_like(part)).to(torch.int64) for part in (row, column))
    place = torch.where(seen, (cameras * height + row) * width + column, places)
    if kind == "nearest":
        nearest = torch.full((places + 1,), torch.inf, device=depth.device)
        number = torch.bucketize(nearest.scatter_reduce_(0, place, depth, "amin")[:-1], edges.to(dtype), right=True) - 1
        labelled = (number >= 0) & (number < bins)
        targets = torch.zeros(places, bins, device=depth.device)
        targets.scatter_(1, number.clamp(0, bins - 1)[:, None], labelled.to(dtype)[:, None])
    else:
        number = (torch.bucketize(depth, edges.to(dtype), right=True) - 1).clamp(max=bins - 1)
        counts = torch.zeros((places + 1) * bins, device=depth.device)
        counts.index_add_(0, place * bins + number.clamp(min=0), (number >= 0).to(dtype))
        targets = counts.view(-1, bins)[:-1]
        targets = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
    return targets.view(len(base_from_camera), height, width, bins).movedim(-1, 1)
