"""`renderocc eval`: evaluate a checkpoint on recordings that it was not trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from renderocc_model.base.config import apply_overrides
from renderocc_model.base.files import replacing
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.export.file import is_exported
from renderocc_model.field.threshold import plain_threshold
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.inference.map_config import MapConfig
from renderocc_model.inference.precision import chosen_device, chosen_precision
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from renderocc_model.network.checkpoint_reading import stored_in_half
from renderocc_model.network.packaged import checkpoint_file

from ..data.dataset import RayDataset
from .baselines import flat_ground, most_frequent
from .evaluate import EvaluationPlan, evaluate, held_out_dataset
from .held_out import RAYS_OF_A_FRAME, evenly
from .map_evaluation import evaluate_map
from .metrics import write_json
from .rayiou import DEFAULT_ORIGIN
from .threshold import ThresholdCalibration, calibrate_threshold

__all__ = ["main", "parser", "run"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc eval",
        description="Evaluate a checkpoint on prepared recordings that it was not trained on. Rendered distances and "
        "classes are compared with 2D labels. If there is 3D truth, mIoU and RayIoU are computed too, also of "
        "baselines.",
        epilog="example: renderocc eval --checkpoint run/best.safetensors --data tables --recordings town7 --out out",
    )
    made.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="a .safetensors file, 'tiny' for the packaged network, or a file that `renderocc export` wrote",
    )
    made.add_argument("--data", type=Path, required=True, metavar="PREPARED", help="folder of `renderocc prepare`")
    made.add_argument("--recordings", nargs="+", metavar="NAME", help="recordings of that folder (default: all)")
    made.add_argument("--limit", type=int, metavar="N", help="evaluate N frames, spread evenly (default: all)")
    made.add_argument(
        "--rays",
        type=int,
        default=RAYS_OF_A_FRAME,
        metavar="N",
        help=f"use at most N labelled rays of a frame (default {RAYS_OF_A_FRAME}; 0: all)",
    )
    made.add_argument("--auxiliary", action="store_true", help="use the rays of neighbouring frames, too")
    made.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="occupancy probability above which a voxel is occupied (default: the checkpoint's)",
    )
    made.add_argument(
        "--calibrate",
        type=Path,
        metavar="NEW",
        help="find the threshold with the 2D labels of these recordings, write a checkpoint with it to NEW, and "
        "evaluate that; report figures only on other recordings",
    )
    made.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate a flat ground and, with --training-data, the most frequent class of each voxel",
    )
    made.add_argument(
        "--training-data", type=Path, metavar="PREPARED", help="tables with 3D truth, for the most frequent classes"
    )
    made.add_argument(
        "--training-recordings", nargs="+", metavar="NAME", help="recordings of that folder (default: all)"
    )
    made.add_argument(
        "--ground-height", type=float, default=0.0, metavar="M", help="height of the flat ground in metres (default 0)"
    )
    made.add_argument(
        "--lidar",
        type=float,
        nargs=3,
        default=DEFAULT_ORIGIN,
        metavar=("X", "Y", "Z"),
        help="position of the LiDAR in base_link: the origin of RayIoU's rays (default 0 0 1.84)",
    )
    made.add_argument(
        "--truth-grid",
        type=float,
        nargs=7,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1", "VOXEL"),
        help="corners and voxel size of the 3D truth's grid (default: found from its shape)",
    )
    made.add_argument(
        "--map",
        nargs="*",
        metavar="SETTING=VALUE",
        help="also evaluate the map that remembers, beside single frames as the node publishes them; for recordings "
        "with 3D truth and some ten frames a second. Settings are the node's parameters map.*, e.g. gain=1.0",
    )
    made.add_argument(
        "--map-stride", type=int, default=5, metavar="N", help="with --map, compare every N-th frame (default 5)"
    )
    made.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file")
    made.add_argument("--out", type=Path, metavar="DIR", help="write evaluation.json, evaluation.md, confusion.png")
    made.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="write predictions/, truth/ and origins.json for `renderocc metrics` to this folder",
    )
    made.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    made.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="precision of the network (default: auto, as in the node)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc eval`. Exit status 0, or 2 if something is missing or wrong."""
    arguments = parser().parse_args(argv)
    try:
        result = run(arguments)
        written = _write(arguments, result)
    except (ValueError, OSError) as error:
        place = arguments.out or arguments.predictions or arguments.json or ""
        print(f"renderocc eval: {machine_error(error, place) or error}", file=sys.stderr)
        return 2
    from .report import evaluation_text

    print(evaluation_text(result))
    for path in written:
        print(f"wrote {path.resolve()}")
    return 0


