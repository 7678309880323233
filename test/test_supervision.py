"""Labels as loss terms: which ray says what, what each term comes to, and that fields learn from them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import camera_ring, small_config

from renderocc_model.base.config import from_mapping
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.network.lift import LiftGeometry
from renderocc_model.network.network import NetworkOutput
from training.data.batch import Batch, Frames
from training.supervision.config import LabelVoxelConfig, TerminationConfig
from training.supervision.losses import class_weights
from training.supervision.supervise import LossWeights, Supervision, SupervisionConfig

torch.set_num_threads(2)

CONFIG = small_config()  # 16 x 16 x 4 voxels of 1 m, x and y from -8 to 8 m, z from -1 to 3 m
GRID = CONFIG.grid
VIEWS, POSES = camera_ring(CONFIG, 3)
COUNTS = np.arange(1, 19) * 1000
ALL = LossWeights(**{field.name: 1.0 for field in dataclasses.fields(LossWeights)})
TERMINATION = {"depth_loss": "termination"}
LABEL_VOXEL_TERMS = {"label_voxel_occupancy", "label_voxel_semantics"}
RAY_TERMS = {"depth", "semantics", "distortion", "opacity", "empty"}
QUERY_TERMS = {"query_occupancy", "query_semantics"}
VOXEL_TERMS = {"voxel_occupancy", "voxel_semantics"}


def rays_of(rows, origin=(0.0, 0.5, 0.5)) -> Rays:
    """Rays from (direction, distance, class), of the current frame."""
    directions = torch.from_numpy(np.array([row[0] for row in rows], np.float32).reshape(-1, 3))
    return Rays(
        torch.tensor(origin).expand(len(rows), 3),
        F.normalize(directions, dim=1),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
        frame_offsets=torch.zeros(len(rows), dtype=torch.int64),
    )


def random_rays(count: int, seed: int = 0) -> Rays:
    rng = np.random.default_rng(seed)
    rows = zip(rng.normal(size=(count, 3)) * (1, 1, 0.2), rng.uniform(0.5, 12, count), rng.integers(0, 17, count))
    return rays_of(list(rows))


def batch_of(*rays: Rays, truth=None, voxels=None, cameras=None, poses=POSES) -> Batch:
    frames = len(rays)
    empty = torch.empty(0)
    current = Frames(
        empty,
        LiftGeometry(empty, empty, empty),
        torch.from_numpy(np.stack([view.K for view in VIEWS])).expand(frames, -1, -1, -1),
        torch.from_numpy(poses).expand(frames, -1, -1, -1),
        torch.ones(frames, 3, dtype=torch.bool),
        torch.eye(4).expand(frames, -1, -1),
        torch.ones(frames, dtype=torch.bool),
    )
    cameras = tuple(torch.zeros(len(one), dtype=torch.int64) for one in rays) if cameras is None else cameras
    nothing = (None,) * frames
    names = ("drive frame 0",) * frames
    return Batch(
        current, (), rays, cameras, (None,) * frames, truth or nothing, voxels or nothing, names, (0,) * frames
    )


def output_of(density, semantics=None, grad: bool = False) -> NetworkOutput:
    """From (B, X, Y, Z) density, or one number for all of B = 1 frame."""
    if not isinstance(density, torch.Tensor):
        density = torch.full((1, *GRID.shape), float(density))
    frames = len(density)
    semantics = torch.zeros(frames, *GRID.shape, 17) if semantics is None else semantics
    bins = CONFIG.lift.depth.count
    depths = torch.full((frames * 3, bins, *CONFIG.feature_shape), 1 / bins)
    tensors = [tensor.clone().requires_grad_(grad) for tensor in (density, semantics, depths)]
    return NetworkOutput(*tensors, None)


def random_output(frames: int = 1, seed: int = 0, grad: bool = False) -> NetworkOutput:
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(frames, *GRID.shape, generator=generator)
    return output_of(density, torch.randn(frames, *GRID.shape, 17, generator=generator), grad)


def terms_of(output, batch, figures=None, seed: int = 0, **settings) -> dict[str, float]:
    settings = {"weights": ALL, "balanced_classes": False, **settings}
    generator = torch.Generator().manual_seed(seed)
    supervision = Supervision(SupervisionConfig(**settings), CONFIG, OCC3D_NUSCENES, COUNTS)
    terms = supervision.terms(output, batch, generator, figures)
    return {name: term.item() for name, term in terms.items()}


# ---------------------------------------------------------------------------------------------------------------------
# What each term comes to


def test_terms_of_one_ray_through_even_fog():
    # From x = 0 the grid ends at 8 m; sigma = 0.25/m, steps of 0.5 m: T = exp(-2), and the sums in closed form.
    weights = [math.exp(-0.125 * i) * (1 - math.exp(-0.125)) for i in range(16)]
    places = [0.5 * (i + 0.5) for i in range(16)]
    mean = sum(w * t for w, t in zip(weights, places))
    spread = sum(a * b * abs(s - t) for a, s in zip(weights, places) for b, t in zip(weights, places))
    spread += sum(w * w for w in weights) * 0.5 / 3
    light = math.exp(-2)

    terms = terms_of(output_of(0.25), batch_of(rays_of([((1, 0, 0), 5.0, 3), ((1, 0, 0), 20.0, 3)])))
    error = math.log((mean + 8 * light + 1e-3) / 5.001)
    assert terms["depth"] == pytest.approx(math.sqrt(0.15) * abs(error), rel=1e-4)
    assert terms["semantics"] == pytest.approx(math.log(17), rel=1e-5)  # all logits 0
    assert terms["distortion"] == pytest.approx(spread / math.sqrt(16**2 + 16**2 + 4**2), rel=1e-4)
    assert terms["opacity"] == pytest.approx(-light * math.log(light) - (1 - light) * math.log(1 - light), rel=1e-4)
    assert terms["empty"] == pytest.approx(2.0, rel=1e-4)

    short = terms_of(output_of(0.25), batch_of(rays_of([((1, 0, 0), 5.0, 3)])), depth_completion="none")
    assert short["depth"] == pytest.approx(math.sqrt(0.15) * abs(math.log((mean + 1e-3) / 5.001)), rel=1e-4)


def wall_at(x: float, sigma: float) -> torch.Tensor:
    density = torch.zeros(1, *GRID.shape)
    density[:, int(x + 8)] = sigma
    return density


def test_left_over_light_makes_a_plain_sum_short_and_is_completed_at_the_exit():
    # A wall about x = 4.5 m whose opacity is 1/2 (optical depth log 2 over the two slopes of trilinear weight, 1 m
    # together): D = 4.5 / 2 without, and (4.5 + 8) / 2 with completion.
    output, batch = output_of(wall_at(4, math.log(2))), batch_of(rays_of([((1, 0, 0), 4.5, 3)]))
    figures: dict = {}
    terms_of(output, batch, figures, depth_completion="none")
    assert figures["opacity/labelled"] == pytest.approx(0.5, abs=0.01)
    assert figures["depth/abs_rel"] == pytest.approx(0.5, abs=0.02)
    terms_of(output, batch, figures, depth_completion="exit")
    assert figures["depth/abs_rel"] == pytest.approx((6.25 - 4.5) / 4.5, abs=0.02)


def test_the_contracted_depth_of_a_wall_is_that_of_the_authors_code():
    """39 m * t / (t + 39 m), which is 13.2 m for t = 20 m, compared with z-depth."""
    # The wall's density begins at x = 3.5 m, so all light stops at the first sample behind: 3.75 m along x, and 7.25 m
    # (x = 3.625 m) along a ray at 60 degrees to it. Camera 0 looks along x, so the labels' z-depths are those x.
    output = output_of(wall_at(4, 1e5))
    for direction, distance, z in (((1, 0, 0), 3.75, 3.75), ((1, math.sqrt(3), 0), 7.25, 3.625)):
        batch, figures = batch_of(rays_of([(direction, distance, 3)], origin=(0.0, -6.0, 0.5))), {}
        terms = terms_of(output, batch, figures, depth_target="contracted", depth_completion="none")
        depth = 39 * distance / (39 + distance)
        assert figures["depth/abs_rel"] == pytest.approx(abs(depth - z) / z, rel=1e-4)
        assert terms["depth"] == pytest.approx(math.sqrt(0.15) * abs(math.log((depth + 1e-3) / (z + 1e-3))), rel=1e-4)


def test_contracted_terms_agree_with_a_march_along_the_ray():
    output, batch = output_of(0.25), batch_of(rays_of([((1, 0.2, 0), 5.0, 3)]))
    cosine = 1 / math.sqrt(1.04)
    # 8.16 m to the exit are 16.3 steps; the 17th sample would lie behind it.
    weights = [math.exp(-0.125 * i) * (1 - math.exp(-0.125)) for i in range(16)]
    places = [0.5 * (i + 0.5) / (39 + 0.5 * (i + 0.5)) for i in range(len(weights))]
    depth = 39 * sum(w * s for w, s in zip(weights, places))
    error = math.log((depth + 1e-3) / (5 * cosine + 1e-3))
    spread = sum(a * b * abs(s - t) for a, s in zip(weights, places) for b, t in zip(weights, places))
    terms = terms_of(output, batch, depth_target="contracted", depth_completion="none")
    assert terms["depth"] == pytest.approx(math.sqrt(0.15) * abs(error), rel=1e-4)
    assert terms["distortion"] == pytest.approx(spread, rel=1e-4)


def test_terms_are_weighted_and_classes_balanced():
    output, batch = random_output(), batch_of(random_rays(40))
    plain = terms_of(output, batch, mode="both")
    weighted = terms_of(output, batch, mode="both", weights=LossWeights())
    assert set(weighted) == RAY_TERMS | QUERY_TERMS | {"depth_distribution"}
    for name, value in weighted.items():
        assert value == pytest.approx(getattr(LossWeights(), name) * plain[name], rel=1e-6)

    rays = batch.rays[0]
    balanced = terms_of(output, batch, balanced_classes=True)["semantics"]
    # The mean by weight of the losses of each class alone.
    above = below = 0.0
    balance = class_weights(COUNTS[:17])
    for name in rays.classes.unique():
        figures: dict = {}
        loss = terms_of(output, batch_of(rays[rays.classes == name]), figures)["semantics"]
        share = balance[name].item() * figures["rays/labelled"].item()
        above, below = above + share * loss, below + share
    assert balanced == pytest.approx(above / below, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Which ray says what


def test_a_return_behind_the_grid_says_only_that_the_way_is_empty():
    rays = random_rays(30)
    seen = batch_of(Rays.concatenate([rays, rays_of([((1, 0, 0), 9.0, 4), ((0, 1, 0), 50.0, 5)])]))
    alone = batch_of(rays)
    with_them, without = terms_of(random_output(), seen), terms_of(random_output(), alone)
    for name in ("depth", "semantics"):
        assert with_them[name] == pytest.approx(without[name], rel=1e-6)
    assert with_them["empty"] != pytest.approx(without["empty"], rel=1e-3)


@pytest.mark.parametrize("mode", ["render", "query"])
def test_rays_from_outside_and_rays_that_miss_say_nothing(mode):
    rays = random_rays(30)
    strangers = Rays(
        torch.tensor([[-9.0, 0, 0], [0, 0, 9], [20, 20, 20]]),
        torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]]),
        torch.tensor([5.0, 5, 5]),
        torch.tensor([1, 2, 3]),
        frame_offsets=torch.ones(3, dtype=torch.int64),
    )
    figures: dict = {}
    terms = terms_of(random_output(), batch_of(Rays.concatenate([rays, strangers])), figures)
    assert figures["rays/unused"] == 3
    assert terms == pytest.approx(terms_of(random_output(), batch_of(rays)), rel=1e-6)
    if mode == "query":
        terms = terms_of(random_output(), batch_of(strangers), mode=mode)
        assert terms["query_occupancy"] == 0 and terms["query_semantics"] == 0


def test_rays_with_a_class_alone_count_if_asked_for():
    rays = rays_of([((1, 0, 0), 5.0, 3), ((0, 1, 0), 0.0, 4), ((0, -1, 0), math.nan, 5)])
    output, figures = random_output(), {}
    first, both = batch_of(rays[:1]), batch_of(rays)
    assert terms_of(output, both, figures) == pytest.approx(terms_of(output, first), rel=1e-6)
    assert figures["rays/labelled"] == 1 and figures["rays/unused"] == 2
    asked = terms_of(output, both, figures, class_only_rays=True)
    assert figures["rays/labelled"] == 3
    assert asked["depth"] == pytest.approx(terms_of(output, first)["depth"], rel=1e-6)
    measured = rays_of([((1, 0, 0), 5.0, 3), ((0, 1, 0), 5.0, 4), ((0, -1, 0), 5.0, 5)])
    assert asked["semantics"] == pytest.approx(terms_of(output, batch_of(measured))["semantics"], rel=1e-6)


def test_rays_without_a_class_teach_depth_alone():
    rays = random_rays(20)
    unlabelled = dataclasses.replace(rays, classes=torch.full((20,), 255))
    terms, known = (terms_of(random_output(), batch_of(one), mode="both") for one in (unlabelled, rays))
    assert terms["semantics"] == 0 and terms["query_semantics"] == 0
    for name in ("depth", "empty", "query_occupancy", "depth_distribution"):
        assert terms[name] == known[name]
    assert terms_of(random_output(), batch_of(dataclasses.replace(rays, classes=None)), mode="both") == terms


def test_auxiliary_rays_can_be_left_out():
    rays = random_rays(20)
    other = dataclasses.replace(random_rays(20, seed=1), frame_offsets=torch.full((20,), -2))
    both = batch_of(Rays.concatenate([rays, other]))
    assert terms_of(random_output(), both) != pytest.approx(terms_of(random_output(), batch_of(rays)), rel=1e-3)
    alone = terms_of(random_output(), both, auxiliary_rays=False)
    assert alone == pytest.approx(terms_of(random_output(), batch_of(rays)), rel=1e-5)


def test_weights_of_rays_count_like_repetition():
    rays = random_rays(10)
    weighted = dataclasses.replace(rays, weights=torch.tensor([2.0] + [1.0] * 8 + [0.0]))
    repeated = Rays.concatenate([rays[:1], rays[:9]])
    for name in RAY_TERMS:
        value = terms_of(random_output(), batch_of(weighted))[name]
        assert value == pytest.approx(terms_of(random_output(), batch_of(repeated))[name], rel=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Modes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, RAY_TERMS | {"depth_distribution", "total_variation"}),
        ({"mode": "query"}, QUERY_TERMS | {"depth_distribution", "total_variation"}),
        ({"mode": "both"}, RAY_TERMS | QUERY_TERMS | {"depth_distribution", "total_variation"}),
        ({"mode": "query+render"}, RAY_TERMS | QUERY_TERMS | {"depth_distribution", "total_variation"}),
        ({"mode": "voxels"}, LABEL_VOXEL_TERMS | {"depth_distribution", "total_variation"}),
        (
            {"mode": "voxels", "use_semantics": False},
            {"label_voxel_occupancy", "depth_distribution", "total_variation"},
        ),
        (
            {"mode": "voxels+query+render", **TERMINATION},
            RAY_TERMS - {"depth", "empty"}
            | {"termination", "return_voxel", "depth_distribution", "total_variation"}
            | LABEL_VOXEL_TERMS
            | QUERY_TERMS,
        ),
        ({"mode": "voxels", "labels_3d": "only"}, VOXEL_TERMS | {"depth_distribution", "total_variation"}),
        (
            {**TERMINATION, "weights": LossWeights(distortion=0, opacity=0, return_voxel=0, depth_distribution=0)},
            {"semantics", "termination"},
        ),
        ({"use_depth": False}, {"semantics", "distortion", "opacity", "total_variation"}),
        (
            {"use_semantics": False, "mode": "both"},
            {*RAY_TERMS, "query_occupancy", "depth_distribution", "total_variation"} - {"semantics"},
        ),
        ({"labels_3d": "with"}, RAY_TERMS | VOXEL_TERMS | {"depth_distribution", "total_variation"}),
        ({"labels_3d": "only", "mode": "both"}, VOXEL_TERMS | {"depth_distribution", "total_variation"}),
        ({"weights": LossWeights(empty=0, opacity=0, distortion=0, depth_distribution=0)}, {"depth", "semantics"}),
    ],
)
def test_terms_are_those_in_use_whatever_the_batch_holds(settings, expected):
    for rays in (random_rays(20), random_rays(0)):
        terms = terms_of(random_output(), batch_of(rays), **settings)
        assert set(terms) == expected
        order = [field.name for field in dataclasses.fields(LossWeights)]
        assert list(terms) == sorted(terms, key=order.index)


@pytest.mark.parametrize("mode", ["render", "query", "both", "render+voxels"])
@pytest.mark.parametrize("target", ["euclidean", "contracted", "termination"])
@pytest.mark.parametrize(
    "rays",
    [
        random_rays(0),
        rays_of([((1, 0, 0), 99.0, 3)] * 3),
        rays_of([((1, 0, 0), 5.0, 3)] * 3),
        rays_of([((1, 0, 0), 5.0, 17)] * 2),
        rays_of([((0, 0, 1), 2.0, 1)], origin=(0.0, 0.0, 90.0)),
    ],
    ids=["none", "beyond", "one class", "free", "outside"],
)
@pytest.mark.parametrize("density", [0.0, 1e4])
def test_losses_and_gradients_are_finite_at_the_extremes(mode, target, rays, density):
    output = output_of(density, grad=True)
    target = TERMINATION if target == "termination" else {"depth_target": target}
    config = SupervisionConfig(mode=mode, **target, labels_3d="with", weights=ALL)
    terms = Supervision(config, CONFIG, OCC3D_NUSCENES, COUNTS).terms(output, batch_of(rays))
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    for tensor in (output.density, output.semantics, output.depth_distribution):
        assert tensor.grad is not None and tensor.grad.isfinite().all()


def test_a_batch_is_the_mean_of_its_frames():
    parts = [random_rays(25), random_rays(40, seed=1), random_rays(0)]
    output = random_output(3)
    single = []
    for i, rays in enumerate(parts):
        depths = output.depth_distribution[3 * i : 3 * i + 3]
        one = NetworkOutput(output.density[i : i + 1], output.semantics[i : i + 1], depths, None)
        single.append(terms_of(one, batch_of(rays)))
    together = terms_of(output, batch_of(*parts))
    for name, value in together.items():
        assert value == pytest.approx(sum(one[name] for one in single) / 3, rel=1e-5)


def test_query_points_follow_from_the_generator():
    output, batch = random_output(), batch_of(random_rays(20))
    first, again, other = (terms_of(output, batch, mode="query", seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other


def test_half_precision_outputs_are_compared_in_single_precision():
    output, batch = random_output(), batch_of(random_rays(30))
    tensors = [tensor.bfloat16() for tensor in (output.density, output.semantics, output.depth_distribution)]
    half, same = NetworkOutput(*tensors, None), NetworkOutput(*(tensor.float() for tensor in tensors), None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_of(half, batch, mode="both")
    assert terms == pytest.approx(terms_of(same, batch, mode="both"), rel=1e-6)


def test_with_a_return_in_each_camera_the_depth_head_is_told_its_bin():
    # A return 5 m ahead of each camera on its axis: all D bins alike cost -log 1/7 - 6 log 6/7.
    axis = torch.from_numpy(POSES[:, :3, 2]).float()
    rays = Rays(
        torch.from_numpy(POSES[:, :3, 3]).float(), axis, torch.full((3,), 5.0), frame_offsets=torch.zeros(3).long()
    )
    batch = batch_of(rays, cameras=(torch.arange(3),))
    assert terms_of(output_of(1.0), batch)["depth_distribution"] == pytest.approx(
        math.log(7) - 6 * math.log(6 / 7), rel=1e-5
    )


# ---------------------------------------------------------------------------------------------------------------------
# Ray termination and voxels of labels


def test_termination_of_one_ray_through_even_fog():
    # sigma = 0.25/m. The return at 5 m, margin 1 voxel of 1 m: the window is 4 to 6 m, depth 0.5, and 1.0 lies before
    # it; jittered steps of 0.5 m put 8 +- 1 and 4 +- 1 samples there. The other ray leaves the grid after 8 m, depth 2,
    # and there is one such ray for each return.
    batch = batch_of(rays_of([((1, 0, 0), 5.0, 3), ((1, 0, 0), 20.0, 3)]))
    terms = terms_of(output_of(0.25), batch, **TERMINATION)
    assert terms["termination"] == pytest.approx(1.0 - math.log(1 - math.exp(-0.5)) + 2.0, abs=0.3)
    assert terms["return_voxel"] == pytest.approx(-math.log(1 - math.exp(-0.25)), rel=1e-4)
    mean = np.mean([terms_of(output_of(0.25), batch, **TERMINATION, seed=seed)["termination"] for seed in range(300)])
    # The mean over where samples stand; the logarithm's curvature adds 0.5 Var / x^2-ish, under 0.01 here.
    assert mean == pytest.approx(1.0 - math.log(1 - math.exp(-0.5)) + 2.0, abs=0.02)


def test_light_may_end_in_voxels_before_the_return_that_hold_returns_too():
    """Rays from 0.5 m above z = 0 that meet the plane z = 0.49 one after the other: the last one's light passes voxels
    that hold the others' returns. Where these are opaque, its light cannot reach its own window."""
    density = torch.zeros(1, *GRID.shape)
    density[0, :, :, 1] = 50.0  # z from 0 to 1 m: all of the rays' way
    rays = rays_of([((1, 0, -0.001), distance, 3) for distance in (1.5, 2.5, 3.5, 4.5, 5.5)])
    without = {"termination": TerminationConfig(run=False)}
    far = batch_of(rays[4:])
    assert terms_of(output_of(density), far, **TERMINATION)["termination"] > 100
    assert terms_of(output_of(density), batch_of(rays), **TERMINATION, **without)["termination"] > 50
    # The run of voxels 1 to 5 holds returns; before it lies the way of 1 m in voxel 0, depth 50.
    assert terms_of(output_of(density), batch_of(rays), **TERMINATION)["termination"] == pytest.approx(50, abs=26)
    # Voxels that the sample's other labels mark count alike: now all of the way may stop the light.
    held = torch.zeros(GRID.shape, dtype=torch.bool)
    held[8:, 8, 1] = True
    voxels = ({"occupied": held, "free": ~held, "semantics": torch.full(GRID.shape, 255, dtype=torch.uint8)},)
    found = terms_of(output_of(density), batch_of(rays[4:], voxels=voxels), mode="render+voxels", **TERMINATION)
    assert found["termination"] == pytest.approx(0, abs=1e-3)


