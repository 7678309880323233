"""Recordings as frames: stamps, poses, labels, and errors that name file, topic and time."""

import shutil

import numpy as np
import pytest
import tiny_bag
import yaml
from realdata import REALDATA, needs_realdata
from tiny_bag import FRAME_NS, LATER_NS, RIG, START_NS, Plan, with_raw_images, write_bag
from town import rewritten

from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import BagError
from renderocc_model.rosio.vehicle import Vehicle
from training.recordings.frames import Recording
from training.recordings.sources import RecordingError


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("frames") / "drive")


def test_cameras_and_calibrations_are_found(bag):
    with Recording(bag) as recording:
        assert recording.cameras == ("front", "wide")
        assert recording.models == {camera.name: camera.model for camera in RIG}
        assert recording.optical_frames == {"front": "front_optical", "wide": "wide_optical"}
        np.testing.assert_allclose(recording.mount("wide"), RIG["wide"].base_from_camera, atol=1e-12)


def test_frames_take_the_images_nearest_to_the_anchors(bag):
    with Recording(bag) as recording:
        frames = recording.frames()
        assert [frame.stamp_ns for frame in frames] == [START_NS + k * FRAME_NS for k in range(4)]
        assert frames[1].images == {"front": START_NS + FRAME_NS, "wide": START_NS + FRAME_NS + LATER_NS}
        assert recording.frames("wide")[1].stamp_ns == START_NS + FRAME_NS + LATER_NS
        # 30 ms away is too far for 20 ms.
        assert recording.frames(max_time_diff=0.02)[0].images == {"front": START_NS}


def test_a_camera_stands_where_the_vehicle_was_at_its_own_stamp(bag):
    at, stamp = START_NS + FRAME_NS, START_NS + FRAME_NS + LATER_NS
    with Recording(bag) as recording:
        got = recording.base_from_camera("wide", stamp, at)
    wanted = np.linalg.inv(tiny_bag.odom_from_base(at)) @ tiny_bag.odom_from_base(stamp) @ RIG["wide"].base_from_camera
    # Poses come every 20 ms and are interpolated: over 10 ms of 0.1 rad/s the chord is within 1e-6 m of the arc.
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert abs(got[0, 3] - RIG["wide"].base_from_camera[0, 3] - 0.06) < 2e-3  # 2 m/s for 30 ms, less 0.5 m * 3 mrad


def test_labels_are_read_back(bag):
    semantic, depth = tiny_bag.sparse_labels(2, "wide")
    stamp = START_NS + 2 * FRAME_NS + LATER_NS
    with Recording(bag) as recording:
        assert recording.has_labels("wide", stamp) and not recording.has_labels("wide", stamp + 1)
        np.testing.assert_array_equal(recording.semantic("wide", stamp), semantic)
        np.testing.assert_allclose(recording.depth("wide", stamp), depth, atol=5.1e-4)  # millimetres


def test_a_sidecar_goes_before_the_recording(bag, tmp_path):
    other = write_bag(tmp_path / "labels", Plan(labels=lambda frame, camera: (np.full((48, 64), 7, np.uint8), None)))
    with Recording(bag, other) as recording:
        assert (recording.semantic("front", START_NS) == 7).all()
        assert recording.depth("front", START_NS).max() > 3  # the sidecar has no depth: the recording's own


def test_frames_are_the_truths_moments_where_there_is_truth(bag, tmp_path):
    copy = tmp_path / "drive"
    shutil.copytree(bag, copy)
    (copy / "occupancy").mkdir()
    stamp = START_NS + FRAME_NS + 5_000_000
    np.savez(copy / "occupancy" / f"{stamp}.npz", semantics=np.zeros(1))
    with Recording(copy) as recording:
        assert recording.truth_path(stamp) and [frame.stamp_ns for frame in recording.frames()] == [stamp]
        assert len(recording.frames("front")) == 4


def test_stamps_before_the_first_pose_are_named(tmp_path):
    late = list(range(START_NS + FRAME_NS - 100_000_000, START_NS + 4 * FRAME_NS, 20_000_000))
    bag = write_bag(tmp_path / "late", Plan(poses=late))
    with Recording(bag) as recording:
        with pytest.raises(RecordingError, match=r"late: no ego pose on /tf at 1700000000.000 s .*odom"):
            recording.odom_from_base(START_NS)
        recording.odom_from_base(START_NS + FRAME_NS)


def test_a_hole_in_the_poses_is_not_interpolated_over(tmp_path):
    poses = [START_NS - 1, *range(START_NS + 3 * FRAME_NS, START_NS + 4 * FRAME_NS, 20_000_000)]
    bag = write_bag(tmp_path / "hole", Plan(poses=poses))
    with Recording(bag) as recording:
        with pytest.raises(RecordingError, match=r"hole: .* at 1700000000.500 s .* 1.000 s away, more than 0.5 s"):
            recording.odom_from_base(START_NS + FRAME_NS)
        recording.odom_from_base(START_NS - 1)  # a pose itself needs none around it
    with Recording(bag, max_pose_gap=1.5) as recording:
        recording.odom_from_base(START_NS + FRAME_NS)


