"""`renderocc metrics`: compute mIoU and RayIoU of folders of volumes."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from renderocc_model.base.files import replacing
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.base.worker_processes import serve_parent
from renderocc_model.field.classes import TABLES, UNLABELLED, ClassTable, by_name
from renderocc_model.field.conversion import converted_ids
from renderocc_model.geometry.grid import VoxelGrid

from ..supervision.voxel_truth import crop_slices
from .confusion import Confusion
from .rayiou import DEFAULT_ORIGIN, THRESHOLDS, RayIoU, select_origins
from .report import volume_table
from .volumes import flat_ground, matched_files, noted_table, read_origins, read_volume, saved_grid, volume_grid

__all__ = ["VolumeScores", "compare_folders", "main", "write_json"]

_EACH = 8  # number of files for each process; with fewer, starting a process costs more than it saves
MASKS = ("mask_camera", "mask_lidar", "none")


@dataclass
class VolumeScores:
    """The metrics of volumes, over any number of frames. `rays` is None without RayIoU."""

    voxels: Confusion
    rays: RayIoU | None
    frames: int = 0

    @classmethod
    def empty(cls, classes: ClassTable, with_rays: bool) -> VolumeScores:
        return cls(Confusion(classes), RayIoU(classes) if with_rays else None)

    def add(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        mask: np.ndarray | None,
        grid: VoxelGrid | None = None,
        origins: np.ndarray | None = None,
    ) -> None:
        """Count a frame. Grid and origins (N, 3) are for its rays. Errors are those of `Confusion` and `RayIoU`."""
        self.voxels.add(prediction, truth, mask)
        if self.rays is not None:
            if grid is None or origins is None:
                raise ValueError("RayIoU needs the grid and the origins of rays; give both")
            self.rays.add_volumes(prediction, truth, grid, origins)
        self.frames += 1

    def merge(self, other: VolumeScores) -> None:
        """Add the counts of another object."""
        self.voxels.merge(other.voxels)
        if self.rays is not None and other.rays is not None:
            self.rays.merge(other.rays)
        self.frames += other.frames

    def as_dict(self) -> dict:
        """Plain numbers for JSON. Ratios are in 0..1; None where there was nothing to count."""
        classes = self.voxels.classes
        names = [classes.names[index] for index in classes.occupied_ids]
        rows = list(classes.occupied_ids)
        counts: dict[str, Any] = {"frames": self.frames, "voxels": int(self.voxels.histogram.sum())}
        counts["voxels_truth"] = _counts(classes, self.voxels.histogram.sum(axis=1))
        counts["voxels_prediction"] = _counts(classes, self.voxels.histogram.sum(axis=0))
        result: dict[str, Any] = {
            "miou": _number(self.voxels.miou()),
            "iou": dict(zip(names, map(_number, self.voxels.iou()[rows]))),
            "iou_occupied": _number(self.voxels.occupied_iou()),
            "counts": counts,
        }
        if self.rays is not None:
            result["rayiou"] = _number(self.rays.rayiou())
            for threshold, value in zip(THRESHOLDS, self.rays.at_thresholds()):
                result[f"rayiou_{threshold:g}"] = _number(value)
            ratios = self.rays.iou()[:, rows].T
            result["rayiou_by_class"] = {name: [_number(value) for value in row] for name, row in zip(names, ratios)}
            counts |= {"origins": self.rays.origins, "rays": self.rays.rays}
            counts["rays_truth"] = _counts(classes, self.rays.truth)
            counts["rays_prediction"] = _counts(classes, self.rays.prediction)
        return result


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _counts(classes: ClassTable, values: np.ndarray) -> dict[str, int]:
    return dict(zip(classes.names, values.tolist()))


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file. If this fails, an old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial_path:
        partial_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Comparison:
    """The options for comparing two files."""

    predictions: Path
    truth: Path
    classes: ClassTable
    mask: str
    grid: VoxelGrid | None  # None: no rays
    origins: dict[str, np.ndarray] | None
    flat_ground: bool = False  # in place of what is predicted
    converted: np.ndarray | None = None  # (256,) the class of each id of the truth; None where they are the same

    def __call__(self, name: str) -> VolumeScores:
        scores = VolumeScores.empty(self.classes, self.grid is not None)
        arrays = ("semantics",) if self.mask == "none" else ("semantics", self.mask)
        truth = read_volume(self.truth / name, arrays)
        if self.converted is not None:
            truth["semantics"] = self._of_truth(name, truth["semantics"])
        prediction = read_volume(self.predictions / name, ("semantics",))["semantics"]
        path, grid = self.predictions / name, self.grid
        try:
            if prediction.shape != truth["semantics"].shape:
                truth, grid = self._cut(truth, path, prediction.shape)
            if self.flat_ground:
                prediction = flat_ground(grid or volume_grid(prediction.shape, self.classes), self.classes)
            origins = None if grid is None or self.grid is None else self._origins(name, grid)
            scores.add(prediction, truth["semantics"], truth.get(self.mask), grid, origins)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return scores

    def _of_truth(self, name: str, semantics: np.ndarray) -> np.ndarray:
        """The truth's ids as ids of `classes`."""
        assert self.converted is not None
        if semantics.min() < 0 or semantics.max() > UNLABELLED:
            raise ValueError(f"{self.truth / name}: ids reach beyond 0 to {UNLABELLED}; expected class ids")
        return self.converted[semantics.astype(np.uint8)]

    def _cut(self, truth: dict[str, np.ndarray], path: Path, shape: tuple) -> tuple[dict[str, np.ndarray], VoxelGrid]:
        """The truth, cut to the grid that is named in the prediction's file, and that grid."""
        whole = truth["semantics"].shape
        part = saved_grid(path)
        if part is None or part.shape != shape:
            raise ValueError(f"has shape {shape}, but the truth {whole}; expected the same, or a `grid` of that shape")
        slices = crop_slices(self.grid or volume_grid(whole, self.classes), part)
        return {name: np.ascontiguousarray(array[slices]) for name, array in truth.items()}, part

    def _origins(self, name: str, grid: VoxelGrid) -> np.ndarray:
        given = np.array([DEFAULT_ORIGIN]) if self.origins is None else self.origins[name[: -len(".npz")]]
        origins = select_origins(given, grid)
        if not len(origins):
            raise ValueError("none of its origins lies in the grid, 1 m from its sides; correct the file of origins")
        return origins


