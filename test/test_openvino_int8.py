"""`renderocc export --int8`: what it writes runs everywhere, stays near float32, and says what it loses."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from exported_files import two_threads  # noqa: F401  (a fixture)
from small_models import small_config
from tiny_bag import FRAME_NS, START_NS, Plan, write_bag

from renderocc_model import cli
from renderocc_model.export.backends import chosen_backend
from renderocc_model.export.openvino_file import read_openvino_file, write_openvino_file
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.inference.openvino_graphs import models_of
from renderocc_model.inference.openvino_quantising import behind_convolutions, quantised
from renderocc_model.inference.precision import openvino_precision
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import CheckpointError, save_checkpoint
from renderocc_model.network.untrained import untrained_checkpoint
from training.data.prepare import PrepareConfig, prepare_recording
from training.evaluate.int8.compare import Agreement
from training.evaluate.int8.frames import FrameReader
from training.recordings.frames import Recording

CAR, ROAD, FREE, UNKNOWN = 4, 11, 17, 255
# 40 x 40 x 16 voxels, the middle of Occ3D's grid: truth of that shape needs no further description.
GRID = ("grid.lower=[-8, -8, -1]", "grid.upper=[8, 8, 5.4]", "grid.voxel_size=0.4", "lift.height_slices=4")
needs_nncf = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("openvino", "nncf")), reason="OpenVINO or NNCF is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and a recording with 3D truth in two of its four frames."""
    folder = tmp_path_factory.mktemp("int8")
    made = untrained_checkpoint(small_config("tiny", *GRID), OCC3D_NUSCENES)
    summary = {"count": 1, "cameras": [{"name": "only"}]}
    save_checkpoint(folder / "small.safetensors", made.network, OCC3D_NUSCENES, 0.3, None, {"by": "test", "x": summary})
    bag = write_bag(folder / "drive", Plan(frames=4))
    (bag / "occupancy").mkdir()
    semantics = np.full((40, 40, 16), FREE, np.uint8)
    semantics[:, :, 2] = ROAD
    for number in (1, 3):
        np.savez(
            bag / "occupancy" / f"{START_NS + number * FRAME_NS}.npz",
            semantics=semantics,
            mask_camera=np.ones(semantics.shape, np.uint8),
        )
    return folder


def export(folder, *options, out="small.openvino"):
    """Exit status of the command."""
    words = ["--checkpoint", folder / "small.safetensors", "--int8", "--calibrate", folder / "drive", "--frames", 3]
    return cli.main(["export", *map(str, words), "--out", str(folder / out), *map(str, options)])


@pytest.fixture(scope="module")
def file(folder):
    assert export(folder) == 0
    return folder / "small.openvino"


@needs_nncf
@pytest.mark.slow
def test_the_command_prints_the_loss_against_3d_truth_and_notes_it_in_the_file(folder, file, capfd):
    assert export(folder, "--compare", folder / "drive", out="again.openvino") == 0
    printed = capfd.readouterr().out
    assert "calibrating on 3 frames of" in printed and "2 frames with 3D truth, in %" in printed
    assert "| float32 | " in printed and "| INT8 | " in printed and "| change | " in printed
    exported = read_openvino_file(folder / "again.openvino").checkpoint.provenance["export"]
    assert exported["format"] == "openvino_int8" and exported["calibration"] == {"recording": "drive", "frames": 3}
    found = exported["comparison"]
    assert found["frames"] == 2 and found["float32"].keys() == found["int8"].keys() == {
        "miou",
        "iou_occupied",
        "rayiou",
    }
    assert found["occupied_iou_with_float32"] > 0.8


@needs_nncf
@pytest.mark.slow
def test_the_file_alone_makes_a_predictor_whose_layers_are_int8_and_whose_volumes_are_near_float32(folder, file):
    int8 = Predictor(file)
    assert (int8.backend, int8.precision, str(int8.device)) == ("openvino", "int8 and float32", "cpu")
    assert int8.threshold == 0.3 and int8.provenance["by"] == "test"
    plain = Predictor(folder / "small.safetensors", device="cpu", precision="float32", backend="torch")
    agreement = Agreement()
    with Recording(folder / "drive") as recording:
        reader = FrameReader(recording, plain.view_size, plain.grid, plain.classes)
        frames = list(reader.inputs(recording.frames("front")))
    assert len(frames) == 4 and not reader.left_out
    for cameras, inputs in zip((2, 1, 2, 2), frames):  # one drops out and comes back
        ours, theirs = (predictor.predict(*(part[:cameras] for part in inputs[:3])) for predictor in (int8, plain))
        agreement.add(ours.semantics, theirs.semantics, plain.classes)
        assert 0 < np.abs(ours.confidence - theirs.confidence).max()  # INT8 is not float32
    assert agreement.occupied_iou > 0.8 and agreement.same_class > 0.9
    kept = {name: graph.xml.count(b'type="FakeQuantize"') for name, graph in zip("iv", read_openvino_file(file).graphs)}
    assert kept["i"] > 5 and kept["v"] > 5


