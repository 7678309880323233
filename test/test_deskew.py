"""Deskewing: points of a scan are where they were seen, although the vehicle drove during the scan."""

import numpy as np
import pytest
import tiny_bag
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from test_check_labelling import copied
from tiny_bag import FRAME_NS, START_NS, Plan, odom_from_base, write_bag

from renderocc_model.geometry.transforms import invert, transform_points
from training.check import main as check
from training.label import main as label
from training.label.deskew import moved_along
from training.label.scans import scan_times
from training.recordings.frames import Recording
from training.recordings.stamped_topic import StampedTopic

CLOUD = "sensor_msgs/msg/PointCloud2"
LIVOX = "livox_ros_driver2/msg/CustomMsg"
STORE = get_typestore(Stores.ROS2_JAZZY)
for _name, _text in {
    "livox_ros_driver2/msg/CustomPoint": "uint32 offset_time\nfloat32 x\nfloat32 y\nfloat32 z\n"
    "uint8 reflectivity\nuint8 tag\nuint8 line",
    LIVOX: "std_msgs/Header header\nuint64 timebase\nuint32 point_num\nuint8 lidar_id\nuint8[3] rsvd\n"
    "livox_ros_driver2/CustomPoint[] points",
}.items():
    STORE.register(get_types_from_msg(_text, _name))
SCAN_NS = 100_000_000


def header(stamp_ns: int):
    time = STORE.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="base_link")


def world() -> np.ndarray:
    """Points of a scene ahead of the vehicle, in odom."""
    return np.random.default_rng(0).uniform((6, -6, 0), (25, 6, 3), (800, 3))


def scan(stamp_ns: int, driving: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) that a LiDAR at base_link sees, each at its own time if `driving`, and their nanoseconds."""
    points = world()
    times = np.linspace(0, SCAN_NS, len(points), endpoint=False).astype(np.uint32)
    if not driving:
        return transform_points(invert(odom_from_base(stamp_ns)), points), times
    # Each point by the exact pose at its time, which is not made of the poses on /tf.
    seen = [transform_points(invert(odom_from_base(stamp_ns + int(t))), p) for p, t in zip(points, times)]
    return np.array(seen), times


def cloud(stamp_ns: int, driving: bool, timed: bool) -> bytes:
    points, times = scan(stamp_ns, driving)
    field = STORE.types["sensor_msgs/msg/PointField"]
    fields = [field(name=axis, offset=4 * i, datatype=7, count=1) for i, axis in enumerate("xyz")]
    columns = [points.astype("<f4").view(np.uint8).reshape(len(points), 12)]
    if timed:
        fields.append(field(name="t", offset=12, datatype=6, count=1))
        columns.append(times[:, None].astype("<u4").view(np.uint8))
    rows = np.concatenate(columns, axis=1)
    message = STORE.types[CLOUD](
        header=header(stamp_ns),
        height=1,
        width=len(rows),
        fields=fields,
        is_bigendian=False,
        point_step=rows.shape[1],
        row_step=rows.size,
        is_dense=True,
        data=rows.ravel(),
    )
    return bytes(STORE.serialize_cdr(message, CLOUD))


def livox(stamp_ns: int) -> bytes:
    points, times = scan(stamp_ns, True)
    kind = STORE.types["livox_ros_driver2/msg/CustomPoint"]
    made = [
        kind(offset_time=int(t), x=float(x), y=float(y), z=float(z), reflectivity=1, tag=0, line=0)
        for (x, y, z), t in zip(points, times)
    ]
    message = STORE.types[LIVOX](
        header=header(stamp_ns),
        timebase=stamp_ns,
        point_num=len(made),
        lidar_id=0,
        rsvd=np.zeros(3, np.uint8),
        points=made,
    )
    return bytes(STORE.serialize_cdr(message, LIVOX))


@pytest.fixture
def fast(monkeypatch):
    """The vehicle drives 15 m/s and turns by 0.6 rad/s."""
    from renderocc_model.geometry.transforms import transform_from

    def pose(stamp_ns):
        t = (stamp_ns - START_NS) / 1e9
        return transform_from((15 * t, 0.5 * t, 0), (0, 0, np.sin(0.3 * t), np.cos(0.3 * t)))

    monkeypatch.setattr(tiny_bag, "odom_from_base", pose)
    monkeypatch.setitem(globals(), "odom_from_base", pose)


def drive(folder, make, kind=CLOUD, frames=2):
    """A recording whose clouds begin at the frames' stamps."""
    poses = list(range(START_NS - 100_000_000, START_NS + (frames - 1) * FRAME_NS + 200_000_000, 20_000_000))
    bag = write_bag(folder / "plain", Plan(frames=frames, labels=lambda *_: None, poses=poses))
    stamps = [START_NS + frame * FRAME_NS for frame in range(frames)]
    return copied_here(bag, folder / "drive", [(at + 1000, "/lidar/points", kind, make(at)) for at in stamps])


def copied_here(bag, folder, added):
    import test_check_labelling

    before = test_check_labelling.STORE
    test_check_labelling.STORE = STORE
    try:
        return copied(bag, folder, added)
    finally:
        test_check_labelling.STORE = before


def depths(bag, out, *options) -> dict:
    assert label([str(bag), "--out", str(out), "--keep-hidden", *options]) == 0
    with Recording(bag, out) as recording:
        stamps = {camera: recording.stamps[camera] for camera in recording.cameras}
        return {(camera, at): recording.depth(camera, at) for camera in stamps for at in stamps[camera]}


