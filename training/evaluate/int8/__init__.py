"""`renderocc export --int8`: a network with INT8 layers, calibrated on one's own recording, and what it loses."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from renderocc_model.export.file import OPENVINO_ENDING
from renderocc_model.export.openvino_file import write_openvino_file
from renderocc_model.geometry.transforms import invert
from renderocc_model.inference.openvino_quantising import NetworkInputs, import_nncf, quantised
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint, load_checkpoint
from renderocc_model.network.checkpoint_reading import stored_in_half
from renderocc_model.network.lift import Frustums
from renderocc_model.network.packaged import checkpoint_file
from renderocc_model.rosio.vehicle_options import vehicle_from
from training.recordings.spread import evenly_spread

from .compare import Comparison, compared
from .frames import FrameReader, PredictorInputs

__all__ = ["export_int8"]


def export_int8(arguments: argparse.Namespace) -> int:
    """Calibrate, write and compare, with the options of the command. Returns the exit status 0.

    Raises:
        ValueError: something is missing or wrong.
        OSError: the file cannot be written.
    """
    from training.recordings.frames import Recording

    _check(arguments)
    import_nncf()  # first: a missing one is reported before the recording is read
    source = checkpoint_file(arguments.checkpoint)
    checkpoint = load_checkpoint(source)
    vehicle = vehicle_from(arguments)
    with ExitStack() as stack:
        recording = stack.enter_context(Recording(arguments.calibrate, None, vehicle, arguments.max_pose_gap))
        for text in recording.warnings():
            print(f"renderocc export: warning: {text}", file=sys.stderr)
        frames = evenly_spread(recording.frames(_anchor(recording)), arguments.frames)
        reader = _reader(recording, checkpoint)
        calibration = [_network_inputs(checkpoint, inputs) for inputs in reader.inputs(frames)]
        _report_left_out(reader, arguments.calibrate, len(calibration))
        print(f"calibrating on {len(calibration)} frames of {arguments.calibrate}")
        graphs = quantised(checkpoint.network, calibration)
        half = stored_in_half(source)
        made = _with_provenance(checkpoint, arguments, len(calibration), None)
        write_openvino_file(arguments.out, made, graphs, half)

        if arguments.compare is not None:
            recording = stack.enter_context(Recording(arguments.compare, None, vehicle, arguments.max_pose_gap))
        found = _comparison(source, arguments, recording, checkpoint)
    made = _with_provenance(checkpoint, arguments, len(calibration), found)
    write_openvino_file(arguments.out, made, graphs, half)
    print(found.text())
    if arguments.compare is None:
        print("these are the frames of the calibration's recording; --compare another one for figures to report")
    print(f"wrote {arguments.out.resolve()}, {arguments.out.stat().st_size / 2**20:.1f} MiB")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.calibrate is None:
        raise ValueError("--int8 needs --calibrate BAG, a recording of the cameras that the network will run on")
    if arguments.form is not None:
        raise ValueError("--int8 writes a file for OpenVINO; leave out --format")
    if arguments.out.suffix != OPENVINO_ENDING:
        raise ValueError(f"{arguments.out}: the file ends in {OPENVINO_ENDING}; name it {arguments.out.stem}.openvino")
    if arguments.frames < 1:
        raise ValueError(f"--frames is {arguments.frames}; expected at least 1")


def _anchor(recording) -> str:
    """The first camera that has images."""
    cameras = [camera for camera in recording.cameras if recording.stamps[camera]]
    if not cameras:
        raise ValueError(f"{recording.path}: no camera has images; record them")
    return cameras[0]


def _reader(recording, checkpoint: Checkpoint) -> FrameReader:
    images, fusion = checkpoint.config.images, checkpoint.config.fusion
    interval = fusion.interval if fusion.enabled else 0.0
    return FrameReader(recording, (images.height, images.width), checkpoint.grid, checkpoint.classes, interval)


def _network_inputs(checkpoint: Checkpoint, inputs: PredictorInputs) -> NetworkInputs:
    frustums = Frustums(checkpoint.config, [table.view for table in inputs.tables])
    geometry = frustums.place(inputs.base_from_camera)
    made = NetworkInputs(torch.from_numpy(inputs.views), geometry)
    if inputs.earlier is None or inputs.odom_from_base is None or inputs.earlier.odom_from_base is None:
        return made
    motion = torch.from_numpy(invert(inputs.odom_from_base) @ inputs.earlier.odom_from_base)
    return made._replace(earlier=_network_inputs(checkpoint, inputs.earlier), base_from_earlier=motion)


def _report_left_out(reader: FrameReader, bag: Path, used: int) -> None:
    if not used:
        first = reader.left_out[0] if reader.left_out else "it has no frames"
        raise ValueError(f"{bag}: not one frame can be used: {first}")
    if reader.left_out:
        print(
            f"renderocc export: warning: {bag}: {len(reader.left_out)} frames left out; the first: "
            f"{reader.left_out[0]}",
            file=sys.stderr,
        )


def _comparison(source: Path, arguments: argparse.Namespace, recording, checkpoint: Checkpoint) -> Comparison:
    """Of the written file with float32."""
    reader = _reader(recording, checkpoint)
    if reader.note:
        print(f"renderocc export: warning: {reader.note}", file=sys.stderr)
    anchor = None if reader.has_truth else _anchor(recording)
    frames = evenly_spread(recording.frames(anchor), arguments.frames)
    plain = Predictor(source, device="cpu", precision="float32", backend="openvino")
    int8 = Predictor(arguments.out, device="cpu")
    found = compared(plain, int8, reader.with_truth(frames))
    _report_left_out(reader, recording.path, found.frames)
    return found


def _with_provenance(
    checkpoint: Checkpoint, arguments: argparse.Namespace, frames: int, found: Comparison | None
) -> Checkpoint:
    import nncf
    import openvino

    exported = {
        "format": "openvino_int8",
        "checkpoint": Path(arguments.checkpoint).name,
        "openvino": openvino.__version__,
        "nncf": nncf.__version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "calibration": {"recording": arguments.calibrate.name, "frames": frames},
        "comparison": None
        if found is None
        else {"recording": (arguments.compare or arguments.calibrate).name} | found.as_dict(),
    }
    return replace(checkpoint, provenance={**checkpoint.provenance, "export": exported})
