"""Small networks and a ring of cameras for tests: every part of a preset, a thousandth of its size."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.undistortion import View
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.presets import preset

# 16 x 16 x 4 voxels of 1 m around the origin, views of 96 x 64 pixels, 7 depth bins.
_SMALL = [
    "grid.lower=[-8, -8, -1]",
    "grid.upper=[8, 8, 3]",
    "grid.voxel_size=1.0",
    "images.height=64",
    "images.width=96",
    "neck.channels=8",
    "lift.context_channels=6",
    "lift.hidden_channels=8",
    "lift.depth.count=7",
    "lift.depth.maximum=12.0",
    "encoder.channels=[8, 12]",
    "encoder.blocks=[1, 1]",
    "encoder.out_channels=8",
    "heads.voxel_channels=5",
    "heads.hidden_channels=6",
]


def small_config(name: str = "tiny", *overrides: str) -> ModelConfig:
    """A small preset, with a test backbone of timm. `paper` has a slab for each voxel in z, the others two."""
    slabs = "lift.height_slices=4" if name == "paper" else "lift.height_slices=2"
    backbone = (
        ["backbone.name=test_efficientnet"]
        if name == "tiny"
        else ["backbone.name=test_resnet", "backbone.levels=[3, 4]", "backbone.drop_path=0.0"]
    )
    return preset(name, [*_SMALL, slabs, *backbone, *overrides])


def camera_ring(config: ModelConfig, count: int) -> tuple[list[View], np.ndarray]:
    """Evenly spread views outwards (horizontally 70 degrees wide), 1.6 m above the ground, and their poses."""
    width, height = config.images.width, config.images.height
    focal = width / 2 / np.tan(np.radians(35))
    view = View(width, height, np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]))
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, yaw in zip(poses, np.arange(count) * 2 * np.pi / max(count, 1)):
        forward = [np.cos(yaw), np.sin(yaw), 0]
        right = [np.sin(yaw), -np.cos(yaw), 0]
        pose[:3, :3] = np.stack([right, [0, 0, -1], forward], axis=1)  # columns: the optical frame's x, y, z
        pose[:3, 3] = [0.5 * np.cos(yaw), 0.5 * np.sin(yaw), 1.6]
    return [view] * count, poses
