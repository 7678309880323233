"""The network as two OpenVINO models: from pictures to depth and context, and from the pooled volume to voxels.

Between them this package's own loops pool, and behind them classes are computed for occupied voxels alone. The heads
are written as convolutions over the ground plane, which keep the voxels' memory order: as linear layers, OpenVINO
reorders all voxels three times.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..export.openvino_file import Graph, OpenVinoFile
from ..network.checkpoint import CheckpointError
from ..network.config import ModelConfig
from ..network.fusion import EarlierFrame
from ..network.lift import CAMERA_PARAMETERS, Frustums
from ..network.network import OccupancyNetwork
from ..network.untrained import surround_cameras

__all__ = [
    "ImageStage",
    "StageShapes",
    "VolumeStage",
    "converted",
    "import_openvino",
    "models_of",
    "stage_shapes",
    "written_graph",
]

_TRACED_CAMERAS = 2  # any number from two on gives the same graph
_MOST_NUMBERS = 1 << 31  # of an operation's result; those of `paper` have 2**25
_CAMERAS = 8  # for that limit, as a graph leaves their number open


class StageShapes(NamedTuple):
    """The shapes of what a stage takes and gives."""

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def stage_shapes(config: ModelConfig, cameras: int) -> tuple[StageShapes, StageShapes]:
    """Of `ImageStage` and `VolumeStage`; the first input is uint8, all others are float32."""
    (height, width), bins, images = config.lifted_shape, config.lift.depth.count, config.images
    channels, shape, features = config.lift.context_channels, config.grid.shape, config.heads.voxel_channels
    flat = config.encoder.kind == "channel_to_height"
    voxels = (1, *shape[:2], shape[2] * features) if flat else (1, *shape, features)
    keys, heights = config.keys_shape(cameras), config.lift.heights.count
    image = StageShapes(
        ((cameras, images.height, images.width, 3), (cameras, CAMERA_PARAMETERS)),
        (
            (cameras, bins, height, width),
            (cameras, height, width, channels),
            *(((cameras, height, width, heights),) if heights else ()),
            *(() if keys is None else (keys,)),
        ),
    )
    volume = _volume_shape(config)
    density = (1, *shape[:2], shape[2] * config.heads.density_layers)
    earlier = (volume, (*volume[:-1], 1)) if config.fusion.enabled else ()
    joined = (volume,) if config.fusion.recurrent else ()
    return image, StageShapes((volume, *earlier), (density, voxels, *joined))


class ImageStage(nn.Module):
    """(pictures (N, H, W, 3) uint8, cameras (N, CAMERA_PARAMETERS)) -> logits (N, D, h, w), context (N, h, w, C).

    The logits are of depth; what heights and earlier images say is added to them outside, by loops of our own. Networks
    with heights also give the logits of these (N, h, w, K), networks with stereo the images' keys.

    Args:
        network: folded for inference, float32.
    """

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.backbone, self.neck, self.lift = network.backbone, network.neck, network.lift
        self.stereo = network.stereo
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.backbone.mean, self.backbone.std))
        self.register_buffer("scale", (1 / (255 * std)).float().view(3, 1, 1))
        self.register_buffer("offset", (-mean / std).float().view(3, 1, 1))

    def forward(self, pictures: Tensor, cameras: Tensor) -> tuple[Tensor, ...]:
        images = pictures.float().movedim(-1, -3) * self.scale + self.offset
        maps = self.backbone.maps(images)
        logits, context, heights = self.lift.predictions(self.neck(maps), cameras)
        found = [logits.contiguous(), context.movedim(1, -1)]
        if heights is not None:
            found.append(heights.movedim(1, -1))
        if self.stereo is not None:
            found.append(self.stereo.keys_of(maps[0]))
        return tuple(found)


class VolumeStage(nn.Module):
    """Pooled volume, channels last, (1, X, Y[, Z], C) -> density (1, X, Y, Z * L) and voxels (1, X, Y, Z * K or Z, K).

    Of a network that joins frames also the volume of an earlier one and its mask, (1, X, Y[, Z], 1); a recurrent one
    also gives the joined volume, of the shape of the first input.

    Args:
        network: folded for inference, float32.
    """

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.fusion, self.encoder, self.project = network.fusion, network.encoder, network.voxels.project
        self.recurrent = network.config.fusion.recurrent
        flat = network.config.encoder.kind == "channel_to_height"
        groups = network.config.grid.shape[2] if flat else 1  # of the channels of a column, one for each voxel
        kind = nn.Conv2d if flat else nn.Conv3d
        _, first, _, last = network.heads.density
        self.hidden = _as_convolution(first, kind, groups)
        self.density = _without_groups(_as_convolution(last, kind, groups))

    def forward(self, volume: Tensor, *earlier: Tensor) -> tuple[Tensor, ...]:
        pooled, *frame = (part.movedim(-1, 1) for part in (volume, *earlier))
        joined = pooled if self.fusion is None else self.fusion(pooled, EarlierFrame(*frame))
        voxels = self.project(self.encoder(joined))
        density = self.density(functional.relu(self.hidden(functional.relu(voxels))))
        density = density.movedim(1, -1)
        density = density if volume.ndim == 4 else density.flatten(-2)
        # OpenVINO's softplus is below zero by rounding errors where it is all but zero.
        kept = (joined.movedim(1, -1),) if self.recurrent else ()
        return functional.softplus(density).clamp(min=0), voxels.movedim(1, -1), *kept


def _as_convolution(layer: Any, kind: Any, groups: int) -> Any:
    """A linear layer on each of `groups` parts of the channels."""
    made = kind(groups * layer.in_features, groups * layer.out_features, 1, groups=groups)
    with torch.no_grad():
        made.weight.copy_(layer.weight.repeat(groups, 1).view_as(made.weight))
        made.bias.copy_(layer.bias.repeat(groups))
    return made


def _without_groups(convolution: Any) -> Any:
    """The same function with zeros between the groups, which is faster where a group has a single output."""
    groups = convolution.groups
    made = type(convolution)(convolution.in_channels, convolution.out_channels, 1)
    shares, inputs = convolution.out_channels // groups, convolution.in_channels // groups
    with torch.no_grad():
        made.weight.zero_()
        for group in range(groups):
            rows = slice(group * shares, (group + 1) * shares)
            made.weight[rows, group * inputs : (group + 1) * inputs] = convolution.weight[rows]
        made.bias.copy_(convolution.bias)
    return made


def converted(network: OccupancyNetwork) -> tuple[Any, Any]:
    """Both models (openvino.Model), with the number of cameras free.

    Args:
        network: folded for inference (`folding`), float32, on the CPU.
    Raises:
        ValueError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    config = network.config
    image, volume = ImageStage(network).eval(), VolumeStage(network).eval()
    height, width = config.images.height, config.images.width
    views, poses = surround_cameras(_TRACED_CAMERAS, height, width)
    pictures = torch.zeros(_TRACED_CAMERAS, height, width, 3, dtype=torch.uint8)
    cameras = Frustums(config, views).place(poses).cameras[0]
    free = {0: torch.export.Dim.DYNAMIC}
    given = stage_shapes(config, _TRACED_CAMERAS)[1].inputs
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of PyTorch that are not used here
        programs = (
            torch.export.export(image, (pictures, cameras), dynamic_shapes=(free, free)),
            torch.export.export(volume, tuple(map(torch.zeros, given))),
        )
        models = [openvino.convert_model(program) for program in programs]
    models[0].reshape({0: [-1, *pictures.shape[1:]], 1: [-1, cameras.shape[1]]})
    models[1].reshape({number: list(shape) for number, shape in enumerate(given)})
    return models[0], models[1]