def compare_folders(
    predictions: Path,
    truth: Path,
    classes: ClassTable,
    with_rays: bool = False,
    origins: Path | None = None,
    grid: VoxelGrid | None = None,
    mask: str = "mask_camera",
    jobs: int = 1,
    with_flat_ground: bool = False,
    truth_classes: ClassTable | None = None,
) -> VolumeScores:
    """Compare every .npz file of one folder with the file of the same relative path in another folder.

    A prediction that is smaller than its truth is compared in its own grid, if its file names one, as the node's does.

    Args:
        predictions, truth: the folders.
        classes: the class table.
        with_rays: whether to compute RayIoU, too.
        origins: JSON file of the rays' origins; None for one origin at (0, 0, 1.84).
        grid: grid of the truth; None to find it from the truth's shape. Only RayIoU and smaller predictions need it.
        mask: name of the truth's array that says which voxels count for mIoU, or "none".
        jobs: number of processes.
        with_flat_ground: whether to compare, instead of the predictions, a flat road at height 0 in their grids.
        truth_classes: the truth's class table, which is converted to `classes`; None for the one that truth.json in the
            truth's folders names, else `classes`.
    Raises:
        ValueError: something is missing or wrong. The text names the file.
    """
    from tqdm import tqdm

    names = matched_files(predictions, truth)
    places = None if origins is None else read_origins(origins)
    if places is not None:
        lacking = [name for name in names if name[: -len(".npz")] not in places]
        if lacking:
            first = lacking[0][: -len(".npz")]
            raise ValueError(f"{origins}: lacks {len(lacking)} of {len(names)} files, the first is '{first}'; add them")
    if with_rays and grid is None:
        shape = read_volume(truth / names[0], ("semantics",))["semantics"].shape
        try:
            grid = volume_grid(shape, classes)
        except ValueError as error:
            raise ValueError(f"{truth / names[0]}: {error}") from None
    truth_classes = noted_table(truth, names, truth_classes) or classes
    converted = None if truth_classes == classes else converted_ids(truth_classes, classes)
    rays = grid if with_rays else None
    compare = _Comparison(predictions, truth, classes, mask, rays, places, with_flat_ground, converted)
    total = VolumeScores.empty(classes, with_rays)
    with _running(compare, names, jobs) as parts:
        for part in tqdm(parts, total=len(names), unit="frame", disable=not sys.stderr.isatty()):
            total.merge(part)
    return total


