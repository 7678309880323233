"""What `renderocc check` says of `label`, `prepare` and `train` holds: odd recordings, each given to all of them."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
from test_check_labelling import STORE, clouds, copied
from tiny_bag import FRAME_NS, HEIGHT, START_NS, WIDTH, Plan, write_bag

from renderocc_model.rosio import cdr
from training.check import main as check
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import main as prepare
from training.label import main as label

pytestmark = pytest.mark.slow

INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
JPEG, PNG = ".jpg", ".png"


def unlabelled(folder, added=None, change=lambda topic, data: data):
    """Three frames of two cameras without labels, and clouds beside the first two frames."""
    bag = write_bag(folder.with_name("source"), Plan(frames=3, labels=lambda *_: None))
    return copied(bag, folder, clouds() if added is None else added, change)


def pictures(ending, change=lambda image: image, cut=None):
    """A change of the images of the camera 'front'."""

    def apply(topic, data):
        if topic != "/front/image_raw/compressed":
            return data
        message = cdr.read_compressed_image(data)
        image = change(cv2.imdecode(message.data, cv2.IMREAD_COLOR))
        file = cv2.imencode(ending, image)[1].tobytes()
        return cdr.write_compressed_image(message.stamp_ns, message.frame_id, f"rgb8; {ending[1:]}", file[:cut])

    return apply


def first(change):
    """A change of the first message that it changes."""
    changed = []

    def apply(topic, data):
        new = data if changed else change(topic, data)
        if new is not data:
            changed.append(topic)
        return new

    return apply


def calibration(camera, **fields):
    def apply(topic, data):
        if topic != f"/{camera}/camera_info":
            return data
        message = STORE.deserialize_cdr(data, INFO)
        for name, value in fields.items():
            setattr(message, name, value)
        return bytes(STORE.serialize_cdr(message, INFO))

    return apply


def without_frame(frame):
    """A change of the transforms that leaves one frame out."""

    def apply(topic, data):
        if not topic.startswith("/tf"):
            return data
        message = STORE.deserialize_cdr(data, TF)
        message.transforms = [item for item in message.transforms if item.child_frame_id != frame]
        return bytes(STORE.serialize_cdr(message, TF))

    return apply


def labelled(semantic, depth):
    """A plan of labels of one class id and one depth, metres, in all pixels."""
    shape = (HEIGHT, WIDTH)
    return Plan(frames=2, labels=lambda *_: (np.full(shape, semantic, np.uint8), np.full(shape, depth)))


def with_truth(folder, volume, stamp_ns=START_NS):
    bag = write_bag(folder, Plan(frames=2))
    (bag / "occupancy").mkdir()
    masks = {name: np.ones_like(volume) for name in ("mask_camera", "mask_lidar")}
    np.savez(bag / "occupancy" / f"{stamp_ns}.npz", semantics=volume, **masks)
    return bag


def points(low, high):
    return np.random.default_rng(0).uniform(low, high, (500, 3))


def in_frame(frame):
    """Clouds in a frame that TF does not have."""
    return [
        (at, topic, kind, data.replace(b"\x0a\0\0\0base_link\0", b"\x0a\0\0\0" + frame.ljust(9, b"_") + b"\0"))
        for at, topic, kind, data in clouds()
    ]


OUTSIDE = calibration("front", k=np.array([10.0, 0, -60, 0, 10, 23.5, 0, 0, 1]), d=np.zeros(5))
FREE = np.full((4, 4, 2), 17, np.uint8)
# name: a function of a folder that writes the recording there.
RECORDINGS = {
    "sound": lambda f: unlabelled(f),
    "sound, with labels": lambda f: write_bag(f, Plan(frames=2)),
    "no LiDAR": lambda f: unlabelled(f, []),
    "two LiDARs": lambda f: unlabelled(f, clouds() + clouds("/rear/points")),
    "a LiDAR with another clock": lambda f: unlabelled(f, clouds(later_ns=3600 * 10**9)),
    "empty clouds": lambda f: unlabelled(f, clouds(points=np.empty((0, 3)))),
    "clouds without a place": lambda f: unlabelled(f, clouds(points=np.full((500, 3), np.nan))),
    "beams without a return": lambda f: unlabelled(f, clouds(points=np.zeros((500, 3)))),
    "points behind the cameras": lambda f: unlabelled(f, clouds(points=points(-20, -5))),
    "points that one camera sees": lambda f: unlabelled(f, clouds(points=points((1, -0.3, 1.2), (1.8, 0.3, 1.8)))),
    "clouds in an unknown frame": lambda f: unlabelled(f, in_frame(b"velodyne")),
    "one damaged cloud": lambda f: unlabelled(f, [(START_NS, *clouds()[0][1:3], b"\0\1\0\0short"), *clouds()]),
    "damaged clouds alone": lambda f: unlabelled(f, [(START_NS, *clouds()[0][1:3], b"\0\1\0\0short")]),
    "WebP images": lambda f: unlabelled(f, change=pictures(".webp")),
    "empty images": lambda f: unlabelled(f, change=pictures(JPEG, cut=0)),
    "JPEGs that are cut off": lambda f: unlabelled(f, change=pictures(JPEG, cut=-400)),
    "one JPEG that is cut off": lambda f: unlabelled(f, change=first(pictures(JPEG, cut=-400))),
    "PNGs with four channels": lambda f: unlabelled(f, change=pictures(PNG, lambda im: np.dstack([im, im[..., :1]]))),
    "grey JPEGs": lambda f: unlabelled(f, change=pictures(JPEG, lambda im: im[..., 0])),
    "images of another size": lambda f: unlabelled(f, change=pictures(JPEG, lambda im: im[::2, ::2])),
    "K of zeros": lambda f: unlabelled(f, change=calibration("wide", k=np.zeros(9))),
    "a camera that sees nothing ahead": lambda f: unlabelled(f, change=OUTSIDE),
    "a camera without a mount": lambda f: unlabelled(f, change=without_frame("wide_optical")),
    "no ego pose": lambda f: unlabelled(f, change=without_frame("base_link")),
    "labels of nothing": lambda f: write_bag(f, labelled(255, 0.0)),
    "labels of free space": lambda f: write_bag(f, labelled(17, 5.0)),
    "labels without a class": lambda f: write_bag(f, labelled(255, 5.0)),
    "labels of unknown classes": lambda f: write_bag(f, labelled(40, 5.0)),
    "truth of another drive": lambda f: with_truth(f, FREE, START_NS + 10**12),
    "truth of unknown classes": lambda f: with_truth(f, np.full((4, 4, 2), 40, np.uint8)),
    "truth": lambda f: with_truth(f, FREE, START_NS + FRAME_NS),
}
REFUSED = {  # what each is refused by, as those say who read the recordings above
    "label": {"a LiDAR with another clock", "empty clouds", "clouds without a place", "beams without a return"}
    | {"points behind the cameras", "clouds in an unknown frame", "damaged clouds alone", "no LiDAR", "two LiDARs"}
    | {"WebP images", "empty images", "JPEGs that are cut off", "K of zeros", "a camera that sees nothing ahead"},
    "prepare": {
        "no ego pose",
        "images of another size",
        "a camera without a mount",
        "labels of nothing",
        "labels of free space",
    }
    | {"labels of unknown classes", "truth of another drive", "truth of unknown classes"},
}


def report(*words):
    """(exit status, report) of `renderocc check`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = check([*map(str, words), "--json"])
    return status, json.loads(out.getvalue())["recordings"][0]


