"""`renderocc learn`: one command from recordings to a network and an honest report; run again, it continues."""

import base64
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from realdata import REALDATA, needs_realdata
from small_training import ROOT, read_until
from tiny_bag import FRAME_NS, START_NS, Plan, write_bag
from town import rewritten

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.network.packaged import packaged_checkpoint
from renderocc_model.rosio.parameter_file import vehicle_of_file
from renderocc_model.rosio.vehicle_options import vehicle_from
from training.learn import main, parser
from training.learn.pictures import curve
from training.learn.plan import make_plan
from training.train.config import load_train_config

pytestmark = pytest.mark.slow
needs_weights = pytest.mark.skipif(packaged_checkpoint("tiny") is None, reason="this tree has no trained network")

FRAMES = 3
SHORT = (
    *("--steps", "2", "--jobs", "1", "--set", "sample.rays=100", "run.workers=0", "run.threads=1", "run.log_every=1"),
    *("sample.voxel_rays=100", "run.pictures=1", "run.validation_frames=1", "precision=float32"),
)


def with_truth(bag):
    """The recording with random 3D truth of 200 x 200 x 16 voxels at each of its moments."""
    (bag / "occupancy").mkdir()
    rng = np.random.default_rng(0)
    for frame in range(FRAMES):
        volume = np.where(rng.random((200, 200, 16)) < 0.9, 17, 11).astype(np.uint8)
        seen = np.ones_like(volume)
        path = bag / "occupancy" / f"{START_NS + frame * FRAME_NS}.npz"
        np.savez_compressed(path, semantics=volume, mask_camera=seen, mask_lidar=seen)
    return bag


def unlabelled(folder):
    """A recording with cameras and ego poses alone."""
    return write_bag(folder, Plan(frames=FRAMES, labels=lambda frame, camera: None))


def planned(out, *words):
    arguments = parser().parse_args([*map(str, words), "--out", str(out)])
    return make_plan(arguments, vehicle_from(arguments))


def images_in(page):
    """The images inside an HTML page, decoded."""
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) for data in found]


