"""Finds the sweeps, their classes and the moments of `renderocc truth`, by its options."""

from __future__ import annotations

import argparse

import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE, ClassTable
from training.label import parser as label_parser
from training.label.clouds import LidarClouds, LidarGroup
from training.label.ground_clouds import GroundClouds
from training.label.setup import find_sources
from training.recordings.frames import Recording
from training.recordings.notes import class_table

from .sweeps import Sweeps

__all__ = ["find_sweeps", "moments"]

_SHARED = ("no_deskew", "label_field", "label_files", "classes_from", "ground_method", "mapping", "classes")


def find_sweeps(recording: Recording, arguments: argparse.Namespace) -> tuple[Sweeps, ClassTable, dict[str, str]]:
    """The sweeps, the table of their classes, and notes for people.

    Args:
        recording: an open recording, with its label bag.
        arguments: the options of `renderocc truth`.
    Raises:
        ValueError: there is no LiDAR, or nothing gives its points classes.
    """
    labels = recording.labels_path
    wanted = label_parser().parse_args([str(arguments.bag)])
    for name in _SHARED:
        setattr(wanted, name, getattr(arguments, name))
    sources, notes = find_sources(recording, wanted)
    lidar = sources.lidar
    assert isinstance(lidar, (LidarClouds, GroundClouds, LidarGroup))
    notes = {key: notes[key] for key in ("semantics", "deskewing", "warning", "ground") if key in notes}
    classes = sources.classes
    if lidar.classes is not None and arguments.labels is None:
        classes = GROUND_OBSTACLE if arguments.classes_from else classes
    elif labels is not None or _has_labels(recording):
        if lidar.classes is not None:
            raise ValueError("--labels was given, but the clouds have a field 'label'; leave out --labels")
        classes = class_table(arguments.classes, arguments.bag, labels)
        notes["semantics"] = f"label images of {labels or recording.path}"
    else:
        raise ValueError(
            f"{recording.path}: nothing gives the points classes; make labels with `renderocc label`, or give "
            "--classes-from ground, --label-field or --label-files"
        )
    return Sweeps(recording, lidar, arguments.spacing, arguments.reach), classes, notes


def _has_labels(recording: Recording) -> bool:
    return any(recording.has_labels(camera, stamp) for camera, stamps in recording.stamps.items() for stamp in stamps)


def moments(sweeps: Sweeps, rate: float) -> list[int]:
    """Stamps of the first LiDAR's sweeps, in nanoseconds, about `rate` a second, or all if there are fewer."""
    stamps = sweeps.lidars[0].topic.stamps
    # The sweeps are not exactly regular: half the time between two of them is let through.
    least = 1e9 / rate - (np.median(np.diff(stamps)) / 2 if len(stamps) > 1 else 0)
    found: list[int] = []
    for stamp_ns in stamps:
        if not found or stamp_ns - found[-1] >= least:
            found.append(stamp_ns)
    return found
