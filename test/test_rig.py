"""Camera models, rigs and their files; the LiDAR of real recordings lands on the pixels it should."""

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from realdata import REALDATA, needs_realdata

from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.geometry.transforms import invert, transform_from, transform_points
from renderocc_model.network.rig_summary import compare_summaries, summary_of_models, summary_of_rigs

RIGS = Path(__file__).resolve().parents[1] / "config" / "rigs"
K = np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]])
PINHOLE = CameraModel(640, 480, K, "plumb_bob", (0.0,) * 5)
AHEAD = [-0.5, 0.5, -0.5, 0.5]  # base_from_camera rotation of a camera that looks ahead


def camera(name="front", model=PINHOLE, position=(1.5, 0, 1.6), yaw=0.0):
    turn = transform_from([0, 0, 0], [0, 0, math.sin(yaw / 2), math.cos(yaw / 2)])
    mount = turn @ transform_from([0, 0, 0], AHEAD)
    mount[:3, 3] = position
    return Camera(name, model, mount, f"{name}_optical_frame")


class TestCameraModel:
    def test_a_point_projected_by_hand(self):
        # u = 500 * 1/4 + 320 = 445; v = 510 * -0.5/4 + 240 = 176.25
        pixels, in_image = PINHOLE.project(np.array([[1, -0.5, 4]]))
        assert pixels[0].tolist() == [445.0, 176.25] and in_image[0]

    def test_a_skewed_point_projected_by_hand(self):
        # u = 500 * 0.25 + 10 * -0.125 + 320 = 443.75
        model = CameraModel(640, 480, [[500, 10, 320], [0, 510, 240], [0, 0, 1]], "plumb_bob", ())
        pixels, _ = model.project(np.array([[1, -0.5, 4]]))
        assert pixels[0].tolist() == [443.75, 176.25]
        assert np.allclose(model.unproject(pixels) * 4 / model.unproject(pixels)[0, 2], [[1, -0.5, 4]])

    def test_the_image_reaches_half_a_pixel_around_its_pixel_centres(self):
        pixels = np.array([[-0.499, 0], [-0.501, 0], [639.499, 0], [639.501, 0], [0, 479.499], [0, 479.501]])
        _, in_image = PINHOLE.project(PINHOLE.unproject(pixels) * 7)
        assert in_image.tolist() == [True, False, True, False, True, False]

    def test_points_behind_the_camera_have_no_pixel(self):
        pixels, in_image = PINHOLE.project(np.array([[0.0, 0, -5], [0, 0, 0], [np.nan, 0, 1]]))
        assert np.isnan(pixels).all() and not in_image.any()

    def test_a_point_that_a_folded_lens_brings_back_into_the_image_is_not_in_it(self):
        model = CameraModel(640, 480, K, "plumb_bob", (-0.4, 0.0, 0.0, 0.0, 0.0))
        wide = np.array([[1.5, 0, 1]])  # 56 degrees, past the fold at 42.4; the polynomial alone says pixel (395, 240)
        folded = cv2.projectPoints(wide, np.zeros(3), np.zeros(3), K, np.array(model.coefficients))[0][0, 0]
        assert folded == pytest.approx([395, 240])
        assert not model.project(wide)[1][0]
        assert math.degrees(model.largest_angle) == pytest.approx(42.39, abs=0.01)

    @pytest.mark.parametrize("name", ["nuscenes_keyframe", "ddad_6cam", "fisheye_4cam"])
    def test_every_pixel_of_a_real_camera_comes_back_to_a_billionth_of_a_pixel(self, name):
        for entry in Rig.load(RIGS / f"{name}.yaml"):
            sides = (np.linspace(-0.499, size - 0.501, 50) for size in (entry.model.width, entry.model.height))
            columns, rows = np.meshgrid(*sides)
            pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
            again, in_image = entry.model.project(entry.model.unproject(pixels) * 3)
            assert in_image.all(), entry.name
            assert np.abs(again - pixels).max() < 1e-9, entry.name

    @pytest.mark.parametrize("entry", Rig.load(RIGS / "fisheye_4cam.yaml").cameras, ids=lambda entry: entry.name)
    def test_real_fisheye_cameras_project_as_in_opencv(self, entry):
        rng = np.random.default_rng(0)
        points = np.concatenate([rng.uniform(-20, 20, (500, 2)), rng.uniform(0.5, 10, (500, 1))], axis=1)
        expected = cv2.fisheye.projectPoints(
            points[:, None], np.zeros(3), np.zeros(3), entry.model.K, np.array(entry.model.coefficients)
        )[0][:, 0]
        assert np.abs(entry.model.project(points)[0] - expected).max() < 1e-9

    def test_field_of_view_by_hand(self):
        # Half widths 320.5 and 319.5 px at 500 px: atan(0.641) + atan(0.639) = 0.5700 + 0.5686 rad.
        assert PINHOLE.horizontal_extent == pytest.approx((0.570022, 0.568603), abs=1e-6)
        # Equidistant without coefficients: the angle is the distance over f, here 320.5 / 100 = 3.205 > pi, all round.
        fisheye = CameraModel(
            640, 480, np.diag([100.0, 100, 1]) + [[0, 0, 320], [0, 0, 240], [0, 0, 0]], "equidistant", (0,) * 4
        )
        assert fisheye.vertical_extent == pytest.approx((2.405, 2.395))
        assert fisheye.horizontal_extent == pytest.approx((math.pi, math.pi), abs=0.02)

    def test_a_principal_point_outside_the_image_leaves_one_side_negative(self):
        model = CameraModel(640, 480, [[500, 0, -100], [0, 500, 240], [0, 0, 1]], "plumb_bob", ())
        # Left edge 99.5 px right of the axis, right edge 739.5 px.
        assert model.horizontal_extent == pytest.approx((-math.atan(0.199), math.atan(1.479)))

    def test_equal_calibrations_are_equal(self):
        again = CameraModel(640, 480, K.tolist(), "plumb_bob", [0] * 5)
        assert again == PINHOLE and hash(again) == hash(PINHOLE)
        assert dataclasses.replace(PINHOLE, width=641) != PINHOLE

    def test_a_model_cannot_be_changed_from_outside(self):
        mine = K.copy()
        model = CameraModel(640, 480, mine, "plumb_bob", ())
        mine[0, 0] = 1
        assert model.K[0, 0] == 500
        with pytest.raises(ValueError, match="read-only"):
            model.K[0, 0] = 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"width": 0}, "width is 0; expected 1 to 32768 pixels"),
            ({"height": 70000}, "height is 70000"),
            ({"width": 640.5}, "width is 640.5"),
            ({"K": np.zeros((3, 3))}, "K has focal lengths 0 and 0; expected positive pixels"),
            ({"K": np.full((3, 3), np.nan)}, "all nine numbers must be finite"),
            ({"K": np.eye(2)}, "K has shape (2, 2)"),
            ({"K": np.diag([500, -500, 1])}, "focal lengths 500 and -500"),
            ({"K": [[500, -5e303, 320], [0, 500, 240], [0, 0, 1]]}, "K has a skew of -5e+303 pixels"),
            ({"K": [[500, 0, 320], [3, 500, 240], [0, 0, 1]]}, "expected [[fx, skew, cx]"),
            ({"K": [[500, 0, 320], [0, 500, 240], [0, 0, 2]]}, "expected [[fx, skew, cx]"),
            (
                {"K": [[500, 0, 2000], [0, 500, 240], [0, 0, 1]]},
                "principal point at (2000, 240), far outside the 640x480 image",
            ),
            ({"distortion_model": "fov"}, "distortion_model is 'fov'"),
            ({"coefficients": (1.0, 2.0)}, "plumb_bob has 2 coefficients"),
        ],
    )
    def test_a_calibration_that_cannot_be_says_what_is_wrong(self, change, message):
        with pytest.raises(ValueError) as error:
            dataclasses.replace(PINHOLE, **change)
        assert message in str(error.value)

    def test_points_of_another_shape_are_refused(self):
        with pytest.raises(ValueError, match=r"points have shape \(3,\); expected \(N, 3\)"):
            PINHOLE.project(np.zeros(3))
        with pytest.raises(ValueError, match=r"pixels have shape \(5, 3\); expected \(N, 2\)"):
            PINHOLE.unproject(np.zeros((5, 3)))


