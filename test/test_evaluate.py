"""`renderocc eval`: a checkpoint on a recording of the town; what it writes is what `renderocc metrics` finds."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from small_models import small_config

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.threshold import DistanceThreshold, plain_threshold
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.network.checkpoint import load_checkpoint, save_checkpoint
from renderocc_model.network.untrained import untrained_checkpoint
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording
from training.evaluate import command as evaluation
from training.evaluate import metrics
from training.evaluate.baselines import flat_ground, most_frequent
from training.evaluate.command import main
from training.evaluate.evaluate import EvaluationPlan, evaluate
from training.evaluate.frame_truth import occupied_classes, ray_origins, truth_of
from training.evaluate.metrics import VolumeScores
from training.evaluate.report import confusion_picture, evaluation_markdown, evaluation_text
from training.evaluate.threshold import ThresholdSearch

pytestmark = pytest.mark.slow

FREE, ROAD = 17, 11
# 40 x 40 x 16 voxels, the middle of the truth's 200 x 200 x 16.
GRID = VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 5.4), 0.4)


@pytest.fixture(scope="module")
def tables(town_bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "tables"
    prepare_recording(town_bag, None, folder, PrepareConfig())
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = small_config("tiny", "grid.lower=[-8, -8, -1]", "grid.upper=[8, 8, 5.4]", "grid.voxel_size=0.4")
    made = untrained_checkpoint(config, OCC3D_NUSCENES, 0)
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, made.network, made.classes, made.threshold, None, {"by": "a test"}, half=True)
    return path


def run(checkpoint, tables, *options):
    return main(["--checkpoint", str(checkpoint), "--data", str(tables), "--device", "cpu", *map(str, options)])


def test_the_figures_are_those_that_metrics_finds_in_the_volumes(checkpoint, tables, tmp_path, capsys):
    """Truth cut to the network's grid, rays from the LiDAR's places in all frames: the same as from files."""
    options = ("--out", tmp_path / "out", "--predictions", tmp_path / "volumes", "--json", tmp_path / "all.json")
    baselines = ("--baselines", "--training-data", tables)
    assert run(checkpoint, tables, "--precision", "float32", *options, *baselines) == 0
    text = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result == json.loads((tmp_path / "all.json").read_text())
    folder = tmp_path / "volumes"
    corners = [*GRID.lower, *GRID.upper, GRID.voxel_size]
    assert (
        metrics.main(
            [
                str(folder / "predictions"),
                str(folder / "truth"),
                "--rayiou",
                "--origins",
                str(folder / "origins.json"),
                "--grid",
                *map(str, corners),
                "--json",
                str(tmp_path / "metrics.json"),
            ]
        )
        == 0
    )
    assert result["volumes"] == json.loads((tmp_path / "metrics.json").read_text())
    assert result["volumes"]["counts"]["frames"] == result["frames"] == result["rays"]["counts"]["frames"] == 3
    assert 0 < result["volumes"]["rayiou"] < 0.2 and 0 < result["rays"]["abs_rel"]
    # The most frequent class of each voxel over the very frames is far better than chance, and than flat ground.
    better, flat = result["baselines"]["most_frequent"], result["baselines"]["flat_ground"]
    assert better["miou"] > 3 * flat["miou"] > 3 * result["volumes"]["miou"]
    assert flat["iou"]["driveable_surface"] > 0.2 and flat["counts"]["voxels"] == result["volumes"]["counts"]["voxels"]
    document = (tmp_path / "out" / "evaluation.md").read_text()
    for part in (text, document):
        assert all(name in part for name in (*OCC3D_NUSCENES.names[:17], "flat ground", "AbsRel", "RayIoU"))
    assert text.rstrip().endswith(str(tmp_path / "out")) and "| car |" in document
    picture = cv2.imread(str(tmp_path / "out" / "confusion.png"))
    assert picture.shape[0] > 500 and picture.shape[1] > 500


def test_calibration_writes_the_checkpoint_with_the_threshold_it_found(checkpoint, tables, tmp_path, capsys):
    new, out = tmp_path / "new.safetensors", tmp_path / "all.json"
    assert run(checkpoint, tables, "--calibrate", new, "--json", out, "--limit", 2, "--rays", 2000) == 0
    result, before, after = json.loads(out.read_text()), load_checkpoint(checkpoint), load_checkpoint(new)
    ladder = result["calibration"]["ladder"]
    scores = [step["ray_iou"] + step["voxel_iou"] + step["occupied_iou"] for step in ladder]
    assert result["calibration"]["threshold"] == ladder[int(np.argmax(scores))]["threshold"] != before.threshold
    assert plain_threshold(after.threshold) == result["threshold"]
    flat = after.threshold.flat if result["calibration"]["curve"] else after.threshold
    assert flat == result["calibration"]["threshold"]
    calibration = after.provenance["calibration"]
    assert after.provenance["by"] == "a test" and calibration["recordings"] == ["drive"] and calibration["frames"] == 2
    assert new.stat().st_size < 1.1 * checkpoint.stat().st_size  # half precision, as it was
    for name, value in before.network.state_dict().items():
        np.testing.assert_array_equal(value, after.network.state_dict()[name])
    assert str(new) in capsys.readouterr().out
    # What is stored is what is used, and a threshold given by hand wins over it.
    assert run(new, tables, "--json", out, "--limit", 2, "--rays", 2000) == 0
    assert json.loads(out.read_text())["volumes"] == result["volumes"]
    by_hand = []
    for given in (checkpoint, new):
        assert run(given, tables, "--threshold", flat, "--json", out, "--limit", 2, "--rays", 2000) == 0
        by_hand.append(json.loads(out.read_text()))
    assert by_hand[0]["volumes"] == by_hand[1]["volumes"] and by_hand[1]["threshold"] == flat


def test_what_is_evaluated_is_what_lies_above_the_curve(checkpoint, tables, tmp_path):
    made, curve = load_checkpoint(checkpoint), DistanceThreshold((0.0, 8.0), (0.05, 0.9), 0.4)
    assert run(checkpoint, tables, "--predictions", tmp_path / "flat", "--limit", 1, "--threshold", 0.05) == 0
    save_checkpoint(tmp_path / "curve.safetensors", made.network, made.classes, curve, None, {}, half=True)
    out = tmp_path / "out"
    assert (
        run(tmp_path / "curve.safetensors", tables, "--predictions", tmp_path / "curve", "--limit", 1, "--out", out)
        == 0
    )
    assert "occupied above 0.050 (at 0 m) to 0.900 (at 8 m)" in (out / "evaluation.md").read_text()
    flat, curved = (
        np.load(next((tmp_path / name / "predictions").rglob("*.npz")))["semantics"] for name in ("flat", "curve")
    )
    occupied, near = made.classes.free != curved, made.classes.free != flat
    assert occupied.sum() < near.sum() and not (occupied & ~near).any()


def test_the_network_lies_where_its_frames_are_moved_to(checkpoint, tables, monkeypatch):
    """On another device than the CPU; "meta" is one that every machine has, and that computes nothing."""
    seen = []

    def fields(network, config, dataset, indices, device, *rest):
        seen.append(({str(tensor.device) for tensor in network.state_dict().values()}, str(device)))
        return iter(())

    monkeypatch.setattr(evaluation, "chosen_device", lambda name: torch.device("meta"))
    monkeypatch.setattr("training.evaluate.evaluate.predicted_fields", fields)
    evaluation.run(evaluation.parser().parse_args(["--checkpoint", str(checkpoint), "--data", str(tables)]))
    assert seen == [({"meta"}, "meta")]


def test_recordings_without_3d_truth_are_evaluated_by_their_rays(checkpoint, town_bag, tmp_path, capsys):
    from town import rewritten

    prepare_recording(rewritten(town_bag, tmp_path / "drive", truth=False), None, tmp_path / "tables", PrepareConfig())
    assert run(checkpoint, tmp_path / "tables", "--out", tmp_path / "out", "--limit", 1, "--auxiliary") == 0
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["volumes"] is None and result["baselines"] == {}
    assert result["rays"]["counts"]["returns"] > 0 and np.sum(result["confusion"]) > 0
    assert "RayIoU" not in capsys.readouterr().out


def test_the_network_of_the_package_goes_by_its_name(tables, tmp_path):
    assert run("tiny", tables, "--limit", 1, "--rays", 500, "--calibrate", tmp_path / "new.safetensors") == 0
    assert load_checkpoint(tmp_path / "new.safetensors").provenance["calibration"]["recordings"]


def test_what_does_not_fit_is_one_clear_line(checkpoint, tables, tmp_path, capsys):
    def said(*options, file=checkpoint, data=tables):
        assert run(file, data, *options) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "there is no such file; give a checkpoint" in said(file=tmp_path / "none.safetensors")
    assert "there is no such folder" in said(data=tmp_path / "nowhere")
    assert "recordings ['other'] are not prepared" in said("--recordings", "other")
    assert "give --baselines" in said("--training-data", tables)
    assert "leave one out" in said("--threshold", 0.5, "--calibrate", tmp_path / "new.safetensors")
    assert "threshold is 1.5" in said("--threshold", 1.5)
    assert "--limit is -1" in said("--limit", -1)
    assert "ground at 9.0 m is not in the grid" in said("--baselines", "--ground-height", 9)
    assert re.search(
        r"drive, frame 0: 3D truth has shapes .*\(100, 100, 16\)", said("--truth-grid", -20, -20, -1, 20, 20, 5.4, 0.4)
    )
    (tmp_path / "text.safetensors").write_text("no checkpoint, but long enough to be read as the header of one")
    assert "text.safetensors" in said(file=tmp_path / "text.safetensors")
    other = untrained_checkpoint(small_config("tiny", "class_count=19"), SEMANTIC_KITTI, 0)
    save_checkpoint(tmp_path / "kitti.safetensors", other.network, other.classes, 0.5)
    assert "its labels have the classes" in said(file=tmp_path / "kitti.safetensors")


def test_truth_is_cut_to_the_networks_grid(tables):
    recording, frame = RayDataset(tables, SampleConfig(64, 96)).recording_of(1)
    whole, part = recording.truth_arrays(frame), truth_of(recording, frame, GRID)
    np.testing.assert_array_equal(part.semantics, whole["semantics"][80:120, 80:120])
    np.testing.assert_array_equal(part.mask, whole["mask_camera"][80:120, 80:120] != 0)
    assert truth_of(recording, frame, OCC3D_GRID).semantics.shape == (200, 200, 16)
    with pytest.raises(ValueError, match="drive, frame 1: the model's grid begins 49.750 voxels"):
        truth_of(recording, frame, VoxelGrid((-20.1, -20.0, -1.0), (19.9, 20.0, 5.4), 0.4))


def test_rays_begin_where_the_lidar_was_in_each_frame(tables):
    """Frames are half a second apart; the vehicle's own origin is the given place, the others lie along the road."""
    recording, frame = RayDataset(tables, SampleConfig(64, 96)).recording_of(1)
    origins = ray_origins(recording, 1, OCC3D_GRID, (0.9, 0.0, 1.84))
    assert len(origins) == 3
    np.testing.assert_allclose(origins[1], [0.9, 0, 1.84], atol=1e-9)
    moved = np.linalg.inv(recording.odom_from_base[1]) @ recording.odom_from_base[0] @ [0.9, 0, 1.84, 1]
    np.testing.assert_allclose(origins[0], moved[:3])
    assert origins[0][0] < 0.9 < origins[2][0]


