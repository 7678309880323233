"""nuScenes becomes recordings: the devkit's tables, lidarseg's labels and Occ3D's truth end where they belong."""

import json
import shutil

import cv2
import numpy as np
import pytest
from realdata import REALDATA, needs_realdata

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.transforms import invert, matrix_from_quaternion, quaternion_from_matrix, transform_points
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from training.recordings.frames import Recording
from training.recordings.importers import main
from training.recordings.importers.devkit import records
from training.recordings.importers.importing import DatasetError
from training.recordings.importers.nuscenes import import_nuscenes
from training.recordings.importers.nuscenes_tables import CATEGORIES

pytestmark = pytest.mark.slow

START_US = 1_532_402_927_000_000
TURN = [0.5, -0.5, 0.5, -0.5]  # w, x, y, z: optical axes in a frame with x forward


def token(*parts):
    return "".join(f"{part}" for part in parts).encode().hex()[:32].ljust(32, "0")


class Tree:
    """A dataset in the devkit's layout, from plain rows; `write` puts the tables down."""

    def __init__(self, root, version="v1.0-mini"):
        self.root, self.version = root, version
        names = "scene sample sample_data ego_pose calibrated_sensor sensor category log map instance attribute"
        self.tables = {name: [] for name in names.split()}

    def add(self, table, **record):
        self.tables.setdefault(table, []).append(record)
        return record["token"]

    def sensor(self, channel, modality, translation, rotation, K=()):
        sensor = self.add("sensor", token=token("s", channel), channel=channel, modality=modality)
        return self.add(
            "calibrated_sensor",
            token=token("c", channel),
            sensor_token=sensor,
            translation=translation,
            rotation=rotation,
            camera_intrinsic=K,
        )

    def reading(self, sample, calibration, stamp_us, pose, file, content, key=True, size=(0, 0)):
        """A row of sample_data with its pose and file; returns its token."""
        name = token("d", file.split("/")[-1], stamp_us)
        name = f"{len(self.tables['sample_data']):08x}" + name[:24]
        self.add("ego_pose", token=name, timestamp=stamp_us, translation=pose[0], rotation=pose[1])
        (self.root / file).parent.mkdir(parents=True, exist_ok=True)
        (self.root / file).write_bytes(content)
        return self.add(
            "sample_data",
            token=name,
            sample_token=sample,
            ego_pose_token=name,
            calibrated_sensor_token=calibration,
            timestamp=stamp_us,
            fileformat="jpg" if size[0] else "pcd",
            is_key_frame=key,
            height=size[1],
            width=size[0],
            filename=file,
            prev="",
            next="",
        )

    def write(self):
        folder = self.root / self.version
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
        return self.root


def picture(width=32, height=16, shade=90):
    return cv2.imencode(".jpg", np.full((height, width, 3), shade, np.uint8))[1].tobytes()


