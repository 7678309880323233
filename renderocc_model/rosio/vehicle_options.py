"""The vehicle's settings as options of a command, and its parameter file as `--params`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from renderocc_model.base.config import from_mapping, nested, settings_of
from renderocc_model.base.config_arguments import add_arguments
from renderocc_model.rosio.parameter_file import vehicle_of_file
from renderocc_model.rosio.vehicle import Vehicle

__all__ = ["add_params_option", "add_pose_gap_option", "add_vehicle_options", "vehicle_from", "with_options"]

V = TypeVar("V", bound=Vehicle)

_ALSO = {"lidar_topics": ("--lidar",)}  # shorter names


def add_vehicle_options(parser: argparse.ArgumentParser) -> None:
    """Add `--params` and one option for each setting of `Vehicle`."""
    group = parser.add_argument_group("the vehicle, as for the node; options count before the file")
    add_params_option(group)
    add_arguments(group, Vehicle, also=_ALSO)


def add_params_option(parser: argparse._ActionsContainer) -> None:
    """Add `--params`."""
    parser.add_argument("--params", type=Path, metavar="FILE", help="ROS parameter file of the node (vehicle.yaml)")


def add_pose_gap_option(parser: argparse._ActionsContainer) -> None:
    """Add `--max-pose-gap`."""
    parser.add_argument(
        "--max-pose-gap",
        type=float,
        default=0.5,
        metavar="S",
        help="largest time in seconds between a stamp and the ego poses around it (default 0.5)",
    )


def vehicle_from(arguments: argparse.Namespace) -> Vehicle:
    """The vehicle that a command's options and `--params` describe.

    Raises:
        ValueError: the file cannot be used, or a value is wrong.
    """
    return with_options(Vehicle() if arguments.params is None else vehicle_of_file(arguments.params), arguments)


def with_options(vehicle: V, arguments: argparse.Namespace) -> V:
    """A vehicle, or the node's parameters, with the settings of the vehicle that a command's options give.

    Raises:
        ValueError: a value is wrong.
    """
    given = {
        setting.name: getattr(arguments, setting.name.rpartition(".")[2], None) for setting in settings_of(Vehicle)
    }
    chosen = nested({name: value for name, value in given.items() if value is not None})
    return from_mapping(type(vehicle), chosen, where="options", base=vehicle)