class TestRig:
    def test_cameras_are_found_by_name_and_in_order(self):
        rig = Rig((camera("front"), camera("rear", yaw=math.pi)))
        assert rig.names == ("front", "rear") and len(rig) == 2
        assert rig["rear"].base_from_camera[:3, 2] == pytest.approx([-1, 0, 0], abs=1e-12)
        with pytest.raises(KeyError, match="no camera 'left'; it has front, rear"):
            rig["left"]

    def test_names_must_differ_and_exist(self):
        with pytest.raises(ValueError, match="camera names \\['front'\\] repeat"):
            Rig((camera(), camera()))
        with pytest.raises(ValueError, match="no cameras"):
            Rig(())
        with pytest.raises(ValueError, match="give each camera a name"):
            camera(" ")

    @pytest.mark.parametrize("mount", [2 * np.eye(4), np.eye(3), np.full((4, 4), np.nan), np.diag([1, 1, -1, 1])])
    def test_a_mount_that_is_not_rigid_is_refused(self, mount):
        with pytest.raises(ValueError, match="camera 'front': base_from_camera is .*expected a rigid 4x4 transform"):
            Camera("front", PINHOLE, mount)

    def test_a_rig_survives_its_file(self, tmp_path):
        fisheye = CameraModel(1280, 720, K, "equidistant", (0.1, -0.2, 1 / 3, 1e-17))
        rig = Rig((camera("on"), camera('say "1": #2', fisheye, yaw=2.5)))
        rig.save(tmp_path / "rig.yaml")
        again = Rig.load(tmp_path / "rig.yaml")
        assert again.names == rig.names
        for old, new in zip(rig, again):
            assert new.model == old.model and new.frame_id == old.frame_id
            assert np.abs(new.base_from_camera - old.base_from_camera).max() < 1e-14
        assert [path.name for path in tmp_path.iterdir()] == ["rig.yaml"]

    @pytest.mark.parametrize("path", sorted(RIGS.glob("*.yaml")), ids=lambda path: path.stem)
    def test_every_rig_in_config_loads(self, path):
        rig = Rig.load(path)
        assert len(rig) >= 4
        headings = [entry["yaw"] for entry in rig.summary()["cameras"]]
        assert max(headings) - min(headings) > math.pi  # all round

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda entry: entry.pop("K"), "camera 'front': camera: K missing"),
            (lambda entry: entry.update(distortion=[]), "unknown entry 'distortion'; did you mean 'distortion_model'?"),
            (lambda entry: entry.update(size=[640]), "size is [640]; expected 2 finite numbers"),
            (lambda entry: entry.update(K=[1, 2, "x"]), "expected 9 finite numbers"),
            (lambda entry: entry.update(size=[0, 480]), "camera 'front': width is 0"),
            (
                lambda entry: entry.update(base_from_camera=3),
                "base_from_camera: expected a mapping with translation, rotation",
            ),
            (lambda entry: entry["base_from_camera"].update(rotation=[0, 0, 0, 0]), "is no rotation"),
        ],
    )
    def test_a_wrong_file_names_the_file_the_camera_and_the_entry(self, tmp_path, change, message):
        path = tmp_path / "rig.yaml"
        Rig((camera(),)).save(path)
        document = yaml.safe_load(path.read_text())
        change(document["cameras"]["front"])
        path.write_text(yaml.safe_dump(document))
        with pytest.raises(ValueError, match="rig.yaml: camera 'front'") as error:
            Rig.load(path)
        assert message in str(error.value)

    @pytest.mark.parametrize("text", ["", "cameras: []", "cameras: {}", "[1, 2", "cameras:\n  a: 1\nspeed: 2", "\x00"])
    def test_what_is_no_rig_file_is_refused_by_name(self, tmp_path, text):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match="bad.yaml: "):
            Rig.load(tmp_path / "bad.yaml")