@pytest.fixture
def tree(tmp_path):
    """Two scenes of two keyframes 0.5 s apart, with one camera reading and one sweep between them."""
    made = Tree(tmp_path / "nuscenes")
    K = [[20.0, 0.0, 15.5], [0.0, 20.0, 7.5], [0.0, 0.0, 1.0]]
    camera = made.sensor("CAM_FRONT", "camera", [1.7, 0.0, 1.5], TURN, K)
    lidar = made.sensor("LIDAR_TOP", "lidar", [0.9, 0.0, 1.8], [1.0, 0.0, 0.0, 0.0])
    radar = made.sensor("RADAR_FRONT", "radar", [3.4, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0])
    made.tables["category"] = [
        {"token": token("k", i), "name": n, "description": "", "index": i} for i, n in enumerate(CATEGORIES)
    ]
    made.tables["lidarseg"] = []
    rng = np.random.default_rng(0)
    for number in (61, 103):
        scene = made.add(
            "scene", token=token("scene", number), name=f"scene-{number:04d}", nbr_samples=2, first_sample_token=""
        )
        for frame in range(2):
            start = START_US + number * 1_000_000 + frame * 500_000
            sample = made.add(
                "sample", token=token("sm", number, frame), timestamp=start, scene_token=scene, prev="", next=""
            )
            for step, key in ((0, True), (250_000, False)):
                folder = "samples" if key else "sweeps"
                pose = lambda stamp: ([100.0 + (stamp - start) * 1e-5 + 5 * frame, 7.0, 0.0], [1.0, 0.0, 0.0, 0.0])
                at = start + step
                name = f"n{number}_{at}"
                made.reading(
                    sample,
                    camera,
                    at + 12_000,
                    pose(at + 12_000),
                    f"{folder}/CAM_FRONT/{name}.jpg",
                    picture(),
                    key,
                    (32, 16),
                )
                made.reading(sample, radar, at + 5_000, pose(at + 5_000), f"{folder}/RADAR_FRONT/{name}.pcd", b"", key)
                points = rng.uniform(-20, 20, (32, 5)).astype("<f4")
                swept = made.reading(
                    sample, lidar, at, pose(at), f"{folder}/LIDAR_TOP/{name}.pcd.bin", points.tobytes(), key
                )
                if key:
                    file = f"lidarseg/v1.0-mini/{swept}_lidarseg.bin"
                    (made.root / file).parent.mkdir(parents=True, exist_ok=True)
                    (made.root / file).write_bytes(np.arange(32, dtype=np.uint8).tobytes())
                    made.add("lidarseg", token=swept, sample_data_token=swept, filename=file)
            truth = made.root / "gts" / f"scene-{number:04d}" / sample
            truth.mkdir(parents=True)
            arrays = {name: np.zeros(OCC3D_GRID.shape, np.uint8) for name in ("semantics", "mask_lidar", "mask_camera")}
            np.savez_compressed(truth / "labels.npz", **{**arrays, "semantics": arrays["semantics"] + 17})
    return made


def clouds(bag):
    """[(stamp, frame, fields, points (N, 3), label (N,) or None)] of /lidar/points."""
    from rosbags.typesys import Stores, get_typestore

    store, found = get_typestore(Stores.ROS2_JAZZY), []
    with Bag(bag) as opened:
        for _, _, data in opened.messages(["/lidar/points"]):
            cloud = store.deserialize_cdr(data, "sensor_msgs/msg/PointCloud2")
            rows = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
            stamp = cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec
            points = rows[:, :12].copy().view("<f4")
            label = rows[:, 16] if cloud.point_step == 17 else None
            found.append((stamp, cloud.header.frame_id, [f.name for f in cloud.fields], points, label))
    return found


def counts(bag):
    with Bag(bag) as opened:
        return {name: topic.count for name, topic in opened.topics.items()}


