"""`renderocc metrics`: mIoU by hand and by a plain loop, and what is said where files do not fit."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.geometry.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from training.evaluate.confusion import Confusion
from training.evaluate.metrics import main
from training.evaluate.volumes import volume_grid

FREE, CAR, ROAD = 17, 4, 11
SHAPE = (20, 20, 16)


def write(folder, name, **volumes):
    path = folder / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **volumes)


@pytest.fixture
def folders(tmp_path):
    """Two frames whose road is partly missed; a camera sees all but the upper half."""
    for frame in ("town/a", "town/b"):
        truth = np.full(SHAPE, FREE, np.uint8)
        truth[:, :, 2] = ROAD
        mask = np.zeros(SHAPE, np.uint8)
        mask[:, :, :8] = 1
        prediction = truth.copy()
        prediction[:5, :, 2] = FREE
        prediction[0, 0, 12] = CAR  # where no camera sees
        write(tmp_path / "truth", frame, semantics=truth, mask_camera=mask, mask_lidar=mask)
        write(tmp_path / "pred", frame, semantics=prediction)
    return tmp_path


def run(folders, *options):
    """Exit status and what was written."""
    out = folders / "out" / "scores.json"
    status = main([str(folders / "pred"), str(folders / "truth"), "--json", str(out), *map(str, options)])
    return status, json.loads(out.read_text()) if out.exists() else None


def test_iou_by_hand():
    """Six voxels. road: 2 hits, 1 missed (as free), 1 invented: 2 / 4. car: 0 of 1 missed, predicted road: 0 / 1."""
    confusion = Confusion(OCC3D_NUSCENES)
    truth = np.array([ROAD, ROAD, ROAD, CAR, FREE, 255])
    confusion.add(np.array([ROAD, ROAD, FREE, ROAD, FREE, ROAD]), truth)
    assert confusion.iou()[ROAD] == 0.5 and confusion.iou()[CAR] == 0 and confusion.iou()[FREE] == 0.5
    assert confusion.miou() == 0.25  # over the classes that occur, free is none of them
    assert confusion.occupied_iou() == 3 / 4  # occupied and predicted as occupied; one is missed
    assert math.isnan(Confusion(OCC3D_NUSCENES).miou())


def test_an_unknown_prediction_is_a_miss():
    confusion = Confusion(OCC3D_NUSCENES)
    confusion.add(np.array([255, 255], np.uint8), np.array([ROAD, FREE], np.uint8))
    assert confusion.histogram[ROAD, FREE] == 1 and confusion.histogram[FREE, FREE] == 1


def plain_miou(pairs):
    """From the definition, voxel by voxel."""
    scores = []
    for name in range(17):
        both = either = 0
        for wanted, found in pairs:
            both += wanted == name and found == name
            either += wanted == name or found == name
        if either:
            scores.append(both / either)
    return sum(scores) / len(scores) if scores else math.nan


volume = arrays.arrays(np.uint8, (3, 4, 2), elements=st.sampled_from([0, 3, 4, 11, 16, 17, 17, 17]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(volume, volume, arrays.arrays(bool, (3, 4, 2))), min_size=1, max_size=3))
def test_miou_is_that_of_a_plain_loop_over_the_voxels_of_all_frames(frames):
    confusion, pairs = Confusion(OCC3D_NUSCENES), []
    for prediction, truth, mask in frames:
        confusion.add(prediction, truth, mask)
        pairs += [(t, p) for t, p, m in zip(truth.flat, prediction.flat, mask.flat) if m]
    expected = plain_miou(pairs)
    assert confusion.miou() == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_folders_are_compared_under_the_cameras_mask(folders, capsys):
    """A quarter of 400 road voxels is missed in both frames; the car lies where no camera sees."""
    status, result = run(folders)
    assert status == 0
    assert result["miou"] == result["iou"]["driveable_surface"] == 0.75 and result["iou"]["car"] is None
    assert list(result["iou"]) == list(OCC3D_NUSCENES.names[:17]) and "rayiou" not in result
    assert result["counts"]["frames"] == 2 and result["counts"]["voxels"] == 2 * 20 * 20 * 8
    assert result["counts"]["voxels_truth"]["driveable_surface"] == 800
    text = capsys.readouterr().out
    assert "driveable_surface" in text and "75.00" in text and "scores.json" in text
    assert run(folders, "--mask", "none")[1]["iou"]["car"] == 0


def test_rays_start_where_the_file_says(folders):
    several = [[-2.5, 0, 1.84], [2.5, 0.1, 1.5], [50, 0, 1.84]]
    origins = {"town/a": [[0, 0, 1.84]], "town/b": several, "elsewhere": [[0, 0, 0]]}
    (folders / "origins.json").write_text(json.dumps(origins))
    status, default = run(folders, "--rayiou")
    assert status == 0 and default["counts"]["origins"] == 2
    status, result = run(folders, "--rayiou", "--origins", folders / "origins.json")
    assert status == 0 and result["counts"]["origins"] == 3  # 50 m off is outside
    for scores in (default, result):
        assert 0 < scores["rayiou_1"] <= scores["rayiou_2"] <= scores["rayiou_4"] <= 1
        assert scores["rayiou"] == pytest.approx(sum(scores[f"rayiou_{n}"] for n in (1, 2, 4)) / 3)
    assert result["rayiou"] != default["rayiou"]


@pytest.mark.system
def test_several_processes_count_the_same(folders):
    for number in range(16):
        for part in ("pred", "truth"):
            content = np.load(folders / part / "town" / "a.npz")
            write(folders / part, f"more/{number}", **content)
    alone, together = run(folders, "--rayiou", "--jobs", 1)[1], run(folders, "--rayiou", "--jobs", 2)[1]
    assert alone == together and alone["counts"]["frames"] == 18


def test_a_file_that_lacks_its_counterpart_is_named(folders, capsys):
    (folders / "pred" / "town" / "a.npz").rename(folders / "pred" / "town" / "c.npz")
    assert run(folders)[0] == 2
    text = capsys.readouterr().err
    assert "lacks 1 of the files" in text and "town/a.npz" in text and "town/c.npz" in text and text.count("\n") == 1


def saved_by_a_node(folders, lower, upper):
    """The predictions as volumes of a smaller grid, as `Occupancy.save_npz` writes them."""
    bounds = np.array([*lower, *upper, 0.4])
    x, y, z = np.round((np.subtract(upper, lower)) / 0.4).astype(int)
    for name in ("town/a", "town/b"):
        volume = np.full((x, y, z), 255, np.uint8)
        volume[:, : y // 2, 2] = ROAD
        write(folders / "pred", name, semantics=volume, grid=bounds, frame=np.array("base_link"))


def test_a_volume_that_names_a_smaller_grid_is_compared_in_it(folders):
    # Truth: the middle of Occ3D's grid, 20 voxels from -4 to 4 m. The prediction: 10 x 10 of them, from -2 to 2 m in x
    # and -4 to 0 in y; of the road's 100 voxels in it 50 are found.
    saved_by_a_node(folders, (-2, -4, -1), (2, 0, 5.4))
    status, scores = run(folders, "--flat-ground")
    assert status == 0 and scores["iou"]["driveable_surface"] == 0.5
    assert scores["counts"]["voxels"] == 2 * 10 * 10 * 8  # below the mask's upper edge
    # z = 0 lies in layer 2 (0 + 1 m over 0.4 m): a flat road is what the truth is.
    assert scores["baselines"]["flat_ground"]["miou"] == 1.0
    status, scores = run(folders, "--rayiou", "--origins", origins_in(folders, [0.0, -2.0, 1.84]), "--flat-ground")
    assert status == 0 and 0 < scores["rayiou"] < 1 and scores["baselines"]["flat_ground"]["rayiou"] == 1.0


def origins_in(folders, origin):
    path = folders / "origins.json"
    path.write_text(json.dumps({"town/a": [origin], "town/b": [origin]}))
    return path


@pytest.mark.parametrize(
    "lower, upper, said",
    [
        ((-2, -4.1, -1), (2, -0.1, 5.4), "whole number"),
        ((-2, -6, -1), (2, -2, 5.4), "runs from -6.0 to -2.0 m in y"),
    ],
)
def test_a_smaller_grid_that_is_no_part_of_the_truths_is_named(folders, capsys, lower, upper, said):
    saved_by_a_node(folders, lower, upper)
    assert run(folders)[0] == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "prediction, said",
    [
        ({"semantics": np.zeros((20, 20, 8), np.uint8)}, r"has shape \(20, 20, 8\), but the truth \(20, 20, 16\)"),
        ({"semantics": np.zeros((20, 20, 8), np.uint8), "grid": np.zeros(3)}, "expected 7 numbers"),
        ({"occupancy": np.zeros(SHAPE, np.uint8)}, "has no array semantics, but occupancy"),
        ({"semantics": np.zeros(SHAPE, np.float32)}, r"semantics is float32 of shape .*expected \(X, Y, Z\) integers"),
        ({"semantics": np.full(SHAPE, 99, np.uint8)}, "class id 99; expected 0 to 17, or 255 for unknown"),
        ({"semantics": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(folders, capsys, prediction, said):
    np.savez(folders / "pred" / "town" / "b.npz", **prediction)
    assert run(folders)[0] == 2
    text = capsys.readouterr().err
    assert "b.npz" in text and re.search(said, text) and text.count("\n") == 1


def test_other_wrong_input_is_named(folders, capsys):
    def said(*options):
        assert run(folders, *options)[0] == 2
        return capsys.readouterr().err

    (folders / "origins.json").write_text(json.dumps({"town/a": [[0, 0, 1.84]]}))
    assert "lacks 1 of 2 files, the first is 'town/b'" in said("--rayiou", "--origins", folders / "origins.json")
    assert "give --rayiou" in said("--origins", folders / "origins.json")
    (folders / "origins.json").write_text(json.dumps({"town/a": [[0, 0]], "town/b": [[0, 0, 1]]}))
    assert "origins of 'town/a' are [[0, 0]]" in said("--rayiou", "--origins", folders / "origins.json")
    (folders / "origins.json").write_text("[")
    assert "origins.json: cannot be read" in said("--rayiou", "--origins", folders / "origins.json")
    (folders / "origins.json").write_text(json.dumps({"town/a": [[90, 0, 1]], "town/b": [[0, 0, 1]]}))
    assert "a.npz: none of its origins lies in the grid" in said("--rayiou", "--origins", folders / "origins.json")
    assert "its grid (10, 10, 16)" in said("--rayiou", "--grid", -2, -2, -1, 2, 2, 5.4, 0.4)
    (folders / "truth" / "town" / "b.npz").write_bytes(b"PK\x03\x04 cut off")
    assert "b.npz: cannot be read" in said()
    write(folders / "truth", "town/b", semantics=np.zeros(SHAPE, np.uint8))
    assert "has no array mask_camera, but semantics" in said()
    assert main([str(folders / "nowhere"), str(folders / "truth")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (folders / "empty").mkdir()
    assert main([str(folders / "pred"), str(folders / "empty")]) == 2
    assert "has no .npz files" in capsys.readouterr().err


def test_a_class_table_with_free_elsewhere(tmp_path):
    """SemanticKITTI: 0 is empty, 255 invalid; three of four cars found, one voxel invented where nothing is known."""
    truth, prediction = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    truth[0, 0], prediction[0, 0, :3] = 1, 1
    truth[3, 3, 3], prediction[3, 3, 3] = 255, 9
    write(tmp_path / "truth", "a", semantics=truth)
    write(tmp_path / "pred", "a", semantics=prediction)
    assert run(tmp_path)[0] == 2  # no mask_camera
    status, result = run(tmp_path, "--classes", "semantic_kitti", "--mask", "none")
    assert status == 0 and result["iou"]["car"] == result["miou"] == 0.75 and result["iou"]["road"] is None


def test_the_grid_follows_from_a_shape_where_it_can():
    assert volume_grid((200, 200, 16), OCC3D_NUSCENES) == OCC3D_GRID
    tiny = volume_grid((100, 100, 16), OCC3D_NUSCENES)
    assert tiny == VoxelGrid((-20.0, -20.0, -1.0), (20.0, 20.0, 5.4), 0.4)
    assert volume_grid((256, 256, 32), SEMANTIC_KITTI) == SEMANTIC_KITTI_GRID
    for shape in ((101, 100, 16), (400, 400, 32), (100, 100, 8)):
        with pytest.raises(ValueError, match="say which with --grid"):
            volume_grid(shape, OCC3D_NUSCENES)
