"""Held-out rays: what is compared, by hand on walls of known place, and a network's figures on a prepared recording."""

import math

import numpy as np
import pytest
import torch
from small_models import small_config
from tiny_bag import FRAME_NS, HEIGHT, WIDTH, Plan, write_bag

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.network import build_network
from renderocc_model.network.untrained import untrained_checkpoint
from renderocc_model.ops.render import render
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording
from training.evaluate.held_out import RayScores, evaluate_rays, evenly, fields_of_predictor, predicted_fields

CAR, ROAD, MANMADE = 4, 11, 15
GRID = VoxelGrid((0.0, -2.0, -2.0), (20.0, 2.0, 2.0), 0.5)


def field_with_wall(first, last, name, density=1000.0):
    """Opaque between x = first and last metres, of class `name` everywhere."""
    sigma = torch.zeros(GRID.shape)
    sigma[round(first / 0.5) : round(last / 0.5)] = density
    semantics = torch.zeros(*GRID.shape, 17)
    semantics[..., name] = 5.0
    return SemanticDensityField(GRID, sigma, semantics)


def ahead(distances, classes):
    """Rays along x from (0.25, 0.1, 0.1), which leave the grid after 19.75 m."""
    count = len(distances)
    origins, directions = torch.tensor([[0.25, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]])
    return Rays(origins.repeat(count, 1), directions.repeat(count, 1), torch.tensor(distances), torch.tensor(classes))


def result_of(field, rays):
    scores = RayScores(OCC3D_NUSCENES)
    scores.add(field, rays)
    return scores.as_dict()


def test_a_wall_where_the_label_is_scores_right():
    """A wall from x = 10.25: the first opaque sample is within half a voxel of the label, which is 10 m."""
    result = result_of(field_with_wall(10, 12, MANMADE), ahead([10.0, 10.0], [MANMADE, 255]))
    assert result["abs_rel"] < 0.5 / 10 and result["rmse"] < 0.5 and result["delta_1"] == 1
    assert result["abs_rel_median"] < 0.5 / 10 and result["delta_1_median"] == 1
    assert result["miou_2d"] == result["iou_2d"]["manmade"] == 1 and result["iou_2d"]["car"] is None
    assert result["opacity_returns"] == pytest.approx(1) and result["opacity_empty"] is None
    assert result["counts"] == {"frames": 1, "returns": 2, "empty": 0, "classes": 1}


def test_a_ray_that_renders_to_nothing_is_wrong_by_the_way_to_the_grids_end():
    """Labels at 5 and 10 m, nothing there: 19.75 m is rendered. Errors 14.75 and 9.75 m; no class is right."""
    result = result_of(field_with_wall(0, 0, CAR), ahead([5.0, 10.0], [CAR, CAR]))
    assert result["abs_rel"] == pytest.approx((14.75 / 5 + 9.75 / 10) / 2)
    assert result["rmse"] == pytest.approx(math.sqrt((14.75**2 + 9.75**2) / 2))
    assert result["delta_1"] == 0 and result["miou_2d"] == 0 and result["opacity_returns"] == 0
    assert result["abs_rel_median"] == pytest.approx(result["abs_rel"]) and result["delta_1_median"] == 0


def test_a_half_transparent_wall_is_no_surface():
    """Density -ln(0.6) / 2 over 2 m leaves 60 % of the light: opacity 0.4, and the class counts as free."""
    result = result_of(field_with_wall(10, 12, CAR, -math.log(0.6) / 2), ahead([10.0], [CAR]))
    assert result["opacity_returns"] == pytest.approx(0.4, abs=0.02) and result["miou_2d"] == 0
    # 0.4 of the light stops at about 11 - 0.25 m, 0.6 at 19.75 m: 16.15 m.
    assert result["rmse"] == pytest.approx(16.15 - 10, abs=0.2)


def test_a_wrong_class_lowers_the_iou_of_both():
    """Three rays meet a car; two are labelled car, one road: car 2 / 3, road 0 / 1."""
    result = result_of(field_with_wall(10, 12, CAR), ahead([10.0] * 3, [CAR, CAR, ROAD]))
    assert result["iou_2d"]["car"] == pytest.approx(2 / 3) and result["iou_2d"]["driveable_surface"] == 0
    assert result["miou_2d"] == pytest.approx(1 / 3)


def test_rays_that_leave_the_grid_only_tell_of_walls_that_do_not_exist():
    result = result_of(field_with_wall(10, 12, CAR), ahead([25.0, 10.0], [CAR, CAR]))
    assert result["opacity_empty"] == pytest.approx(1) and result["counts"]["empty"] == 1
    assert result["counts"]["returns"] == 1 and result["delta_1"] == 1
    assert result_of(field_with_wall(0, 0, CAR), ahead([25.0], [CAR]))["opacity_empty"] == 0


