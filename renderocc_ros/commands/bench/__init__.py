"""`renderocc bench gpu` compares the kernels of the GPU with their references; `bench node` measures the node without
its network against a conventional baseline, and then the whole node."""

from __future__ import annotations

from renderocc_ros.process import prepare_process

__all__ = ["bench_gpu", "bench_node"]


def bench_gpu(frames: int) -> tuple[dict, list[str]]:
    """Compare the kernels of the GPU with their references; in this process, do without what is not sound.

    Returns:
        part -> "sound" or what was found, empty without a CUDA device; and lines to print.
    """
    prepare_process()
    import torch

    if not torch.cuda.is_available():
        return {}, ["no CUDA device: no kernel is compared with its reference"]
    from renderocc_model.inference.gpu_check import leave_out_unsound

    findings = leave_out_unsound(torch.device("cuda"))
    figures = {finding.part: finding.kind if finding.kind == "sound" else finding.reason for finding in findings}
    return figures, [finding.sentence for finding in findings]


def bench_node(frames: int) -> tuple[dict, list[str]]:
    """Measure the node without its network against the conventional baseline, and then the whole node.

    Returns:
        The results, and the lines of their Markdown tables.
    """
    prepare_process()
    from renderocc_ros.commands.bench import whole
    from renderocc_ros.commands.bench.node import HEIGHT, STAGES, VOXELS, WIDTH, run

    results = run(frames)
    ours, conventional = results["ours"], results["conventional"]
    lines = [
        f"node without its network: 6 raw {WIDTH}x{HEIGHT} images in, {VOXELS:,} voxels out; "
        f"CPU time of a frame, median of {frames}",
        "",
        "| stage | conventional baseline | this node | ratio |",
        "|---|---|---|---|",
    ]
    for stage in STAGES:
        a, b = conventional["stages"][stage], ours["stages"][stage]
        lines.append(f"| {stage} | {a * 1e3:.1f} ms | {b * 1e3:.1f} ms | {b / a:.3f} |")
    lines.append(
        f"| all | {conventional['total'] * 1e3:.1f} ms | {ours['total'] * 1e3:.1f} ms "
        f"| {ours['total'] / conventional['total']:.3f} |"
    )
    a, b = conventional["memory_kib"] / 1024, ours["memory_kib"] / 1024
    lines.append(f"| peak memory | {a:.0f} MiB | {b:.0f} MiB | {b / a:.2f} |")
    played = whole.run(frames)
    return {**results, "whole": played}, [*lines, "", *whole.lines_of(played, frames)]
