"""Recording cars drawn at random: the same from the same seed, within their limits, and true to their labels."""

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.geometry.rig import Rig
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from training.simulate.record import Settings, record
from training.simulate.rigs import Vehicle, random_vehicle
from training.simulate.sensors import CameraRenderer, town_rig
from training.simulate.shapes import box
from training.simulate.town import build_town
from training.simulate.trace import Tracer

pytestmark = pytest.mark.slow

STORE = get_typestore(Stores.ROS2_JAZZY)
SEEDS = range(40)


@pytest.fixture(scope="module")
def drawn():
    return [random_vehicle(seed, 160) for seed in SEEDS]


def test_the_same_seed_gives_the_same_car_and_another_seed_another(drawn):
    again = random_vehicle(3, 160)
    assert again.rig == drawn[3].rig and again.missing == drawn[3].missing
    np.testing.assert_array_equal(again.body.vertices, drawn[3].body.vertices)
    assert len({vehicle.rig for vehicle in drawn}) == len(SEEDS)


def test_cameras_stay_within_what_is_promised_and_reach_most_of_it(drawn):
    cameras = [camera for vehicle in drawn for camera in vehicle.rig]
    heights = np.array([camera.base_from_camera[2, 3] for camera in cameras])
    views = np.degrees([sum(camera.model.horizontal_extent) for camera in cameras])
    pitches = np.degrees(np.arcsin([-camera.base_from_camera[2, 2] for camera in cameras]))
    assert {len(vehicle.rig) for vehicle in drawn} == {4, 5, 6, 7}
    assert 0.5 <= heights.min() < 0.65 and 2.1 < heights.max() <= 2.2
    # A principal point off the middle by 3 % of the width makes the sum of both sides differ by a degree or two.
    assert 48 < views.min() < 60 and 180 < views.max() < 193
    assert pitches.min() < -2 and pitches.max() > 30
    kinds = {camera.model.distortion_model for camera in cameras}
    assert kinds == {"plumb_bob", "rational_polynomial", "equidistant"}
    assert len({(camera.model.width, camera.model.height) for camera in cameras}) > 40
    assert any(vehicle.missing for vehicle in drawn) and any(vehicle.body is None for vehicle in drawn)


def test_every_camera_has_a_view_for_the_network_that_is_nearly_full(drawn):
    for vehicle in drawn:
        for camera in vehicle.rig:
            view = network_view(camera.model, 32, 88, camera.base_from_camera)
            assert UndistortTable(camera.model, view).valid.mean() > 0.9, camera.name


def test_no_camera_sits_inside_the_car_or_sees_hardly_anything_else(drawn):
    for vehicle in drawn:
        if vehicle.body is None:
            continue
        body = Tracer([vehicle.body])
        for camera in vehicle.rig:
            rows, directions = CameraRenderer(camera).ray_grid(8)
            mount = camera.base_from_camera
            hidden = body.trace(mount[:3, 3], directions @ mount[:3, :3].T).hit.reshape(rows)
            assert hidden.mean() < 0.75, camera.name
            # Level and straight ahead nothing of the car is in the way: from inside there would be.
            ahead = np.append(mount[:2, 2], 0.0) / np.hypot(*mount[:2, 2])
            assert not body.blocked(mount[:3, 3][None], ahead)[0], camera.name


def test_the_cars_own_body_is_in_the_picture_without_label_and_hides_what_is_behind_it():
    town = build_town(3, 2.0)
    camera = town_rig(176, 64)["cam_front"]
    static = Tracer([town.static])
    hood = box((2.0, -0.8, 0.9), (3.4, 0.8, 1.0)).labelled(UNLABELLED)  # camera at x 1.72, z 1.51: 19 degrees down
    bare = CameraRenderer(camera).render(town, static, 0.0, np.random.default_rng(0))
    own = CameraRenderer(camera, hood).render(town, static, 0.0, np.random.default_rng(0))
    # The far edge lies 0.51 m below the camera at 1.68 m: row 0.45 * 63 + 125.7 * 0.51 / 1.68 = 66 is just below the
    # image of 64 rows; the focal length is 88 / tan(35 degrees) = 125.7. So the hood is out of sight:
    assert np.array_equal(bare.semantic, own.semantic)
    high = box((2.0, -0.8, 0.9), (3.4, 0.8, 1.2)).labelled(UNLABELLED)
    own = CameraRenderer(camera, high).render(town, static, 0.0, np.random.default_rng(0))
    # Its upper edge, 0.31 m below at 1.68 m, is at row 28.35 + 23.2 = 51.5, over columns 87.5 +- 125.7 * 0.8 / 1.68.
    assert (own.semantic[53:, 35:140] == UNLABELLED).all() and (own.depth[53:, 35:140] == 0).all()
    assert (bare.semantic[53:, 35:140] != UNLABELLED).mean() > 0.99
    assert np.array_equal(own.semantic[:48], bare.semantic[:48])
    assert not np.array_equal(own.image[56:, 60:120], bare.image[56:, 60:120])


def test_lost_images_are_in_no_topic_and_no_mask_and_any_number_of_processes_gives_the_same_bytes(tmp_path):
    rig = town_rig(96, 36)
    rig = Rig((rig["cam_front"], rig["cam_back"]))
    vehicle = Vehicle(rig, None, {"cam_back": 0.5})
    settings = {"seed": 4, "frames": 4, "lidar": False}
    lost = [vehicle.lost(4, frame) for frame in range(4)]
    expected = sum(1 not in one for one in lost)
    assert 0 < expected < 4  # of this seed some are lost and some are not
    record(tmp_path / "one" / "town", vehicle, Settings(**settings))
    record(tmp_path / "two" / "town", vehicle, Settings(**settings, jobs=2))
    seen = []
    for folder in (tmp_path / "one" / "town", tmp_path / "two" / "town"):
        with Reader(folder) as reader:
            topics = {connection.topic: connection.msgcount for connection in reader.connections}
        assert topics["/cam_front/camera_info"] == 4
        for topic in ("image_raw/compressed", "semantic/compressed", "depth/compressed", "camera_info"):
            assert topics[f"/cam_back/{topic}"] == expected
        files = sorted((folder / "occupancy").iterdir())
        masks = [np.load(file)["mask_camera"] for file in files]
        # 5 m behind the car only the rear camera looks, at any height from 1 to 2 m.
        assert [bool(mask[86:88, 98:102, 5:7].any()) for mask in masks] == [1 not in one for one in lost]
        seen.append([file.read_bytes() for file in (*files, folder / "town.mcap")])
    assert seen[0] == seen[1]


def test_a_random_recording_says_its_rig_and_its_labels_are_of_known_classes(tmp_path):
    from training.simulate import main

    out = tmp_path / "town"
    arguments = ["--seed", "9", "--frames", "1", "--random-rig", "--width", "96", "--no-truth", "--no-lidar"]
    assert main([str(out), *arguments, "--jobs", "1"]) == 0
    rig = Rig.load(out / "rig.yaml")
    assert rig.names == random_vehicle(9, 96).rig.names
    with Reader(out) as reader:
        for connection, _, data in reader.messages():
            message = STORE.deserialize_cdr(data, connection.msgtype)
            name, _, topic = connection.topic[1:].partition("/")
            if topic == "camera_info":
                assert (message.width, message.height) == (rig[name].model.width, rig[name].model.height)
            if topic == "semantic/compressed":
                semantic = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
                assert set(np.unique(semantic)) <= {*OCC3D_NUSCENES.occupied_ids, UNLABELLED}
                assert (semantic != UNLABELLED).mean() > 0.2
