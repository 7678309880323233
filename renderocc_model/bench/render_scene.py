"""The rays, fields and textbook renderer that `renderocc bench render` measures, on CPUs and on GPUs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..geometry.grid import OCC3D_GRID, VoxelGrid
from ..geometry.rays import Rays
from ..ops.render import intersect_box

__all__ = ["bench_field", "bench_rays", "textbook", "upstream_gradients"]

GRID, CLASSES, RAYS, STEP = OCC3D_GRID, 17, 38_400, 0.5
WHOLE_FIELDS, LAYERS = ("transparent", "opaque"), 4
FIELDS = (*WHOLE_FIELDS, "layered")  # the last with so many layers of density in each voxel
TOLERANCE = 2e-4  # relative to the largest number: the textbook multiplies transmittances in float32


def textbook(
    density: Tensor, semantics: Tensor, grid: VoxelGrid, rays: Rays, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Volume rendering as it is usually written, with every number of every sample in memory.

    Args:
        density, semantics: (1, 1, X, Y, Z), (1, C, X, Y, Z); every axis of two voxels or more.
    Returns:
        distance, semantics, opacity: (R,), (R, C), (R,).
    """
    delta, device = step * grid.voxel_size, density.device
    size, lower = torch.tensor(grid.shape, device=device), torch.tensor(grid.lower, device=device)
    near, far = intersect_box(rays.origins, rays.directions, grid.lower, grid.upper)
    samples = math.ceil(float((far - near).max()) / delta + 0.5)
    distances = near[:, None] + (torch.arange(samples, device=device) + 0.5) * delta
    points = rays.origins[:, None] + distances[..., None] * rays.directions[:, None]
    places = ((points - lower) / grid.voxel_size - 0.5) / (size - 1) * 2 - 1
    places = places.flip(-1)[None, None]  # grid_sample names the last axis first
    sigma = functional.grid_sample(density, places, padding_mode="border", align_corners=True)[0, 0, 0]
    sigma = sigma * (distances < far[:, None])
    logits = functional.grid_sample(semantics, places, padding_mode="border", align_corners=True)[0, :, 0]
    alpha = 1 - torch.exp(-sigma * delta)
    left = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], dim=1), dim=1)[:, :-1]
    weights = left * alpha
    return (weights * distances).sum(dim=1), (weights * logits).sum(dim=2).T, weights.sum(dim=1)


def bench_rays() -> Rays:
    """Rays in all directions, to 20 degrees below and 9 above the horizon, of seven frames 5 m apart."""
    rng = np.random.default_rng(0)
    origins = np.zeros((RAYS, 3))
    origins[:, 0] = 5.0 * rng.integers(-3, 4, RAYS)
    origins[:, :2] += rng.uniform(-1, 1, (RAYS, 2))
    origins[:, 2] = rng.uniform(1.4, 1.8, RAYS)
    yaw, pitch = rng.uniform(-math.pi, math.pi, RAYS), rng.uniform(-0.35, 0.15, RAYS)
    directions = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    return Rays(torch.from_numpy(origins.astype(np.float32)), torch.from_numpy(directions.astype(np.float32)))


def bench_field(kind: str) -> tuple[Tensor, Tensor]:
    """Density (X, Y, Z), or layered (X, Y, Z * LAYERS), and logits (X, Y, Z, C). Opaque: ground, in layers half
    a voxel lower, and one column in fifty to its full height."""
    rng = np.random.default_rng(1)
    layers = LAYERS if kind == "layered" else 1
    density = rng.uniform(0, 1e-3, (*GRID.shape[:2], GRID.shape[2] * layers)).astype(np.float32)
    if kind != "transparent":
        density[:, :, : 3 * layers - layers // 2] += 20
        density[rng.uniform(size=GRID.shape[:2]) < 0.02] += 20
    semantics = rng.standard_normal((*GRID.shape, CLASSES), dtype=np.float32)
    return torch.from_numpy(density), torch.from_numpy(semantics)


def upstream_gradients() -> list[np.ndarray]:
    """Gradients of distance (R,), semantics (R, C) and opacity (R,) that the backward passes begin with, float32."""
    rng = np.random.default_rng(2)
    shapes = ((RAYS,), (RAYS, CLASSES), (RAYS,))
    return [(scale * rng.standard_normal(shape)).astype(np.float32) for scale, shape in zip((0.05, 1, 1), shapes)]
