"""The real node on the town with prefixed frames and odometry as a topic, heard by an ordinary subscriber."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from disguised_drives import CAMERAS
from disguised_vehicle import NAMESPACE, NAMESPACED, ODOMETRY, PREFIX, as_namespaced, as_odometry
from node_frames import frames_of
from sensor_msgs.msg import PointCloud2
from system import Listener, Program, new_domain, node_command, stamp_ns, untrained_network, wait_until

from renderocc_model.inference.predictor import Predictor
from renderocc_ros.output.messages import surface_voxels
from renderocc_ros.parameters import NodeConfig

pytestmark = [pytest.mark.slow, pytest.mark.system]

SETTINGS = NAMESPACED | {"odom_topic": NAMESPACE + ODOMETRY}


def test_points_of_the_running_node_are_those_of_the_plain_recording(town_bag, tmp_path):
    bag = as_namespaced(as_odometry(town_bag, tmp_path / "odometry"), tmp_path / "drive")
    checkpoint, domain = untrained_network(tmp_path), new_domain()
    parameters = {"cameras": CAMERAS, "checkpoint": checkpoint, "use_sim_time": True, "max_wait": 2.0}
    node = Program(node_command(parameters | {"diagnostics_period": 0.2} | SETTINGS), domain)
    listener, player = Listener(domain), None
    try:
        points = listener.listen(PointCloud2, "/renderocc/points")
        diagnostics = listener.listen(DiagnosticArray, "/diagnostics")
        node.expect("active: 6 cameras", 120)
        command = ["-m", "renderocc_model.cli", "replay", bag, "--clock", "--rate", "0.2", "--only-vehicle"]
        for name, value in SETTINGS.items():
            command += [f"--{name.replace('_', '-')}", value]
        player = Program(command, domain)
        wait_until(lambda: len(points) >= 2, 120, "two clouds of points: " + node.tail())
        wait_until(lambda: diagnostics, 20, "diagnostics")
    finally:
        for program in (player, node):
            if program is not None:
                program.stop()
        listener.close()
    config = NodeConfig(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0)
    expected, said = frames_of(town_bag, config, Predictor(checkpoint, device="cpu", precision=config.precision))
    assert {cloud.header.frame_id for cloud in points} == {f"{PREFIX}base_link"}
    for cloud in points:
        frame = expected[stamp_ns(cloud)]
        assert frame.used == CAMERAS and not frame.ego_motion_missing, said
        centres = surface_voxels(frame.occupancy).centres
        got = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)[:, :12].copy().view("<f4")
        # Odometry that hangs below base_link is inverted twice: poses differ by rounding, and few voxels with them.
        common = set(map(tuple, got.round(3))) & set(map(tuple, np.asarray(centres, np.float32).round(3)))
        assert len(common) > 0.99 * max(len(got), len(centres)) > 100
    assert "no ego motion" not in "\n".join(node.lines)