def test_each_scene_becomes_a_recording_of_its_keyframes_with_truth(tree, tmp_path):
    root, out = tree.write(), tmp_path / "out"
    assert main(["nuscenes", str(root), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["scene-0061", "scene-0103"]
    bag = out / "scene-0061"
    # A pose for each of the 2 x 2 stamps of 3 sensors, keyframe or not: 12.
    assert counts(bag) == {
        "/tf_static": 1,
        "/tf": 12,
        "/cam_front/image_raw/compressed": 2,
        "/cam_front/camera_info": 2,
        "/lidar/points": 2,
    }
    first = (START_US + 61_000_000) * 1000
    assert [p.name for p in sorted((bag / "occupancy").iterdir())] == [f"{first}.npz", f"{first + 500_000_000}.npz"]
    with Recording(bag) as recording:
        frames = recording.frames()
        assert [f.stamp_ns for f in frames] == [first, first + 500_000_000]
        assert frames[0].images == {"cam_front": first + 12_000_000}
        # 12 ms after the sweep the car is 12,000 us * 1e-5 m = 0.12 m further on; the camera sits 1.7 m ahead of base.
        placed = recording.base_from_camera("cam_front", first + 12_000_000, first)
        assert placed[:3, 3] == pytest.approx([1.82, 0, 1.5], abs=1e-6)
        assert placed[:3, 2] == pytest.approx([1, 0, 0], abs=1e-6)  # the optical axis looks forward


def test_sweeps_are_imported_when_asked_for_and_are_unlabelled(tree, tmp_path):
    import_nuscenes(tree.write(), tmp_path / "out", scenes=["scene-0103"], sweeps=True, tell=lambda line: None)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scene-0103"]
    found = clouds(tmp_path / "out" / "scene-0103")
    assert len(found) == 4 and counts(tmp_path / "out" / "scene-0103")["/cam_front/camera_info"] == 4
    assert [set(label.tolist()) == {255} for *_, label in found] == [False, True, False, True]


def test_lidarsegs_32_ids_become_the_classes_of_occ3d(tree, tmp_path):
    import_nuscenes(tree.write(), tmp_path / "out", tell=lambda line: None)
    _, frame, fields, _, label = clouds(tmp_path / "out" / "scene-0061")[0]
    assert frame == "lidar_top" and fields == ["x", "y", "z", "intensity", "label"]
    # The devkit's learning map (lidarseg challenge), id by id; what it ignores is 'others' (0), noise and ego 254.
    wanted = [254, 0, 7, 7, 7, 0, 7, 0, 0, 1, 0, 0, 8, 0, 2, 3, 3, 4, 5, 0, 0, 6, 9, 10, 11, 12, 13, 14, 15, 0, 16, 254]
    assert label.tolist() == wanted


def test_without_lidarseg_clouds_have_no_label(tree, tmp_path):
    del tree.tables["lidarseg"]
    import_nuscenes(tree.write(), tmp_path / "out", tell=lambda line: None)
    assert clouds(tmp_path / "out" / "scene-0061")[0][2] == ["x", "y", "z", "intensity"]


def test_a_stopped_import_goes_on_with_the_recordings_that_are_missing(tree, tmp_path):
    root, out = tree.write(), tmp_path / "out"
    image = next((root / "samples" / "CAM_FRONT").glob("n103*"))
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(DatasetError, match=r"n103.*jpg is missing; sample_data [0-9a-f]{32} names it"):
        import_nuscenes(root, out, tell=lambda line: None)
    assert [path.name for path in out.iterdir()] == ["scene-0061"]  # whole, and nothing of the other
    before = (out / "scene-0061" / "scene-0061.mcap").stat().st_mtime_ns
    image.write_bytes(content)
    assert import_nuscenes(root, out, tell=lambda line: None) == 1
    assert (out / "scene-0061" / "scene-0061.mcap").stat().st_mtime_ns == before
    with pytest.raises(DatasetError, match="imported differently .*sweeps was False, is True.*--out"):
        import_nuscenes(root, out, sweeps=True, tell=lambda line: None)


def break_row(table, number, **changes):
    def change(tree):
        tree.tables[table][number].update(changes)

    return change


def break_file(pattern, content):
    def change(tree):
        for path in tree.root.glob(pattern):
            path.write_bytes(content)

    return change


def drop(table, name):
    return lambda tree: tree.tables[table][0].pop(name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            break_row("sample_data", 0, calibrated_sensor_token="f" * 32),
            "calibrated_sensor.json: there is no record ffff.*sample_data 0000",
        ),
        (break_row("sample_data", 0, ego_pose_token="e" * 32), "ego_pose.json: there is no record eeee"),
        (break_row("ego_pose", 0, rotation=[0, 0, 0, 0]), "ego_pose.json: record 0000.*quaternion"),
        (break_row("sample_data", 0, width=64), "the image is 32x16, but sample_data 0000.* says 64x16"),
        (break_row("calibrated_sensor", 0, camera_intrinsic=[]), "calibrated_sensor.json: record .*CAM_FRONT"),
        (break_row("category", 17, index=18), "category.json: 'vehicle.car' has index 18"),
        (drop("sample_data", "timestamp"), "sample_data.json: record 0000.* has no 'timestamp'"),
        (break_file("samples/LIDAR_TOP/n61*", b"x" * 21), "has 21 bytes, not a multiple of the"),
        (break_file("lidarseg/*/*", b"x" * 3), "3 labels for 32 points"),
        (break_file("lidarseg/*/*", b"\x20" * 32), "contains id 32; expected lidarseg.s 0 to 31"),
        (break_file("samples/CAM_FRONT/n61*", b"no picture"), "samples/CAM_FRONT/n61.*sample_data"),
        (break_file("gts/scene-0061/*/labels.npz", b"PK no zip"), "labels.npz: not a label file of Occ3D"),
        (lambda tree: tree.tables["lidarseg"].pop(0), "lidarseg.json: keyframe sweep .* has no labels"),
        (lambda tree: tree.tables.pop("sensor"), "sensor.json: this table is missing"),
    ],
)
def test_a_broken_dataset_is_named_with_table_and_token(tree, tmp_path, capsys, change, expected):
    change(tree)
    root, out = tree.write(), tmp_path / "out"
    assert main(["nuscenes", str(root), "--out", str(out), "--scenes", "scene-0061"]) == 2
    import re

    text = capsys.readouterr().err
    assert re.search(expected, text), text
    assert not out.exists() or not list(out.iterdir())


