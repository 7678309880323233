"""`renderocc check`: a sound recording passes, and each fault is named with its topic, its time and what to do."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from realdata import REALDATA, needs_realdata
from town import FRAMES, STORE, restamped, rewritten

from renderocc_model.rosio import cdr
from renderocc_model.rosio.camera_topics import stamp_faults
from training.check import main
from training.data.prepare import PrepareConfig, prepare_recording
from training.simulate.record import START_NS

pytestmark = pytest.mark.slow

SECOND = 1_000_000_000
INFO, IMAGE, SEMANTIC = "/cam_front/camera_info", "/cam_front/image_raw/compressed", "/cam_front/semantic/compressed"


def checked(bag, *arguments):
    """(exit status, report of the only recording)."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main([str(bag), "--json", *map(str, arguments)])
    report = json.loads(out.getvalue())
    assert report["status"] == status and report["can_train"] == (status == 0) and len(report["recordings"]) == 1
    return status, report["recordings"][0]


def found(report, level, text):
    """The only finding of a level that holds a text."""
    items = [item for item in report["findings"] if item["level"] == level and text in item["text"]]
    assert len(items) == 1, [item for item in report["findings"] if item["level"] != "ok"]
    return items[0]


def altered(kind, change):
    """A change of a message through rosbags' classes."""

    def apply(data):
        message = STORE.deserialize_cdr(data, kind)
        change(message)
        return bytes(STORE.serialize_cdr(message, kind))

    return apply


def on(topic, change, first=0):
    """For `rewritten`: `change` the bytes of the messages of one topic, from number `first` on."""
    seen = [0]

    def apply(name, when, data):
        if name != topic:
            return [(name, when, data)]
        seen[0] += 1
        return [(name, when, change(data) if seen[0] > first else data)]

    return apply


def test_a_sound_recording_passes_with_its_numbers(town_bag, capsys):
    status, report = checked(town_bag)
    assert status == 0 and [item for item in report["findings"] if item["level"] == "FAIL"] == []
    assert {item["subject"] for item in report["findings"] if item["level"] == "warn"} <= {"classes"}
    front = report["cameras"]["cam_front"]
    assert front["images"] == front["labelled_images"] == FRAMES and front["size"] == [352, 128]
    assert front["rate"] == 2.0 and 0.5 < front["label_coverage"] < 1 and front["height"] > 1
    assert report["class_frequencies"]["driveable_surface"] > 10_000 and report["truth"] == FRAMES
    assert report["topics"]["/lidar/points"]["messages"] == FRAMES
    assert main([str(town_bag), "--samples", "1"]) == 0
    text = capsys.readouterr().out
    assert "ok    ego motion: base_link has a pose in odom at every image of every camera" in text
    assert text.splitlines()[-1].startswith(f"{town_bag}: can be trained on: 0 failures")


# ------------------------------------------------------------------------------------------------- faults, one a copy


def late_tf(topic, when, data):
    return [] if topic == "/tf" and when < START_NS + SECOND // 4 else [(topic, when, data)]


def tf_with_a_hole(topic, when, data):
    hole = START_NS + SECOND // 20 < when < START_NS + SECOND * 11 // 10
    return [] if topic == "/tf" and hole else [(topic, when, data)]


def other_size(message):
    message.width = 400


def zero_k(message):
    message.k = np.zeros(9)


def other_focal_length(message):
    message.k = message.k + np.eye(1, 9)[0]


def far_principal_point(message):
    message.k = message.k + 150 * np.eye(1, 9, 2)[0]


def mount(change):
    """Change the transform of cam_front's optical frame."""

    def apply(message):
        by_child = {item.child_frame_id: item.transform for item in message.transforms}
        change(by_child["cam_front_optical"], by_child)

    return on("/tf_static", altered("tf2_msgs/msg/TFMessage", apply))


def same_mount(transform, by_child):
    transform.translation, transform.rotation = (
        by_child["cam_back_optical"].translation,
        by_child["cam_back_optical"].rotation,
    )


def looks_down(transform, by_child):  # camera z to base -z: half a turn about x
    for axis, value in zip("xyzw", (1.0, 0.0, 0.0, 0.0)):
        setattr(transform.rotation, axis, value)


def unnamed(message):
    message.transforms = [item for item in message.transforms if item.child_frame_id != "cam_front_optical"]


