"""The node's parameters: checks, the commented YAML file, and cameras found on the graph."""

import json
import os
from pathlib import Path

import pytest
import yaml
from rclpy.validate_topic_name import validate_topic_name

from renderocc_model.base.config import from_mapping, settings_of
from renderocc_ros.input.discovery import cameras_on_graph
from renderocc_ros.parameters import RUNTIME_PARAMETERS, NodeConfig

ROOT = Path(__file__).resolve().parents[1]
PARAMETER_FILE = ROOT / "config" / "renderocc.yaml"


def test_defaults_are_valid_and_say_what_they_mean():
    NodeConfig()
    for setting in settings_of(NodeConfig):
        assert setting.help, f"{setting.name} has no description"
        if setting.type in (int, float):
            assert setting.minimum is not None and setting.maximum is not None, f"{setting.name} has no range"


TITLES = {
    "cameras": "Cameras",
    "base_frame": "Frames",
    "tf_topic": "Ego motion",
    "lidar_topics": "Other sensors",
    "motion.max_speed": "How the vehicle can move; where it moves otherwise, nothing is related",
    "anchor_camera": "Matching images to frames",
    "checkpoint": "Network",
    "max_markers": "Outputs",
    "map.size": "Map of the last frames: docs/map.md",
}


def written_anew(text: str) -> str:
    """The commented parameter file, from the dataclass; its first lines stay."""
    lines = text.splitlines()
    lines = lines[: lines.index("  ros__parameters:") + 1]
    for setting in settings_of(NodeConfig):
        if title := TITLES.get(setting.name):
            lines += [""] * (setting.name != "cameras") + [f"    # {title}"]
        choices = "; one of: " + ", ".join(setting.choices) if setting.choices else ""
        limits = f"; {setting.minimum:g} to {setting.maximum:g}" if setting.minimum is not None else ""
        live = " (live)" if setting.name in RUNTIME_PARAMETERS else ""
        default = list(setting.default) or [""] if isinstance(setting.default, tuple) else setting.default
        lines += [f"    # {setting.help}{choices}{limits}{live}", f"    {setting.name}: {json.dumps(default)}"]
    return "\n".join(lines) + "\n"


def test_the_parameter_file_is_written_from_the_dataclass():
    """Run with RENDEROCC_UPDATE_README=1 to write it anew."""
    text = PARAMETER_FILE.read_text()
    if os.environ.get("RENDEROCC_UPDATE_README"):
        PARAMETER_FILE.write_text(written_anew(text))
    assert PARAMETER_FILE.read_text() == written_anew(text)


def test_the_parameter_file_holds_every_parameter_with_its_default():
    written = yaml.safe_load(PARAMETER_FILE.read_text())["/**/renderocc"]["ros__parameters"]
    defaults = {
        s.name: list(s.default) or [""] if isinstance(s.default, tuple) else s.default for s in settings_of(NodeConfig)
    }
    assert written == defaults
    assert list(written) == list(defaults), "the file follows the order of the dataclass"


def test_the_parameter_file_explains_every_line():
    lines = PARAMETER_FILE.read_text().splitlines()
    for setting in settings_of(NodeConfig):
        row = next(index for index, line in enumerate(lines) if line.strip().startswith(f"{setting.name}:"))
        assert setting.help in lines[row - 1], f"the comment above {setting.name} is not its description"
        assert ("(live)" in lines[row - 1]) == (setting.name in RUNTIME_PARAMETERS)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"min_cameras": 0}, "min_cameras"),
        ({"cameras": ["a", "b"], "min_cameras": 3}, "min_cameras"),
        ({"cameras": ["a", "a"]}, "twice"),
        ({"cameras": ["a"], "anchor_camera": "b"}, "anchor_camera"),
        ({"image_topic": "image_raw"}, "image_topic"),
        ({"image_topic": "/{camera}/image-raw"}, "image_topic.*no topic of ROS"),
        ({"camera_info_topic": "{camera}/"}, "camera_info_topic.*no topic of ROS"),
        ({"camera_info_topic": "//{camera}/info"}, "camera_info_topic.*no topic of ROS"),
        *(
            ({"cameras": ["left", name]}, "'cameras' names .* cannot be part of a topic: use letters")
            for name in ("front-left", "a b", "", "/front", "front/", "a//b", "0", "front\n", "a" * 101)
        ),
        ({"grid_min_height": 2.0, "grid_max_height": 1.0}, "grid_min_height"),
        ({"device": "tpu"}, "device"),
        ({"base_frame": ""}, "base_frame"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"min_camera": 2}, "min_cameras"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named):
        from_mapping(NodeConfig, values)


