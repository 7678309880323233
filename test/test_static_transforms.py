"""A static frame that is published twice with other values: every command names it, its time and the difference."""

import numpy as np
import pytest
from test_check_labelling import STORE, copied
from tiny_bag import FRAME_NS, RIG, START_NS, Plan, write_bag

from renderocc_model.base.findings import Findings
from renderocc_model.geometry.transforms import quaternion_from_matrix
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import read_header
from training.recordings.frames import Recording

TFM = "tf2_msgs/msg/TFMessage"


def static(stamp_ns: int, parent: str, child: str, mount: np.ndarray) -> bytes:
    kinds = STORE.types
    x, y, z = map(float, mount[:3, 3])
    rotation = dict(zip("xyzw", map(float, quaternion_from_matrix(mount[:3, :3]))))
    time = kinds["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    transform = kinds["geometry_msgs/msg/TransformStamped"](
        header=kinds["std_msgs/msg/Header"](stamp=time, frame_id=parent),
        child_frame_id=child,
        transform=kinds["geometry_msgs/msg/Transform"](
            translation=kinds["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
            rotation=kinds["geometry_msgs/msg/Quaternion"](**rotation),
        ),
    )
    return bytes(STORE.serialize_cdr(kinds[TFM](transforms=[transform]), TFM))


def again(folder, moved: float, turned: float = 0.0, parent: str = "base_link"):
    """A recording whose front camera is published again at its second frame, further ahead and turned to the left."""
    mount = RIG["front"].base_from_camera.copy()
    c, s = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    mount[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ mount[:3, :3]
    mount[0, 3] += moved
    at = START_NS + FRAME_NS
    bag = write_bag(folder / "once", Plan(frames=3))
    return copied(bag, folder / "drive", [(at, "/tf_static", TFM, static(at, parent, "front_optical", mount))])


def said_by(bag, folder, capsys) -> dict[str, list[str]]:
    """{command: its warnings}."""
    pytest.importorskip("rclpy")
    from renderocc_ros.commands.doctor.bag import check_bag
    from renderocc_ros.parameters import NodeConfig

    check([str(bag)])
    said = {"check": [line for line in capsys.readouterr().out.splitlines() if line.startswith(("warn", "FAIL"))]}
    with Recording(bag) as recording:
        said["label"] = recording.warnings()  # which it prints
    header = read_header(prepare_recording(bag, None, folder / "tables", PrepareConfig()))
    said["prepare"] = header.get("warnings", [])
    findings = Findings()
    check_bag(findings, bag, NodeConfig())
    said["doctor"] = [item.line() for item in findings.items if item.level != "ok"]
    return said


@pytest.mark.parametrize(
    "moved, turned, difference",
    [(0.3, 0, "0.300 m and 0.00"), (0, 2, "0.000 m and 2.00"), (1.5, 90, "1.500 m and 90.00")],
)
def test_other_values_are_named_by_every_command_once(tmp_path, capsys, moved, turned, difference):
    said = said_by(again(tmp_path, moved, turned), tmp_path, capsys)
    for command, lines in said.items():
        fitting = [line for line in lines if "frame 'front_optical' is published on /tf_static again" in line]
        assert len(fitting) == 1, (command, lines)
        assert f"{difference} degrees away (stamp 1700000000.500000000)" in fitting[0]


def test_the_same_values_but_for_rounding_are_no_fault(tmp_path, capsys):
    said = said_by(again(tmp_path, 0.0004), tmp_path, capsys)
    assert not [line for lines in said.values() for line in lines if "published" in line]


def test_another_parent_by_turns_is_named(tmp_path, capsys):
    bag = again(tmp_path, 0.0, parent="odom")
    at = START_NS + 2 * FRAME_NS
    back = (at, "/tf_static", TFM, static(at, "base_link", "front_optical", RIG["front"].base_from_camera))
    bag = copied(bag, tmp_path / "by_turns", [back])
    for command, lines in said_by(bag, tmp_path, capsys).items():
        assert any("'front_optical' is published" in line and "by turns" in line for line in lines), (command, lines)
