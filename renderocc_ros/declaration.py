"""NodeConfig as ROS parameters: declare them with descriptions and ranges, read them back as one checked object."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterException, ParameterException
from rclpy.node import Node

from renderocc_model.base.config import Setting, from_mapping, nested, settings_of
from renderocc_ros.parameters import NodeConfig
from renderocc_ros.rclpy_private import parameter_overrides

OF_ROS = ("qos_overrides", "use_sim_time", "start_type_description_service")  # parameters of every node


def parameter_descriptor(setting: Setting) -> ParameterDescriptor:
    """Description, range and choices of a NodeConfig field as `ros2 param describe` shows them."""
    descriptor = ParameterDescriptor(description=setting.help, dynamic_typing=True)  # so that ROS accepts 1 for 1.0
    if setting.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(setting.choices)
    if setting.minimum is not None and setting.type is int:
        descriptor.integer_range = [IntegerRange(from_value=setting.minimum, to_value=setting.maximum, step=1)]
    elif setting.minimum is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=setting.minimum, to_value=setting.maximum, step=0.0)
        ]
    return descriptor


def declare_parameters(node: Node) -> list[str]:
    """Declare every field of NodeConfig.

    Returns:
        One line for each given value that is wrong. These parameters have their defaults until `ros2 param set` changes
        them, so that a node with a wrong value can be inspected and corrected.
    """
    wrong = []
    for setting in settings_of(NodeConfig):
        descriptor = parameter_descriptor(setting)
        # ROS cannot infer the type of an empty list; [""] stands for it.
        default = list(setting.default) or [""] if isinstance(setting.default, tuple) else setting.default
        try:
            node.declare_parameter(setting.name, default, descriptor)
        except (ParameterException, InvalidParameterException) as error:
            wrong.append(f"parameter {setting.name!r}: {error}; {setting.help}")
            node.declare_parameter(setting.name, default, descriptor, ignore_override=True)
    return wrong


def unknown_parameters(node: Node) -> dict[str, str]:
    """{name: warning} of the given parameters that the node does not have."""
    known = [setting.name for setting in settings_of(NodeConfig)]
    unknown = {}
    for name in sorted(set(parameter_overrides(node)) - set(known)):
        if name.split(".")[0] not in OF_ROS:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`ros2 param list` names all of them"
            unknown[name] = f"unknown parameter {name!r} has no effect; {hint}"
    return unknown


def read_config(node: Node, changed: Mapping | None = None) -> NodeConfig:
    """The node's parameters as one object.

    Args:
        node: its parameters are declared.
        changed: {name: value} that replace the current values.

    Raises:
        ValueError: a value is of the wrong type or out of range, or two contradict each other.
    """
    values = {setting.name: node.get_parameter(setting.name).value for setting in settings_of(NodeConfig)}
    values.update(changed or {})
    for setting in settings_of(NodeConfig):
        if isinstance(setting.default, tuple):
            values[setting.name] = [name for name in values[setting.name] or [] if name]
    return from_mapping(NodeConfig, nested(values), where="the node's parameters")
