"""Jumps of the ego pose: what no vehicle does is found, what vehicles do is not, and nothing is related across it."""

import numpy as np
import pytest
import tiny_bag
from realdata import REALDATA, needs_realdata
from test_check_labelling import CLOUD, STORE, cloud, copied
from tiny_bag import FRAME_NS, LATER_NS, START_NS, Plan, write_bag

from renderocc_model.base.findings import Findings
from renderocc_model.rosio import cdr
from renderocc_model.rosio.motion import JumpWatch, MotionLimits, find_jumps, jumps_of
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_model.rosio.vehicle import Vehicle
from training.check import main as check
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, main, prepare_recording
from training.data.prepare.tables import Tables, TablesError
from training.evaluate.frame_truth import ray_origins
from training.label import main as label
from training.recordings.frames import Recording
from training.recordings.sources import JumpError

S = 1_000_000_000
LIMITS = MotionLimits()
UNIT = (0.0, 0.0, 0.0, 1.0)


def drive(rate: float, speed: float, seconds: float = 10.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (N,) and poses (N, 4, 4) along x."""
    stamps = np.round(np.arange(round(seconds * rate)) * 1e9 / rate).astype(np.int64)
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, 0, 3] = speed * stamps / 1e9
    poses[:, :3, 3] += np.random.default_rng(0).normal(0, noise, (len(stamps), 3))
    return stamps, poses


def turned(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


# ------------------------------------------------------------------------------------------------ which steps are jumps


@pytest.mark.parametrize("rate, speed, noise", [(100, 20, 0.02), (50, 5, 0), (10, 30, 0.1), (2, 60, 0.1), (1, 13, 0.1)])
def test_a_steady_drive_has_no_jump(rate, speed, noise):
    assert jumps_of(*drive(rate, speed, noise=noise), LIMITS) == []


@pytest.mark.parametrize("every", [1, 3, 10])
def test_braking_accelerating_and_turning_hard_are_no_jumps(every):
    # 10 m/s^2 down from 30 m/s, 6 m/s^2 up to 20 m/s, and then a curve of 0.45 rad/s, which are 9 m/s^2 sideways.
    t = np.arange(0, 15, 0.1)
    speed = np.where(t < 5, np.clip(30 - 10 * t, 0, None), np.clip(6 * (t - 5), 0, 20))
    heading = np.where(t < 10, 0, 0.45 * (t - 10))
    poses = np.array([turned(angle) for angle in heading])
    poses[:, 0, 3], poses[:, 1, 3] = np.cumsum(0.1 * speed * np.cos(heading)), np.cumsum(0.1 * speed * np.sin(heading))
    assert jumps_of(np.round(t * S).astype(np.int64)[::every], poses[::every], LIMITS) == []


def test_a_jump_has_the_stamps_of_its_poses_and_its_size():
    stamps, poses = drive(50, 5)
    poses[100:, 1, 3] += 3
    (jump,) = jumps_of(stamps, poses, LIMITS)
    # Pose 99 is at 1.98 s and pose 100 at 2.00 s; 3 m sideways and 0.1 m ahead.
    assert (jump.before_ns, jump.after_ns) == (1_980_000_000, 2_000_000_000)
    assert jump.distance == pytest.approx(np.hypot(3, 0.1)) and jump.turn == pytest.approx(0, abs=1e-9)
    assert str(jump) == "it jumps: moves 3.00 m within 0.020 s (150 m/s)"


@pytest.mark.parametrize(
    "rate, speed, shift",
    [
        (50, 5, (0, 0.7, 0)),  # less than the speed limit allows: 0.35 m in 20 ms and 0.5 m of noise
        (10, 30, (0, 2, 0)),  # to the side of a fast vehicle, whose speed hardly changes
        (10, 30, (-3, 0, 0)),  # stands still for one step
        (1, 1.3, (60, 0, 0)),  # a speed that vehicles have, but not this one before and after
        (20, 10, (0, 0, 2.5)),  # in height
    ],
)
def test_a_step_that_does_not_go_on_from_the_motion_beside_it_is_a_jump(rate, speed, shift):
    stamps, poses = drive(rate, speed)
    middle = len(stamps) // 2
    poses[middle:, :3, 3] += shift
    found = jumps_of(stamps, poses, LIMITS)
    assert [jump.after_ns for jump in found] == [stamps[middle]]


def test_a_sudden_turn_is_a_jump_and_a_fast_one_is_not():
    stamps, poses = drive(50, 0)
    poses[:] = [turned(2.5 * t / S) for t in stamps]  # 143 degrees a second
    assert jumps_of(stamps, poses, LIMITS) == []
    poses[200:] = poses[200:] @ turned(np.radians(20))
    (jump,) = jumps_of(stamps, poses, LIMITS)
    assert jump.turn == pytest.approx(np.radians(20) + 2.5 * 0.02)


def test_one_wrong_pose_is_jumped_to_and_back_from():
    stamps, poses = drive(10, 20)
    poses[40, 0, 3] += 8
    assert [jump.after_ns for jump in jumps_of(stamps, poses, LIMITS)] == [stamps[40], stamps[41]]


def test_two_publishers_that_disagree_jump_at_every_pose():
    stamps, poses = drive(50, 5, 1.0)
    stamps, poses = np.repeat(stamps, 2), np.repeat(poses, 2, axis=0)
    poses[1::2, 0, 3] += 4
    assert len(jumps_of(stamps, poses, LIMITS)) == 99


def test_limits_can_be_set():
    stamps, poses = drive(50, 5)
    poses[100:, 1, 3] += 3
    assert jumps_of(stamps, poses, MotionLimits(max_pose_step=4.0)) == []
    stamps, poses = drive(10, 100)
    assert jumps_of(stamps, poses, MotionLimits(max_speed=120.0)) == []
    assert len(jumps_of(stamps, poses, LIMITS)) == 99  # 10 m a step; 7.5 m are allowed


def test_a_correction_that_comes_seldom_is_not_hidden_by_interpolation():
    buffer = TransformBuffer(history=1e9)
    for step in range(100):
        buffer.set("odom", "base_link", step * S // 50, (step * 0.02, 0, 0), UNIT)
    for step in range(2):
        buffer.set("map", "odom", step * S, (0, 30.0 * step, 0), UNIT)  # 30 m/s, if it were a motion
    assert len(find_jumps(buffer, "odom", "base_link", LIMITS)) == 0
    # Only the poses up to the last correction are in map: 0 to 1 s. The vehicle drives 1 m/s.
    (jump,) = find_jumps(buffer, "map", "base_link", MotionLimits(max_speed=20.0)).items
    assert (jump.before_ns, jump.after_ns) == (0, S) and jump.distance == pytest.approx(np.hypot(30, 1))


def test_moments_are_related_up_to_the_poses_at_a_jump():
    buffer = TransformBuffer(history=1e9)
    for step, x in enumerate([0.0, 0.1, 0.2, 50.3, 50.4]):
        buffer.set("odom", "base_link", step * 100, (x, 0, 0), UNIT)
    jumps = find_jumps(buffer, "odom", "base_link", LIMITS)
    assert [(jump.before_ns, jump.after_ns) for jump in jumps.items] == [(200, 300)]
    related = {(a, b): jumps.between(a, b) is None for a in (200, 201, 300) for b in (100, 200, 201, 300, 400)}
    assert related == {
        (200, 100): True,
        (200, 200): True,
        (200, 201): False,
        (200, 300): False,
        (200, 400): False,
        (201, 100): False,
        (201, 200): False,
        (201, 201): False,
        (201, 300): False,
        (201, 400): False,
        (300, 100): False,
        (300, 200): False,
        (300, 201): False,
        (300, 300): True,
        (300, 400): True,
    }


def followed(places: list[float], rate: int = 50) -> list[tuple[int, int]]:
    """The jumps that a watch finds, looking after every pose; places are along x."""
    buffer = TransformBuffer()
    watch = JumpWatch(buffer, "odom", "base_link", LIMITS)
    found = []
    for step, x in enumerate(places, 1):
        buffer.set("odom", "base_link", step * S // rate, (x, 0, 0), UNIT)
        found += [(jump.before_ns, jump.after_ns) for jump in watch.update()]
    assert watch.count == len(found) == len(watch.jumps)
    return found


def test_a_watch_finds_a_jump_as_soon_as_the_pose_after_it_is_there_and_once():
    step = S // 50
    places = [0.1 * number for number in range(100)]
    assert followed(places) == []
    jumped = [*places[:50], *(x + 7 for x in places[50:])]
    assert followed(jumped) == [(50 * step, 51 * step)]
    once = [*places[:50], places[50] + 7, *places[51:]]
    assert followed(once) == [(50 * step, 51 * step), (51 * step, 52 * step)]


@pytest.mark.parametrize("acceleration", [-9.0, 9.0])
def test_a_watch_takes_hard_braking_for_what_it_is(acceleration):
    # 20 m/s, from one second on changed by 9 m/s^2 for two seconds.
    speed = 20 + acceleration * np.clip(np.arange(200) / 50 - 1, 0, 2)
    assert followed(list(np.cumsum(speed / 50))) == []


def test_a_watch_sees_a_correction_that_comes_seldom_and_begins_anew_when_time_goes_back():
    buffer = TransformBuffer()
    watch = JumpWatch(buffer, "map", "base_link", LIMITS)
    found = []
    for step in range(1, 301):
        buffer.set("odom", "base_link", step * S // 50, (0.02 * step, 0, 0), UNIT)
        if step % 50 == 0:
            buffer.set("map", "odom", step * S // 50, (0, 30.0 * (step >= 200), 0), UNIT)
        found += [(jump.before_ns, jump.after_ns) for jump in watch.update()]
    # Interpolated between its corrections, the pose begins to move by 30 m/s at 3 s and stops at 4 s: two more jumps.
    assert (3 * S, 4 * S) in found and all(2.9 * S < before < after < 4.1 * S for before, after in found)
    buffer.clear()
    buffer.set("map", "odom", S, (0, 0, 0), UNIT)
    buffer.set("odom", "base_link", S, (0, 0, 0), UNIT)
    assert watch.update() == [] and len(watch.jumps) == 0


def test_a_watch_without_odometry_finds_nothing():
    assert JumpWatch(TransformBuffer(), "", "base_link", LIMITS).update() == []
    assert JumpWatch(TransformBuffer(), "odom", "base_link", LIMITS).update() == []


# -------------------------------------------------------------------------------------------------------- in recordings


def with_jump(folder, monkeypatch, at_s: float):
    """Eight frames, 0.5 s apart, whose poses, one every 20 ms, are 40 m to the left from a time on."""
    true = tiny_bag.odom_from_base

    def pose(stamp_ns):
        shifted = true(stamp_ns)
        shifted[1, 3] += 40.0 * (stamp_ns >= START_NS + round(at_s * S))
        return shifted

    monkeypatch.setattr(tiny_bag, "odom_from_base", pose)
    return write_bag(folder, Plan(frames=8))


@pytest.fixture
def jumping(tmp_path, monkeypatch):
    """A jump between the poses at 1.48 s and 1.50 s, where frame 3 is."""
    return with_jump(tmp_path / "drive", monkeypatch, 1.49)


def test_a_recording_relates_nothing_across_a_jump(jumping):
    before, after = START_NS + 2 * FRAME_NS, START_NS + 3 * FRAME_NS
    with Recording(jumping) as recording:
        assert recording.related(before, before + LATER_NS) and not recording.related(before, after)
        recording.base_from_camera("wide", before + LATER_NS, before)
        with pytest.raises(JumpError, match=r"1700000001\.500 s \(\+1\.600 s .*moves 40\.0.* m within 0\.020 s"):
            recording.base_from_camera("wide", after + LATER_NS, before)
        with pytest.raises(JumpError, match="jumps"):
            recording.odom_from_base(after - 10_000_000)


def test_training_takes_no_rays_and_no_views_from_the_other_side(jumping, tmp_path):
    out = tmp_path / "tables"
    tables = Tables(prepare_recording(jumping, None, out, PrepareConfig()))
    assert tables.pieces.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    config = SampleConfig(height=32, width=64, rays=4000, previous=2)
    dataset = RayDataset(out, config)
    offsets = [set(dataset.sample(0, index).rays.frame_offsets.tolist()) for index in range(8)]
    assert offsets[2] == {-2, -1, 0} and offsets[3] == {0, 1, 2, 3} and offsets[5] == {-2, -1, 0, 1, 2}
    assert [len(dataset.sample(0, index).previous) for index in range(8)] == [0, 1, 2, 0, 1, 2, 2, 2]
    for index in range(8):
        # The cameras are within 2 m of base_link; over three frames the vehicle drives 3 m.
        assert np.abs(dataset.sample(0, index).rays.origins.numpy()).max() < 5.0
        assert np.abs(dataset.rays_of(index, offsets=(-3, -2, -1, 1, 2, 3)).origins.numpy()).max() < 5.0


def test_a_frame_loses_the_images_that_are_on_the_other_side(tmp_path, monkeypatch):
    # Between 1.50 s and 1.52 s: frame 3 of the front camera is before it, and its image of the wide one, 30 ms later,
    # after it. The moments are those of the front camera.
    bag = with_jump(tmp_path / "drive", monkeypatch, 1.51)
    tables = Tables(prepare_recording(bag, None, tmp_path / "tables", PrepareConfig()))
    assert (tables.image_stamps > 0).tolist() == [[True, True]] * 3 + [[True, False]] + [[True, True]] * 4
    assert tables.pieces.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_frame_inside_a_jump_is_left_out(tmp_path, monkeypatch):
    # Between 1.52 s and 1.54 s; frame 3 of the wide camera is at 1.53 s, where there is no pose.
    bag = with_jump(tmp_path / "drive", monkeypatch, 1.53)
    tables = Tables(prepare_recording(bag, None, tmp_path / "tables", PrepareConfig(anchor="wide")))
    assert [(stamp - START_NS - LATER_NS) // FRAME_NS for stamp in tables.stamps] == [0, 1, 2, 4, 5, 6, 7]
    assert tables.pieces.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_rays_of_rayiou_begin_only_where_the_vehicle_was_without_a_jump(jumping, tmp_path):
    tables = Tables(prepare_recording(jumping, None, tmp_path / "tables", PrepareConfig()))
    from renderocc_model.geometry.grid import OCC3D_GRID

    origins = ray_origins(tables, 0, OCC3D_GRID)
    assert np.abs(origins[:, 1]).max() < 1.0  # the jump is 40 m along y, at the edge of the grid


def test_tables_without_pieces_are_one_and_wrong_pieces_are_refused(jumping, tmp_path):
    import json

    folder = prepare_recording(jumping, None, tmp_path / "tables", PrepareConfig())
    header = json.loads((folder / "header.json").read_text())
    assert header["piece_starts"] == [3] and "1700000001.500 s" in header["warnings"][0]
    for starts, message in (([0], "piece_starts"), ([3, 3], "piece_starts"), ([8], "piece_starts"), (["a"], "header")):
        (folder / "header.json").write_text(json.dumps(header | {"piece_starts": starts}))
        with pytest.raises(TablesError, match=message):
            Tables(folder)
    del header["piece_starts"]
    (folder / "header.json").write_text(json.dumps(header))
    assert Tables(folder).pieces.tolist() == [0] * 8


def test_check_and_prepare_name_the_jump_once_with_its_time_and_size(jumping, tmp_path, capsys):
    assert check([str(jumping)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "jump" in line]
    assert len(lines) == 1 and lines[0].startswith("warn  ego motion: /tf: at 1700000001.500 s (+1.600 s into")
    assert "moves 40.0" in lines[0]
    assert check([str(jumping), "--max-pose-step", "50"]) == 0
    assert "jump" not in capsys.readouterr().out
    assert main([str(jumping), "--out", str(tmp_path / "tables"), "--jobs", "1"]) == 0
    assert capsys.readouterr().err.count("drive: ego pose on /tf: at 1700000001.500 s") == 1


def test_nothing_that_is_inside_jumps_can_be_prepared(tmp_path, monkeypatch, capsys):
    true = tiny_bag.odom_from_base
    poses = list(range(START_NS - 101_000_000, START_NS + 2 * S, 20_000_000))

    def pose(stamp_ns):
        shifted = true(stamp_ns)
        shifted[1, 3] += 40.0 * (poses.index(stamp_ns) % 2)
        return shifted

    monkeypatch.setattr(tiny_bag, "odom_from_base", pose)
    bag = write_bag(tmp_path / "two_publishers", Plan(frames=4, poses=poses))
    assert main([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"]) == 2
    assert "all 4 frames are inside jumps" in capsys.readouterr().err
    with Recording(bag) as recording:
        texts = recording.jumps.texts(recording.time_text)
    assert len(texts) == 6 and "times more" in texts[-1]


@needs_realdata
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["ddad_6cam", "nuscenes_keyframe", "fisheye_4cam"])
def test_real_recordings_have_no_jump(name):
    with Recording(REALDATA / name, max_pose_gap=2.0) as recording:
        assert len(recording.jumps) == 0


def test_the_doctor_names_the_jump(jumping):
    pytest.importorskip("rclpy")
    from renderocc_ros.commands.doctor.bag import check_bag
    from renderocc_ros.parameters import NodeConfig

    findings = Findings()
    check_bag(findings, jumping, NodeConfig())
    lines = [item.line() for item in findings.items if item.level != "ok" and "jump" in item.text]
    assert len(lines) == 1 and "1700000001.500 s" in lines[0] and "moves 40.0" in lines[0]


def test_no_image_is_labelled_with_a_cloud_from_the_other_side(tmp_path, monkeypatch, capsys):
    # Between 1.50 s and 1.52 s: the cloud at 1.50 s labels the front image of 1.50 s, but not the wide one of 1.53 s.
    bag = with_jump(tmp_path / "drive", monkeypatch, 1.51)
    stamps = [START_NS + frame * FRAME_NS for frame in range(8)]
    points = np.random.default_rng(0).uniform((5, -5, 0), (20, 5, 3), (500, 3))
    added = [(at + 1000, "/lidar/points", CLOUD, cloud(at, points)) for at in stamps]
    made = copied(bag, tmp_path / "made", added)
    assert label([str(made)]) == 0
    said = capsys.readouterr()
    assert "at 1700000001.520 s" in said.err and "it jumps: moves 40." in said.err
    assert "1 images without labels, first wide at 1700000001.530 s" in said.out
    with Recording(made, tmp_path / "made_labels") as recording:
        assert all(recording.has_labels("front", at, ["depth"]) for at in stamps)
        assert [recording.has_labels("wide", at + LATER_NS, ["depth"]) for at in stamps] == [
            at != stamps[3] for at in stamps
        ]


@pytest.mark.parametrize("command", [check, label])
def test_a_limit_that_is_no_number_is_named(jumping, capsys, command):
    assert command([str(jumping), "--max-speed", "nan"]) == 2
    assert "max_speed' is nan" in capsys.readouterr().err


def with_last_frame_moved(bag, folder, by: float):
    """A copy of a recording whose poses are moved to the left from 1.5 s on, which are those of its third frame."""
    store = STORE.types

    def change(topic, data):
        if topic != "/tf":
            return data
        moved = []
        for item in cdr.read_tf(data):
            x, y, z = item.translation
            y += by * (item.stamp_ns >= START_NS + 3 * S // 2)
            stamp = store["builtin_interfaces/msg/Time"](sec=item.stamp_ns // S, nanosec=item.stamp_ns % S)
            moved.append(
                store["geometry_msgs/msg/TransformStamped"](
                    header=store["std_msgs/msg/Header"](stamp=stamp, frame_id=item.parent),
                    child_frame_id=item.child,
                    transform=store["geometry_msgs/msg/Transform"](
                        translation=store["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
                        rotation=store["geometry_msgs/msg/Quaternion"](**dict(zip("xyzw", item.quaternion))),
                    ),
                )
            )
        kind = "tf2_msgs/msg/TFMessage"
        return bytes(STORE.serialize_cdr(store[kind](transforms=moved), kind))

    return copied(bag, folder, change=change)


@needs_realdata
@pytest.mark.realdata
@pytest.mark.slow
def test_no_ray_of_a_real_drive_begins_far_from_its_camera_when_the_last_frames_poses_are_moved(tmp_path):
    bag = with_last_frame_moved(REALDATA / "ddad_6cam", tmp_path / "drive", 60.0)
    assert label([str(bag), "--max-pose-gap", "2"]) == 0
    farthest = {}
    for name, motion in (("split", MotionLimits()), ("unsplit", MotionLimits(max_speed=1000.0, max_pose_step=1000.0))):
        out = tmp_path / name
        config = PrepareConfig(vehicle=Vehicle(motion=motion), max_pose_gap=2.0)
        tables = Tables(prepare_recording(bag, None, out, config))
        dataset = RayDataset(out, SampleConfig(height=64, width=176, rays=20_000))
        with Recording(bag, vehicle=Vehicle(motion=motion), max_pose_gap=2.0) as recording:
            mounts = np.array([recording.mount(camera)[:3, 3] for camera in recording.cameras])
        distances = []
        for index in range(len(tables.stamps)):
            for rays in (dataset.sample(0, index).rays, dataset.rays_of(index, offsets=(-2, -1, 0, 1, 2))):
                origins = rays.origins.numpy().astype(np.float64)
                assert len(origins) > 1000
                distances.append(np.linalg.norm(origins[:, None] - mounts, axis=2).min(axis=1).max())
        farthest[name] = max(distances)
    assert farthest["split"] < 5.0 and farthest["unsplit"] > 50.0
