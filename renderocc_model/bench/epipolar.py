"""`renderocc bench epipolar`: comparison with earlier images along epipolar lines, ours against PyTorch.

Six cameras around a vehicle that drove 4 m and turned a little, in the sizes of the presets; every way gets the same
features.

    textbook    `grid_sample` of each earlier image's features at every depth of every pixel, times the pixel's own
    reference   `epipolar_similarity(..., backend="reference")`: a table of all pairs of pixels, read at four places
    ours        `epipolar_similarity(..., backend="cpu")`; on a CUDA device there are no loops of ours

Times are CPU times, which hold on a busy machine, too; memory is the process's peak beyond inputs, results and
gradients, in a process for each way. All results are compared before the figures are given.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..geometry.transforms import transform_from
from ..network.lift import Frustums, depth_bin_centres
from ..network.presets import preset
from ..network.stereo import earlier_images
from ..network.untrained import surround_cameras
from ..ops.epipolar import epipolar_similarity
from ..ops.epipolar.reference import NEAREST
from .measure import peak_bytes, reset_peak

__all__ = ["SIZES", "bench_epipolar", "main"]

WAYS = ("textbook", "reference", "ours")
SIZES = ("tiny", "base")
CAMERAS, CHANNELS, GROUPS, VIEWS = 6, 32, 4, 3
MOTION = (4.0, 0.3, 0.05)  # metres forward and to the left, radians
SLOW_RUNS = 3  # of PyTorch's ways
TOLERANCE = 1e-4  # relative to the largest number


def bench_epipolar(frames: int) -> tuple[dict, list[str]]:
    """Times and memory of each way; figures and a Markdown table.

    Args:
        frames: runs of ours to take the median of; PyTorch's ways take the median of three.
    """
    threads = torch.get_num_threads()
    rows = {way: run(way, threads, frames) for way in WAYS}
    lines = [
        f"epipolar similarity, {CAMERAS} cameras with {VIEWS} earlier images each, {CHANNELS} channels, "
        f"{GROUPS} groups; CPU, {threads} threads",
        "",
        "| size | bins, height, width | | textbook | reference | ours | textbook / ours | reference / ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = (("forward", "forward", 1e-3, "ms"), ("both", "forward + backward", 1e-3, "ms"))
    for number, size in enumerate(SIZES):
        each = {way: rows[way][number] for way in WAYS}
        shape = " x ".join(map(str, each["ours"]["shape"]))
        for key, what, scale, unit in (*kinds, ("memory", "peak memory", 2**20, "MiB")):
            values = [each[way][key] for way in WAYS]
            cells = [f"{value / scale:.3g} {unit}" for value in values]
            cells += [f"{value / max(values[-1], 1e-9):.1f}" for value in values[:-1]]
            lines.append(f"| {size} | {shape} | {what} | " + " | ".join(cells) + " |")
    return {"cpu": rows, "threads": threads}, lines


def run(way: str, threads: int, frames: int) -> list[dict]:
    """What `measure_all` returns, from a process of its own."""
    command = [sys.executable, "-m", __name__, way, str(threads), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`bench epipolar` {way}: {done.stderr.strip()[-2000:] or 'ended without a message'}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_all(way: str, frames: int) -> list[dict]:
    """The figures of one way for every size."""
    return [measure(way, make_case(size), frames) for size in SIZES]


def make_case(size: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of `epipolar_similarity` without the number of groups."""
    config = preset(size)
    views, poses = surround_cameras(CAMERAS, config.images.height, config.images.width)
    place = Frustums(config, views).place(poses).base_from_pixel
    x, y, angle = MOTION
    turn = np.array([0, 0, math.sin(angle / 2), math.cos(angle / 2)])
    base_from_earlier = torch.from_numpy(transform_from(np.array([-x, -y, 0.0]), turn))
    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(CAMERAS, *config.feature_shape, CHANNELS, generator=generator).permute(0, 3, 1, 2) for _ in range(2)
    )
    earlier = earlier_images(place, keys[None], base_from_earlier @ place, VIEWS)
    return queries, *earlier, torch.tensor(depth_bin_centres(config.lift.depth), dtype=torch.float32)


