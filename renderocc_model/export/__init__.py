"""`renderocc export`: a checkpoint's network as an ONNX file or a torch.export archive, ready for other runtimes.

With `--int8` it is a file for OpenVINO, which `training.evaluate.int8` makes: that needs recordings and metrics.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from renderocc_model.base.files import replacing
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.export.archive import check_torch_version
from renderocc_model.export.file import ENDINGS
from renderocc_model.export.graph import ExportedFunction, FrameArguments, input_names, output_names
from renderocc_model.network.checkpoint import METADATA_KEY, Checkpoint, checkpoint_metadata, load_checkpoint
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.lift import Frustums
from renderocc_model.network.untrained import surround_cameras
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options

__all__ = ["export_checkpoint", "main"]

_TRACED_CAMERAS = 6  # any number from two on gives the same graph
_INT8 = "training.evaluate.int8"  # imported only when it is asked for
_CALIBRATION_FRAMES = 64


def export_checkpoint(checkpoint: Checkpoint, path: str | Path, form: str, source: str = "") -> None:
    """Write the network of a checkpoint with all that is needed to use it; a file of that name is replaced in one step.

    The metadata entry `renderocc` is the checkpoint's, with where it came from under provenance.export. The numbers of
    cameras, rows and crowded cells (`PoolingTables`) are free; grid, view size and classes are the model's.

    Args:
        checkpoint: on the CPU.
        path: of the file; its name ends in .onnx or .pt2, according to `form`.
        form: "onnx" or "torch_export".
        source: name of the checkpoint, for the provenance.
    Raises:
        ValueError: the form is not known, the file's name does not end as it should, or torch is too old for .pt2
            files.
        ImportError: a package for writing ONNX is missing.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if form not in ENDINGS:
        raise ValueError(f"format is {form!r}; choose one of {', '.join(ENDINGS)}")
    if path.suffix != ENDINGS[form]:
        raise ValueError(f"{path}: format {form} has the ending {ENDINGS[form]}; name it {path.stem}{ENDINGS[form]}")
    if form == "onnx":
        import onnxscript  # noqa: F401  tried before tracing, which takes minutes; the error names it
    else:
        check_torch_version(torch.__version__)
    function = ExportedFunction(checkpoint.network.eval().requires_grad_(False)).eval()
    metadata = _metadata(checkpoint, form, source)
    with torch.no_grad():
        program = torch.export.export(function, _example(checkpoint), dynamic_shapes=_free_sizes(checkpoint.config))
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both writers warn of parts of PyTorch that are not used here
        if form == "onnx":
            _write_onnx(program, checkpoint.config, metadata, partial)
        else:
            with partial.open("wb") as file:
                torch.export.save(program, file, extra_files={METADATA_KEY: metadata})


def _example(checkpoint: Checkpoint) -> tuple[torch.Tensor, ...]:
    """Arguments of `ExportedFunction.forward`, for tracing."""
    config = checkpoint.config
    height, width = config.images.height, config.images.width
    views, poses = surround_cameras(_TRACED_CAMERAS, height, width)
    geometry = Frustums(config, views).place(poses)
    pictures = torch.zeros(_TRACED_CAMERAS, height, width, 3, dtype=torch.uint8)
    return tuple(FrameArguments(config)(pictures, geometry).values())


def _free_sizes(config: ModelConfig) -> tuple:
    """The axes of each input whose sizes are free; None where none is."""
    free = torch.export.Dim.DYNAMIC
    first = dict.fromkeys(
        ("views", "cameras", "depth_index", "pixel_index", "earlier_keys", "earlier_pixels"), {0: free}
    )
    axes = {**first, "crowded": {0: free, 1: free}}
    return tuple(axes.get(name) for name in input_names(config))


def _metadata(checkpoint: Checkpoint, form: str, source: str) -> str:
    content = checkpoint_metadata(
        checkpoint.network, checkpoint.classes, checkpoint.threshold, checkpoint.rig_summary, checkpoint.provenance
    )
    exported = {
        "format": form,
        "checkpoint": source,
        "torch": torch.__version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    content["provenance"] = {**content["provenance"], "export": exported}
    return json.dumps(content, allow_nan=False)


def _write_onnx(program: torch.export.ExportedProgram, config: ModelConfig, metadata: str, path: Path) -> None:
    # The exporter logs its steps, graphs without shapes, and packages that it could also use.
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(input_names(config)),
            output_names=list(output_names(config)),
            verbose=False,
        )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    onnx_program.model.metadata_props[METADATA_KEY] = metadata
    onnx_program.save(str(path), external_data=False)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a network for other runtimes: ONNX for onnxruntime and TensorRT, a torch.export archive,\n"
        "or with --int8 a file for OpenVINO with INT8 layers, calibrated on a recording. Cameras, their\n"
        "number and their mounts stay free. Takes a minute or two.",
        epilog="examples: renderocc export --checkpoint tiny --format onnx --out tiny.onnx\n"
        "          renderocc export --checkpoint tiny --int8 --calibrate drives/monday --out tiny.openvino",
    )
    made.add_argument("--checkpoint", required=True, help="a .safetensors file, or `tiny`, the one in the package")
    made.add_argument("--format", choices=tuple(ENDINGS), dest="form", help="of the file, without --int8")
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="ends in .onnx, .pt2 (torch_export), .openvino (INT8)",
    )
    int8 = made.add_argument_group("INT8 layers for OpenVINO")
    int8.add_argument("--int8", action="store_true", help="write them, and print what the network loses by them")
    int8.add_argument("--calibrate", type=Path, metavar="BAG", help="recording whose frames choose the layers' ranges")
    int8.add_argument(
        "--compare",
        type=Path,
        metavar="BAG",
        help="recording on which INT8 is compared with float32 (default: the same)",
    )
    int8.add_argument(
        "--frames",
        type=int,
        default=_CALIBRATION_FRAMES,
        metavar="N",
        help=f"use at most N frames of each, spread evenly (default {_CALIBRATION_FRAMES})",
    )
    add_pose_gap_option(int8)
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc export`: exit status 0, or 2 where something is missing or wrong."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.int8:
            return importlib.import_module(_INT8).export_int8(arguments)
        _check_without_int8(arguments)
        checkpoint = load_checkpoint(arguments.checkpoint)
        export_checkpoint(checkpoint, arguments.out, arguments.form, Path(arguments.checkpoint).name)
    except (ValueError, OSError) as error:
        print(f"renderocc export: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2
    size = arguments.out.stat().st_size / 2**20
    names = input_names(checkpoint.config), output_names(checkpoint.config)
    print(f"inputs {', '.join(names[0])}; outputs {', '.join(names[1])}; {size:.1f} MiB")
    print(f"wrote {arguments.out.resolve()}")
    return 0


def _check_without_int8(arguments: argparse.Namespace) -> None:
    if arguments.form is None:
        raise ValueError(f"--format is missing; choose one of {', '.join(ENDINGS)}, or give --int8")
    for name in ("calibrate", "compare"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is for --int8; leave it out, or give --int8")
