"""Post-training quantisation: the network's two OpenVINO models with INT8 layers, by NNCF.

NNCF runs both models on frames of a recording, and chooses for each layer the range of numbers that 256 levels stand
for. Two parts of the volume encoder stay in floating point, by the measurements in `docs/exporting.md`: the density
head, as a small error of a density decides between free and occupied; and the layers that read the pooled volume, where
few cells near the vehicle hold numbers far larger than all others, with those that join an earlier one to it. Of an
image network with stereo its last convolutions do, and what follows them.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..export.openvino_file import Graph
from ..network.fusion import EarlierFrame, KeptFrame
from ..network.lift import LiftGeometry
from ..network.network import OccupancyNetwork
from .folding import folded_for_inference
from .openvino_graphs import converted, import_openvino, written_graph
from .openvino_network import OpenVinoNetwork

__all__ = ["NetworkInputs", "behind_convolutions", "import_nncf", "quantised"]

_HEAD_LAYERS = 2


class NetworkInputs(NamedTuple):
    """What the network gets for a frame, and for the frame to join.

    Attributes:
        pictures: (N, H, W, 3) uint8.
        geometry: of the frame (B = 1).
        earlier: the inputs of an earlier frame, for a network that joins one; None where there is none.
        base_from_earlier: (4, 4) from the vehicle's frame then to that of now.
    """

    pictures: Tensor
    geometry: LiftGeometry
    earlier: NetworkInputs | None = None
    base_from_earlier: Tensor | None = None


def import_nncf() -> Any:
    """The package, without its telemetry.

    Raises:
        ValueError: it or OpenVINO cannot be imported.
    """
    import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise ValueError(
            f"INT8 needs nncf, which cannot be imported ({error}); python3 -m pip install -r requirements-openvino.txt"
        ) from None
    return nncf


def quantised(network: OccupancyNetwork, frames: Sequence[NetworkInputs]) -> tuple[Graph, Graph]:
    """Both models with INT8 layers, calibrated on frames.

    Args:
        network: is not changed.
        frames: of the recording; some 50 of them, of different places.
    Raises:
        ValueError: NNCF or OpenVINO is not installed, or there is no frame.
        CheckpointError: OpenVINO cannot run the network.
    """
    nncf = import_nncf()
    if not frames:
        raise ValueError("there is no frame to calibrate with; give a recording with images")
    image, volume = converted(folded_for_inference(network).float().cpu())
    plain = OpenVinoNetwork(network, "float32", models=(image, volume))

    def of_image(frame: NetworkInputs) -> list[np.ndarray]:
        return [frame.pictures.numpy(), frame.geometry.cameras[0].numpy()]

    def pooled(frame: NetworkInputs, earlier: EarlierFrame | None = None) -> tuple[Tensor, Tensor | None]:
        plan = frame.geometry.plan(math.prod(network.config.pooled_shape))
        return plain.pooled(frame.pictures, frame.geometry.cameras[0], plan, earlier)

    def of_volume(frame: NetworkInputs) -> list[np.ndarray]:
        earlier = None
        if plain.joins_frames and frame.earlier is not None and frame.base_from_earlier is not None:
            volume, keys = pooled(frame.earlier)
            kept = network.kept(volume, network.join(volume), keys)
            before = KeptFrame.current(*kept).with_cameras(frame.earlier.geometry)
            earlier = network.earlier(before.moved(frame.base_from_earlier), frame.geometry)
        given = plain.volume_inputs(pooled(frame, earlier)[0], earlier)
        return [np.ascontiguousarray(part.numpy()) for part in given]

    kept = [*_first_convolutions(volume), *_head_convolutions(volume)]
    if plain.joins_frames:
        kept += _fusion_operations(volume)
    kept_of_image = behind_convolutions(image) if network.stereo is not None else []
    float_layers, float_of_image = (
        list(dict.fromkeys(operation.get_friendly_name() for operation in one)) for one in (kept, kept_of_image)
    )
    with _quietly(), torch.inference_mode():
        models = [
            nncf.quantize(
                model,
                nncf.Dataset(frames, inputs_of),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(frames),
                ignored_scope=nncf.IgnoredScope(names=names),
            )
            for model, inputs_of, names in ((image, of_image, float_of_image), (volume, of_volume, float_layers))
        ]
    return written_graph(models[0]), written_graph(models[1])


def _first_convolutions(model: Any) -> list[Any]:
    """The convolutions that read a model's inputs, directly or through operations without weights."""
    waiting, found = [port.get_node() for port in model.inputs], []
    while waiting:
        operation = waiting.pop()
        if _is_convolution(operation):
            found.append(operation)
        else:
            waiting += [reader.get_node() for output in operation.outputs() for reader in output.get_target_inputs()]
    return found


def behind_convolutions(model: Any) -> list[Any]:
    """The operations between a model's outputs and the convolutions before them, and these.

    Of a network with stereo the outputs are logits of depth and keys of length 1: sums and squares of numbers of very
    different size, of which 256 levels leave nothing.
    """
    waiting, found, seen = [port.get_node() for port in model.outputs], [], set()
    while waiting:
        operation = waiting.pop()
        if operation.get_friendly_name() in seen:
            continue
        seen.add(operation.get_friendly_name())
        if operation.get_type_name() in ("Constant", "Convert", "Result", "Parameter"):
            if operation.get_type_name() == "Result":
                waiting += [value.get_node() for value in operation.input_values()]
            continue
        found.append(operation)
        if not _is_convolution(operation):
            waiting += [value.get_node() for value in operation.input_values()]
    return found


def _fusion_operations(model: Any) -> list[Any]:
    """What joins the volumes: their concatenation, the convolutions, and the sum of the result and the current one.

    The sum and the concatenation lose most: 256 levels for numbers some of which are far larger than all others.
    """
    operation = next(one for one in model.get_ordered_ops() if one.get_type_name() == "Concat")
    found = [operation]
    while True:
        (operation,) = {target.get_node() for output in operation.outputs() for target in output.get_target_inputs()}
        before = [value.get_node().get_type_name() for value in operation.input_values()]
        is_sum = operation.get_type_name() == "Add" and "Constant" not in before
        if is_sum or _is_convolution(operation):
            found.append(operation)
        if is_sum:
            return found


def _head_convolutions(model: Any) -> list[Any]:
    """The convolutions of the head that gives a model's first output."""
    operation = model.outputs[0].get_node()
    found: list[Any] = []
    while len(found) < _HEAD_LAYERS:
        before = [value.get_node() for value in operation.input_values()]
        operation = next(node for node in before if node.get_type_name() not in ("Constant", "Convert"))
        if _is_convolution(operation):
            found.append(operation)
    return found


def _is_convolution(operation: Any) -> bool:
    return operation.get_type_name() in ("Convolution", "GroupConvolution")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without NNCF's log below errors, and without warnings about parts that are not used here."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
