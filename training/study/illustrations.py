"""Draws a study's pictures: test frames of the main variant, and volumes of several variants beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from renderocc_model.base.files import replacing
from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.drawing import bird_eye_view
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.network.checkpoint import Checkpoint, load_checkpoint

from ..data.dataset import RayDataset
from ..evaluate.evaluate import held_out_dataset
from ..evaluate.frame_truth import occupied_classes, truth_of
from ..evaluate.held_out import evenly, predicted_fields
from ..train.frame_sheet import draw_frame

__all__ = ["draw_birds_eyes", "draw_views", "volumes_from_above", "write_jpeg"]

_MOST_BYTES = 150_000
_WIDEST = 1600  # pixels
_TILE = 260  # pixels of a volume from above
_BAR = 24
_QUALITIES = (90, 80, 70, 60, 50, 40, 30)


def draw_views(checkpoint: Path, tables: Path, recordings: Sequence[str], count: int) -> list[np.ndarray]:
    """Draw images, labels and the rendered field of evenly spread frames, each (H, W, 3) uint8 RGB."""
    made, dataset = _open(checkpoint, tables, recordings)
    # All labels of the frame itself are drawn.
    config = replace(dataset.config, rays=1 << 30, auxiliary_offsets=())
    dataset = RayDataset(tables, config, recordings)
    indices = evenly(len(dataset), count)
    fields = predicted_fields(made.network, made.config, dataset, indices)
    return [draw_frame(field, sample, made.classes, made.threshold) for _, sample, field in fields]


def draw_birds_eyes(checkpoints: dict[str, Path], tables: Path, recordings: Sequence[str], count: int) -> np.ndarray:
    """Volumes from above, (H, W, 3) uint8 RGB: a column for each of some frames, a row for the truth and each network.

    All show the voxels that the cameras see by the truth's mask, grey where they see none.

    Args:
        checkpoints: by title; at least one, of networks with the same grid.
    Raises:
        ValueError: a frame has no 3D truth.
    """
    rows: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {}
    for title, path in checkpoints.items():
        made, dataset = _open(path, tables, recordings)
        indices = evenly(len(dataset), count)
        for index, _, field in predicted_fields(made.network, made.config, dataset, indices):
            recording, frame = dataset.recording_of(index)
            truth = truth_of(recording, frame, made.grid)
            if truth is None:
                raise ValueError(f"{recording.folder}, frame {frame}: has no 3D truth to be drawn")
            if len(rows.setdefault("truth", [])) < len(indices):
                rows["truth"].append((truth.semantics, truth.mask))
            volume = occupied_classes(field, made.classes, made.threshold)
            rows.setdefault(title, []).append((volume, truth.mask))
    return volumes_from_above(rows, made.grid, made.classes)


def volumes_from_above(
    rows: dict[str, list[tuple[np.ndarray, np.ndarray | None]]], grid: VoxelGrid, classes: ClassTable
) -> np.ndarray:
    """Volumes from above, (H, W, 3) uint8 RGB, with a title above each row.

    Args:
        rows: by title, equally many volumes (X, Y, Z) of class ids, each with a mask (X, Y, Z) of the voxels that are
            shown; all where it is None.
    """
    parts = []
    for title, volumes in rows.items():
        tiles = [_from_above(grid, classes, volume, mask) for volume, mask in volumes]
        parts += [_title(title, len(tiles) * _TILE), np.concatenate(tiles, axis=1)]
    return np.concatenate(parts)


def write_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write a picture as a JPEG of at most 1600 pixels in width and 150 kB, with the best quality that fits."""
    if picture.shape[1] > _WIDEST:
        height = round(picture.shape[0] * _WIDEST / picture.shape[1])
        picture = cv2.resize(picture, (_WIDEST, height), interpolation=cv2.INTER_AREA)
    for quality in _QUALITIES:
        done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        if len(data) <= _MOST_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(data.tobytes())


def _open(checkpoint: Path, tables: Path, recordings: Sequence[str]) -> tuple[Checkpoint, RayDataset]:
    made = load_checkpoint(checkpoint)
    made.network.to(torch.device("cpu")).eval()
    return made, held_out_dataset(tables, made, recordings)


def _from_above(grid: VoxelGrid, classes: ClassTable, volume: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    seen = np.ones(volume.shape, bool) if mask is None else mask
    shown = np.where(seen, volume, UNLABELLED).astype(np.uint8)
    occupancy = Occupancy(grid, classes, shown, np.zeros(volume.shape, np.float32), seen)
    picture = bird_eye_view(occupancy)
    return cv2.resize(picture, (_TILE, _TILE), interpolation=cv2.INTER_AREA)


def _title(text: str, width: int) -> np.ndarray:
    bar = np.full((_BAR, width, 3), 255, np.uint8)
    cv2.putText(bar, text, (6, _BAR - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return bar
