"""Checkpoints to run: an untrained `tiny`, and a network small enough to answer in tens of milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

__all__ = ["small_network", "untrained_network"]

# `tiny`, a thousandth of its size: 32 x 32 x 5 voxels of 1 m, views of 128 x 64 pixels, 16 depth bins.
SMALL = (
    "grid.lower=[-16, -16, -1]",
    "grid.upper=[16, 16, 4]",
    "grid.voxel_size=1.0",
    "images.height=64",
    "images.width=128",
    "neck.channels=8",
    "lift.context_channels=6",
    "lift.hidden_channels=8",
    "lift.depth.count=16",
    "lift.depth.maximum=24.0",
    "lift.height_slices=5",
    "encoder.channels=[8, 12]",
    "encoder.blocks=[1, 1]",
    "encoder.out_channels=8",
    "heads.voxel_channels=5",
    "heads.hidden_channels=6",
    "backbone.name=test_efficientnet",
)
THINNER = 2.5  # the untrained network's densities times exp(-2.5): most of what is seen is free, as outdoors


def untrained_network(folder: Path) -> Path:
    """A checkpoint of an untrained `tiny`, whose output has something of everything, whatever the package holds."""
    return _save_untrained(folder / "untrained.safetensors", ())


def small_network(path: Path, settings: Sequence[str] = ()) -> Path:
    """A checkpoint of a small network with random weights, written once.

    Args:
        settings: as in 'grid.voxel_size=1.0', beside those that make it small.
    """
    return path if path.exists() else _save_untrained(path, [*SMALL, *settings], THINNER)


def _save_untrained(path: Path, settings: Sequence[str], thinner: float = 0.0) -> Path:
    """Save a `tiny` with random weights; its densities, and the threshold with them, are those times exp(-thinner)."""
    from renderocc_model.field.classes import OCC3D_NUSCENES
    from renderocc_model.network.checkpoint import save_checkpoint
    from renderocc_model.network.presets import preset
    from renderocc_model.network.untrained import untrained_checkpoint

    made = untrained_checkpoint(preset("tiny", settings), OCC3D_NUSCENES)
    threshold = made.threshold
    if thinner:
        made.network.heads.density[-1].bias.data.sub_(thinner)
        threshold = 1 - (1 - threshold) ** math.exp(-thinner)
    save_checkpoint(path, made.network, OCC3D_NUSCENES, threshold, None, made.provenance)
    return path
