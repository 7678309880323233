"""Goes through what `renderocc prepare` does with a recording, and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import ClassTable
from training.recordings.frames import Recording
from training.recordings.spread import evenly_spread

from . import PrepareConfig, usable_frames
from .extract import Extractor
from .tables import pixel_directions, refuse_nothing

__all__ = ["Trial", "try_frames"]


@dataclass(frozen=True)
class Trial:
    """What would become of a recording.

    Attributes:
        frames: frames that the tables would have.
        tried: frames that were made into rows, spread evenly over them.
        pixels: labelled pixels in these rows.
        classified: labelled pixels with a class.
    """

    frames: int
    tried: int
    pixels: int
    classified: int


def try_frames(
    recording: Recording, table: ClassTable, config: PrepareConfig, labelled: bool = True, most: int = 0
) -> Trial:
    """Find the frames of a recording and make rows of some of them.

    Args:
        recording: an open recording with its labels.
        table: the labels' class table.
        config: the settings of `renderocc prepare`.
        labelled: whether labels are needed; False for a recording that is to be labelled first.
        most: largest number of frames to make into rows; 0 for all.
    Raises:
        ValueError: the recording, or one of these frames, cannot be used for training.
    """
    frames = usable_frames(recording, config, labelled)
    directions = {camera: pixel_directions(recording.models[camera]) for camera in recording.cameras}
    truth = config.truth_table(recording, table)
    extract = Extractor(recording, table, directions, config.without_depth, config.pixels_per_image, truth)
    totals = np.zeros(len(table) + 1, np.int64)
    tried = evenly_spread(frames, most)
    for frame in tried:
        row = extract.row(frame, recording.gather(extract.wanted([frame])))
        totals += row.counts.sum(axis=0)
    if labelled:
        refuse_nothing(str(recording.path), len(tried), int(totals.sum()))
    return Trial(len(frames), len(tried), int(totals.sum()), int(totals[:-1].sum()))