def test_of_a_field_in_layers_light_may_end_in_layers_that_hold_returns_and_not_in_all_of_their_voxels():
    """Rays from 0.5 m that meet z = 0.05, in the lowest of four layers of the voxels from 0 to 1 m."""
    rays = rays_of([((1, 0, -0.1), distance, 3) for distance in (3.5, 4.0, 4.5)])
    model = dataclasses.replace(CONFIG, heads=dataclasses.replace(CONFIG.heads, density_layers=4))

    def term(highest: int) -> float:
        density = torch.zeros(1, *GRID.shape[:2], 4 * GRID.shape[2])
        density[0, :, :, 4 : 4 + highest] = 50.0
        config = SupervisionConfig(mode="render", weights=ALL, **TERMINATION)
        output = NetworkOutput(density, output_of(1.0).semantics, output_of(1.0).depth_distribution, None)
        supervision = Supervision(config, model, OCC3D_NUSCENES, COUNTS)
        return float(supervision.terms(output, batch_of(rays), torch.Generator().manual_seed(0))["termination"])

    # In the lowest layer alone most light ends in its run, the rest in the ramp above. All four stop it at its origin.
    assert term(1) < 20 and term(4) > 100


def test_points_are_not_empty_where_the_samples_other_labels_mark_a_voxel():
    held = torch.ones(GRID.shape, dtype=torch.bool)
    voxels = ({"occupied": held, "free": ~held, "semantics": torch.full(GRID.shape, 255, dtype=torch.uint8)},)
    output, rays = output_of(3.0), random_rays(30)
    plain = terms_of(output, batch_of(rays), mode="query")["query_occupancy"]
    found = terms_of(output, batch_of(rays, voxels=voxels), mode="query+voxels")["query_occupancy"]
    # All points are alike: the empty ones cost 3.0 each, the occupied ones the same in both, each half of the term.
    assert plain - found == pytest.approx(0.5 * 3.0, rel=1e-5)


