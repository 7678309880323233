"""The implementations of `ops.visibility.cast`, for CPUs and GPUs, against the PyTorch reference."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.undistortion import View
from renderocc_model.network.untrained import surround_cameras
from renderocc_model.ops.visibility import CameraFrusta, ViewFrusta, cast, cpu_kernel, visible_voxels

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent
CASES = (
    "some of everything",
    "empty",
    "one voxel",
    "masked",
    "unlike cameras",
    "level axes",
    "looking away",
    "voxels at the lens",
    "layers",
)
NUDGES, SHIFT, TURN = 24, 2e-4, 2e-5  # voxels and radians; float32 rounds positions of 24 voxels to 2e-6


def layers_of(name: str) -> int:
    return 3 if name == "layers" else 1


def case(name: str) -> tuple[torch.Tensor, CameraFrusta]:
    """density (X, Y, Z * layers), and cameras."""
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
        masks[0], masks[3] = generator.uniform(size=(24, 40)) < 0.7, generator.uniform(size=(30, 64)) < 0.7
        poses[1, :3, 3] = 5.9, 4.9, 2.9
        poses[2, 2, 3] = 7.0  # above the grid
    elif name == "level axes":
        # The middle ray runs along x, on the border of two voxels.
        views = [View(41, 25, np.array([[30.0, 0, 20.0], [0, 30.0, 12.0], [0, 0, 1]]))] * 4
        poses[:, :3, 3] = 0
    elif name == "layers":
        density = np.where(generator.uniform(size=(24, 20, 24)) < 0.02, 8.0, 0.01).astype(np.float32)
    elif name == "looking away":
        poses[:, :3, 3] *= 100
    elif name == "voxels at the lens":
        # 0.01, 0.03, 0.04 and 0.06 voxels in front of a voxel's centre; 0.05 and more is in front of the camera.
        for camera, ahead in enumerate((0.01, 0.03, 0.04, 0.06)):
            poses[camera, :3, 3] = np.array([1.25, 0.75, 1.25]) - ahead * grid.voxel_size * poses[camera, :3, 2]
    return torch.from_numpy(density), ViewFrusta(grid, views, masks, torch.device("cpu"), 0.4).at(poses)


def on_a_border(density: torch.Tensor, frusta: CameraFrusta, layers: int) -> torch.Tensor:
    """(X, Y, Z) bool: the reference's answer changes when each camera moves and turns by what rounding could do.

    There, implementations that round differently may differ. Random nudges a hundred times as large find these voxels.
    """
    generator, expected = torch.Generator().manual_seed(0), cast(density, frusta, "reference", layers)
    band = torch.zeros_like(expected)
    for _ in range(NUDGES):
        table = frusta.cameras.double()
        shift, turn = (
            most * torch.randn(len(table), 3, generator=generator, dtype=torch.float64) for most in (SHIFT, TURN)
        )
        x, y, z = turn.T
        nought = torch.zeros_like(x)
        turning = torch.eye(3) + torch.stack([nought, -z, y, z, nought, -x, -y, x, nought], -1).view(-1, 3, 3)
        nudged = table.clone()
        nudged[:, :3] += shift
        nudged[:, 3:12] = (turning @ table[:, 3:12].view(-1, 3, 3)).reshape(-1, 9)
        nudged[:, 12:21] = (table[:, 12:21].view(-1, 3, 3) @ turning.transpose(1, 2)).reshape(-1, 9)
        band |= cast(density, replace(frusta, cameras=nudged.float()), "reference", layers) != expected
    return band


def check_against_reference(name: str, found: torch.Tensor) -> None:
    """Equal, voxel by voxel, but for those on a border; and few are on one."""
    (density, frusta), layers = case(name), layers_of(name)
    expected, band = cast(density, frusta, "reference", layers), on_a_border(density, frusta, layers)
    assert name in ("looking away", "one voxel") or 0.02 < expected.float().mean() < 0.98
    assert band.float().mean() <= (0.05 if name == "level axes" else 0.001)
    wrong = (found.cpu() != expected) & ~band
    assert not wrong.any(), f"{int(wrong.sum())} voxels differ, the first at {wrong.nonzero()[0].tolist()}"


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_loops_on_the_cpu_see_what_the_reference_sees(name, one_thread):
    check_against_reference(name, cast(*case(name), "cpu", layers_of(name)))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("ahead", "seen"), [(0.04, False), (0.06, True)])
def test_a_voxel_whose_centre_is_closer_than_the_nearest_distance_is_not_in_view(backend, ahead, seen):
    """The reference once looked only whether the centre is in front of the camera at all."""
    grid = VoxelGrid((0.0, 0.0, 0.0), (5.0, 5.0, 5.0), 1.0)
    view = View(33, 33, np.array([[16.0, 0, 16.0], [0, 16.0, 16.0], [0, 0, 1]]))
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: right, down, and forward along x
    pose[:3, 3] = 2.5 - ahead, 2.5, 2.5  # `ahead` voxels before the centre of voxel (2, 2, 2)
    field = SemanticDensityField(grid, torch.zeros(grid.shape), torch.zeros(*grid.shape, 0))
    visible = visible_voxels(field, [view], pose[None], backend=backend)
    assert bool(visible[2, 2, 2]) == seen and visible[3, 2, 2] and not visible[1, 2, 2]


def test_several_threads_see_the_same(monkeypatch, one_thread):
    alone = cast(*case("masked"), "cpu")
    torch.set_num_threads(3)
    monkeypatch.setattr(cpu_kernel, "VOXELS_WORTH_A_THREAD", 10)
    assert torch.equal(cast(*case("masked"), "cpu"), alone)


def test_densities_that_are_not_numbers_end_nothing_and_crash_nothing(one_thread):
    density, frusta = case("empty")
    free = cast(density, frusta, "cpu")
    assert torch.equal(cast(torch.full_like(density, torch.nan), frusta, "cpu"), free)


def test_a_backend_that_cannot_do_it_is_named():
    density, frusta = case("empty")
    with pytest.raises(ValueError, match="backend is 'gpu'; expected one of 'auto', 'reference', 'cpu', 'triton'"):
        cast(density, frusta, "gpu")
    with pytest.raises(ValueError, match=r"density has shape \(24, 20\); expected \(X, Y, Z\)"):
        cast(density[..., 0], frusta)
    with pytest.raises(ValueError, match=r"expected \(X, Y, Z \* 3\), for 3 layers"):
        cast(density, frusta, layers=3)
    if os.environ.get("TRITON_INTERPRET") != "1":
        with pytest.raises(ValueError, match="backend 'triton' works on CUDA devices, and the density is on cpu"):
            cast(density, frusta, "triton")


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
build(loops.cast_rays, RAYS=8, SAMPLES=16, LAYERS=1, **cut)
build(loops.cast_rays, RAYS=8, SAMPLES=16, LAYERS=4, **{**cut, "Z": 64})
build(loops.mark_voxels, CAMERAS=6, ROWS=256, COLUMNS=704, MASKED=True, BLOCK=256, **cut)
"""


def test_kernels_compile_for_gpus_that_are_not_here():
    lines = run([sys.executable, "-c", COMPILE], TRITON_INTERPRET="0").splitlines()
    assert [line.split()[0] for line in lines] == ["cast_rays", "cast_rays", "mark_voxels"]
