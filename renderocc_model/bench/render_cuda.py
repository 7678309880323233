"""What `renderocc bench render` does on a CUDA device: `render`'s rays and fields, in float32 and bfloat16.

    textbook    trilinear `grid_sample` at all samples of all rays, and a cumulative product, in float32
    reference   `render(..., backend="reference")`
    nerfacc     the same with nerfacc's public functions on packed samples, where it is installed
    triton      `render(..., backend="triton")`

Times are medians by the device's own clock, memory is PyTorch's peak beyond inputs, results and gradients. The floor is
the time that main memory needs for the field, once forward and once backward, and for its gradients, at the measured
speed of a copy. A second table shows other launch sizes, for the choice of `triton_kernel.LAUNCH`.
"""

from __future__ import annotations

import importlib.util
import statistics
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..field.field import SemanticDensityField
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays
from ..ops.render import reference, render, triton_kernel
from ..ops.render.triton_kernel import Launch
from . import render_scene as scene
from .measure import copy_speed, peak_bytes, reset_peak, stopwatch

__all__ = ["bench_cuda"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARM_RUNS = 2
LAUNCHES = (
    Launch(),
    Launch(run=1),
    Launch(run=4),
    Launch(run=32),
    Launch(samples=16),
    Launch(rays=2, samples=16),
    Launch(samples=64, warps=2),
    Launch(warps=2),
    Launch(rays=4, warps=4),
)


def bench_cuda(frames: int, device: str = "cuda") -> tuple[dict, list[str]]:
    """Times and memory of each way on the device; figures and Markdown tables.

    Args:
        frames: runs to take the median of.
    """
    ways = ["textbook", "reference", *(["nerfacc"] if importlib.util.find_spec("nerfacc") else []), "triton"]
    figures: dict = {"device": torch.cuda.get_device_name(), "copy_gb_s": copy_speed(device) / 1e9, "rows": []}
    rays = scene.bench_rays().to(device)
    for kind in scene.WHOLE_FIELDS:
        for name, dtype in DTYPES.items():
            field = [value.to(device, dtype) for value in scene.bench_field(kind)]
            row: dict = {"field": kind, "dtype": name, "floor": floor_seconds(field, figures["copy_gb_s"] * 1e9)}
            expected = None
            for way in reversed(ways):
                try:
                    row[way], results = measure(way, field, rays, frames)
                except torch.OutOfMemoryError:
                    row[way], results = None, None
                    torch.cuda.empty_cache()
                if results:
                    expected = expected or results
                    compare(way, expected, results, dtype)
            row["launches"] = {str(cut): measure("triton", field, rays, frames, cut)[0]["both"] for cut in LAUNCHES}
            figures["rows"].append(row)
    return figures, table(figures, ways)


def table(figures: dict, ways: list[str]) -> list[str]:
    """The figures as Markdown."""
    lines = [f"on {figures['device']}, which copies {figures['copy_gb_s']:.0f} GB/s (read and written)", ""]
    ratios = [f"{way} / triton" for way in ways[:-1]]
    lines.append("| field | dtype | | " + " | ".join([*ways, *ratios, "floor"]) + " |")
    lines.append("|" + "---|" * (len(ways) * 2 + 3))
    units = (
        ("forward", "forward", 1e-3, "ms"),
        ("forward + backward", "both", 1e-3, "ms"),
        ("peak memory", "memory", 2**20, "MiB"),
    )
    for row in figures["rows"]:
        for what, key, scale, unit in units:
            values = [row[way][key] / scale if row[way] else None for way in ways]
            cells = ["out of memory" if value is None else f"{value:.3g} {unit}" for value in values]
            ours = max(values[-1] or 0.0, 1e-9)
            cells += ["" if value is None else f"{value / ours:.1f}" for value in values[:-1]]
            cells.append(f"{1e3 * row['floor']:.3g} ms" if key == "both" else "")
            lines.append(f"| {row['field']} | {row['dtype']} | {what} | " + " | ".join(cells) + " |")
    heads = " | ".join(f"{row['field']} {row['dtype']}" for row in figures["rows"])
    lines += ["", f"| forward + backward by launch | {heads} |"]
    lines.append("|" + "---|" * (len(figures["rows"]) + 1))
    for cut in figures["rows"][0]["launches"]:
        times = " | ".join(f"{1e3 * row['launches'][cut]:.3g} ms" for row in figures["rows"])
        lines.append(f"| {cut} | {times} |")
    return lines


def measure(
    way: str, field: list[Tensor], rays: Rays, frames: int, launch: Launch | None = None
) -> tuple[dict, list[Tensor]]:
    """Median seconds of forward, and of forward and backward; peak bytes; and results and gradients.

    Args:
        field: density (X, Y, Z) and logits (X, Y, Z, C).
        launch: other launch sizes of `triton`.
    """
    device = field[0].device
    density, semantics = (value.detach() for value in field)
    if way == "textbook":  # channels first, as its networks give them
        density, semantics = density[None, None], semantics.permute(3, 0, 1, 2)[None].contiguous()
    inputs = density.clone().requires_grad_(), semantics.clone().requires_grad_()
    upstream = [torch.from_numpy(values).to(device) for values in scene.upstream_gradients()]
    spent: dict[str, list[float]] = {"forward": [], "both": []}
    results: Any = None
    peak = 0
    for run in range(WARM_RUNS + frames):
        inputs[0].grad = inputs[1].grad = results = None
        before = reset_peak(device)
        clock = stopwatch(device)
        results = draw(way, *inputs, rays, launch)
        forward = clock()
        torch.autograd.backward(results, upstream)
        both = clock()
        if run >= WARM_RUNS:
            spent["forward"].append(forward())
            spent["both"].append(both())
            kept = sum(value.numel() * value.element_size() for value in [*results, *(i.grad for i in inputs)])
            peak = max(peak, peak_bytes(device) - before - kept)
    gradients = [inputs[0].grad.reshape(scene.GRID.shape), inputs[1].grad]
    if way == "textbook":
        gradients[1] = gradients[1][0].permute(1, 2, 3, 0)
    values = [value.detach() for value in (*results, *gradients)]
    return {**{name: statistics.median(times) for name, times in spent.items()}, "memory": max(peak, 0)}, values


def draw(
    way: str, density: Tensor, semantics: Tensor, rays: Rays, launch: Launch | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(distance (R,), semantics (R, C), opacity (R,)) by one of the ways."""
    if way == "textbook":
        return scene.textbook(density.float(), semantics.float(), scene.GRID, rays, scene.STEP)
    if way == "nerfacc":
        return packed(density.float(), semantics.float(), scene.GRID, rays, scene.STEP)
    field = SemanticDensityField(scene.GRID, density, semantics)
    if launch:
        result = triton_kernel.render(field, rays, scene.STEP, launch=launch)
    else:
        result = render(field, rays, scene.STEP, backend=way)
    return result.distance, result.semantics, result.opacity


def packed(density: Tensor, semantics: Tensor, grid: VoxelGrid, rays: Rays, step: float) -> tuple[Tensor, ...]:
    """Volume rendering with nerfacc's functions: samples of all rays in one row, none outside the grid."""
    import nerfacc

    delta, device, count = step * grid.voxel_size, density.device, len(rays)
    near, counts = reference.sample_counts(rays.origins, rays.directions, grid, delta)
    indices = torch.arange(count, device=device).repeat_interleave(counts)
    number = torch.arange(len(indices), device=device) - (counts.cumsum(0) - counts)[indices]
    starts = near[indices] + number * delta
    points = rays.origins[indices] + (starts + delta / 2)[:, None] * rays.directions[indices]
    size, lower = torch.tensor(grid.shape, device=device), torch.tensor(grid.lower, device=device)
    places = (((points - lower) / grid.voxel_size - 0.5) / (size - 1) * 2 - 1).flip(-1)[None, None, None]
    options: dict[str, Any] = {"align_corners": True, "padding_mode": "border"}
    sigma = functional.grid_sample(density[None, None], places, **options).flatten()
    logits = functional.grid_sample(semantics.permute(3, 0, 1, 2)[None], places, **options)[0, :, 0, 0].T
    weights = nerfacc.render_weight_from_density(starts, starts + delta, sigma, ray_indices=indices, n_rays=count)[0]
    distance, composited, opacity = (
        nerfacc.accumulate_along_rays(weights, values=values, ray_indices=indices, n_rays=count)
        for values in ((starts + delta / 2)[:, None], logits, None)
    )
    return distance[:, 0], composited, opacity[:, 0]


def compare(way: str, expected: list[Tensor], found: list[Tensor], dtype: torch.dtype) -> None:
    """
    Raises:
        RuntimeError: two ways do not agree, so their times mean nothing.
    """
    tolerance = scene.TOLERANCE + (0 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)
    names = ("distance", "semantics", "opacity", "gradient of density", "gradient of semantics")
    for name, one, other in zip(names, expected, found):
        worst, largest = float((one - other).abs().max()), float(one.abs().max())
        if not worst <= tolerance * largest:
            raise RuntimeError(f"{way} and triton differ by {worst:.3g} of {largest:.3g} in {name}")


def floor_seconds(field: list[Tensor], bytes_a_second: float) -> float:
    """Seconds that memory needs for the field, forward and backward, and for its gradients."""
    return 3 * sum(value.numel() * value.element_size() for value in field) / bytes_a_second
