"""Launch the node `renderocc`; with `rosbag:=PATH` also a bag, with `rviz:=true` also RViz.

ros2 launch renderocc_ros renderocc.launch.py params_file:=/path/to/vehicle.yaml checkpoint:=/path/to/my.safetensors
ros2 launch renderocc_ros renderocc.launch.py rosbag:=/path/to/bag rviz:=true
"""

import math
import os
import re
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, TimerAction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from launch import Action, LaunchDescription
from renderocc_model.base.plain_yaml import read_yaml
from renderocc_model.network.packaged import checkpoint_file
from renderocc_model.rosio.recorded_parameters import parameters_of_recording

PACKAGE = "renderocc_ros"
RESPAWN_DELAY = 2.0  # seconds
SHARE = Path(get_package_share_directory(PACKAGE))

ARGUMENTS = [
    ("checkpoint", "", "path of a .safetensors checkpoint; empty: the network in the package"),
    ("params_file", str(SHARE / "config" / "renderocc.yaml"), "YAML file with the node's parameters"),
    (
        "cameras",
        "",
        "camera names, separated by commas; empty: those in params_file, in the bag, or on the graph",
    ),
    ("namespace", "", "namespace of the node; its topics and relative camera topics move with it"),
    ("autostart", "", "whether the node configures and activates itself; empty: as in params_file, or true"),
    ("respawn", "false", "start the node again, after 2 s, if it ends before launch does; for vehicles"),
    ("use_sim_time", "", "take the time from /clock; empty: as in params_file, or true if a bag is played"),
    ("rosbag", "", "path of a rosbag2 folder (MCAP or SQLite) to play once the node is active"),
    ("rate", "1.0", "playing speed of the bag"),
    ("loop", "false", "repeat the bag until launch ends"),
    ("rviz", "false", "open RViz with config/renderocc.rviz"),
    ("rviz_config", str(SHARE / "config" / "renderocc.rviz"), "RViz configuration"),
    ("log_level", "info", "debug, info, warn, error or fatal; for one logger alone: renderocc:=debug"),
]
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
LOG_LEVEL = re.compile(r"([^:=\s]+:=)?(debug|info|warn|error|fatal)", re.IGNORECASE)


def is_true(name: str, text: str) -> bool:
    """Whether an argument's word means true.

    Raises:
        RuntimeError: the word means neither true nor false.
    """
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise RuntimeError(f"{name}:={text}: expected one of {', '.join(TRUE)} or {', '.join(FALSE)}")
    return word in TRUE


def parameters_in_file(path: str, node: str) -> dict:
    """The parameters that a ROS parameter file has for a node, under its name or a wildcard that fits it.

    Args:
        path: the file.
        node: the node's full name, e.g. "/robot/renderocc".
    Raises:
        RuntimeError: there is no such file, or it is not a parameter file.
    """
    if not Path(path).is_file():
        raise RuntimeError(f"params_file:={path}: there is no such file")
    try:
        content = read_yaml(path) or {}
    except (ValueError, OSError) as error:
        bare = re.search(r":\s*\{camera\}", Path(path).read_text(errors="replace"))
        hint = '; write "{camera}/image_raw" in quotes' if bare else ""
        raise RuntimeError(f"params_file:={error}{hint}") from None
    found = {}
    for name, parameters in sections(content):
        expression = re.escape(name).replace(r"/\*\*", r"(/\w+)*").replace(r"\*", r"\w+")
        if re.fullmatch(expression, node):
            found.update(parameters)
    if content and not any(True for _ in sections(content)):
        raise RuntimeError(f"params_file:={path}: it has no 'ros__parameters'; see {SHARE / 'config/renderocc.yaml'}")
    return found


def sections(content, name: str = ""):
    """(node name or pattern, parameters) of each section of a parameter file; namespaces may be nested."""
    for key, below in content.items() if isinstance(content, dict) else ():
        if key == "ros__parameters":
            if isinstance(below, dict):
                yield name, below
        else:
            yield from sections(below, f"{name}/{str(key).strip('/')}")


def parameters_in_bag(bag: Path, in_file: dict) -> dict:
    """The parameters that playing a bag needs beside those in params_file, by the bag's metadata.yaml.

    Raises:
        RuntimeError: the metadata cannot be read, or a parameter is wrong.
    """
    try:
        return parameters_of_recording(bag, in_file)
    except ValueError as error:
        raise RuntimeError(f"rosbag:={error}") from None


class StartWhenActive:
    """Starts an action once a lifecycle node is active; `look` is for an OpaqueFunction.

    It asks the node for its state repeatedly. Transition events are not enough: a fast node is active before launch
    receives them, and they are not repeated.
    """

    PERIOD = 0.3  # seconds between two looks
    PATIENCE = 20  # looks after which an unanswered question is asked again; a node that is loading answers late

    def __init__(self, node: LifecycleNode, action: Action) -> None:
        self.node, self.action = node, action
        self.client = self.answer = None
        self.looks = 0

    def look(self, context):
        if self.client is None:
            self.client = get_ros_node(context).create_client(GetState, f"{self.node.node_name}/get_state")
        answered = self.answer is not None and self.answer.done()
        if answered and self.answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
            return [self.action]
        self.looks += 1
        if self.client.service_is_ready() and (self.answer is None or answered or self.looks % self.PATIENCE == 0):
            self.answer = self.client.call_async(GetState.Request())
        return [TimerAction(period=self.PERIOD, actions=[OpaqueFunction(function=self.look)])]