def test_a_voxel_has_its_likeliest_class_above_the_threshold():
    """1 - exp(-0.4 sigma): 0.33 at sigma 1, 0.7981 at sigma 4."""
    grid = VoxelGrid((0, 0, 0), (0.4, 0.4, 0.8), 0.4)
    field = SemanticDensityField(grid, torch.tensor([[[1.0, 4.0]]]), torch.eye(17)[[4, ROAD]][None, None])
    assert occupied_classes(field, OCC3D_NUSCENES, 0.79).tolist() == [[[FREE, ROAD]]]
    assert occupied_classes(field, OCC3D_NUSCENES, 0.8).tolist() == [[[FREE, FREE]]]
    assert occupied_classes(field, OCC3D_NUSCENES, 0.3).tolist() == [[[4, ROAD]]]


def test_the_function_gives_what_the_command_writes(checkpoint, tables, tmp_path):
    assert run(checkpoint, tables, "--precision", "float32", "--json", tmp_path / "all.json", "--limit", 2) == 0
    made = load_checkpoint(checkpoint)
    dataset = RayDataset(tables, SampleConfig(64, 96, rays=0))
    found = evaluate(made, dataset, EvaluationPlan(frames=2))["volumes"]
    assert found == json.loads((tmp_path / "all.json").read_text())["volumes"]