class TestSummaries:
    def test_a_summary_says_what_a_network_gets_used_to(self):
        summary = json.loads(json.dumps(Rig((camera(yaw=1.0),)).summary()))
        assert summary["count"] == 1
        assert summary["cameras"][0] == {
            "name": "front",
            "width": 640,
            "height": 480,
            "horizontal_fov": pytest.approx(1.138625, abs=1e-6),
            "mount_height": 1.6,
            "yaw": 1.0,
        }

    def test_the_same_rig_gives_no_warning(self):
        summary = Rig((camera("front"), camera("rear", yaw=math.pi))).summary()
        assert compare_summaries(summary, summary) == []

    def test_every_difference_is_named(self):
        trained = Rig((camera("front"), camera("rear", yaw=math.pi))).summary()
        narrow = CameraModel(800, 450, [[1000, 0, 400], [0, 1000, 225], [0, 0, 1]], "plumb_bob", ())
        now = Rig((camera("front", narrow, position=(0, 0, 2.4), yaw=0.5),)).summary()
        # 2 atan(0.4) = 43.6 degrees against 65.2; 0.5 rad = 28.6 degrees.
        assert compare_summaries(trained, now) == [
            "trained with 2 cameras, running with 1",
            "camera 'front': image 800x450, trained 640x480, field of view 44 degrees, trained 65, "
            "mounted at 2.40 m, trained 1.60 m, heading 29 degrees, trained 0",
        ]

    def test_more_pixels_of_the_same_shape_are_no_difference_but_fewer_are(self):
        large = CameraModel(1280, 960, [[1000, 0, 640], [0, 1000, 480], [0, 0, 1]], "plumb_bob", ())
        ours, theirs = Rig((camera("front"),)).summary(), Rig((camera("front", large),)).summary()
        assert compare_summaries(ours, theirs) == []
        assert compare_summaries(theirs, ours) == ["camera 'front': image 640x480, trained 1280x960"]

    def test_other_names_are_compared_with_what_looks_the_same_way(self):
        trained = Rig((camera("front"), camera("rear", yaw=3.1))).summary()
        assert compare_summaries(trained, Rig((camera("a"), camera("b", yaw=-3.1))).summary()) == []
        wide = dataclasses.replace(PINHOLE, K=[[300, 0, 320], [0, 300, 240], [0, 0, 1]])
        warnings = compare_summaries(trained, Rig((camera("a"), camera("b", wide, yaw=-3.1))).summary())
        assert warnings == ["camera 'b' (compared with 'rear'): field of view 94 degrees, trained 65"]

    def test_of_a_few_trained_rigs_the_most_similar_one_is_compared(self):
        low, high = Rig((camera("front", position=(1.5, 0, 0.6)),)), Rig((camera("front", position=(1.5, 0, 2.0)),))
        trained = json.loads(json.dumps(summary_of_rigs([low, high, low])))
        assert len(trained["rigs"]) == 2
        assert compare_summaries(trained, high.summary()) == []
        now = Rig((camera("front", position=(1.5, 0, 1.2)),)).summary()  # 0.6 m above the one, 0.8 m below the other
        assert compare_summaries(trained, now) == [
            "camera 'front': mounted at 1.20 m, trained 0.60 m (of 2 trained rigs the most similar)"
        ]
        assert summary_of_rigs([low, low]) == low.summary()
        assert compare_summaries(trained, summary_of_models({"front": PINHOLE}, trained)) == []

    def test_many_trained_rigs_are_remembered_by_their_ranges(self):
        # Ten rigs of 1 or 2 cameras, 0.5 to 1.4 m high, focal lengths 400 to 580 px: 77.3 to 57.8 degrees.
        rigs = []
        for index in range(10):
            model = dataclasses.replace(PINHOLE, K=[[400 + 20 * index, 0, 320], [0, 510, 240], [0, 0, 1]])
            front = camera("front", model, position=(1.5, 0, 0.5 + 0.1 * index))
            rigs.append(Rig((front, camera("rear", yaw=3.1)) if index % 2 else (front,)))
        trained = json.loads(json.dumps(summary_of_rigs(rigs)))
        assert trained["rig_count"] == 10 and trained["ranges"]["count"] == [1, 2]
        assert trained["ranges"]["mount_height"] == pytest.approx([0.5, 1.6])  # the rear cameras' 1.6 m
        for rig in rigs:
            assert compare_summaries(trained, rig.summary()) == []
        tele = dataclasses.replace(PINHOLE, K=[[1200, 0, 320], [0, 1200, 240], [0, 0, 1]])  # 29.9 degrees
        now = Rig((camera("a", tele, position=(0, 0, 2.4)), camera("b"), camera("c"))).summary()
        assert compare_summaries(trained, now) == [
            "the 10 rigs in training had 1 to 2 cameras, running with 3",
            "camera 'a' (of 10 rigs in training): field of view 30 degrees, trained 58 to 77, mounted at 2.40 m, "
            "trained 0.50 to 1.60 m",
        ]
        assert compare_summaries(trained, summary_of_models({"a": PINHOLE}, trained)) == []


