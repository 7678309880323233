"""`renderocc bench termination`: that the ways it compares give the same results, and that it reports them."""

import json

import pytest
import torch

from renderocc_model import bench
from renderocc_model.bench import render_scene
from renderocc_model.bench import termination as bench_termination
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.ops.termination import cpu_kernel

pytestmark = pytest.mark.slow


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(render_scene, "GRID", VoxelGrid((-16.0, -6.0, -1.0), (16.0, 6.0, 2.2), 0.4))  # 80 x 30 x 8
    monkeypatch.setattr(render_scene, "RAYS", 6000)


@pytest.mark.parametrize("kind", bench_termination.KINDS)
def test_all_ways_give_the_same_windows_depths_and_gradients(small, kind):
    found = {}
    for way in bench_termination.WAYS:
        figures, found[way] = bench_termination.measure(way, 1, kind=kind)
        assert 0 < figures["forward"] <= figures["both"] and figures["windows"] > 0 and figures["clock"] > 0
        json.dumps(figures)
    for way in ("textbook", "ours"):
        bench_termination.compare(way, found["reference"], found[way])
    starts, ends, before, window, gradient = found["ours"]
    returned = torch.isfinite(starts)
    assert 1000 < returned.sum() < 5000 and (window[returned] > 0).all() and not window[~returned].any()
    # Windows are 0.8 m, and longer where they follow the ground; each of the values is compared, so there are some.
    assert ((ends - starts)[returned] > 0.81).sum() > 20 and before.any() and gradient.any()


def test_ways_that_do_not_agree_are_no_figures():
    values = [torch.ones(4) for _ in range(5)]
    bench_termination.compare("ours", values, values)
    other = [*values[:3], torch.tensor([1, 1, 1, 1.1]), values[4]]
    with pytest.raises(RuntimeError, match="ours and reference differ by 0.1 of 4 in depth of the window"):
        bench_termination.compare("ours", values, other)
    other[0] = torch.tensor([1, 1, 1, float("inf")])
    with pytest.raises(RuntimeError, match="which numbers are finite in start"):
        bench_termination.compare("ours", values, other)


def test_the_table_shows_times_memory_and_ratios(monkeypatch, capsys):
    seconds = {"textbook": 60.0, "reference": 20.0, "ours": 1.0}
    monkeypatch.setattr(bench_termination, "load", lambda path: [])
    monkeypatch.setattr(
        bench_termination,
        "run",
        lambda way, kind, threads, frames, folder: {
            "windows": seconds[way] / 4,
            "forward": seconds[way] / 2,
            "both": seconds[way],
            "clock": 2 * seconds[way],
            "memory": seconds[way] * 2**20,
        },
    )
    assert bench.main(["termination", "--frames", "3"]) == 0
    printed = capsys.readouterr().out
    assert "38,400 rays through 200 x 200 x 16 voxels, steps of 0.5 voxels" in printed
    assert "| windows | 1.5e+04 ms | 5e+03 ms | 250 ms | 60.0 | 20.0 |" in printed
    assert "| forward + backward | 6e+04 ms | 2e+04 ms | 1e+03 ms | 60.0 | 20.0 |" in printed
    assert "| peak memory beyond inputs and gradients | 60 MiB | 20 MiB | 1 MiB | 60.0 | 20.0 |" in printed


def test_a_way_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_termination.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="`bench termination` ours, opaque: ended without a message"):
        bench_termination.run("ours", "opaque", 1, 1, tmp_path)


def test_the_part_for_gpus_goes_as_far_as_it_can_without_one(small, monkeypatch):
    """On the CPU, with its loops in the place of Triton's; the clock and the peak of memory are the CPU's, too."""
    monkeypatch.setattr(bench_termination.torch.cuda, "get_device_name", lambda: "no GPU")
    monkeypatch.setattr(bench_termination, "copy_speed", lambda device: 5e9)
    monkeypatch.setattr(bench_termination.triton_kernel, "termination", cut_and_run := CutAndRun())
    figures, lines = bench_termination.bench_cuda(1, "cpu")
    assert "on no GPU, which copies 5 GB/s (read and written)" in lines
    # 80 x 30 x 8 numbers of 4 bytes, read and written: 153,600 bytes at 5 GB/s.
    assert "| floor of forward + backward | | | 0.0307 ms | | |" in lines
    assert list(figures["launches"]) == [str(cut) for cut in bench_termination.LAUNCHES]
    assert set(cut_and_run.launches) == set(bench_termination.LAUNCHES) and json.dumps(figures)


class CutAndRun:
    """The CPU's loops, and what they were asked for."""

    def __init__(self):
        self.launches = []

    def __call__(self, *arguments, launch):
        self.launches.append(launch)
        return cpu_kernel.termination(*arguments)
