"""What every implementation of ray termination must agree in with the float64 reference.

The tests here are imported by the tests of each implementation, which have a fixture `agree`: `assert_agree` with that
implementation.
"""

from __future__ import annotations

import pytest
import torch
from test_render import UNIT_GRID, random_field, random_rays, rays_of
from test_render_cpu import assert_close
from test_termination import windows

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import intersect_box
from renderocc_model.ops.termination import OpticalDepths, termination

F32 = torch.float32


def depths_of(
    field: SemanticDensityField,
    rays: Rays,
    windows: tuple[torch.Tensor, ...],
    backend: str,
    step: float = 0.5,
    device: str = "cpu",
) -> tuple[OpticalDepths, torch.Tensor]:
    """Depths, and the density's gradient of a random weighting of both: the reference's in float64."""
    exact = backend == "reference"
    density = field.density.detach().to("cpu" if exact else device, torch.float64 if exact else None).requires_grad_()
    empty = density.new_zeros(*density.shape, 0)
    rays = rays.to(density.device, torch.float64 if exact else None)
    starts, ends, offsets = (None if column is None else column.to(density.device) for column in windows)
    result = termination(SemanticDensityField(field.grid, density, empty), rays, starts, ends, step, offsets, backend)
    generator = torch.Generator().manual_seed(0)
    upstream = [torch.randn(len(rays), generator=generator).to(value) for value in result]
    torch.autograd.backward(result, upstream)
    return OpticalDepths(*(value.detach().cpu() for value in result)), density.grad.cpu()


def assert_agree(field, rays, windows, backend="cpu", rounding=2e-6, **options) -> None:
    """To within rounding of the largest number; a gradient leaves in its tensor's type, which may have 8 or 11 bits."""
    depths, gradient = depths_of(field, rays, windows, backend, **options)
    options.pop("device", None)
    expected, expected_gradient = depths_of(field, rays, windows, "reference", **options)
    for name in OpticalDepths._fields:
        assert getattr(depths, name).dtype == F32
        assert_close(getattr(depths, name), getattr(expected, name), name, rounding)
    coarse = 2 * torch.finfo(gradient.dtype).eps if gradient.dtype != F32 else 0
    assert_close(gradient, expected_gradient, "density", rounding + coarse)


def labelled_rays(grid: VoxelGrid, count: int, seed: int = 0) -> tuple[Rays, torch.Tensor, torch.Tensor]:
    """Rays from in and around the grid that return on its lowest three layers, so that many voxels hold returns."""
    rays = random_rays(count, grid, seed, dtype=F32)
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, 3, generator=generator)
    ends = torch.tensor(grid.lower) + share * (torch.tensor(grid.upper) - torch.tensor(grid.lower))
    ends[:, 2] = grid.lower[2] + share[:, 2] * 3 * grid.voxel_size
    way = ends - rays.origins
    distances = way.norm(dim=1)
    rays = Rays(rays.origins, way / distances[:, None])
    _, far = intersect_box(rays.origins, rays.directions, grid.lower, grid.upper)
    return rays, distances, (distances < far) & (torch.arange(count) % 11 > 0)


@pytest.mark.parametrize("step", [0.3, 1.0, 1.7, 40.0])
def test_any_step_and_samples_in_the_middles_of_steps_agree(step, agree):
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(60, UNIT_GRID, dtype=F32)
    agree(field, rays, (*windows(60)[:2], None), step=step)
    agree(field, rays, windows(60), step=step)


def test_rays_along_faces_edges_and_axes_agree(agree):
    directions = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1), (-0.0, 0.0, 1))
    origins = ((0, 0, 0), (5, 5, 5), (2.5, 0, 2.5), (2.5, 5, 1.1))
    rays = rays_of(*[(o, d) for o in origins for d in directions], dtype=F32)
    agree(random_field(UNIT_GRID, dtype=F32), rays, windows(len(rays)), step=0.49)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_ray_one_ray_and_rays_that_miss_agree(count, agree):
    field, misses = random_field(UNIT_GRID, dtype=F32), rays_of(((-1, 9, 0), (1, 0, 0)), ((0, 0, 9), (0, 0, 1)))
    agree(field, random_rays(count, UNIT_GRID, dtype=F32), windows(count))
    agree(field, misses[:count].to(dtype=F32), windows(count))


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 30.0, 1e4])
def test_empty_thin_and_very_dense_fields_agree(sigma, agree):
    """Also where no light is left: unlike the renderer's opacity, an optical depth has no upper limit."""
    field = SemanticDensityField(UNIT_GRID, torch.full((5, 5, 5), sigma), torch.zeros(5, 5, 5, 0))
    agree(field, random_rays(50, UNIT_GRID, dtype=F32), windows(50))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_fields_agree_with_the_reference_of_the_same_numbers(dtype, agree):
    agree(random_field(UNIT_GRID, dtype=dtype), random_rays(50, UNIT_GRID), windows(50))