def test_the_threshold_found_in_2d_is_nearly_the_best_in_3d(tables):
    """A field that is the truth, blurred and noisy: the sum of mIoU and RayIoU is within 5 % of the best there is."""
    recording, frame = RayDataset(tables, SampleConfig(64, 96)).recording_of(1)
    truth, rng = truth_of(recording, frame, GRID), np.random.default_rng(0)
    occupied = truth.semantics != FREE
    nearest = ndimage.distance_transform_edt(~occupied, return_distances=False, return_indices=True)
    density = 4 * ndimage.gaussian_filter(occupied * 1.0, 0.6) * np.exp(0.6 * rng.normal(size=occupied.shape)) + 0.02
    semantics = np.eye(17)[truth.semantics[tuple(nearest)]]
    field = SemanticDensityField(GRID, torch.from_numpy(density), torch.from_numpy(semantics))
    search = ThresholdSearch(OCC3D_NUSCENES, np.linspace(0.1, 0.9, 9))
    search.add(field, RayDataset(tables, SampleConfig(64, 96)).rays_of(1, 20_000))

    def worth(threshold):
        scores = VolumeScores.empty(OCC3D_NUSCENES, True)
        volume, origins = occupied_classes(field, OCC3D_NUSCENES, threshold), np.array([[0, 0, 1.84]])
        scores.add(volume, truth.semantics, truth.mask, GRID, origins)
        return scores.voxels.miou() + scores.rays.rayiou()

    all_worths = [worth(threshold) for threshold in search.thresholds]
    assert worth(search.result().threshold) > 0.95 * max(all_worths)
    assert min(all_worths) < 0.6 * max(all_worths)


