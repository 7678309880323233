"""Camera bytes to views: the kernel's cases (`resample_triton_cases`) in a process of their own, that it can be
compiled for GPUs that are not here, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.preprocessing import normalise, view_from_raw, view_from_rgb
from renderocc_model.ops.resample import PLANAR, PixelLayout, resample

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent
K = np.array([[192.0, 0.0, 159.5], [0.0, 192.0, 99.5], [0.0, 0.0, 1.0]])
MODEL = CameraModel(320, 200, K, "plumb_bob", (-0.1, 0.01, 0.0, 0.0, 0.0))
TABLE = UndistortTable(MODEL, network_view(MODEL, 32, 96))
PICTURE = np.random.default_rng(3).integers(0, 256, (200, 320, 3), np.uint8)
LAYOUT = PixelLayout(200, 320, "rgb8", 960)


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=TEST.parent, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_the_kernel_makes_the_views_of_the_cpu():
    """Interpreted where there is no GPU; `TRITON_INTERPRET=1 pytest test/resample_triton_cases.py` shows each case."""
    interpret = "0" if torch.cuda.is_available() else "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TEST / "resample_triton_cases.py")]
    assert " passed" in run(command, TRITON_INTERPRET=interpret)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from renderocc_model.ops.resample import triton_loops as loops

def build(layout, factor, capability, out="*u8", **numbers):
    kernel = loops.resample
    constants = dict(LAYOUT=getattr(loops, layout), FACTOR=factor, ACROSS=1, FIRST=0, SECOND=0, NORMALISED=out != "*u8",
                     SCALE=(1.0, 2.0, 3.0), OFFSET=(0.0, 0.1, 0.2), FILL=(1, 2, 3), BLOCK=128, **numbers)
    pointers = {"data": "*u8", "places": "*i16", "fractions": "*i16", "out": out}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
    print(layout, factor, len(compiled.asm["cubin"]))

build("COLOURS", 4, 90, out="*fp16")
build("MONO16", 2, 80)
build("NV12", 2, 90, out="*fp32")
build("PACKED", 4, 80)
build("MOSAIC", 8, 90, out="*bf16")
"""


def test_the_kernel_can_be_compiled_for_gpus_that_are_not_here():
    pytest.importorskip("triton")
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    assert len(lines) == 5 and all(int(line.split()[-1]) > 1000 for line in lines)


# ---- the reference --------------------------------------------------------------------------------------------------


def test_the_reference_is_the_path_of_cpus():
    data = torch.from_numpy(PICTURE.reshape(-1))
    expected = torch.from_numpy(view_from_rgb(TABLE, PICTURE))
    assert torch.equal(resample(data, LAYOUT, TABLE), expected)
    normalised = resample(data, LAYOUT, TABLE, torch.float16)
    assert torch.equal(normalised, normalise(expected).half()) and normalised.stride() == (1, 288, 3)
    planar = torch.from_numpy(PICTURE.transpose(2, 0, 1).copy().reshape(-1))
    assert torch.equal(resample(planar, PixelLayout(200, 320, PLANAR, 320), TABLE), expected)


def test_the_reference_takes_the_rows_of_the_view_alone():
    rows = TABLE.region[0]
    assert 0 < rows.start and rows.stop < 200
    nv12 = np.random.default_rng(0).integers(0, 256, (300, 320), np.uint8)
    part = np.concatenate([nv12[rows], nv12[200 + rows.start // 2 : 200 + rows.stop // 2]])
    layout = PixelLayout(200, 320, "nv12", 320, rows=(rows.start, rows.stop))
    view = resample(torch.from_numpy(part.reshape(-1)), layout, TABLE)
    assert np.array_equal(view.numpy(), view_from_raw(TABLE, nv12.reshape(-1), 200, 320, 320, "nv12"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "cuda"}, "backend is 'cuda'; expected one of 'auto', 'reference', 'triton'"),
        ({"backend": "triton"}, "backend 'triton' works on CUDA devices, and the data are on cpu"),
        ({"layout": PixelLayout(200, 320, "rgb16", 960)}, "encoding is 'rgb16'; expected one of rgb8"),
        ({"layout": PixelLayout(100, 320, "rgb8", 960)}, "picture is 320x100; the table is for 320x200"),
        ({"layout": PixelLayout(200, 320, "rgb8", 970)}, "expected 194000 bytes in a row"),
        (
            {
                "layout": PixelLayout(200, 320, "rgb8", 960, rows=(100, 200)),
                "data": torch.zeros(96000, dtype=torch.uint8),
            },
            "rows 100..200 are there; expected",
        ),
        ({"dtype": torch.int32}, "dtype is torch.int32; expected uint8"),
        ({"out": torch.zeros(32, 95, 3, dtype=torch.uint8)}, r"out is torch.uint8 of shape \(32, 95, 3\)"),
        ({"data": torch.zeros(200, 960, dtype=torch.uint8)}, r"of shape \(200, 960\); expected 192000 bytes"),
    ],
)
def test_what_does_not_fit_together_is_refused(monkeypatch, change, message):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    arguments = {"data": torch.from_numpy(PICTURE.reshape(-1)), "layout": LAYOUT, "table": TABLE, **change}
    with pytest.raises(ValueError, match=message):
        resample(**arguments)
