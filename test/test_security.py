"""Hostile files and a hostile network: nothing that is read runs code, nothing that is sent is believed to be small.

Checkpoints have their own tests (test_checkpoint.py), so have run states (test_run_folder.py) and configuration files
(test_config.py). Each payload here would create a file; that it is not there is the claim.
"""

import ast
import io
import json
import pickle
import re
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bag import Plan, write_bag

from renderocc_model.export.archive import check_torch_version, checked_archive
from renderocc_model.export.file import read_description
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.network.backbone import _read_weights
from renderocc_model.network.checkpoint import CheckpointError
from renderocc_ros.commands.recorded_topics import ReplayError, message_class
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import Tables, TablesError
from training.evaluate.volumes import read_volume

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("renderocc_model", "renderocc_ros", "training", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
] + [ROOT / "setup.py"]


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self):
        return open, (self._path, "w")


# ---- the source ------------------------------------------------------------------------------------------------------


def dotted(function: ast.expr) -> str:
    """np.load, yaml.load; of what is no plain name, its last word."""
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def forbidden(call: ast.Call) -> str:
    """What a call does that none may, or nothing."""
    name = dotted(call.func)
    watched = ("shell", "weights_only", "allow_pickle")
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg in watched}
    if name in ("eval", "exec", "compile", "os.system", "os.popen", "tempfile.mktemp"):
        return name
    if name.startswith(("pickle.", "marshal.", "shelve.", "dill.", "joblib.")):
        return name
    if given.get("shell", "False") != "False":
        return "a shell"
    if re.fullmatch(r"subprocess\.\w+", name) and call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
        return "a command that is no list"
    if name == "torch.load" and given.get("weights_only") != "True":
        return "torch.load that may unpickle"
    if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
        return "np.load that may unpickle"
    if name.split(".")[0] == "yaml" and name.endswith((".load", "load_all")):
        return "another YAML reader than base.plain_yaml"
    if name.split(".")[-1] == "YAML" and "typ='safe'" not in ast.unparse(call):
        return "a YAML reader that makes objects"
    if name == "torch.export.load" and "checked_archive(" not in ast.unparse(call):
        return "torch.export.load of a file that was not looked at"
    return "extractall" if name.endswith(".extractall") else ""


def test_no_module_unpickles_evaluates_text_or_starts_a_shell():
    found = set()
    for path in SOURCES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found |= {f"{path.relative_to(ROOT)}:{call.lineno}: {what}" for call in calls if (what := forbidden(call))}
    assert found == set()


def test_torchscript_which_is_a_program_is_loaded_only_where_the_user_names_his_own_labelling_network():
    users = {path for path in SOURCES if "torch.jit.load" in path.read_text()}
    assert users == {ROOT / "training" / "label" / "network_backends.py"}
    assert "is a program" in (ROOT / "docs" / "labels.md").read_text()


# ---- exported networks -----------------------------------------------------------------------------------------------


class Scale(torch.nn.Module):
    """Something with a weight and a free size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.weight + values.shape[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """What torch.export.save writes of a network."""
    try:
        check_torch_version(torch.__version__)
    except ValueError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("archive") / "scale.pt2"
    program = torch.export.export(Scale(), (torch.zeros(3, 2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, path, extra_files={"renderocc": "{}"})
    return path


def bent(archive: Path, to: Path, entry: str, change) -> Path:
    """A copy in which one entry is `change(its bytes)`; with several results, there are several of that name."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(to, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.partition("/")[2] == entry:
                content = change(content)
            new.writestr(info.filename, content)
    return to


def program(change):
    """A change of the program's JSON."""

    def changed(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return changed


def test_torch_can_use_what_was_checked(archive):
    loaded = torch.export.load(checked_archive(archive)).module()
    assert loaded(torch.full((4, 2), 0.5)).tolist() == [[4.5, 4.5]] * 4  # 0.5 * 1 + 4 rows


def test_an_archive_whose_weights_are_pickled_is_refused(archive, tmp_path):
    use_pickle = program(lambda table: table["config"]["weight"].update(use_pickle=True))
    once = bent(archive, tmp_path / "1.pt2", "data/weights/model_weights_config.json", use_pickle)
    twice = bent(once, tmp_path / "2.pt2", "data/weights/weight_0", lambda _: pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match="names a pickled object"):
        checked_archive(twice)


def test_sample_inputs_and_guards_which_torch_would_run_never_reach_it(archive, tmp_path):
    torch.save(Trap(tmp_path / "sprung"), samples := io.BytesIO())
    once = bent(archive, tmp_path / "1.pt2", "data/sample_inputs/model.pt", lambda _: samples.getvalue())
    guard = f"open({str(tmp_path / 'guarded')!r}, 'w') is not None"
    twice = bent(once, tmp_path / "2.pt2", "models/model.json", program(lambda p: p.update(guards_code=[guard])))
    torch.export.load(checked_archive(twice)).module()(torch.zeros(4, 2))
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "guarded").exists()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("torch.os.system", "calls 'torch.os.system'"),
        ("torch.ops.aten.from_file.default", "calls 'torch.ops.aten.from_file"),
        ("torch.ops.aten.set_.source_Storage", "calls 'torch.ops.aten.set_"),
        ("_operator.methodcaller", "calls '_operator.methodcaller'"),
        ("#somebody:somefunction", "calls '#somebody"),
    ],
)
def test_a_graph_that_calls_anything_but_operations_on_tensors_is_refused(archive, tmp_path, target, reason):
    def change(document):
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    with pytest.raises(CheckpointError, match=re.escape(reason)):
        checked_archive(bent(archive, tmp_path / "bent.pt2", "models/model.json", program(change)))


