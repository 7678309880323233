"""The volume of the frame before, which a model that joins two frames is given with a batch."""

from __future__ import annotations

import torch

from renderocc_model.network.fusion import Volume
from renderocc_model.network.network import OccupancyNetwork

from .batch import Batch

__all__ = ["previous_volume"]


def previous_volume(network: OccupancyNetwork, batch: Batch) -> Volume | None:
    """The volume of each sample's frame before, moved to its current frame; None without such frames.

    It is made without gradient, as at run time it is there already (BEVDet4D). Batch normalisation takes its part in
    it as in any forward pass.
    """
    if not batch.previous:
        return None
    before = batch.previous[0]
    with torch.no_grad():
        cameras = before.geometry.cameras.flatten(0, 1)
        depth, context = network.image_features(before.network_input().flatten(0, 1), cameras)
        volume = Volume.current(network.pool(depth, context, before.geometry))
    return volume.moved(torch.linalg.inv(batch.odom_from_base) @ before.odom_from_base, before.valid)