def test_label_voxels_are_learnt_like_truth_and_unknown_classes_teach_occupancy_alone():
    rng = np.random.default_rng(0)
    state = rng.integers(0, 3, GRID.shape)  # occupied, free, not known
    semantics = np.where(state == 0, rng.choice([2, 9, 255], GRID.shape), 255).astype(np.uint8)
    voxels = {"occupied": state == 0, "free": state == 1, "semantics": semantics}
    voxels = {name: torch.from_numpy(volume) for name, volume in voxels.items()}
    output, figures = random_output(2), {}
    batch = batch_of(random_rays(5), random_rays(5), voxels=(None, voxels))
    terms = terms_of(output, batch, figures, mode="voxels")
    density, logits = output.density[1].numpy().astype(float), output.semantics[1].numpy().astype(float)
    occupancy = density[state == 1].sum() - np.log(1 - np.exp(-density[state == 0])).sum()
    named = semantics != 255
    right = logits[named][np.arange(named.sum()), semantics[named]]
    assert terms["label_voxel_occupancy"] == pytest.approx(occupancy / (state != 2).sum() / 2, rel=1e-4)
    classes = (np.log(np.exp(logits[named]).sum(axis=1)) - right).mean()
    assert terms["label_voxel_semantics"] == pytest.approx(classes / 2, rel=1e-4)
    assert figures["label_voxels/occupied"] == (state == 0).sum() and figures["label_voxels/free"] == (state == 1).sum()


