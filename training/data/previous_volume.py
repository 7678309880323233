"""The volume of the previous frame, which a model with temporal fusion needs."""

from __future__ import annotations

import torch

from renderocc_model.network.fusion import Volume
from renderocc_model.network.network import OccupancyNetwork

from .batch import Batch

__all__ = ["previous_volume"]


def previous_volume(network: OccupancyNetwork, batch: Batch) -> Volume | None:
    """The volume of each sample's previous frame, moved to its current frame; None if the batch has no such frames.

    It is computed without gradient, as in BEVDet4D, because at run time it is there already. Batch normalisation runs
    as in any forward pass.
    """
    if not batch.previous:
        return None
    before = batch.previous[0]
    with torch.no_grad():
        cameras = before.geometry.cameras.flatten(0, 1)
        depth, context = network.image_features(before.network_input().flatten(0, 1), cameras)
        volume = Volume.current(network.pool(depth, context, before.geometry))
    return volume.moved(torch.linalg.inv(batch.odom_from_base) @ before.odom_from_base, before.valid)
