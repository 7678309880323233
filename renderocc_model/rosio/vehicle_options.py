"""The vehicle's settings as options of a command, and its parameter file as `--params`."""

from __future__ import annotations

import argparse
from pathlib import Path

from renderocc_model.base.config_arguments import add_arguments, from_arguments
from renderocc_model.rosio.parameter_file import vehicle_of_file
from renderocc_model.rosio.vehicle import Vehicle

__all__ = ["add_params_option", "add_vehicle_options", "vehicle_from"]

_ALSO = {"lidar_topics": ("--lidar",)}  # shorter names


def add_vehicle_options(parser: argparse.ArgumentParser) -> None:
    """Add `--params` and one option for each setting of `Vehicle`."""
    group = parser.add_argument_group("the vehicle, as for the node; options count before the file")
    add_params_option(group)
    add_arguments(group, Vehicle, also=_ALSO)


def add_params_option(parser: argparse._ActionsContainer) -> None:
    """Add `--params`."""
    parser.add_argument("--params", type=Path, metavar="FILE", help="ROS parameter file of the node (vehicle.yaml)")


def vehicle_from(arguments: argparse.Namespace) -> Vehicle:
    """The vehicle that a command's options and `--params` describe.

    Raises:
        ValueError: the file cannot be used, or a value is wrong.
    """
    return from_arguments(
        arguments, Vehicle, Vehicle() if arguments.params is None else vehicle_of_file(arguments.params)
    )
