"""Checkpoints: one safetensors file that holds a network and everything that is needed to use it.

The tensors are the network's state; the metadata entry `renderocc` is JSON with the model configuration (the grid
included), the class table, the occupancy threshold, a summary of the rig it was trained on, and where it came from.
Loading runs no code from the file, fetches nothing, and checks every size against the file before memory is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from renderocc_model.base.config import from_mapping, to_mapping
from renderocc_model.base.files import replacing
from renderocc_model.field.classes import ClassTable
from renderocc_model.field.threshold import DistanceThreshold, Threshold, checked_threshold
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.network import OccupancyNetwork, build_network
from renderocc_model.network.packaged import checkpoint_file

from .checkpoint_reading import (
    AGAIN,
    FORMAT_VERSION,
    METADATA_KEY,
    CheckpointError,
    check_tensors,
    checked_metadata,
    read_header,
)

__all__ = [
    "FORMAT_VERSION",
    "METADATA_KEY",
    "Checkpoint",
    "CheckpointError",
    "Description",
    "checkpoint_metadata",
    "described",
    "load_checkpoint",
    "read_checkpoint_metadata",
    "save_checkpoint",
]


@dataclass(frozen=True)
class Checkpoint:
    """A network and what belongs to it.

    Attributes:
        network: in evaluation mode, on the device asked for.
        classes: what the logits mean; channel i is classes.occupied_ids[i].
        threshold: a voxel is occupied where 1 - exp(-density * voxel_size) is above it; one number, or a curve over
            the distance.
        rig_summary: of the rig it was trained on (`Rig.summary()`); None if it was not trained on one.
        provenance: where it came from: data, time, seed, metrics; free-form.
    """

    network: OccupancyNetwork
    classes: ClassTable
    threshold: Threshold
    rig_summary: dict | None
    provenance: dict

    @property
    def config(self) -> ModelConfig:
        return self.network.config

    @property
    def grid(self) -> VoxelGrid:
        return self.network.config.grid


@dataclass(frozen=True)
class Description:
    """The description of a network in its file; the attributes are those of `Checkpoint`."""

    config: ModelConfig
    classes: ClassTable
    threshold: Threshold
    rig_summary: dict | None
    provenance: dict


def save_checkpoint(
    path: str | Path,
    network: OccupancyNetwork,
    classes: ClassTable,
    threshold: Threshold,
    rig_summary: Mapping | None = None,
    provenance: Mapping | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint; a file of that name is replaced at once and whole, or not at all.

    Args:
        threshold: occupancy probability in (0, 1) above which a voxel is occupied.
        rig_summary, provenance: plain data that JSON can hold.
        half: store weights as float16 (running statistics stay float32): half the size, read back as float32.
    Raises:
        CheckpointError: a weight is not finite (or not in float16), the classes do not fit the network's logits, the
            metadata is not plain, or the file cannot be written.
    """
    from safetensors.torch import save_file

    path = Path(path)
    metadata = checkpoint_metadata(network, classes, threshold, rig_summary, provenance)
    _check_meaning(path, network.config, classes, threshold)
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: rig_summary or provenance is not plain data ({error}); give dicts, lists, numbers and text"
        ) from None
    tensors = {name: _stored(path, name, tensor, half) for name, tensor in network.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, {METADATA_KEY: text})
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); check the folder, its permissions and the disk"
        ) from error


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint and build its network.

    Args:
        path: of the file; or "tiny", the trained network in the package.
    Raises:
        CheckpointError: unreadable, truncated, not a checkpoint of this package, of a newer format, or its tensors are
            not those of the network it describes.
    """
    from safetensors.torch import load_file

    path = checkpoint_file(path)
    table, content = read_header(path)
    config, classes = _configuration(path, content)
    # First build the network without memory: the file must hold exactly the tensors that this network needs.
    try:
        with torch.device("meta"):
            skeleton = build_network(config)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its model cannot be built here: {error}; update timm and this package"
        ) from error
    check_tensors(path, table, skeleton.state_dict())
    network = build_network(config)
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors' own checks, or a file that changed meanwhile
        raise CheckpointError(f"{path}: cannot be read ({error}); {AGAIN}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: tensor {name!r} holds NaN or infinity; use an earlier checkpoint of that training"
            )
    network.load_state_dict(tensors)
    return Checkpoint(
        network=network.to(device).eval(),
        classes=classes,
        threshold=_threshold(content),
        rig_summary=content["rig"],
        provenance=content["provenance"],
    )


def checkpoint_metadata(
    network: OccupancyNetwork,
    classes: ClassTable,
    threshold: Threshold,
    rig_summary: Mapping | None = None,
    provenance: Mapping | None = None,
) -> dict:
    """The metadata stored besides a network's tensors, as plain data; arguments as of `save_checkpoint`."""
    return {
        "format_version": FORMAT_VERSION,
        "model": to_mapping(network.config),
        "classes": classes.to_dict(),
        # Readers that do not know curves use this number.
        "threshold": threshold.flat if isinstance(threshold, DistanceThreshold) else threshold,
        "threshold_by_distance": threshold.to_dict() if isinstance(threshold, DistanceThreshold) else None,
        "rig": rig_summary,
        "provenance": {} if provenance is None else provenance,
    }


