"""`renderocc bench`: measured figures of this machine, as ratios within one run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["BENCHES", "machine", "main"]

EXAMPLE = "example: renderocc bench node --frames 20 --json bench.json"

# 'module:function', imported only when asked for; each takes a number of frames and returns figures for JSON and the
# lines of a Markdown table.
BENCHES = {
    "gpu": "renderocc_ros.commands.bench:bench_gpu",  # first: others then measure what can be relied on
    "node": "renderocc_ros.commands.bench:bench_node",
    "network": "renderocc_model.bench.network:bench_network",
    "render": "renderocc_model.bench.render:bench_render",
    "termination": "renderocc_model.bench.termination:bench_termination",
    "pool": "renderocc_model.bench.pool:bench_pool",
    "epipolar": "renderocc_model.bench.epipolar:bench_epipolar",
    "map": "renderocc_model.bench.map:bench_map",
    "loader": "training.bench_loader:bench_loader",
}


def machine() -> str:
    """Processor, cores and versions, one line."""
    import torch

    cpu_info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in cpu_info if line.startswith("model name")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc bench`: exit status 0."""
    parser = argparse.ArgumentParser(prog="renderocc bench", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("what", choices=[*BENCHES, "all"], help="what to measure")
    parser.add_argument("--frames", type=int, default=20, help="frames to take the median of (default: 20)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1:
        parser.error(f"--frames is {arguments.frames}; give at least 1")
    figures: dict = {}
    for name, target in BENCHES.items():
        if arguments.what in (name, "all"):
            result, lines = load(target)(arguments.frames)
            if not figures:  # late: it loads torch, and a bench may first set what torch reads when it is loaded
                figures["machine"] = machine()
                print(figures["machine"])
            figures[name] = result
            print("\n" + "\n".join(lines), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\nwritten: {arguments.json.resolve()}")
    return 0


def load(target: str) -> Callable[[int], tuple[dict, list[str]]]:
    """The function of a 'module:function' name."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)
