"""Networks with random weights whose output has free and occupied voxels of many classes, for tests and trials."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..field.classes import ClassTable
from ..geometry.undistortion import View
from ..images.preprocessing import normalise
from .checkpoint import Checkpoint
from .config import ModelConfig
from .lift import Frustums
from .network import OccupancyNetwork, build_network

__all__ = ["surround_cameras", "untrained_checkpoint"]

_THRESHOLD = 0.3
_FREE_DENSITY = 0.02  # 1/m, of the middle voxel: half of the light gets through 35 m
_OCCUPIED_SHARE = 0.05


def untrained_checkpoint(
    config: ModelConfig, classes: ClassTable, seed: int = 0, device: torch.device | str = "cpu"
) -> Checkpoint:
    """A checkpoint of random weights, a function of its arguments (up to the rounding of the device).

    The output of freshly initialised layers hardly depends on their input: every voxel would get the same density and
    class. So the last three layers are scaled on pictures of noise. Then features of every height vary over the ground
    plane, about one voxel in 20 is occupied, and nearly every class is the most likely one somewhere.

    Raises:
        ValueError: the class table does not fit the configuration's class_count.
    """
    if len(classes.occupied_ids) != config.class_count:
        raise ValueError(
            f"the class table has {len(classes.occupied_ids)} classes other than free, "
            f"but class_count is {config.class_count}; give the table and the configuration that belong together"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config).eval().to(device)
        # These begin without effect.
        if network.fusion is not None:
            network.fusion.change.reset_parameters()
        if network.stereo is not None:
            network.stereo.logits.reset_parameters()
        with torch.no_grad():
            _scale_last_layers(network, _noise_volume(network, torch.device(device)))
    return Checkpoint(network, classes, _THRESHOLD, None, {"untrained": True, "seed": seed})


def surround_cameras(count: int, height: int, width: int) -> tuple[list[View], np.ndarray]:
    """Level pinhole views of 70 degrees looking outwards from a circle, and their base_from_camera (count, 4, 4)."""
    focal = width / 2 / math.tan(math.radians(35))
    view = View(width, height, np.array([[focal, 0, (width - 1) / 2], [0, focal, 0.45 * height - 0.5], [0, 0, 1]]))
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, yaw in zip(poses, np.arange(count) * 2 * math.pi / count):
        forward, left = np.array([math.cos(yaw), math.sin(yaw), 0]), np.array([-math.sin(yaw), math.cos(yaw), 0])
        pose[:3, :3] = np.stack([-left, (0, 0, -1), forward], axis=1)
        pose[:3, 3] = 0.8 * forward + (0, 0, 1.5)
    return [view] * count, poses


def _noise_volume(network: OccupancyNetwork, device: torch.device) -> Tensor:
    """The encoder's output for pictures of coarse and fine noise from three cameras."""
    config = network.config
    height, width = config.images.height, config.images.width
    views, poses = surround_cameras(3, height, width)
    coarse = F.interpolate(torch.rand(3, 3, height // 32, width // 32), size=(height, width), mode="bilinear")
    pictures = 0.9 * coarse + 0.1 * torch.rand(3, 3, height, width)
    pictures = (pictures * 255).to(torch.uint8).permute(0, 2, 3, 1)
    geometry = Frustums(config, views, device).place(poses)
    found = network.image_features(normalise(pictures.to(device)), geometry.cameras.flatten(0, 1))
    pooled = network.pool(found.depth, found.context, geometry)
    return network.encoder(network.fusion(pooled, None) if network.fusion is not None else pooled)


def _scale_last_layers(network: OccupancyNetwork, encoded: Tensor) -> None:
    channels_last = [0, *range(2, encoded.ndim)]
    project = network.voxels.project
    _standardise(project, project(encoded), channels_last)
    features = network.voxels(encoded)
    config = network.config
    density, semantics = network.heads.density, network.heads.semantics
    _standardise(semantics[-1], semantics(features), [0, 1, 2, 3])
    raw = density(features).flatten().sort().values
    middle, high = raw[len(raw) // 2], raw[int(len(raw) * (1 - _OCCUPIED_SHARE))]
    free, occupied = (_before_softplus(x) for x in (_FREE_DENSITY, -math.log1p(-_THRESHOLD) / config.grid.voxel_size))
    _rescale(density[-1], middle, (occupied - free) / (high - middle), free)


def _before_softplus(density: float) -> float:
    return math.log(math.expm1(density))


def _standardise(layer: nn.Module, output: Tensor, over: list[int]) -> None:
    """Change a linear layer so that `output`, what it gives now, would have mean 0 and deviation 1 in each channel."""
    _rescale(layer, output.mean(dim=over), 1 / output.std(dim=over).clamp(min=1e-12), 0.0)


def _rescale(layer: nn.Module, middle: Tensor, scale: Tensor, offset: float) -> None:
    """Change a linear layer that gives y into one that gives (y - middle) * scale + offset."""
    layer.bias.copy_((layer.bias - middle) * scale + offset)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
