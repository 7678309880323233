"""Where light ends: the reference against hand-worked cases, SciPy's interpolation and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from test_render import UNIT_GRID, constant_field, random_field, random_rays, rays_of

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.ops.render import render
from renderocc_model.ops.termination import (
    OpticalDepths,
    log1mexp,
    negative_log_likelihood,
    reference,
    return_windows,
    termination,
)

ALONG_X = ((0, 2.5, 2.5), (1, 0, 0))  # from the face x = 0 through the middles of five voxels of 1 m


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def windows(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Starts, ends and offsets, some windows without end, some empty."""
    generator = torch.Generator().manual_seed(seed)
    starts, lengths, offsets = torch.rand(3, count, generator=generator, dtype=torch.float64)
    starts, lengths = 6 * starts - 0.5, 3 * lengths - 0.2
    starts[::7], lengths[1::7] = math.inf, math.inf
    return starts, starts + lengths, offsets


def march(field: SemanticDensityField, origin, direction, start: float, end: float, step: float, offset: float):
    """One ray in NumPy, sample after sample; SciPy interpolates (edge values continued)."""
    grid = field.grid
    lower, upper, delta = np.array(grid.lower), np.array(grid.upper), step * grid.voxel_size
    with np.errstate(divide="ignore"):
        hits = np.sort(((lower - origin) / direction, (upper - origin) / direction), axis=0)
    near, far = max(hits[0].max(), 0.0), hits[1].min()
    depths, i = [0.0, 0.0], 0
    while (t := near + (i + offset) * delta) < far:
        at = ((origin + t * direction - lower) / grid.voxel_size - 0.5)[:, None]
        sigma = map_coordinates(field.density.numpy(), at, order=1, mode="nearest")[0]
        if t < end or t < start:
            depths[int(t >= start)] += sigma * delta
        i += 1
    return depths


# --- optical depths --------------------------------------------------------------------------------------------------


def test_single_voxel_is_split_by_the_window_as_worked_out_by_hand():
    # Density 4 / m in voxel (2, 2, 2) only: a tent 4 (1 - |x - 2.5|) along the ray. The samples at 1.75, 2.25, 2.75,
    # 3.25 meet 1, 3, 3, 1 per metre on 0.5 m each. The window takes in its start and leaves out its end.
    density = torch.zeros(5, 5, 5, dtype=torch.float64)
    density[2, 2, 2] = 4.0
    field = SemanticDensityField(UNIT_GRID, density.requires_grad_(), torch.zeros(5, 5, 5, 0, dtype=torch.float64))
    starts, ends = numbers(2.25, 2.3, 0.0, math.inf), numbers(3.25, 9.0, 2.0, math.inf)
    result = termination(field, rays_of(*4 * [ALONG_X]), starts, ends)
    assert result.before.tolist() == pytest.approx([0.5, 2.0, 0.0, 4.0])
    assert result.window.tolist() == pytest.approx([3.0, 2.0, 0.5, 0.0])
    (result.before[0] + 10 * result.window[0]).backward()
    # Voxel 2 has a quarter of the sample at 1.75 and three quarters of both in the window: 0.5 (1/4 + 10 (3/4 + 3/4)).
    assert density.grad[2, 2, 2].item() == pytest.approx(0.5 * (0.25 + 10 * 1.5))
    # Voxel 4 has nothing before 3.25; voxel 0, centre 0.5, has (1.5 - x) of the samples at 0.25 (1, clamped) to 1.25.
    assert density.grad[4].any().item() is False
    assert density.grad[0, 2, 2].item() == pytest.approx(0.5 * (1 + 0.75 + 0.25))


