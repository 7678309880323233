"""The simulated town: reproducible, free of collisions, and labels that agree with geometry, TF and LiDAR."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.geometry.transforms import interpolate, invert, transform_from, transform_points
from training.simulate import main
from training.simulate.mesh import Surface
from training.simulate.patterns import band, stripes
from training.simulate.plan import GROUND, Plan
from training.simulate.plants import thinned, tree
from training.simulate.record import START_NS, Settings, record, render
from training.simulate.sensors import CameraRenderer, camera_offsets, in_sight, town_rig
from training.simulate.shapes import box, quads
from training.simulate.surface_samples import sample_surface
from training.simulate.town import CLASSES, build_town
from training.simulate.trace import Tracer

pytestmark = pytest.mark.slow

STORE = get_typestore(Stores.ROS2_JAZZY)
SMALL = Settings(seed=3, frames=2, rate=2.0)


def small_rig():
    """Two of the six cameras, one pointing backwards, at a quarter of the size."""
    rig = town_rig(176, 64)
    return Rig((rig["cam_front"], rig["cam_back_left"]))


@pytest.fixture(scope="module")
def town():
    return build_town(3, 3.0)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "town"
    record(folder, small_rig(), SMALL)
    return folder


@pytest.fixture(scope="module")
def messages(bag):
    """Topic -> list of (record time, message)."""
    read = {}
    with Reader(bag) as reader:
        for connection, stamp, data in reader.messages():
            read.setdefault(connection.topic, []).append((stamp, STORE.deserialize_cdr(data, connection.msgtype)))
    return read


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def matrix(transform):
    t, q = transform.translation, transform.rotation
    return transform_from([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


def pose_at(messages, when):
    """odom_from_base by interpolation between the recorded /tf messages."""
    poses = [(stamp_ns(m.transforms[0]), matrix(m.transforms[0].transform)) for _, m in messages["/tf"]]
    times = [t for t, _ in poses]
    k = int(np.searchsorted(times, when, side="right")) - 1
    assert 0 <= k < len(times) - 1, "an image stamp lies outside the recorded poses"
    return interpolate(poses[k][1], poses[k + 1][1], (when - times[k]) / (times[k + 1] - times[k]))


def picture(messages, camera, topic, index):
    data = messages[f"/{camera}/{topic}/compressed"][index][1].data
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_the_same_seed_gives_the_same_bytes_from_any_number_of_processes(bag, tmp_path):
    again = tmp_path / "town"
    record(again, small_rig(), Settings(seed=3, frames=2, rate=2.0, jobs=2))
    occupancy = [f"occupancy/{START_NS + offset}.npz" for offset in (0, 500_000_000)]
    for name in ("town.mcap", "metadata.yaml", *occupancy):
        assert (again / name).read_bytes() == (bag / name).read_bytes()


def test_the_recording_has_every_topic_at_its_rate(messages):
    assert len(messages["/tf_static"]) == 1 and len(messages["/lidar/points"]) == 2
    for camera in ("cam_front", "cam_back_left"):
        for topic in ("image_raw/compressed", "semantic/compressed", "depth/compressed", "camera_info"):
            assert len(messages[f"/{camera}/{topic}"]) == 2
    # From 0.5 s before the first frame to 0.2 s after the second, 0.5 s later: 1.2 s at 50 Hz, both ends.
    assert len(messages["/tf"]) == 61
    children = {t.child_frame_id for t in messages["/tf_static"][0][1].transforms}
    assert children == {"cam_front_optical", "cam_back_left_optical", "lidar"}


def test_static_transforms_were_recorded_as_latched(bag):
    with Reader(bag) as reader:
        connection = next(c for c in reader.connections if c.topic == "/tf_static")
    assert connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_cameras_fire_when_the_lidar_sweeps_past_them(messages):
    # Clockwise, 50 ms a turn: 110 degrees to the left comes 110 / 360 * 50 = 15.28 ms before the front.
    offsets = camera_offsets(town_rig())
    assert offsets["cam_front"] == 0
    assert offsets["cam_back_left"] == pytest.approx(-0.015278, abs=1e-6)
    assert abs(offsets["cam_back"]) == pytest.approx(0.025)
    front, left = messages["/cam_front/camera_info"], messages["/cam_back_left/camera_info"]
    assert stamp_ns(left[0][1]) - stamp_ns(front[0][1]) == -15278000
    assert stamp_ns(messages["/cam_front/image_raw/compressed"][0][1]) == stamp_ns(front[0][1])


def test_images_look_like_a_place_and_not_like_label_colours(messages):
    image, semantic = picture(messages, "cam_front", "image_raw", 0), picture(messages, "cam_front", "semantic", 0)
    road = image[semantic == CLASSES["manmade"] - 4]  # driveable_surface, 11
    assert len(road) > 500
    assert road.std(axis=0).min() > 4  # texture, shadows, markings
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 3000
    sky = image[semantic == UNLABELLED]
    assert sky.mean() > road.mean()


def test_all_seventeen_classes_stand_near_the_beginning(town):
    moving = town.traffic.mesh(0.0, town.drive.odom_from_base(0)[:3, 3])
    base_from_odom = invert(town.drive.odom_from_base(0))
    found = set()
    for mesh in (town.static, moving):
        middle = transform_points(base_from_odom, mesh.vertices[mesh.faces[:, 0]].astype(float))
        inside = (np.abs(middle[:, :2]) < 40).all(1) & (middle[:, 2] > -1) & (middle[:, 2] < 5.4)
        found |= set(np.unique(mesh.class_id[inside]).tolist())
    assert found == set(OCC3D_NUSCENES.occupied_ids)


def test_every_class_of_the_table_is_of_the_ground_or_of_what_stands_on_it():
    assert [OCC3D_NUSCENES.names[index] for index in CLASSES.values()] == list(CLASSES)
    assert sorted([*CLASSES.values(), *GROUND]) == list(OCC3D_NUSCENES.occupied_ids)


def test_camera_depth_agrees_with_the_lidar_through_tf(messages):
    # LiDAR points, put into odom by the pose at their stamp and into the camera by the pose at the image's, must lie at
    # the depth that the label image says, on the class it says. What moves did so between the stamps: static only.
    moving = {
        OCC3D_NUSCENES.names.index(name) for name in ("bicycle", "car", "truck", "bus", "motorcycle", "pedestrian")
    }
    mounts = {t.child_frame_id: matrix(t.transform) for t in messages["/tf_static"][0][1].transforms}
    for index in range(2):
        cloud = messages["/lidar/points"][index][1]
        rows = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
        points = rows[:, :12].copy().view("<f4").astype(float)
        label = rows[:, 16]
        odom = transform_points(pose_at(messages, stamp_ns(cloud)) @ mounts["lidar"], points)
        for camera in small_rig():
            info = messages[f"/{camera.name}/camera_info"][index][1]
            odom_from_camera = pose_at(messages, stamp_ns(info)) @ mounts[camera.frame_id]
            seen = transform_points(invert(odom_from_camera), odom)
            model = CameraModel(info.width, info.height, info.k.reshape(3, 3), info.distortion_model, tuple(info.d))
            pixels, inside = model.project(seen)
            inside &= (seen[:, 2] > 1) & ~np.isin(label, list(moving))
            u, v = np.rint(pixels[inside]).astype(int).T
            depth = picture(messages, camera.name, "depth", index)[v, u] / 1000.0
            semantic = picture(messages, camera.name, "semantic", index)[v, u]
            z = seen[inside, 2]
            # A pixel of this small image is 0.8 degrees wide: on the road at 20 m that is metres. Compare what is near,
            # and leave out edges, where the LiDAR on the roof sees past what the camera sees.
            near = (z < 15) & (depth > 0)
            error = np.abs(depth[near] - z[near]) / z[near]
            assert near.sum() > 150
            assert np.median(error) < 0.02
            agree = error < 0.1
            assert agree.mean() > 0.85
            assert (semantic[near][agree] == label[inside][near][agree]).mean() > 0.93


def test_labelled_pixels_land_on_the_truth_of_their_class_through_tf(bag, messages):
    # Every labelled pixel, put back into 3D by depth, calibration, mount and the pose at its own stamp, lies in or next
    # to a voxel of its class. Movers that drove on between the stamps are off by 0.15 m at most: less than a voxel.
    mounts = {t.child_frame_id: matrix(t.transform) for t in messages["/tf_static"][0][1].transforms}
    for index in range(2):
        stamp = stamp_ns(messages["/lidar/points"][index][1])
        with np.load(bag / "occupancy" / f"{stamp}.npz") as file:
            truth = file["semantics"]
        padded = np.pad(truth, 1, constant_values=OCC3D_NUSCENES.free)
        base_from_odom = invert(pose_at(messages, stamp))
        for camera in small_rig():
            info = messages[f"/{camera.name}/camera_info"][index][1]
            depth = picture(messages, camera.name, "depth", index) / 1000.0
            semantic = picture(messages, camera.name, "semantic", index)
            v, u = np.nonzero(depth > 0)
            K = info.k.reshape(3, 3)
            z = depth[v, u]
            local = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], -1)
            pose = base_from_odom @ pose_at(messages, stamp_ns(info)) @ mounts[camera.frame_id]
            voxels, inside = OCC3D_GRID.index_of(transform_points(pose, local))
            x, y, z = voxels[inside].T
            wanted, found = semantic[v, u][inside], np.zeros(inside.sum(), bool)
            for dx, dy, dz in np.ndindex(3, 3, 3):
                found |= padded[x + dx, y + dy, z + dz] == wanted
            assert len(found) > 3000 and found.mean() > 0.99


def test_the_truth_has_occ3ds_layout_and_nobody_sees_under_the_road(bag):
    files = sorted((bag / "occupancy").iterdir())
    assert len(files) == 2
    with np.load(files[0]) as file:
        assert sorted(file) == ["mask_camera", "mask_lidar", "semantics"]
        semantics, camera, lidar = file["semantics"], file["mask_camera"], file["mask_lidar"]
    for array in (semantics, camera, lidar):
        assert array.shape == (200, 200, 16) and array.dtype == np.uint8
    assert set(np.unique(semantics)) <= set(range(18)) and set(np.unique(camera)) == {0, 1}
    # Around the car the road lies in the third layer, from -0.2 to 0.2 m; the layers under it are hidden and free.
    around = np.s_[95:106, 98:103]
    assert (semantics[around][..., 2] == 11).all()
    assert not camera[around][..., :2].any() and not lidar[around][..., :2].any()
    assert (semantics[around][..., :2] == OCC3D_NUSCENES.free).all()
    # The front camera, 1.5 m up, looks along x: the air 10 m ahead is seen, what is beside the car, 20 m off, is not.
    assert camera[125, 100, 6] == 1 and camera[100, 50, 6] == 0
    assert lidar[125, 100, 4:8].any()


def test_surfaces_are_sampled_without_gaps():
    # A 1 m x 1 m square at spacing 0.13: its diagonal of 1.414 m needs 11 pieces, (12 * 13) / 2 = 78 points a triangle.
    points, classes, areas = sample_surface(quads([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]]), 0.13)
    assert len(points) == 2 * 78 and (classes == 0).all()
    # Their shares add up to its area of 1 m^2, which faces along z.
    assert areas.sum(0) == pytest.approx([0, 0, 1], abs=1e-6)
    probe = np.random.default_rng(0).uniform(0, 1, (500, 2))
    assert np.linalg.norm(points[None, :, :2] - probe[:, None], axis=2).min(1).max() < 0.13


def test_traffic_keeps_clear_of_the_recording_car_and_of_itself(town):
    assert len(town.traffic.movers) > 60
    vehicles = [m for m in town.traffic.movers if m.wheeled]
    for t in (0.0, 1.3, 2.9):
        x, y, _ = town.drive.plan_pose(t)
        for mover in town.traffic.movers:
            if mover.exists(t):
                mx, my = mover.at(t)
                assert np.hypot(mx - x, my - y) > 0.7
        present = [m for m in vehicles if m.exists(t)]
        places = np.array([m.at(t) for m in present])
        gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 100 * np.eye(len(places))
        assert gaps.min() > 1.2


def test_the_car_drives_on_the_road_and_turns_smoothly(town):
    times = np.arange(0, town.drive.lap, 0.1)
    poses = np.array([town.drive.odom_from_base(t) for t in times])
    speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / 0.1
    assert speed.min() > 3.5 and speed.max() < 9
    forward = poses[:, :3, 0]
    turn = np.arccos(np.clip((forward[1:] * forward[:-1]).sum(1), -1, 1)) / 0.1
    assert turn.max() < 1.1  # rad/s: 4.2 m/s around 7.5 m is 0.56, twice that at most
    along = (np.diff(poses[:, :3, 3], axis=0) * forward[:-1]).sum(1)
    assert (along > 0.95 * speed * 0.1).all()
    down = np.tile([0.0, 0.0, -1.0], (len(times), 1))
    hits = Tracer([town.plan.ground()]).trace(poses[:, :3, 3] + [0, 0, 1.0], down)
    assert (hits.class_id == 11).all()
    assert np.abs(hits.distance - 1.0).max() < 0.05


def test_a_fisheye_camera_sees_the_town_and_its_blind_corners_are_unlabelled(town):
    # Focal length 60 px, equidistant: the image's corner, 113 px out, looks 1.9 rad off axis, past this lens's 1.6 rad.
    mount = town_rig()["cam_front"].base_from_camera
    K = np.array([[60.0, 0, 79.5], [0, 60.0, 79.5], [0, 0, 1]])
    camera = Camera("fish", CameraModel(160, 160, K, "equidistant", (0.0, 0.0, 0.0, 0.0)), mount, "fish")
    taken = CameraRenderer(camera).render(town, Tracer([town.static]), 0.0, np.random.default_rng(0))
    assert taken.image.shape == (160, 160, 3) and taken.semantic.shape == (160, 160)
    assert (taken.depth[taken.semantic == UNLABELLED] == 0).all()
    assert np.isin(taken.semantic, [*OCC3D_NUSCENES.occupied_ids, UNLABELLED]).all()
    # The ground 1.51 m below the camera, straight down at the image's lower edge: z-depth near 0, never negative.
    assert (taken.depth >= 0).all()
    # 45 degrees down, tan 45 = 1: the road's z-depth is the camera's height over it, 1.51 m, pi/4 * 60 = 47 px below.
    assert taken.depth[79 + 47, 79] == pytest.approx(1.51, abs=0.08)


def test_what_moves_behind_a_house_is_left_out_and_what_looks_past_its_corner_is_kept():
    wall = Tracer([box((20, -10, 0), (21, 10, 8))])
    car = box((-2, -1, 0.3), (2, 1, 1.5))

    def at(x, y):
        return np.array([[1.0, 0, 0, x], [0, 1, 0, y], [0, 0, 1, 0], [0, 0, 0, 1]])

    # Seen from the origin, the wall's end at (20, 10) hides up to y = 20 at x = 40; the last car's far end shows.
    models = [(car, at(40, 0)), (car, at(40, 30)), (car, at(10, 0)), (car, at(40, 20.5))]
    kept = in_sight(wall, np.array([0.0, 0, 1.5]), models)
    assert [pose[:2, 3].tolist() for _, pose in kept] == [[40, 30], [10, 0], [40, 20.5]]
    # Within the reach of shadows all is kept, behind a wall too.
    assert len(in_sight(wall, np.array([0.0, 0, 1.5]), [(car, at(25, 0))])) == 1


def test_rays_end_at_the_nearest_of_several_meshes_and_at_the_limit():
    tracer = Tracer([box((5, -1, -1), (6, 1, 1))]).with_moved(box((3, -1, -1), (4, 1, 1)))
    ahead, back = np.float32([1, 0, 0]), np.float32([-1, 0, 0])
    directions = np.stack([ahead, back])
    assert tracer.trace(np.zeros(3), directions).distance.tolist() == [3, np.inf]
    assert tracer.distances(np.zeros(3), directions).tolist() == [3, np.inf]
    assert tracer.distances(np.zeros(3), directions, 2.0).tolist() == [2, 2]
    assert tracer.blocked(np.array([[0, 0, 0], [4.5, 0, 0], [7, 0, 0]]), ahead).tolist() == [True, True, False]


def test_hits_know_their_mesh_whether_it_stands_or_moves():
    # Eleven rays along x, one and a half packets, at y = 0..10: the standing wall is at x = 5 for y < 5.5 and ends
    # there; what moves are plates at x = 3 before y = 2 and at x = 8 before y = 7.
    def plate(x, y0, y1, class_id):
        corners = np.float32([[x, y0, -1], [x, y1, -1], [x, y1, 1], [x, y0, 1]])
        return quads(corners[None], Surface.BRICK, (0.1, 0.2, 0.3)).labelled(class_id)

    still = Tracer([plate(9, 20, 21, 1), plate(5, -0.5, 5.5, 15)])
    tracer = still.with_moved(plate(3, 1.5, 2.5, 4)).with_moved(plate(8, 6.5, 7.5, 7))
    origins = np.stack([np.zeros(11), np.arange(11.0), np.full(11, 0.25)], -1)
    ahead = np.tile(np.float32([1, 0, 0]), (11, 1))
    hits = tracer.trace(origins, ahead)
    inf = np.inf
    assert hits.distance.tolist() == [5, 5, 3, 5, 5, 5, inf, 8, inf, inf, inf]
    assert hits.class_id[hits.hit].tolist() == [15, 15, 4, 15, 15, 15, 7]
    assert (hits.normal[:, hits.hit].T == [-1, 0, 0]).all()  # towards where the rays come from
    reached = origins[hits.hit] + ahead[hits.hit] * hits.distance[hits.hit, None]
    assert hits.point[:, hits.hit].T == pytest.approx(reached)
    assert hits.colour[:, hits.hit].T == pytest.approx(np.tile([0.1, 0.2, 0.3], (7, 1)))
    assert (tracer.distances(origins, ahead) == hits.distance).all()
    assert (tracer.blocked(origins, ahead[0]) == hits.hit).all()
    assert still.blocked(origins, ahead[0]).tolist() == [True] * 6 + [False] * 5
    assert not Tracer([]).trace(origins, ahead).hit.any()


def test_samples_of_a_triangle_share_its_area():
    # Legs of 1 m in spacings of 0.5: the longest edge, 1.41 m, falls into three pieces, the triangle into nine, with
    # 4 * 5 / 2 corners. One inside has 2/9 of 0.5 m^2, six on edges 1/9, the three corners 1/27: nine ninths.
    triangle = quads(np.float32([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]]), Surface.PLAIN, (1, 1, 1)).labelled(4)
    triangle.faces = triangle.faces[:1]
    triangle.surface, triangle.colour, triangle.class_id = (
        column[:1] for column in (triangle.surface, triangle.colour, triangle.class_id)
    )
    points, classes, areas = sample_surface(triangle, 0.5)
    assert points.shape == (10, 3) and classes.tolist() == [4] * 10
    assert sorted(areas[:, 2]) == pytest.approx(sorted([1 / 9] + [1 / 18] * 6 + [1 / 54] * 3))


def test_workers_may_use_every_cpu_though_they_are_forked_on_one(monkeypatch):
    class SensorSimulator:
        def __init__(self, *arguments):
            self.cpus = os.sched_getaffinity(0)

        def work(self, task):
            return [self.cpus, os.sched_getaffinity(0)]

    monkeypatch.setattr("training.simulate.record.SensorSimulator", SensorSimulator)
    everywhere = os.sched_getaffinity(0)
    for before, during in render(None, None, Settings(jobs=2), [(frame, (0,)) for frame in range(4)]):
        assert len(before) == 1 and during == everywhere
    assert os.sched_getaffinity(0) == everywhere


def test_a_tree_for_afar_has_a_third_of_the_leaf_cards_and_the_same_trunk_and_shape():
    near = tree(np.random.default_rng(0))
    far = thinned(near)
    assert 0.3 < len(far.faces) / len(near.faces) < 0.6
    assert np.isfinite(far.vertices).all() and far.faces.max() == len(far.vertices) - 1
    assert (near.surface == Surface.BARK).sum() == (far.surface == Surface.BARK).sum()
    assert far.vertices.max(0) == pytest.approx(near.vertices.max(0), abs=0.5)


def test_the_rig_file_of_the_repository_is_the_rig_of_the_town():
    path = Path(__file__).resolve().parents[1] / "config" / "rigs" / "town_6cam.yaml"
    for stored, made in zip(Rig.load(path), town_rig(), strict=True):
        assert (stored.name, stored.model, stored.frame_id) == (made.name, made.model, made.frame_id)
        assert stored.base_from_camera == pytest.approx(made.base_from_camera, abs=1e-12)  # it went through quaternions


def test_kerbs_stand_14_cm_above_the_road_and_the_ground_has_no_cracks():
    plan = Plan(np.random.default_rng(0))
    street = plan.along_y[1]
    y = (plan.along_x[1].centre + plan.along_x[2].centre) / 2
    road, walk = plan.height(street.centre + street.half - 0.1, y), plan.height(street.centre + street.half + 0.5, y)
    assert walk - road == pytest.approx(0.14, abs=0.03)  # and at most 3 cm of hill over 0.6 m
    ground = plan.ground()
    x0, y0, x1, y1 = plan.extent
    rng = np.random.default_rng(1)
    px, py = plan.bend(rng.uniform(x0 + 20, x1 - 20, 3000), rng.uniform(y0 + 20, y1 - 20, 3000))
    down = np.tile(np.float32([0, 0, -1]), (3000, 1))
    assert Tracer([ground]).trace(np.stack([px, py, px * 0 + 50], -1), down).hit.all()


def test_stripes_are_integrated_over_the_footprint():
    # Stripes 0.5 wide every 2: seen through a footprint of 4 (two periods) they cover a quarter, wherever it lies.
    x = np.array([0.0, 0.3, 1.1])
    assert stripes(x, 2.0, 0.5, np.full(3, 4.0)) == pytest.approx([0.25] * 3)
    # A footprint of 0.2 around 0.5 lies half on the stripe [0, 0.5).
    assert stripes(np.array([0.5]), 2.0, 0.5, np.array([0.2])) == pytest.approx([0.5])
    assert band(np.array([1.0, 2.05]), 1.5, 2.0, np.array([2.0, 0.2])) == pytest.approx([0.25, 0.25])


def test_an_interrupted_recording_leaves_nothing_behind(tmp_path, town, monkeypatch):
    monkeypatch.setattr("training.simulate.record.build_town", lambda *arguments: town)  # saves its time only

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(
            tmp_path / "town",
            small_rig(),
            Settings(seed=3, frames=2, lidar=False, labels=False, truth=False),
            interrupt,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rate", "0"], "rate is 0.0"),
        (["--frames", "0"], "frames is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--rig", "absent.yaml"], "absent.yaml"),
        (["--rig", "r.yaml", "--width", "64"], "--width"),
        (["--random-rig", "--height", "64"], "leave --rig and --height out"),
        (["--random-rig", "--width", "20"], "width is 20"),
        (["--width", "0", "--height", "-3"], "width is 0"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(tmp_path, capsys, arguments, expected):
    assert main([str(tmp_path / "town"), *arguments]) == 2
    text = capsys.readouterr().err
    assert expected in text and text.count("\n") == 1


def test_an_existing_folder_is_never_written_to(tmp_path, capsys):
    (tmp_path / "town").mkdir()
    assert main([str(tmp_path / "town"), "--frames", "1"]) == 2
    assert "exists" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "town")