def read_recording(name):
    """Messages of a real recording by topic, and static and odometry transforms by frame and stamp."""
    from rosbags.highlevel import AnyReader

    topics, mounts, odom_from_base = {}, {}, {}
    with AnyReader([REALDATA / name]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            if not connection.msgtype.endswith("/TFMessage"):
                topics.setdefault(connection.topic, message)
                continue
            for item in message.transforms:
                moved, turned = item.transform.translation, item.transform.rotation
                transform = transform_from([moved.x, moved.y, moved.z], [turned.x, turned.y, turned.z, turned.w])
                if connection.topic == "/tf_static":
                    mounts[item.child_frame_id] = transform
                else:
                    odom_from_base[stamp_of(item.header)] = transform
    return topics, mounts, odom_from_base


def stamp_of(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


@needs_realdata
@pytest.mark.parametrize("name", ["ddad_6cam", "nuscenes_keyframe", "fisheye_4cam"])
def test_the_rigs_in_config_are_those_of_the_recordings(name):
    topics, mounts, _ = read_recording(name)
    rig = Rig.load(RIGS / f"{name}.yaml")
    assert set(rig.names) == {topic.split("/")[1] for topic in topics if topic.endswith("/camera_info")}
    for entry in rig:
        info = topics[f"/{entry.name}/camera_info"]
        recorded = CameraModel(info.width, info.height, info.k.reshape(3, 3), info.distortion_model, tuple(info.d))
        assert entry.model == recorded and entry.frame_id == info.header.frame_id
        assert np.abs(entry.base_from_camera - mounts[entry.frame_id]).max() < 1e-12


@needs_realdata
@pytest.mark.parametrize(
    ("name", "camera_name", "points", "hits", "in_image_hits"),
    # The counts that came with the recordings take a pixel for in the image from 0 to the width and the height. Half a
    # pixel up and left of that, where this project's image lies, 7 nuScenes points more leave than enter.
    [("ddad_6cam", "camera_07", 47_230, 10_718, 10_718), ("nuscenes_keyframe", "cam_front", 34_688, 3_067, 3_060)],
)
def test_the_lidar_falls_onto_as_many_pixels_as_it_should(name, camera_name, points, hits, in_image_hits):
    topics, mounts, odom_from_base = read_recording(name)
    cloud, image = topics["/lidar/points"], topics[f"/{camera_name}/image_raw/compressed"]
    entry = Rig.load(RIGS / f"{name}.yaml")[camera_name]
    offsets = {field.name: field.offset for field in cloud.fields}
    rows = cloud.data.reshape(-1, cloud.point_step)
    xyz = np.stack([rows[:, offsets[axis] : offsets[axis] + 4].copy().view("<f4")[:, 0] for axis in "xyz"], axis=-1)
    assert len(xyz) == points
    # The vehicle drives between the two stamps: LiDAR -> base then -> odom -> base at the image -> camera.
    camera_from_lidar = (
        invert(entry.base_from_camera)
        @ invert(odom_from_base[stamp_of(image.header)])
        @ odom_from_base[stamp_of(cloud.header)]
        @ mounts[cloud.header.frame_id]
    )
    seen = transform_points(camera_from_lidar, xyz)
    pixels, in_image = entry.model.project(seen)
    with np.errstate(invalid="ignore"):
        counted = (seen[:, 2] > 1) & ((pixels >= 0) & (pixels < (entry.model.width, entry.model.height))).all(axis=1)
    assert counted.sum() == hits
    assert (in_image & (seen[:, 2] > 1)).sum() == in_image_hits