def _volume_shape(config: ModelConfig) -> tuple[int, ...]:
    x, y, slices = config.pooled_shape
    channels = config.lift.context_channels
    return (1, x, y, slices * channels) if config.encoder.kind == "channel_to_height" else (1, x, y, slices, channels)


def written_graph(model: Any) -> Graph:
    """A model (openvino.Model) as bytes; its numbers keep their types."""
    openvino = import_openvino()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return Graph(path.read_bytes(), path.with_suffix(".bin").read_bytes())


def models_of(file: OpenVinoFile) -> tuple[Any, Any]:
    """Both models (openvino.Model) of a file.

    Raises:
        ValueError: OpenVINO is not installed.
        CheckpointError: OpenVINO cannot read them, they are not of the file's network, or need a senseless amount of
            memory.
    """
    models, core = [], import_openvino().Core()
    for graph, name, shapes in zip(file.graphs, ("image", "volume"), stage_shapes(file.checkpoint.config, -1)):
        try:
            model = core.read_model(graph.xml, graph.constants)
        except RuntimeError as error:
            raise CheckpointError(
                f"{file.path}: OpenVINO cannot read its {name}.xml ({str(error)[-200:].strip()}); export the "
                f"checkpoint again with this version of OpenVINO"
            ) from None
        _check_model(file.path, f"{name}.xml", model, shapes)
        models.append(model)
    return models[0], models[1]


def _check_model(path: Path, name: str, model: Any, shapes: StageShapes) -> None:
    openvino = import_openvino()
    for kind, ports, wanted in (("inputs", model.inputs, shapes.inputs), ("outputs", model.outputs, shapes.outputs)):
        types = ["u8" if (name, kind, number) == ("image.xml", "inputs", 0) else "f32" for number in range(len(wanted))]
        given = [(port.get_element_type().get_type_name(), port.get_partial_shape()) for port in ports]
        if len(given) != len(wanted) or not all(
            type_ == wanted_type and shape.rank.is_static and shape.compatible(openvino.PartialShape(list(size)))
            for (type_, shape), wanted_type, size in zip(given, types, wanted)
        ):
            found = ", ".join(f"{type_} {shape}" for type_, shape in given)
            expected = ", ".join(f"{type_} {list(size)}" for type_, size in zip(types, wanted))
            raise CheckpointError(
                f"{path}: {name} has the {kind} {found[:200]}, but its network has {expected}; export the checkpoint "
                f"again with `renderocc export --int8`"
            )
    for operation in model.get_ops():
        for output in operation.outputs():
            shape = output.get_partial_shape()
            numbers = 1
            for size in shape if shape.rank.is_static else ():
                numbers *= size.get_length() if size.is_static else _CAMERAS
            if numbers > _MOST_NUMBERS:
                raise CheckpointError(f"{path}: {name} makes a tensor of shape {shape}, more than a network can need")


def import_openvino() -> Any:
    """The package, without its telemetry: OpenVINO and NNCF would report their use to Google Analytics.

    Raises:
        ValueError: it cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it fails from now on
    try:
        import openvino
    except ImportError as error:
        raise ValueError(
            f"backend is openvino, which cannot be imported ({error}); python3 -m pip install openvino, "
            f"or use backend torch"
        ) from None
    return openvino