def failures(found):
    return [item for item in found["findings"] if item["level"] == "FAIL"]


@pytest.fixture(scope="module", params=RECORDINGS)
def examined(request, tmp_path_factory):
    """(name, recording, exit status and report of `check --no-labels` before anything is made of it)."""
    folder = tmp_path_factory.mktemp("examined")
    bag = RECORDINGS[request.param](folder / "drive")
    return request.param, bag, *report(bag, "--no-labels")


def test_the_verdict_on_each_later_command_holds(examined, tmp_path, capsys):
    name, bag, status, before = examined
    has_labels = not bag.with_name("source").exists()
    if not has_labels:
        verdict = before["verdicts"]["label"]
        done = label([str(bag), "--jobs", "1"])
        assert verdict["works"] == (done == 0) == (name not in REFUSED["label"]), (verdict, capsys.readouterr().err)
        # The exit status is that of the first of all steps that will fail.
        refused = not verdict["works"] and not verdict["needs_option"]
        refused |= not before["verdicts"]["prepare"]["works"]
        assert (status == 1) == refused == bool(failures(before)), before["findings"]
        if done:
            return
    status, found = report(bag)
    verdict = found["verdicts"]["prepare"]
    done = prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"])
    assert verdict["works"] == (done == 0) == (name not in REFUSED["prepare"]), (verdict, capsys.readouterr().err)
    assert (status == 0) == (done == 0) and bool(failures(found)) == (done != 0), found["findings"]
    if done:
        return
    data = RayDataset(tmp_path / "tables", SampleConfig(height=32, width=64, rays=100, truth=True))
    samples = [data.sample(0, index) for index in range(len(data))]
    assert found["verdicts"]["train"]["works"] and sum(len(sample.rays.origins) for sample in samples) > 0


def test_one_fault_is_one_failure(examined):
    _, _, _, found = examined
    assert len(failures(found)) <= 1, [item["text"] for item in failures(found)]