@needs_nncf
@pytest.mark.slow
def test_eval_takes_the_file_and_finds_nearly_what_it_finds_of_the_checkpoint(folder, file, tmp_path):
    prepare_recording(folder / "drive", None, tmp_path / "tables", PrepareConfig())
    found = {}
    for path in (file, folder / "small.safetensors"):
        words = ["eval", "--checkpoint", path, "--data", tmp_path / "tables", "--json", tmp_path / "found.json"]
        assert cli.main([*map(str, words), "--device", "cpu"]) == 0
        found[path.suffix] = json.loads((tmp_path / "found.json").read_text())
    int8, plain = found[".openvino"], found[".safetensors"]
    assert int8["precision"] == "int8 and float32" and int8["volumes"]["counts"]["frames"] == 2
    assert int8["rays"]["counts"] == plain["rays"]["counts"] and int8["rays"]["counts"]["returns"] > 100
    assert int8["rays"]["abs_rel"] == pytest.approx(plain["rays"]["abs_rel"], rel=0.1)
    assert int8["volumes"]["iou_occupied"] == pytest.approx(plain["volumes"]["iou_occupied"], abs=0.05)


def test_eval_calibrates_thresholds_of_checkpoints_alone(tmp_path, capsys):
    (tmp_path / "a.openvino").touch()
    words = ["eval", "--checkpoint", tmp_path / "a.openvino", "--data", tmp_path, "--calibrate", tmp_path / "new"]
    assert cli.main(list(map(str, words))) == 2
    assert "--calibrate needs the checkpoint itself (.safetensors)" in capsys.readouterr().err


@needs_nncf
@pytest.mark.slow
def test_without_3d_truth_the_command_says_so_and_prints_how_far_both_agree(folder, tmp_path, capfd):
    bare = write_bag(tmp_path / "bare", Plan(frames=2))
    assert export(folder, "--compare", bare, out="bare.openvino") == 0
    printed = capfd.readouterr().out
    assert "there is no 3D truth, so this is only how far INT8 agrees with float32" in printed
    assert "2 frames: IoU of the occupied voxels of INT8 and float32 " in printed and "mIoU" not in printed


@needs_nncf
@pytest.mark.slow
def test_graphs_of_another_network_and_graphs_that_openvino_cannot_read_are_refused(file, tmp_path):
    found = read_openvino_file(file)
    for graphs, reason in (
        (found.graphs[::-1], "image.xml has the inputs f32 .* but its network has u8 "),
        ((found.graphs[0]._replace(xml=b'<net version="11"><layers /><edges /></net>'), found.graphs[1]), "image.xml"),
    ):
        write_openvino_file(tmp_path / "other.openvino", found.checkpoint, graphs)
        with pytest.raises(CheckpointError, match=f"other.openvino: .*{reason}.*export the checkpoint again"):
            Predictor(tmp_path / "other.openvino")


@needs_nncf
@pytest.mark.slow
def test_a_graph_that_would_take_all_memory_is_refused(file, tmp_path):
    """A constant says the shape of an inner tensor; 2**20 times as many channels would need terabytes."""
    found = read_openvino_file(file)
    volume = found.graphs[1]
    # A Broadcast of one number to 2**40 numbers, whose result nobody needs to read.
    layers = (
        b'<layer id="9001" name="one" type="Const" version="opset1">'
        b'<data element_type="f32" shape="1" offset="%d" size="4" />'
        b'<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>'
        b'<layer id="9002" name="size" type="Const" version="opset1">'
        b'<data element_type="i64" shape="1" offset="%d" size="8" />'
        b'<output><port id="0" precision="I64"><dim>1</dim></port></output></layer>'
        b'<layer id="9003" name="many" type="Broadcast" version="opset3"><data mode="numpy" />'
        b'<input><port id="0" precision="FP32"><dim>1</dim></port>'
        b'<port id="1" precision="I64"><dim>1</dim></port></input>'
        b'<output><port id="2" precision="FP32"><dim>1099511627776</dim></port></output></layer>'
        b'<layer id="9004" name="result" type="Result" version="opset1">'
        b'<input><port id="0" precision="FP32"><dim>1099511627776</dim></port></input></layer></layers>'
    ) % (len(volume.constants), len(volume.constants) + 4)
    edges = (
        b'<edge from-layer="9001" from-port="0" to-layer="9003" to-port="0" />'
        b'<edge from-layer="9002" from-port="0" to-layer="9003" to-port="1" />'
        b'<edge from-layer="9003" from-port="2" to-layer="9004" to-port="0" /></edges>'
    )
    xml = volume.xml.replace(b"</layers>", layers).replace(b"</edges>", edges)
    constants = volume.constants + np.float32(1).tobytes() + np.int64(2**40).tobytes()
    write_openvino_file(
        tmp_path / "huge.openvino", found.checkpoint, (found.graphs[0], volume._replace(xml=xml, constants=constants))
    )
    with pytest.raises(CheckpointError, match="huge.openvino: volume.xml"):
        Predictor(tmp_path / "huge.openvino")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--format", "onnx"], "leave out --format"),
        (["--frames", "0"], "--frames is 0; expected at least 1"),
        (["--out", "small.onnx"], "the file ends in .openvino; name it small.openvino"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, reason, capsys):
    assert export(folder, *options, out="refused.openvino") == 2
    assert reason in capsys.readouterr().err


