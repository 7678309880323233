"""A checkpoint comes back as it was written, or says by name why not, without running or allocating what it claims."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import camera_ring, small_config

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.field.threshold import DistanceThreshold
from renderocc_model.network import packaged
from renderocc_model.network.checkpoint import (
    FORMAT_VERSION,
    METADATA_KEY,
    CheckpointError,
    checkpoint_metadata,
    described,
    load_checkpoint,
    read_checkpoint_metadata,
    save_checkpoint,
)
from renderocc_model.network.lift import Frustums
from renderocc_model.network.network import build_network

RIG = {"cameras": 2, "size": [1600, 900], "horizontal_fov": 1.2}
PROVENANCE = {"data": ["one.mcap", "two.mcap"], "seed": 7, "note": "für Tests"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_network(small_config())
    network.train()(torch.randn(1, 2, 3, 64, 96), geometry(network))  # running statistics unlike their start
    return network


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    """The bytes of a good checkpoint."""
    path = tmp_path_factory.mktemp("written") / "good.safetensors"
    save_checkpoint(path, network, OCC3D_NUSCENES, 0.4, RIG, PROVENANCE)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, written):
    """A good checkpoint that a test may spoil."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(written)
    return path


def geometry(network):
    views, poses = camera_ring(network.config, 2)
    return Frustums(network.config, views).place(poses)


def header_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def change_metadata(path, **changes):
    header, data = header_of(path)
    content = json.loads(header["__metadata__"][METADATA_KEY])
    content.update(changes)
    header["__metadata__"][METADATA_KEY] = json.dumps(content)
    write(path, header, data)


def test_a_threshold_over_the_distance_comes_back_and_older_files_have_none(network, tmp_path, path):
    curve = DistanceThreshold((0.0, 10.0, 40.0), (0.1, 0.2, 0.4), 0.15)
    save_checkpoint(tmp_path / "curve.safetensors", network, OCC3D_NUSCENES, curve)
    assert load_checkpoint(tmp_path / "curve.safetensors").threshold == curve
    content = read_checkpoint_metadata(tmp_path / "curve.safetensors")
    assert content["threshold"] == 0.15  # for programs that know no curves
    # What exported files hold and are read by.
    exported = {METADATA_KEY: json.dumps(checkpoint_metadata(network, OCC3D_NUSCENES, curve))}
    assert described(path, exported).threshold == curve
    header, data = header_of(path)
    content = json.loads(header["__metadata__"][METADATA_KEY])
    assert content.pop("threshold_by_distance") is None
    header["__metadata__"][METADATA_KEY] = json.dumps(content)
    write(path, header, data)
    assert load_checkpoint(path).threshold == 0.4


def test_a_threshold_over_the_distance_that_is_none_is_refused(path):
    for curve in ([0.1], {"distances": [0, 1], "probabilities": [0.1, 2], "flat": 0.1}, {"distances": [0]}, "x"):
        change_metadata(path, threshold_by_distance=curve)
        assert "threshold" in refusal(path)


