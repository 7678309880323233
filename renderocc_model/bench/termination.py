"""`renderocc bench termination`: ray termination, forward and backward, ours against PyTorch.

The rays and the fields of `bench render` with ground and walls, one with layers of density: 38,400 rays through
200 x 200 x 16 voxels in steps of half a voxel. For the textbook, space with layers is stretched. A ray ends on the
ground or at a random place before it. Nine of ten such rays in the grid are marked as returned. Gradients are those of
both optical depths. Finding the windows is timed separately, as it is done once for each ray.

    textbook    trilinear `grid_sample` at all samples of all rays, sums over masks; every number of a sample is kept
    reference   `termination(..., backend="reference")`: rays in chunks, chunks computed again backward
    ours        `termination(..., backend="cpu")`, on a CUDA device "triton"

On the CPU each way has a process of its own, and times are CPU times, which hold on a busy machine, too. All
results are compared before the figures are given.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..field.field import SemanticDensityField, layers_of
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays
from ..ops.render import intersect_box
from ..ops.stretching import stretched_grid, stretched_rays
from ..ops.termination import reference, return_windows, termination, triton_kernel
from . import render_scene as scene
from .measure import copy_speed, peak_bytes, reset_peak, stopwatch

__all__ = ["bench_termination", "main"]

KINDS = ("opaque", "layered")  # of `render_scene.FIELDS`
WAYS = ("textbook", "reference", "ours")
SLOW_RUNS = 3  # of the ways that are not ours
TOLERANCE = 1e-4  # relative to the sum of all: in float32 a sample may fall on either side of a window's border
LAUNCHES = tuple(
    triton_kernel.Launch(**cut)
    for cut in ({}, {"run": 1}, {"run": 4}, {"run": 32}, {"samples": 64, "warps": 2}, {"rays": 4, "warps": 4})
)


def bench_termination(frames: int) -> tuple[dict, list[str]]:
    """Times and memory of each way; figures and Markdown tables.

    Args:
        frames: runs of ours to take the median of; PyTorch's take the median of at most three.
    """
    threads = torch.get_num_threads()
    figures: dict = {"rays": scene.RAYS, "grid": list(scene.GRID.shape), "threads": threads, "dtype": "float32"}
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="renderocc_bench_") as folder:
            figures[kind] = {way: run(way, kind, threads, frames, Path(folder)) for way in WAYS}
            found = {way: load(Path(folder) / f"{way}.npz") for way in WAYS}
        for way in ("textbook", "ours"):
            compare(way, found["reference"], found[way])
    size = " x ".join(map(str, figures["grid"]))
    lines = [
        f"ray termination, {figures['rays']:,} rays through {size} voxels, steps of {scene.STEP} voxels; CPU, "
        f"{threads} threads, {figures['dtype']}",
    ]
    for kind in KINDS:
        lines += ["", f"{kind} field:", "", *table(figures[kind])]
    if torch.cuda.is_available():
        figures["cuda"], more = bench_cuda(frames)
        lines += ["", *more]
    return figures, lines


def table(figures: dict[str, dict]) -> list[str]:
    """Figures of each way as Markdown."""
    rows = (
        ("windows", "windows", 1e-3, "ms"),
        ("forward", "forward", 1e-3, "ms"),
        ("forward + backward", "both", 1e-3, "ms"),
        ("the same in wall-clock time", "clock", 1e-3, "ms"),
        ("peak memory beyond inputs and gradients", "memory", 2**20, "MiB"),
    )
    lines = [
        "| | textbook PyTorch | our reference | ours | textbook / ours | reference / ours |",
        "|---|---|---|---|---|---|",
    ]
    for what, key, scale, unit in rows:
        values = [figures[way][key] / scale for way in WAYS]
        ratios = (f"{value / max(values[-1], 1e-9):.1f}" for value in values[:-1])
        lines.append(f"| {what} | " + " | ".join([*(f"{value:.3g} {unit}" for value in values), *ratios]) + " |")
    return lines


def run(way: str, kind: str, threads: int, frames: int, folder: Path) -> dict:
    """What `measure` returns on the CPU, from a process of its own that leaves the results in the folder."""
    command = [sys.executable, "-m", __name__, way, kind, str(threads), str(frames), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"`bench termination` {way}, {kind}: {done.stderr.strip()[-2000:] or 'ended without a message'}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_cuda(frames: int, device: str = "cuda") -> tuple[dict, list[str]]:
    """The same on a CUDA device, by its own clock, with other launch sizes and the least time that memory needs."""
    figures: dict = {"device": torch.cuda.get_device_name(), "copy_gb_s": copy_speed(device) / 1e9}
    figures["reference"], expected = measure("reference", frames, device)
    for way in ("textbook", "ours"):
        figures[way], found = measure(way, frames, device)
        compare(way, expected, found)
    figures["floor"] = 2 * scene.GRID.size * 4 / figures["copy_gb_s"] / 1e9  # density read, gradient written
    figures["launches"] = {str(cut): measure("ours", frames, device, cut)[0]["both"] for cut in LAUNCHES}
    lines = [f"on {figures['device']}, which copies {figures['copy_gb_s']:.0f} GB/s (read and written)", ""]
    lines += [*table(figures), f"| floor of forward + backward | | | {1e3 * figures['floor']:.3g} ms | | |", ""]
    lines += ["| forward + backward by launch | |", "|---|---|"]
    lines += [f"| {cut} | {1e3 * seconds:.3g} ms |" for cut, seconds in figures["launches"].items()]
    return figures, lines


def measure(
    way: str,
    frames: int,
    device: str = "cpu",
    launch: triton_kernel.Launch | None = None,
    kind: str = "opaque",
) -> tuple[dict, list[Tensor]]:
    """Median seconds, and peak bytes of forward and backward; and windows, depths and the density's gradient.

    Args:
        launch: other launch sizes of ours on a GPU.
        kind: of the field.
    """
    rays, distances, returned = bench_labels()
    rays, distances, returned = rays.to(device), distances.to(device), returned.to(device)
    # All ways get the same windows, because rounding may put a sample into the next voxel.
    density = scene.bench_field(kind)[0].to(device).requires_grad_()
    layers = layers_of(scene.GRID, density)
    given = return_windows(scene.GRID, rays, distances, returned, layers=layers, backend="reference")
    generator = torch.Generator().manual_seed(3)
    upstream = [torch.randn(len(rays), generator=generator).to(device) for _ in range(2)]
    torch.autograd.backward(depths(way, density, rays, *given, launch), upstream)  # first call: compilation and set-up
    windows = windows_of(way, rays, distances, returned, layers)
    spent: dict[str, list[float]] = {"windows": [], "forward": [], "both": [], "clock": []}
    results: tuple[Tensor, ...] = ()
    density.grad, peak = None, 0
    for _ in range(frames if way == "ours" else min(frames, SLOW_RUNS)):
        density.grad, results = None, ()
        time_of = processor_stopwatch if density.device.type == "cpu" else stopwatch
        clock = time_of(density.device)
        windows = windows_of(way, rays, distances, returned, layers)
        marks = {"windows": clock()}
        before = reset_peak(density.device)
        clock, wall = time_of(density.device), stopwatch(density.device)
        results = depths(way, density, rays, *given, launch)
        marks["forward"] = clock()
        torch.autograd.backward(results, upstream)
        marks |= {"both": clock(), "clock": wall()}
        for name, seconds in marks.items():
            spent[name].append(seconds())
        peak = max(peak, peak_bytes(density.device) - before - density.numel() * 4)
    values = [*windows, *(value.detach() for value in results), density.grad]
    return {**{name: statistics.median(times) for name, times in spent.items()}, "memory": peak}, values


def processor_stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """`measure.stopwatch` for CPU time, summed over all threads."""
    start = time.process_time()
    return lambda: (lambda seconds: lambda: seconds)(time.process_time() - start)


def windows_of(way: str, rays: Rays, distances: Tensor, returned: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Starts and ends (R,) by one of the ways."""
    if way == "textbook":
        grid, rays = stretched_grid(scene.GRID, layers), stretched_rays(rays, layers)
        return textbook_windows(grid, rays, distances, returned, scene.STEP)
    backend = "reference" if way == "reference" else "auto"
    return return_windows(scene.GRID, rays, distances, returned, step=scene.STEP, layers=layers, backend=backend)


