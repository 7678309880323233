"""The doctor's checks of a parameter file and a checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from renderocc_model.base.config import from_mapping, nested, settings_of
from renderocc_model.base.findings import Findings
from renderocc_model.field.conversion import GROUND_CLASSES
from renderocc_model.geometry.rig import Rig
from renderocc_model.network.packaged import packaged_checkpoint
from renderocc_model.network.rig_summary import compare_summaries
from renderocc_model.rosio.parameter_file import OtherNodes, ParameterFileError, node_parameters
from renderocc_ros.parameters import NodeConfig

__all__ = ["check_checkpoint", "check_params", "check_rig"]

_NOT_OURS = ("qos_overrides", "use_sim_time", "start_type_description_service")  # rclpy's own parameters


def check_params(findings: Findings, path: Path | None) -> NodeConfig:
    """Check a ROS parameter file against the node's parameters; what cannot be used is left at its default."""
    if path is None:
        return NodeConfig()
    try:
        values = node_parameters(path)
    except OtherNodes as error:
        findings.warn("params", str(error))
        return NodeConfig()
    except ParameterFileError as error:
        findings.fail("params", str(error))
        return NodeConfig()
    known = {setting.name: setting for setting in settings_of(NodeConfig)}
    usable = {}
    for name, value in values.items():
        if name.split(".")[0] in _NOT_OURS:
            continue
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "config/renderocc.yaml lists all of them"
            findings.warn("params", f"{path}: unknown parameter {name!r} has no effect", hint)
        elif _has_ros_type(findings, path, name, value, known[name].default):
            usable[name] = [item for item in value if item] if isinstance(known[name].default, tuple) else value
    try:
        config = from_mapping(NodeConfig, nested(usable), where=str(path))
    except ValueError as error:
        findings.fail("params", str(error))
        return NodeConfig()
    findings.ok("params", f"{path}: {len(usable)} parameters set")
    return config


def _has_ros_type(findings: Findings, path: Path, name: str, value: object, default: object) -> bool:
    """ROS refuses an int for a double parameter, and a double for an int; a YAML parser does not."""
    kind = type(default)
    if kind is tuple:
        good, wanted = (
            isinstance(value, list) and all(isinstance(item, str) for item in value),
            'a list of strings, [""] if empty',
        )
    else:
        good, wanted = (
            type(value) is kind,
            {float: "a number with a point", int: "a whole number", bool: "true or false", str: "a string"}[kind],
        )
    if not good:
        example = f", e.g. {name}: {float(value)}" if kind is float and type(value) is int else ""
        findings.fail(
            "params", f"{path}: parameter {name!r} is {value!r}, expected {wanted}", f"write {wanted}{example}"
        )
    return good


def check_checkpoint(findings: Findings, path: Path | None, config: NodeConfig) -> Mapping | None:
    """Load the network that the node would use.

    Returns:
        the summary of the rig it was trained with; None where it has none.
    """
    subject = "checkpoint"
    if path is None and config.checkpoint:
        path = Path(config.checkpoint).expanduser()
    if path is None and packaged_checkpoint(config.preset) is not None:
        path, subject = packaged_checkpoint(config.preset), "checkpoint (the package's own)"
    if path is None:
        findings.warn(
            subject,
            f"none: the node makes an untrained {config.preset!r} network, whose output means nothing",
            "train or name one",
        )
        return None
    try:
        from renderocc_model.export.backends import chosen_backend
        from renderocc_model.export.file import is_exported, read_description
        from renderocc_model.network.checkpoint import load_checkpoint
    except ImportError:  # torch or timm is missing, which the checks of the machine have said
        return None
    try:
        backend = chosen_backend(path, config.backend, config.device)
        exported = is_exported(path)
        checkpoint = read_description(path) if exported else load_checkpoint(path)
    except (ValueError, OSError) as error:
        findings.fail(subject, str(error))
        return None
    if exported:
        made = f"exported, for {backend}"
    else:
        made = f"{sum(parameter.numel() for parameter in checkpoint.network.parameters()) / 1e6:.1f} M parameters"
    grid = checkpoint.config.grid
    text = f"{path}: {made}, grid {'x'.join(map(str, grid.shape))} at {grid.voxel_size:g} m"
    findings.ok(subject, f"{text}, {len(checkpoint.classes)} classes, occupied above {checkpoint.threshold:.3g}")
    _check_ground(findings, config.grid_ignored_classes, checkpoint.classes.names)
    return checkpoint.rig_summary or None


def _check_ground(findings: Findings, ignored: Sequence[str], names: Sequence[str]) -> None:
    """Compare grid_ignored_classes with the classes of the network. Its default names the ground of several tables."""
    ground = {name for classes in GROUND_CLASSES.values() for name in classes}
    unknown = [name for name in ignored if name not in names and name not in ground]
    if unknown:
        findings.warn(
            "params",
            f"grid_ignored_classes names {', '.join(unknown)}, which this network does not know",
            f"it knows {', '.join(names)}",
        )
    counted = [name for name in names if name in ground and name not in ignored]
    if counted and ignored:
        findings.warn(
            "params",
            f"{', '.join(counted)} will be obstacles in ~/grid",
            "add what can be driven on to grid_ignored_classes",
        )


def check_rig(findings: Findings, trained: Mapping | None, rig: Rig | None) -> None:
    """Compare the rig a network was trained with to the one it is to run on."""
    if trained is None or rig is None:
        return
    warnings = compare_summaries(trained, rig.summary())
    for warning in warnings:
        findings.warn("rig", warning, "expect a worse result, or train on recordings of this rig")
    if not warnings:
        findings.ok("rig", f"the {len(rig)} cameras are like those the network was trained with")
