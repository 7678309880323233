"""A plain recording and others of the same drive that look different: made by the commands, then compared."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from training.data.dataset import RayDataset
from training.data.prepare import main as prepare
from training.data.sample import Sample, SampleConfig
from training.label import main as label
from training.recordings.frames import Recording

CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")


class Drive(NamedTuple):
    """A recording, the parameter file of its vehicle, and what `label` and `prepare` made of them."""

    bag: Path
    params: Path
    labels: Path
    tables: Path


class Drives(dict):
    """{"plain" or the name of a disguise: Drive}, made when they are asked for.

    Args:
        plain: the plain recording.
        folder: where the others are written.
        disguises: {name: (writes the recording again, the parameters of its vehicle)}.
    """

    def __init__(
        self, plain: Path, folder: Path, disguises: Mapping[str, tuple[Callable[[Path, Path], Path], dict]]
    ) -> None:
        super().__init__()
        self.plain, self.folder, self.disguises = plain, folder, disguises

    def __missing__(self, name: str) -> Drive:
        params = self.folder / f"{name}.yaml"
        write, settings = (lambda bag, out: bag, {}) if name == "plain" else self.disguises[name]
        bag = write(self.plain, self.folder / name / "drive")
        params.write_text(yaml.safe_dump({"/**/renderocc": {"ros__parameters": settings}}))
        sidecar, tables = self.folder / f"{name}_labels", self.folder / f"{name}_tables"
        options = ["--params", str(params), "--jobs", "1"]
        assert label([str(bag), "--out", str(sidecar), "--label-field", "label", *options]) == 0
        assert prepare([str(bag), "--labels", str(sidecar), "--out", str(tables), *options]) == 0
        self[name] = Drive(bag, params, sidecar, tables)
        return self[name]


def assert_same_labels(other: Recording, plain: Recording) -> None:
    """Both have the same images, and the same depth and class in each pixel."""
    assert other.cameras == plain.cameras == CAMERAS and other.stamps == plain.stamps
    for camera in CAMERAS:
        for stamp in plain.stamps[camera]:
            np.testing.assert_array_equal(other.depth(camera, stamp), plain.depth(camera, stamp))
            np.testing.assert_array_equal(other.semantic(camera, stamp), plain.semantic(camera, stamp))


def samples_with_the_same_rays(other: Drive, plain: Drive) -> list[tuple[Sample, Sample]]:
    """The training samples of the other and the plain drive, after their rays have been compared."""
    config = SampleConfig(height=64, width=176, rays=2000)
    others, plains = (RayDataset(drive.tables, config, seed=0) for drive in (other, plain))
    assert len(others) == len(plains) == 3
    pairs = [(others.sample(0, index), plains.sample(0, index)) for index in range(len(plains))]
    for one, two in pairs:
        np.testing.assert_allclose(one.rays.origins, two.rays.origins, atol=1e-6)
        np.testing.assert_allclose(one.rays.directions, two.rays.directions, atol=1e-6)
        np.testing.assert_array_equal(one.rays.distances, two.rays.distances)
        np.testing.assert_array_equal(one.rays.classes, two.rays.classes)
    return pairs
