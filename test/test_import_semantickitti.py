"""SemanticKITTI becomes recordings: calibration, poses, scans, labels and volumes end where they belong."""

import json
import re

import cv2
import numpy as np
import pytest
from realdata import REALDATA, needs_realdata
from test_import_nuscenes import clouds, counts

from renderocc_model.field.classes import SEMANTIC_KITTI
from renderocc_model.geometry.grid import SEMANTIC_KITTI_GRID
from training.recordings.frames import Recording
from training.recordings.importers import main
from training.recordings.importers.importing import DatasetError
from training.recordings.importers.semantickitti import import_semantickitti
from training.recordings.notes import IMPORT_NOTE

# Sequence 00's published calibration, rounded to seven digits as it is printed.
P0 = "7.188560e+02 0 6.071928e+02 0 0 7.188560e+02 1.852157e+02 0 0 0 1 0"
P2 = "7.188560e+02 0 6.071928e+02 4.538225e+01 0 7.188560e+02 1.852157e+02 -1.130887e-01 0 0 1 3.779761e-03"
P3 = "7.188560e+02 0 6.071928e+02 -3.372877e+02 0 7.188560e+02 1.852157e+02 2.369057e+00 0 0 1 4.915215e-03"
TR = (
    "4.276802e-04 -9.999672e-01 -8.084491e-03 -1.198460e-02 -7.210626e-03 8.081198e-03 -9.999413e-01 -5.403984e-02 "
    "9.999739e-01 4.859486e-04 -7.206933e-03 -2.921968e-01"
)
START = 1_700_000_000_000_000_000
VOXELS = SEMANTIC_KITTI_GRID.shape


def write_sequence(folder, frames=2, scan=None, labels=None):
    """One sequence in the published layout: the car moves 1 m a frame along cam0's z, its forward axis."""
    for name in ("image_2", "image_3", "velodyne", "labels", "voxels"):
        (folder / name).mkdir(parents=True)
    (folder / "calib.txt").write_text(f"P0: {P0}\nP1: {P0}\nP2: {P2}\nP3: {P3}\nTr: {TR}\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * k:e}\n" for k in range(frames)))
    (folder / "poses.txt").write_text("".join(f"1 0 0 0 0 1 0 0 0 0 1 {k}\n" for k in range(frames)))
    rng = np.random.default_rng(1)
    scan = rng.uniform(-20, 20, (50, 4)).astype("<f4").tobytes() if scan is None else scan
    # 40 road, 252 a moving car, 1 outlier; the upper half of a label is the instance.
    labels = np.array([40, 252 | 7 << 16, 1, 0, 70] * 10, "<u4").tobytes() if labels is None else labels
    for frame in range(frames):
        for name, width in (("image_2", 1241), ("image_3", 1241)):
            picture = cv2.imencode(".png", np.full((376, width, 3), 40 * frame, np.uint8))[1].tobytes()
            (folder / name / f"{frame:06d}.png").write_bytes(picture)
        (folder / "velodyne" / f"{frame:06d}.bin").write_bytes(scan)
        (folder / "labels" / f"{frame:06d}.label").write_bytes(labels)
    raw = np.zeros(VOXELS, "<u2")
    raw[0, 0, :4] = 40, 252, 52, 81
    invalid, occluded = np.zeros(VOXELS, bool), np.zeros(VOXELS, bool)
    invalid[0, 1, 0] = invalid[255, 255, 31] = True
    occluded[0, 2, :3] = True
    (folder / "voxels" / "000000.label").write_bytes(raw.tobytes())
    for name, bits in (("bin", raw > 0), ("invalid", invalid), ("occluded", occluded)):
        (folder / "voxels" / f"000000.{name}").write_bytes(np.packbits(bits.ravel()).tobytes())
    return folder


@pytest.fixture
def root(tmp_path):
    write_sequence(tmp_path / "kitti" / "sequences" / "08")
    return tmp_path / "kitti"


def imported(root, tmp_path, **options):
    import_semantickitti(root, tmp_path / "out", tell=lambda line: None, **options)
    return tmp_path / "out" / "08"