def agreement(got: dict, right: dict) -> float:
    """Share of labelled pixels whose depth differs by less than 5 cm from the right one; of those that both label."""
    good = total = 0
    for key, depth in got.items():
        both = (depth > 0) & (right[key] > 0)
        good += int((np.abs(depth - right[key])[both] < 0.05).sum())
        total += max(int(np.count_nonzero(depth)), int(np.count_nonzero(right[key])))
    return good / total


def test_points_are_moved_by_the_pose_at_their_time():
    # From the origin, a quarter turn about z and 2 m along x, in steps of one degree; half way: 45 degrees and 1 m.
    angles = np.radians(np.linspace(0, 90, 91))
    poses = np.tile(np.eye(4), (91, 1, 1))
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(angles)
    poses[:, 1, 0], poses[:, 0, 1] = np.sin(angles), -np.sin(angles)
    poses[:, 0, 3] = np.linspace(0, 2, 91)
    knots = np.linspace(-0.1, 0.1, 91)
    points = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 3], [1, 0, 0]])
    moved = moved_along(knots, poses, np.array([-0.1, 0.0, 0.1, 0.1]), points)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(moved, [[1, 0, 0], [1 + half, half, 0], [2, 0, 3], [2, 1, 0]], atol=1e-6)


def test_a_scan_while_driving_gives_the_labels_of_one_without_motion(tmp_path, fast):
    still = drive(tmp_path / "still", lambda at: cloud(at, False, False))
    moving = drive(tmp_path / "moving", lambda at: cloud(at, True, True))
    right = depths(still, tmp_path / "right")
    assert agreement(depths(moving, tmp_path / "deskewed"), right) > 0.98
    # At 15 m/s points are up to 1.5 m too near.
    assert agreement(depths(moving, tmp_path / "skewed", "--no-deskew"), right) < 0.3


def test_livox_messages_are_read_and_deskewed(tmp_path, fast, capsys):
    still = drive(tmp_path / "still", lambda at: cloud(at, False, False))
    moving = drive(tmp_path / "moving", livox, LIVOX)
    assert check([str(moving), "--no-labels"]) == 0
    said = capsys.readouterr().out
    assert f"topic /lidar/points: {LIVOX}" in said
    assert "deskewing: /lidar/points, field 'offset_time' (ns, after the stamp)" in said
    assert agreement(depths(moving, tmp_path / "out"), depths(still, tmp_path / "right")) > 0.98
    assert "deskewing: /lidar/points, field 'offset_time' (ns, after the stamp)" in capsys.readouterr().err


def notes_of(bag, switched_off=False):
    with Recording(bag) as recording:
        return scan_times(recording, StampedTopic(recording.bag, "/lidar/points"), switched_off)


def test_clouds_without_times_are_a_warning_where_the_vehicle_moves(tmp_path, fast, capsys):
    bag = drive(tmp_path / "untimed", lambda at: cloud(at, False, False))
    times, notes = notes_of(bag)
    assert times is None and "no field with the time of each point, only x, y, z" in notes["deskewing"]
    # 15 m/s for 0.1 s, and a little to the side.
    assert "drives up to 1.50 m during a scan of 0.10 s" in notes["warning"] and "--no-deskew" in notes["warning"]
    assert "warning" not in notes_of(bag, True)[1]
    label([str(bag)])
    assert "warning: /lidar/points cannot be deskewed" in capsys.readouterr().err


def test_clouds_of_an_imported_dataset_are_deskewed_already(tmp_path, fast):
    bag = drive(tmp_path / "imported", lambda at: cloud(at, False, False))
    (bag / "import.json").write_text("{}")
    assert notes_of(bag) == (None, {"deskewing": "none: the dataset's clouds are deskewed already"})


def test_clouds_without_times_are_no_warning_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_bag, "odom_from_base", lambda stamp_ns: np.eye(4))
    times, notes = notes_of(drive(tmp_path, lambda at: cloud(at, False, False)))
    assert times is None and "warning" not in notes


def test_a_scan_that_the_ego_pose_jumps_in_labels_nothing(tmp_path, fast, monkeypatch, capsys):
    true = tiny_bag.odom_from_base

    def pose(stamp_ns):
        shifted = true(stamp_ns)
        shifted[1, 3] += 40.0 * (stamp_ns >= START_NS + FRAME_NS + 50_000_000)
        return shifted

    monkeypatch.setattr(tiny_bag, "odom_from_base", pose)
    bag = drive(tmp_path, lambda at: cloud(at, True, True), frames=3)
    assert label([str(bag)]) == 0
    assert "2 images without labels, first front at 1700000000.500 s" in (said := capsys.readouterr().out)
    assert "cannot be deskewed" in said and "jumps: moves 40." in said


def test_a_scan_that_goes_on_after_the_last_pose_is_left_out_and_named(tmp_path, fast, capsys):
    poses = list(range(START_NS - 100_000_000, START_NS + FRAME_NS + 50_000_000, 20_000_000))
    bag = write_bag(tmp_path / "plain", Plan(frames=2, labels=lambda *_: None, poses=poses))
    added = [(at, "/lidar/points", CLOUD, cloud(at, True, True)) for at in (START_NS, START_NS + FRAME_NS)]
    made = copied_here(bag, tmp_path / "drive", added)
    assert label([str(made)]) == 0
    said = capsys.readouterr().out
    assert "2 images without labels" in said and "cannot be deskewed" in said and "no ego pose on /tf" in said
