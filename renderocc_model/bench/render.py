"""`renderocc bench render`: volume rendering, forward and backward, ours against PyTorch, each in a process of its own.

38,400 rays from the cameras of seven frames of a drive go through 200 x 200 x 16 voxels of 17 classes in steps of half
a voxel; gradients are those of distance, semantics and opacity. Three fields: one nearly transparent, like an untrained
network's, where every sample counts, one with ground and walls, like a trained network's, and one like that with four
layers of density in each voxel, for which the textbook's space is stretched and its logits are copied to each layer.

    textbook    trilinear `grid_sample` at all samples of all rays, and a cumulative product
    reference   `render(..., backend="reference")`: no logits of samples, rays in chunks, chunks computed again backward
    ours        `render(..., backend="cpu")`

All results are compared before the figures are given. On a machine with a CUDA device a table of that follows
(`render_cuda`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..field.field import SemanticDensityField, layers_of
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays
from ..ops.render import render
from ..ops.stretching import stretched_grid, stretched_rays
from . import render_scene as scene
from .measure import peak_bytes, reset_peak

__all__ = ["bench_render", "main"]

WAYS = ("textbook", "reference", "ours")
SLOW_RUNS = 2  # of the ways that take minutes


def bench_render(frames: int) -> tuple[dict, list[str]]:
    """Times and memory of each way; figures and a Markdown table.

    Args:
        frames: runs of our renderer to take the median of; PyTorch's take the median of at most two.
    """
    threads = torch.get_num_threads()
    figures: dict = {
        "rays": scene.RAYS,
        "classes": scene.CLASSES,
        "grid": list(scene.GRID.shape),
        "threads": threads,
        "dtype": "float32",
    }
    with tempfile.TemporaryDirectory(prefix="renderocc_bench_") as folder:
        for kind in scene.FIELDS:
            figures[kind] = {way: run(way, kind, threads, frames, Path(folder)) for way in WAYS}
            compare(Path(folder), kind)
    lines = table(figures)
    if torch.cuda.is_available():
        from .render_cuda import bench_cuda

        figures["cuda"], more = bench_cuda(frames)
        lines += ["", *more]
    return figures, lines


def table(figures: dict) -> list[str]:
    """The figures as Markdown."""
    size = " x ".join(map(str, figures["grid"]))
    lines = [
        f"volume rendering, {figures['rays']:,} rays through {size} voxels of {figures['classes']} classes, steps of "
        f"{scene.STEP} voxels; CPU, {figures['threads']} threads, {figures['dtype']}",
        "",
        "| field | | textbook PyTorch | our reference | ours | textbook / ours | reference / ours |",
        "|---|---|---|---|---|---|---|",
    ]

    def row(kind: str, what: str, key: str, scale: float, unit: str) -> str:
        values = [figures[kind][way][key] / scale for way in WAYS]
        ratios = (f"{value / max(values[-1], 1e-9):.1f}" for value in values[:-1])
        return f"| {kind} | {what} | " + " | ".join([*(f"{value:.3g} {unit}" for value in values), *ratios]) + " |"

    for kind in scene.FIELDS:
        lines.append(row(kind, "forward", "forward", 1, "s"))
        lines.append(row(kind, "forward + backward", "both", 1, "s"))
        lines.append(row(kind, "CPU time of both", "cpu", 1, "s"))
        lines.append(row(kind, "peak memory beyond inputs and gradients", "memory_kib", 1024, "MiB"))
    return lines


def run(way: str, kind: str, threads: int, frames: int, folder: Path) -> dict:
    """What `measure` returns, from a process of its own."""
    command = [sys.executable, "-m", __name__, way, kind, str(threads), str(frames), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`bench render` {way}, {kind}: {done.stderr.strip()[-2000:] or 'ended without a message'}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(way: str, kind: str, frames: int, folder: Path) -> dict:
    """Median seconds and peak KiB of forward and backward; results and gradients are left in the folder."""
    rays = scene.bench_rays()
    density, semantics = scene.bench_field(kind)
    upstream = [torch.from_numpy(values) for values in scene.upstream_gradients()]
    warm_up(way)
    if way == "textbook":  # channels first, as its networks give them
        density, semantics = density[None, None], semantics.permute(3, 0, 1, 2)[None].contiguous()
    inputs = density.requires_grad_(), semantics.requires_grad_()
    gradients = sum(value.numel() * 4 for value in inputs) // 1024
    spent: dict[str, list[float]] = {"forward": [], "both": [], "cpu": []}
    if way == "ours":  # the set-up of the first call (35 MiB; other ways need almost none) is not counted
        torch.autograd.backward(draw(way, *inputs, rays), upstream)
    density.grad = semantics.grad = None
    results: Any = None
    before = reset_peak(density.device)
    for _ in range(frames if way == "ours" else min(frames, SLOW_RUNS)):
        density.grad = semantics.grad = results = None
        start, start_cpu = time.perf_counter(), time.process_time()
        results = draw(way, *inputs, rays)
        spent["forward"].append(time.perf_counter() - start)
        torch.autograd.backward(results, upstream)
        spent["both"].append(time.perf_counter() - start)
        spent["cpu"].append(time.process_time() - start_cpu)
    memory = (peak_bytes(density.device) - before) // 1024 - gradients
    grads = [density.grad.reshape(*scene.GRID.shape[:2], -1), semantics.grad]
    if way == "textbook":
        grads[1] = grads[1][0].permute(1, 2, 3, 0)
    np.savez(folder / f"{way}_{kind}.npz", *(value.detach().numpy() for value in (*results, *grads)))
    return {**{name: statistics.median(values) for name, values in spent.items()}, "memory_kib": max(memory, 0)}


def draw(way: str, density: Tensor, semantics: Tensor, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """(distance (R,), semantics (R, C), opacity (R,)) by one of the ways."""
    if way == "textbook":
        layers = layers_of(scene.GRID, density[0, 0])
        if layers > 1:
            semantics = semantics.repeat_interleave(layers, dim=-1)
        grid, rays = stretched_grid(scene.GRID, layers), stretched_rays(rays, layers)
        return scene.textbook(density, semantics, grid, rays, scene.STEP)
    backend = "reference" if way == "reference" else "cpu"
    result = render(SemanticDensityField.of_layers(scene.GRID, density, semantics), rays, scene.STEP, backend=backend)
    return result.distance, result.semantics, result.opacity


def warm_up(way: str) -> None:
    """Run a way on four rays, so that its code is loaded and compiled before times are taken."""
    grid, rays = VoxelGrid((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), 1.0), scene.bench_rays()[:4]
    density, semantics = torch.ones(2, 2, 2, requires_grad=True), torch.ones(2, 2, 2, scene.CLASSES, requires_grad=True)
    if way == "textbook":
        result = scene.textbook(density[None, None], semantics.permute(3, 0, 1, 2)[None], grid, rays, scene.STEP)[1]
    else:
        field = SemanticDensityField(grid, density, semantics)
        result = render(field, rays, backend="reference" if way == "reference" else "cpu").semantics
    result.sum().backward()


def compare(folder: Path, kind: str) -> None:
    """
    Raises:
        RuntimeError: two ways do not agree, so their times mean nothing.
    """
    names = ("distance", "semantics", "opacity", "gradient of density", "gradient of semantics")
    with np.load(folder / f"reference_{kind}.npz") as expected:
        for way in ("textbook", "ours"):
            with np.load(folder / f"{way}_{kind}.npz") as found:
                for name, key in zip(names, expected.files):
                    worst, largest = np.abs(found[key] - expected[key]).max(), np.abs(expected[key]).max()
                    if not worst <= scene.TOLERANCE * largest:
                        raise RuntimeError(f"{way} and reference differ by {worst:.3g} of {largest:.3g} in {name}")


def main(argv: Sequence[str]) -> None:
    """The process of one way: way, field, threads, runs, folder."""
    way, kind, threads, frames, folder = argv
    torch.set_num_threads(int(threads))
    print(json.dumps(measure(way, kind, int(frames), Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1:])
