"""Ray termination in Triton: its cases (`termination_triton_cases`) in a process of their own, that it can be compiled
for GPUs that are not here, and when it is chosen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_render import UNIT_GRID, random_field, random_rays
from test_render_triton import run

from renderocc_model.ops.termination import choose, return_windows, termination

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent


def test_kernels_agree_with_the_reference_in_depths_gradients_and_windows():
    """Interpreted without a GPU; `TRITON_INTERPRET=1 pytest test/termination_triton_cases.py` shows each case."""
    interpret = "0" if torch.cuda.is_available() else "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TEST / "termination_triton_cases.py")]
    assert " passed" in run(command, TRITON_INTERPRET=interpret)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from renderocc_model.ops.termination import triton_loops as loops

def build(kernel, capability, fused=True, **constants):
    types = {"walk": "*i64", "first": "*i32", "last": "*i32", "density": "*bf16", "returned": "*u8", "marks": "*u8"}
    types |= {"delta": "fp32", "rays": "i32"} | ({"into": "*i64"} if constants.get("FIXED") else {})
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    options = {"num_warps": 1, "enable_fp_fusion": fused}
    print(kernel.__name__, len(compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]))

box = dict(LOWER=(0.0, 0.1, 0.2), SIZE=0.1, BLOCK=128)
upper, shape = dict(UPPER=(2.0, 3.1, 1.0)), dict(SHAPE=(20, 30, 8))
cut = dict(X=20, Y=30, Z=8, RAYS=1, SAMPLES=32)
build(loops.enter, 90, False, DELTA=0.05, MOVED=True, **box, **upper)
build(loops.march_forward, 90, WIDE=False, **cut)
build(loops.march_backward, 90, WIDE=False, FIXED=False, RUN=8, **cut)
build(loops.march_backward, 80, WIDE=True, FIXED=True, RUN=8, **cut)
build(loops.mark_returns, 90, False, **box, **shape)
build(loops.follow_back, 90, False, DELTA=0.05, MARGIN=0.1, FOLLOW=True, **box, **upper, **shape)
"""


def test_kernels_compile_for_gpus_that_are_not_here():
    """For an H100 (9.0) and an A100 (8.0): the interpreter takes much that the compiler does not."""
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    names = ["enter", "march_forward", "march_backward", "march_backward", "mark_returns", "follow_back"]
    assert [line.split()[0] for line in lines] == names
    assert all(int(line.split()[1]) > 1000 for line in lines)


def test_auto_takes_triton_for_tensors_on_cuda_devices_and_sums_of_at_most_32_bits():
    def data(device, dtype):
        return SimpleNamespace(device=torch.device(device), dtype=dtype)

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose(data("cuda", dtype), "auto") == "triton"
        assert choose(data("cpu", dtype), "auto") == "cpu"
    assert choose(data("cuda", torch.float64), "auto") == "reference"
    assert choose(data("cuda", torch.float64), "auto", float64=True) == "triton"
    with pytest.raises(ValueError, match="'triton' sums in float32, and the field is float64; use backend='refe"):
        choose(data("cuda", torch.float64), "triton")


def test_what_triton_cannot_do_is_refused_when_it_is_asked_for():
    field, rays, ones = random_field(UNIT_GRID, dtype=torch.float32), random_rays(4, UNIT_GRID), torch.ones(4)
    with pytest.raises(ValueError, match="'triton' works on CUDA devices, and this is on cpu; use"):
        termination(field, rays, ones, ones, backend="triton")
    with pytest.raises(ValueError, match="'triton' works on CUDA devices, and this is on cpu; use"):
        return_windows(UNIT_GRID, rays, ones, ones > 0, backend="triton")
