"""The launch file, where ROS's launch is installed (it is not on PyPI); where `ros2 launch` is, by running it."""

import importlib.util
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 install")
pytest.importorskip("ament_index_python")

from launch.actions import DeclareLaunchArgument
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rviz_file import topics_of_rviz
from system import Listener, Program, new_domain, wait_until

from launch import LaunchContext

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[1]
HAS_ROS2 = importlib.util.find_spec("ros2launch") is not None
HAS_RVIZ = any((Path(p) / "lib/rviz2/rviz2").exists() for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":"))
needs_ros2 = pytest.mark.skipif(not HAS_ROS2, reason="ros2launch comes with a ROS 2 install")
CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")  # as in config/renderocc.rviz


@pytest.fixture(scope="module")
def launch_file(monkeypatch_module):
    """The launch file as a module, its share directory being this source tree."""
    monkeypatch_module.setattr("ament_index_python.packages.get_package_share_directory", lambda name: str(ROOT))
    monkeypatch_module.setattr("ament_index_python.packages.get_package_prefix", found_or_ours)
    spec = importlib.util.spec_from_file_location("renderocc_launch", ROOT / "launch" / "renderocc.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found_or_ours(name: str) -> str:
    from ament_index_python.packages import PackageNotFoundError

    if name == "rviz2":
        raise PackageNotFoundError(name)
    return str(ROOT)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_every_argument_is_described_and_has_a_default(launch_file):
    arguments = [
        entity
        for entity in launch_file.generate_launch_description().entities
        if isinstance(entity, DeclareLaunchArgument)
    ]
    names = {argument.name for argument in arguments}
    assert {"checkpoint", "params_file", "namespace", "autostart", "rosbag", "rviz", "use_sim_time"} <= names
    assert all(len(argument.description) > 10 and argument.default_value is not None for argument in arguments)


def launched(launch_file, **values):
    context = LaunchContext()
    for name, default, _ in launch_file.ARGUMENTS:
        context.launch_configurations[name] = str(values.get(name, default))
    return launch_file.launch_nodes(context)


def test_a_bag_makes_its_cameras_parameters_and_needs_metadata(launch_file, tmp_path):
    with pytest.raises(RuntimeError, match="metadata.yaml"):
        launched(launch_file, rosbag=tmp_path)


def kind_of(topic: str) -> str:
    words = {"camera_info": "CameraInfo", "compressed": "CompressedImage"}
    return f"sensor_msgs/msg/{words.get(topic.rpartition('/')[2], 'Image')}"


def bag_with(folder: Path, counts: dict) -> Path:
    """A bag's metadata with so many messages on each topic."""
    entries = "".join(
        f"  - topic_metadata: {{name: {name}, type: {kind_of(name)}, serialization_format: cdr}}\n"
        f"    message_count: {count}\n"
        for name, count in counts.items()
    )
    folder.mkdir()
    (folder / "metadata.yaml").write_text(f"rosbag2_bagfile_information:\n  topics_with_message_count:\n{entries}")
    return folder


def test_topics_of_a_bag_without_messages_are_no_cameras(launch_file, tmp_path):
    counts = {"/a/image_raw": 2, "/a/camera_info": 2, "/b/image_raw": 0, "/b/camera_info": 2}
    counts.update({"/c/image_raw/compressed": 1, "/c/camera_info": 1, "/d/image_raw": 1, "/d/camera_info": 0})
    assert launch_file.parameters_in_bag(bag_with(tmp_path / "bag", counts), {})["cameras"] == ["a", "c"]


def test_a_bag_with_rectified_images_alone_makes_their_topic_a_parameter(launch_file, tmp_path):
    bag = bag_with(tmp_path / "bag", {"/a/image_rect": 2, "/a/camera_info": 2})
    values = {name: default for name, default, _ in launch_file.ARGUMENTS}
    assert launch_file.given_parameters(values, {}, bag)["image_topic"] == "/{camera}/image_rect"


def test_the_node_is_started_again_only_where_asked_for(launch_file):
    for word, expected in (("true", True), ("on", True), ("false", False), ("No", False)):
        assert launched(launch_file, respawn=word)[0]._ExecuteLocal__respawn is expected


def test_a_missing_parameter_file_is_named(launch_file):
    with pytest.raises(RuntimeError, match="nowhere.yaml"):
        launched(launch_file, params_file="/nowhere.yaml")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rviz": "true"}, "rviz:=true: rviz2 is not installed; sudo apt install ros-.*-rviz2"),
        ({"rviz": "perhaps"}, "rviz:=perhaps: expected one of true"),
        ({"autostart": "maybe"}, "autostart:=maybe: expected one of true"),
        ({"use_sim_time": "2"}, "use_sim_time:=2: expected one of true"),
        ({"respawn": ""}, "respawn:=: expected one of true"),
        ({"log_level": "verbose"}, "log_level:=verbose: expected debug, info"),
        ({"rosbag": "{bag}", "rate": "abc"}, "rate:=abc: expected a number above 0"),
        ({"rosbag": "{bag}", "rate": "-1"}, "rate:=-1: expected a number above 0"),
        ({"rosbag": "{bag}", "rate": "nan"}, "rate:=nan: expected a number above 0"),
        ({"rosbag": "{bag}", "loop": "twice"}, "loop:=twice: expected one of true"),
        ({"checkpoint": "/nowhere.safetensors"}, "checkpoint:=/nowhere.safetensors: there is no such file"),
        ({"params_file": "{bad}"}, "params_file:=.*bad.yaml: is not readable YAML"),
        ({"params_file": "{bare}"}, 'params_file:=.*bare.yaml.*write "{camera}/image_raw" in quotes'),
        ({"params_file": "{flat}"}, "params_file:=.*flat.yaml: it has no 'ros__parameters'"),
    ],
)
def test_an_argument_that_cannot_be_is_named_before_anything_is_started(launch_file, tmp_path, values, named):
    (tmp_path / "bad.yaml").write_text("no: yaml: [")
    (tmp_path / "bare.yaml").write_text("renderocc:\n  ros__parameters:\n    image_topic: {camera}/image\n")
    (tmp_path / "flat.yaml").write_text("cameras: [front]\n")
    bag_with(tmp_path / "bag", {"/a/image_raw": 2, "/a/camera_info": 2})
    paths = {
        f"{{{name}}}": str(tmp_path / file)
        for name, file in (("bag", "bag"), ("bad", "bad.yaml"), ("bare", "bare.yaml"), ("flat", "flat.yaml"))
    }
    with pytest.raises(RuntimeError, match=named):
        launched(launch_file, **{name: paths.get(value, value) for name, value in values.items()})


