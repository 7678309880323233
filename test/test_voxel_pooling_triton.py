"""Voxel pooling in Triton: its cases (`voxel_pooling_triton_cases`) in a process of their own, that it can be compiled
for GPUs that are not here, and when it is chosen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_render_triton import run
from test_voxel_pooling import points

from renderocc_model.ops.voxel_pooling import choose, make_plan, pool

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent


def test_kernels_agree_with_the_reference_in_results_and_gradients():
    """Interpreted without a GPU; `TRITON_INTERPRET=1 pytest test/voxel_pooling_triton_cases.py` shows each case."""
    interpret = "0" if torch.cuda.is_available() else "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TEST / "voxel_pooling_triton_cases.py")]
    assert " passed" in run(command, TRITON_INTERPRET=interpret)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from renderocc_model.ops.voxel_pooling import triton_loops as loops

def build(kernel, capability, half, **constants):
    integers = {"point", "pixel", "start", "before", "cell_of_piece", "cell"}
    halves = {"context", "upstream", "pooled", "into_context"} if half else set()
    kinds = {**dict.fromkeys(integers, "*i32"), **dict.fromkeys(halves, half), "stride": "i32", "cells": "i32"}
    signature = {name: "constexpr" if name in constants else kinds.get(name, "*fp32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    built = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
    print(kernel.__name__, len(built.asm["cubin"]))

cut = dict(CHANNELS=80, PIECE=128, CELLS=4, POINTS=8, BLOCK=16)
build(loops.pool_pieces, 90, "*bf16", WIDE=False, PIECES=77, **cut)
build(loops.pool_cells, 90, "*bf16", WIDE=False, **cut)
build(loops.pool_cells, 80, None, WIDE=True, **{**cut, "BLOCK": 64})
back = dict(CHANNELS=80, NUMBER=118, AREA=4000, BINS=16, BLOCK=128)
build(loops.push_back, 90, "*bf16", WIDE=False, **back)
build(loops.push_back, 80, "*fp16", WIDE=True, **back)
"""


def test_kernels_compile_for_gpus_that_are_not_here():
    """For an H100 (9.0) and an A100 (8.0): the interpreter takes much that the compiler does not."""
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    expected = ["pool_pieces", "pool_cells", "pool_cells", "push_back", "push_back"]
    assert [line.split()[0] for line in lines] == expected
    assert all(int(line.split()[1]) > 1000 for line in lines)


def test_auto_takes_triton_for_numbers_on_cuda_devices_of_at_most_32_bits():
    def chosen(device, depth, context, backend="auto"):
        of = SimpleNamespace
        return choose(of(dtype=depth), of(dtype=context, device=torch.device(device)), backend)

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert chosen("cuda", torch.float32, dtype) == "triton"
        assert chosen("cpu", torch.float32, dtype) == "cpu"
    assert chosen("cuda", torch.float64, torch.float32) == "reference"
    assert chosen("cuda", torch.float32, torch.float32, "reference") == "reference"
    with pytest.raises(ValueError, match="'triton' sums in float32, and depth or context is float64; use backend='ref"):
        chosen("cuda", torch.float32, torch.float64, "triton")


def test_triton_is_refused_for_what_is_on_the_cpu():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    with pytest.raises(ValueError, match="'triton' works on CUDA devices, and the context is on cpu; use"):
        pool(depth, context, make_plan(index, 11), backend="triton")


def test_loading_the_operator_loads_no_compiler_and_without_one_a_line_says_what_to_install():
    code = """
import sys
from renderocc_model.ops.voxel_pooling import cpu_kernel, triton_kernel
print("numba" in sys.modules, "triton" in sys.modules)
sys.modules["numba"] = sys.modules["triton"] = None
for kernel in (cpu_kernel, triton_kernel):
    try:
        kernel._loops()
    except ImportError as error:
        print(error)
"""
    lines = run([sys.executable, "-c", code], TRITON_INTERPRET="0").splitlines()
    assert lines[0] == "False False" and len(lines) == 3
    assert lines[1].startswith("voxel pooling on the CPU needs Numba: python3 -m pip install numba (backend='reference")
    assert lines[2].startswith("voxel pooling on a GPU needs Triton: python3 -m pip install 'triton>=3.2' (backend='r")