@pytest.mark.parametrize(
    "size", ["__import__('os').system('true')", "().__class__", "9**9**9", "99999999!", "open('x')"]
)
def test_a_size_that_is_python_is_refused(archive, tmp_path, size):
    def change(content: bytes) -> bytes:
        return re.sub(rb'"expr_str": "[^"]*"', f'"expr_str": "{size}"'.encode(), content, count=1)

    with pytest.raises(CheckpointError, match="its graph has a size"):
        checked_archive(bent(archive, tmp_path / "bent.pt2", "models/model.json", change))


def test_a_library_and_a_second_entry_of_one_name_are_refused(archive, tmp_path):
    for name, reason in (("data/aotinductor/model/model.so", "holds"), ("data/weights/weight_0", "one name")):
        path = tmp_path / "more.pt2"
        path.write_bytes(archive.read_bytes())
        with zipfile.ZipFile(path, "a") as more, pytest.warns(UserWarning) if reason == "one name" else no_warning():
            more.writestr(f"{more.namelist()[0].partition('/')[0]}/{name}", b"")
        with pytest.raises(CheckpointError, match=reason):
            checked_archive(path)


class no_warning:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def test_an_onnx_file_whose_tensors_lie_in_other_files_is_refused(tmp_path):
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    location = field(1, b"location") + field(2, b"../../etc/passwd")
    tensor = field(8, b"weight") + field(13, location)
    models = {
        "an initializer": field(7, field(5, tensor)),
        "an attribute": field(7, field(1, field(5, field(5, tensor)))),
        "a graph in it": field(7, field(1, field(5, field(6, field(5, tensor))))),
    }
    for name, model in models.items():
        path = tmp_path / "outside.onnx"
        path.write_bytes(model)
        with pytest.raises(CheckpointError, match="tensors in other files"):
            read_description(path)
            pytest.fail(name)


# ---- other files -----------------------------------------------------------------------------------------------------


def test_a_recording_cannot_name_a_package_to_be_imported(tmp_path, monkeypatch):
    (tmp_path / "harmless").mkdir()
    (tmp_path / "harmless" / "__init__.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("harmless/msg/Image", "this/msg/Zen", "../harmless/msg/Image", "harmless.msg/msg/Image"):
        with pytest.raises(ReplayError, match="needs the package"):
            message_class(name)
    assert "this" not in sys.modules and not (tmp_path / "sprung").exists()
    assert message_class("sensor_msgs/msg/Image").__name__ == "Image"


def objects(trap: Path) -> bytes:
    """An .npy file that holds a pickled trap."""
    np.save(file := io.BytesIO(), np.array([Trap(trap)], object), allow_pickle=True)
    return file.getvalue()


def test_backbone_weights_run_no_code(tmp_path):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("weights.pth", "renamed.safetensors"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
            _read_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_prepared_tables_run_no_code(tmp_path):
    folder = prepare_recording(write_bag(tmp_path / "bag", Plan(frames=1)), None, tmp_path / "t", PrepareConfig())
    for content in (objects(tmp_path / "sprung"), pickle.dumps(Trap(tmp_path / "sprung"))):
        kept = (folder / "stamps.npy").read_bytes()
        (folder / "stamps.npy").write_bytes(content)
        with pytest.raises(TablesError, match="stamps.npy"):
            Tables(folder)
        (folder / "stamps.npy").write_bytes(kept)
    directions = next((folder.parent / "directions").iterdir())
    directions.write_bytes(objects(tmp_path / "sprung"))
    with pytest.raises(TablesError, match="directions"):
        Tables(folder).directions
    assert not (tmp_path / "sprung").exists()


def test_volumes_and_truth_run_no_code(tmp_path):
    path = tmp_path / "1.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("semantics", "grid", "class_names", "confidence", "visible", "frame", "mask_camera"):
            archive.writestr(f"{name}.npy", objects(tmp_path / "sprung"))
    with pytest.raises(ValueError, match=r"1\.npz"):
        Occupancy.load_npz(path, OCC3D_NUSCENES)
    with pytest.raises(ValueError, match=r"1\.npz"):
        read_volume(path, ("semantics",))
    assert not (tmp_path / "sprung").exists()


def test_a_table_header_that_claims_terabytes_takes_no_memory(tmp_path):
    folder = prepare_recording(write_bag(tmp_path / "bag", Plan(frames=1)), None, tmp_path / "t", PrepareConfig())
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.int64)) | {"shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), header)
    (folder / "stamps.npy").write_bytes(file.getvalue())
    tracemalloc.start()
    with pytest.raises(TablesError, match="stamps.npy"):
        Tables(folder)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
