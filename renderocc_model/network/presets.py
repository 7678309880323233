"""The three networks of this package."""

from __future__ import annotations

from collections.abc import Sequence

from renderocc_model.base.config import apply_overrides
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.network.config import (
    BackboneConfig,
    DepthConfig,
    EncoderConfig,
    FusionConfig,
    HeadsConfig,
    ImageConfig,
    LiftConfig,
    ModelConfig,
    NeckConfig,
)

__all__ = ["PRESETS", "preset"]

# For CPUs, the demo and tests: 40 m x 40 m around the vehicle.
TINY = ModelConfig(
    name="tiny",
    grid=VoxelGrid((-20.0, -20.0, -1.0), (20.0, 20.0, 5.4), 0.4),
    images=ImageConfig(height=128, width=352),
    backbone=BackboneConfig(name="tf_efficientnet_lite0", levels=(2, 3, 4), stride=8),
    neck=NeckConfig(channels=64),
    lift=LiftConfig(
        context_channels=32,
        hidden_channels=64,
        height_slices=4,
        depth=DepthConfig(minimum=1.0, maximum=28.0, count=64, spacing="linear"),
    ),
    fusion=FusionConfig(enabled=False),
    encoder=EncoderConfig(kind="channel_to_height", channels=(64, 96, 128), blocks=(1, 2, 2), out_channels=64),
    heads=HeadsConfig(voxel_channels=16, hidden_channels=32),
)

# For vehicles: FlashOcc's recipe, two-dimensional all the way to the heads.
BASE = ModelConfig(
    name="base",
    grid=OCC3D_GRID,
    images=ImageConfig(height=256, width=704),
    backbone=BackboneConfig(name="resnet50", levels=(3, 4), stride=16),
    neck=NeckConfig(channels=256),
    lift=LiftConfig(
        context_channels=64,
        hidden_channels=256,
        height_slices=4,
        depth=DepthConfig(minimum=1.0, maximum=57.0, count=112, spacing="linear"),
    ),
    fusion=FusionConfig(enabled=False),
    encoder=EncoderConfig(kind="channel_to_height", channels=(96, 192, 384), blocks=(1, 2, 2), out_channels=128),
    heads=HeadsConfig(voxel_channels=32, hidden_channels=64),
)

# The paper's setting: Swin-B, 3D convolutions, one previous frame.
PAPER = ModelConfig(
    name="paper",
    grid=OCC3D_GRID,
    images=ImageConfig(height=512, width=1408),
    backbone=BackboneConfig(name="swin_base_patch4_window12_384", levels=(2, 3), stride=16, drop_path=0.1),
    neck=NeckConfig(channels=256),
    lift=LiftConfig(
        context_channels=32,
        hidden_channels=256,
        height_slices=16,
        depth=DepthConfig(minimum=1.0, maximum=57.0, count=112, spacing="linear"),
    ),
    fusion=FusionConfig(enabled=True),
    encoder=EncoderConfig(kind="convolutions_3d", channels=(32, 64, 128), blocks=(1, 2, 4), out_channels=32),
    heads=HeadsConfig(voxel_channels=32, hidden_channels=64),
)

PRESETS = {config.name: config for config in (TINY, BASE, PAPER)}


def preset(name: str, overrides: Sequence[str] = ()) -> ModelConfig:
    """The preset of this name with `a.b=value` words applied; ValueError lists the names there are.

    >>> preset("tiny", ["lift.depth.count=32"]).lift.depth.count
    32
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return apply_overrides(PRESETS[name], overrides)
