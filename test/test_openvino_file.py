"""Files with OpenVINO graphs: what is written is read, and every part that a network has no need of is refused."""

import re
import zipfile

import pytest
from exported_files import small_checkpoint

from renderocc_model.export.file import is_exported, read_description
from renderocc_model.export.openvino_file import (
    Graph,
    checked_graph,
    read_openvino_file,
    write_openvino_file,
)
from renderocc_model.network.checkpoint import CheckpointError, load_checkpoint

# y = ReLU(x * 2), as OpenVINO writes it.
XML = b"""<?xml version="1.0"?>
<net name="small" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1"><data shape="3" element_type="f32" />
      <output><port id="0" precision="FP32" names="x"><dim>3</dim></port></output></layer>
    <layer id="1" name="two" type="Const" version="opset1"><data element_type="f32" shape="" offset="0" size="4" />
      <output><port id="0" precision="FP32" /></output></layer>
    <layer id="2" name="product" type="Multiply" version="opset1"><data auto_broadcast="numpy" />
      <rt_info><attribute name="note" version="0" value="/home/somebody/model.xml" /></rt_info>
      <input><port id="0" precision="FP32"><dim>3</dim></port><port id="1" precision="FP32" /></input>
      <output><port id="2" precision="FP32"><dim>3</dim></port></output></layer>
    <layer id="3" name="positive" type="ReLU" version="opset1">
      <input><port id="0" precision="FP32"><dim>3</dim></port></input>
      <output><port id="1" precision="FP32" names="y"><dim>3</dim></port></output></layer>
    <layer id="4" name="y" type="Result" version="opset1">
      <input><port id="0" precision="FP32"><dim>3</dim></port></input></layer>
  </layers>
  <edges>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0" />
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1" />
    <edge from-layer="2" from-port="2" to-layer="3" to-port="0" />
    <edge from-layer="3" from-port="1" to-layer="4" to-port="0" />
  </edges>
  <rt_info><conversion_parameters><framework value="pytorch" /></conversion_parameters></rt_info>
</net>
"""
GRAPH = Graph(XML, b"\x00\x00\x00\x40")  # 2.0


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("openvino") / "small.openvino"
    write_openvino_file(path, load_checkpoint(small_checkpoint()), (GRAPH, GRAPH))
    return path


def bent(file, to, change):
    """A copy whose {name: content} is changed."""
    with zipfile.ZipFile(file) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    change(contents)
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return to


def test_what_is_written_is_read_and_described_without_openvino(file):
    found, plain = read_openvino_file(file), load_checkpoint(small_checkpoint())
    assert (found.checkpoint.config, found.checkpoint.classes) == (plain.config, plain.classes)
    assert all((a == b).all() for a, b in zip(found.checkpoint.network.parameters(), plain.network.parameters()))
    assert [graph.constants for graph in found.graphs] == [GRAPH.constants] * 2
    described = read_description(file)
    assert (described.config, described.threshold, described.provenance) == (plain.config, 0.3, {"by": "test"})
    assert is_exported(file)


def test_notes_such_as_paths_of_the_computer_that_wrote_it_are_left_out(file):
    assert b"somebody" not in file.read_bytes() and b"rt_info" not in file.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda xml: xml.replace(b'"ReLU"', b'"Loop"'), "has the operation 'Loop' of 'opset1'"),
        (lambda xml: xml.replace(b'"ReLU" version="opset1"', b'"ReLU" version="extension"'), "'ReLU' of 'extension'"),
        (lambda xml: xml.replace(b'offset="0"', b'offset="1"'), "a constant at 1 of 4 bytes, but there are 4"),
        (lambda xml: xml.replace(b'offset="0"', b'offset="-4"'), "a constant at -4 of 4 bytes"),
        (lambda xml: xml.replace(b'size="4"', b'size="four"'), "a constant without a place"),
        (lambda xml: xml.replace(b'element_type="f32" shape', b'element_type="string" shape'), "elements of type"),
        (lambda xml: xml.replace(b"<edges>", b"<edges><body />"), "has 'body' in 'edges'"),
        (lambda xml: xml.replace(b'version="11"', b'version="12"'), "is of version '12', expected '11'"),
        (lambda xml: xml.replace(b"<net", b'<!DOCTYPE net [<!ENTITY a "aaaa">]><net'), "has declarations"),
        (lambda xml: xml[:-20], "is no XML"),
        (lambda xml: xml.decode().encode("utf-16"), "is no XML"),
    ],
)
def test_a_graph_that_does_more_than_compute_is_refused_by_name(change, reason, tmp_path):
    assert change(XML) != XML
    with pytest.raises(CheckpointError, match=f"a.openvino: volume.xml .*{re.escape(reason)}.*export the checkpoint"):
        checked_graph(tmp_path / "a.openvino", "volume", Graph(change(XML), GRAPH.constants))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda all_: all_.update(version=b"2"), "has layout 2, this package reads 1; update the package"),
        (lambda all_: all_.update({"../../outside": b""}), "holds ../../outside, "),
        (lambda all_: all_.pop("volume.bin"), "expected version, checkpoint.safetensors"),
        (
            lambda all_: all_.update({"checkpoint.safetensors": b"\x80\x04junk"}),
            "its checkpoint.safetensors: is a PyTorch",
        ),
        (lambda all_: all_.update({"checkpoint.safetensors": b"\xff" * 40}), "its checkpoint.safetensors: is 40 bytes"),
    ],
)
def test_an_archive_of_another_content_is_refused_by_name(file, change, reason, tmp_path):
    with pytest.raises(CheckpointError, match=re.escape(reason)) as error:
        read_openvino_file(bent(file, tmp_path / "bent.openvino", change))
    assert str(tmp_path / "bent.openvino") in str(error.value)


def test_compressed_entries_which_could_hide_any_size_are_refused(file, tmp_path):
    packed = tmp_path / "packed.openvino"
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for info in archive.infolist():
            new.writestr(info.filename, archive.read(info))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_openvino_file(packed)


def test_bytes_of_anything_else_are_refused_by_name(file, tmp_path):
    other = tmp_path / "other.openvino"
    whole = file.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2]):
        other.write_bytes(content)
        for read in (read_openvino_file, read_description):
            with pytest.raises(CheckpointError, match="other.openvino: is truncated or damaged"):
                read(other)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_openvino_file(tmp_path / "missing.openvino")


def test_a_description_that_claims_more_bytes_than_the_file_has_is_refused(file, tmp_path):
    def longer(contents):
        contents["checkpoint.safetensors"] = (1 << 40).to_bytes(8, "little") + b"{}"

    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read_description(bent(file, tmp_path / "bent.openvino", longer))


def test_a_graph_that_would_be_refused_is_not_written(tmp_path):
    bad = Graph(XML.replace(b'"ReLU"', b'"Loop"'), GRAPH.constants)
    with pytest.raises(CheckpointError, match="has the operation 'Loop'"):
        write_openvino_file(tmp_path / "bad.openvino", load_checkpoint(small_checkpoint()), (GRAPH, bad))
    assert not list(tmp_path.iterdir())
