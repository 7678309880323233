"""Checkpoints given to the real node: corrupt, of another rig, exchanged; the node lives and says what is wrong."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import PointCloud2
from system import Listener, Program, new_domain, node_command, noise_cameras, wait_until

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.presets import preset
from renderocc_model.network.untrained import untrained_checkpoint

pytestmark = pytest.mark.system


def wide_rig():
    """A rig that differs from `noise_cameras`: five cameras of 1600x900 with another field of view."""
    import numpy as np

    model = CameraModel(1600, 900, np.array([[500.0, 0, 800], [0, 500.0, 450], [0, 0, 1]]), "plumb_bob", ())
    return Rig(tuple(Camera(f"camera_{index}", model, np.eye(4)) for index in range(5)))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A whole checkpoint of another rig, half of it, and a pickle."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoint = untrained_checkpoint(preset("tiny"), OCC3D_NUSCENES)
    good = folder / "good.safetensors"
    save_checkpoint(good, checkpoint.network, OCC3D_NUSCENES, 0.3, wide_rig().summary(), {"steps": 0})
    half = folder / "half.safetensors"
    half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    return {"good": good, "half": half, "missing": folder / "missing.safetensors"}


def test_a_corrupt_checkpoint_is_named_then_a_good_one_of_another_rig_works_with_warnings(checkpoints):
    domain = new_domain()
    fixed = {
        "cameras": ["front", "left"],
        "image_topic": "/{camera}/image_raw",
        "camera_info_topic": "/{camera}/camera_info",
    }
    node = Program(node_command({**fixed, "checkpoint": checkpoints["half"], "diagnostics_period": 0.2}), domain)
    listener = Listener(domain)
    diagnostics = listener.listen(DiagnosticArray, "/diagnostics")
    points = listener.listen(PointCloud2, "/renderocc/points")
    cameras = noise_cameras(listener, ("front", "left"))

    def set_checkpoint(path) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(path))
        request = SetParameters.Request(parameters=[Parameter(name="checkpoint", value=value)])
        (result,) = listener.call(SetParameters, "/renderocc/set_parameters", request).results
        assert result.successful, result.reason

    def state() -> int:
        return listener.call(GetState, "/renderocc/get_state").current_state.id

    try:
        line = node.expect("cannot configure: .*half.safetensors", 60)
        assert line.count(str(checkpoints["half"])) == 1
        assert state() == State.PRIMARY_STATE_UNCONFIGURED
        wait_until(
            lambda: diagnostics and "half.safetensors" in diagnostics[-1].status[0].message,
            10,
            "a diagnostic that names the file",
        )

        set_checkpoint(checkpoints["missing"])
        node.expect("cannot configure: .*missing.safetensors", 60)

        set_checkpoint(checkpoints["good"])
        node.expect("active: 2 cameras", 60)
        wait_until(lambda: cameras.subscribers("raw", "left"), 10, "subscriptions")
        time.sleep(1.0)
        cameras.send_mounts()
        cameras.frame(time.time_ns() - 200_000_000)
        wait_until(lambda: points, 40, "points")
        node.expect("checkpoint: .*(5|five).*(2|two)")  # it was trained with five cameras

        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN))
        assert listener.call(ChangeState, "/renderocc/change_state", request).success
    finally:
        status = node.stop()
        listener.close()
    assert status == 0, "\n".join(node.lines[-20:])