# ---- whose word counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "applies"),
    [
        ("/**", True),
        ("renderocc", False),
        ("/robot/renderocc", True),
        ("/**/renderocc", True),
        ("/*/renderocc", True),
        ("/*", False),
        ("/robot/other", False),
        ("/robot/renderocc_2", False),
    ],
)
def test_only_sections_of_the_file_that_are_the_nodes_count(launch_file, tmp_path, section, applies):
    path = tmp_path / "vehicle.yaml"
    path.write_text(f"{section}:\n  ros__parameters: {{use_sim_time: true}}\n")
    expected = {"use_sim_time": True} if applies else {}
    assert launch_file.parameters_in_file(str(path), "/robot/renderocc") == expected


def test_nested_namespaces_of_the_file_are_read(launch_file, tmp_path):
    path = tmp_path / "vehicle.yaml"
    path.write_text("robot:\n  renderocc:\n    ros__parameters: {cameras: [a]}\n")
    assert launch_file.parameters_in_file(str(path), "/robot/renderocc") == {"cameras": ["a"]}
    assert launch_file.parameters_in_file(str(path), "/renderocc") == {}


def test_arguments_override_the_vehicles_file_only_when_they_are_given(launch_file, tmp_path):
    values = {name: default for name, default, _ in launch_file.ARGUMENTS}
    bag = bag_with(tmp_path / "bag", {"/a/image_raw": 2, "/a/camera_info": 2})
    found = {"cameras": ["a"], "image_topic": "/{camera}/image_raw", "camera_info_topic": "/{camera}/camera_info"}
    given = launch_file.given_parameters
    assert given(values, {}, None) == {}
    assert given(values, {"autostart": False, "use_sim_time": True}, None) == {}
    assert given({**values, "autostart": "off", "use_sim_time": "true"}, {"autostart": True}, None) == {
        "autostart": False,
        "use_sim_time": True,
    }
    assert given(values, {}, bag) == {"use_sim_time": True, **found}
    assert given(values, {"use_sim_time": False, "cameras": ["b"]}, bag) == {}  # the vehicle's own words
    assert given({**values, "use_sim_time": "false"}, {}, bag) == {"use_sim_time": False, **found}