def test_names_that_are_not_there_are_answered_with_the_nearest(tree, tmp_path, capsys):
    root = tree.write()
    assert main(["nuscenes", str(root), "--out", str(tmp_path / "o"), "--scenes", "scene-0062"]) == 2
    assert "did you mean scene-0061?" in capsys.readouterr().err
    assert main(["nuscenes", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "v1.0-*/sample_data.json" in capsys.readouterr().err
    shutil.copytree(root / "v1.0-mini", root / "v1.0-trainval")
    assert main(["nuscenes", str(root), "--out", str(tmp_path / "o")]) == 2
    assert "choose one with --version" in capsys.readouterr().err


def test_tables_are_read_a_record_at_a_time_at_any_chunk_border(tmp_path, monkeypatch):
    rows = [{"token": f"{k:032x}", "translation": [k, -0.5, 1e-7], "text": '],[ \\" {'} for k in range(40)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows, indent=1))
    for chunk in (1, 7, 100, 1 << 20):
        monkeypatch.setattr("training.recordings.importers.devkit._CHUNK", chunk)
        assert list(records(path)) == rows
    path.write_text(json.dumps(rows)[:-30])
    with pytest.raises(DatasetError, match="t.json: the file is cut off"):
        list(records(path))


def wxyz(matrix):
    return quaternion_from_matrix(matrix[:3, :3])[[3, 0, 1, 2]].tolist()


def real_keyframe(root, lidarseg=None):
    """The real keyframe's recording taken apart into the devkit's tables and files.

    Args:
        lidarseg: points in base_link (N, 3) -> raw ids (N,) uint8; none are written when None.
    """
    source, tree = REALDATA / "nuscenes_keyframe", Tree(root)
    scene = tree.add("scene", token=token("scene"), name="scene-0001", nbr_samples=1, first_sample_token="")
    (cloud,) = clouds(source)
    with Recording(source) as real, Bag(source) as bag:

        def pose(stamp):
            return real.odom_from_base(stamp)[:3, 3].tolist(), wxyz(real.odom_from_base(stamp))

        sample = tree.add("sample", token=token("sample"), timestamp=cloud[0] // 1000, scene_token=scene)
        mount = real.transforms.lookup("base_link", cloud[1], cloud[0])
        lidar = tree.sensor("LIDAR_TOP", "lidar", mount[:3, 3].tolist(), wxyz(mount))
        points = np.concatenate([cloud[3], np.zeros((len(cloud[3]), 2), "<f4")], 1).astype("<f4")
        swept = tree.reading(
            sample, lidar, cloud[0] // 1000, pose(cloud[0]), "samples/LIDAR_TOP/a.pcd.bin", points.tobytes()
        )
        if lidarseg is not None:
            tree.tables["category"] = [
                {"token": token("k", i), "name": n, "description": "", "index": i} for i, n in enumerate(CATEGORIES)
            ]
            file = f"lidarseg/v1.0-mini/{swept}_lidarseg.bin"
            (tree.root / file).parent.mkdir(parents=True)
            (tree.root / file).write_bytes(lidarseg(transform_points(mount, cloud[3])).tobytes())
            tree.add("lidarseg", token=swept, sample_data_token=swept, filename=file)
        for topic, _, data in bag.messages([f"/{camera}/image_raw/compressed" for camera in real.cameras]):
            camera, image = topic.split("/")[1], cdr.read_compressed_image(data)
            model, mount = real.models[camera], real.mount(camera)
            calibration = tree.sensor(camera.upper(), "camera", mount[:3, 3].tolist(), wxyz(mount), model.K.tolist())
            tree.reading(
                sample,
                calibration,
                image.stamp_ns // 1000,
                pose(image.stamp_ns),
                f"samples/{camera.upper()}/a.jpg",
                bytes(image.data),
                size=(model.width, model.height),
            )
    (tree.root / "gts" / "scene-0001" / sample).mkdir(parents=True)
    shutil.copy(REALDATA / "occ3d_labels" / "labels.npz", tree.root / "gts" / "scene-0001" / sample)
    return tree


@needs_realdata
@pytest.mark.slow
def test_a_real_keyframe_as_devkit_tables_is_placed_as_in_its_recording(tmp_path):
    # The keyframe's recording, taken apart into tables and files as the devkit has them, must come back with every
    # point on the same pixel of every camera: 3,067 of 34,688 in cam_front, as the recording's README says.
    source = REALDATA / "nuscenes_keyframe"
    (cloud,) = clouds(source)
    import_nuscenes(real_keyframe(tmp_path / "nuscenes").write(), tmp_path / "out", tell=lambda line: None)
    bag = tmp_path / "out" / "scene-0001"
    truth = bag / "occupancy" / f"{cloud[0]}.npz"
    assert truth.read_bytes() == (REALDATA / "occ3d_labels" / "labels.npz").read_bytes()
    (again,) = clouds(bag)
    assert again[0] == cloud[0] and np.array_equal(again[3], cloud[3])
    with Recording(source) as real, Recording(bag) as made:
        assert sorted(made.cameras) == sorted(real.cameras)
        for camera in real.cameras:
            stamp = real.stamps[camera][0]
            assert made.stamps[camera] == [stamp] and made.models[camera] == real.models[camera]
            wanted = _points_in_camera(real, camera, cloud)
            found = _points_in_camera(made, camera, again)
            assert found == pytest.approx(wanted, abs=1e-6)
            model: CameraModel = made.models[camera]
            if camera == "cam_front":
                # That count takes u from 0 to below 1600 and v from 0 to below 900.
                u, v = model.project(found)[0].T
                inside = (u >= 0) & (u < model.width) & (v >= 0) & (v < model.height)
                assert (inside & (found[:, 2] > 1)).sum() == 3067


def _points_in_camera(recording, camera, cloud):
    stamp = recording.stamps[camera][0]
    odom_from_lidar = recording.odom_from_base(cloud[0]) @ recording.transforms.lookup("base_link", cloud[1], cloud[0])
    odom_from_camera = recording.odom_from_base(stamp) @ recording.mount(camera)
    return transform_points(invert(odom_from_camera) @ odom_from_lidar, cloud[3])


def test_quaternions_of_the_tables_begin_with_w():
    # 90 degrees about z: w = z = 0.7071; x of the child is y of the parent.
    half = 0.5**0.5
    assert matrix_from_quaternion(np.array([0, 0, half, half]))[:, 0] == pytest.approx([0, 1, 0])
    from training.recordings.importers.nuscenes_tables import pose_matrix

    assert pose_matrix([1, 2, 3], [half, 0, 0, half])[:3, 0] == pytest.approx([0, 1, 0])