def test_layers_and_classes_of_label_voxels_share_the_weight_as_asked():
    """Nine voxels of class 2 in the lowest layer and one of class 9 in the second; powers of 1/2: a voxel of the nine
    weighs a third of the one, and all of them together as much as before: 10 * 1/4 for the one, 10 * 3/4 for nine."""
    occupied, free = torch.zeros(GRID.shape, dtype=torch.bool), torch.zeros(GRID.shape, dtype=torch.bool)
    occupied[:9, 0, 0], occupied[0, 1, 1], free[:, 8, 2] = True, True, True
    semantics = torch.full(GRID.shape, 255, dtype=torch.uint8)
    semantics[:9, 0, 0], semantics[0, 1, 1] = 2, 9
    density, logits = torch.full((1, *GRID.shape), 0.5), torch.zeros(1, *GRID.shape, 17)
    density[0, ..., 1] = 2.0
    logits[..., 2] = 1.0
    batch = batch_of(random_rays(5), voxels=({"occupied": occupied, "free": free, "semantics": semantics},))
    low, high = (-math.log(1 - math.exp(-x)) for x in (0.5, 2.0))
    known = math.log(math.e + 16)
    for power, one in ((0.0, 1.0), (0.5, 2.5), (1.0, 5.0)):
        config = LabelVoxelConfig(height_power=power, class_power=power)
        terms = terms_of(output_of(density, logits), batch, mode="voxels", label_voxels=config)
        occupancy = ((10 - one) * low + one * high + 16 * 0.5) / 26
        assert terms["label_voxel_occupancy"] == pytest.approx(occupancy, rel=1e-4)
        classes = ((10 - one) * (known - 1) + one * known) / 10
        assert terms["label_voxel_semantics"] == pytest.approx(classes, rel=1e-4)


