"""Networks as OpenVINO graphs in a file, beside their checkpoint; each part is checked before OpenVINO gets it.

The file is an archive (zip, nothing compressed) with six entries: the version of this layout; the checkpoint, a
safetensors file as everywhere else; and the network's two stages, each as a graph (XML) and its constants (bytes).
OpenVINO gets a copy of the graph that is written anew from the parts that were looked at. No part runs code.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree

from renderocc_model.base.files import replacing
from renderocc_model.network.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["CHECKPOINT", "Graph", "OpenVinoFile", "checked_graph", "read_openvino_file", "write_openvino_file"]

CHECKPOINT = "checkpoint.safetensors"
_VERSION = b"1"
_STAGES = ("image", "volume")
_ENTRIES = ("version", CHECKPOINT, *(f"{stage}.{kind}" for stage in _STAGES for kind in ("xml", "bin")))
_AGAIN = "export the checkpoint again with `renderocc export --int8`"
_MOST_BYTES_OF_XML = 64 << 20

_IR_VERSION = "11"  # of the XML's layout, since OpenVINO 2022
# What an element of the XML may hold. `rt_info` are notes that OpenVINO does not need; they are left out.
_PARTS = {
    "net": {"layers", "edges"},
    "layers": {"layer"},
    "layer": {"data", "input", "output"},
    "input": {"port"},
    "output": {"port"},
    "port": {"dim"},
    "edges": {"edge"},
}
# Functions of tensors. Not: graphs within the graph, state that outlasts a frame, text, operations of extensions.
_OPERATIONS = set(
    "Abs Add AvgPool Broadcast Clamp Concat Const Convert Convolution Divide Elu Equal Erf Exp FakeQuantize Floor "
    "FloorMod Gather GatherElements Gelu Greater GreaterEqual GroupConvolution GroupNormalization HardSigmoid HSigmoid "
    "HSwish Interpolate Less LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul MaxPool Maximum Minimum Mish Mod "
    "Multiply MVN Negative NormalizeL2 NotEqual Pad Parameter Power PReLU Range ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReLU Reshape Result Roll ScaledDotProductAttention Select ShapeOf Sigmoid Sign Slice SoftMax "
    "SoftPlus Split Sqrt Squeeze StridedSlice Subtract Swish Tanh Tile Transpose Unsqueeze VariadicSplit".split()
)
_OPSET = re.compile(r"opset\d{1,2}")
_NUMBERS = re.compile(r"(f|i|u|bf)\d{1,2}|boolean")


class Graph(NamedTuple):
    """A stage of the network as OpenVINO writes it."""

    xml: bytes
    constants: bytes


@dataclass(frozen=True, eq=False)
class OpenVinoFile:
    """What a file holds: the checkpoint, on the CPU, and the graphs of the image network and the volume encoder."""

    path: Path
    checkpoint: Checkpoint
    graphs: tuple[Graph, Graph]


def write_openvino_file(path: Path, checkpoint: Checkpoint, graphs: Sequence[Graph], half: bool = False) -> None:
    """Write a file; one of that name is replaced in one step.

    Args:
        checkpoint: with where the graphs came from under `export` in its provenance.
        graphs: of the image network and the volume encoder.
        half: store the checkpoint's weights as float16.
    Raises:
        CheckpointError: a graph has parts that `read_openvino_file` would refuse.
        OSError: the file cannot be written.
    """
    checked = [checked_graph(path, stage, graph) for stage, graph in zip(_STAGES, graphs)]
    with TemporaryDirectory() as folder, replacing(path) as partial:
        weights = Path(folder) / CHECKPOINT
        save_checkpoint(
            weights,
            checkpoint.network,
            checkpoint.classes,
            checkpoint.threshold,
            checkpoint.rig_summary,
            checkpoint.provenance,
            half,
        )
        contents = [_VERSION, weights.read_bytes(), *(part for graph in checked for part in graph)]
        with zipfile.ZipFile(partial, "w") as archive:
            for name, content in zip(_ENTRIES, contents):
                archive.writestr(name, content)


def read_openvino_file(path: str | Path) -> OpenVinoFile:
    """Read a file that `renderocc export --int8` wrote.

    Raises:
        CheckpointError: it cannot be read, is of another version, or holds what such a file has no need of.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive)
            contents = {name: archive.read(name) for name in _ENTRIES}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); give an exported file") from None
    except CheckpointError:
        raise
    except Exception:  # on arbitrary bytes zipfile raises errors of many types
        raise CheckpointError(f"{path}: is truncated or damaged; copy it again, or {_AGAIN}") from None
    graphs = [
        checked_graph(path, stage, Graph(contents[f"{stage}.xml"], contents[f"{stage}.bin"])) for stage in _STAGES
    ]
    with TemporaryDirectory() as folder:
        weights = Path(folder) / CHECKPOINT
        weights.write_bytes(contents[CHECKPOINT])
        try:
            checkpoint = load_checkpoint(weights)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(weights), f"{path}: its {CHECKPOINT}")) from None
    return OpenVinoFile(path, checkpoint, (graphs[0], graphs[1]))


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = sorted(entry.filename for entry in entries)
    version = archive.read("version")[:20] if "version" in names and archive.getinfo("version").file_size < 20 else b""
    if version and version != _VERSION:
        raise CheckpointError(
            f"{path}: has layout {version.decode('ascii', 'replace')}, this package reads {_VERSION.decode()}; update "
            f"the package or {_AGAIN}"
        )
    if names != sorted(_ENTRIES):
        raise CheckpointError(f"{path}: holds {', '.join(names)[:200]}; expected {', '.join(_ENTRIES)}; {_AGAIN}")
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise CheckpointError(f"{path}: {entry.filename} is compressed, which could hide its size; {_AGAIN}")