def label_png(change):
    def apply(data):
        message = cdr.read_compressed_image(data)
        image = change(cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED))
        png = cv2.imencode(".png", image)[1].tobytes()
        return cdr.write_compressed_image(message.stamp_ns, message.frame_id, message.format, png)

    return apply


def with_id_40(image):
    image[5, 5] = 40
    return image


def half_as_wide(data):
    message = cdr.read_compressed_image(data)
    jpeg = cv2.imencode(".jpg", cv2.imdecode(message.data, cv2.IMREAD_COLOR)[:, ::2])[1].tobytes()
    return cdr.write_compressed_image(message.stamp_ns, message.frame_id, message.format, jpeg)


INTO = "s into the recording)"
FAULTS = {
    # name: (change, drop, level, text, topic, time in seconds after the first frame, training fails)
    "tf starts late": (late_tf, None, "FAIL", "no TF from odom to base_link before 1700000000.260 s", "/tf", 0.0, True),
    "tf has a hole": (tf_with_a_hole, None, "FAIL", "the nearest poses are up to", "/tf", 0.5, True),
    "no tf": (None, "/tf", "FAIL", "no TF from odom to base_link at all, 3 images", "/tf", 0.0, True),
    "no camera_info": (None, INFO, "FAIL", "images but no camera_info", INFO, None, True),
    "camera_info of another size": (
        on(INFO, altered("sensor_msgs/msg/CameraInfo", other_size)),
        None,
        "FAIL",
        "image is 352x128 but camera_info says 400x128",
        INFO,
        0.0,
        True,
    ),
    "K of zeros": (
        on(INFO, altered("sensor_msgs/msg/CameraInfo", zero_k)),
        None,
        "FAIL",
        "no calibration (K is all zeros)",
        INFO,
        0.0,
        True,
    ),
    "calibration changes": (
        on(INFO, altered("sensor_msgs/msg/CameraInfo", other_focal_length), first=2),
        None,
        "FAIL",
        "the calibration changes during the recording",
        INFO,
        1.0,
        True,
    ),
    "principal point beside the image's middle": (
        on(INFO, altered("sensor_msgs/msg/CameraInfo", far_principal_point)),
        None,
        "warn",
        "150 columns beside the middle of 352",
        INFO,
        None,
        False,
    ),
    "image cut off": (
        on(IMAGE, lambda data: data[:60], first=1),
        None,
        "FAIL",
        "it was cut short or is of another type",
        IMAGE,
        0.5,
        True,
    ),
    "images change their size": (
        on(IMAGE, half_as_wide, first=1),
        None,
        "FAIL",
        "images change their size from 352x128 to 176x128",
        IMAGE,
        0.5,
        True,
    ),
    "a damaged cloud": (
        on("/lidar/points", lambda data: data[:-100], first=1),
        None,
        "warn",
        "it was cut short or is of another type",
        "/lidar/points",
        0.5,
        False,
    ),
    "stamps go back": (
        on(IMAGE, lambda data: restamped(data, -SECOND // 10 * 6), first=1),
        None,
        "warn",
        "stamps go back or repeat, first at image 1 by 100.0 ms",
        IMAGE,
        -0.1,
        False,
    ),
    "a camera without mount": (
        on("/tf_static", altered("tf2_msgs/msg/TFMessage", unnamed)),
        None,
        "FAIL",
        "no TF from base_link to 'cam_front_optical'",
        "/tf_static",
        0.0,
        True,
    ),
    "two cameras at one place": (
        mount(same_mount),
        None,
        "warn",
        "'cam_back' and 'cam_front' are mounted at the same place",
        "/tf_static",
        None,
        False,
    ),
    "camera into the ground": (
        mount(looks_down),
        None,
        "warn",
        "looks into the ground, 90 degrees down",
        "/tf_static",
        None,
        False,
    ),
    "labels of another size": (
        on(SEMANTIC, label_png(lambda image: image[:, ::2]), first=2),
        None,
        "FAIL",
        "label image is 176x128 but the camera is 352x128",
        SEMANTIC,
        1.0,
        True,
    ),
    "class id outside the table": (
        on(SEMANTIC, label_png(with_id_40), first=1),
        None,
        "FAIL",
        "class ids 40 are not in the table of 18 classes",
        SEMANTIC,
        0.5,
        True,
    ),
    "labels beside their images": (
        on(SEMANTIC, lambda data: restamped(data, 1000), first=2),
        None,
        "warn",
        "1 of 3 labels match no image",
        SEMANTIC,
        1.0,
        False,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_topic_and_time(town_bag, tmp_path, name):
    change, dropped, level, text, topic, seconds, fails = FAULTS[name]
    others = tuple(f"/{camera}/" for camera in ("cam_front_left", "cam_front_right", "cam_back_left", "cam_back_right"))
    bag = rewritten(
        town_bag, tmp_path / "drive", change, lambda topic: topic == dropped or topic.startswith(others), truth=False
    )
    status, report = checked(bag)
    faults = [item for item in report["findings"] if item["level"] == level and text in item["text"]]
    if name == "class id outside the table":
        assert len(faults) == 1 and faults[0]["text"].endswith("(and 1 more such label)")  # the second and the third
    item = next(item for item in faults if "cam_back" not in item["subject"])
    assert item["topic"] == topic and item["remedy"]
    if seconds is not None:
        stamp = START_NS + round(seconds * SECOND)
        assert item["time"].startswith(f"{stamp // SECOND}.{stamp % SECOND // 10**6:03d} s (") and INTO in item["time"]
    # What is called a failure is one, and what is not, is none.
    assert status == (1 if fails else 0)
    if fails:
        with pytest.raises(ValueError):
            prepare_recording(bag, None, tmp_path / "tables", PrepareConfig())
    else:
        prepare_recording(bag, None, tmp_path / "tables", PrepareConfig())


def test_a_recording_without_labels_is_named_and_passes_before_labelling(town_bag, tmp_path, capsys):
    bag = rewritten(town_bag, tmp_path / "drive", drop=lambda topic: "/depth" in topic)
    status, report = checked(bag)
    remedy = found(report, "FAIL", "no image has a depth label")["remedy"]
    assert status == 1 and "renderocc label" in remedy and "renderocc prepare --without-depth" in remedy
    assert main([str(bag), "--no-labels"]) == 0
    assert "can be labelled: 0 failures" in capsys.readouterr().out
    # A sidecar beside it is found by its name.
    rewritten(town_bag, tmp_path / "drive_labels", drop=lambda topic: "/depth" not in topic, truth=False)
    status, report = checked(bag)
    assert status == 0 and report["labels"] == str(tmp_path / "drive_labels")
    assert report["cameras"]["cam_back"]["labelled_images"] == FRAMES
    assert report["cameras"]["cam_back"]["classified"] == 1.0  # the classes lie in the recording itself


def test_labels_of_depth_alone_can_be_trained_on_and_are_named(town_bag, tmp_path):
    status, report = checked(rewritten(town_bag, tmp_path / "drive", drop=lambda topic: "/semantic" in topic))
    assert status == 0 and "learns only depth" in found(report, "warn", "no pixel of the labels in")["remedy"]
    front = report["cameras"]["cam_front"]
    assert front["labelled_images"] == FRAMES and front["classified"] == 0 < front["label_coverage"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda a: {**a, "semantics": np.where(a["semantics"] == 17, 40, a["semantics"]).astype(np.uint8)},
            "class ids 40",
        ),
        (
            lambda a: {**a, "mask_camera": a["mask_camera"][:5]},
            "mask_camera is (5, 200, 16) but semantics is (200, 200, 16)",
        ),
        (lambda a: {"semantics": a["semantics"]}, "has no 'mask_camera'; it holds semantics"),
        (lambda a: {**a, "semantics": a["semantics"].astype(float)}, "semantics is float64"),
        (None, "cannot be read"),
        (lambda a: {key: value[:100] for key, value in a.items()}, "volumes of different shapes"),
    ],
)
def test_a_wrong_truth_file_is_named(town_bag, tmp_path, change, text):
    bag = tmp_path / "drive"
    shutil.copytree(town_bag, bag)
    file = sorted((bag / "occupancy").iterdir())[1]
    if change is None:
        file.write_bytes(file.read_bytes()[:1000])
    else:
        with np.load(file) as archive:
            arrays = dict(archive)
        np.savez_compressed(file, **change(arrays))
    status, report = checked(bag, "--samples", 1, "--cameras", "cam_front")
    item = found(report, "FAIL", text)
    assert status == 1 and file.name in item["text"]


def test_a_recording_that_there_is_no_memory_to_read_is_told_from_a_damaged_one(town_bag, monkeypatch):
    def no_memory(path):
        raise MemoryError

    monkeypatch.setattr("training.check.recording.Bag", no_memory)
    status, report = checked(town_bag)
    assert status == 2 and "out of memory" in found(report, "FAIL", "town")["text"]


def test_truth_that_belongs_to_no_image_is_named(town_bag, tmp_path):
    bag = tmp_path / "drive"
    shutil.copytree(town_bag, bag)
    file = sorted((bag / "occupancy").iterdir())[0]
    file.rename(file.with_name(f"{START_NS - 5 * SECOND}.npz"))
    status, report = checked(bag, "--samples", 1, "--cameras", "cam_front")
    assert "1699999995.000 s" in found(report, "warn", "no camera has an image within 0.1 s")["time"] and status == 0


def test_what_cannot_be_read_exits_with_two_and_says_what_to_do(town_bag, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(town_bag, cut)
    file = next(cut.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-5000])
    status, report = checked(cut)
    assert status == 2 and "mcap recover" in found(report, "FAIL", str(file))["text"]
    status, report = checked(tmp_path / "nowhere")
    assert status == 2 and found(report, "FAIL", "there is no such file or folder")
    status, report = checked(town_bag, "--labels", cut)
    assert status == 2 and found(report, "FAIL", str(file))
    assert main([str(town_bag), "--labels", str(cut), str(cut)]) == 2
    lost = tmp_path / "lost"
    shutil.copytree(town_bag, lost)
    (lost / "metadata.yaml").unlink()
    assert "ros2 bag reindex" in found(checked(lost)[1], "FAIL", "no metadata.yaml")["text"]


def test_a_metadata_file_that_lies_and_an_empty_recording_are_named(town_bag, tmp_path):
    bag = tmp_path / "drive"
    shutil.copytree(town_bag, bag)
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(re.sub(r"(?m)^  message_count: \d+", "  message_count: 7", text))
    status, report = checked(bag, "--samples", 1)
    assert "promises 7 messages" in found(report, "warn", "metadata.yaml")["text"] and status == 0
    empty = rewritten(town_bag, tmp_path / "empty", lambda *message: [])
    status, report = checked(empty)
    assert status == 1 and found(report, "FAIL", "the recording holds no messages")


def test_several_recordings_are_looked_at_and_the_worst_counts(town_bag, tmp_path, capsys):
    assert main([str(town_bag), str(tmp_path / "nowhere"), "--samples", "1"]) == 2
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 recordings have no fault that would make training fail"


@needs_realdata
@pytest.mark.parametrize(("name", "lidars"), [("ddad_6cam", 1), ("nuscenes_keyframe", 1), ("fisheye_4cam", 0)])
def test_real_recordings_can_be_labelled(name, lidars):
    status, report = checked(REALDATA / name, "--no-labels")
    said = [item["text"] for item in report["findings"] if item["level"] != "ok"]
    # Without a LiDAR, `label` needs to be told of depth images.
    assert (
        status == 0
        and said == (["there is no PointCloud2 topic, which `renderocc label` takes depth from"], [])[lidars]
    )


# ------------------------------------------------------------------------------------------------------ single checks


def test_stamps_that_are_zero_go_back_or_leave_a_gap_are_found():
    assert stamp_faults([5, 6, 7]) == [] and stamp_faults([]) == []
    (zero, back) = stamp_faults([SECOND, 0, 2 * SECOND])
    assert (zero.kind, zero.count) == (
        "zero",
        1,
    ) and back.text == "stamps go back or repeat, first at image 1 by 1000.0 ms"
    # Every 0.1 s, then 0.6 s: more than 5 medians; it is named by where it begins.
    times = [round(t * SECOND) for t in (0.1, 0.2, 0.3, 0.4, 1.0, 1.1)]
    (gap,) = stamp_faults(times, "cloud")
    assert (gap.kind, gap.stamp_ns) == ("gap", 4 * SECOND // 10)
    assert gap.text == "a gap of 0.60 s where clouds come every 0.100 s"