def test_int8_needs_a_recording_and_a_recording_needs_int8(folder, capsys):
    words = ["export", "--checkpoint", "tiny", "--out", str(folder / "refused.openvino")]
    assert cli.main([*words, "--int8"]) == 2 and "--int8 needs --calibrate BAG" in capsys.readouterr().err
    assert cli.main(words) == 2 and "--format is missing" in capsys.readouterr().err
    assert cli.main([*words, "--format", "onnx", "--calibrate", "drive"]) == 2
    assert "--calibrate is for --int8" in capsys.readouterr().err


@needs_nncf
@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("fusion.stereo.channels=8", "lift.subpixels=2"), ("heads.density_layers=2", "fusion.frames=3")]
)
def test_a_model_that_joins_frames_is_calibrated_and_compared_with_joined_ones(folder, capfd, more):
    made = untrained_checkpoint(small_config("tiny", *GRID, "fusion.enabled=true", *more), OCC3D_NUSCENES)
    save_checkpoint(folder / "joining.safetensors", made.network, OCC3D_NUSCENES, 0.3, None, {})
    words = ["--checkpoint", folder / "joining.safetensors", "--int8", "--calibrate", folder / "drive", "--frames", 4]
    assert cli.main(["export", *map(str, words), "--out", str(folder / "joining.openvino")]) == 0
    assert "2 frames with 3D truth, in %" in capfd.readouterr().out
    int8 = Predictor(folder / "joining.openvino")
    plain = Predictor(folder / "joining.safetensors", device="cpu", precision="float32", backend="torch")
    assert int8.config.fusion.enabled
    agreement = Agreement()
    with Recording(folder / "drive") as recording:
        reader = FrameReader(recording, plain.view_size, plain.grid, plain.classes, plain.config.fusion.interval)
        frames = list(reader.inputs(recording.frames("front")))
    assert [inputs.earlier is None for inputs in frames] == [True, False, False, False]
    assert frames[2].earlier.seconds == pytest.approx(frames[1].seconds)  # they are half a second apart
    for inputs in frames:
        agreement.add(inputs.semantics(int8), inputs.semantics(plain), plain.classes)
    assert agreement.occupied_iou > 0.8 and agreement.same_class > 0.9
    alone = plain.predict(*frames[2][:3]).semantics
    assert (frames[2].semantics(plain) != alone).any()  # the earlier frame does change the volume
    if more:
        # Logits of depth and keys are made in floating point: 256 levels would leave nothing of them.
        image, _ = models_of(read_openvino_file(folder / "joining.openvino"))
        last = {operation.get_type_name() for operation in behind_convolutions(image)}
        assert "Convolution" in last and "FakeQuantize" not in last


@needs_nncf
def test_without_a_frame_nothing_is_calibrated():
    with pytest.raises(ValueError, match="no frame to calibrate with"):
        quantised(untrained_checkpoint(small_config("tiny"), OCC3D_NUSCENES).network, [])


def test_agreement_counts_voxels_that_both_or_either_have_occupied():
    found = Agreement()
    one, other = (np.array(row, np.uint8) for row in ([CAR, ROAD, FREE, CAR, UNKNOWN], [CAR, CAR, CAR, FREE, UNKNOWN]))
    found.add(one.reshape(1, 1, 5), other.reshape(1, 1, 5), OCC3D_NUSCENES)
    # Both: the first two; either: the first four; the same class: the first.
    assert (found.both, found.either, found.same) == (2, 4, 1)
    assert (found.occupied_iou, found.same_class) == (0.5, 0.5)
    assert np.isnan(Agreement().occupied_iou)


def test_the_ending_chooses_openvino_and_its_precision_is_of_the_other_layers():
    assert chosen_backend("a.openvino", "auto") == chosen_backend("a.openvino", "openvino") == "openvino"
    with pytest.raises(
        ValueError, match="a.openvino: backend torch does not run .openvino files; it is run by openvino"
    ):
        chosen_backend("a.openvino", "torch")
    assert openvino_precision("auto", "cpu", quantised=True) == "float32"
    assert openvino_precision("bfloat16", "cpu", quantised=True) == "bfloat16"


@needs_nncf
def test_openvino_and_nncf_report_their_use_to_nobody():
    code = (
        "import sys; from renderocc_model.inference.openvino_quantising import import_nncf; import_nncf();"
        "import openvino.tools.ovc.convert_impl as convert; print(convert.tm.__name__);"
        "sys.exit(any(name.startswith('openvino_telemetry') and module for name, module in sys.modules.items()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[-1] == "openvino.tools.ovc.telemetry_stub", done.stderr
