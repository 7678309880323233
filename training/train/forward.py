"""Running a network on batches: in which precision, and from which previous volume."""

from __future__ import annotations

import torch

from renderocc_model.inference.precision import cpu_multiplies_bfloat16
from renderocc_model.network.fusion import Volume
from renderocc_model.network.network import OccupancyNetwork

from ..data.batch import Batch

__all__ = ["training_precision", "previous_volume"]


def training_precision(precision: str, device: torch.device) -> str:
    """What `auto` means on a device: bfloat16 where the device multiplies it, else float16 on CUDA, float32 on CPUs.

    Raises:
        ValueError: float16 on a CPU.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision is float16, which needs CUDA; on the CPU use auto, float32 or bfloat16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if cpu_multiplies_bfloat16() else "float32"


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
