"""The node's part of `renderocc bench`: its byte paths, and the whole of it."""

from __future__ import annotations

from renderocc_ros.process import prepare_process

__all__ = ["bench_node"]


def bench_node(frames: int) -> tuple[dict, list[str]]:
    """The node's byte paths against the usual way, then the whole node; results and Markdown tables."""
    prepare_process()
    from renderocc_ros.commands.bench import whole
    from renderocc_ros.commands.bench.node import HEIGHT, STAGES, VOXELS, WIDTH, run

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
    played = whole.run(frames)
    return {**results, "whole": played}, [*lines, "", *whole.lines_of(played, frames)]
