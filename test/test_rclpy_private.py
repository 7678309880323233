"""The private names of rclpy: a release that lacks one is named at the start, and the node works without it."""

import time
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle.node import LifecycleNodeMixin
from system import new_domain

from renderocc_ros.node import RenderOccNode
from renderocc_ros.rclpy_private import (
    CHANGE_STATE,
    USES,
    describe_missing,
    missing_names,
    parameter_overrides,
    release_state_machine,
)

pytestmark = pytest.mark.system


@pytest.fixture
def context():
    made = Context()
    rclpy.init(context=made, domain_id=new_domain())
    yield made
    rclpy.shutdown(context=made)


def reported(node: RenderOccNode) -> list[str]:
    now = time.monotonic()
    return [entry.text for _, kind, entry in node._log.current(now, 60.0) if kind == "rclpy"]


def test_the_installed_rclpy_has_every_private_name(context):
    node = RenderOccNode(context=context)
    assert missing_names(node) == [] and reported(node) == []
    node.destroy_node()


def test_a_name_that_is_gone_is_said_in_one_line_at_the_start_with_its_effect_and_the_remedy(context, monkeypatch):
    monkeypatch.delattr(LifecycleNodeMixin, CHANGE_STATE)  # RenderOccNode still has a method of that name
    node = RenderOccNode(context=context)
    (line,) = reported(node)
    assert f"without {CHANGE_STATE}, a transition that the state does not have fails" in line
    assert "Use the rclpy of ROS 2 Jazzy" in line and "\n" not in line
    node.destroy_node()


def test_names_that_only_instances_have_are_missed_too(context):
    node = LifecycleNode("plain", context=context)
    overrides, machine = node._parameter_overrides, node._state_machine
    del node._parameter_overrides, node._state_machine
    assert missing_names(node) == ["_parameter_overrides", "_state_machine"]
    line = describe_missing(missing_names(node))
    assert USES["_parameter_overrides"] in line and USES["_state_machine"] in line
    node._parameter_overrides, node._state_machine = overrides, machine
    node.destroy_node()


def test_without_the_names_nothing_is_read_and_nothing_raised():
    assert parameter_overrides(SimpleNamespace()) == {}
    release_state_machine(SimpleNamespace())
