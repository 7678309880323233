"""The Triton renderer: its cases (`render_triton_cases`) in a process of their own, that it can be compiled for GPUs
that are not here, and when it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_render import UNIT_GRID, random_field, random_rays

from renderocc_model.ops.render import choose, render

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=TEST.parent, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_kernels_agree_with_the_reference_in_results_and_gradients():
    """Interpreted where there is no GPU; `TRITON_INTERPRET=1 pytest test/render_triton_cases.py` shows each case."""
    interpret = "0" if torch.cuda.is_available() else "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TEST / "render_triton_cases.py")]
    assert " passed" in run(command, TRITON_INTERPRET=interpret)


COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from renderocc_model.ops.render import triton_loops as loops

def build(kernel, capability, **constants):
    pointers = {"walk": "*i64", "counts": "*i32", "tiles": "*i32", "density": "*bf16", "table": "*bf16"}
    numbers = {"delta": "fp32", "rays": "i32"}
    signature = {name: "constexpr" if name in constants else pointers.get(name) or numbers.get(name, "*fp32")
                 for name in kernel.arg_names}
    if constants.get("FIXED"):
        signature.update(into_density="*i64", into_table="*i64")
    options = {"num_warps": 1, "enable_fp_fusion": kernel is not loops.enter}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    print(kernel.__name__, len(compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]))

cut = dict(X=20, Y=30, Z=8, CLASSES=5, LONGEST=9, WIDE=False, RAYS=1, SAMPLES=32, BLOCK=8)
flags = dict(OF_DENSITY=True, OF_TABLE=True, SEMANTIC=True, RUN=8)
build(loops.enter, 90, LOWER=(0.0, 0.1, 0.2), UPPER=(2.0, 3.1, 1.0), SIZE=0.1, DELTA=0.05, LIMIT=90, BLOCK=128)
build(loops.march_forward, 90, SAVE=True, DISTORTION=True, **cut)
build(loops.march_backward, 90, DISTORTION=True, FIXED=False, **flags, **cut)
build(loops.march_backward, 80, DISTORTION=False, FIXED=True, **flags, **{**cut, "WIDE": True})
"""


def test_kernels_compile_for_gpus_that_are_not_here():
    """For an H100 (9.0) and an A100 (8.0): the interpreter takes much that the compiler does not."""
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    assert [line.split()[0] for line in lines] == ["enter", "march_forward", "march_backward", "march_backward"]
    assert all(int(line.split()[1]) > 1000 for line in lines)


def test_auto_takes_triton_for_fields_on_cuda_devices_of_at_most_32_bits():
    def field(device, dtype):
        return SimpleNamespace(device=torch.device(device), dtype=dtype)

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose(field("cuda", dtype), False, "auto") == "triton"
        assert choose(field("cpu", dtype), False, "auto") == "cpu"
    assert choose(field("cuda", torch.float64), False, "auto") == "reference"
    assert choose(field("cuda", torch.float32), True, "auto") == "reference"
    assert choose(field("cuda", torch.float32), True, "reference") == "reference"


def test_what_triton_cannot_do_is_refused_when_it_is_asked_for():
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(4, UNIT_GRID, dtype=torch.float32)
    with pytest.raises(ValueError, match="'triton' works on CUDA devices, and the field is on cpu; use"):
        render(field, rays, backend="triton")
    cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float64)
    with pytest.raises(ValueError, match="'triton' renders in float32, and the field is float64; use backend='refe"):
        choose(cuda, False, "triton")
    cuda.dtype = torch.float32
    with pytest.raises(ValueError, match="'triton' keeps no weights of single samples; use backend='reference'"):
        choose(cuda, True, "triton")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ('sys.modules["triton"] = None', "needs Triton: python3 -m pip install 'triton>=3.2' (backend='reference'"),
        ("import triton.language; del triton.language.gather", "needs Triton 3.2 or newer, which comes with PyTorch"),
    ],
)
def test_loading_the_renderer_loads_no_triton_and_without_one_a_line_says_what_to_install(missing, said):
    code = f"""
import sys
from renderocc_model.ops.render import triton_kernel
print("triton" in sys.modules)
{missing}
try:
    triton_kernel._loops()
except ImportError as error:
    print(error)
"""
    lines = run([sys.executable, "-c", code], TRITON_INTERPRET="0").splitlines()
    assert lines[0] == "False" and len(lines) == 2 and said in lines[1]