# ---- the real `ros2 launch` ------------------------------------------------------------------------------------------


class Launched(Program):
    """`ros2 launch renderocc_ros renderocc.launch.py ARGUMENTS`, from a ROS prefix that refers to this source tree.

    rviz2 is a program that writes its arguments to the file rviz.txt, if `with_rviz`.
    """

    def __init__(self, folder: Path, domain: int, arguments: dict, with_rviz: bool = False) -> None:
        self.folder, prefix = folder, folder / "prefix"
        packages = prefix / "share/ament_index/resource_index/packages"
        packages.mkdir(parents=True)
        for part in ("launch", "config"):
            (prefix / "share/renderocc_ros" / part).mkdir(parents=True)
            for path in (ROOT / part).iterdir():
                (prefix / "share/renderocc_ros" / part / path.name).symlink_to(path)
        programs = {"renderocc_ros/renderocc_node": f'exec {sys.executable} -m renderocc_ros.start "$@"'}
        programs["renderocc_ros/renderocc"] = f'exec {sys.executable} -m renderocc_model.cli "$@"'
        if with_rviz:
            programs["rviz2/rviz2"] = f'echo "$@" > {folder}/rviz.txt; exec sleep 1000'
        for name, line in programs.items():
            (packages / name.split("/")[0]).touch()
            path = prefix / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/sh\n# {folder}\n{line}\n")
            path.chmod(0o755)
        index = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)])
        words = [f"{name}:={value}" for name, value in arguments.items() if value != ""]  # launch takes no empty ones
        super().__init__(
            [
                "-c",
                "import sys; from ros2cli.cli import main; sys.exit(main())",
                "launch",
                "renderocc_ros",
                "renderocc.launch.py",
                *words,
            ],
            domain,
            {"AMENT_PREFIX_PATH": index, "ROS_LOG_DIR": str(folder / "log")},
        )

    def left(self) -> list[str]:
        """Command lines of processes that know this launch's folder."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.folder) in line and int(pid) != self.process.pid:
                found.append(line)
        return found


@pytest.fixture
def listener():
    domain = new_domain()
    made = Listener(domain)
    made.domain = domain
    yield made
    made.close()


@pytest.fixture
def parameter_file(tmp_path):
    """Its path is on the command line of the node: what is left of a launch is found by it."""

    def write(**parameters) -> Path:
        path = tmp_path / "vehicle.yaml"
        lines = [f"    {name}: {str(value).lower()}\n" for name, value in parameters.items()]
        path.write_text("/**/renderocc:\n  ros__parameters:\n    diagnostics_period: 1.0\n" + "".join(lines))
        return path

    return write


@needs_ros2
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rviz": "true"}, "rviz2 is not installed"),
        ({"rviz": "perhaps"}, "rviz:=perhaps"),
        ({"log_level": "verbose"}, "log_level:=verbose"),
        ({"params_file": "bad"}, "is not readable YAML"),
    ],
)
def test_launch_ends_with_one_line_and_leaves_no_process(tmp_path, parameter_file, arguments, named):
    if arguments == {"rviz": "true"} and HAS_RVIZ:
        pytest.skip("rviz2 is installed")
    path = parameter_file()
    if "params_file" in arguments:
        path.write_text("no: yaml: [")
    launch = Launched(tmp_path, new_domain(), {**arguments, "params_file": path})
    assert launch.process.wait(30) == 1
    time.sleep(0.5)
    text = "\n".join(launch.lines)
    assert named in text and "Traceback" not in text, text
    assert launch.left() == [], text


@needs_ros2
@pytest.mark.parametrize("given", [False, True])
def test_the_vehicles_file_says_whether_the_node_starts_and_whose_clock_it_has(
    tmp_path, parameter_file, listener, given
):
    path = parameter_file(autostart=False, use_sim_time=True, cameras='["front"]')
    arguments = {"params_file": path, **({"autostart": "true", "use_sim_time": "false"} if given else {})}
    launch = Launched(tmp_path, listener.domain, arguments)
    try:
        request = GetParameters.Request(names=["autostart", "use_sim_time"])
        answer = listener.call(GetParameters, "/renderocc/get_parameters", request)
        assert [value.bool_value for value in answer.values] == [given, not given]
        time.sleep(0.0 if given else 3.0)  # six looks of the node at whether to start
        state = State.PRIMARY_STATE_ACTIVE if given else State.PRIMARY_STATE_UNCONFIGURED
        wait_until(lambda: listener.call(GetState, "/renderocc/get_state").current_state.id == state, 60, "its state")
    finally:
        status = launch.stop(30)
    assert status == 0, "\n".join(launch.lines[-30:])
    assert launch.left() == []
    wait_until(lambda: "renderocc" not in listener.node.get_node_names(), 1.0, "the node to leave the graph")


@needs_ros2
@pytest.mark.skipif(HAS_RVIZ, reason="a program in rviz2's place writes down its arguments")
@pytest.mark.parametrize("namespace", ["", "robot"])
def test_every_topic_that_rviz_is_given_is_one_of_the_running_node(tmp_path, parameter_file, listener, namespace):
    arguments = {"params_file": parameter_file(), "cameras": ",".join(CAMERAS), "namespace": namespace, "rviz": "yes"}
    launch = Launched(tmp_path, listener.domain, arguments, with_rviz=True)
    try:
        launch.expect("active: 6 cameras", 90)
        wait_until(lambda: (tmp_path / "rviz.txt").exists(), 10, "RViz")
        words = (tmp_path / "rviz.txt").read_text()
        renamed = dict(re.findall(r"-r (\S+):=(\S+)", words))
        assert renamed["__ns"] == f"/{namespace}"
        node = f"/{namespace}/renderocc".replace("//", "/")
        topics = topics_of_rviz(ROOT / "config/renderocc.rviz")
        assert len(topics) > 10
        for topic in topics:
            name = renamed.get(topic, topic)
            wait_until(
                lambda name=name: listener.node.count_publishers(name) or listener.node.count_subscribers(name), 5, name
            )
            assert listener.node.count_publishers(name) == name.startswith(f"{node}/"), name
    finally:
        status = launch.stop(30)
    assert status == 0, "\n".join(launch.lines[-30:])


@needs_ros2
def test_a_second_interrupt_and_one_of_the_whole_group_leave_nothing(tmp_path, parameter_file, listener):
    """Ctrl-C reaches the node twice, from the terminal and from launch."""
    launch = Launched(tmp_path, listener.domain, {"params_file": parameter_file(), "cameras": "front"})
    launch.expect("active: 1 cameras", 90)
    for _ in range(2):
        for pid in (launch.process.pid, *children(launch.process.pid)):
            os.kill(pid, signal.SIGINT)
    assert launch.process.wait(30) == 0, "\n".join(launch.lines[-30:])
    assert launch.left() == []
    wait_until(lambda: "renderocc" not in listener.node.get_node_names(), 1.0, "the node to leave the graph")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