def test_rays_without_a_distance_or_from_outside_say_nothing():
    rays = ahead([0.0, math.nan, 10.0], [CAR, CAR, CAR])
    rays.origins[2, 0] = -1.0
    result = result_of(field_with_wall(10, 12, CAR), rays)
    assert result["counts"] == {"frames": 1, "returns": 0, "empty": 0, "classes": 0}
    assert result["abs_rel"] is None and result["miou_2d"] is None


def test_distances_are_also_counted_by_camera():
    """A wall from x = 10: labels of 10 m are right; the one of 5 m is wrong by 4.75 to 5.25 m; 30 m leaves the grid."""
    scores = RayScores(OCC3D_NUSCENES)
    field, rays = field_with_wall(10, 12, MANMADE), ahead([10.0, 5.0, 10.0, 30.0], [MANMADE, CAR, 255, 255])
    scores.add(field, rays, np.array([0, 0, 1, 2]), ("front", "left", "rear"))
    scores.add(field, rays, np.array([1, 1, 1, 1]), ("left", "right"))
    found = scores.by_camera()
    assert {name: one["returns"] for name, one in found.items()} == {"front": 2, "left": 1, "rear": 0, "right": 3}
    assert found["front"]["delta_1"] == 0.5 and found["front"]["abs_rel"] == pytest.approx(0.5, abs=0.06)
    assert found["left"]["delta_1"] == 1 and found["left"]["abs_rel"] < 0.05
    assert found["rear"]["delta_1"] is None
    assert found["right"]["delta_1"] == pytest.approx(2 / 3)
    total = sum(one["abs_rel"] * one["returns"] for one in found.values() if one["returns"])
    assert total / 6 == pytest.approx(scores.as_dict()["abs_rel"])


def test_what_does_not_fit_is_refused():
    field = field_with_wall(10, 12, CAR)
    with pytest.raises(ValueError, match="give labelled rays"):
        RayScores(OCC3D_NUSCENES).add(field, Rays(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]])))
    few = SemanticDensityField(GRID, field.density, field.semantics[..., :5])
    with pytest.raises(ValueError, match="the field has 5 classes, not the labels' 17"):
        RayScores(OCC3D_NUSCENES).add(few, ahead([1.0], [CAR]))


def test_frames_are_spread_evenly():
    assert evenly(10, 3) == [0, 3, 6] and evenly(3, 10) == evenly(3, None) == evenly(3, 0) == [0, 1, 2]


# --- on a prepared recording ---


def car_ahead(frame, camera):
    """Road everywhere, and a car in the front camera's upper left corner."""
    semantic, depth = np.full((HEIGHT, WIDTH), ROAD, np.uint8), np.full((HEIGHT, WIDTH), 5.0)
    if camera == "front":
        semantic[:8, :8] = CAR
    return semantic, depth


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    bag = write_bag(folder / "drive", Plan(frames=3, labels=car_ahead))
    prepare_recording(bag, None, folder / "tables", PrepareConfig())
    return folder / "tables"


@pytest.mark.parametrize("fusion", [False, True])
def test_a_network_is_evaluated_and_left_as_it_was(tables, fusion):
    torch.manual_seed(0)
    config = small_config("tiny", "images.height=64", f"fusion.enabled={str(fusion).lower()}")
    network = build_network(config).train()
    network.neck.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    dataset = RayDataset(tables, SampleConfig(64, 96, rays=0, previous=int(fusion)))
    result = evaluate_rays(network, config, dataset)
    assert network.training and not network.neck.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert result["counts"]["frames"] == 3 and 0 < result["counts"]["returns"] + result["counts"]["empty"]
    assert 0 <= result["opacity_returns"] <= 1 and result["abs_rel"] > 0
    assert evaluate_rays(network, config, dataset) == result
    few = evaluate_rays(network, config, dataset, frames=2, rays=50)["counts"]
    assert few["frames"] == 2 and few["returns"] + few["empty"] <= 100


def test_auxiliary_rays_are_of_what_stands_still(tables):
    dataset = RayDataset(tables, SampleConfig(64, 96, auxiliary_offsets=(-1, 1, 2)))
    own, all_rays = dataset.rays_of(0), dataset.rays_of(0, offsets=(-1, 1, 2))
    pixels = 2 * HEIGHT * WIDTH
    assert len(own) == pixels and len(all_rays) == pixels + 2 * (pixels - 64)
    other = all_rays.frame_offsets != 0
    assert set(all_rays.frame_offsets.tolist()) == {0, 1, 2} and not (all_rays.classes[other] == CAR).any()
    torch.testing.assert_close(all_rays[~other].origins, own.origins)
    drawn = dataset.rays_of(0, 100, (-1, 1, 2))
    assert len(drawn) == 100 and set(drawn.frame_offsets.tolist()) == {0, 1, 2}
    config = small_config("tiny", "images.height=64")
    results = [
        evaluate_rays(build_network(config), config, dataset, rays=None, auxiliary=auxiliary)["counts"]["classes"]
        for auxiliary in (False, True)
    ]
    assert results[1] > 2 * results[0]