def refusal(path):
    """The text with which a file is refused; it must name the file."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_what_was_saved_comes_back(network, path):
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == network.config and checkpoint.grid == network.config.grid
    assert checkpoint.classes == OCC3D_NUSCENES and checkpoint.threshold == 0.4
    assert checkpoint.rig_summary == RIG and checkpoint.provenance == PROVENANCE
    assert not checkpoint.network.training
    for (name, before), after in zip(network.state_dict().items(), checkpoint.network.state_dict().values()):
        assert torch.equal(before, after), name
    images = torch.randn(1, 2, 3, 64, 96)
    with torch.inference_mode():
        expected = network.eval()(images, geometry(network)).density
        assert torch.equal(checkpoint.network(images, geometry(network)).density, expected)


def test_any_safetensors_reader_can_open_it(network, path):
    assert load_file(path).keys() == network.state_dict().keys()


def test_the_metadata_can_be_read_alone(path):
    content = read_checkpoint_metadata(path)
    assert content["format_version"] == FORMAT_VERSION and content["rig"] == RIG
    assert content["model"]["grid"]["voxel_size"] == 1.0


def test_half_precision_halves_the_file_and_keeps_running_statistics_whole(network, path, tmp_path):
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, network, OCC3D_NUSCENES, 0.4, half=True)
    checkpoint = load_checkpoint(half)
    assert half.stat().st_size < 0.65 * path.stat().st_size
    for (name, before), after in zip(network.state_dict().items(), checkpoint.network.state_dict().values()):
        assert after.dtype == before.dtype
        if "running_" in name:
            assert torch.equal(before, after)
        elif before.is_floating_point():
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6)
    assert checkpoint.rig_summary is None and checkpoint.provenance == {}


def test_a_new_file_takes_the_old_ones_place_and_leaves_nothing_beside_it(network, path):
    save_checkpoint(path, network, OCC3D_NUSCENES, 0.6)
    assert load_checkpoint(path).threshold == 0.6
    assert os.listdir(path.parent) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file(network, path, written, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="cannot be written \\(No space left on device\\)"):
        save_checkpoint(path, network, OCC3D_NUSCENES, 0.6)
    assert path.read_bytes() == written and os.listdir(path.parent) == [path.name]


def test_folders_are_made_and_a_file_in_their_place_is_named(network, tmp_path):
    save_checkpoint(tmp_path / "a" / "b" / "model.safetensors", network, OCC3D_NUSCENES, 0.5)
    (tmp_path / "c").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "c" / "model.safetensors", network, OCC3D_NUSCENES, 0.5)


def test_what_would_not_load_is_not_written(network, tmp_path):
    target = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="19 classes other than free, the network 17 logits"):
        save_checkpoint(target, network, SEMANTIC_KITTI, 0.5)
    for threshold in (0.0, 1.0, float("nan"), "0.5", True):
        with pytest.raises(CheckpointError, match="threshold is"):
            save_checkpoint(target, network, OCC3D_NUSCENES, threshold)
    with pytest.raises(CheckpointError, match="not plain data"):
        save_checkpoint(target, network, OCC3D_NUSCENES, 0.5, provenance={"when": object()})
    with pytest.raises(CheckpointError, match="not plain data"):
        save_checkpoint(target, network, OCC3D_NUSCENES, 0.5, provenance={"loss": float("nan")})
    broken = build_network(network.config)
    with torch.no_grad():
        broken.heads.density[-1].bias.fill_(1e6)
    with pytest.raises(CheckpointError, match="'heads.density.3.bias' holds NaN or infinity in half precision"):
        save_checkpoint(target, broken, OCC3D_NUSCENES, 0.5, half=True)
    with torch.no_grad():
        broken.heads.density[-1].bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="'heads.density.3.bias' holds NaN or infinity;"):
        save_checkpoint(target, broken, OCC3D_NUSCENES, 0.5)
    assert not target.exists()


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    assert "No such file" in refusal(tmp_path / "nothing.safetensors")
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("protocol", ["zip", "legacy"])
def test_a_pickle_is_recognised_and_never_opened(tmp_path, protocol):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "model.pth"
    torch.save({"bomb": Bomb()}, path, _use_new_zipfile_serialization=protocol == "zip")
    assert "is a PyTorch pickle" in refusal(path)
    assert not (tmp_path / "exploded").exists()


def test_other_files_are_told_what_they_are(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refusal(path)
    path.write_bytes(b"")
    assert "is 0 bytes long" in refusal(path)
    path.write_bytes(b"just some text, longer than eight bytes")
    assert "truncated or no checkpoint" in refusal(path)
    save_file({"weight": torch.ones(3)}, path)
    assert "without 'renderocc' metadata" in refusal(path)
    save_file({"weight": torch.ones(3)}, path, {METADATA_KEY: "no json"})
    assert "not a JSON table" in refusal(path)
    path.write_bytes((9).to_bytes(8, "little") + b"[1, 2, 3]")
    assert "no safetensors file" in refusal(path)
    path.write_bytes((9).to_bytes(8, "little") + b"{not json")
    assert "no safetensors file" in refusal(path)
    deep = b"[" * 200_000
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert "no safetensors file" in refusal(path)


def test_a_header_as_long_as_a_disk_is_refused_before_it_is_read(path):
    data = path.read_bytes()
    path.write_bytes((1 << 40).to_bytes(8, "little") + data[8:])
    assert "too short for a safetensors header of 1099511627776" in refusal(path)
    with path.open("wb") as file:  # a sparse file whose size would agree
        file.write((1 << 35).to_bytes(8, "little"))
        file.truncate((1 << 35) + 1000)
    assert "more than the 16777216 a checkpoint can need" in refusal(path)


@pytest.mark.parametrize("kept", [4, 8, 100, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, kept):
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    assert "truncated" in refusal(path)


def test_bytes_left_over_are_refused(path):
    path.write_bytes(path.read_bytes() + b"\0" * 16)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        "no tensor",
    ],
)
def test_a_file_with_a_tensor_that_lies_about_its_size_is_refused(path, entry):
    header, data = header_of(path)
    header["heads.density.1.bias"] = entry
    write(path, header, data)
    assert "damaged" in refusal(path) or "'heads.density.1.bias' is F32 [1, 1, 1, 1, 1, 1, 1, 1, 1]" in refusal(path)


def test_two_tensors_in_one_place_are_refused(path):
    header, data = header_of(path)
    names = [name for name in header if name.endswith("gate.0.bias") or name.endswith("gate.2.bias")]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    write(path, header, data)
    assert "damaged" in refusal(path)


def rewrite(path, change):
    """Save the file's tensors again after `change(tensors)`, with the same metadata."""
    header, _ = header_of(path)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, header["__metadata__"])