def measure(way: str, case: tuple[Tensor, Tensor, Tensor, Tensor], frames: int) -> dict:
    """Median seconds of CPU time of forward, and of forward and backward; peak bytes.

    Raises:
        RuntimeError: the results are not those of the reference, so the times mean nothing.
    """
    cpu = torch.device("cpu")
    queries, keys = (part.detach().requires_grad_() for part in case[:2])
    spent: list[tuple[float, float]] = []
    upstream = torch.randn(
        len(queries), GROUPS + 1, len(case[3]), *queries.shape[2:], generator=torch.Generator().manual_seed(1)
    )
    peak = 0
    result = None
    for _ in range(1 + (frames if way == "ours" else min(frames, SLOW_RUNS))):
        queries.grad = keys.grad = result = None
        before, began = reset_peak(cpu), time.process_time()
        result = draw(way, queries, keys, *case[2:])
        forward = time.process_time() - began
        result.backward(upstream)
        spent.append((forward, time.process_time() - began))
        assert queries.grad is not None and keys.grad is not None
        kept = sum(value.numel() * value.element_size() for value in (result, queries.grad, keys.grad))
        peak = max(peak, peak_bytes(cpu) - before - kept)
    assert result is not None and queries.grad is not None and keys.grad is not None
    compare(way, case, upstream, (result.detach(), queries.grad, keys.grad))
    forward, both = (statistics.median(values) for values in zip(*spent[1:]))
    shape = [len(case[3]), *queries.shape[2:]]
    return {"shape": shape, "forward": forward, "both": both, "memory": max(peak, 0)}


def draw(way: str, queries: Tensor, keys: Tensor, pixels: Tensor, depths: Tensor) -> Tensor:
    """(M, G + 1, D, h, w) by one of the ways."""
    if way == "textbook":
        return textbook(queries, keys, pixels, depths)
    return epipolar_similarity(queries, keys, pixels, depths, GROUPS, "cpu" if way == "ours" else way)


def textbook(queries: Tensor, keys: Tensor, pixels: Tensor, depths: Tensor) -> Tensor:
    """Warp the earlier features to each depth, then multiply: every warped feature is in memory."""
    total: Tensor | None = None
    for view in range(keys.shape[1]):
        one = textbook_of_view(queries, keys[:, view], pixels[:, view], depths)
        total = one if total is None else torch.where(total[:, -1:] > 0, total, one)
    assert total is not None
    return total


def textbook_of_view(queries: Tensor, keys: Tensor, pixels: Tensor, depths: Tensor) -> Tensor:
    """The same with one earlier image of each."""
    images, _, height, width = queries.shape
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)]).float().flatten(1)
    a, b, c = ((pixels[:, :, :3] @ points)[..., None] * depths + pixels[:, :, 3, None, None]).unbind(1)
    front = c > NEAREST
    x, y = a / torch.where(front, c, 1.0), b / torch.where(front, c, 1.0)
    seen = front & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    grid = torch.stack([(x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1], dim=-1)
    warped = functional.grid_sample(keys, grid, padding_mode="border", align_corners=False)  # (M, C, h w, D)
    products = (queries.flatten(2)[..., None] * warped).unflatten(1, (GROUPS, -1)).sum(dim=2) * seen[:, None]
    joined = torch.cat([products, seen[:, None].to(products.dtype)], dim=1)
    return joined.transpose(2, 3).reshape(images, GROUPS + 1, -1, height, width)


def compare(way: str, case: tuple[Tensor, Tensor, Tensor, Tensor], upstream: Tensor, found: Sequence[Tensor]) -> None:
    """Compare a way's result and gradients with those of the reference.

    Raises:
        RuntimeError: they are not the same.
    """
    queries, keys = (part.detach().requires_grad_() for part in case[:2])
    result = draw("reference", queries, keys, *case[2:])
    result.backward(upstream)
    for name, one, other in zip(("result", "queries", "keys"), (result.detach(), queries.grad, keys.grad), found):
        assert one is not None
        worst, largest = float((one - other).abs().max()), float(one.abs().max())
        if not worst <= TOLERANCE * largest:
            raise RuntimeError(f"{way} and reference differ by {worst:.3g} of {largest:.3g} in {name}")


def main(argv: Sequence[str]) -> None:
    """The process of one way: way, threads, runs."""
    way, threads, frames = argv
    torch.set_num_threads(int(threads))
    print(json.dumps(measure_all(way, int(frames))))


if __name__ == "__main__":
    main(sys.argv[1:])
