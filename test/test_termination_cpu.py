"""The compiled loops of ray termination for CPUs against the float64 reference: depths, gradients, windows, threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from poison import poison_new_buffers
from termination_cases import (  # noqa: F401  (the tests, too)
    F32,
    assert_agree,
    depths_of,
    labelled_rays,
    test_any_step_and_samples_in_the_middles_of_steps_agree,
    test_empty_thin_and_very_dense_fields_agree,
    test_half_precision_fields_agree_with_the_reference_of_the_same_numbers,
    test_no_ray_one_ray_and_rays_that_miss_agree,
    test_rays_along_faces_edges_and_axes_agree,
)
from test_render import UNIT_GRID, random_field, random_rays, rays_of
from test_render_cpu import assert_close, grid_of
from test_termination import windows
from torch_threads import threads_as_before  # noqa: F401  (for every test here)

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.termination import OpticalDepths, cpu_kernel, return_windows, termination


@pytest.fixture
def agree():
    return assert_agree


@pytest.fixture
def many_threads(monkeypatch):
    """Threads even for the few samples of a test."""
    monkeypatch.setattr(cpu_kernel, "SAMPLES_WORTH_A_THREAD", 1)


SHAPES = [(5, 7, 3), (1, 6, 2), (4, 1, 3), (3, 2, 1), (1, 1, 1), (2, 2, 2), (23, 19, 5)]


# --- optical depths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_reference_in_depths_and_gradient(shape, threads, many_threads):
    torch.set_num_threads(threads)
    grid = grid_of(*shape)
    # Half of the origins lie inside, half of the rays aim at the grid, the others mostly miss.
    assert_agree(random_field(grid, dtype=F32), random_rays(77, grid, dtype=F32), windows(77))


def test_long_rays_through_a_large_grid_agree():
    density = torch.rand(OCC3D_GRID.shape, generator=torch.Generator().manual_seed(0)) ** 3
    field = SemanticDensityField(OCC3D_GRID, density, torch.zeros(*OCC3D_GRID.shape, 0))
    rays = random_rays(200, OCC3D_GRID, dtype=F32)
    starts, ends, offsets = windows(200)
    assert_agree(field, rays, (10 * starts, 10 * ends, offsets))


def test_non_contiguous_fields_rays_and_windows_give_the_same_bytes():
    field, rays, columns = random_field(UNIT_GRID, dtype=F32), random_rays(50, UNIT_GRID, dtype=F32), windows(50)
    density = field.density.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    scattered = Rays(rays.origins.T.contiguous().T, rays.directions.repeat(1, 2)[:, 3:])
    strided = tuple(torch.stack([column, column], dim=1)[:, 0] for column in columns)
    assert not any(tensor.is_contiguous() for tensor in (density, scattered.directions, *strided))
    expected, gradient = depths_of(field, rays, columns, "cpu")
    found, other = depths_of(SemanticDensityField(UNIT_GRID, density, field.semantics), scattered, strided, "cpu")
    assert torch.equal(found.before, expected.before) and torch.equal(found.window, expected.window)
    assert torch.equal(other, gradient) and gradient.any()


def test_every_number_of_a_result_is_written(monkeypatch):
    poison_new_buffers(monkeypatch)
    depths, gradient = depths_of(
        random_field(UNIT_GRID, dtype=F32), random_rays(99, UNIT_GRID, dtype=F32), windows(99), "cpu"
    )
    for value in (*depths, gradient):
        assert torch.isfinite(value).all()


@pytest.mark.parametrize("name", OpticalDepths._fields)
def test_the_gradient_of_one_depth_alone_agrees(name):
    rays, (starts, ends, _) = random_rays(40, UNIT_GRID, dtype=F32), windows(40)
    gradients = []
    for backend, dtype in (("cpu", F32), ("reference", torch.float64)):
        field = random_field(UNIT_GRID, dtype=dtype)
        density = field.density.requires_grad_()
        result = termination(field, rays.to(dtype=dtype), starts, ends, backend=backend)
        getattr(result, name)[:30].sum().backward()
        gradients.append(density.grad)
    assert_close(gradients[0], gradients[1], name)


def test_a_gradient_that_is_no_number_is_seen():
    field, rays = random_field(UNIT_GRID, dtype=F32), rays_of(((0, 2.5, 2.5), (1, 0, 0)), dtype=F32)
    density = field.density.requires_grad_()
    result = termination(field, rays, torch.tensor([2.0]), torch.tensor([3.0]), backend="cpu")
    (result.window * float("nan") + result.before).sum().backward()
    assert density.grad.isnan().any() and not density.grad.isnan().all()


# --- threads ---------------------------------------------------------------------------------------------------------


def test_depths_do_not_depend_on_the_number_of_threads_and_gradients_not_on_the_run(many_threads):
    grid = grid_of(23, 19, 5)
    field, rays, columns = random_field(grid, dtype=F32), random_rays(300, grid, dtype=F32), windows(300)
    results = {}
    for threads in (1, 2, 5, 2, 5):
        torch.set_num_threads(threads)
        depths, gradient = depths_of(field, rays, columns, "cpu")
        first_depths, first_gradient = results.setdefault(threads, (depths, gradient))
        assert torch.equal(gradient, first_gradient)
        for value, expected in zip(depths, results[1][0]):
            assert torch.equal(value, expected)
        assert_close(gradient, results[1][1], "density", 1e-7)  # sums are of 64 bits


def test_threads_have_no_more_than_there_is_memory_for(many_threads, monkeypatch):
    torch.set_num_threads(4)
    grid, made = grid_of(5, 7, 3), []
    monkeypatch.setattr(cpu_kernel, "PRIVATE_BYTES", 2 * 8 * grid.size + 1)
    monkeypatch.setattr(
        cpu_kernel, "_sum_of", lambda own, sum_of=cpu_kernel._sum_of: made.append(len(own)) or sum_of(own)
    )
    assert_agree(random_field(grid, dtype=F32), random_rays(77, grid, dtype=F32), windows(77))
    assert made == [2]


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_windows_are_the_same_bytes_as_the_reference_s(shape, margin):
    grid = grid_of(*shape)
    marks = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3
    for count in (0, 1, 200):
        for follow, marked in ((True, None), (True, marks), (False, None)):
            arguments = (grid, *labelled_rays(grid, count), margin, follow, 0.5, marked)
            for found, expected in zip(return_windows(*arguments), return_windows(*arguments, backend="reference")):
                assert found.dtype == F32 and torch.equal(found, expected)


def test_windows_on_the_way_to_a_road_follow_it():
    """That the test above has runs to follow: on Occ3D's grid, of 5,000 rays, and with other steps."""
    rays, distances, returned = labelled_rays(OCC3D_GRID, 5000)
    for step in (0.5, 0.3):
        starts, _ = return_windows(OCC3D_GRID, rays, distances, returned, step=step, backend="cpu")
        expected, _ = return_windows(OCC3D_GRID, rays, distances, returned, step=step, backend="reference")
        assert torch.equal(starts, expected)
        assert 50 < ((distances - 0.4 - starts)[returned] > 1e-3).sum() < 4500