def launch_nodes(context):
    """Check every argument first, and then make the actions: an error in between would leave processes running."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    for name in ("params_file", "checkpoint", "rosbag", "rviz_config"):  # shells leave the ~ in name:=~/path
        value[name] = os.path.expanduser(value[name])
    if not LOG_LEVEL.fullmatch(value["log_level"].strip()):
        raise RuntimeError(f"log_level:={value['log_level']}: expected debug, info, warn, error or fatal")
    in_file = parameters_in_file(value["params_file"], f"/{value['namespace']}/renderocc".replace("//", "/"))
    bag = Path(value["rosbag"]).resolve() if value["rosbag"] else None
    overrides = given_parameters(value, in_file, bag)
    respawn = is_true("respawn", value["respawn"])
    player = play(value, bag) if bag else None
    simulated_time = overrides.get("use_sim_time", in_file.get("use_sim_time", False))
    relative = not str(overrides.get("image_topic", in_file.get("image_topic", ""))).startswith("/")
    rviz = [open_rviz(value, simulated_time, relative)] if is_true("rviz", value["rviz"]) else []

    node = LifecycleNode(
        package=PACKAGE,
        executable="renderocc_node",
        name="renderocc",
        namespace=value["namespace"],
        parameters=[value["params_file"], overrides] if overrides else [value["params_file"]],
        arguments=["--ros-args", "--log-level", value["log_level"].strip()],
        output="screen",
        emulate_tty=True,
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
    )
    waiting = [OpaqueFunction(function=StartWhenActive(node, player).look)] if player else []
    return [node, *waiting, *rviz]


def given_parameters(value: dict, in_file: dict, bag: Path | None) -> dict:
    """The node's parameters that differ from params_file: those given as arguments, and those that a bag needs."""
    parameters = {name: is_true(name, value[name]) for name in ("autostart", "use_sim_time") if value[name]}
    if bag and "use_sim_time" not in in_file:
        parameters.setdefault("use_sim_time", True)
    if value["checkpoint"]:
        if not checkpoint_file(value["checkpoint"]).exists():
            raise RuntimeError(f"checkpoint:={value['checkpoint']}: there is no such file")
        parameters["checkpoint"] = value["checkpoint"]
    if value["cameras"]:
        parameters["cameras"] = [name.strip() for name in value["cameras"].split(",")]
    elif bag and not any(in_file.get("cameras") or []):
        parameters.update(parameters_in_bag(bag, in_file))
    return parameters


def play(value: dict, bag: Path) -> ExecuteProcess:
    """The process that plays the bag."""
    try:
        usable = 0 < float(value["rate"]) < math.inf
    except ValueError:
        usable = False
    if not usable:
        raise RuntimeError(f"rate:={value['rate']}: expected a number above 0, e.g. 0.5")
    if not bag.exists():
        raise RuntimeError(f"rosbag:={bag}: there is no such folder")
    program = str(Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / "renderocc")
    command = [program, "replay", str(bag), "--clock", "--rate", value["rate"].strip()]
    return ExecuteProcess(cmd=command + ["--loop"] * is_true("loop", value["loop"]), output="screen")


def open_rviz(value: dict, simulated_time: bool, cameras_move: bool) -> Node:
    """RViz in the node's namespace, with its topics moved there.

    Args:
        value: {argument: value}.
        simulated_time: whether RViz takes its time from /clock.
        cameras_move: whether the namespace moves the images too; it does not if their names are absolute.
    """
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        distribution = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        raise RuntimeError(
            f"rviz:={value['rviz']}: rviz2 is not installed; sudo apt install ros-{distribution}-rviz2"
        ) from None
    if not Path(value["rviz_config"]).is_file():
        raise RuntimeError(f"rviz_config:={value['rviz_config']}: there is no such file")
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=value["namespace"],
        arguments=["-d", value["rviz_config"]],
        parameters=[{"use_sim_time": simulated_time}],
        remappings=rviz_remappings(value["rviz_config"], value["namespace"], cameras_move),
        output="screen",
    )


def rviz_remappings(config: str, namespace: str, cameras_move: bool) -> list:
    """(name in an RViz configuration, name in the namespace) of each topic that the namespace moves."""
    namespace = namespace.strip("/")
    if not namespace:
        return []

    def topics(part):
        for key, below in part.items() if isinstance(part, dict) else ():
            if key in ("Topic", "Update Topic") and isinstance(below, dict) and below.get("Value"):
                yield below["Value"]
            else:
                for item in below if isinstance(below, list) else [below]:
                    yield from topics(item)

    try:
        names = set(topics(read_yaml(config)))
    except (ValueError, OSError) as error:
        raise RuntimeError(f"rviz_config:={error}") from None
    moved = {name for name in names if name.startswith("/renderocc/") or cameras_move and "/image_raw" in name}
    return sorted((name, f"/{namespace}{name}") for name in moved if not name.startswith(f"/{namespace}/"))


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_nodes)])
