"""Query points: where they lie, what they count, and what the field is told at them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from training.supervision.queries import Queries, QueryConfig, draw_queries, query_losses

torch.set_num_threads(2)

GRID = VoxelGrid((0.0, 0.0, 0.0), (10.0, 4.0, 4.0), 0.5)
AHEAD = (1.0, 0.0, 0.0)
ORIGIN = (0.25, 2.25, 2.25)  # the middle of a voxel; along x the grid ends 9.75 m ahead


def rays_of(*distances: float, origin=ORIGIN, direction=AHEAD) -> Rays:
    count = len(distances)
    direction = torch.tensor(direction) / math.hypot(*direction)
    return Rays(
        torch.tensor(origin).expand(count, 3), direction.expand(count, 3), torch.tensor(distances, dtype=torch.float32)
    )


def draw(rays: Rays, seed: int = 0, weights: torch.Tensor | None = None, **settings) -> Queries:
    channels = torch.arange(len(rays)) % 3
    return draw_queries(rays, channels, GRID, torch.Generator().manual_seed(seed), QueryConfig(**settings), weights)


def test_empty_points_lie_one_in_each_part_of_the_way_less_the_margin():
    points = draw(rays_of(*[5.0] * 200), empty_points=3, margin=1.0)
    along = points.empty.view(200, 3, 3)[..., 0] - ORIGIN[0]
    # 5 m less a voxel of 0.5 m, in three parts of 1.5 m
    for part in range(3):
        assert 1.5 * part <= along[:, part].min() < 1.5 * part + 0.1
        assert 1.5 * part + 1.4 < along[:, part].max() <= 1.5 * (part + 1)
    assert points.empty_weights.tolist() == [1] * 600


def test_occupied_points_lie_just_behind_the_return_and_have_its_class():
    points = draw(rays_of(*[5.0] * 99), occupied_points=2, depth=1.0)
    along = points.occupied.view(99, 2, 3)[..., 0] - ORIGIN[0]
    assert 5 <= along.min() < 5.02 and 5.48 < along.max() < 5.5
    assert points.channels.view(99, 2).tolist() == [[ray % 3] * 2 for ray in range(99)]


def test_a_return_behind_the_grid_gives_empty_points_up_to_its_face_and_none_that_are_occupied():
    points = draw(rays_of(*[30.0] * 100), empty_points=2)
    along = points.empty[:, 0] - ORIGIN[0]
    assert along.max() > 9.6 and along.max() <= 9.75
    assert points.empty_weights.min() == 1 and points.occupied_weights.max() == 0


@pytest.mark.parametrize("distance", [0.0, math.nan, math.inf, -1.0])
def test_a_ray_without_a_distance_gives_no_point(distance):
    points = draw(rays_of(distance, 5.0))
    assert points.empty_weights.view(2, -1)[0].max() == 0 and points.occupied_weights[0] == 0
    assert points.empty.isfinite().all() and points.occupied.isfinite().all()
    assert points.occupied_weights[1] == 1


def test_a_ray_from_outside_of_the_grid_or_past_it_gives_no_point():
    outside = draw(rays_of(5.0, origin=(-1.0, 2.0, 2.0)))
    past = draw(rays_of(5.0, origin=(-1.0, 2.0, 2.0), direction=(-1.0, 0.0, 0.0)))
    for points in (outside, past):
        assert points.empty_weights.max() == 0 and points.occupied_weights.max() == 0


def test_a_return_nearer_than_the_margin_says_nothing_is_empty():
    points = draw(rays_of(0.4), margin=1.0)
    assert points.empty_weights.max() == 0 and points.occupied_weights.tolist() == [1]


def test_an_occupied_point_behind_the_grids_face_is_left_out():
    # The return is 5 cm inside of the face, and the point up to 50 cm behind it.
    points = draw(rays_of(*[9.7] * 200), depth=1.0)
    inside = points.occupied[:, 0] < 10
    assert 0 < inside.sum() < 60  # a tenth of 200 is expected
    assert (points.occupied_weights > 0).equal(inside)


def test_no_voxel_with_a_return_is_said_to_be_empty():
    # A road 1.5 m below the sensor: rays graze voxels in which other rays return.
    origin = np.array([0.25, 2.25, 1.75])
    ways = np.stack([np.linspace(3, 9.5, 80), np.zeros(80), np.full(80, -1.5)], axis=1)
    distances = np.linalg.norm(ways, axis=1)
    rays = Rays(
        torch.from_numpy(np.tile(origin, (80, 1))),
        torch.from_numpy(ways / distances[:, None]),
        torch.from_numpy(distances),
    )
    returns = {tuple(voxel) for voxel in GRID.index_of(origin + ways)[0]}
    points = draw(rays)
    held = torch.tensor([tuple(voxel) in returns for voxel in GRID.index_of(points.empty.numpy())[0]])
    assert 0 < held.sum() < len(held)
    assert (points.empty_weights == 0).equal(held)
    assert draw(rays, occupied_first=False).empty_weights.min() == 1


def test_a_ray_without_weight_holds_no_voxel():
    # The first return lies on the second ray's way, and would keep a voxel of it from being empty.
    weights = torch.tensor([0.0, 2.0])
    points = draw(rays_of(3.0, 8.0), weights=weights, empty_points=16)
    assert points.empty_weights.view(2, 16).tolist() == [[0] * 16, [2] * 16]
    assert draw(rays_of(3.0, 8.0), empty_points=16).empty_weights[16:].min() == 0


def test_by_volume_all_points_of_a_voxel_count_as_one():
    """Rays ahead that return after 5 m, and one of three times the weight: all points lie in the voxels of one line."""
    rays = rays_of(*[5.0] * 50)
    weights = torch.ones(50)
    weights[0] = 3.0
    points = draw(rays, weighing="volume", weights=weights)
    places = torch.cat([points.empty, points.occupied])
    counts = torch.cat([points.empty_weights, points.occupied_weights])
    voxels = (places[:, 0] / 0.5).floor().long()
    sums = torch.zeros(20).index_add_(0, voxels, counts)
    # The returns at x = 5.25 m lie in voxel 10; points up to half a metre behind also in voxel 11. Up to a voxel before
    # the return, x = 4.75 m in voxel 9, is empty: 12 voxels that count 1 each.
    torch.testing.assert_close(sums, torch.tensor([1.0] * 12 + [0.0] * 8), rtol=1e-5, atol=0)
    behind = counts[voxels == voxels[len(points.empty)]]  # the voxel of the heavy ray's occupied point
    assert behind.max() == pytest.approx(3 * behind.min().item(), rel=1e-5)
    plain = draw(rays, weights=weights)
    assert torch.equal(plain.empty, points.empty) and plain.empty_weights.sum() == 8 * 52


def test_by_volume_empty_and_occupied_points_are_counted_together():
    """One voxel length of optical depth x everywhere: 10 empty voxels cost x each, 2 occupied ones -log(1 - exp(-x)),
    the mean over the twelve; by rays the two kinds have half each."""
    field = SemanticDensityField(GRID, torch.full(GRID.shape, 0.6), torch.zeros(*GRID.shape, 3))
    for weighing, share in (("volume", 2 / 12), ("ray", 0.5)):
        points = draw(rays_of(*[5.0] * 400), weighing=weighing)
        occupancy, semantics = query_losses(field, points, config=QueryConfig(weighing=weighing))
        assert occupancy.item() == pytest.approx(-share * math.log(1 - math.exp(-0.3)) + (1 - share) * 0.3, rel=1e-4)
        assert semantics.item() == pytest.approx(math.log(3), rel=1e-5)
    nothing = draw(rays_of(0.0, 0.0), weighing="volume")
    assert query_losses(field, nothing, config=QueryConfig(weighing="volume"))[0].item() == 0


def test_points_follow_from_the_generator():
    rays = rays_of(5.0, 7.0)
    first, again, other = draw(rays, 1), draw(rays, 1), draw(rays, 2)
    assert first.empty.equal(again.empty) and first.occupied.equal(again.occupied)
    assert not first.empty.equal(other.empty)


def test_no_rays_give_no_points_and_losses_of_zero():
    field = SemanticDensityField(GRID, torch.ones(GRID.shape, requires_grad=True), torch.ones(*GRID.shape, 3))
    points = draw(rays_of())
    losses = query_losses(field, points)
    sum(losses).backward()
    assert len(points.empty) == 0 and [loss.item() for loss in losses] == [0, 0]
    assert field.density.grad.eq(0).all()


def test_asking_for_no_points_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one point"):
        QueryConfig(empty_points=0, occupied_points=0)


@pytest.mark.parametrize("kind", ["empty_points", "occupied_points"])
def test_one_kind_of_points_may_be_left_out(kind):
    field = SemanticDensityField(GRID, torch.ones(GRID.shape), torch.ones(*GRID.shape, 3))
    occupancy, _ = query_losses(field, draw(rays_of(5.0), **{kind: 0}))
    assert occupancy.isfinite() and occupancy > 0


# ---------------------------------------------------------------------------------------------------------------------
# Losses


def at(points, occupied, channels, weights=(1.0, 1.0)) -> Queries:
    dtype = torch.float64
    return Queries(
        torch.tensor(points, dtype=dtype).view(-1, 3),
        torch.full((len(points),), weights[0]),
        torch.tensor(occupied, dtype=dtype).view(-1, 3),
        torch.full((len(occupied),), weights[1]),
        torch.tensor(channels, dtype=torch.int64),
    )


def test_losses_at_the_middles_of_voxels_are_those_of_the_voxels():
    density, semantics = torch.zeros(GRID.shape), torch.zeros(*GRID.shape, 3)
    density[0, 0, 0], density[4, 0, 0] = 2.0, math.log(4) / 0.5
    semantics[4, 0, 0, 2] = math.log(6)
    field = SemanticDensityField(GRID, density, semantics)
    for interpolation in ("trilinear", "nearest"):
        config = QueryConfig(interpolation=interpolation, occupied_share=0.25)
        occupancy, classes = query_losses(field, at([(0.25, 0.25, 0.25)], [(2.25, 0.25, 0.25)], [2]), config=config)
        # empty: 2/m on 0.5 m, 1.0; occupied: p = 1 - exp(-log 4) = 3/4
        assert occupancy.item() == pytest.approx(0.75 * 1.0 + 0.25 * math.log(4 / 3), abs=1e-6)
        assert classes.item() == pytest.approx(math.log(8 / 6))  # p = 6 / (1 + 1 + 6)


def test_between_middles_the_field_is_interpolated_or_not_as_asked():
    density = torch.zeros(GRID.shape)
    density[0, 0, 0], density[1, 0, 0] = 4.0, 8.0
    field = SemanticDensityField(GRID, density, torch.zeros(*GRID.shape, 3))
    points = at([(0.35, 0.1, 0.1)], [], [])  # a fifth of the way from the first middle (0.25) to the second (0.75)
    for interpolation, sigma in (("trilinear", 4.8), ("nearest", 4.0)):
        config = QueryConfig(interpolation=interpolation, occupied_share=0.0)
        assert query_losses(field, points, config=config)[0].item() == pytest.approx(0.5 * sigma, rel=1e-6)


def test_a_point_in_a_layer_is_compared_with_the_layer():
    layers = torch.zeros(*GRID.shape[:2], 2 * GRID.shape[2])
    layers[0, 0, 0], layers[0, 0, 1] = 2.0, 6.0  # the lower and the upper half of a voxel, its mean 4
    field = SemanticDensityField.of_layers(GRID, layers, torch.zeros(*GRID.shape, 3))
    points = at([(0.25, 0.25, 0.375)], [], [])  # the middle of the upper half
    for interpolation in ("trilinear", "nearest"):
        config = QueryConfig(interpolation=interpolation, occupied_share=0.0, layers=True)
        assert query_losses(field, points, config=config)[0].item() == pytest.approx(0.5 * 6.0, rel=1e-6)
    config = QueryConfig(interpolation="nearest", occupied_share=0.0)
    assert query_losses(field, points, config=config)[0].item() == pytest.approx(0.5 * 4.0, rel=1e-6)
    whole = SemanticDensityField(GRID, field.density, field.semantics)
    config = QueryConfig(interpolation="nearest", occupied_share=0.0, layers=True)
    assert query_losses(whole, points, config=config)[0].item() == pytest.approx(0.5 * 4.0, rel=1e-6)


def test_above_a_surface_layers_of_its_voxel_are_empty():
    # The returns lie 2 cm above the floor of a voxel of 0.5 m, in the lowest of five layers of 0.1 m.
    rays = rays_of(*[math.hypot(3.4, 1.28)] * 400, origin=(1.0, 2.25, 1.3), direction=(3.4, 0.0, -1.28))
    arguments = rays, torch.zeros(400, dtype=torch.int64), GRID
    config = QueryConfig(empty_points=4, margin=0.0)
    heights = []
    for layers in (1, 5):
        points = draw_queries(*arguments, torch.Generator().manual_seed(0), config, layers=layers)
        inside = (points.empty_weights > 0) & (points.empty[:, 0] > 4.0)  # of the voxel
        heights.append(points.empty[inside, 2].tolist())
    assert not heights[0] and 0.1 <= min(heights[1]) < 0.11

    marks = torch.zeros(*GRID.shape[:2], 5 * GRID.shape[2], dtype=torch.bool)
    marks[..., :3] = True
    points = draw_queries(*arguments, torch.Generator().manual_seed(0), config, holding=marks, layers=5)
    assert 0.3 <= float(points.empty[points.empty_weights > 0, 2].min()) < 0.31


def test_by_volume_each_layer_of_a_voxel_counts_once():
    rays = rays_of(*[2.0] * 50, origin=(2.25, 2.25, 3.9), direction=(0.0, 0.0, -1.0))
    channels = torch.zeros(50, dtype=torch.int64)
    config = QueryConfig(empty_points=0, depth=1.0, weighing="volume")
    # 1.4 to 1.9 m: of voxels of 0.5 m two, of their layers of 0.1 m five, or six with what is rounded.
    for layers, expected in ((1, 2), (5, 6)):
        points = draw_queries(rays, channels, GRID, torch.Generator().manual_seed(0), config, layers=layers)
        assert points.occupied_weights.sum().item() == pytest.approx(expected, abs=1.01 if layers == 5 else 1e-4)


def test_losses_agree_with_a_loop_over_points():
    rng = np.random.default_rng(0)
    grid = VoxelGrid((-1.0, -1.0, -1.0), (2.0, 3.0, 1.0), 1.0)
    density, logits = rng.uniform(0, 3, grid.shape), rng.normal(size=(*grid.shape, 4))
    field = SemanticDensityField(grid, torch.from_numpy(density), torch.from_numpy(logits))
    empty, occupied = (rng.uniform(grid.lower, grid.upper, (20, 3)) for _ in range(2))
    empty_weights, weights, channels = rng.uniform(0, 1, 20), rng.uniform(0, 1, 20), rng.integers(-1, 4, 20)
    balance = rng.uniform(0.5, 2, 4)

    def interpolate(volume: np.ndarray, point: np.ndarray):
        place = np.clip((point - grid.lower) / grid.voxel_size - 0.5, 0, np.array(grid.shape) - 1)
        total = 0
        for corner in np.ndindex(2, 2, 2):
            cell = np.minimum(np.floor(place).astype(int) + corner, np.array(grid.shape) - 1)
            total = total + volume[tuple(cell)] * np.prod(np.maximum(0, 1 - np.abs(place - np.floor(place) - corner)))
        return total

    nothing = sum(w * interpolate(density, p) for w, p in zip(empty_weights, empty)) / empty_weights.sum()
    solid = -sum(w * np.log(1 - np.exp(-interpolate(density, p))) for w, p in zip(weights, occupied)) / weights.sum()
    above = below = 0.0
    for weight, point, channel in zip(weights, occupied, channels):
        if channel >= 0:
            scores = interpolate(logits, point)
            above += weight * balance[channel] * (np.log(np.exp(scores).sum()) - scores[channel])
            below += weight * balance[channel]

    queries = Queries(*map(torch.from_numpy, (empty, empty_weights, occupied, weights, channels)))
    occupancy, classes = query_losses(field, queries, torch.from_numpy(balance), QueryConfig(occupied_share=0.3))
    assert occupancy.item() == pytest.approx(0.7 * nothing + 0.3 * solid, rel=1e-6)
    assert classes.item() == pytest.approx(above / below, rel=1e-9)


@pytest.mark.parametrize("interpolation", ["trilinear", "nearest"])
def test_gradients_agree_with_finite_differences(interpolation):
    grid = VoxelGrid((0.0, 0.0, 0.0), (3.0, 2.0, 2.0), 1.0)
    generator = torch.Generator().manual_seed(0)
    density = (0.2 + torch.rand(grid.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    logits = torch.randn(*grid.shape, 2, generator=generator, dtype=torch.float64).requires_grad_()
    points = torch.rand(6, 3, generator=generator, dtype=torch.float64) * torch.tensor(grid.upper)
    queries = Queries(points[:4], torch.ones(4), points[4:], torch.ones(2), torch.tensor([1, 0]))
    config = QueryConfig(interpolation=interpolation)
    assert torch.autograd.gradcheck(
        lambda sigma, scores: query_losses(SemanticDensityField(grid, sigma, scores), queries, config=config),
        (density, logits),
    )