def test_the_baselines_by_hand(tables):
    """Flat ground: z = 0 lies in the layer 2, from -0.2 to 0.2 m. Most frequent: counted voxel by voxel."""
    flat = flat_ground(GRID, OCC3D_NUSCENES)
    assert (flat[:, :, 2] == ROAD).all() and (np.delete(flat, 2, axis=2) == FREE).all()
    assert (flat_ground(GRID, OCC3D_NUSCENES, -0.2)[:, :, 2] == ROAD).all()  # a face belongs to the voxel above it
    dataset = RayDataset(tables, SampleConfig(64, 96))
    most = most_frequent(dataset, GRID)
    frames = [truth_of(*dataset.recording_of(index), GRID) for index in range(3)]
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, GRID.shape, (300, 3)):
        seen = [int(truth.semantics[tuple(voxel)]) for truth in frames if truth.mask[tuple(voxel)]]
        expected = max(sorted(set(seen)), key=seen.count) if seen else FREE
        assert most[tuple(voxel)] == expected


def test_the_confusion_picture_shows_the_classes_that_occur():
    names = OCC3D_NUSCENES.names
    histogram = np.zeros((18, 18), np.int64)
    empty = confusion_picture(histogram, names)
    histogram[4, 4], histogram[4, 17], histogram[11, 11] = 90, 10, 50
    picture = confusion_picture(histogram, names)
    assert picture.dtype == np.uint8 and picture.shape[0] == empty.shape[0] + 3 * 54
    assert (picture == [8, 81, 156]).all(axis=-1).sum() > 1000  # road, all of it right


def test_tables_say_a_dash_where_nothing_was_measured():
    nothing = {
        "abs_rel": None,
        "rmse": None,
        "delta_1": None,
        "abs_rel_median": None,
        "delta_1_median": None,
        "miou_2d": None,
        "opacity_returns": None,
        "opacity_empty": None,
        "iou_2d": {"car": None},
        "counts": {"returns": 0, "empty": 0},
    }
    result = {
        "checkpoint": "c",
        "frames": 1,
        "recordings": ["a"],
        "threshold": 0.5,
        "calibration": None,
        "rays": nothing,
        "cameras": {name: {"abs_rel": None, "delta_1": None, "returns": 0} for name in ("front", "rear")},
        "volumes": None,
        "baselines": {},
    }
    assert re.search(r"AbsRel +-", evaluation_text(result)) and "| car | - |" in evaluation_markdown(result)
    assert "| rear | 0 | - | - |" in evaluation_markdown(result)


def test_the_map_is_evaluated_beside_single_frames_with_settings_of_its_own(checkpoint, tables, tmp_path, capsys):
    options = ("--rays", 200, "--limit", 1, "--map-stride", 1, "--json", tmp_path / "all.json")
    assert run(checkpoint, tables, *options, "--map", "memory=0.5", "gain=1.0") == 0
    assert "beside each frame alone" in capsys.readouterr().out
    figures = json.loads((tmp_path / "all.json").read_text())["map"]
    frames = len(RayDataset(tables))
    assert figures["frames"] == frames
    for which in ("frame", "map"):
        assert figures[which]["counts"]["frames"] == frames and 0 < figures[which]["iou_occupied"] < 1
    assert figures["frame"]["counts"]["voxels"] == figures["map"]["counts"]["voxels"]  # of the same mask


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--map", "memry=0.5"), "did you mean 'memory'"),
        (("--map", "memory=2"), "'memory' is 2"),
        (("--map-stride", "0"), "--map-stride is 0"),
    ],
)
def test_a_wrong_setting_of_the_map_is_refused_before_the_work(checkpoint, tables, capsys, options, text):
    assert run(checkpoint, tables, *options) == 2
    assert text in capsys.readouterr().err
