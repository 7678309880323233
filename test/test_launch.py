"""The launch file, where ROS's launch is installed (it is not on PyPI)."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 install")
pytest.importorskip("ament_index_python")

from launch.actions import DeclareLaunchArgument  # noqa: E402

from launch import LaunchContext  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def launch_file(monkeypatch_module):
    """The launch file as a module, its share directory being this source tree."""
    monkeypatch_module.setattr("ament_index_python.packages.get_package_share_directory", lambda name: str(ROOT))
    spec = importlib.util.spec_from_file_location("renderocc_launch", ROOT / "launch" / "renderocc.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_node_is_started_again_only_where_asked_for(launch_file):
    for word, expected in (("true", True), ("false", False)):
        assert launched(launch_file, respawn=word)[0].process_description is not None
        assert launched(launch_file, respawn=word)[0]._ExecuteLocal__respawn is expected


def test_a_missing_parameter_file_is_named(launch_file):
    with pytest.raises(RuntimeError, match="nowhere.yaml"):
        launched(launch_file, params_file="/nowhere.yaml")
