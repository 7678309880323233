"""Launch the node `renderocc`; with `rosbag:=PATH` also a bag, with `rviz:=true` also RViz.

ros2 launch renderocc_ros renderocc.launch.py params_file:=/path/to/vehicle.yaml checkpoint:=/path/to/my.safetensors
ros2 launch renderocc_ros renderocc.launch.py rosbag:=/path/to/bag rviz:=true
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, TimerAction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from launch import Action, LaunchDescription
from renderocc_model.base.plain_yaml import read_yaml

PACKAGE = "renderocc_ros"
RESPAWN_DELAY = 2.0  # seconds
SHARE = Path(get_package_share_directory(PACKAGE))

ARGUMENTS = [
    ("checkpoint", "", "path of a .safetensors checkpoint; empty: the network in the package"),
    ("params_file", str(SHARE / "config" / "renderocc.yaml"), "YAML file with the node's parameters"),
    (
        "cameras",
        "",
        "camera names, separated by commas; empty: those of params_file, of the bag, or found on the graph",
    ),
    ("namespace", "", "namespace of the node; its topics and relative camera topics move with it"),
    ("autostart", "true", "configure and activate the node without being asked"),
    ("respawn", "false", "start the node again, 2 s later, whenever it ends before launch does: for vehicles"),
    ("use_sim_time", "", "take the time from /clock; empty: true when a bag is played"),
    ("rosbag", "", "path of a rosbag2 folder (MCAP or SQLite) to play once the node is active"),
    ("rate", "1.0", "playing speed of the bag"),
    ("loop", "false", "play the bag again and again"),
    ("rviz", "false", "open RViz with config/renderocc.rviz"),
    ("rviz_config", str(SHARE / "config" / "renderocc.rviz"), "RViz configuration"),
    ("log_level", "info", "debug, info, warn or error"),
]


def is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")


def parameters_in_file(path: str) -> dict:
    """The parameters of the node in a ROS parameter file, whatever name or wildcard they stand under."""
    content = read_yaml(path) or {}
    found = {}
    for section in content.values():
        if isinstance(section, dict):
            found.update(section.get("ros__parameters") or {})
    return found


def cameras_in_bag(bag: Path) -> list:
    """Names X of the topics X/camera_info whose X/image_raw is in the bag too, from its metadata.yaml."""
    metadata = bag / "metadata.yaml"
    if not metadata.is_file():
        raise RuntimeError(f"rosbag:={bag}: there is no {metadata}; give the folder that `ros2 bag record` wrote")
    information = read_yaml(metadata, 16 << 20)["rosbag2_bagfile_information"]
    topics = {entry["topic_metadata"]["name"] for entry in information["topics_with_message_count"]}
    images = {topic.removesuffix("/compressed").removesuffix("/image_raw") for topic in topics if "/image_raw" in topic}
    calibrated = {topic.removesuffix("/camera_info") for topic in topics if topic.endswith("/camera_info")}
    return sorted(calibrated & images)


class StartWhenActive:
    """Starts an action once a lifecycle node is active; `look` is for an OpaqueFunction.

    The node is asked for its state again and again: a node that is quick is active before launch hears its transition
    events, and those are not repeated.
    """

    PERIOD = 0.3  # seconds between two looks
    PATIENCE = 20  # looks without an answer after which the question counts as lost; a node that loads answers late

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
    """Decide what depends on the arguments' values, and make the actions."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    simulated_time = is_true(value["use_sim_time"]) if value["use_sim_time"] else bool(value["rosbag"])
    for name in ("params_file", "checkpoint", "rosbag", "rviz_config"):  # shells leave the ~ in name:=~/path
        value[name] = os.path.expanduser(value[name])
    if not Path(value["params_file"]).is_file():
        raise RuntimeError(f"params_file:={value['params_file']}: there is no such file")
    overrides = {"use_sim_time": simulated_time, "autostart": is_true(value["autostart"])}
    if value["checkpoint"]:
        overrides["checkpoint"] = value["checkpoint"]
    bag = Path(value["rosbag"]).resolve() if value["rosbag"] else None
    if value["cameras"]:
        overrides["cameras"] = [name.strip() for name in value["cameras"].split(",")]
    elif bag and not any(parameters_in_file(value["params_file"]).get("cameras") or []):
        # Names with a leading slash make absolute topics, so that a namespace does not move the bag's.
        names = cameras_in_bag(bag)
        if names:
            overrides["cameras"] = [name.lstrip("/") for name in names]
            overrides["image_topic"] = "/{camera}/image_raw"
            overrides["camera_info_topic"] = "/{camera}/camera_info"

    node = LifecycleNode(
        package=PACKAGE,
        executable="renderocc_node",
        name="renderocc",
        namespace=value["namespace"],
        parameters=[value["params_file"], overrides],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
        emulate_tty=True,
        respawn=is_true(value["respawn"]),
        respawn_delay=RESPAWN_DELAY,
    )
    actions = [node]
    if bag:
        program = str(Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / "renderocc")
        player = ExecuteProcess(
            cmd=[program, "replay", str(bag), "--clock", "--rate", value["rate"]]
            + (["--loop"] if is_true(value["loop"]) else []),
            output="screen",
        )
        actions.append(OpaqueFunction(function=StartWhenActive(node, player).look))
    actions.append(
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", value["rviz_config"]],
            parameters=[{"use_sim_time": simulated_time}],
            condition=IfCondition(value["rviz"]),
        )
    )
    return actions


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_nodes)])