def test_a_sequence_becomes_a_recording_of_all_its_frames(root, tmp_path):
    assert main(["semantickitti", str(root), "--out", str(tmp_path / "out")]) == 0
    bag = tmp_path / "out" / "08"
    assert counts(bag) == {
        "/tf_static": 1,
        "/tf": 2,
        "/lidar/points": 2,
        "/image_2/image_raw/compressed": 2,
        "/image_2/camera_info": 2,
        "/image_3/image_raw/compressed": 2,
        "/image_3/camera_info": 2,
    }
    with Recording(bag) as recording:
        assert recording.stamps["image_2"] == [START, START + 100_000_000]
        assert recording.truth_stamps() == [START]
    note = json.loads((bag / IMPORT_NOTE).read_text())
    assert note["grid"] == SEMANTIC_KITTI_GRID.to_dict() and note["classes"]["names"] == list(SEMANTIC_KITTI.names)


def test_cameras_sit_where_calib_txt_says(root, tmp_path):
    with Recording(imported(root, tmp_path)) as recording:
        left, right = recording.mount("image_2"), recording.mount("image_3")
        model = recording.models["image_2"]
    assert (model.width, model.height) == (1241, 376) and model.K[0, 0] == pytest.approx(718.856)
    assert left[:3, 2] == pytest.approx([1, 0, 0], abs=0.01)  # it looks forward in base_link, which is the Velodyne's
    # A camera's offset from cam0 along the image's rows is (P[0, 3] - cx P[2, 3]) / f: (45.38 - 607.19 * 0.00378) /
    # 718.86 = 0.0599 m and (-337.29 - 607.19 * 0.00492) / 718.86 = -0.4734 m.
    assert np.linalg.norm(left[:3, 3] - right[:3, 3]) == pytest.approx(0.5333, abs=1e-4)
    assert left[1, 3] > right[1, 3]
    # The devkit's own formula: pixel = P2 Tr x.
    point = np.array([12.0, 1.5, -0.7, 1.0])
    rows = lambda text: np.array(text.split(), float).reshape(3, 4)
    u, v, w = rows(P2) @ np.vstack([rows(TR), [0, 0, 0, 1]]) @ point
    pixel, _ = model.project((np.linalg.inv(left) @ point)[None, :3])
    assert pixel[0] == pytest.approx([u / w, v / w], abs=0.01)


def test_the_car_drives_forward_in_odom(root, tmp_path):
    with Recording(imported(root, tmp_path)) as recording:
        first, second = recording.odom_from_base(START), recording.odom_from_base(START + 100_000_000)
    assert first == pytest.approx(np.eye(4), abs=1e-6)  # odom is where the Velodyne started
    # 1 m along cam0's z, which Tr turns to (0.99997, 0.0005, -0.0072) in the Velodyne's frame.
    assert second[:3, 3] == pytest.approx([0.99997, 0.00049, -0.00721], abs=1e-4)


def test_scans_keep_their_points_and_get_training_ids(root, tmp_path):
    stamp, frame, fields, points, label = clouds(imported(root, tmp_path))[0]
    assert (stamp, frame, fields[-1]) == (START, "velodyne", "label")
    scan = np.fromfile(root / "sequences" / "08" / "velodyne" / "000000.bin", "<f4").reshape(-1, 4)
    assert np.array_equal(points, scan[:, :3])
    # 40 road is 9, 252 moving car is 1, 1 an outlier, 0 unlabelled, 70 vegetation is 15.
    assert label.reshape(-1, 5).tolist() == [[9, 1, 254, 255, 15]] * 10


def test_the_volume_is_unpacked_bit_by_bit(root, tmp_path):
    bag = imported(root, tmp_path)
    with np.load(bag / "occupancy" / f"{START}.npz") as file:
        semantics, lidar, camera = file["semantics"], file["mask_lidar"], file["mask_camera"]
    assert {a.shape for a in (semantics, lidar, camera)} == {VOXELS} and semantics.dtype == np.uint8
    # Road 9, moving car 1, other structure (52) is not evaluated, traffic sign 19; then what .invalid marks.
    assert semantics[0, 0, :5].tolist() == [9, 1, 255, 19, 0]
    assert semantics[0, 1, :2].tolist() == [255, 0] and semantics[255, 255, 30:].tolist() == [0, 255]
    assert (semantics == 255).sum() == 3 and np.array_equal(camera == 0, semantics == 255)
    assert (camera & ~lidar & 1).nonzero()[1].tolist() == [2, 2, 2]  # occluded: evaluated, but not by LiDAR


