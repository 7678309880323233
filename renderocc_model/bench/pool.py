"""`renderocc bench pool`: voxel pooling, forward and backward, ours against PyTorch.

Six cameras around the vehicle, in the sizes listed below; every way gets the same depths and context.

    textbook    depth times context at every frustum point, then `index_add_` into the cells
    reference   `pool(..., backend="reference")`: `embedding_bag` by the plan, no features of frustum points
    ours        `pool(..., backend="cpu")` or `"triton"`

The plan is made beforehand, as for cameras that do not move. A second table gives its cost, for poses that change with
every frame. All results are compared before the figures are given. On the CPU each way runs in a process of its own,
and memory is that process's peak beyond inputs, results and gradients. "Of a copy" is a speed relative to that of a
copy on the same device. The speed is the bytes that have to be read and written once (points and pixels inside, depths,
context, result; backward also cells and gradients), over the time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base.config import apply_overrides
from ..network.config import ModelConfig
from ..network.lift import Frustums
from ..network.presets import PRESETS
from ..network.untrained import surround_cameras
from ..ops.voxel_pooling import PoolingPlan, make_plan, pool, triton_kernel
from ..ops.voxel_pooling.triton_kernel import Launch
from .measure import copy_speed, peak_bytes, reset_peak, stopwatch

__all__ = ["SIZES", "bench_pool", "main"]

WAYS = ("textbook", "reference", "ours")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CAMERAS = 6
WARM_RUNS = 2
SLOW_RUNS = 2  # of PyTorch's ways on the CPU
TOLERANCE = 1e-5  # relative to the largest number: sums of a thousand products in float32
LAUNCHES = (
    Launch(),
    Launch(cells=1, points=16),
    Launch(cells=2),
    Launch(cells=8),
    Launch(points=4),
    Launch(points=16),
    Launch(channels=32),
    Launch(channels=16),
    Launch(cells=8, warps=2),
    Launch(numbers=1024),
    Launch(numbers=4096),
)

# The size for which others publish a figure: 640 x 1600 images, 200 x 200 cells, 0.82 ms on a GPU like an RTX 3090.
PEERS = (
    "images.height=640",
    "images.width=1600",
    "lift.context_channels=80",
    "lift.height_slices=1",
    "lift.depth.minimum=1.0",
    "lift.depth.maximum=60.0",
    "lift.depth.count=118",
)
SIZES: dict[str, ModelConfig] = {
    "640x1600": apply_overrides(PRESETS["base"], PEERS),
    "base": PRESETS["base"],
    "tiny": PRESETS["tiny"],
}


@dataclass(frozen=True, eq=False)
class Case:
    """The input of pooling: depth (N, D, H, W) float32, context (N, C, H, W) with channels last in memory, and the
    plan."""

    depth: Tensor
    context: Tensor
    index: Tensor
    plan: PoolingPlan

    @property
    def floor_bytes(self) -> tuple[int, int]:
        """Bytes that have to be read and written forward, and forward and backward."""
        inside, width = int((self.index >= 0).sum()), self.context.element_size()
        result = self.plan.cells * self.context.shape[1] * width
        depth, context = self.depth.numel() * 4, self.context.numel() * width
        forward = 8 * inside + 4 * self.plan.cells + depth + context + result
        return forward, forward + self.index.numel() * 4 + 2 * (depth + context) + result


def bench_pool(frames: int) -> tuple[dict, list[str]]:
    """Times and memory of each way; figures and Markdown tables.

    Args:
        frames: runs of our pooling to take the median of; PyTorch's ways on the CPU take the median of two.
    """
    threads = torch.get_num_threads()
    rows = {way: run(way, threads, frames) for way in WAYS}
    figures: dict = {"cpu": gathered(rows, copy_speed("cpu", 2**27)), "threads": threads}
    lines = table(figures["cpu"], f"CPU, {threads} threads")
    if torch.cuda.is_available():
        rows = {way: measure_all(way, "cuda", frames) for way in WAYS}
        figures["cuda"] = gathered(rows, copy_speed("cuda"))
        figures["launches"] = [
            {"launch": str(cut), **{row["size"]: row["both"] for row in measure_all("ours", "cuda", frames, cut)}}
            for cut in LAUNCHES
        ]
        lines += ["", *table(figures["cuda"], torch.cuda.get_device_name()), "", *launch_table(figures["launches"])]
    return figures, lines


def gathered(rows: dict[str, list[dict]], copy: float) -> dict:
    """One row for each size and type, with the figures of every way."""
    joined = []
    for each in zip(*(rows[way] for way in WAYS)):
        joined.append({key: each[-1][key] for key in ("size", "dtype", "shape", "floor", "plan", "place")})
        joined[-1].update(dict(zip(WAYS, each)))
    return {"copy": copy, "rows": joined}


def table(figures: dict, device: str) -> list[str]:
    """The figures as Markdown."""
    lines = [
        f"voxel pooling, {CAMERAS} cameras, {device}, which copies {figures['copy'] / 1e9:.3g} GB/s (read and written)",
        "",
        "| size | dtype | | textbook | reference | ours | textbook / ours | reference / ours | ours, of a copy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def row(figure: dict, what: str, key: str, scale: float, unit: str, floor: float | None) -> str:
        values = [figure[way][key] for way in WAYS]
        cells = ["out of memory" if value is None else f"{value / scale:.3g} {unit}" for value in values]
        cells += ["" if value is None else f"{value / max(values[-1], 1e-9):.1f}" for value in values[:-1]]
        cells.append("" if floor is None else f"{floor / figures['copy'] / values[-1]:.0%}")
        return f"| {figure['size']} | {figure['dtype']} | {what} | " + " | ".join(cells) + " |"

    for figure in figures["rows"]:
        forward, both = figure["floor"]
        lines.append(row(figure, "forward", "forward", 1e-3, "ms", forward))
        lines.append(row(figure, "forward + backward", "both", 1e-3, "ms", both))
        if "cpu" in figure["ours"]:
            lines.append(row(figure, "CPU time of forward", "cpu_forward", 1e-3, "ms", None))
            lines.append(row(figure, "CPU time of both", "cpu", 1e-3, "ms", None))
        lines.append(row(figure, "peak memory", "memory", 2**20, "MiB", None))
    lines += ["", "| size | views, bins, height, width | plan | places of the points |", "|---|---|---|---|"]
    for figure in figures["rows"][:: len(DTYPES)]:
        shape = " x ".join(map(str, figure["shape"]))
        lines.append(f"| {figure['size']} | {shape} | {1e3 * figure['plan']:.3g} ms | {1e3 * figure['place']:.3g} ms |")
    return lines


def launch_table(rows: list[dict]) -> list[str]:
    """Times of forward and backward with other launch sizes, in bfloat16, for the choice of `triton_kernel.LAUNCH`."""
    lines = ["| forward + backward by launch | " + " | ".join(SIZES) + " |", "|" + "---|" * (len(SIZES) + 1)]
    for row in rows:
        lines.append(f"| {row['launch']} | " + " | ".join(f"{1e3 * row[size]:.3g} ms" for size in SIZES) + " |")
    return lines


def run(way: str, threads: int, frames: int) -> list[dict]:
    """What `measure_all` returns on the CPU, from a process of its own."""
    command = [sys.executable, "-m", __name__, way, str(threads), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`bench pool` {way}: {done.stderr.strip()[-2000:] or 'ended without a message'}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_all(way: str, device: str, frames: int, launch: Launch | None = None) -> list[dict]:
    """The figures of one way for every size and type."""
    rows = []
    for size, config in SIZES.items():
        for name, dtype in DTYPES.items():
            case, place = make_case(config, dtype, device)
            plan = median_of(lambda: make_plan(case.index, case.plan.cells), frames, case.index.device)
            row = {"size": size, "dtype": name, "shape": case.plan.shape, "floor": case.floor_bytes}
            try:
                figures = measure(way, case, frames, launch)
            except torch.OutOfMemoryError:
                figures = dict.fromkeys(("forward", "both", "memory"))
                torch.cuda.empty_cache()
            rows.append({**row, "plan": plan, "place": place, **figures})
    return rows


def make_case(config: ModelConfig, dtype: torch.dtype, device: str) -> tuple[Case, float]:
    """Depths, context and plan of six cameras, and the seconds that placing the points takes."""
    views, poses = surround_cameras(CAMERAS, config.images.height, config.images.width)
    frustums = Frustums(config, views, device)
    moved = iter(range(10**9))

    def place():
        base_from_camera = poses.copy()
        base_from_camera[:, 0, 3] += 1e-6 * next(moved)  # with the same poses as before it would take no time
        return frustums.place(base_from_camera)

    seconds = median_of(place, 5, torch.device(device))
    index = frustums.place(poses).voxel_index[0]
    generator = torch.Generator().manual_seed(0)
    depth = torch.randn(index.shape, generator=generator).softmax(dim=1)
    context = torch.randn(CAMERAS, *index.shape[2:], config.lift.context_channels, generator=generator)
    context = context.to(device, dtype).permute(0, 3, 1, 2)
    x, y, slices = config.pooled_shape
    return Case(depth.to(device), context, index, make_plan(index, x * y * slices)), seconds


def median_of(work, runs: int, device: torch.device) -> float:
    """Median seconds of calls; the first one, which may compile, is not counted."""
    times = []
    for _ in range(runs + 1):
        clock = stopwatch(device)
        work()
        times.append(clock()())
    return statistics.median(times[1:])


def measure(way: str, case: Case, frames: int, launch: Launch | None = None) -> dict:
    """Median seconds of forward, and of forward and backward; on the CPU also seconds of CPU time; peak bytes.

    Raises:
        RuntimeError: the results are not those of the reference, so the times mean nothing.
    """
    device = case.depth.device
    depth, context = (value.detach().requires_grad_() for value in (case.depth, case.context))
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(case.plan.cells, context.shape[1], generator=generator).to(context)
    names = ("forward", "both", *(("cpu_forward", "cpu") if device.type == "cpu" else ()))
    spent: dict[str, list[float]] = {name: [] for name in names}
    result: Any = None
    peak, slow = 0, way != "ours" and device.type == "cpu"
    for number in range(1 + SLOW_RUNS if slow else WARM_RUNS + frames):
        depth.grad = context.grad = result = None
        before, clock, began = reset_peak(device), stopwatch(device), time.process_time()
        result = draw(way, depth, context, case, launch)
        forward, cpu_forward = clock(), time.process_time() - began
        result.backward(upstream)
        both, cpu = clock(), time.process_time() - began
        if number >= (1 if slow else WARM_RUNS):
            for name, seconds in zip(names, (forward(), both(), cpu_forward, cpu)):
                spent[name].append(seconds)
            kept = sum(value.numel() * value.element_size() for value in (result, depth.grad, context.grad))
            peak = max(peak, peak_bytes(device) - before - kept)
    compare(way, case, upstream, (result.detach(), depth.grad, context.grad))
    return {**{name: statistics.median(values) for name, values in spent.items()}, "memory": max(peak, 0)}


def draw(way: str, depth: Tensor, context: Tensor, case: Case, launch: Launch | None = None) -> Tensor:
    """(cells, C) by one of the ways."""
    if way == "textbook":
        return textbook(depth, context, case.index, case.plan.cells)
    if launch:
        return triton_kernel.pool(depth, context, case.plan, launch)
    return pool(depth, context, case.plan, "auto" if way == "ours" else way)


def textbook(depth: Tensor, context: Tensor, index: Tensor, cells: int) -> Tensor:
    """Lift, then splat: with the features of every frustum point in memory."""
    frustum = depth.unsqueeze(1) * context.unsqueeze(2)  # (N, C, D, H, W)
    features = frustum.permute(0, 2, 3, 4, 1).flatten(0, 3)
    inside = index.flatten() >= 0
    pooled = features.new_zeros(cells, context.shape[1])
    return pooled.index_add_(0, index.flatten()[inside], features[inside]).to(context.dtype)


def compare(way: str, case: Case, upstream: Tensor, found: Sequence[Tensor]) -> None:
    """
    Raises:
        RuntimeError: a result or a gradient is not that of the reference.
    """
    depth, context = (value.detach().requires_grad_() for value in (case.depth, case.context))
    result = pool(depth, context, case.plan, "reference")
    result.backward(upstream)
    for name, one, other in zip(("result", "depth", "context"), (result.detach(), depth.grad, context.grad), found):
        tolerance = TOLERANCE + (0 if one.dtype == torch.float32 else 2 * torch.finfo(one.dtype).eps)
        worst, largest = float((one.float() - other.float()).abs().max()), float(one.float().abs().max())
        if not worst <= tolerance * largest:
            raise RuntimeError(f"{way} and reference differ by {worst:.3g} of {largest:.3g} in {name}")


def main(argv: Sequence[str]) -> None:
    """The process of one way on the CPU: way, threads, runs."""
    way, threads, frames = argv
    torch.set_num_threads(int(threads))
    print(json.dumps(measure_all(way, "cpu", int(frames))))


if __name__ == "__main__":
    main(sys.argv[1:])
