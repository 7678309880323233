"""The parts of a .pt2 archive that torch may read: tensors, and a graph of ATen operations on them. None runs code.

`torch.export.load` unpickles objects, links libraries, evaluates expressions, executes guards and looks up functions by
name, all as the file asks. So a file from a stranger could do anything. An exported network needs none of this. Here
each part is compared with what is allowed and copied into a new archive in memory. Torch reads that copy and never the
file, so it sees nothing that was not checked.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from renderocc_model.network.checkpoint import METADATA_KEY, CheckpointError

__all__ = ["check_torch_version", "checked_archive"]

_OLDEST_TORCH = (2, 8)  # whose archives have the layout that is checked here

_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_PROGRAM, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_BYTES = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|\.data/version"
)
_IGNORED = {_SAMPLES, ".data/serialization_id", f"extra/{METADATA_KEY}"}  # samples are a pickle, and not needed
_STORED_IN = {_WEIGHTS: re.compile(r"weight_\d+"), _CONSTANTS: re.compile(r"tensor_\d+")}

# Operations on tensors; those of ATen that reach beyond them (files, another tensor's memory) are not among them.
_OPERATION = re.compile(
    r"torch\.ops\.aten\.(?!from_file|set_|set\b|record_stream|resize)(?P<name>[a-z]\w*|_assert_tensor_metadata)\.[A-Za-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|ge|gt|le|lt|eq|ne|and_|or_)"
    r"|torch\.sym_(max|min|float|int|not|ite)"
    r"|math\.(ceil|floor|trunc)"
)
# How an argument may be given: numbers, words, names of results. Not: graphs within the graph, objects, functions.
_ARGUMENTS = {
    f"as_{kind}"
    for kind in (
        "none tensor tensors int ints float floats string strings bool bools name expr sym_int sym_ints sym_float "
        "sym_floats sym_bool sym_bools scalar_type memory_format layout device optional_tensor optional_tensors "
        "nested_tensors int_lists"
    ).split()
}
# A size in terms of others, which sympy evaluates as Python: words of this list, symbols s0, u1, ..., numbers.
# No powers and factorials either: a short one can take for ever.
_EXPRESSION = re.compile(r"([\w\s(),+\-/%<>=.']|\*(?!\*))*")
_EXPRESSION_WORDS = re.compile(
    r"([suz]f?\d+|\d+|Symbol|Integer|Float|Rational|Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv"
    r"|ModularIndexing|IntTrueDiv|FloatTrueDiv|Eq|Ne|Ge|Gt|Le|Lt|And|Or|Not|Where|CeilToInt|FloorToInt"
    r"|Equality|Unequality|GreaterThan|StrictGreaterThan|LessThan|StrictLessThan"
    r"|positive|integer|nonnegative|true|false|True|False)"
)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


def check_torch_version(version: str) -> None:
    """Refuse a torch that writes and reads .pt2 archives of another layout.

        >>> check_torch_version("2.8.0+cu128")
        >>> check_torch_version("2.6.0")
        Traceback (most recent call last):
        ValueError: .pt2 files need torch 2.8 or newer, and this is 2.6.0; update torch, or use format onnx

    Args:
        version: torch.__version__.
    """
    major, minor = version.split(".")[:2]
    if (int(major), int(minor)) < _OLDEST_TORCH:
        raise ValueError(f".pt2 files need torch 2.8 or newer, and this is {version}; update torch, or use format onnx")


def checked_archive(path: Path) -> io.BytesIO:
    """A copy of what `renderocc export --format torch_export` wrote, for `torch.export.load`.

    Returns:
        the archive in memory, without sample inputs and guards.
    Raises:
        CheckpointError: the file holds anything that an exported network has no need of; it is named. Nothing was run.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as checked:
        for entry in _entries(path, archive):
            name = entry.filename.partition("/")[2]
            if name in _IGNORED:
                continue
            if _BYTES.fullmatch(name):
                checked.writestr(entry.filename, archive.read(entry))
                continue
            try:
                content = json.loads(archive.read(entry))
            except (ValueError, RecursionError):
                raise _refused(path, f"{name} is not JSON") from None
            if name == _PROGRAM:
                _check_program(path, content)
                content["guards_code"] = []  # Python source, of checks of the inputs that the caller makes
            else:
                _check_payloads(path, name, content)
            checked.writestr(entry.filename, json.dumps(content))
        checked.writestr(f"{entry.filename.partition('/')[0]}/{_SAMPLES}", b"")
    copy.seek(0)
    return copy


def _entries(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    known = {_WEIGHTS, _CONSTANTS, _PROGRAM, *_IGNORED}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if not re.fullmatch(r"\w[\w.-]*", folder) or not (name in known or _BYTES.fullmatch(name)):
            raise _refused(path, f"holds {entry.filename[:80]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise _refused(path, f"{name} is compressed")
    if len({name.partition("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        raise _refused(path, "holds two entries of one name")
    return entries


def _check_payloads(path: Path, name: str, content: Any) -> None:
    """Weights or constants: each a tensor in an entry of its own, none an object that is unpickled."""
    try:
        for payload in content["config"].values():
            if payload["use_pickle"] is not False or not _STORED_IN[name].fullmatch(payload["path_name"]):
                raise _refused(path, f"{name} names a pickled object")
    except (KeyError, TypeError, AttributeError):
        raise _refused(path, f"{name} is no table of tensors") from None


def _check_program(path: Path, content: Any) -> None:
    try:
        module = content["graph_module"]
        for node in module["graph"]["nodes"]:
            if not _OPERATION.fullmatch(node["target"]):
                raise _refused(path, f"its graph calls {node['target'][:80]!r}")
        if module["graph"]["custom_obj_values"] or module["treespec_namedtuple_fields"]:
            raise _refused(path, "its graph holds objects other than tensors")
        for call in module["module_call_graph"]:
            for side in ("in_spec", "out_spec"):
                if call["signature"] is not None and not _is_plain(json.loads(call["signature"][side])[1]):
                    raise _refused(path, "its graph takes or gives other things than tensors")
        _check_values(path, content)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError):
        raise _refused(path, f"{_PROGRAM} is no exported program of this version of the format") from None


def _check_values(path: Path, value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _check_values(path, one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key.startswith("as_") and key not in _ARGUMENTS:
                raise _refused(path, f"its graph has an argument of the kind {key[:40]!r}")
            if key == "expr_str" and not _is_size(one):
                raise _refused(path, f"its graph has a size {one[:80]!r}")
            _check_values(path, one)


def _is_size(expression: str) -> bool:
    words = re.findall(r"[A-Za-z_]\w*", expression)
    plain = len(expression) < 10_000 and _EXPRESSION.fullmatch(expression)
    return bool(plain) and all(map(_EXPRESSION_WORDS.fullmatch, words))


def _is_plain(spec: Any) -> bool:
    """A pytree's description: nested tuples, lists and dicts of tensors."""
    context_is_plain = spec["type"] is None or "__" not in str(spec["context"])
    return spec["type"] in _CONTAINERS and context_is_plain and all(map(_is_plain, spec["children_spec"]))


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {why}, which an exported network does not; it could run code when it is loaded, and is refused: "
        "export the checkpoint again with `renderocc export` and torch 2.8 or newer"
    )
