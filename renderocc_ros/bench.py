"""`renderocc bench`: measured figures of this machine, as ratios within one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from renderocc_ros.process import prepare_process

EXAMPLE = "example: renderocc bench node --frames 20 --json bench.json"


def machine() -> str:
    """Processor, cores and versions, one line."""
    import torch

    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


def bench_node(frames: int) -> tuple[dict, list[str]]:
    """The node's byte paths against the usual way; results and a Markdown table."""
    from renderocc_ros.bench_node import HEIGHT, STAGES, VOXELS, WIDTH, run

    results = run(frames)
    ours, usual = results["ours"], results["usual"]
    lines = [
        f"node without its network: 6 raw {WIDTH}x{HEIGHT} images in, {VOXELS:,} voxels out; "
        f"CPU time of a frame, median of {frames}",
        "",
        "| stage | the usual way | this node | ratio |",
        "|---|---|---|---|",
    ]
    for stage in STAGES:
        a, b = usual["stages"][stage], ours["stages"][stage]
        lines.append(f"| {stage} | {a * 1e3:.1f} ms | {b * 1e3:.1f} ms | {b / a:.3f} |")
    lines.append(
        f"| all | {usual['total'] * 1e3:.1f} ms | {ours['total'] * 1e3:.1f} ms | {ours['total'] / usual['total']:.3f} |"
    )
    a, b = usual["memory_kib"] / 1024, ours["memory_kib"] / 1024
    lines.append(f"| peak memory | {a:.0f} MiB | {b:.0f} MiB | {b / a:.2f} |")
    return results, lines


def bench_network(frames: int) -> tuple[dict, list[str]]:
    """`tiny` with everything after it: six views to occupancy in the host's memory; results and a Markdown table."""
    import statistics
    import time

    import torch

    from renderocc_model.predictor import Predictor

    predictor = Predictor.untrained("tiny")
    predictor.warm_up()
    durations = []
    for _ in range(frames):
        start = time.perf_counter()
        predictor.warm_up()
        durations.append(time.perf_counter() - start)
    median = statistics.median(durations)
    device = (
        torch.cuda.get_device_name() if predictor.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    lines = [
        f"network `tiny`, six views to occupancy, {device}, {predictor.precision}; median of {frames}",
        "",
        "| time | frames a second |",
        "|---|---|",
        f"| {median * 1e3:.0f} ms | {1 / median:.1f} |",
    ]
    return {"predict": median, "device": device, "precision": predictor.precision}, lines


BENCHES = {"node": bench_node, "network": bench_network}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="renderocc bench", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("what", choices=[*BENCHES, "all"], help="what to measure")
    parser.add_argument("--frames", type=int, default=20, help="frames to take the median of (default: 20)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1:
        parser.error(f"--frames is {arguments.frames}; give at least 1")
    prepare_process()
    figures = {"machine": machine()}
    print(figures["machine"])
    for name, bench in BENCHES.items():
        if arguments.what in (name, "all"):
            figures[name], lines = bench(arguments.frames)
            print("\n" + "\n".join(lines), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\nwritten: {arguments.json.resolve()}")
    return 0