def run(arguments: argparse.Namespace) -> dict:
    """Evaluate with the options of the command. Returns the content of evaluation.json."""
    _check(arguments)
    exported = is_exported(arguments.checkpoint)
    checkpoint, device, precision = _exported(arguments) if exported else _checkpoint(arguments)
    dataset = held_out_dataset(arguments.data, checkpoint, arguments.recordings)
    plan = EvaluationPlan(
        arguments.limit,
        arguments.rays or None,
        arguments.auxiliary,
        _grid(arguments.truth_grid),
        tuple(arguments.lidar),
        precision,
        arguments.predictions,
    )
    baselines = _baselines(arguments, checkpoint, plan)
    calibration = None
    if arguments.calibrate is not None:
        assert isinstance(checkpoint, Checkpoint)  # see _check
        calibration = calibrate_threshold(
            checkpoint.network, checkpoint.config, dataset, plan.frames, device, plan.rays, precision, "calibrating"
        )
        checkpoint = replace(checkpoint, threshold=calibration.best)
    result = {
        "checkpoint": str(arguments.checkpoint),
        "data": str(arguments.data),
        "recordings": list(dataset.recordings),
        "frames": len(evenly(len(dataset), plan.frames)),
        "threshold": plain_threshold(checkpoint.threshold),
        "grid": checkpoint.grid.to_dict(),
        "precision": plan.precision,
        "classes": list(checkpoint.classes.names),
        "calibration": None if calibration is None else calibration.as_dict(),
        **evaluate(checkpoint, dataset, plan, device, baselines),
    }
    if arguments.map is not None:
        predictor = (
            checkpoint
            if isinstance(checkpoint, Predictor)
            else Predictor(checkpoint, device=device, precision=precision)
        )
        config = apply_overrides(MapConfig(), arguments.map, "--map")
        result["map"] = evaluate_map(
            predictor, dataset, config, arguments.map_stride, plan.truth_grid, tuple(arguments.lidar)
        )
    if calibration is not None:
        assert isinstance(checkpoint, Checkpoint)
        _save_calibrated(arguments, checkpoint, calibration, dataset)
    return result


def _checkpoint(arguments: argparse.Namespace) -> tuple[Checkpoint | Predictor, torch.device, str]:
    """The checkpoint, and device and precision: the node's choices with backend torch."""
    device = chosen_device(arguments.device)
    precision = chosen_precision(arguments.precision, device)
    checkpoint = load_checkpoint(arguments.checkpoint, device)
    if arguments.threshold is not None:
        checkpoint = replace(checkpoint, threshold=arguments.threshold)
    return checkpoint, device, precision


def _exported(arguments: argparse.Namespace) -> tuple[Checkpoint | Predictor, torch.device, str]:
    """The same for an exported network: the node's choices with backend auto."""
    predictor = Predictor(arguments.checkpoint, device=arguments.device, precision=arguments.precision)
    if arguments.threshold is not None:
        predictor.threshold = arguments.threshold
    return predictor, predictor.device, predictor.precision


def _check(arguments: argparse.Namespace) -> None:
    for name in ("limit", "rays"):
        value = getattr(arguments, name)
        if value is not None and value < 0:
            raise ValueError(f"--{name} is {value}; expected at least 0")
    if arguments.calibrate is not None and arguments.threshold is not None:
        raise ValueError("--threshold and --calibrate exclude each other; leave one out")
    if arguments.calibrate is not None and is_exported(arguments.checkpoint):
        raise ValueError("--calibrate needs the checkpoint itself (.safetensors); export it again afterwards")
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise ValueError(f"--threshold is {arguments.threshold}; expected an occupancy probability between 0 and 1")
    if arguments.training_data is not None and not arguments.baselines:
        raise ValueError("--training-data is for a baseline; also give --baselines")
    if arguments.map_stride < 1:
        raise ValueError(f"--map-stride is {arguments.map_stride}; expected at least 1")
    if arguments.map is not None:
        apply_overrides(MapConfig(), arguments.map, "--map")
    if not checkpoint_file(arguments.checkpoint).is_file():
        raise ValueError(f"{arguments.checkpoint}: there is no such file; give a checkpoint (.safetensors)")


def _grid(numbers: Sequence[float] | None) -> VoxelGrid | None:
    if numbers is None:
        return None
    x0, y0, z0, x1, y1, z1, voxel_size = numbers
    return VoxelGrid((x0, y0, z0), (x1, y1, z1), voxel_size)


def _baselines(
    arguments: argparse.Namespace, checkpoint: Checkpoint | Predictor, plan: EvaluationPlan
) -> dict[str, np.ndarray]:
    if not arguments.baselines:
        return {}
    volumes = {"flat_ground": flat_ground(checkpoint.grid, checkpoint.classes, arguments.ground_height)}
    if arguments.training_data is not None:
        training = held_out_dataset(arguments.training_data, checkpoint, arguments.training_recordings)
        volumes["most_frequent"] = most_frequent(training, checkpoint.grid, plan.truth_grid)
    return volumes


def _save_calibrated(
    arguments: argparse.Namespace, checkpoint: Checkpoint, calibration: ThresholdCalibration, dataset: RayDataset
) -> None:
    """Write the checkpoint with its new threshold. Weights keep the precision in which they were stored."""
    provenance = {**checkpoint.provenance, "calibration": calibration.provenance(dataset.recordings)}
    save_checkpoint(
        arguments.calibrate,
        checkpoint.network,
        checkpoint.classes,
        checkpoint.threshold,
        checkpoint.rig_summary,
        provenance,
        stored_in_half(checkpoint_file(arguments.checkpoint)),
    )


def _write(arguments: argparse.Namespace, result: dict) -> list[Path]:
    from .report import confusion_picture, evaluation_markdown

    written = [path for path in (arguments.calibrate, arguments.predictions) if path is not None]
    if arguments.json is not None:
        write_json(arguments.json, result)
        written.append(arguments.json)
    if arguments.out is not None:
        import cv2

        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "evaluation.json", result)
        with replacing(arguments.out / "evaluation.md") as partial:
            partial.write_text(evaluation_markdown(result), encoding="utf-8")
        picture = confusion_picture(np.array(result["confusion"]), result["classes"])
        with replacing(arguments.out / "confusion.png") as partial:
            partial.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        written.append(arguments.out)
    return written
