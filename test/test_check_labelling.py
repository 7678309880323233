"""What `renderocc check --no-labels` promises, `label` keeps; and what `prepare` accepts, training decodes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tiny_bag import START_NS, Plan, with_raw_images, write_bag

from renderocc_model.base.findings import Findings
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_ros.commands.doctor.bag import check_bag
from renderocc_ros.frame.decoding import message_of
from renderocc_ros.input.intake import CameraImage
from renderocc_ros.parameters import NodeConfig
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recording
from training.label import main as label
from training.recordings.sources import RecordingError

CLOUD = "sensor_msgs/msg/PointCloud2"
PACKETS = "velodyne_msgs/msg/VelodyneScan"
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg("std_msgs/Header header", PACKETS))


def cloud(stamp_ns: int, points: np.ndarray, frame: str = "base_link") -> bytes:
    kinds = STORE.types
    time = kinds["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    field = kinds["sensor_msgs/msg/PointField"]
    message = kinds[CLOUD](
        header=kinds["std_msgs/msg/Header"](stamp=time, frame_id=frame),
        height=1,
        width=len(points),
        fields=[field(name=axis, offset=4 * i, datatype=7, count=1) for i, axis in enumerate("xyz")],
        is_bigendian=False,
        point_step=12,
        row_step=12 * len(points),
        is_dense=True,
        data=np.frombuffer(points.astype("<f4").tobytes(), np.uint8),
    )
    return bytes(STORE.serialize_cdr(message, CLOUD))


def copied(bag: Path, folder: Path, added=(), change=lambda topic, data: data) -> Path:
    """A copy of a recording with other messages, (record time, topic, type, bytes), and changed ones."""
    with Bag(bag) as source:
        events = [(at, topic, source.topics[topic].type, change(topic, data)) for topic, at, data in source.messages()]
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {}
        for at, topic, kind, data in sorted([*events, *added], key=lambda event: event[0]):
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(topics[topic], at, data)
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("promises") / "drive", Plan(frames=2, labels=lambda *_: None))


def clouds(topic="/lidar/points", later_ns=0, points=None):
    ahead = np.random.default_rng(0).uniform((5, -5, 0), (20, 5, 3), (500, 3)) if points is None else points
    stamps = [START_NS + frame * tiny_bag.FRAME_NS for frame in range(2)]
    return [(at + 1000, topic, CLOUD, cloud(at + later_ns, ahead)) for at in stamps]


def test_a_recording_with_one_lidar_can_be_labelled(bag, tmp_path, capsys):
    made = copied(bag, tmp_path / "drive", clouds())
    assert check([str(made), "--no-labels"]) == 0
    assert "can be labelled: 0 failures, 0 warnings" in capsys.readouterr().out
    assert label([str(made)]) == 0


@pytest.mark.parametrize(
    "added, status, said",
    [
        ([], 0, "there is no PointCloud2 topic"),
        (clouds() + clouds("/rear/points"), 0, "2 PointCloud2 topics: /lidar/points, /rear/points"),
        (clouds(later_ns=3_600_000_000_000), 1, "2 of 2 images of 'front' have no cloud within 0.1 s"),
        (clouds(points=np.empty((0, 3))), 1, "all 2 clouds are empty"),
        ([(START_NS, "/velodyne", PACKETS, bytes(20))], 1, "/velodyne holds VelodyneScan"),
    ],
    ids=["none", "two", "other_clock", "empty", "packets"],
)
def test_what_label_refuses_check_names_beforehand(bag, tmp_path, capsys, added, status, said):
    made = copied(bag, tmp_path / "drive", added)
    assert check([str(made), "--no-labels"]) == status
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("warn", "FAIL"))]
    assert "can be labelled: " not in out and ("can be labelled with the options" in out) == (status == 0)
    assert any(said in line for line in lines)
    assert label([str(made)]) == 2
    assert not (tmp_path / "drive_labels").exists()


def test_points_that_no_camera_sees_are_no_success(bag, tmp_path, capsys):
    made = copied(bag, tmp_path / "drive", clouds(points=np.random.default_rng(0).uniform(-20, -5, (500, 3))))
    assert label([str(made)]) == 2
    assert "not one pixel could be labelled" in capsys.readouterr().err


def other_encoding(topic, data):
    if topic != "/front/image_raw":
        return data
    message = cdr.read_image(data)
    return cdr.write_image(message.stamp_ns, message.frame_id, np.zeros((48, 64), np.uint8), "mono8").replace(
        b"mono8", b"other"
    )


def test_an_encoding_that_cannot_be_decoded_is_refused_by_every_command_once(bag, tmp_path, capsys):
    raw = with_raw_images(bag, tmp_path / "raw", "front")
    made = copied(raw, tmp_path / "drive", clouds(), other_encoding)
    assert check([str(made), "--no-labels"]) == 1
    failures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1 and "encoding 'other'" in failures[0] and "(and 1 more" in failures[0]
    assert label([str(made)]) == 2
    with pytest.raises(RecordingError, match="/front/image_raw.*encoding 'other' cannot be decoded"):
        prepare_recording(made, None, tmp_path / "tables", PrepareConfig())


def test_depth_images_in_the_place_of_pictures_are_refused_alike_by_check_doctor_label_and_the_node(
    bag, tmp_path, capsys
):
    def depth(topic, data):
        return other_encoding(topic, data).replace(b"other", b"16UC1") if topic == "/front/image_raw" else data

    made = copied(with_raw_images(bag, tmp_path / "raw", "front"), tmp_path / "drive", clouds(), depth)
    said = "encoding '16UC1' is that of depth images, which are no pictures"
    assert check([str(made), "--no-labels"]) == 1
    failures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1 and said in failures[0]
    assert label([str(made)]) == 2
    assert said in capsys.readouterr().err
    findings = Findings()
    check_bag(findings, made, NodeConfig())
    assert [item.level for item in findings.items if said in item.text] == ["warn"]  # FAIL is for no camera at all
    with Bag(made) as opened:
        data = next(data for topic, _, data in opened.messages() if topic == "/front/image_raw")
    with pytest.raises(ValueError, match=said):
        message_of(CameraImage(data, False, "front", 0.0), PixelFormat())


def test_what_training_could_not_decode_is_refused_by_prepare(tmp_path):
    def cut(topic, data):
        if topic != "/front/image_raw/compressed":
            return data
        png = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].ravel().copy()
        png[60] ^= 255  # inside the pixels, whose checksum is then wrong
        message = cdr.read_compressed_image(data)
        return cdr.write_compressed_image(message.stamp_ns, message.frame_id, "png", png.tobytes())

    made = copied(write_bag(tmp_path / "sound", Plan(frames=2)), tmp_path / "drive", change=cut)
    with pytest.raises(RecordingError, match="/front/image_raw/compressed.*corrupt"):
        prepare_recording(made, None, tmp_path / "tables", PrepareConfig())