@contextmanager
def _running(
    compare: Callable[[str], VolumeScores], names: Sequence[str], jobs: int
) -> Iterator[Iterator[VolumeScores]]:
    """Yield the scores of the files in order, computed in this process or in several."""
    jobs = min(jobs, len(names) // _EACH)
    if jobs <= 1:
        yield map(compare, names)
        return
    executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), serve_parent, (os.getpid(),))
    try:
        yield executor.map(compare, names)
    except BrokenProcessPool:
        raise ValueError(f"a process died, probably out of memory; use fewer than {jobs} --jobs") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc metrics",
        description="Compare predicted volumes with the truth by Occ3D's mIoU and, with --rayiou, SparseOcc's RayIoU. "
        "Both folders have .npz files in Occ3D's layout with the same relative paths: `semantics` (X, Y, Z), and in "
        "the truth also `mask_camera`. Voxels predicted as 255 (unknown) count as free. Volumes that the node saved "
        "are compared in their own, smaller grid.",
        epilog="example: renderocc metrics predictions/ occ3d/gts/ --rayiou --origins origins.json --json scores.json",
    )
    made.add_argument("predictions", type=Path, metavar="PRED_DIR", help="folder of the predicted volumes")
    made.add_argument("truth", type=Path, metavar="TRUTH_DIR", help="folder of the truth")
    made.add_argument("--json", type=Path, metavar="OUT", help="also write the figures to this file")
    made.add_argument("--rayiou", action="store_true", help="also compute RayIoU")
    made.add_argument("--flat-ground", action="store_true", help="also evaluate a flat road at height 0")
    made.add_argument(
        "--origins",
        type=Path,
        metavar="FILE",
        help="JSON file of the rays' origins: relative path without suffix -> list of [x, y, z] in metres, the LiDAR's "
        "positions in the frame of the volume; origins nearer than 1 m to the grid's sides are left out, and of more "
        "than 8, 8 are taken, spread evenly (default: one origin at 0, 0, 1.84)",
    )
    made.add_argument(
        "--grid",
        type=float,
        nargs=7,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1", "VOXEL"),
        help="lower and upper corner and voxel size of the truth's grid in metres, for --rayiou (default: by the "
        "truth's shape the grid of Occ3D, its middle, or the grid of SemanticKITTI)",
    )
    made.add_argument(
        "--classes", default="occ3d_nuscenes", choices=tuple(TABLES), help="class table (default occ3d_nuscenes)"
    )
    made.add_argument(
        "--truth-classes",
        choices=tuple(TABLES),
        help="class table of the truth, if it is another one and no truth.json of `renderocc truth` names it; its ids "
        "are converted to ground_obstacle",
    )
    made.add_argument(
        "--mask",
        default="mask_camera",
        choices=MASKS,
        help="array of the truth that says which voxels count for mIoU (default mask_camera)",
    )
    made.add_argument(
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="number of processes (default: number of CPU cores)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc metrics`. Exit status 0, or 2 if something is missing or wrong."""
    arguments = parser().parse_args(argv)
    classes = by_name(arguments.classes)
    try:
        if arguments.origins is not None and not arguments.rayiou:
            raise ValueError("--origins is for rays; also give --rayiou")
        grid = None
        if arguments.grid is not None:
            grid = VoxelGrid(tuple(arguments.grid[:3]), tuple(arguments.grid[3:6]), arguments.grid[6])
        compare = partial(
            compare_folders,
            arguments.predictions,
            arguments.truth,
            classes,
            arguments.rayiou,
            arguments.origins,
            grid,
            arguments.mask,
            arguments.jobs,
            truth_classes=by_name(arguments.truth_classes) if arguments.truth_classes else None,
        )
        result = compare().as_dict()
        if arguments.flat_ground:
            flat = compare(with_flat_ground=True)
            result["baselines"] = {"flat_ground": flat.as_dict()}
        if arguments.json:
            write_json(arguments.json, result)
    except (ValueError, OSError) as error:
        print(f"renderocc metrics: {machine_error(error, arguments.json or '') or error}", file=sys.stderr)
        return 2
    print(volume_table(result))
    if arguments.flat_ground:
        print("\nan empty flat road:\n\n" + volume_table(result["baselines"]["flat_ground"]))
    if arguments.json:
        print(f"wrote {arguments.json.resolve()}")
    return 0