def test_angles_stand_for_the_camera_as_braces_do():
    config = NodeConfig(image_topic="/x/<camera>/rgb", camera_info_topic="<camera>/info", camera_frame="<camera>_lens")
    assert config.image_topic_of("front") == "/x/front/rgb"
    assert config.camera_info_topic_of("front") == "front/info"
    assert config.camera_frame_of("front") == "front_lens"
    topics = [("/x/front/rgb", [IMAGE]), ("/front/info", [INFO])]
    assert cameras_on_graph(topics, config, "/") == ("front",)


def test_templates_make_topics():
    config = NodeConfig(image_topic="/sensors/{camera}/rgb", camera_info_topic="/sensors/{camera}/info")
    assert config.image_topic_of("front") == "/sensors/front/rgb"
    assert config.camera_info_topic_of("front") == "/sensors/front/info"


IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"


@pytest.mark.parametrize("template", ["{camera}/image", "/{camera}", "~/{camera}/x", "/{ns}/cam_{camera}/image_raw"])
def test_topics_that_ros_allows_are_taken(template):
    config = NodeConfig(cameras=("CAM_FRONT", "robot/left", "_1"), image_topic=template, camera_info_topic=template)
    for camera in config.cameras:
        validate_topic_name(config.image_topic_of(camera))  # the middleware's own opinion
        validate_topic_name(f"~/rendered/{camera}/semantic")


def test_cameras_need_an_image_and_a_calibration_topic():
    topics = [
        ("/front/image_raw", [IMAGE]),
        ("/front/camera_info", [INFO]),
        ("/rear/image_raw/compressed", [COMPRESSED]),
        ("/rear/camera_info", [INFO]),
        ("/uncalibrated/image_raw", [IMAGE]),
        ("/blind/camera_info", [INFO]),
        ("/wrong_type/image_raw", ["std_msgs/msg/String"]),
        ("/wrong_type/camera_info", [INFO]),
    ]
    assert cameras_on_graph(topics, NodeConfig(), "/") == ("front", "rear")


def test_relative_templates_look_only_into_the_namespace():
    topics = [("/front/image_raw", [IMAGE]), ("/front/camera_info", [INFO])]
    topics += [("/robot/left/image_raw", [IMAGE]), ("/robot/left/camera_info", [INFO])]
    assert cameras_on_graph(topics, NodeConfig(), "/robot") == ("left",)
    absolute = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")
    assert cameras_on_graph(topics, absolute, "/robot") == ("front", "robot/left")


def test_topics_without_a_publisher_are_no_cameras():
    topics = [(f"/{name}/image_raw", [IMAGE]) for name in ("a", "b", "c", "d")]
    topics += [(f"/{name}/camera_info", [INFO]) for name in ("a", "b", "c", "d")]
    topics += [("/d/image_raw/compressed", [COMPRESSED])]
    published = {"/a/image_raw", "/a/camera_info", "/b/image_raw", "/c/camera_info"}
    published |= {"/d/image_raw/compressed", "/d/camera_info"}
    assert cameras_on_graph(topics, NodeConfig(), "/", published.__contains__) == ("a", "d")


def test_camera_topics_without_end_are_refused_with_what_to_do():
    kinds = {"image_raw": IMAGE, "camera_info": INFO}
    topics = [(f"/camera_{index}/{name}", [kind]) for index in range(65) for name, kind in kinds.items()]
    assert len(cameras_on_graph(topics[:128], NodeConfig(), "/")) == 64
    with pytest.raises(ValueError, match="65 cameras are on the graph, at most 64 .* 'cameras'"):
        cameras_on_graph(topics, NodeConfig(), "/")
    with pytest.raises(ValueError, match="'cameras' has 65 names"):
        NodeConfig(cameras=tuple(f"camera_{index}" for index in range(65)))


def test_topics_that_ros_does_not_allow_are_nobodys_camera():
    topics = [
        (f"/{name}/image_raw", [IMAGE]) for name in ("front", "../front", "front\n", "a b", "0", "a//b", "c" * 101)
    ]
    topics += [(name.replace("image_raw", "camera_info"), [INFO]) for name, _ in topics]
    assert cameras_on_graph(topics, NodeConfig(), "/") == ("front",)


def test_the_save_path_is_absolute_and_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert NodeConfig(save_directory="~/volumes").save_path() == Path("/home/someone/volumes")
