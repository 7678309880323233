"""What a model with temporal fusion keeps of the previous frame."""

from __future__ import annotations

import torch

from renderocc_model.network.fusion import KeptFrame
from renderocc_model.network.network import OccupancyNetwork

from .batch import Batch

__all__ = ["previous_frame"]


def previous_frame(network: OccupancyNetwork, batch: Batch) -> KeptFrame | None:
    """What is kept of each sample's previous frame, moved to its current frame; None if the batch has no such frames.

    It is computed without gradient, as in BEVDet4D, because at run time it is there already. Batch normalisation runs
    as in any forward pass.
    """
    if not batch.previous:
        return None
    before = batch.previous[0]
    with torch.no_grad():
        cameras = before.geometry.cameras.flatten(0, 1)
        found = network.image_features(before.network_input().flatten(0, 1), cameras)
        pooled = network.pool(found.depth, found.context, before.geometry)
        kept = KeptFrame.current(*network.kept(pooled, found.keys)).with_cameras(before.geometry)
    return kept.moved(torch.linalg.inv(batch.odom_from_base) @ before.odom_from_base, before.valid)
