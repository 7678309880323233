"""Chooses what runs a network, where and in which precision, and loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..export.backends import ExportedNetwork, chosen_backend, load_exported
from ..export.file import OPENVINO_ENDING, is_exported
from ..export.openvino_file import OpenVinoFile, read_openvino_file
from ..network.checkpoint import Checkpoint, Description, load_checkpoint
from .openvino_graphs import models_of
from .openvino_network import OpenVinoNetwork
from .precision import (
    chosen_precision,
    exported_device,
    exported_precision,
    openvino_device,
    openvino_precision,
)
from .prepared_network import InferenceNetwork

__all__ = ["LoadedNetwork", "load_network"]


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network that is ready to run.

    Attributes:
        backend: what runs it.
        device: where its inputs and outputs are.
        precision: what it computes in; of INT8 networks "int8 and" what the other layers compute in.
        description: what is stored beside the weights.
        network: of a checkpoint; None if `exported` is there.
        exported: of a file that `renderocc export` wrote, or None.
    """

    backend: str
    device: torch.device
    precision: str
    description: Description
    network: InferenceNetwork | OpenVinoNetwork | None = None
    exported: ExportedNetwork | None = None


def load_network(
    checkpoint: Checkpoint | str | Path, backend: str, device: torch.device | str, precision: str
) -> LoadedNetwork:
    """Load a checkpoint or an exported network. Arguments and errors are those of `Predictor`."""
    backend = chosen_backend("" if isinstance(checkpoint, Checkpoint) else checkpoint, backend, device)
    in_openvino = openvino_device(device) if backend == "openvino" else None
    used_device = exported_device("cpu" if in_openvino else device, backend)
    file: OpenVinoFile | None = None
    if not isinstance(checkpoint, Checkpoint) and Path(checkpoint).suffix == OPENVINO_ENDING:
        file = read_openvino_file(checkpoint)
        checkpoint = file.checkpoint
    if not isinstance(checkpoint, Checkpoint) and is_exported(checkpoint):
        used = exported_precision(precision, backend)
        loaded = load_exported(checkpoint, backend, used_device, used)
        return LoadedNetwork(backend, used_device, used, loaded.description, exported=loaded.network)
    used = (
        openvino_precision(precision, in_openvino, quantised=file is not None)
        if in_openvino
        else chosen_precision(precision, used_device)
    )
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint, used_device)
    network: InferenceNetwork | OpenVinoNetwork
    if in_openvino:
        models = None if file is None else models_of(file)
        network = OpenVinoNetwork(checkpoint.network, used, in_openvino, models=models)
        used = used if file is None else f"int8 and {used}"
    else:
        network = InferenceNetwork(checkpoint.network, used_device, used)
    description = Description(
        checkpoint.config, checkpoint.classes, checkpoint.threshold, checkpoint.rig_summary, checkpoint.provenance
    )
    return LoadedNetwork(backend, used_device, used, description, network)
