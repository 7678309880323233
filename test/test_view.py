"""`renderocc view`: its file, read back with Rerun's own reader; and recordings that lack parts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from tiny_bag import RIG, START_NS, Plan, odom_from_base, write_bag

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.geometry.undistortion import View
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from training.evaluate.view import main
from training.evaluate.view.published import classes_of_json, node_of, spacing
from training.evaluate.view.truth import Truth
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow
chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")

STORE = get_typestore(Stores.ROS2_JAZZY)
CAR, ROAD, FREE = 4, 11, 17
FRAME_NS = 500_000_000


class ReadBack:
    """A Rerun recording as Rerun's reader gives it.

    Attributes:
        rows: {entity: {component: [(stamp in nanoseconds or None, value), ...]}} in the order of the stamps.
    """

    def __init__(self, path: Path) -> None:
        reader = chunk.RrdReader(path)
        self.recordings, self.blueprints = reader.recordings(), reader.blueprints()
        self.rows: dict[str, dict[str, list]] = {}
        self.timelines: set[str] = set()
        for part in reader.stream():
            batch = part.to_record_batch()
            self.timelines |= set(part.timeline_names)
            stamps = batch.column("stamp").cast("int64").to_pylist() if "stamp" in part.timeline_names else None
            for name in batch.schema.names:
                if ":" in name:
                    found = self.rows.setdefault(part.entity_path, {}).setdefault(name, [])
                    values = batch.column(name).to_pylist()
                    pairs = zip(stamps or [None] * len(values), values)
                    found += [(stamp, value) for stamp, value in pairs if value is not None]
        for components in self.rows.values():
            for found in components.values():
                found.sort(key=lambda row: row[0] or 0)

    def values(self, entity: str, component: str) -> list:
        return [value for _, value in self.rows[entity][component]]

    def stamps(self, entity: str, component: str) -> list:
        return [stamp for stamp, _ in self.rows[entity][component]]


@pytest.fixture(scope="module")
def town(town_bag, tmp_path_factory):
    """The town's three frames with the network in the package, read back; and what the command printed."""
    out = tmp_path_factory.mktemp("view") / "town.rrd"
    command = [sys.executable, "-m", "renderocc_model.cli", "view", str(town_bag), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return ReadBack(out), done.stdout


def cameras_of(bag: Path) -> list[str]:
    with Bag(bag) as recording:
        return sorted(name.split("/")[1] for name in recording.topics if name.endswith("/camera_info"))


def test_every_part_is_on_the_time_line_at_the_stamps_of_the_frames(town, town_bag):
    file, printed = town
    stamps = sorted(int(path.stem) for path in (town_bag / "occupancy").glob("*.npz"))
    assert len(stamps) == 3 and file.timelines == {"stamp", "frame"}
    for entity in ("/world/vehicle/voxels", "/world/vehicle/truth", "/world/map"):
        assert file.stamps(entity, "Boxes3D:centers") == stamps, entity
    assert file.stamps("/world/vehicle", "Transform3D:translation") == stamps
    cameras = cameras_of(town_bag)
    assert len(cameras) == 6
    for camera in cameras:
        assert file.stamps(f"/world/vehicle/cameras/{camera}", "EncodedImage:blob") == stamps
        assert file.stamps(f"/world/vehicle/rendered/{camera}/classes", "Image:buffer") == stamps
        assert file.stamps(f"/world/vehicle/rendered/{camera}/depth", "DepthImage:buffer") == stamps
    assert "3 frames: images 18, voxels 3, map 3, rendered 18, truth 3" in printed
    assert [entry.application_id for entry in file.recordings] == ["renderocc"]
    assert len(file.blueprints) == 1  # how the viewer arranges it


def test_classes_have_the_names_and_colours_of_the_table(town):
    file, _ = town
    ((rows,),) = file.values("/", "AnnotationContext:context")
    shown = {row["class_id"]: row["class_description"]["info"] for row in rows}
    assert [shown[index]["label"] for index in range(len(OCC3D_NUSCENES))] == list(OCC3D_NUSCENES.names)
    for index, (red, green, blue) in enumerate(OCC3D_NUSCENES.colours):
        assert shown[index]["color"] == red << 24 | green << 16 | blue << 8 | 255


def test_the_truth_is_its_surface_voxels(town, town_bag):
    """Counted here voxel by voxel, from the file: occupied, with a face beside what is not, or at the grid's end."""
    file, _ = town
    for stamp, centres, labels in zip(
        file.stamps("/world/vehicle/truth", "Boxes3D:centers"),
        file.values("/world/vehicle/truth", "Boxes3D:centers"),
        file.values("/world/vehicle/truth", "Boxes3D:class_ids"),
    ):
        with np.load(town_bag / "occupancy" / f"{stamp}.npz") as arrays:
            semantics = arrays["semantics"]
        there = np.pad((semantics != FREE) & (semantics != 255), 1)
        beside = [np.roll(there, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
        surface = there[1:-1, 1:-1, 1:-1] & ~np.logical_and.reduce(beside)
        assert Counter(labels) == Counter(semantics[surface].tolist())
        x, y, z = np.nonzero(surface)
        expected = np.stack([x * 0.4 - 39.8, y * 0.4 - 39.8, z * 0.4 - 0.8], axis=1)  # Occ3D's grid
        assert np.allclose(np.array(centres), expected, atol=1e-4)
        (half,) = file.values("/world/vehicle/truth", "Boxes3D:half_sizes")[0]
        assert half == pytest.approx([0.2, 0.2, 0.2])


def test_what_the_network_calls_road_is_road_in_the_truth_at_the_same_place(town):
    file, _ = town

    def places(entity: str) -> set:
        """Columns of 0.4 m with road, ahead of the vehicle."""
        centres = np.array(file.values(entity, "Boxes3D:centers")[0])
        labels = np.array(file.values(entity, "Boxes3D:class_ids")[0])
        near = (labels == ROAD) & (centres[:, 0] > 4) & (centres[:, 0] < 12) & (np.abs(centres[:, 1]) < 2)
        return {tuple(cell) for cell in np.floor(centres[near, :2] / 0.4).astype(int).tolist()}

    truth, shown = places("/world/vehicle/truth"), places("/world/vehicle/voxels")
    assert len(shown) > 50 and len(truth & shown) > 0.9 * len(shown)


def test_cameras_have_their_pinhole_and_their_pose_on_the_vehicle(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=3))
    assert main([str(bag), "--checkpoint", "none"]) == 0
    file = ReadBack(tmp_path / "drive.rrd")
    stamps = [START_NS + index * FRAME_NS for index in range(3)]
    for entity, offset_ns in (("front", 0), ("wide", 30_000_000)):  # the second camera fires later
        entity, mount = f"/world/vehicle/cameras/{entity}", RIG[entity].base_from_camera
        assert file.stamps(entity, "Transform3D:translation") == stamps
        (size,) = file.values(entity, "Pinhole:resolution")[0]
        assert size == [64.0, 48.0]
        for stamp, (place,), (rotation,) in zip(
            stamps,
            file.values(entity, "Transform3D:translation"),
            file.values(entity, "Transform3D:mat3x3"),
        ):
            expected = np.linalg.inv(odom_from_base(stamp)) @ odom_from_base(stamp + offset_ns) @ mount
            assert np.allclose(place, expected[:3, 3], atol=2e-3)  # poses are interpolated between 50 Hz
            assert np.allclose(np.reshape(rotation, (3, 3)).T, expected[:3, :3], atol=1e-3)  # Rerun's are by columns
    for stamp, (place,) in zip(stamps, file.values("/world/vehicle", "Transform3D:translation")):
        assert np.allclose(place, odom_from_base(stamp)[:3, 3], atol=1e-5)
    (lines,) = file.values("/world/trajectory", "LineStrips3D:strips")
    assert len(lines) == 1
    assert np.allclose(lines[0], [odom_from_base(stamp)[:3, 3] for stamp in stamps], atol=1e-5)
    assert "/world/vehicle/voxels" not in file.rows and "/world/map" not in file.rows


def test_a_pixel_of_the_pinhole_shows_what_the_camera_sees_there(tmp_path):
    """The fisheye's image without distortion: the pixel of a direction has the colour that the lens puts there."""
    ramp = np.zeros((48, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64) * 4, (np.arange(48) * 5)[:, None]  # red by column, green by row
    bag = write_bag(tmp_path / "drive", Plan(frames=1, images=lambda frame, camera: ramp))
    assert main([str(bag), "--checkpoint", "none"]) == 0
    import cv2

    file = ReadBack(tmp_path / "drive.rrd")
    entity = "/world/vehicle/cameras/wide"
    (blob,) = file.values(entity, "EncodedImage:blob")[0]
    image = cv2.imdecode(np.frombuffer(bytes(blob), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    (numbers,) = file.values(entity, "Pinhole:image_from_camera")[0]
    K = np.reshape(numbers, (3, 3)).T
    for column, row in ((32, 24), (20, 15), (45, 30)):
        direction = np.array([(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], 1.0])
        # The equidistant lens by hand: theta (1 + k1 theta^2), along the direction's own azimuth.
        radius = np.hypot(*direction[:2])
        theta = np.arctan(radius)
        scale = theta * (1 + 0.02 * theta**2) / radius if radius else 1.0
        u, v = 40 * direction[0] * scale + 31.5, 40 * direction[1] * scale + 23.5
        assert image[row, column, 0] == pytest.approx(4 * u, abs=8), (column, row)
        assert image[row, column, 1] == pytest.approx(5 * v, abs=8), (column, row)


# ---- what the node published --------------------------------------------------------------------


def classes_message() -> bytes:
    rows = [
        {"id": index, "name": name, "color": list(OCC3D_NUSCENES.colours[index]), "dynamic": index in (2, 3, 4)}
        for index, name in enumerate(OCC3D_NUSCENES.names)
    ]
    text = json.dumps({"classes": rows, "free": FREE, "unknown": 255})
    return bytes(STORE.serialize_cdr(STORE.types["std_msgs/msg/String"](data=text), "std_msgs/msg/String"))


def with_outputs(bag: Path, out: Path, node: str = "/robot/renderocc") -> Path:
    """A copy of a recording with what a node published: for the second of its frames, in the frame and in the map."""
    points = np.array([[5.2, 0.2, 0.2], [5.6, 0.2, 0.2], [5.6, -0.2, 0.2]], np.float32)
    stamp = START_NS + FRAME_NS

    def cloud(moved: float) -> bytes:
        colours, labels = np.zeros((3, 3), np.uint8), np.array([ROAD, CAR, CAR], np.uint8)
        return cdr.write_point_cloud(stamp, "base_link", points + moved, colours, np.ones(3, np.float32), labels)

    colours = np.full((12, 16, 3), (0, 150, 245), np.uint8)
    depth = np.full((12, 16), 7.5, np.float32)
    depth[0, 0] = np.nan
    info = STORE.types["sensor_msgs/msg/CameraInfo"]
    header = STORE.types["std_msgs/msg/Header"](
        stamp=STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9), frame_id="front"
    )
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([10.0, 0, 7.5, 0, 10, 5.5, 0, 0, 1])
    p = np.array([10.0, 0, 7.5, 0, 0, 10, 5.5, 0, 0, 0, 1, 0])
    calibration = info(header, 12, 16, "plumb_bob", np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, region)
    messages = [
        (f"{node}/classes", "std_msgs/msg/String", classes_message()),
        (f"{node}/points", "sensor_msgs/msg/PointCloud2", cloud(0.0)),
        (f"{node}/map/points", "sensor_msgs/msg/PointCloud2", cloud(100.0)),
        (f"{node}/rendered/front/semantic", "sensor_msgs/msg/Image", cdr.write_image(stamp, "front", colours, "rgb8")),
        (f"{node}/rendered/front/depth", "sensor_msgs/msg/Image", cdr.write_image(stamp, "front", depth, "32FC1")),
        (
            f"{node}/rendered/front/camera_info",
            "sensor_msgs/msg/CameraInfo",
            bytes(STORE.serialize_cdr(calibration, "sensor_msgs/msg/CameraInfo")),
        ),
    ]
    with Bag(bag) as source, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {name: writer.add_connection(name, t.type, typestore=STORE) for name, t in source.topics.items()}
        for topic, at, data in source.messages():
            writer.write(topics[topic], at, data)
        for topic, kind, data in messages:
            writer.write(writer.add_connection(topic, kind, typestore=STORE), stamp + 1, data)
    return out


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driven")
    return with_outputs(write_bag(folder / "drive", Plan(frames=3)), folder / "outputs")


def test_what_the_node_published_is_shown_without_a_network(driven, capsys):
    assert main([str(driven)]) == 0
    assert "showing the volumes that /robot/renderocc published" in capsys.readouterr().out
    file, stamp = ReadBack(driven.with_suffix(".rrd")), START_NS + FRAME_NS
    assert file.stamps("/world/vehicle", "Transform3D:translation") == [stamp]
    assert np.allclose(
        file.values("/world/vehicle/voxels", "Boxes3D:centers")[0], [[5.2, 0.2, 0.2], [5.6, 0.2, 0.2], [5.6, -0.2, 0.2]]
    )
    assert file.values("/world/vehicle/voxels", "Boxes3D:class_ids") == [[ROAD, CAR, CAR]]
    assert np.allclose(file.values("/world/vehicle/voxels", "Boxes3D:half_sizes")[0], 0.2)
    assert np.array(file.values("/world/map", "Boxes3D:centers")[0])[:, 0] == pytest.approx([105.2, 105.6, 105.6])
    (size,) = file.values("/world/vehicle/rendered/front", "Pinhole:resolution")[0]
    assert size == [16.0, 12.0]
    (pixels,) = file.values("/world/vehicle/rendered/front/classes", "Image:buffer")[0]
    assert bytes(pixels)[:6] == bytes([0, 150, 245, 0, 150, 245])
    (pixels,) = file.values("/world/vehicle/rendered/front/depth", "DepthImage:buffer")[0]
    assert np.frombuffer(bytes(pixels), "<f4")[:3].tolist() == [0.0, 7.5, 7.5]
    assert "/world/vehicle/rendered/wide/classes" not in file.rows


def test_a_recording_without_outputs_has_no_node(tmp_path, driven):
    with Bag(driven) as bag:
        assert node_of(bag) == "/robot/renderocc"
    with Bag(write_bag(tmp_path / "drive", Plan(frames=1))) as bag:
        assert node_of(bag) is None


def test_the_edge_of_voxels_is_the_smallest_step_between_them():
    grid = np.stack(np.meshgrid(*[np.arange(5) * 0.2 + 731.1] * 3), -1).reshape(-1, 3).astype(np.float32)
    assert spacing(grid) == 0.2
    assert spacing(grid[:1]) is None and spacing(grid[:0]) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": [{"id": 3}], "free": 0}', '{"classes": 7}', "null"])
def test_a_class_table_that_cannot_be_read_names_its_topic(text):
    with pytest.raises(ValueError, match=r"^drive: /renderocc/classes: is no class table of the node .*--checkpoint"):
        classes_of_json(text, "drive: /renderocc/classes")


# ---- recordings that lack parts -----------------------------------------------------------------


def test_the_chosen_time_and_every_second_frame(tmp_path, capsys):
    bag = write_bag(tmp_path / "drive", Plan(frames=6))
    options = ["--checkpoint", "none", "--start", "0.5", "--seconds", "2", "--every", "2"]
    assert main([str(bag), *options]) == 0  # of 0, 0.5, ..., 2.5 s those from 0.5 to 2, and every second of them
    stamps = ReadBack(tmp_path / "drive.rrd").stamps("/world/vehicle", "Transform3D:translation")
    assert [(stamp - START_NS) / 1e9 for stamp in stamps] == [0.5, 1.5]
    assert "4 of 6 frames lie in the chosen time" in capsys.readouterr().out


def test_frames_without_ego_pose_are_left_out_and_counted(tmp_path, capsys):
    poses = list(range(START_NS - 100_000_000, START_NS + 700_000_000, 20_000_000))  # they end before frame 2 of 0..3
    bag = write_bag(tmp_path / "drive", Plan(poses=poses))
    assert main([str(bag), "--checkpoint", "none"]) == 0
    told = capsys.readouterr()
    assert "2 frames: images" in told.out and "frames without ego pose, 2 times; the first: " in told.err


def test_a_camera_without_an_image_is_empty_at_that_moment(tmp_path):
    bag = write_bag(tmp_path / "whole", Plan(frames=3))
    gone = START_NS + FRAME_NS + 30_000_000
    with Bag(bag) as source, Writer(tmp_path / "drive", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {name: writer.add_connection(name, t.type, typestore=STORE) for name, t in source.topics.items()}
        for topic, at, data in source.messages():
            if not (topic.startswith("/wide/image") and cdr.read_header(data)[0] == gone):
                writer.write(topics[topic], at, data)
    assert main([str(tmp_path / "drive"), "--checkpoint", "none"]) == 0
    rows = ReadBack(tmp_path / "drive.rrd").rows["/world/vehicle/cameras/wide"]
    assert [stamp for stamp, _ in rows["EncodedImage:blob"]] == [START_NS, START_NS + 2 * FRAME_NS]
    assert [stamp for stamp, _ in rows["Clear:is_recursive"]] == [START_NS + FRAME_NS]


def test_truth_of_other_classes_is_named_and_not_shown(town_bag):
    truth = Truth(town_bag, SEMANTIC_KITTI)
    assert truth.stamps == [] and "the 3D truth is not shown: its classes are others, barrier" in truth.note
    assert Truth(town_bag, OCC3D_NUSCENES).note == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--every", "0"], "--every is 0; expected at least 1"),
        (["--seconds", "-1"], "--seconds is -1.0"),
        (["--start", "99"], "no frame after --start 99; its 2 frames last 0.5 s"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--out", "no/such/folder.rrd"], "no/such"),
    ],
)
def test_an_option_that_cannot_be_is_one_line_and_nothing_is_written(tmp_path, capsys, options, named):
    bag = write_bag(tmp_path / "drive", Plan(frames=2))
    network = [] if "--checkpoint" in options else ["--checkpoint", "none"]
    assert main([str(bag), *network, *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("renderocc view: ") and named in told and told.count("\n") == 1
    assert not list(tmp_path.glob("*.rrd"))


def test_a_missing_viewer_is_one_line_that_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['rerun'] = None; from renderocc_model import cli;"
        f"sys.exit(cli.main(['view', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "rerun cannot be imported" in done.stderr and "pip install rerun-sdk" in done.stderr


def test_a_view_of_every_second_pixel_has_the_rays_of_these_pixels():
    view = View(9, 6, np.array([[10.0, 0, 4], [0, 10, 2.5], [0, 0, 1]]))
    for stride in (1, 2, 3, 4):
        small = view.strided(stride)
        first = (stride - 1) // 2
        assert np.allclose(small.directions(), view.directions()[first::stride, first::stride])


def test_frames_at_moments_take_the_nearest_images(tmp_path):
    with Recording(write_bag(tmp_path / "drive", Plan(frames=3))) as recording:
        (frame,) = recording.frames_at([START_NS + FRAME_NS + 20_000_000])
        assert frame.images == {"front": START_NS + FRAME_NS, "wide": START_NS + FRAME_NS + 30_000_000}
        assert recording.frames_at([START_NS + 10 * FRAME_NS])[0].images == {}
