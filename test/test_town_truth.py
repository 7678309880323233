"""The town's labels, stamps, TF and 3D truth agree: labelled pixels lie on it, and the way to them is free."""

from itertools import product

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.geometry.transforms import transform_points
from training.recordings.frames import Recording
from training.simulate.record import Settings, record
from training.simulate.sensors import town_rig
from training.simulate.surface_samples import solid

pytestmark = pytest.mark.slow

FREE = OCC3D_NUSCENES.free
STRIDE = 3  # of the pixels each way that are looked at
AUXILIARY = [offset for offset in range(-3, 4) if offset]


def lenses() -> Rig:
    """Three pinhole cameras, one distorted and one fisheye, all around the car."""
    rig = town_rig(264, 96)
    distorted = rig["cam_front_left"]
    model = CameraModel(264, 96, distorted.model.K, "plumb_bob", (-0.12, 0.03, 0.001, -0.0008, 0.0))
    fish = CameraModel(
        160, 120, np.array([[70.0, 0, 79.5], [0, 70.0, 59.5], [0, 0, 1]]), "equidistant", (0.02, -0.004, 0.0, 0.0)
    )
    return Rig(
        (
            rig["cam_front"],
            Camera("cam_front_left", model, distorted.base_from_camera, distorted.frame_id),
            rig["cam_back"],
            rig["cam_back_right"],
            Camera("fish", fish, rig["cam_front_right"].base_from_camera, "fish"),
        )
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Seven frames at 2 Hz, 24 m of driving: frame 3 has all six auxiliary frames."""
    folder = tmp_path_factory.mktemp("truth") / "town"
    record(folder, lenses(), Settings(seed=7, frames=7, lidar=False))
    with Recording(folder) as recording:
        yield recording


def truth_of(recording, frame):
    with np.load(recording.truth_path(frame.stamp_ns)) as file:
        return file["semantics"]


def rays(recording, frame, camera, now_ns):
    """Labelled pixels of one image as rays in base_link at `now_ns`, by the calibration and poses of the recording.

    Returns:
        origin (3,), unit directions (R, 3), distances (R,), classes (R,), and whether a ray meets its surface at more
        than 15 degrees, (R,): the surface through it and the pixels beside it.
    """
    stamp = frame.images[camera]
    depth = recording.depth(camera, stamp).astype(float)
    semantic = recording.semantic(camera, stamp)
    model, base_from_camera = recording.models[camera], recording.base_from_camera(camera, stamp, now_ns)
    v, u = np.mgrid[: model.height, : model.width].reshape(2, -1)
    directions = model.unproject(np.stack([u, v], -1).astype(float))
    along = depth.ravel() / directions[:, 2]  # z-depth to distance
    valid = (depth.ravel() > 0) & np.isfinite(directions).all(1) & (directions[:, 2] > 1e-3)
    points = np.where(valid[:, None], directions * np.where(valid, along, 0)[:, None], np.nan).reshape(*depth.shape, 3)
    normals = np.full_like(points, np.nan)
    normals[1:-1, 1:-1] = np.cross(points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1])
    steepness = np.abs((normals.reshape(-1, 3) * directions).sum(1)) / np.linalg.norm(normals.reshape(-1, 3), axis=1)
    chosen = valid & (u % STRIDE == 1) & (v % STRIDE == 1)
    turned = directions[chosen] @ base_from_camera[:3, :3].T
    return (
        base_from_camera[:3, 3],
        turned,
        along[chosen],
        semantic.ravel()[chosen],
        steepness[chosen] > np.sin(np.radians(15)),
    )


def lands(truth, points, classes):
    """(found, looked at): points inside the grid that lie in a voxel of their class or have one among the 26 beside."""
    padded = np.pad(truth, 1, constant_values=FREE)
    index, inside = OCC3D_GRID.index_of(points)
    x, y, z = index[inside].T
    found = np.zeros(len(x), bool)
    for dx, dy, dz in product(range(3), repeat=3):
        found |= padded[x + dx, y + dy, z + dz] == classes[inside]
    return found.sum(), len(found)


def passed(origin, directions, distances):
    """Voxels inside the grid that rays cross until one voxel short of their end: (V, 3), and each one's ray.

    A ray changes its voxel where it crosses a plane between voxels; in the middle between two crossings it is inside
    one. The ray has come to its return in a voxel next to the return's, as a pixel that lands next to its voxel has.
    """
    crossings = [np.zeros((len(distances), 1)), distances[:, None]]
    for axis, count in enumerate(OCC3D_GRID.shape):
        planes = OCC3D_GRID.lower[axis] + OCC3D_GRID.voxel_size * np.arange(count + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings.append((planes - origin[axis]) / directions[:, axis : axis + 1])
    at = np.concatenate(crossings, 1)
    at = np.sort(np.where((at >= 0) & (at <= distances[:, None]), at, np.nan), 1)  # NaN last
    ray, step = np.nonzero(np.diff(at, axis=1) > 1e-9)
    middle = (at[ray, step] + at[ray, step + 1]) / 2
    index, inside = OCC3D_GRID.index_of(origin + directions[ray] * middle[:, None])
    end = np.floor((origin + directions * distances[:, None] - OCC3D_GRID.lower) / OCC3D_GRID.voxel_size)
    inside &= np.abs(index - end[ray]).max(1) > 1
    return index[inside], ray[inside]


def occupied_share(truth, origin, directions, distances):
    """(occupied, passed) voxels in the truth, over all rays."""
    index, _ = passed(origin, directions, distances)
    return (truth[tuple(index.T)] != FREE).sum(), len(index)


def test_every_class_occurs(town):
    seen = set()
    for frame in town.frames():
        seen |= set(np.unique(truth_of(town, frame)).tolist())
    assert seen == set(range(18))


def test_labelled_pixels_lie_on_the_truth_and_the_way_to_them_is_free(town):
    land, way = np.zeros(2), np.zeros(2)
    for frame in town.frames():
        truth = truth_of(town, frame)
        for camera in town.cameras:
            origin, directions, distances, classes, steep = rays(town, frame, camera, frame.stamp_ns)
            points = origin + directions * distances[:, None]
            counted = lands(truth, points, classes)
            assert counted[0] > 0.97 * counted[1], (frame.stamp_ns, camera)  # no single camera or frame is off
            land += counted
            steep &= OCC3D_GRID.index_of(points)[1]
            way += occupied_share(truth, origin, directions[steep], distances[steep])
    assert land[1] > 30_000 and way[1] > 500_000
    assert land[0] / land[1] >= 0.99
    assert way[0] / way[1] <= 0.01


def test_auxiliary_rays_of_what_stands_still_agree_with_the_truth_after_ego_motion(town):
    frames = town.frames()
    now = frames[3]
    truth = truth_of(town, now)
    driven = np.linalg.norm(town.odom_from_base(frames[6].stamp_ns)[:3, 3] - town.odom_from_base(now.stamp_ns)[:3, 3])
    assert driven > 5
    land, way = np.zeros(2), np.zeros(2)
    for offset in AUXILIARY:
        frame = frames[3 + offset]
        for camera in town.cameras:
            origin, directions, distances, classes, steep = rays(town, frame, camera, now.stamp_ns)
            points = origin + directions * distances[:, None]
            static = ~np.isin(classes, OCC3D_NUSCENES.dynamic)
            land += lands(truth, points[static], classes[static])
            steep &= static & OCC3D_GRID.index_of(points)[1]
            way += occupied_share(_without_movers(truth), origin, directions[steep], distances[steep])
    assert land[1] > 20_000
    assert land[0] / land[1] >= 0.99
    assert way[0] / way[1] <= 0.01


def _without_movers(truth):
    """The truth of what stands still: a car that is there now was not when another frame looked there."""
    return np.where(np.isin(truth, OCC3D_NUSCENES.dynamic), FREE, truth)


def test_a_wrong_clock_would_be_noticed(town):
    # With the images' stamps 0.3 s late, 2 m of driving, pixels miss what they show: the measure above can fail.
    frame = town.frames()[3]
    late = town.odom_from_base(frame.stamp_ns + 300_000_000)
    shift = np.linalg.inv(town.odom_from_base(frame.stamp_ns)) @ late
    origin, directions, distances, classes, steep = rays(town, frame, "cam_front", frame.stamp_ns)
    points = transform_points(shift, origin + directions * distances[:, None])
    found, count = lands(truth_of(town, frame), points, classes)
    assert found / count < 0.99
    turned = directions @ shift[:3, :3].T
    found, count = occupied_share(
        truth_of(town, frame), shift[:3, :3] @ origin + shift[:3, 3], turned[steep], distances[steep]
    )
    assert found / count > 0.01


def test_rays_pass_the_voxels_that_they_cross():
    # Along x from 0.2, in the voxel from 0 to 0.4, the 100th, for 2.1 m: it ends at 2.3 in the voxel from 2.0, the
    # 105th. One short of that is the 104th; it passes 100 to 103.
    index, ray = passed(np.array([0.2, 0.2, 0.0]), np.array([[1.0, 0, 0]]), np.array([2.1]))
    assert index[:, 0].tolist() == [100, 101, 102, 103] and (ray == 0).all()
    assert (index[:, 1:] == [100, 2]).all()


def test_a_surface_is_one_voxel_thick_and_has_no_holes():
    # A road that rises through two layers: 0.7 of each face in the lower and 0.3 in the upper, then the other way
    # round.
    facing, labels = np.zeros((6, 6, 3, 3)), np.full((6, 6, 3), 11)
    facing[:3, :, 0, 2], facing[:3, :, 1, 2] = 0.7, 0.3
    facing[3:, :, 0, 2], facing[3:, :, 1, 2] = 0.3, 0.7
    kept = solid(facing, labels)
    assert kept[:3, :, 0].all() and kept[3:, :, 1].all() and kept.sum() == 36


def test_thin_things_are_kept_and_edges_that_poke_into_a_voxel_are_not():
    facing, labels = np.zeros((6, 6, 4, 3)), np.full((6, 6, 4), 15)
    facing[:, 0, :, 1] = 1.0  # a wall that faces y
    facing[:, 1, 2, 2] = 0.3  # its sill: under a whole face, beside the wall
    facing[4, 4, :, 0] = 0.2  # a pole, alone
    kept = solid(facing, labels)
    assert kept[:, 0].all() and kept[4, 4].all() and not kept[:, 1].any()
    assert not solid(np.zeros_like(facing), labels).any()
