"""Accumulated truth of a simulated drive beside the exact one, and what its wrong voxels are.

The figures of docs/evaluating.md:

    renderocc simulate town --seed 2030 --frames 50 --rate 10 --scan
    renderocc truth town --out made --rate 0.5
    python test/truth_figures.py town made --seed 2030
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.transforms import invert, transform_points
from training.evaluate.confusion import Confusion
from training.simulate.record import START_NS
from training.simulate.town import Town, build_town
from training.simulate.truth import LONGEST_MOVER, Voxeliser

FREE, DYNAMIC = OCC3D_NUSCENES.free, OCC3D_NUSCENES.dynamic
STEP_S = 0.05  # between the moments at which moving boxes are looked at


def boxes_at(town: Town, t: float, here: np.ndarray, reach: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The boxes around all vehicles and persons near a place: model_from_odom (4, 4), lower and upper corner."""
    near = town.traffic.models(t, here, reach=reach)
    return [(invert(pose), mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)) for mesh, pose in near]


def within(points: np.ndarray, boxes, margin: float = 0.0) -> np.ndarray:
    """Which points (N, 3) in odom lie in a box, or nearer to it than `margin` metres along its axes."""
    found = np.zeros(len(points), bool)
    for model_from_odom, lower, upper in boxes:
        local = transform_points(model_from_odom, points)
        found |= ((local > lower - margin) & (local < upper + margin)).all(axis=1)
    return found


def ghosts(town: Town, points: np.ndarray, t: float, duration: float, reach: float) -> np.ndarray:
    """Which places (N, 3) in odom a vehicle or person passes in the recording, but is not within a voxel of at `t`."""
    here = town.drive.odom_from_base(t)[:3, 3]
    swept = np.zeros(len(points), bool)
    for moment in np.arange(0.0, duration + STEP_S, STEP_S):
        swept |= within(points, boxes_at(town, moment, here, reach))
    return swept & ~within(points, boxes_at(town, t, here, reach), OCC3D_GRID.voxel_size)


@dataclass
class Figures:
    """Counts of voxels within the exact mask_lidar, over any number of volumes."""

    confusion: Confusion = field(default_factory=lambda: Confusion(OCC3D_NUSCENES))
    occupied: int = 0
    counts: dict = field(default_factory=dict)

    def add(self, town: Town, voxeliser: Voxeliser, ours: Path, exact: Path, duration: float) -> None:
        """Count one volume, whose file's name is its stamp."""
        t = (int(ours.stem) - START_NS) / 1e9
        mine, true = np.load(ours)["semantics"], np.load(exact)["semantics"]
        mask = np.load(exact)["mask_lidar"] > 0
        self.confusion.add(mine, true, mask)
        wrong = (mine != FREE) & (true == FREE) & mask
        dynamic = np.isin(mine, DYNAMIC)
        reach = voxeliser.reach + LONGEST_MOVER
        odom_from_base = town.drive.odom_from_base(t)
        empty = wrong & ~voxeliser.touched(t, town.traffic.models(t, odom_from_base[:3, 3], reach=reach))
        places = np.argwhere(wrong)
        centres = (places + 0.5) * OCC3D_GRID.voxel_size + OCC3D_GRID.lower
        ghost = np.zeros_like(wrong)
        ghost[tuple(places[ghosts(town, transform_points(odom_from_base, centres), t, duration, reach)].T)] = True
        self.occupied += int(np.count_nonzero((mine != FREE) & mask))
        for name, voxels in (
            ("free in the exact truth", wrong),
            ("of dynamic classes among them", wrong & dynamic),
            ("without any surface", empty),
            ("of dynamic classes among these", empty & dynamic),
            ("ghosts", ghost),
            ("ghosts without any surface", ghost & empty),
            ("ghosts of dynamic classes", ghost & dynamic),
        ):
            self.counts[name] = self.counts.get(name, 0) + int(np.count_nonzero(voxels))

    def as_dict(self) -> dict:
        """All figures in percent; the counts are shares of the occupied voxels."""
        iou = dict(zip(OCC3D_NUSCENES.names, self.confusion.iou()))
        shares = {name: 100 * count / max(self.occupied, 1) for name, count in self.counts.items()}
        figures = {"occupied IoU": 100 * self.confusion.occupied_iou(), "mIoU": 100 * self.confusion.miou()}
        figures |= {name: 100 * iou[name] for name in ("driveable_surface", "manmade", "car")}
        return {name: round(float(value), 2) for name, value in (figures | shares).items()} | {
            "occupied voxels": self.occupied
        }


def figures(bag: Path, made: Path, town: Town, duration: float) -> Figures:
    """The figures of the volumes in a folder."""
    found, voxeliser = Figures(), Voxeliser(town, [], None)
    for file in sorted(Path(made).glob("*.npz")):
        found.add(town, voxeliser, file, Path(bag) / "occupancy" / file.name, duration)
    return found


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path, help="a recording of `renderocc simulate`")
    parser.add_argument("made", type=Path, help="the folder of its accumulated truth")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--rate", type=float, default=10.0)
    arguments = parser.parse_args()
    duration = (arguments.frames - 1) / arguments.rate
    town = build_town(arguments.seed, duration + 1.0)
    print(json.dumps(figures(arguments.bag, arguments.made, town, duration).as_dict(), indent=1))


if __name__ == "__main__":
    main()