def test_constant_density_gives_lengths_times_density():
    # 5 m of 0.3 / m in ten steps of 0.5 m: window [2, 4) holds the samples at 2.25 ... 3.75.
    result = termination(constant_field(UNIT_GRID, 0.3), rays_of(ALONG_X), numbers(2.0), numbers(4.0))
    assert [result.before.item(), result.window.item()] == pytest.approx([0.6, 0.6])
    nll = negative_log_likelihood(result, torch.tensor([True]))
    assert nll.item() == pytest.approx(-math.log(math.exp(-0.6) * (1 - math.exp(-0.6))))


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 6, 2), (4, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("step", [0.5, 0.37, 3.0])
def test_depths_are_those_of_a_march_in_numpy(shape, step):
    grid = VoxelGrid((-1.0, 2.0, 0.5), tuple(low + 0.4 * n for low, n in zip((-1.0, 2.0, 0.5), shape)), 0.4)
    field, rays = random_field(grid), random_rays(40, grid)
    starts, ends, offsets = windows(40)
    result = termination(field, rays, starts, ends, step, offsets)
    chosen = reference.sample_ranges(grid, rays, starts, ends, step * 0.4, offsets)
    place = chosen.near + (chosen.first + offsets) * step * 0.4
    for row in range(40):
        if chosen.last[row] > chosen.first[row] and not starts[row] <= place[row] < ends[row]:
            continue  # a sample that stands for a window without one: the test below
        expected = march(
            field,
            rays.origins[row].numpy(),
            rays.directions[row].numpy(),
            starts[row].item(),
            ends[row].item(),
            step,
            offsets[row].item(),
        )
        assert [result.before[row].item(), result.window[row].item()] == pytest.approx(expected, abs=1e-12), row


def test_the_whole_way_is_what_the_renderer_sees():
    field, rays = random_field(UNIT_GRID), random_rays(60, UNIT_GRID)
    forever = torch.full((60,), math.inf, dtype=torch.float64)
    result = termination(field, rays, forever, forever)
    torch.testing.assert_close(-torch.expm1(-result.before), render(field, rays).opacity)
    assert not result.window.any()
    torch.testing.assert_close(termination(field, rays, torch.zeros(60), forever).window, result.before)


def test_probabilities_of_windows_that_share_out_a_ray_add_up_to_one():
    field, rays = random_field(UNIT_GRID), rays_of(((-1, 2.2, 2.9), (1, 0.1, -0.2)))
    edges = [0.0, 1.7, 2.0, 3.3, 4.1, math.inf]
    parts = [termination(field, rays, numbers(a), numbers(b)) for a, b in zip(edges, edges[1:])]
    total = sum(torch.exp(-negative_log_likelihood(part, torch.tensor([True]))).item() for part in parts)
    beyond = termination(field, rays, numbers(math.inf), numbers(math.inf))
    total += torch.exp(-negative_log_likelihood(beyond, torch.tensor([False]))).item()
    assert total == pytest.approx(1, abs=1e-12)


def test_jittered_samples_move_along_the_ray_by_their_part_of_a_step():
    # Samples at 0, 0.5, ... 4.5, and with offset 0.9 at 0.45 ... 4.95; at most 0.5 m of the tent are on either side.
    density = torch.zeros(5, 5, 5, dtype=torch.float64)
    density[0] = 1.0  # 1 up to x = 0.5, then down to 0 at 1.5
    field = SemanticDensityField(UNIT_GRID, density, torch.zeros(5, 5, 5, 0, dtype=torch.float64))
    result = termination(field, rays_of(ALONG_X, ALONG_X), numbers(9, 9), numbers(9, 9), offsets=numbers(0.0, 0.9))
    assert result.before.tolist() == pytest.approx([0.5 * (1 + 1 + 0.5), 0.5 * (1 + 0.55 + 0.05)])


def test_a_window_without_a_sample_takes_the_one_on_whose_step_its_middle_lies():
    # Samples stand at 1 and 3, for [0, 2) and [2, 4) (and at 5, the far face, none). Density x / 5 in the middle.
    density = torch.arange(5, dtype=torch.float64)[:, None, None].expand(5, 5, 5) + 0.5
    field = SemanticDensityField(UNIT_GRID, density, torch.zeros(5, 5, 5, 0, dtype=torch.float64))
    starts, ends = numbers(1.1, 2.2, 4.6, -2.0, 7.0), numbers(1.7, 2.8, 9.0, -1.0, 9.0)
    result = termination(field, rays_of(*5 * [ALONG_X]), starts, ends, step=2.0)
    assert result.before.tolist() == pytest.approx([0, 2, 2, 0, 8])
    assert result.window.tolist() == pytest.approx([2, 6, 6, 0, 0])


def test_a_return_before_the_grid_has_no_depth_and_a_window_across_its_face_what_is_inside():
    field, rays = constant_field(UNIT_GRID, 1.0), rays_of(*3 * [((-3, 2.5, 2.5), (1, 0, 0))])
    result = termination(field, rays, numbers(1.0, 2.0, 7.0), numbers(2.0, 4.0, 10.0))
    assert result.before.tolist() == pytest.approx([0, 0, 4]) and result.window.tolist() == pytest.approx([0, 1, 1])


def test_rays_that_miss_and_no_rays_at_all_can_be_differentiated():
    for rays in (rays_of(((-1, 9, 0), (1, 0, 0)), ((0, 0, 9), (0, 0, 1))), rays_of()):
        field = random_field(UNIT_GRID)
        density = field.density.requires_grad_()
        result = termination(field, rays, torch.zeros(len(rays)), torch.ones(len(rays)))
        assert result.before.tolist() == result.window.tolist() == [0] * len(rays)
        (result.before.sum() + result.window.sum()).backward()
        assert not density.grad.any()


@pytest.mark.parametrize("samples_per_chunk", [1, 50, 2**19])
def test_gradients_are_those_of_finite_differences(samples_per_chunk):
    grid = VoxelGrid((0.0, 0.0, 0.0), (3.0, 4.0, 2.0), 1.0)
    rays = random_rays(12, grid)
    starts, ends, offsets = windows(12)

    def depths(density):
        field = SemanticDensityField(grid, density, torch.zeros(3, 4, 2, 0, dtype=torch.float64))
        return reference.termination(field, rays, starts, ends, 0.5, offsets, samples_per_chunk)

    # Densities stay above 0 when finite differences are taken.
    assert torch.autograd.gradcheck(depths, (random_field(grid).density + 0.1).requires_grad_())


def test_chunks_do_not_change_the_result():
    field, rays = random_field(UNIT_GRID), random_rays(50, UNIT_GRID)
    arguments = (field, rays, *windows(50)[:2])
    assert torch.equal(
        reference.termination(*arguments, samples_per_chunk=17).window, reference.termination(*arguments).window
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0.0}, "step is 0.0"),
        ({"starts": torch.zeros(2)}, r"starts are torch.float32 of shape \(2,\); expected \(3,\)"),
        ({"ends": torch.zeros(3, dtype=torch.int64)}, "ends are torch.int64"),
        ({"ends": torch.tensor([0, math.nan, 1])}, r"ends\[1\] is NaN"),
        ({"offsets": torch.tensor([0, 0.5, 1.0])}, r"expected parts of a step in \[0, 1\)"),
        ({"backend": "cuda"}, "backend is 'cuda'"),
    ],
)
def test_what_cannot_be_worked_with_is_named(change, message):
    arguments = {"starts": torch.zeros(3), "ends": torch.ones(3)} | change
    with pytest.raises(ValueError, match=message):
        termination(random_field(UNIT_GRID), random_rays(3, UNIT_GRID), **arguments)


