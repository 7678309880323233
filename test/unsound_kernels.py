"""Runs `gpu_cases`, or a predictor, with Triton kernels that are unsound, in a process of its own.

    python unsound_kernels.py FAULT:PART... -- DEVICE PARENT PART...
    python unsound_kernels.py FAULT:PART... --predictor

FAULT: lies, raises, dies, hangs; or skips, which checks nothing (for what needs a GPU).
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time

import numpy as np
import torch

from renderocc_model.inference import gpu_cases

FUNCTIONS = {
    "voxel_pooling": "pool",
    "visibility": "cast",
    "render": "render",
    "termination": "termination",
    "resample": "resample",
}


def unsound(fault: str, part: str) -> None:
    """Put a kernel with a fault in the place of a part's kernel."""
    if fault == "skips":
        gpu_cases.CASES[part] = lambda device: None
        return
    module = importlib.import_module(f"renderocc_model.ops.{part}.triton_kernel")
    sound = getattr(module, FUNCTIONS[part])

    def kernel(*arguments, **options):
        if fault == "raises":
            raise RuntimeError("no kernel image is available")
        if fault == "dies":
            os.kill(os.getpid(), 11)
        if fault == "hangs":
            time.sleep(3600)
        return lie(part, sound(*arguments, **options), arguments)

    setattr(module, FUNCTIONS[part], kernel)


def lie(part: str, made, arguments):
    """The result, a little wrong."""
    if part == "voxel_pooling":
        return made * 1.01
    if part == "visibility":
        return made.roll(1, 0)
    if part == "render":
        return dataclasses.replace(made, semantics=made.semantics.flip(1))
    if part == "termination":
        return made._replace(window=made.window * 1.01)
    view = arguments[3]
    view += 1
    return made


def predict_with_and_without() -> None:
    """Print whether a predictor whose operators have Triton alone is right before and after the check."""
    from small_models import small_config

    from renderocc_model.geometry.undistortion import UndistortTable
    from renderocc_model.inference.gpu_check import leave_out_unsound
    from renderocc_model.inference.predictor import CameraModel, Predictor
    from renderocc_model.network.untrained import surround_cameras
    from renderocc_model.ops import visibility, voxel_pooling
    from renderocc_model.ops.left_out import left_out

    def predicted() -> np.ndarray:
        predictor = Predictor.untrained(small_config(), device="cpu", precision="float32", backend="torch")
        height, width = predictor.view_size
        views, poses = surround_cameras(2, height, width)
        tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
        pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        return predictor.predict(pictures, tables, poses).semantics

    expected = predicted()  # by the loops for CPUs
    for operator in (visibility, voxel_pooling):
        operator.device_obstacle = lambda backend, *about: "is not for a GPU" if backend == "cpu" else None
    before = bool((predicted() == expected).all())
    command = (sys.executable, *sys.argv[: sys.argv.index("--predictor")], "--")
    parts = ("visibility", "voxel_pooling")
    leave_out_unsound(torch.device("cpu"), parts, anew=True, command=command)
    after = float((predicted() == expected).mean()) > 0.999  # sums in another order
    print(json.dumps({"before": before, "after": after, "left_out": list(left_out())}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    end = next(number for number, word in enumerate(sys.argv) if word.startswith("--"))
    for word in sys.argv[1:end]:
        unsound(*word.split(":"))
    if sys.argv[end] == "--predictor":
        predict_with_and_without()
    else:
        sys.exit(gpu_cases.main(sys.argv[end + 1 :]))