def test_a_vehicle_without_odometry_stands_still(bag):
    with Recording(bag, vehicle=Vehicle(odom_frame="")) as recording:
        moved = recording.base_from_camera("wide", START_NS + LATER_NS, START_NS)
        np.testing.assert_allclose(moved, RIG["wide"].base_from_camera, atol=1e-12)


def test_labels_of_another_size_are_named(tmp_path):
    small = (np.zeros((24, 32), np.uint8), np.ones((24, 32)))
    bag = write_bag(tmp_path / "small", Plan(frames=1, labels=lambda frame, camera: small))
    with Recording(bag) as recording:
        with pytest.raises(RecordingError, match=r"small: /front/semantic/compressed at 1700000000.0.* 32x24 .*64x48"):
            recording.semantic("front", START_NS)


def test_a_truncated_recording_is_named(bag, tmp_path):
    copy = tmp_path / "cut"
    shutil.copytree(bag, copy)
    file = copy / "drive.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match=r"drive.mcap: the file is cut off"):
        Recording(copy)


def test_a_metadata_yaml_that_lies_is_told(bag, tmp_path):
    copy = tmp_path / "lies"
    shutil.copytree(bag, copy)
    metadata = yaml.safe_load((copy / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["message_count"] = 7
    (copy / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with Recording(copy) as recording:
        assert "metadata.yaml promises 7 messages" in recording.notes[0]


@needs_realdata
@pytest.mark.parametrize(("name", "count"), [("ddad_6cam", 3), ("nuscenes_keyframe", 1), ("fisheye_4cam", 1)])
def test_real_recordings_have_frames_with_all_their_cameras_placed(name, count):
    with Recording(REALDATA / name) as recording:
        frames = recording.frames()
        assert len(frames) == count
        for frame in frames:
            assert set(frame.images) == set(recording.cameras)
            for camera, stamp in frame.images.items():
                pose = recording.base_from_camera(camera, stamp, frame.stamp_ns)
                assert np.linalg.norm(pose[:3, 3]) < 5  # on a car


def test_one_image_with_sizes_that_do_not_fit_is_left_out_and_named(tmp_path):
    bag = with_raw_images(write_bag(tmp_path / "plain"), tmp_path / "raw", "front")
    changed, seen = tmp_path / "changed", []

    def spoil(topic, when, data):
        if topic == "/front/image_raw":
            seen.append(when)
            if len(seen) == 2:  # a byte less of pixels: 64 x 48 x 3 = 9216
                data = data[:-9220] + (9215).to_bytes(4, "little") + data[-9216:-1]
        return [(topic, when, data)]

    rewritten(bag, changed, spoil)
    with Recording(changed) as recording:
        stamps = recording.stamps["front"]
        assert len(stamps) == 3 and START_NS + FRAME_NS not in stamps
        assert len(recording.stamps["wide"]) == 4
        (note,) = recording.notes
        assert "/front/image_raw" in note and "9215 bytes but 48 rows of step 192 are 9216" in note
        assert note.endswith("left out")
        assert recording.image_message("front", stamps[-1]).encoding == "rgb8"


def test_a_camera_without_one_image_that_can_be_decoded_is_refused(tmp_path):
    bag = with_raw_images(write_bag(tmp_path / "plain"), tmp_path / "raw", "front")

    def spoil(topic, when, data):
        return [(topic, when, data.replace(b"rgb8\0", b"8UC3\0") if topic == "/front/image_raw" else data)]

    changed = rewritten(bag, tmp_path / "changed", spoil)
    with pytest.raises(RecordingError, match=r"/front/image_raw, .*encoding '8UC3' cannot be decoded.*\(and 3 more"):
        Recording(changed)


def test_images_of_12_bits_are_read_as_they_were_taken(tmp_path):
    bag = with_raw_images(write_bag(tmp_path / "plain"), tmp_path / "raw", "front")
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 256

    def twelve(topic, when, data):
        if topic == "/front/image_raw":
            message = cdr.read_image(data)
            data = cdr.write_image(message.stamp_ns, message.frame_id, (grey << 4) + 5, "mono16")
        return [(topic, when, data)]

    with Recording(rewritten(bag, tmp_path / "changed", twelve)) as recording:
        message = recording.image_message("front", recording.stamps["front"][2])
        assert "lower 12" in recording.notes[0]
        layout = (message.height, message.width, message.step, message.encoding, message.is_bigendian)
        assert np.abs(decode_raw(message.data, *layout)[..., 0].astype(int) - grey).max() <= 1