# --- likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp_is_right_to_rounding_from_tiny_to_large_depths(dtype):
    # log(1 - exp(-x)): log x - x / 2 + x^2 / 24 for small x, -exp(-x) for large x; log(1/2) at log 2.
    eps = torch.finfo(dtype).eps
    cases = {
        1e-30: math.log(1e-30),
        1e-4: math.log(1e-4) - 5e-5 + 1e-8 / 24,
        math.log(2): -math.log(2),
        1.0: math.log(1 - math.exp(-1)),
        20.0: -math.exp(-20.0) - math.exp(-40.0) / 2,
        80.0: -math.exp(-80.0),
    }
    for x, expected in cases.items():
        depth = torch.tensor(x, dtype=dtype, requires_grad=True)
        value = log1mexp(depth)
        value.backward()
        exact = depth.item()
        assert value.item() == pytest.approx(expected, rel=8 * eps, abs=0 if x > 1 else 8 * eps)
        assert depth.grad.item() == pytest.approx(1 / math.expm1(exact), rel=8 * eps)


def test_log1mexp_has_the_gradient_of_finite_differences():
    depth = torch.tensor([1e-3, 0.1, 0.6, 0.8, 3.0, 20.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log1mexp, depth, eps=1e-7, atol=1e-4)
    assert torch.autograd.gradgradcheck(log1mexp, depth, eps=1e-7, atol=1e-2)


def test_depths_of_zero_and_without_end_make_neither_infinities_nor_nan():
    depth = torch.tensor([0.0, 1e-45, 1e-38, 100.0, 1e30, math.inf], requires_grad=True)
    value = log1mexp(depth)
    (value * torch.tensor([0.0, 1, 1, 1, 1, 1])).sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(depth.grad).all()
    assert value[0].item() == pytest.approx(math.log(2.0**-126)) and value[3:].tolist() == pytest.approx([0] * 3)
    assert depth.grad[0] == 0


def test_rays_that_left_the_grid_count_the_whole_way():
    depths = OpticalDepths(torch.tensor([0.5, 2.0], requires_grad=True), torch.tensor([1.0, 0.0], requires_grad=True))
    nll = negative_log_likelihood(depths, torch.tensor([True, False]))
    nll.sum().backward()
    assert nll.tolist() == pytest.approx([0.5 - math.log(1 - math.exp(-1)), 2.0])
    assert depths.before.grad.tolist() == [1, 1]
    assert depths.window.grad.tolist() == pytest.approx([-1 / (math.e - 1), 0])


# --- windows ---------------------------------------------------------------------------------------------------------


def test_a_window_reaches_a_voxel_before_and_behind_the_return():
    # The return's own voxel is the only one marked; nothing in the voxel at 1.95 - 0.25 m.
    starts, ends = return_windows(UNIT_GRID, rays_of(ALONG_X), numbers(2.95), torch.tensor([True]))
    assert starts.tolist() == pytest.approx([1.95]) and ends.tolist() == pytest.approx([3.95])
    starts, ends = return_windows(UNIT_GRID, rays_of(ALONG_X), numbers(0.3), torch.tensor([True]), margin=2.0)
    assert starts.tolist() == [0.0] and ends.tolist() == pytest.approx([2.3])


def test_rays_without_a_return_have_the_window_behind_everything():
    for distance in (math.nan, math.inf, 0.0, 9.0):
        starts, ends = return_windows(UNIT_GRID, rays_of(ALONG_X), numbers(distance), torch.tensor([False]))
        assert starts.tolist() == ends.tolist() == [math.inf]


def test_a_window_takes_in_the_unbroken_run_of_voxels_with_returns_before_it():
    # Ray 0 returns at 4.5. The others, from above, end in the voxels x = 3, 2 and 0 of its row: voxel 1 is a gap. From
    # 3.5 on, steps of 0.5 m are looked at in their middles: 3.25, 2.75, 2.25 in marked voxels, and 1.75, which is not.
    above = [((x + 0.5, 2.5, 5.0), (0, 0, -1)) for x in (3, 2, 0)]
    rays, distances, returned = rays_of(ALONG_X, *above), numbers(4.5, 2.5, 2.5, 2.5), torch.ones(4, dtype=torch.bool)
    starts, _ = return_windows(UNIT_GRID, rays, distances, returned)
    assert starts.tolist() == pytest.approx([2.0, 1.5, 1.5, 1.5])
    starts, _ = return_windows(UNIT_GRID, rays, distances, returned, follow=False)
    assert starts.tolist() == pytest.approx([3.5, 1.5, 1.5, 1.5])
    returned[2] = False  # then voxel 2 is a gap, too
    starts, _ = return_windows(UNIT_GRID, rays, distances, returned)
    assert starts.tolist() == pytest.approx([3.0, 1.5, math.inf, 1.5])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_voxels_that_are_marked_already_count_as_those_with_returns(dtype):
    # Ray 0 of the test above, and the voxels that the others end in as marks; the marks stay as they are.
    marks = torch.zeros(5, 5, 5, dtype=dtype)
    marks[[3, 2, 0], 2, 2] = 1
    arguments = (UNIT_GRID, rays_of(ALONG_X), numbers(4.5), torch.tensor([True]))
    assert return_windows(*arguments, marks=marks)[0].tolist() == pytest.approx([2.0])
    assert return_windows(*arguments, follow=False, marks=marks)[0].tolist() == pytest.approx([3.5])
    assert marks.sum() == 3


def test_a_run_reaches_back_to_the_sensor_and_no_farther():
    above = [((x + 0.5, 2.5, 5.0), (0, 0, -1)) for x in range(5)]
    for origin, distance, expected in (((0.2, 2.5, 2.5), 4.0, 0.0), ((-1, 2.5, 2.5), 5.2, 1.2)):
        # In: 3.0 back to 0 is six steps. From outside: 4.2 - 6 x 0.5, the next step's middle, 0.95, is not in the grid.
        rays, returned = rays_of((origin, (1, 0, 0)), *above), torch.ones(6, dtype=torch.bool)
        starts, _ = return_windows(UNIT_GRID, rays, numbers(distance, *5 * [2.5]), returned)
        assert starts[0].item() == pytest.approx(expected, abs=1e-6)


def test_at_a_low_angle_a_road_is_followed_as_far_as_its_voxels_hold_the_ray():
    # From 1.6 m above a road at z = -0.02, 15 m away: its voxels are [-0.2, 0.2) high, and the ray is below 0.2 for the
    # last 0.22 / 1.62 of its way, 2.05 m; the window's own voxel of 0.4 m is a part of that. Steps are 0.2 m.
    grid = VoxelGrid((-4.0, -4.0, -1.0), (20.0, 4.0, 5.4), 0.4)
    ground = [((x, 0.1, 1.5), (0, 0, -1)) for x in np.arange(0.2, 20, 0.4)]
    rays = rays_of(((0.0, 0.1, 1.6), (15.0, 0, -1.62)), *ground)
    distances = numbers(math.hypot(15, 1.62), *len(ground) * [1.52])
    starts, ends = return_windows(grid, rays, distances, torch.ones(len(rays), dtype=torch.bool))
    assert ends[0].item() == pytest.approx(distances[0].item() + 0.4)
    followed = math.hypot(15, 1.62) * 0.22 / 1.62
    assert abs(starts[0].item() - (distances[0].item() - followed)) <= 0.11


def test_no_rays_have_no_windows():
    starts, ends = return_windows(OCC3D_GRID, rays_of(), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert starts.shape == ends.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0.0}, "margin is 0.0"),
        ({"step": math.nan}, "step is nan"),
        ({"returned": torch.ones(3)}, "returned are torch.float32"),
        ({"distances": torch.ones(2)}, r"distances are torch.float32 of shape \(2,\)"),
        ({"marks": torch.ones(5, 5, 4) > 0}, r"marks are torch.bool of shape \(5, 5, 4\) on cpu; expected \(5, 5, 5\)"),
        ({"marks": torch.ones(5, 5, 5)}, "marks are torch.float32"),
    ],
)
def test_returns_that_cannot_be_worked_with_are_named(change, message):
    arguments = {"distances": torch.ones(3), "returned": torch.ones(3, dtype=torch.bool)} | change
    with pytest.raises(ValueError, match=message):
        return_windows(UNIT_GRID, random_rays(3, UNIT_GRID), **arguments)