@needs_weights
def test_one_command_makes_a_network_and_a_report_and_a_second_run_does_nothing_again(tmp_path, capsys):
    bags = [with_truth(write_bag(tmp_path / name, Plan(frames=FRAMES))) for name in ("one", "two")]
    out = tmp_path / "learned"
    command = [*map(str, bags), "--out", str(out), "--max-speed", "55", *SHORT]
    assert main(command) == 0
    assert (out / "run" / "checkpoint.safetensors").is_file()

    page = (out / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', page), "the report needs other files"
    pictures = images_in(page)
    # Labels of two recordings, the confusion matrix, and one frame with its volume.
    assert len(pictures) == 4
    assert all(picture is not None and picture.std() > 5 for picture in pictures)
    evaluation = json.loads((out / "eval" / "evaluation.json").read_text())
    (held_out,) = evaluation["recordings"]
    assert f"held out: {held_out}" in page and "nothing was held out" not in page
    assert f"{100 * evaluation['volumes']['miou']:.2f}" in html.unescape(page)
    assert "<polyline" in page, "two steps make a curve"
    assert vehicle_of_file(out / "vehicle.yaml").motion.max_speed == 55

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("done already") == 6  # two checks, prepare, train, eval, report
    kept = {path: when for path, when in before.items() if path.name not in ("plan.json", "train.yaml", "vehicle.yaml")}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    (out / "done" / "report").unlink()  # as after an interruption between the steps
    (out / "report.html").unlink()
    assert main(command) == 0
    assert (out / "report.html").is_file() and capsys.readouterr().out.count("done already") == 5

    command[command.index("--steps") + 1] = "3"
    assert main(command) == 2
    assert "they differ in train.steps (was 2, now 3)" in capsys.readouterr().err


@needs_weights
@pytest.mark.system
def test_after_sigterm_in_training_the_status_says_so_and_the_same_command_continues_from_the_saved_step(tmp_path):
    bag, out = write_bag(tmp_path / "drive", Plan(frames=FRAMES)), tmp_path / "learned"
    words = [*SHORT]
    words[words.index("--steps") + 1] = "30"
    command = [sys.executable, "-m", "renderocc_model.cli", "learn", str(bag), "--out", str(out), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
    read_until(process, "step 2/30")
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 143 and "train did not finish; run the same command to continue" in said
    assert sorted(path.name for path in (out / "done").iterdir()) == ["check_drive", "prepare"]

    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
    assert done.returncode == 0, done.stdout
    assert "step 1/30" not in done.stdout and "step 30/30" in done.stdout
    assert "WHICH WAS TRAINED ON" in (out / "report.html").read_text()


@needs_weights
def test_a_lidar_gives_the_recording_that_is_evaluated_3d_truth_and_the_report_its_miou(tmp_path, town_bag):
    bags = [rewritten(town_bag, tmp_path / name, truth=False) for name in ("one", "two")]
    out = tmp_path / "learned"
    assert main([*map(str, bags), "--out", str(out), *SHORT, "data.validation=[two]"]) == 0
    assert [path.name for path in (out / "truth").iterdir()] == ["two"], "what is trained on needs no truth"
    assert not (bags[1] / "occupancy").exists()
    page = html.unescape((out / "report.html").read_text())
    assert "truth    two: accumulated from the LiDAR's sweeps" in page and "no mIoU and no RayIoU" not in page
    volumes = json.loads((out / "eval" / "evaluation.json").read_text())["volumes"]
    assert f"{100 * volumes['miou']:.2f}" in page and volumes["rayiou"] > 0
    pictures = images_in(page)
    # Labels of two recordings, the truth, the confusion matrix, and one frame with its volume.
    assert len(pictures) == 5 and pictures[2].shape == (800, 800, 3) and pictures[2].std() > 5


def test_a_recording_without_a_lidar_or_with_truth_gets_none(tmp_path, town_bag):
    assert planned(tmp_path / "out", unlabelled(tmp_path / "drive")).bags[0].truth is None
    plan = planned(tmp_path / "out", town_bag)
    assert plan.bags[0].truth is None and plan.bags[0].volumes == 3


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    bag = unlabelled(tmp_path / "drive")
    assert main([str(bag), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "drive: label: depth from motion" in said and "ground and obstacle by the plane of the road" in said
    assert "2 classes" in said and "nothing is held out" in said and "no recording has 3D truth" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive"]


def test_cameras_and_poses_alone_are_labelled_from_motion_and_ground_for_two_classes(tmp_path):
    plan = planned(tmp_path / "out", unlabelled(tmp_path / "drive"))
    assert plan.bags[0].options == ("--depth-from", "motion", "--classes-from", "ground")
    assert plan.bags[0].table == GROUND_OBSTACLE
    assert plan.config.model.class_count == 2


@needs_weights
def test_ground_and_obstacles_are_learned_from_the_packaged_network_and_other_tables_from_the_image_networks(tmp_path):
    plan = planned(tmp_path / "out", unlabelled(tmp_path / "drive"))
    assert plan.config.initial == "tiny" and plan.config.model.class_count == 2 and plan.config.steps == 1000
    bag, sidecar = (write_bag(tmp_path / name, Plan(frames=FRAMES)) for name in ("kitti", "kitti_labels"))
    (sidecar / "labels.yaml").write_text(json.dumps({"classes": SEMANTIC_KITTI.to_dict()}))
    plan = planned(tmp_path / "out", bag)
    assert plan.config.initial == "" and plan.config.model.class_count == 19 and plan.config.steps == 5600


@needs_weights
def test_labels_of_the_packaged_networks_classes_are_learned_from_it(tmp_path):
    plan = planned(tmp_path / "out", write_bag(tmp_path / "drive", Plan(frames=FRAMES)))
    assert plan.bags[0].options is None and plan.bags[0].table == OCC3D_NUSCENES
    assert plan.config.initial == "tiny" and plan.config.model.class_count == 17 and plan.config.steps == 1000
    shipped = load_train_config(ROOT / "config" / "train_tiny.yaml")
    assert plan.config.supervision == shipped.supervision and plan.config.sample == shipped.sample


def test_truth_of_other_classes_than_the_labels_is_named_for_prepare(tmp_path):
    bag = with_truth(unlabelled(tmp_path / "drive"))
    assert planned(tmp_path / "out", bag).bags[0].truth_classes == "occ3d_nuscenes"
    note = bag / "occupancy" / "truth.json"  # as `renderocc truth --classes-from ground` writes it
    note.write_text(json.dumps({"classes": GROUND_OBSTACLE.to_dict()}))
    assert planned(tmp_path / "out", bag).bags[0].truth_classes == ""
    note.write_text("{}")
    with pytest.raises(ValueError, match="truth.json: the class table cannot be read"):
        planned(tmp_path / "out", bag)
    labelled = with_truth(write_bag(tmp_path / "labelled", Plan(frames=FRAMES)))
    assert planned(tmp_path / "out", labelled).bags[0].truth_classes == ""


def test_a_recording_that_check_refuses_ends_the_command_before_anything_is_made_of_it(tmp_path, capsys):
    bag = write_bag(tmp_path / "drive", Plan(frames=FRAMES, poses=[START_NS, START_NS + 20_000_000]))
    out = tmp_path / "out"
    assert main([str(bag), "--out", str(out), *SHORT]) == 1
    assert "check drive did not finish" in capsys.readouterr().err
    assert "FAIL" in (out / "check" / "drive.txt").read_text()
    assert not (out / "tables").exists() and not (out / "report.html").exists() and not list((out / "done").iterdir())


@needs_weights
def test_labels_beside_a_recording_that_were_made_again_are_not_taken_for_those_of_the_folder(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=FRAMES))
    sidecar = write_bag(tmp_path / "drive_labels", Plan(frames=FRAMES))
    before = planned(tmp_path / "out", bag).as_dict()
    assert planned(tmp_path / "out", bag).as_dict() == before
    shutil.rmtree(sidecar)
    write_bag(sidecar, Plan(frames=FRAMES + 1))
    after = planned(tmp_path / "out", bag).bags[0].files()
    changed = {
        Path(path).parent.name for path, size in after.items() if before["recordings"]["drive"]["files"][path] != size
    }
    assert changed == {"drive_labels"}


def test_labels_of_different_class_tables_are_refused_with_both_remedies(tmp_path, capsys):
    bags = [write_bag(tmp_path / "labelled", Plan(frames=FRAMES)), unlabelled(tmp_path / "bare")]
    assert main([*map(str, bags), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "labels of bare have another class table than those of labelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, text",
    [
        (("--set", "data.prepared=tables"), "--set data.prepared: `renderocc learn` sets this itself"),
        (("--set", "sample.rayz=3"), "rays"),
        (("--jobs", "0"), "--jobs is 0"),
        (("--depth-topic", "/{camera}/none"), "correct --depth-topic"),
    ],
)
def test_wrong_options_are_named_before_anything_is_done(tmp_path, capsys, words, text):
    bag = write_bag(tmp_path / "drive", Plan(frames=FRAMES))
    assert main([str(bag), "--out", str(tmp_path / "out"), *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_curve_runs_from_its_first_to_its_last_point_and_leaves_out_what_is_not_finite():
    drawn = curve([(0, 1.0), (50, float("nan")), (100, 3.0)], "loss")
    # 640 x 220 with a margin of 50: the lowest value at y = 220 - 25, the highest 170 above it.
    assert 'points="50.0,195.0 590.0,25.0"' in drawn and "step 0" in drawn
    assert curve([(0, 1.0)], "loss") == ""


@needs_realdata
def test_a_lidar_without_classes_gives_depth_from_it_and_ground_from_its_shape(tmp_path):
    pytest.importorskip("pypatchworkpp")
    plan = planned(tmp_path / "out", REALDATA / "ddad_6cam")
    assert plan.bags[0].options == ("--classes-from", "ground")
    assert plan.bags[0].depth.startswith("/lidar/points") and "patchwork" in plan.bags[0].classes
    assert plan.bags[0].truth == ("--classes-from", "ground")