def test_with_an_occupancy_factor_points_and_voxels_see_a_denser_field_than_rendering_does():
    rng = np.random.default_rng(0)
    state = torch.from_numpy(rng.integers(0, 3, GRID.shape))  # occupied, free, not known
    voxels = {"occupied": state == 0, "free": state == 1, "semantics": torch.full(GRID.shape, 9, dtype=torch.uint8)}
    truth = {
        "semantics": torch.where(state == 0, 9, 17).to(torch.uint8),
        "mask_camera": torch.ones(GRID.shape, dtype=torch.uint8),
    }
    output = random_output()
    denser = dataclasses.replace(output, density=4 * output.density)
    batch = batch_of(random_rays(50), voxels=(voxels,), truth=(truth,))
    ways = {"mode": "render+query+voxels", "labels_3d": "with", "truth_grid": GRID, **TERMINATION}
    plain, seen_denser = terms_of(output, batch, **ways), terms_of(denser, batch, **ways)
    terms = terms_of(output, batch, occupancy_factor=4.0, **ways)
    of_occupancy = {"return_voxel", "query_occupancy", "label_voxel_occupancy", "voxel_occupancy"}
    assert of_occupancy < set(terms) == set(plain)
    for name, value in terms.items():
        assert value == pytest.approx(seen_denser[name] if name in of_occupancy else plain[name], rel=1e-5), name
    assert all(abs(plain[name] / seen_denser[name] - 1) > 0.1 for name in (*of_occupancy, "termination"))


