"""What a model with temporal fusion keeps of the previous frame."""

from __future__ import annotations

import itertools

import torch

from renderocc_model.network.fusion import KeptFrame
from renderocc_model.network.network import OccupancyNetwork

from .batch import Batch, Frames

__all__ = ["previous_frame"]


def previous_frame(network: OccupancyNetwork, batch: Batch) -> KeptFrame | None:
    """What is kept of each sample's previous frame, moved to its current frame; None if the batch has no such frames.

    Of several earlier frames each is joined with the one before it, as at run time. They are computed without gradient,
    as in BEVDet4D, because at run time they are there already. Batch normalisation runs as in any forward pass.
    """
    frames = (*reversed(batch.previous), batch.current)
    skips = not _shares_statistics(network)
    kept = None
    with torch.no_grad():
        for before, after in itertools.pairwise(frames):
            if skips and not before.valid.any():
                continue
            kept = _kept(network, before, kept)
            kept = kept.moved(torch.linalg.inv(after.odom_from_base) @ before.odom_from_base, before.valid)
    return kept


def _kept(network: OccupancyNetwork, frames: Frames, previous: KeptFrame | None) -> KeptFrame:
    earlier = None if previous is None else network.earlier(previous, frames.geometry)
    images, cameras = frames.network_input().flatten(0, 1), frames.geometry.cameras.flatten(0, 1)
    found = network.image_features(images, cameras, None if earlier is None else earlier.images)
    pooled = network.pool(found.depth, found.context, frames.geometry)
    joined = network.join(pooled, earlier) if network.config.fusion.recurrent else pooled
    return KeptFrame.current(*network.kept(pooled, joined, found.keys)).with_cameras(frames.geometry)


def _shares_statistics(network: OccupancyNetwork) -> bool:
    """Whether all processes must compute the same frames, as they wait for each other's batch statistics."""
    return any(isinstance(module, torch.nn.SyncBatchNorm) and module.training for module in network.modules())
