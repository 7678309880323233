"""The compiled loops that find visible voxels, for CPUs and GPUs, against the PyTorch reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.undistortion import View
from renderocc_model.network.untrained import surround_cameras
from renderocc_model.ops import visibility as loops
from renderocc_model.ops.visibility.cameras import Lookout, visible_voxels

TEST = Path(__file__).resolve().parent
CASES = ("some of everything", "empty", "one voxel", "masked", "unlike cameras", "level axes", "looking away")


def case(name: str, device: str = "cpu"):
    """density (X, Y, Z), a lookout for the device, poses (N, 4, 4), and what the reference says (X, Y, Z)."""
    generator = np.random.default_rng(CASES.index(name))
    grid = VoxelGrid((-6.0, -5.0, -1.0), (6.0, 5.0, 3.0), 0.5)  # 24 x 20 x 8
    views, poses = surround_cameras(4, 24, 40)
    masks: list[np.ndarray | None] = [None] * 4
    density = np.where(generator.uniform(size=grid.shape) < 0.02, 8.0, 0.01).astype(np.float32)
    if name == "empty":
        density[:] = 0
    elif name == "one voxel":
        grid, density = VoxelGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0), np.full((1, 1, 1), 0.1, np.float32)
    elif name == "masked":
        masks[1], masks[2] = generator.uniform(size=(2, 24, 40)) < 0.5
    elif name == "unlike cameras":
        wide = View(64, 30, np.array([[20.0, 0, 31.5], [0, 21.0, 12.0], [0, 0, 1]]))
        views = [views[0], wide, views[2], wide]
        poses[1, :3, 3] = 5.9, 4.9, 2.9
        poses[2, 2, 3] = 7.0  # above the grid
    elif name == "level axes":
        # The middle ray runs along x, on the border of two voxels.
        views = [View(41, 25, np.array([[30.0, 0, 20.0], [0, 30.0, 12.0], [0, 0, 1]]))] * 4
        poses[:, :3, 3] = 0
    elif name == "looking away":
        poses[:, :3, 3] *= 100
    lookout = Lookout(grid, views, masks, torch.device(device), 0.4)
    field = SemanticDensityField(grid, torch.from_numpy(density), torch.zeros(*grid.shape, 1))
    return field.density, lookout, poses, visible_voxels(field, views, poses, None, masks, 0.4)


def disagreement(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found != expected).float().mean())


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_loops_on_the_cpu_see_what_the_reference_sees(name, one_thread):
    density, lookout, poses, expected = case(name)
    assert (name in ("looking away", "one voxel")) or 0.02 < expected.float().mean() < 0.98
    assert disagreement(lookout.seen(density, lookout.sight(poses)), expected) < 0.001


def test_several_threads_see_the_same(monkeypatch, one_thread):
    density, lookout, poses, _ = case("masked")
    alone = lookout.seen(density, lookout.sight(poses))
    torch.set_num_threads(3)
    monkeypatch.setattr(loops, "WORTH_A_THREAD", 10)
    assert torch.equal(lookout.seen(density, lookout.sight(poses)), alone)


def test_densities_that_are_not_numbers_end_nothing_and_crash_nothing(one_thread):
    density, lookout, poses, _ = case("empty")
    free = lookout.seen(density, lookout.sight(poses))
    assert torch.equal(lookout.seen(torch.full_like(density, torch.nan), lookout.sight(poses)), free)


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, cwd=TEST.parent, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_kernels_for_gpus_see_what_the_reference_sees():
    """Interpreted where there is no GPU."""
    interpret = "0" if torch.cuda.is_available() else "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TEST / "visibility_triton_cases.py")]
    assert " passed" in run(command, TRITON_INTERPRET=interpret)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from renderocc_model.ops.visibility import triton_loops as loops

def build(kernel, **constants):
    kinds = {"owner": "*i32", "masks": "*u8", "visible": "*i8", "rays": "i32", "count": "i32"}
    kinds.update(dict.fromkeys(("limit", "step", "bias", "nearest"), "fp32"))
    signature = {name: "constexpr" if name in constants else kinds.get(name, "*fp32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    print(kernel.__name__, len(made.asm["cubin"]))

cut = dict(X=200, Y=200, Z=16, NUMBERS=28)
build(loops.march, RAYS=8, SAMPLES=16, **cut)
build(loops.look, CAMERAS=6, ROWS=256, COLUMNS=704, MASKED=True, BLOCK=256, **cut)
"""


def test_kernels_compile_for_gpus_that_are_not_here():
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    assert [line.split()[0] for line in lines] == ["march", "look"]