def test_a_wall_is_learnt_from_where_light_ends():
    """Rays through a free field that all return from a wall at x = 5.5 m: density gathers there and nowhere before."""
    rng = np.random.default_rng(0)
    rows = [((5.5, y, z), math.sqrt(5.5**2 + y**2 + z**2), 15) for y, z in rng.uniform((-4, -1), (4, 2), (300, 2))]
    supervision = Supervision(SupervisionConfig(**TERMINATION), CONFIG, OCC3D_NUSCENES, COUNTS)
    raw = torch.full((1, *GRID.shape), -2.0, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        output = dataclasses.replace(output_of(0.0), density=F.softplus(raw))
        optimiser.zero_grad()
        terms = supervision.terms(output, batch_of(rays_of(rows, origin=(0.0, 0.0, 0.0))), generator)
        sum(terms.values()).backward()
        optimiser.step()
    chance = 1 - torch.exp(-F.softplus(raw.detach()[0]))
    assert chance[13, 5:11, 0:2].mean() > 0.8  # x from 5 to 6 m
    assert chance[8:12, 6:10, 0:2].mean() < 0.1


# ---------------------------------------------------------------------------------------------------------------------
# 3D truth


def test_truth_of_a_larger_grid_is_cropped_and_frames_without_count_as_zero():
    whole = VoxelGrid((-10.0, -9.0, -1.0), (8.0, 8.0, 4.0), 1.0)
    rng = np.random.default_rng(0)
    semantics = rng.choice([2, 9, 17, 255], whole.shape, p=[0.2, 0.2, 0.5, 0.1]).astype(np.uint8)
    mask = rng.integers(0, 2, whole.shape).astype(np.uint8)
    truth = {"semantics": torch.from_numpy(semantics), "mask_camera": torch.from_numpy(mask)}
    output = random_output(2)
    terms = terms_of(
        output, batch_of(random_rays(5), random_rays(5), truth=(None, truth)), labels_3d="only", truth_grid=whole
    )

    semantics, mask = semantics[2:, 1:, :4], mask[2:, 1:, :4].astype(bool)
    counted = mask & (semantics != 255)
    solid = counted & (semantics != 17)
    density, logits = output.density[1].numpy().astype(float), output.semantics[1].numpy().astype(float)
    occupancy = density[counted & ~solid].sum() - np.log(1 - np.exp(-density[solid])).sum()
    picked = logits[solid]
    right = picked[np.arange(len(picked)), semantics[solid]]
    classes = (np.log(np.exp(picked).sum(axis=1)) - right).mean()
    assert terms["voxel_occupancy"] == pytest.approx(occupancy / counted.sum() / 2, rel=1e-4)
    assert terms["voxel_semantics"] == pytest.approx(classes / 2, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes


def test_what_does_not_fit_is_named():
    output = random_output()
    with pytest.raises(ValueError, match="17 classes other than free, the model 16 logits; set class_count=17"):
        Supervision(SupervisionConfig(), small_config("tiny", "class_count=16"), OCC3D_NUSCENES, COUNTS)
    with pytest.raises(ValueError, match="of 1 frames, the batch of 2"):
        terms_of(output, batch_of(random_rays(5), random_rays(5)))
    with pytest.raises(ValueError, match="drive frame 0: its rays have no distances"):
        terms_of(output, batch_of(dataclasses.replace(random_rays(5), distances=None)))
    with pytest.raises(ValueError, match="18 classes but 17 counts"):
        Supervision(SupervisionConfig(), CONFIG, OCC3D_NUSCENES, COUNTS[:17])


def test_settings_that_leave_nothing_to_learn_are_refused():
    with pytest.raises(ValueError, match="use mode=render"):
        SupervisionConfig(mode="query", use_depth=False)
    with pytest.raises(ValueError, match="nothing is left"):
        SupervisionConfig(use_depth=False, use_semantics=False)
    for nothing in ({"use_depth": False}, {"weights": LossWeights(depth_distribution=0)}):
        with pytest.raises(ValueError, match="depth_from_volume is false, but no term teaches the depth bins"):
            SupervisionConfig(depth_from_volume=False, **nothing)
    for mode in ("rendered", "render+", "query+query", ""):
        with pytest.raises(ValueError, match=r"expected some of render, query, voxels, each once and joined by '\+'"):
            SupervisionConfig(mode=mode)
    with pytest.raises(ValueError, match=r"use sample.auxiliary_offsets=\[\]"):
        SupervisionConfig(mode="voxels", auxiliary_rays=False)
    with pytest.raises(ValueError, match="use depth_target=euclidean, or depth_loss=silog"):
        SupervisionConfig(depth_loss="termination", depth_target="contracted")


def test_settings_are_read_from_a_mapping():
    config = from_mapping(SupervisionConfig, {"mode": "both", "weights": {"empty": 0}, "query": {"margin": 2}})
    assert (config.mode, config.weights.empty, config.query.margin) == ("both", 0, 2)
    assert config.weights.depth_distribution == 0.05


# ---------------------------------------------------------------------------------------------------------------------
# Learning


@pytest.mark.parametrize("mode", ["render", "query", "both"])
def test_a_field_learns_a_wall_its_classes_and_its_window(mode):
    """Rays from two places meet a wall at x = 5.5 m, one class left of y = 0 and another right, with a window."""
    rng = np.random.default_rng(0)
    points = np.stack([np.full(1500, 5.5), rng.uniform(-6, 6, 1500), rng.uniform(-1, 3, 1500)], axis=1)
    origins = np.array([[-3.5, -2.5, 1.2], [-1.5, 3.5, 0.8]])[rng.integers(0, 2, 1500)]
    distances = np.linalg.norm(points - origins, axis=1)
    window = (np.abs(points[:, 1] - 0.0) < 2) & (points[:, 2] > 0)
    rays = Rays(
        torch.from_numpy(origins).float(),
        torch.from_numpy((points - origins) / distances[:, None]).float(),
        torch.from_numpy(np.where(window, 40.0, distances)).float(),
        torch.from_numpy(np.where(points[:, 1] > 0, 4, 15)),
        frame_offsets=torch.zeros(1500, dtype=torch.int64),
    )
    raw = torch.full((1, *GRID.shape), -2.25, requires_grad=True)  # softplus: 0.1 / m, as an untrained network
    logits = torch.zeros(1, *GRID.shape, 17, requires_grad=True)
    optimiser = torch.optim.Adam([raw, logits], lr=0.15)
    generator = torch.Generator().manual_seed(0)
    supervision = Supervision(SupervisionConfig(mode=mode), CONFIG, OCC3D_NUSCENES, COUNTS)
    batch = batch_of(rays)
    for _ in range(100):
        optimiser.zero_grad()
        output = NetworkOutput(F.softplus(raw), logits, output_of(1.0).depth_distribution, None)
        sum(supervision.terms(output, batch, generator).values()).backward()
        optimiser.step()

    chance = 1 - torch.exp(-F.softplus(raw[0].detach()))
    wall = chance[13, 2:14]  # x from 5 to 6 m, y from -6 to 6 m
    is_window = torch.zeros(12, 4, dtype=torch.bool)
    is_window[4:8, 1:] = True
    # Rendering alone leaves a wall thinner than a voxel half transparent: the threshold is below 1/2, as a calibrated
    # one is.
    assert (wall[~is_window] > 0.3).float().mean() > 0.95
    assert (wall[is_window] < 0.3).float().mean() > 0.9
    assert (chance[8:12, 5:11] < 0.3).float().mean() > 0.97  # in front of it
    classes = logits[0, 13, 2:14].argmax(dim=-1).detach()
    right = torch.tensor([15] * 6 + [4] * 6)[:, None].expand(12, 4)
    assert (classes == right)[~is_window].float().mean() > 0.95