# --- the choice of the implementation --------------------------------------------------------------------------------


def test_auto_takes_the_loops_where_they_can_do_it_and_the_reference_elsewhere():
    field, rays, (starts, ends, _) = (
        random_field(UNIT_GRID, dtype=F32),
        random_rays(40, UNIT_GRID, dtype=F32),
        windows(40),
    )
    one, same, other = (termination(field, rays, starts, ends, backend=name) for name in ("auto", "cpu", "reference"))
    assert torch.equal(one.before, same.before) and not torch.equal(one.before, other.before)  # they round differently
    assert termination(field.to(dtype=torch.float64), rays, starts, ends).before.dtype == torch.float64


def test_what_the_loops_cannot_do_is_refused_when_they_are_asked_for():
    field, rays, ones = random_field(UNIT_GRID), random_rays(4, UNIT_GRID), torch.ones(4)
    with pytest.raises(ValueError, match="'cpu' sums in float32, and the field is float64; use backend='reference'"):
        termination(field, rays, ones, ones, backend="cpu")
    with pytest.raises(ValueError, match="'cpu' works on the CPU, and this is on meta"):
        termination(field.to("meta", F32), rays.to("meta"), ones.to("meta"), ones.to("meta"), backend="cpu")


@pytest.mark.system
def test_loading_the_operator_loads_no_compiler_and_without_one_a_line_says_what_to_install():
    code = """
import sys, torch
from renderocc_model import SemanticDensityField, VoxelGrid, Rays
from renderocc_model.ops.termination import termination
print("numba" in sys.modules)
sys.modules["numba"] = None  # as if it were not installed
grid = VoxelGrid((0, 0, 0), (1, 1, 1), 1.0)
field = SemanticDensityField(grid, torch.ones(1, 1, 1), torch.zeros(1, 1, 1, 2))
rays, ends = Rays(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([2.0])
print(termination(field, rays, ends - 2, ends, backend="reference").window.tolist())
try:
    termination(field, rays, ends - 2, ends)
except ImportError as error:
    print(error)
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["False", "[1.0]"] and len(lines) == 3, done.stderr
    assert "ray termination on the CPU needs Numba: python3 -m pip install numba" in lines[2]