def test_missing_and_unexpected_tensors_are_named(path):
    rewrite(path, lambda tensors: tensors.update(stranger=tensors.pop("heads.density.1.bias")))
    text = refusal(path)
    assert "1 missing tensors ('heads.density.1.bias')" in text and "1 unexpected tensors ('stranger')" in text


def test_a_tensor_of_another_shape_or_kind_is_named(path):
    rewrite(path, lambda tensors: tensors.update({"heads.density.1.bias": torch.zeros(7)}))
    assert "'heads.density.1.bias' is F32 [7], its network has torch.float32 [6]" in refusal(path)
    rewrite(path, lambda tensors: tensors.update({"heads.density.1.bias": torch.zeros(6, dtype=torch.int64)}))
    assert "is I64 [6]" in refusal(path)


def test_weights_that_are_not_finite_are_refused(path):
    rewrite(path, lambda tensors: tensors["heads.density.1.bias"].fill_(float("nan")))
    assert "'heads.density.1.bias' holds NaN" in refusal(path)


def test_a_newer_format_is_refused(path):
    change_metadata(path, format_version=FORMAT_VERSION + 1)
    assert f"has checkpoint format {FORMAT_VERSION + 1}, this package reads {FORMAT_VERSION}" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"threshold": "0.5"}, "lacks a proper 'threshold'"),
        ({"classes": {"names": ["a"]}}, "missing keys"),
        ({"classes": SEMANTIC_KITTI.to_dict()}, "19 classes other than free"),
        ({"rig": [1]}, "lacks a proper 'rig'"),
        ({"model": {"naem": "x"}}, "did you mean 'name'"),
    ],
)
def test_metadata_that_means_nothing_is_refused(path, changes, reason):
    change_metadata(path, **changes)
    assert reason in refusal(path)


def test_a_model_far_larger_than_its_file_is_refused_without_its_memory(path):
    content = read_checkpoint_metadata(path)
    content["model"]["encoder"] = {
        "kind": "channel_to_height",
        "channels": [2048] * 12,
        "blocks": [64] * 12,
        "out_channels": 2048,
    }
    change_metadata(path, model=content["model"])
    # 12 * 64 blocks of two 3x3 convolutions with 2048 channels: 58 billion weights, 232 GB.
    assert "missing tensors" in refusal(path)


@pytest.mark.parametrize("name", ["hf-hub:someone/something", "no_such_network", "/etc/passwd"])
def test_a_backbone_that_timm_does_not_have_is_refused_and_nothing_is_fetched(path, name):
    content = read_checkpoint_metadata(path)
    content["model"]["backbone"]["name"] = name
    change_metadata(path, model=content["model"])
    assert "which timm does not have" in refusal(path)


def test_a_checkpoint_never_fetches_pretrained_weights(path):
    content = read_checkpoint_metadata(path)
    content["model"]["backbone"]["pretrained"] = "/nowhere/weights.pth"
    change_metadata(path, model=content["model"])
    assert load_checkpoint(path).config.backbone.pretrained == "/nowhere/weights.pth"


# ---- the networks in the package ----------------------------------------------------------------


def test_the_name_of_a_preset_is_its_trained_network_in_the_package(written, tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(written)
    assert read_checkpoint_metadata("tiny")["provenance"] == PROVENANCE
    assert load_checkpoint("tiny").provenance == PROVENANCE
    assert packaged.packaged_checkpoint("base") is None
    with pytest.raises(CheckpointError, match="^base: cannot be read .*give the path of a .safetensors checkpoint"):
        load_checkpoint("base")


def test_a_file_of_that_name_comes_before_the_network_in_the_package(written, tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(b"another")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_bytes(written)
    assert read_checkpoint_metadata("tiny")["provenance"] == PROVENANCE


def test_what_is_in_the_package_is_small_and_sound():
    for path in packaged.FOLDER.glob("*"):
        assert path.suffix == ".safetensors" and path.stat().st_size <= 20 << 20, path
        checkpoint = load_checkpoint(path.stem)
        assert checkpoint.config.name == path.stem and not checkpoint.provenance.get("untrained"), path
        assert checkpoint.rig_summary, f"{path}: the node could not say that a rig differs"
