"""The real node in its own process, on a network where somebody means harm: files, the log, memory."""

import os
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import PointCloud2
from small_models import small_config
from std_srvs.srv import Trigger
from system import Listener, Program, new_domain, node_command, noise_cameras, transform_message, wait_until
from tf2_msgs.msg import TFMessage

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.untrained import untrained_checkpoint

pytestmark = pytest.mark.system

CAMERAS = ("front", "left")
SECOND = 1_000_000_000


class System:
    """Node, listener and rig on one domain; `frame()` publishes one frame and waits for its points."""

    def __init__(self, folder) -> None:
        domain = new_domain()
        self.saved, self.elsewhere = folder / "saved", folder / "elsewhere"
        self.elsewhere.mkdir()
        made = untrained_checkpoint(small_config("tiny"), OCC3D_NUSCENES)
        save_checkpoint(folder / "small.safetensors", made.network, OCC3D_NUSCENES, 0.3, None, {})
        parameters = {
            "cameras": CAMERAS,
            "image_topic": "/{camera}/image_raw",
            "camera_info_topic": "/{camera}/camera_info",
            "diagnostics_period": 0.2,
            "save_directory": self.saved,
            "checkpoint": folder / "small.safetensors",
            "cpu_threads": 1,
        }
        self.node = Program(node_command(parameters), domain)
        self.listener = Listener(domain)
        self.cameras = noise_cameras(self.listener, CAMERAS)
        self.points = self.listener.listen(PointCloud2, "/renderocc/points")
        self.node.expect("active: 2 cameras", 90)
        self.until_heard()

    def until_heard(self) -> None:
        wait_until(
            lambda: (
                self.cameras.subscribers("raw", "left")
                and self.cameras.subscribers("tf")
                and self.listener.node.count_publishers("/renderocc/points")
            ),
            20,
            "subscriptions",
        )
        time.sleep(1.0)  # both sides of every match
        self.cameras.send_mounts()

    def frame(self) -> int:
        stamp = time.time_ns() - SECOND // 5
        self.cameras.frame(stamp)
        wait_until(
            lambda: any(m.header.stamp.sec * SECOND + m.header.stamp.nanosec == stamp for m in list(self.points)),
            40,
            f"points of {stamp}",
        )
        return stamp

    def set_save_directory(self, value):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(value))
        request = SetParameters.Request(parameters=[Parameter(name="save_directory", value=value)])
        return self.listener.call(SetParameters, "/renderocc/set_parameters", request).results[0]

    def save(self):
        return self.listener.call(Trigger, "/renderocc/save")

    def change_state(self, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.listener.call(ChangeState, "/renderocc/change_state", request).success


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    running = System(tmp_path_factory.mktemp("hostile"))
    yield running
    assert running.node.alive, "the node died:\n" + "\n".join(running.node.lines[-30:])
    status = running.node.stop()
    running.listener.close()
    assert status == 0, "\n".join(running.node.lines[-30:])


def test_nobody_on_the_network_can_lead_a_save_out_of_the_folder_that_the_node_was_started_with(system):
    system.frame()
    for outside in (
        "/etc",
        system.elsewhere,
        f"{system.saved}/../elsewhere",
        f"{system.saved}2",
        "~",
        "~nobody/x",
        f"{system.saved}/$HOME",
        ".",
        "x" * 5000,
    ):
        result = system.set_save_directory(outside)
        assert not result.successful and "with which the node was started" in result.reason, outside
        assert len(result.reason) < 600 and os.environ["HOME"] not in result.reason.replace(str(system.saved), "")
    assert system.set_save_directory(system.saved / "today").successful
    answer = system.save()
    assert answer.success and sorted(path.suffix for path in (system.saved / "today").iterdir()) == [
        ".npz",
        ".npz",
        ".ply",
        ".ply",
    ]
    assert not list(system.elsewhere.iterdir())


def test_a_link_that_leads_out_of_the_folder_is_not_followed(system):
    stamp = system.frame()
    (system.saved / "link").symlink_to(system.elsewhere)
    assert not system.set_save_directory(system.saved / "link").successful
    victim = system.elsewhere / "victim"
    victim.write_text("precious")
    inside = system.saved / "links"
    assert system.set_save_directory(inside).successful
    inside.mkdir()
    (inside / f"{stamp}.npz").symlink_to(victim)  # the name that the next save will write
    assert system.save().success
    assert victim.read_text() == "precious" and not (inside / f"{stamp}.npz").is_symlink()
    for path in inside.iterdir():
        path.unlink()
    inside.rmdir()
    inside.symlink_to(system.elsewhere)  # the folder itself, after it was set
    answer = system.save()
    assert not answer.success and "leads out" in answer.message
    assert [path.name for path in system.elsewhere.iterdir()] == ["victim"]
    inside.unlink()


def test_taking_the_node_down_and_up_again_frees_no_folder(system):
    system.change_state(Transition.TRANSITION_DEACTIVATE)
    system.change_state(Transition.TRANSITION_CLEANUP)
    assert not system.set_save_directory(system.elsewhere).successful
    assert system.set_save_directory(system.saved).successful
    system.change_state(Transition.TRANSITION_CONFIGURE)
    system.change_state(Transition.TRANSITION_ACTIVATE)
    system.until_heard()
    system.frame()


def test_names_from_the_network_write_no_lines_of_their_own_and_fill_neither_log_nor_memory(system):
    system.frame()
    before, lines = system.node.holdings().memory, len(system.node.lines)
    stamp = time.time_ns()
    for batch in range(60):
        fake = f"\n[ERROR] [1.0] [renderocc]: brakes failed{batch}\x1b[2J"
        names = ["".join(chr(97 + int(digit)) for digit in f"{batch:03d}{index:03d}") + fake for index in range(100)]
        refused = [transform_message(name, name, stamp) for name in names]
        taken = [transform_message("odom", name[:6], stamp + index) for index, name in enumerate(names)]
        system.cameras.publisher("tf").publish(TFMessage(transforms=refused + taken))
        long = transform_message("odom", "x" * 500_000, stamp)
        system.cameras.publisher("tf").publish(TFMessage(transforms=[long]))
        time.sleep(0.02)
    for turn in range(60):
        for camera in CAMERAS:
            info = system.cameras.info_message(camera, stamp)
            info.header.frame_id = f"{'abcdefghij'[turn % 10]}{'abcdefghij'[turn // 10]}\n[ERROR] brakes failed"
            system.cameras.publisher("camera_info", camera).publish(info)
        time.sleep(0.01)
    system.frame()
    said = system.node.lines[lines:]
    assert any("brakes failed" in line for line in said) and len(said) < 150, len(said)
    assert not any(line.startswith("[ERROR] [1.0]") or line.startswith("[ERROR] brakes") for line in said)
    assert not any("\x1b" in line for line in said) and max(map(len, said)) < 2000
    assert system.node.holdings().memory - before < 60  # MiB


def test_the_example_policy_allows_what_the_node_does_and_no_more(system):
    policy = ElementTree.parse(Path(__file__).resolve().parents[1] / "config" / "sros2" / "renderocc.policy.xml")
    profile = policy.find("./enclaves/enclave[@path='/renderocc']/profiles/profile")

    def allowed(kind: str, what: str) -> set[str]:
        names = {entry.text for entry in profile.iterfind(f"./{kind}s[@{what}='ALLOW']/{kind}")}
        return {re.sub("front|left|right", "CAMERA", name.replace("~", "/renderocc")) for name in names}

    def used(answer: list) -> set[str]:
        return {re.sub("front|left", "CAMERA", name) for name, _ in answer}

    node, name = system.listener.node, ("renderocc", "/")
    assert allowed("topic", "publish") == used(node.get_publisher_names_and_types_by_node(*name))
    assert allowed("service", "reply") == used(node.get_service_names_and_types_by_node(*name))
    heard = used(node.get_subscriber_names_and_types_by_node(*name))
    assert allowed("topic", "subscribe") == heard | {"/CAMERA/image_raw/compressed"}  # not while raw ones are published
    assert profile.find("actions") is None and not node.get_client_names_and_types_by_node(*name)
