"""`renderocc doctor`: a sound recording passes, and each fault is named in one line with its remedy."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from realdata import REALDATA, needs_realdata
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from small_models import small_config

from renderocc_model.base.findings import Findings
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.network import packaged
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.network import build_network
from renderocc_ros.commands import doctor
from renderocc_ros.commands.doctor.bag import check_bag
from renderocc_ros.commands.doctor.files import check_checkpoint, check_params, check_rig
from renderocc_ros.parameters import NodeConfig

STORE = get_typestore(Stores.ROS2_JAZZY)
T0 = 1_700_000_000_000_000_000
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # an optical frame looking along base_link's x


class Recording:
    """A small recording of cameras `left` and `right`, 64x48, five images each 0.1 s apart; faults are arguments."""

    def __init__(self, folder):
        self.folder = folder
        self.writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self.topics = {}

    def write(self, topic, stamp, kind, **fields):
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(topic, kind, typestore=STORE)
        self.writer.write(self.topics[topic], stamp, STORE.serialize_cdr(STORE.types[kind](**fields), kind))

    def header(self, stamp, frame):
        time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)

    def transform(self, topic, stamp, parent, child, x, rotation=(0.0, 0.0, 0.0, 1.0)):
        kinds = STORE.types
        place = kinds["geometry_msgs/msg/Transform"](
            translation=kinds["geometry_msgs/msg/Vector3"](x=x, y=0.0, z=1.5),
            rotation=kinds["geometry_msgs/msg/Quaternion"](**dict(zip("xyzw", rotation))),
        )
        item = kinds["geometry_msgs/msg/TransformStamped"](
            header=self.header(stamp, parent), child_frame_id=child, transform=place
        )
        self.write(topic, stamp, "tf2_msgs/msg/TFMessage", transforms=[item])

    def info(self, camera, stamp, width=64, height=48, K=(50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1), model="plumb_bob"):
        roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self.write(
            f"/{camera}/camera_info",
            stamp,
            "sensor_msgs/msg/CameraInfo",
            header=self.header(stamp, f"{camera}_optical"),
            height=height,
            width=width,
            distortion_model=model,
            d=np.zeros(5),
            k=np.array(K, float),
            r=np.eye(3).ravel(),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def image(self, camera, record, stamp=None, size=(48, 64), topic="image_raw/compressed"):
        data = cv2.imencode(".jpg", np.full((*size, 3), 90, np.uint8))[1].ravel()
        self.write(
            f"/{camera}/{topic}",
            record,
            "sensor_msgs/msg/CompressedImage",
            header=self.header(record if stamp is None else stamp, f"{camera}_optical"),
            format="jpeg",
            data=data,
        )


def record(
    folder, left=None, right=None, image=None, poses=(-1, 6), mounts=("left", "right"), topic="image_raw/compressed"
):
    """Write one; `left`, `right`: arguments of `Recording.info`, `image(camera, index)`: those of `Recording.image`."""
    recording = Recording(folder)
    with recording.writer:
        for camera in mounts:
            recording.transform("/tf_static", T0, "base_link", f"{camera}_optical", 1.0 + (camera == "right"), OPTICAL)
        for index in range(*poses):
            recording.transform("/tf", T0 + index * 10**8, "odom", "base_link", 0.5 * index)
        for index in range(5):
            for camera, options in (("left", left), ("right", right)):
                stamp = T0 + index * 10**8
                recording.info(camera, stamp, **(options or {}))
                recording.image(camera, stamp, topic=topic, **(image(camera, index) if image else {}))
    return folder


def looked_at(bag, **config):
    findings = Findings()
    rig = check_bag(findings, bag, NodeConfig(**config))
    return findings, rig


def line_of(findings, level, word):
    lines = [item.line() for item in findings.items if item.level == level and word in item.line()]
    assert len(lines) == 1, [item.line() for item in findings.items if item.level != "ok"]
    assert "\n" not in lines[0]
    return lines[0]


def test_a_sound_recording_has_nothing_to_complain_about(tmp_path):
    findings, rig = looked_at(record(tmp_path / "bag"))
    assert [item.line() for item in findings.items if item.level != "ok"] == []
    assert rig.names == ("left", "right")
    # Focal length 50 px, 64 px wide: 2 atan(32 / 50) = 65.2 degrees.
    assert "5 images 64x48, 10.0 Hz, plumb_bob, 65 degrees" in line_of(findings, "ok", "camera 'left'")
    assert "at all 5 image stamps" in line_of(findings, "ok", "ego motion")
    assert "topic /left/camera_info: sensor_msgs/msg/CameraInfo, 5 messages" in line_of(
        findings, "ok", "topic /left/camera_info"
    )


def test_an_image_of_another_size_than_its_calibration_is_named(tmp_path):
    findings, rig = looked_at(
        record(tmp_path / "bag", right={"width": 80, "height": 60, "K": (50, 0, 40, 0, 50, 30, 0, 0, 1)})
    )
    text = line_of(findings, "warn", "camera 'right'")
    assert "image is 64x48 but camera_info says 80x60; publish a matching camera_info" in text
    assert findings.could_run and rig.names == ("left",)


def test_when_the_anchor_cannot_be_used_the_node_could_not_run(tmp_path):
    bag = record(tmp_path / "bag", left={"K": (0.0,) * 9})
    findings, _ = looked_at(bag)
    assert "no calibration" in line_of(findings, "warn", "camera 'left'")
    assert "set anchor_camera, e.g. to 'right'" in line_of(findings, "FAIL", "anchor")
    assert looked_at(bag, anchor_camera="right")[0].could_run
    assert "parameter min_cameras is 2" in line_of(
        looked_at(bag, anchor_camera="right", min_cameras=2)[0], "FAIL", "cameras"
    )


def test_nan_in_a_calibration_is_named(tmp_path):
    nan = float("nan")
    findings, _ = looked_at(record(tmp_path / "bag", right={"K": (nan, 0, 31.5, 0, 50, 23.5, 0, 0, 1)}))
    assert "nan" in line_of(findings, "warn", "camera 'right'")


def test_a_camera_without_a_transform_is_named_with_the_parameter_that_helps(tmp_path):
    bag = record(tmp_path / "bag", mounts=("left",))
    findings, rig = looked_at(bag)
    text = line_of(findings, "warn", "camera 'right'")
    assert "'right_optical'" in text and "mounts: ['right: x y z roll pitch yaw']" in text
    assert rig.names == ("left",) and findings.could_run
    assert looked_at(bag, mounts=("right: 1 0 1.5 0 0 0",))[1].names == ("left", "right")


def test_poses_that_end_early_are_counted_and_the_first_gap_is_timed(tmp_path):
    # Poses at -0.1 ... 0.2 s, images at 0 ... 0.4 s: those at 0.3 and 0.4 s have none.
    findings, _ = looked_at(record(tmp_path / "bag", poses=(-1, 3)))
    text = line_of(findings, "warn", "ego motion")
    assert "missing at 2 of 5 image stamps, first 0.30 s in" in text
    assert findings.could_run


def test_another_name_for_odom_is_suggested(tmp_path):
    findings, _ = looked_at(record(tmp_path / "bag"), odom_frame="map")
    assert "set odom_frame (frames without a parent: odom)" in line_of(findings, "warn", "ego motion")


def test_topics_under_other_names_are_used_and_named(tmp_path):
    bag = record(tmp_path / "bag", topic="image_color/compressed")
    findings, _ = looked_at(bag)
    assert "those on {camera}/image_color are used" in line_of(findings, "note", "no images on")
    assert findings.could_run and looked_at(bag, image_topic="{camera}/image_color")[0].could_run
    findings, _ = looked_at(bag, image_topic="{camera}/image_mono")  # what was chosen is not replaced
    assert "/left/image_color/compressed" in line_of(findings, "FAIL", "cameras")


def test_cameras_that_do_not_fire_together_are_told_by_how_much(tmp_path):
    late = lambda camera, index: {"stamp": T0 + index * 10**8 + (40_000_000 if camera == "right" else 0)}
    findings, _ = looked_at(record(tmp_path / "bag", image=late), max_camera_time_diff=0.03)
    text = line_of(findings, "warn", "matching")
    # Each left image has a right one 40 ms after it, and, but for the first, one 60 ms before.
    assert "0 of 5" in text and "40 ms" in text and "max_camera_time_diff" in text


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (lambda index: 0, "5 images have no stamp"),
        (
            lambda index: T0 + (index if index != 3 else 1) * 10**8 - (index == 3),
            "stamps go back or repeat, first at image 3",
        ),
        (
            lambda index: T0 - 3600 * 10**9 + index * 10**8,
            "stamps differ by up to 3600.0 s from when they were recorded",
        ),
    ],
)
def test_stamps_that_would_confuse_the_node_are_named(tmp_path, stamp, expected):
    image = lambda camera, index: {"stamp": stamp(index)} if camera == "right" else {}
    findings, _ = looked_at(record(tmp_path / "bag", image=image))
    assert any(expected in item.line() for item in findings.items if item.level == "warn" and "'right'" in item.subject)


def test_a_truncated_recording_is_one_failure(tmp_path):
    bag = record(tmp_path / "bag")
    (bag / "bag.mcap").write_bytes((bag / "bag.mcap").read_bytes()[:3000])
    findings, rig = looked_at(bag)
    assert rig is None and "mcap recover" in line_of(findings, "FAIL", "bag.mcap")


def params(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    findings = Findings()
    return check_params(findings, path), findings


def test_a_good_parameter_file_is_read_like_ros_reads_it(tmp_path):
    text = (
        "/robot:\n  renderocc:\n    ros__parameters:\n"
        "      tf_timeout: 0.25\n      cameras: ['a', 'b']\n      use_sim_time: true\n"
    )
    config, findings = params(tmp_path, text)
    assert config.tf_timeout == 0.25 and config.cameras == ("a", "b")
    assert [item.level for item in findings.items] == ["ok"]


def test_the_parameter_file_of_the_repository_is_sound():
    findings = Findings()
    path = doctor.Path(__file__).resolve().parents[1] / "config" / "renderocc.yaml"
    assert check_params(findings, path) == NodeConfig()
    assert [item.level for item in findings.items] == ["ok"]


@pytest.mark.parametrize(
    ("line", "level", "expected"),
    [
        ("tf_timeuot: 0.2", "warn", "did you mean 'tf_timeout'?"),
        ("tf_timeout: 1", "FAIL", "e.g. tf_timeout: 1.0"),
        ("min_cameras: 2.0", "FAIL", "'min_cameras' is 2.0, expected a whole number"),
        ("min_cameras: 100", "FAIL", "min_cameras"),
        ("cameras: front", "FAIL", "a list of strings"),
        ("preset: huge", "FAIL", "preset"),
        ("image_topic: /cam", "FAIL", "{camera}"),
    ],
)
def test_a_parameter_that_the_node_would_refuse_is_named(tmp_path, line, level, expected):
    _, findings = params(tmp_path, f"/**/renderocc:\n  ros__parameters:\n    {line}\n")
    assert expected in line_of(findings, level, line.split(":")[0])


@pytest.mark.parametrize("text", ["", "[1, 2", "tf_timeout: 0.2\n", "renderocc: {tf_timeout: 0.2}\n"])
def test_a_file_that_holds_no_parameters_is_a_failure(tmp_path, text):
    _, findings = params(tmp_path, text)
    line_of(findings, "FAIL", "params.yaml")


def test_a_file_for_another_node_is_told_apart(tmp_path):
    _, findings = params(tmp_path, "camera_driver:\n  ros__parameters:\n    rate: 3\n")
    assert "/camera_driver" in line_of(findings, "warn", "no section is for the node 'renderocc'")


def test_a_checkpoint_is_loaded_and_its_rig_compared(tmp_path):
    _, rig = looked_at(record(tmp_path / "bag"))
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, build_network(small_config()), OCC3D_NUSCENES, 0.4, rig.summary())
    findings = Findings()
    trained = check_checkpoint(findings, path, NodeConfig())
    assert "grid 16x16x4 at 1 m, 18 classes, occupied above 0.4" in line_of(findings, "ok", "checkpoint")
    check_rig(findings, trained, rig)
    assert "2 cameras are like those" in line_of(findings, "ok", "rig:")
    _, other = looked_at(record(tmp_path / "other", mounts=("left",)))
    check_rig(findings, trained, other)
    assert "trained with 2 cameras, running with 1" in line_of(findings, "warn", "rig:")


def test_the_network_of_the_package_is_looked_at_where_no_other_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    findings = Findings()
    check_checkpoint(findings, None, NodeConfig())
    line_of(findings, "warn", "an untrained 'tiny' network, whose output means nothing")
    save_checkpoint(tmp_path / "tiny.safetensors", build_network(small_config()), OCC3D_NUSCENES, 0.4)
    findings = Findings()
    check_checkpoint(findings, None, NodeConfig())
    assert "tiny.safetensors: " in line_of(findings, "ok", "checkpoint (the package's own)")
    check_checkpoint(findings, None, NodeConfig(preset="base"))
    line_of(findings, "warn", "an untrained 'base' network")


def test_a_broken_checkpoint_is_a_failure_that_names_the_file(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    findings = Findings()
    assert check_checkpoint(findings, path, NodeConfig()) is None
    assert "net.safetensors" in line_of(findings, "FAIL", "checkpoint")


def test_discovery_settings_that_hide_nodes_are_named(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "blue")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    findings = Findings()
    doctor._check_network(findings)
    assert "is 'blue'; export a number" in line_of(findings, "FAIL", "ROS_DOMAIN_ID")
    assert "no node finds another" in line_of(findings, "warn", "DISCOVERY")


def test_a_package_that_is_missing_is_named_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python itself does to forbid an import
    findings = Findings()
    doctor.check_machine(findings)
    assert "python3 -m pip install timm" in line_of(findings, "FAIL", "timm")
    assert not findings.could_run


@pytest.mark.parametrize(("answer", "level"), [("return 16", "ok"), ("import cv_bridge.built_for_numpy_1", "warn")])
def test_a_cv_bridge_that_can_be_imported_but_not_used_is_told_apart(tmp_path, monkeypatch, answer, level):
    """A module of its names stands in for it: it comes with a whole ROS install and not from a package index."""
    lines = ["class CvBridge:", "    def encoding_to_cvtype2(self, encoding):", f"        {answer}", ""]
    (tmp_path / "cv_bridge.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = Findings()
    doctor._check_cv_bridge(findings)
    (finding,) = findings.items
    assert (finding.subject, finding.level) == ("cv_bridge", level)


def test_a_recording_is_examined_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['timm'] = None\n"
        "from renderocc_ros.commands.doctor import main; sys.exit(main(['--bag', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(record(tmp_path / "bag"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FAIL  torch: " in done.stdout and "ok    mounts: every camera" in done.stdout


@pytest.mark.system
def test_the_command_exits_with_the_verdict_and_speaks_json(tmp_path):
    bag = record(tmp_path / "bag")
    command = [sys.executable, "-m", "renderocc_model.cli", "doctor", "--bag", str(bag), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["could_run"] is True
    assert {"level", "subject", "text", "remedy", "topic", "time"} == set(report["findings"][0])
    assert {"python", "torch", "ros", "bag", "mounts"} <= {item["subject"] for item in report["findings"]}
    (bag / "metadata.yaml").unlink()
    done = subprocess.run(command[:-1], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and "the node could not run: 1 failures" in done.stdout


@needs_realdata
@pytest.mark.parametrize(("name", "count"), [("ddad_6cam", 6), ("nuscenes_keyframe", 6), ("fisheye_4cam", 4)])
def test_the_real_recordings_fit(name, count):
    findings, rig = looked_at(REALDATA / name)
    assert [item.line() for item in findings.items if item.level != "ok"] == []
    assert len(rig) == count


def test_compressed_images_on_a_name_of_their_own_are_read_and_no_template_crashes(tmp_path):
    recording = Recording(tmp_path / "bag")
    recording.writer.open()
    for stamp in range(T0, T0 + 500_000_000, 100_000_000):
        recording.info("left", stamp)
        recording.write(
            "/left/image_rect_compressed",
            stamp,
            "sensor_msgs/msg/CompressedImage",
            header=recording.header(stamp, "left_optical"),
            format="jpeg",
            data=cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].ravel(),
        )
    recording.writer.close()
    findings = Findings()
    assert check_bag(findings, recording.folder, NodeConfig()) is None
    line_of(findings, "ok", "5 images 64x48")
    line_of(findings, "warn", "no transform from base_link")
    for config in (NodeConfig(image_topic="{camera}/image_rect_compressed"), NodeConfig(cameras=("left",))):
        findings = Findings()
        assert check_bag(findings, recording.folder, config) is None
        assert not findings.could_run
        line_of(findings, "ok", "5 images 64x48")
    findings = Findings()
    assert check_bag(findings, recording.folder, NodeConfig(image_topic="{camera}/image_mono")) is None
    assert "/left/image_rect_compressed" in line_of(findings, "FAIL", "cameras")
