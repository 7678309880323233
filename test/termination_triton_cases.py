"""Ray termination in Triton against the float64 reference: depths, gradients and windows. Run by
`test_termination_triton`, in a process of its own: Triton decides when it is imported whether its kernels are
interpreted, as they are without a GPU.

All buffers are filled with NaN or large integers first, so every test notices elements that a kernel does not write.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from poison import poison_new_buffers
from termination_cases import (  # noqa: F401  (the tests, too)
    F32,
    assert_agree,
    labelled_rays,
    test_any_step_and_samples_in_the_middles_of_steps_agree,
    test_empty_thin_and_very_dense_fields_agree,
    test_half_precision_fields_agree_with_the_reference_of_the_same_numbers,
    test_no_ray_one_ray_and_rays_that_miss_agree,
    test_rays_along_faces_edges_and_axes_agree,
)
from test_render import UNIT_GRID, random_field, random_rays, rays_of
from test_render_cpu import grid_of
from test_termination import windows

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.termination import reference, return_windows, termination, triton_kernel
from renderocc_model.ops.termination.triton_kernel import Launch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
MANY = Launch(rays=128, run=2)  # all rays in one program, because the interpreter is slow per program


@pytest.fixture(autouse=True)
def unwritten_buffers_are_poisoned(monkeypatch):
    torch.set_num_threads(1)
    poison_new_buffers(monkeypatch)
    monkeypatch.setattr(triton_kernel, "LAUNCH", MANY if DEVICE == "cpu" else Launch())


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def agree():
    return partial(assert_agree, backend="triton", device=DEVICE)


# --- optical depths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 6, 2), (4, 1, 3), (3, 2, 1), (1, 1, 1), (23, 19, 5)])
def test_agrees_with_the_reference_in_depths_and_gradient(shape, agree):
    grid = grid_of(*shape)
    # What one voxel gets is a difference of sums that are larger: 0.04 of 77 rays' 0 to 2 each.
    rounding = 2e-5 if shape == (1, 1, 1) else 2e-6
    agree(random_field(grid, dtype=F32), random_rays(77, grid, dtype=F32), windows(77), rounding=rounding)


@pytest.mark.parametrize(
    "launch",
    [
        Launch(rays=2, samples=4, run=1),
        Launch(rays=16, samples=8, run=8, warps=2),
        Launch(rays=64, samples=128, run=32),
    ],
)
def test_any_cut_of_the_work_agrees(launch, monkeypatch, agree):
    monkeypatch.setattr(triton_kernel, "LAUNCH", launch)
    grid = grid_of(23, 19, 5)
    agree(random_field(grid, dtype=F32), random_rays(37, grid, dtype=F32), windows(37))


def test_non_contiguous_fields_rays_and_windows_agree(agree):
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(50, UNIT_GRID, dtype=F32)
    density = field.density.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    scattered = Rays(rays.origins.T.contiguous().T, rays.directions.repeat(1, 2)[:, 3:])
    strided = tuple(torch.stack([column, column], dim=1)[:, 0] for column in windows(50))
    agree(SemanticDensityField(UNIT_GRID, density, field.semantics), scattered, strided)


@pytest.mark.parametrize("used", [0, 1])
def test_a_depth_that_is_not_used_gives_no_gradient(used):
    rays, (starts, ends, _) = random_rays(40, UNIT_GRID, dtype=F32), windows(40)
    gradients = []
    for backend, device, dtype in (("triton", DEVICE, F32), ("reference", "cpu", torch.float64)):
        density = random_field(UNIT_GRID, dtype=dtype).density.to(device).requires_grad_()
        field = SemanticDensityField(UNIT_GRID, density, density.new_zeros(5, 5, 5, 0))
        result = termination(field, rays.to(device, dtype), starts.to(device), ends.to(device), backend=backend)
        result[used][:30].sum().backward()
        gradients.append(density.grad.cpu().double())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


# --- which samples ---------------------------------------------------------------------------------------------------


def test_windows_hold_the_same_samples_as_in_float64_from_places_exact_to_a_millionth_of_a_voxel():
    rays = Rays.concatenate(
        [
            random_rays(3000, OCC3D_GRID),
            rays_of(*[((x, 0.1, 1), d) for x in (0, 0.1, -40, 40, 41) for d in ((1, 0, 0), (-1, 0, 0), (0, 1, 0))]),
        ]
    )
    starts, ends, offsets = windows(len(rays))
    starts, ends = 8 * starts, 8 * ends
    starts[::13] = (starts[::13] / 0.2).round() * 0.2 + 0.1  # on samples, where a ray begins in the grid
    for step, moved in ((0.5, None), (0.5, offsets), (0.37, offsets), (9.0, offsets)):
        delta = step * OCC3D_GRID.voxel_size
        on_device = [None if t is None else t.to(DEVICE) for t in (starts, ends, moved)]
        walk = triton_kernel._enter(OCC3D_GRID, rays.to(DEVICE), *on_device[:2], delta, on_device[2])
        near, first, last = reference.sample_ranges(OCC3D_GRID, rays, starts, ends, delta, moved)
        assert torch.equal(walk.first.cpu().long(), first) and torch.equal(walk.last.cpu().long(), last)
        assert last.max() <= walk.limit and (last > first).sum() > 500
        t = near + (last.double() + (0.5 if moved is None else moved) - 1) * delta  # all steps' roundings add up to it
        place = (rays.origins + t[:, None] * rays.directions - torch.tensor(OCC3D_GRID.lower)) / 0.4 - 0.5
        places = walk.places.cpu()
        found = (places[:, :3] + (last[:, None] - 1) * places[:, 3:]).double() / 2**32
        assert (found - place)[last > 0].abs().max() < (walk.limit + 2) * 2.0**-32


def test_rays_and_windows_that_are_no_numbers_do_no_harm():
    """`Rays` does not check values on a GPU. Kernels must not read memory outside of the field. NaN counts as inf."""
    rays = random_rays(6, UNIT_GRID, dtype=F32).to(DEVICE)
    rays.origins[0], rays.directions[1], rays.origins[2, 1] = float("nan"), float("nan"), float("inf")
    rays.origins[3], rays.directions[3] = torch.tensor([0, 2.5, 2.5]), torch.tensor([1.0, 0, 0])
    starts = torch.tensor([0, 0, 0, float("nan"), 1, 2], device=DEVICE)
    walk = triton_kernel._enter(UNIT_GRID, rays, starts, starts, 0.5, None)
    assert walk.first[:4].tolist() == [0, 0, 0, 10] and walk.last[:4].tolist() == [0, 0, 0, 10]
    assert reference.sample_ranges(UNIT_GRID, rays, starts, starts, 0.5)[1][3].item() == 10


# --- the same bytes every time ---------------------------------------------------------------------------------------


def test_deterministic_gradients_agree_and_do_not_depend_on_the_order_of_rays(deterministic, agree):
    grid = grid_of(5, 7, 3)
    field, rays, columns = random_field(grid, dtype=F32), random_rays(77, grid, dtype=F32), windows(77)
    agree(field, rays, columns)

    def gradient(order):
        density = field.density.detach().to(DEVICE).requires_grad_()
        moved = SemanticDensityField(grid, density, density.new_zeros(*grid.shape, 0))
        starts, ends, offsets = (column[order].to(DEVICE) for column in columns)
        result = termination(moved, rays[order].to(DEVICE), starts, ends, offsets=offsets, backend="triton")
        ((result.before - 3 * result.window) * torch.linspace(-1, 1, 77, device=DEVICE)[order]).sum().backward()
        return density.grad

    one, other = gradient(torch.arange(77)), gradient(torch.arange(77).flip(0))
    assert one.any() and torch.equal(one, other)


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e30, float("inf")])
def test_deterministic_gradients_of_any_size_agree(scale, deterministic, agree):
    field, rays, (starts, ends, _) = random_field(UNIT_GRID), random_rays(20, UNIT_GRID), windows(20)

    def gradient(dtype, device, backend):
        density = field.density.detach().to(device, dtype).requires_grad_()
        moved = SemanticDensityField(UNIT_GRID, density, density.new_zeros(5, 5, 5, 0))
        result = termination(moved, rays.to(device), starts.to(device), ends.to(device), backend=backend)
        result.window.backward(torch.full_like(result.window, scale))
        return density.grad.cpu().double()

    found, expected = gradient(F32, DEVICE, "triton"), gradient(torch.float64, "cpu", "reference")
    if scale == float("inf"):
        assert found.isnan().any()
    else:
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.5, 2.5])
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 6, 2), (1, 1, 1), (23, 19, 5)])
def test_windows_are_the_same_bytes_as_the_reference_s(shape, margin):
    grid = grid_of(*shape)
    marks = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3
    for count in (0, 1, 200):
        for follow, marked in ((True, None), (True, marks), (False, None)):
            rays, distances, returned = labelled_rays(grid, count)
            arguments = (grid, rays, distances, returned, margin, follow, 0.5, marked)
            expected = return_windows(*arguments, backend="reference")
            arguments = [value.to(DEVICE) if isinstance(value, (Rays, torch.Tensor)) else value for value in arguments]
            for one, other in zip(return_windows(*arguments, backend="triton"), expected):
                assert one.dtype == F32 and torch.equal(one.cpu(), other)


def test_windows_on_the_way_to_a_road_follow_it():
    rays, distances, returned = labelled_rays(OCC3D_GRID, 3000)
    on_device = (rays.to(DEVICE), distances.to(DEVICE), returned.to(DEVICE))
    for step in (0.5, 0.3):
        starts, _ = return_windows(OCC3D_GRID, *on_device, step=step, backend="triton")
        expected, _ = return_windows(OCC3D_GRID, rays, distances, returned, step=step, backend="reference")
        assert torch.equal(starts.cpu(), expected)
        assert ((distances - 0.4 - expected)[returned] > 1e-3).sum() > 20
