"""`renderocc label --depth-from motion`: labels lie on surfaces, work goes on where it was, and causes are named."""

import sys

import numpy as np
import pytest
import tiny_bag
from realdata import REALDATA, needs_realdata
from town import HEIGHT, WIDTH

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio.vehicle import Vehicle
from training.label import main
from training.label.from_motion import standing_depth, windows_folder
from training.label.structure.plan import plan_windows
from training.label.structure.run import depth_from_motion
from training.label.structure.settings import MotionDepth
from training.label.structure.window import ImageLabels
from training.recordings.frames import Recording

CAR, ROAD = (OCC3D_NUSCENES.id_of(name) for name in ("car", "driveable_surface"))
SMALL = ["--jobs", "1", "--max-features", "1000"]


def standing(stamp_ns):
    return np.eye(4)


def jumping(stamp_ns):
    """Drives at 4 m/s and is 100 m further from the second frame on."""
    pose = np.eye(4)
    seconds = (stamp_ns - tiny_bag.START_NS) / 1e9
    pose[0, 3] = 4 * seconds + (100.0 if seconds > 0.25 else 0.0)
    return pose


# ----------------------------------------------------------------------------------------------------------- windows


def test_every_image_is_labelled_in_one_window_and_seen_from_others_beside(tmp_path):
    with Recording(tiny_bag.write_bag(tmp_path / "drive", tiny_bag.Plan(frames=9))) as recording:
        plan = plan_windows(recording, MotionDepth(window_images=3))
        images = {(camera, stamp) for camera in recording.cameras for stamp in recording.stamps[camera]}
    core = [(shot.camera, shot.stamp_ns) for window in plan.windows for shot in window.core]
    assert len(plan.windows) == 3 and not plan.left_out
    assert sorted(core) == sorted(images)
    for window in plan.windows:
        beside = {(shot.camera, shot.stamp_ns) for shot in window.beside}
        assert beside and not beside & {(shot.camera, shot.stamp_ns) for shot in window.core}
        # At least two images of each camera on each side where there is one: the window in the middle has both.
        assert len(beside) >= (8 if window.number == 1 else 4)


def test_no_window_reaches_across_a_jump_of_the_ego_pose(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_bag, "odom_from_base", jumping)
    with Recording(tiny_bag.write_bag(tmp_path / "drive", tiny_bag.Plan(frames=4))) as recording:
        assert len(recording.jumps) == 1
        plan = plan_windows(recording, MotionDepth())
        assert len(plan.windows) == 2
        for window in plan.windows:
            shots = (*window.core, *window.beside)
            assert all(recording.related(shots[0].stamp_ns, shot.stamp_ns) for shot in shots)


# -------------------------------------------------------------------------------------------------- what may not be


def test_labels_on_and_beside_classes_that_move_are_left_out():
    model = CameraModel(40, 20, [[50.0, 0, 20], [0, 50, 10], [0, 0, 1]], "plumb_bob", ())
    semantic = np.full((20, 40), ROAD, np.uint8)
    semantic[5:10, 5:10] = CAR
    labels = ImageLabels(np.array([[7, 7], [11, 7], [12, 7], [30, 15]], np.int32), np.array([5, 6, 7, 8], np.float32))
    depth = standing_depth(labels, model, semantic, OCC3D_NUSCENES)
    # The car reaches to column 9, and two pixels beside it do not count either: 12 is the first column that does.
    assert {(int(x), int(y)): float(depth[y, x]) for y, x in zip(*np.nonzero(depth))} == {(12, 7): 7.0, (30, 15): 8.0}
    assert np.count_nonzero(standing_depth(labels, model, None, OCC3D_NUSCENES)) == 4


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_without_pycolmap_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    bag = tiny_bag.write_bag(tmp_path / "drive")
    text = refused(capsys, bag, "--depth-from", "motion")
    assert "depth from motion needs pycolmap" in text and text.rstrip().endswith("pip install pycolmap")


def test_two_sources_of_depth_are_refused(tmp_path, capsys):
    bag = tiny_bag.write_bag(tmp_path / "drive")
    text = refused(capsys, bag, "--depth-from", "motion", "--depth-topic", "/{camera}/depth")
    assert "--depth-from motion was given, and --depth-topic too; leave one of them out" in text