def described(path: Path, metadata: Mapping[str, str]) -> Description:
    """The checked description in a file's metadata, of which the entry `renderocc` is looked at.

    Raises:
        CheckpointError: as `load_checkpoint`, naming `path`.
    """
    content = checked_metadata(path, metadata)
    config, classes = _configuration(path, content)
    return Description(config, classes, _threshold(content), content["rig"], content["provenance"])


def read_checkpoint_metadata(path: str | Path) -> dict:
    """The metadata of a checkpoint, checked, but without building anything: cheap, for listings and the doctor.

    Returns:
        keys format_version, model, classes, threshold, rig, provenance and, of newer files, threshold_by_distance, as
            stored.
    Raises:
        CheckpointError: as `load_checkpoint`, as far as the header tells.
    """
    path = checkpoint_file(path)
    _, content = read_header(path)
    _configuration(path, content)
    return content


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _configuration(path: Path, content: dict) -> tuple[ModelConfig, ClassTable]:
    try:
        config = from_mapping(ModelConfig, content["model"], "model")
        classes = ClassTable.from_dict(content["classes"])
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its metadata is not valid here: {error}; update the package or export the checkpoint anew"
        ) from error
    try:
        threshold = _threshold(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {AGAIN}") from None
    _check_meaning(path, config, classes, threshold)
    return config, classes


def _threshold(content: dict) -> Threshold:
    """The threshold of a file; older ones have a number alone."""
    curve = content.get("threshold_by_distance")
    return content["threshold"] if curve is None else DistanceThreshold.from_dict(curve)


def _check_meaning(path: Path, config: ModelConfig, classes: ClassTable, threshold: Threshold) -> None:
    if len(classes.occupied_ids) != config.class_count:
        raise CheckpointError(
            f"{path}: the class table has {len(classes.occupied_ids)} classes other than free, the network "
            f"{config.class_count} logits; give the table it was trained with"
        )
    try:
        checked_threshold(threshold)
    except ValueError:
        raise CheckpointError(f"{path}: threshold is {threshold!r}; expected a probability between 0 and 1") from None


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def _stored(path: Path, name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu").contiguous()
    # A variance can exceed float16's 65504, and a mean near it loses its digits.
    if half and tensor.dtype == torch.float32 and "running_" not in name:
        tensor = tensor.half()
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"{path}: not written, as tensor {name!r} holds NaN or infinity{' in half precision' if half else ''}; "
            f"save weights from before they diverged{', or without half' if half else ''}"
        )
    return tensor