def depths(
    way: str, density: Tensor, rays: Rays, starts: Tensor, ends: Tensor, launch: triton_kernel.Launch | None
) -> tuple[Tensor, Tensor]:
    """Optical depths before and in the window by one of the ways."""
    if way == "textbook":
        layers = layers_of(scene.GRID, density)
        grid, rays = stretched_grid(scene.GRID, layers), stretched_rays(rays, layers)
        return textbook(density, grid, rays, starts, ends, scene.STEP)
    field = SemanticDensityField.of_layers(scene.GRID, density, density.new_zeros(*scene.GRID.shape, 0))
    if launch:
        return triton_kernel.termination(field, rays, starts, ends, scene.STEP, launch=launch)
    backend = "reference" if way == "reference" else "auto"
    return termination(field, rays, starts, ends, scene.STEP, backend=backend)


def textbook(
    density: Tensor, grid: VoxelGrid, rays: Rays, starts: Tensor, ends: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Optical depths as usually written, with every number of every sample in memory."""
    delta, device = step * grid.voxel_size, density.device
    size, lower = torch.tensor(grid.shape, device=device), torch.tensor(grid.lower, device=device)
    near, far = intersect_box(rays.origins, rays.directions, grid.lower, grid.upper)
    samples = math.ceil(float((far - near).max()) / delta + 0.5)
    distances = near[:, None] + (torch.arange(samples, device=device) + 0.5) * delta
    points = rays.origins[:, None] + distances[..., None] * rays.directions[:, None]
    places = (((points - lower) / grid.voxel_size - 0.5) / (size - 1) * 2 - 1).flip(-1)[None, None]
    sigma = functional.grid_sample(density[None, None], places, padding_mode="border", align_corners=True)[0, 0, 0]
    depth = sigma * delta
    exists, before = distances < far[:, None], distances < starts[:, None]
    window = exists & ~before & (distances < ends[:, None])
    return (depth * (exists & before)).sum(dim=1), (depth * window).sum(dim=1)


def textbook_windows(
    grid: VoxelGrid, rays: Rays, distances: Tensor, returned: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Windows with every step of every ray in memory; rays begin in the grid."""
    delta, margin = step * grid.voxel_size, grid.voxel_size
    marks = reference.mark_voxels(grid, rays, distances, returned).view(-1)
    begin = torch.where(returned, distances - margin, 0).clamp(min=0)
    places = begin[:, None] - (torch.arange(math.ceil(float(begin.max()) / delta), device=begin.device) + 0.5) * delta
    points = rays.origins[:, None] + places[..., None] * rays.directions[:, None]
    voxels, inside = reference.voxels_of(points, grid)
    holds = (marks[voxels] > 0) & inside & (places > 0)
    starts = (begin - holds.long().cumprod(dim=1).sum(dim=1) * delta).clamp(min=0)
    return tuple(torch.where(returned, place, math.inf) for place in (starts, distances + margin))


def bench_labels() -> tuple[Rays, Tensor, Tensor]:
    """The rays of `bench render`, measured distances, and whether they returned in the grid: on the ground, or before
    it at random."""
    rays, rng = scene.bench_rays(), np.random.default_rng(4)
    _, far = intersect_box(rays.origins, rays.directions, scene.GRID.lower, scene.GRID.upper)
    ground = (0.15 - rays.origins[:, 2]) / rays.directions[:, 2].clamp(max=-1e-6)
    distances = torch.minimum(ground, torch.from_numpy(rng.uniform(4, 80, len(rays)).astype(np.float32)))
    return rays, distances, (distances < far) & torch.from_numpy(rng.uniform(size=len(rays)) < 0.9)


def compare(way: str, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    """
    Raises:
        RuntimeError: two ways do not agree, so their times mean nothing.
    """
    names = ("start", "end", "depth before", "depth of the window", "gradient of density")
    for name, one, other in zip(names, expected, found):
        finite = torch.isfinite(one)
        if not torch.equal(finite, torch.isfinite(other)):
            raise RuntimeError(f"{way} and reference differ in which numbers are finite in {name}")
        apart, total = (one - other)[finite].abs().sum(), one[finite].abs().sum()
        if not apart <= TOLERANCE * total:
            raise RuntimeError(f"{way} and reference differ by {float(apart):.3g} of {float(total):.3g} in {name}")


def load(path: Path) -> list[Tensor]:
    with np.load(path) as values:
        return [torch.from_numpy(values[name]) for name in values.files]


def main(argv: Sequence[str]) -> None:
    """The process of one way: way, field, threads, runs, folder."""
    way, kind, threads, frames, folder = argv
    torch.set_num_threads(int(threads))
    figures, values = measure(way, int(frames), kind=kind)
    np.savez(Path(folder) / f"{way}.npz", *(value.numpy() for value in values))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