def test_the_fields_are_the_networks(tables):
    torch.manual_seed(0)
    config = small_config("tiny", "images.height=64")
    network = build_network(config).eval()
    dataset = RayDataset(tables, SampleConfig(64, 96, rays=0))
    found = list(predicted_fields(network, config, dataset, [0, 2]))
    assert [index for index, _, _ in found] == [0, 2] and found[1][1].frame == 2
    assert found[0][2].density.shape == config.grid.shape and not found[0][2].density.requires_grad
    assert not torch.equal(found[0][2].density, found[1][2].density)


def test_earlier_frames_are_joined_as_a_predictor_joins_them_one_by_one(tables):
    made = untrained_checkpoint(
        small_config("tiny", "images.height=64", "fusion.enabled=true", "fusion.frames=2"), OCC3D_NUSCENES
    )
    config = SampleConfig(64, 96, rays=0, previous=2, previous_interval=FRAME_NS * 1e-9)
    dataset = RayDataset(tables, config)
    ours = predicted_fields(made.network, made.config, dataset, [0, 1, 2])
    theirs = fields_of_predictor(Predictor(made, device="cpu", precision="float32"), dataset, [0, 1, 2])
    for (_, sample, found), (_, _, expected) in zip(ours, theirs, strict=True):
        assert len(sample.previous) == sample.frame
        torch.testing.assert_close(found.density, expected.density, atol=1e-4, rtol=1e-3)


def test_the_figures_are_those_of_a_plain_loop_over_rays():
    """Random fields and rays over three frames; each ray looked at by itself, in Python's own numbers."""
    generator = torch.Generator().manual_seed(3)
    scores, errors, squares, within, halves, stopped, let_through = RayScores(OCC3D_NUSCENES), [], [], [], [], [], []
    found, labelled = [], []
    for _ in range(3):
        density = torch.rand(GRID.shape, generator=generator) ** 4 * 2
        field = SemanticDensityField(GRID, density, torch.randn(*GRID.shape, 17, generator=generator))
        origins = torch.rand(200, 3, generator=generator) * torch.tensor([24.0, 4.0, 4.0]) - torch.tensor([2.0, 2, 2])
        directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=1)
        distances = torch.rand(200, generator=generator) * 8
        distances[::17] = 0.0
        classes = torch.randint(0, 17, (200,), generator=generator)
        classes[::13] = 255
        rays = Rays(origins, directions, distances, classes)
        scores.add(field, rays)
        result = render(field, rays)
        for index in range(200):
            inside = all(low < p < high for low, p, high in zip(GRID.lower, origins[index].tolist(), GRID.upper))
            d = float(distances[index])
            if not inside or d == 0:
                continue
            exits = [
                ((high if v > 0 else low) - p) / v
                for low, high, p, v in zip(GRID.lower, GRID.upper, origins[index].tolist(), directions[index].tolist())
            ]
            opacity = float(result.opacity[index])
            if d >= min(exits):
                let_through.append(opacity)
                continue
            D = float(result.distance[index]) + (1 - opacity) * min(exits)
            errors.append(abs(D - d) / d)
            squares.append((D - d) ** 2)
            within.append(D / d < 1.25 and d / D < 1.25)
            half = min(float(result.median[index]), min(exits))
            halves.append((abs(half - d) / d, half / d < 1.25 and d / half < 1.25))
            stopped.append(opacity)
            if int(classes[index]) != 255:
                logits = result.semantics[index].tolist()
                found.append(logits.index(max(logits)) if opacity >= 0.5 else 17)
                labelled.append(int(classes[index]))
    right = [sum(f == l == c for f, l in zip(found, labelled)) for c in range(17)]
    union = [sum(c in (f, l) for f, l in zip(found, labelled)) for c in range(17)]
    ious = [hits / all_ for hits, all_ in zip(right, union) if all_]
    figures = scores.as_dict()
    assert figures["counts"] == {"frames": 3, "returns": len(errors), "empty": len(let_through), "classes": len(found)}
    assert min(len(errors), len(let_through)) > 50 and 0 < sum(within) < len(within) and 0 < sum(right) < len(found)
    # Rays are in single precision, so is where they leave the grid; what is compared is summed in double.
    expected = {
        "abs_rel": sum(errors) / len(errors),
        "rmse": math.sqrt(sum(squares) / len(squares)),
        "delta_1": sum(within) / len(within),
        "abs_rel_median": sum(error for error, _ in halves) / len(halves),
        "delta_1_median": sum(near for _, near in halves) / len(halves),
        "opacity_returns": sum(stopped) / len(stopped),
        "opacity_empty": sum(let_through) / len(let_through),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert figures["miou_2d"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)