def test_a_sequence_without_labels_or_truth_is_imported_without(root, tmp_path):
    folder = root / "sequences" / "08"
    for name in ("labels", "voxels", "image_3"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
    bag = imported(root, tmp_path)
    assert clouds(bag)[0][2] == ["x", "y", "z", "intensity"]
    assert not (bag / "occupancy").exists() and "/image_3/camera_info" not in counts(bag)


def test_a_stopped_import_leaves_nothing_half_written(root, tmp_path):
    write_sequence(root / "sequences" / "09")
    missing = root / "sequences" / "09" / "image_2" / "000001.png"
    content = missing.read_bytes()
    missing.unlink()
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match="09/image_2/000001.png is missing; line 2 of times.txt"):
        import_semantickitti(root, out, tell=lambda line: None)
    assert [path.name for path in out.iterdir()] == ["08"]
    missing.write_bytes(content)
    assert import_semantickitti(root, out, tell=lambda line: None) == 1
    assert import_semantickitti(root, out, tell=lambda line: None) == 0


def replaced(name, pattern, text):
    def change(folder):
        path = folder / name
        path.write_text(re.sub(pattern, text, path.read_text(), count=1))

    return change


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replaced("calib.txt", "Tr:.*", ""), "calib.txt: has no Tr"),
        (replaced("calib.txt", "-9.999672e-01", "-8.999672e-01"), "calib.txt: Tr is not a rotation"),
        (replaced("calib.txt", "P2: 7.18", "P2: -7.18"), "calib.txt: P2: "),
        (replaced("poses.txt", "1 0 0 0 0", "1 0 0 0"), "poses.txt: line 1 is .*expected 12 finite numbers"),
        (replaced("poses.txt", ".*\n", ""), "poses.txt: 1 poses for 2 times"),
        (replaced("times.txt", ".*\n", "3.0\n"), "times.txt: line 2 is 0.1 s, not after"),
        (replaced("times.txt", "(?s).*", ""), "times.txt: is empty"),
        (cut("velodyne/000000.bin", 30), "velodyne/000000.bin: has 30 bytes"),
        (cut("labels/000001.label", 80), "labels/000001.label: 20 labels for 50 points"),
        (cut("voxels/000000.label", 80), "voxels/000000.label: has 80 bytes; .* 4194304"),
        (cut("voxels/000000.invalid", 80), "voxels/000000.invalid: has 80 bytes; .* 262144"),
        (
            lambda f: (f / "voxels/000000.invalid").unlink(),
            "voxels/000000.invalid is missing; voxels/000000.label names it",
        ),
        (lambda f: (f / "labels/000000.label").write_bytes(b"\x05\0\0\0" * 50), "contains label 5, which"),
        (cut("image_3/000000.png", 10), "image_3/000000.png: "),
        (
            lambda f: (f / "image_2/000001.png").write_bytes(cv2.imencode(".png", np.zeros((8, 9)))[1].tobytes()),
            "image is 9x8, .*1241x376",
        ),
        (lambda f: (f / "poses.txt").unlink(), "poses.txt is missing"),
    ],
)
def test_broken_files_are_named(root, tmp_path, capsys, change, expected):
    change(root / "sequences" / "08")
    assert main(["semantickitti", str(root), "--out", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert re.search(expected, text), text
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_sequence_that_is_not_there_is_refused(root, tmp_path, capsys):
    assert main(["semantickitti", str(root), "--out", str(tmp_path / "o"), "--sequences", "07"]) == 2
    assert "there is no sequence '07'" in capsys.readouterr().err
    assert main(["semantickitti", str(tmp_path / "out"), "--out", str(tmp_path / "o")]) == 2
    assert "has no sequences/" in capsys.readouterr().err


@needs_realdata
def test_a_real_scan_keeps_its_labels(tmp_path):
    scan = (REALDATA / "semantickitti_scan" / "000000.bin").read_bytes()
    labels = (REALDATA / "semantickitti_scan" / "000000.label").read_bytes()
    write_sequence(tmp_path / "kitti" / "dataset" / "sequences" / "00", 1, scan, labels)
    import_semantickitti(tmp_path / "kitti", tmp_path / "out", tell=lambda line: None)
    *_, points, label = clouds(tmp_path / "out" / "00")[0]
    assert len(points) == 123_389
    raw = np.frombuffer(labels, "<u4") & 0xFFFF
    # The road (40) lies 1.73 m under the Velodyne, cars (10) above it.
    assert (label[raw == 40] == SEMANTIC_KITTI.id_of("road")).all() and (raw == 40).sum() > 10_000
    assert np.median(points[label == SEMANTIC_KITTI.id_of("road"), 2]) == pytest.approx(-1.73, abs=0.1)
    assert set(np.unique(label)) <= {*range(1, 20), 254, 255}
    assert ((label == 255) == np.isin(raw, (0, 52, 99))).all() and ((label == 254) == (raw == 1)).all()