def checked_graph(path: Path, name: str, graph: Graph) -> Graph:
    """The graph, written anew from what is allowed in it.

    Args:
        path, name: for error texts.
    Raises:
        CheckpointError: it holds anything else, or constants outside of its bytes; that is named.
    """

    def refused(why: str) -> CheckpointError:
        return CheckpointError(f"{path}: {name}.xml {why}; {_AGAIN}")

    if len(graph.xml) > _MOST_BYTES_OF_XML:
        raise refused(f"is {len(graph.xml)} bytes long, more than the {_MOST_BYTES_OF_XML} that a network can need")
    try:
        text = graph.xml.decode("utf-8")
        if "<!" in text:  # entities could stand for other files, or for any number of letters
            raise refused("has declarations, which no graph needs")
        tree = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError):
        raise refused("is no XML") from None
    if tree.tag != "net" or tree.get("version") != _IR_VERSION:
        raise refused(f"is of version {str(tree.get('version'))[:20]!r}, expected {_IR_VERSION!r}")
    _check_parts(tree, refused)
    for layer in tree.iter("layer"):
        kind, version = layer.get("type", ""), layer.get("version", "")
        if kind not in _OPERATIONS or not _OPSET.fullmatch(version):
            raise refused(f"has the operation {kind[:40]!r} of {version[:40]!r}")
        data = layer.find("data")
        values = {} if data is None else data.attrib
        if "element_type" in values and not _NUMBERS.fullmatch(values["element_type"]):
            raise refused(f"has elements of type {values['element_type'][:40]!r}")
        if kind == "Const":
            _check_constant(values, len(graph.constants), refused)
    return Graph(ElementTree.tostring(tree), graph.constants)


def _check_parts(tree: ElementTree.Element, refused) -> None:
    waiting = [tree]
    while waiting:
        element = waiting.pop()
        for part in list(element):
            if part.tag == "rt_info":
                element.remove(part)
            elif part.tag not in _PARTS.get(element.tag, ()):
                raise refused(f"has {part.tag[:40]!r} in {element.tag!r}")
            else:
                waiting.append(part)


def _check_constant(values, size: int, refused) -> None:
    try:
        begin, length = int(values["offset"]), int(values["size"])
    except (KeyError, ValueError):
        raise refused("has a constant without a place") from None
    if not (0 <= begin <= size and 0 <= length <= size - begin):
        raise refused(f"has a constant at {begin} of {length} bytes, but there are {size}")
