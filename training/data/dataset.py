"""Makes training samples from prepared tables. A sample is a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.geometry.transforms import invert
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.preprocessing import view_from_compressed, view_from_raw
from renderocc_model.images.reduction import ImageError

from .augment import ImageChange, bird_eye_change, change_truth, draw_image_change
from .epochs import OF_SAMPLE
from .prepare.subset import choose
from .prepare.tables import CameraTable, Tables, TablesError, list_tables
from .sample import FrameViews, Sample, SampleConfig
from .sampling import balance_weights, draw_group_counts, frame_weights
from .voxelise import VoxelMarks

__all__ = ["RayDataset", "SampleConfig"]


class RayDataset(torch.utils.data.Dataset):
    """The frames of some prepared recordings. Memory does not grow with their length: tables are mapped, not read.

    Args:
        folder: what `renderocc prepare` wrote.
        config: the contents of a sample.
        recordings: names; None takes all that are complete.
        seed: with epoch and index, it determines every random choice.
        class_counts: (C,) frequencies for the balance of classes; None takes those of the recordings. Give held-out
            recordings the counts of the training recordings.
        grid: grid of the 3D truth, which is needed to rotate or mirror it.
        label_grid: grid of the voxels that labels mark; needed if `config.voxels` is set.
    Attributes:
        classes: the labels' class table.
        class_counts: (C,).
        camera_names: those of the first recording, in the order of its views' axis N. Others may have other cameras.
    Raises:
        TablesError: there are no tables, or the recordings do not fit together (classes, versions).
    """

    def __init__(
        self,
        folder: str | Path,
        config: SampleConfig | None = None,
        recordings: Sequence[str] | None = None,
        seed: int = 0,
        class_counts: np.ndarray | None = None,
        grid: VoxelGrid | None = None,
        label_grid: VoxelGrid | None = None,
    ) -> None:
        self.folder, self.config, self.seed, self.grid = Path(folder), config or SampleConfig(), seed, grid
        self.label_grid = label_grid
        if self.config.voxels and label_grid is None:
            raise ValueError("labels cannot be marked in voxels without a grid; give the dataset the model's")
        found = list_tables(self.folder)
        self.recordings = tuple(found if recordings is None else recordings)
        unknown = [name for name in self.recordings if name not in found]
        if unknown or not self.recordings:
            raise TablesError(f"{self.folder}: recordings {unknown} are not prepared; there are {', '.join(found)}")
        self._tables = [Tables(self.folder / name) for name in self.recordings]
        self._check_alike()
        self.classes = self._tables[0].classes
        self.camera_names = tuple(camera.name for camera in self._tables[0].cameras)
        counts = sum(tables.class_counts for tables in self._tables) if class_counts is None else class_counts
        self.class_counts = np.array(counts, np.int64)
        # Pixels without a class form a group after the classes: not rare (W_b = 1), and treated as static.
        dynamic = np.isin(np.arange(len(self.classes) + 1), self.classes.dynamic)
        frame_part = frame_weights(dynamic, self.config.static_weight, self.config.dynamic_weight)
        balance = balance_weights(self.class_counts, self.config.balance_gain, self.config.balance_cap)
        self._frame_weights = frame_part  # (2, C + 1): of the current frame, of others
        self._weights = frame_part * np.append(balance, 1.0)
        self._ends = np.cumsum([len(tables) for tables in self._tables])
        self._undistort: dict = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _earlier(self, tables: Tables, frame: int) -> list[int]:
        """Frames of about one, two, ... intervals ago, nearest first; fewer at the beginning of a piece."""
        found: list[int] = []
        first = int(np.searchsorted(tables.pieces, tables.pieces[frame]))
        for number in range(1, self.config.previous + 1):
            stamps = tables.stamps[first : found[-1] if found else frame]  # ascending
            if not len(stamps):
                break
            wanted = int(tables.stamps[frame]) - round(number * self.config.previous_interval * 1e9)
            after = int(np.searchsorted(stamps, wanted))
            near = (one for one in (after - 1, after) if 0 <= one < len(stamps))
            found.append(first + min(near, key=lambda one: abs(int(stamps[one]) - wanted)))
        return found

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_undistort": {}}  # computed again where it is needed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of an (epoch, index) key from `EpochSampler`."""
        return self.sample(*key)

    def sample(self, epoch: int, index: int) -> Sample:
        """The sample of an epoch and an index. It is the same at any time and in any process."""
        tables, frame = self.recording_of(index)
        rng = np.random.default_rng([self.seed, epoch, index, OF_SAMPLE])
        config = self.config
        change = bird_eye_change(rng, config.augment)
        shape = (config.height, config.width)
        changes = [draw_image_change(rng, config.augment, *shape) for _ in tables.cameras]
        current = self._views(tables, frame, changes, change)
        earlier = self._earlier(tables, frame)
        if earlier and config.augment.no_previous and rng.random() < config.augment.no_previous:
            earlier = []
        elif len(earlier) > 1 and config.augment.fewer_previous:
            earlier = earlier[: int((len(earlier) + 1) ** rng.random())]
        if earlier and config.augment.standing and rng.random() < config.augment.standing:
            earlier = [frame] * len(earlier)
        previous = tuple(self._views(tables, one, changes, change) for one in earlier)
        rays, cameras = self._rays(rng, tables, frame, change)
        depth_rays = None
        if config.depth_rays:
            depth_rays = self._evenly(tables, frame, config.depth_rays, (), change, rng.random())
        truth = tables.truth_arrays(frame) if config.truth else None
        if truth is not None and not np.array_equal(change, np.eye(4)):
            if self.grid is None:
                raise ValueError("3D truth cannot be rotated or mirrored without its grid; give the dataset its grid")
            truth = change_truth(truth, self.grid, change)
        voxels = self._voxels(rng, tables, frame, change) if config.voxels else None
        tables.release()
        return Sample(tables.name, frame, epoch, index, current, previous, rays, cameras, depth_rays, truth, voxels)

    def rigs(self) -> list[Rig]:
        """The cameras of the recordings, in their order; equal rigs appear once."""
        rigs = (Rig(tuple(Camera(one.name, one.model, one.mount) for one in each.cameras)) for each in self._tables)
        return list(dict.fromkeys(rigs))

    def recording_of(self, index: int) -> tuple[Tables, int]:
        """The recording that holds the frame of an index, and the frame's number in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        recording = int(np.searchsorted(self._ends, index, side="right"))
        return self._tables[recording], index - (int(self._ends[recording - 1]) if recording else 0)

    def rays_of(self, index: int, limit: int | None = None, offsets: Sequence[int] = ()) -> Rays:
        """All labelled rays of a frame, or evenly spread ones, for evaluation. None are drawn at random.

        Args:
            limit: largest number of rays; None for all.
            offsets: neighbouring frames whose rays are added, except those of classes that move or are unknown.
        """
        return self.rays_by_camera(index, limit, offsets)[0]

    def rays_by_camera(
        self, index: int, limit: int | None = None, offsets: Sequence[int] = ()
    ) -> tuple[Rays, np.ndarray, tuple[str, ...]]:
        """The rays of `rays_of`, the number (R,) of each ray's camera, and the cameras' names."""
        tables, frame = self.recording_of(index)
        rays, cameras = self._evenly(tables, frame, limit, offsets, np.eye(4))
        tables.release()
        return rays, cameras, tuple(camera.name for camera in tables.cameras)

    def _evenly(
        self, tables: Tables, frame: int, limit: int | None, offsets: Sequence[int], change: np.ndarray, place=0.0
    ) -> tuple[Rays, np.ndarray]:
        """The rays of `rays_of` in the changed base_link, and their cameras. `place`, 0 to below 1, is the start of
        the even steps, as a share of one."""
        frames, left_out = self._still(tables, frame, offsets)
        starts = tables.starts[frames]  # (frames, N, C + 2)
        sizes = np.where(left_out[:, None], 0, np.diff(starts, axis=2)).ravel()
        ends = np.cumsum(sizes)
        total = int(ends[-1])
        count = total if limit is None else min(limit, total)
        picks = np.arange(count) * total // max(count, 1)
        if place:
            picks = np.minimum(((np.arange(count) + place) * (total / max(count, 1))).astype(np.int64), total - 1)
        cells = np.searchsorted(ends, picks, side="right")
        rows = starts[..., :-1].ravel()[cells] + picks - (ends - sizes)[cells]
        return self._gather(tables, rows, frames, frame, change)

    def _voxels(
        self, rng: np.random.Generator, tables: Tables, frame: int, change: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The voxels that labels mark, with returns of the frame, and of static classes in the auxiliary frames."""
        config = self.config
        assert self.label_grid is not None, "samples with voxels need a grid"
        marks = VoxelMarks(self.label_grid, len(self.classes))
        frames, left_out = self._still(tables, frame, config.auxiliary_offsets)
        starts = tables.starts[frames]
        total = int(np.where(left_out[:, None], 0, np.diff(starts, axis=2)).sum())
        stride = -(-total // config.voxel_returns) or 1
        base_from_odom = change @ invert(tables.odom_from_base[frame])
        for row, one in enumerate(frames):
            base_from_base = change if one == frame else base_from_odom @ tables.odom_from_base[one]
            for camera, directions in enumerate(tables.directions):
                marks.add_pixels(
                    directions,
                    base_from_base @ tables.base_from_camera[one, camera],
                    starts[row, camera],
                    tables.pixels,
                    tables.distances,
                    left_out[row],
                    stride,
                    int(rng.integers(stride)),
                )
        rays = self._evenly(tables, frame, config.voxel_rays, config.auxiliary_offsets, change, rng.random())[0]
        assert rays.distances is not None and rays.classes is not None
        marks.add_rays(*(one.numpy() for one in (rays.origins, rays.directions, rays.distances, rays.classes)))
        return marks.labels().arrays()

    def _still(self, tables: Tables, frame: int, offsets: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The frame and its neighbours (F,), ascending, and the classes to leave out of each (F, C + 1): in neighbours,
        those that move or are unknown."""
        frames = np.array(sorted({frame, *tables.in_piece(frame, (frame + offset for offset in offsets))}))
        moves = np.isin(np.arange(len(tables.classes) + 1), (*tables.classes.dynamic, len(tables.classes)))
        return frames, (frames != frame)[:, None] & moves

    def _views(self, tables: Tables, frame: int, changes: list[ImageChange], change: np.ndarray) -> FrameViews:
        config, count = self.config, len(tables.cameras)
        views = np.zeros((count, config.height, config.width, 3), np.uint8)
        poses = np.array(tables.base_from_camera[frame])
        present, intrinsics = np.zeros(count, bool), np.empty((count, 3, 3))
        for camera, entry in enumerate(tables.cameras):
            table = self.undistortion(entry)
            intrinsics[camera] = changes[camera].intrinsics(table.view.K)
            found = tables.image(frame, camera)
            if found is None:
                poses[camera] = entry.mount
                continue
            data, raw = found
            try:
                if raw is None:
                    view = view_from_compressed(table, np.asarray(data))
                else:
                    view = view_from_raw(table, data, raw.height, raw.width, raw.step, raw.encoding, raw.is_bigendian)
            except ImageError as error:
                stamp_ns = int(tables.image_stamps[frame, camera])
                raise TablesError(
                    f"{tables.folder}: camera '{entry.name}', image of stamp {stamp_ns}: {error}; leave it out of the "
                    "recording and prepare again"
                ) from None
            views[camera] = changes[camera].image(view)
            present[camera] = True
        poses = change @ np.stack([one.pose(pose) for one, pose in zip(changes, poses)])
        odom_from_base = tables.odom_from_base[frame] @ np.linalg.inv(change)
        return FrameViews(int(tables.stamps[frame]), views, present, intrinsics, poses, odom_from_base)

    def _rays(
        self, rng: np.random.Generator, tables: Tables, frame: int, change: np.ndarray
    ) -> tuple[Rays, np.ndarray]:
        """Labelled rays drawn by weight from the current frame and the auxiliary ones."""
        others = tables.in_piece(frame, (frame + offset for offset in self.config.auxiliary_offsets))
        frames = np.array([frame, *others])
        starts = tables.starts[frames]  # (frames, N, C + 2)
        sizes = np.diff(starts, axis=2)
        groups = np.stack([sizes[0].sum(axis=0), sizes[1:].sum(axis=(0, 1))])  # (2, C + 1)
        counts = self._draw(rng, groups.ravel()).reshape(groups.shape)
        rows = [np.empty(0, np.int64)]
        for other, name in zip(*np.nonzero(counts)):
            part = slice(1, None) if other else slice(0, 1)
            cell_sizes, cell_starts = sizes[part, :, name].ravel(), starts[part, :, name].ravel()
            ends = np.cumsum(cell_sizes)
            picks = choose(rng, int(groups[other, name]), int(counts[other, name]))
            cells = np.searchsorted(ends, picks, side="right")
            rows.append(cell_starts[cells] + picks - (ends - cell_sizes)[cells])
        return self._gather(tables, np.sort(np.concatenate(rows)), np.sort(frames), frame, change)

    def _draw(self, rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
        """The number of rays to draw from each class of the frame, then from each class of the other frames."""
        unbalanced, drawn = round((1 - self.config.balanced_share) * self.config.rays), np.zeros_like(sizes)
        if unbalanced:
            drawn = draw_group_counts(rng, sizes, self._frame_weights.ravel(), unbalanced)
        return drawn + draw_group_counts(rng, sizes - drawn, self._weights.ravel(), self.config.rays - unbalanced)

    def _gather(
        self, tables: Tables, rows: np.ndarray, frames: np.ndarray, frame: int, change: np.ndarray
    ) -> tuple[Rays, np.ndarray]:
        """The rays in these rows of the tables, in the changed base_link of `frame`, and their cameras.

        `rows` ascend, so that memory is read in order. They belong to `frames`, which ascend too.
        """
        count = len(tables.classes)
        starts = tables.starts[frames]  # (frames, N, C + 2)
        # Rows of a cell (frame, camera, class or none) lie together, in this order, so bisection finds a row's cell.
        cells = np.searchsorted(starts[..., :-1].ravel(), rows, side="right") - 1
        planes, classes = np.divmod(cells, count + 1)
        classes[classes == count] = UNLABELLED
        places, cameras = np.divmod(planes, len(tables.cameras))
        base_from_odom = change @ invert(tables.odom_from_base[frame])
        chains = [
            change @ tables.base_from_camera[one]
            if one == frame  # without the round trip through odom
            else base_from_odom @ tables.odom_from_base[one] @ tables.base_from_camera[one]
            for one in frames
        ]
        poses = np.array(chains).reshape(-1, 4, 4).astype(np.float32)
        pixels = tables.pixels[rows].astype(np.intp)
        origins, directions = np.empty((len(rows), 3), np.float32), np.empty((len(rows), 3), np.float32)
        bounds = np.searchsorted(planes, np.arange(len(poses) + 1))
        for plane, (first, last) in enumerate(zip(bounds[:-1], bounds[1:])):
            if first < last:
                table = tables.directions[plane % len(tables.cameras)]
                flat = pixels[first:last, 1] * table.shape[1] + pixels[first:last, 0]
                directions[first:last] = table.reshape(-1, 3).take(flat, axis=0) @ poses[plane, :3, :3].T
                origins[first:last] = poses[plane, :3, 3]
        rays = Rays(
            torch.from_numpy(origins),
            torch.from_numpy(directions),
            distances=torch.from_numpy(tables.distances[rows]),
            classes=torch.from_numpy(classes),
            frame_offsets=torch.from_numpy(frames[places] - frame),
        )
        return rays, cameras

    def undistortion(self, camera: CameraTable) -> UndistortTable:
        """The table with which the views of a recording's camera are made, without augmentation."""
        key = (camera.model, camera.mount.tobytes())
        if key not in self._undistort:
            view = network_view(camera.model, self.config.height, self.config.width, camera.mount)
            self._undistort[key] = UndistortTable(camera.model, view)
        return self._undistort[key]

    def _check_alike(self) -> None:
        first = self._tables[0]
        for tables in self._tables[1:]:
            if tables.classes != first.classes:
                raise TablesError(f"{tables.folder}: its classes are not those of {first.folder}; use one class table")
