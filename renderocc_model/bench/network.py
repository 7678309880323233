"""`renderocc bench network`: from six views to occupancy on the host, the plain way and the vehicle path, in turn.

Plain: the network as it is trained, under autocast, launched operator by operator; logits of all voxels; visibility by
PyTorch (`visible_voxels`); dense arrays brought to the host. The vehicle path is `Predictor`'s. Networks are untrained:
about one voxel in 20 is occupied. Every frame has other poses, as on a moving vehicle. After that, `tiny` on the CPU by
each library that can run it (`backends`).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from renderocc_model.bench.backends import backend_lines, measure_backends
from renderocc_model.bench.measure import peak_bytes, reset_peak
from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.threshold import threshold_of_voxels
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.images.preprocessing import normalise
from renderocc_model.inference.cuda_graph import record_graph
from renderocc_model.inference.precision import autocast, chosen_device, chosen_precision
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.lift import Frustums
from renderocc_model.network.presets import PRESETS
from renderocc_model.network.untrained import surround_cameras, untrained_checkpoint
from renderocc_model.ops.visibility import visible_voxels

__all__ = ["STAGES", "WAYS", "bench_network", "measure"]

CAMERAS = 6
STAGES = ("upload", "network", "post-processing", "download")
WAYS = ("plain", "vehicle")
_UNCOUNTED = 3  # first frames: kernels are compiled, a graph is recorded
_FEW = 3  # frames of `base` without a GPU: each takes seconds
Clock = Callable[[str], None]  # called at the end of each stage with its name


def bench_network(frames: int) -> tuple[dict, list[str]]:
    """`tiny`, and `base`, both ways, then `tiny` by each library; results and Markdown tables."""
    device = chosen_device("auto")
    precision = chosen_precision("auto", device)
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    counts = {"tiny": frames, "base": frames if on_gpu else min(frames, _FEW)}
    rows = {name: measure(PRESETS[name], device, precision, count) for name, count in counts.items()}
    lines = [
        f"network and what follows it, {CAMERAS} views to occupancy on the host, {where}, {precision}; medians of "
        + ", ".join(f"{count} (`{name}`)" for name, count in counts.items()),
        "",
        f"| preset | | {' | '.join(STAGES)} | frame | frames/s | peak memory |",
        f"|---|---|{'---|' * (len(STAGES) + 3)}",
    ]
    for name, row in rows.items():
        for way in WAYS:
            one = row[way]
            stages = " | ".join(_milliseconds(one["stages"][stage]) for stage in STAGES)
            total, memory = one["frame"], one["peak_bytes"] / 2**20
            cells = f"{stages} | {_milliseconds(total)} | {1 / total:.1f} | {memory:.0f} MiB"
            lines.append(f"| `{name}` | {way} | {cells} |")
        ratios = [f"{row['plain']['stages'][s] / max(row['vehicle']['stages'][s], 1e-9):.2f}" for s in STAGES]
        whole = row["plain"]["frame"] / row["vehicle"]["frame"]
        memory = row["plain"]["peak_bytes"] / max(row["vehicle"]["peak_bytes"], 1)
        lines.append(f"| | ratio | {' | '.join(ratios)} | {whole:.2f} | {whole:.2f} | {memory:.2f} |")
    libraries = measure_backends(untrained_checkpoint(PRESETS["tiny"], OCC3D_NUSCENES), frames)
    lines += ["", *backend_lines(libraries, frames)]
    return {"device": where, "precision": precision, "frames": counts, "presets": rows, "libraries": libraries}, lines


def measure(config: ModelConfig, device: torch.device, precision: str, frames: int) -> dict:
    """{way: {"stages": {stage: seconds}, "frame": seconds, "cpu": seconds of CPU time, "peak_bytes": bytes}}.

    Medians. Stages within a replayed graph cannot be measured: the network's time is that of a graph of the network
    alone. The frame is the whole call of `predict`, with the host's work.
    """
    checkpoint = untrained_checkpoint(config, OCC3D_NUSCENES, 0, device)
    height, width = config.images.height, config.images.width
    views, poses = surround_cameras(CAMERAS, height, width)
    tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
    pictures = np.random.default_rng(0).integers(0, 256, (CAMERAS, height, width, 3), dtype=np.uint8)
    predictor = Predictor(checkpoint, device=device, precision=precision)
    ways = {"plain": plain_way(checkpoint, tables, device, precision), "vehicle": vehicle_way(predictor, tables)}
    times: dict[str, dict[str, list[float]]] = {way: {stage: [] for stage in (*STAGES, "frame", "cpu")} for way in WAYS}
    for frame in range(_UNCOUNTED + frames):
        moved = _moved(poses, frame)
        for way in WAYS:
            spent = _timed(partial(ways[way], pictures, moved), device)
            if frame >= _UNCOUNTED:
                for stage, seconds in spent.items():
                    times[way][stage].append(seconds)
    peaks = {}
    for way in WAYS:  # after the times, because measuring the peak slows a frame down
        before = reset_peak(device)
        _timed(partial(ways[way], pictures, poses), device)
        peaks[way] = peak_bytes(device) - before
    results: dict[str, dict] = {}
    for way in WAYS:
        medians = {name: statistics.median(seconds) for name, seconds in times[way].items() if seconds}
        stages = {stage: medians[stage] for stage in STAGES}
        results[way] = {"stages": stages, "frame": medians["frame"], "cpu": medians["cpu"], "peak_bytes": peaks[way]}
    if predictor._recorder is not None:
        _tell_stages_apart(predictor, tables, results["vehicle"]["stages"], pictures)
    return results


def plain_way(checkpoint: Checkpoint, tables: list[UndistortTable], device: torch.device, precision: str) -> Callable:
    """A function of (pictures, poses, clock): one frame, operator by operator."""
    network, grid = checkpoint.network, checkpoint.grid
    threshold = threshold_of_voxels(checkpoint.threshold, grid, device)
    views = [table.view for table in tables]
    frustums = Frustums(checkpoint.config, views, device)
    ids = torch.tensor(checkpoint.classes.occupied_ids, dtype=torch.uint8, device=device)

    def frame(pictures: np.ndarray, poses: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        geometry = frustums.place(poses)
        given = torch.from_numpy(pictures).to(device)
        clock("upload")
        with autocast(device, precision):
            output = network(normalise(given)[None], geometry)
        clock("network")
        field = SemanticDensityField.of_layers(grid, output.density[0], output.semantics[0])
        confidence = field.occupancy_probability()
        visible = visible_voxels(field, views, poses, backend="reference")
        semantics = torch.full_like(visible, UNLABELLED, dtype=torch.uint8)
        semantics.masked_fill_(visible, checkpoint.classes.free)
        labels = ids[field.semantics.argmax(dim=-1)]
        semantics = torch.where(visible & (confidence > threshold), labels, semantics)
        clock("post-processing")
        arrays = tuple(tensor.cpu().numpy() for tensor in (semantics, confidence, visible))
        clock("download")
        return arrays

    return torch.inference_mode()(frame)


def vehicle_way(predictor: Predictor, tables: list[UndistortTable]) -> Callable:
    """A function of (pictures, poses, clock): one frame as `Predictor.predict`, with the arrays that the node reads."""

    def frame(pictures: np.ndarray, poses: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        if predictor._recorder is None:
            cameras = predictor._camera_sets.of(tables)
            geometry = cameras.frustums.place(poses)
            given = predictor._upload(pictures)
            cameras.plan(geometry)
            clock("upload")
            prediction = predictor._run_network(given, cameras, geometry, None)
            clock("network")
            occupancy = predictor._occupancy(prediction, cameras, poses)
            clock("post-processing")
        else:
            occupancy = predictor.predict(pictures, tables, poses)
            clock("network")
        arrays = occupancy.semantics, occupancy.visible, *occupancy.surface_points()
        clock("download")
        return arrays

    return torch.inference_mode()(frame)


def _timed(work: Callable, device: torch.device) -> dict[str, float]:
    """Seconds of each stage, of the whole, and of CPU time; a stage ends when the device has done its work."""
    spent: dict[str, float] = {}
    began = last = time.perf_counter()
    cpu = time.process_time()

    def clock(stage: str) -> None:
        nonlocal last
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        spent[stage], last = now - last, now

    work(clock=clock)
    spent["frame"], spent["cpu"] = time.perf_counter() - began, time.process_time() - cpu
    return {**dict.fromkeys(STAGES, 0.0), **spent}


def _tell_stages_apart(predictor: Predictor, tables: list, stages: dict, pictures: np.ndarray) -> None:
    """Split the time of a replayed frame, which `stages` has under "network", into upload, network and the rest."""
    frames = predictor._camera_sets.of(tables).frames
    if frames is None:  # the graph could not be recorded
        return
    device, whole = predictor.device, stages["network"]
    with torch.inference_mode():
        alone = record_graph(frames.network_alone, device)

        def upload(clock: Clock) -> None:
            frames.upload(pictures)
            clock("upload")

        def network(clock: Clock) -> None:
            alone()
            clock("network")

        for stage, work in (("upload", upload), ("network", network)):
            seconds = [_timed(work, device)[stage] for _ in range(20)]
            stages[stage] = statistics.median(seconds)
    stages["post-processing"] = max(0.0, whole - stages["upload"] - stages["network"])


def _moved(poses: np.ndarray, frame: int) -> np.ndarray:
    """The poses of cameras whose vehicle rolls a little from frame to frame."""
    roll = 0.01 * math.sin(frame)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]]
    return turn @ poses


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds * 1e3:.0f} ms"