def test_a_vehicle_that_stands_still_is_told_that_it_has_no_parallax(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")
    monkeypatch.setattr(tiny_bag, "odom_from_base", standing)
    bag = tiny_bag.write_bag(tmp_path / "drive")
    text = refused(capsys, bag, "--depth-from", "motion", "--cameras", "front", *SMALL)
    assert "no parallax: the vehicle moves 0.00 m" in text


# ---------------------------------------------------------------------------------------------------------- the town


@pytest.mark.slow
def test_labels_of_the_town_lie_on_its_surfaces(town_bag, tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")
    out = tmp_path / "labels"
    cameras = ["cam_front_left", "cam_front_right"]
    words = [town_bag, "--depth-from", "motion", "--out", out, "--semantic-topic", "/{camera}/semantic"]
    assert main([str(word) for word in [*words, "--cameras", *cameras, *SMALL]]) == 0
    assert not windows_folder(out).exists()
    errors = []
    with Recording(town_bag) as exact, Recording(town_bag, out) as labelled:
        for camera in cameras:
            for stamp in exact.stamps[camera]:
                found, truth = labelled.depth(camera, stamp), exact.depth(camera, stamp)
                assert found.shape == (HEIGHT, WIDTH)
                both = (found > 0) & (truth > 0)
                errors.append(np.abs(found[both] / truth[both] - 1))
                moving = np.isin(exact.semantic(camera, stamp), OCC3D_NUSCENES.dynamic)
                assert not found[moving].any()
    errors = np.concatenate(errors)
    assert len(errors) > 100
    assert (errors < 0.25).mean() > 0.85 and np.median(errors) < 0.05


@pytest.mark.slow
def test_windows_that_are_done_are_not_worked_on_again(town_bag, tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")
    settings = MotionDepth(window_images=2, max_features=300)

    def stop_after_one(done, total):
        if done == 1:
            raise KeyboardInterrupt

    camera = "cam_front_left"
    with Recording(town_bag, vehicle=Vehicle(cameras=(camera,))) as recording:
        with pytest.raises(KeyboardInterrupt):
            depth_from_motion(recording, settings, tmp_path / "part", 1, stop_after_one)
        first = next((tmp_path / "part").glob("window_*.npz"))
        before = first.stat().st_mtime_ns
        calls = []
        part = depth_from_motion(recording, settings, tmp_path / "part", 1, lambda *done: calls.append(done))
        assert calls == [(1, 2), (2, 2)] and first.stat().st_mtime_ns == before
        whole = depth_from_motion(recording, settings, tmp_path / "whole", 2)
        for stamp in recording.stamps[camera]:
            one, other = part.of(camera, stamp), whole.of(camera, stamp)
            np.testing.assert_array_equal(one.pixels, other.pixels)
            np.testing.assert_array_equal(one.depth, other.depth)


@needs_realdata
@pytest.mark.slow
def test_a_real_drive_gets_labels_that_agree_with_its_lidar(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")
    bag, motion, lidar = REALDATA / "ddad_6cam", tmp_path / "motion", tmp_path / "lidar"
    size = ["--feature-image-size", "968", "--jobs", "1"]
    assert main([str(bag), "--depth-from", "motion", "--out", str(motion), *size]) == 0
    assert main([str(bag), "--out", str(lidar), "--jobs", "1"]) == 0
    errors, count = [], 0
    with Recording(bag, motion) as one, Recording(bag, lidar) as other:
        for camera in one.cameras:
            for stamp in one.stamps[camera]:
                found, truth = one.depth(camera, stamp), other.depth(camera, stamp)
                count += np.count_nonzero(found)
                rows, columns = np.nonzero(truth)
                for row, column in zip(*np.nonzero(found)):
                    apart = np.maximum(abs(rows - row), abs(columns - column))
                    near = np.argmin(apart)
                    if apart[near] <= 4:  # pixels between two returns
                        errors.append(abs(found[row, column] / truth[rows[near], columns[near]] - 1))
    # By hand, matched exhaustively: 11,607 labels, AbsRel 0.074, 94.7 % within 25 %.
    assert count > 5000 and len(errors) > 1500
    assert np.mean(errors) < 0.074 and np.mean(np.array(errors) < 0.25) > 0.947
