"""`renderocc bench pool`: that the ways it compares give the same results, and that it reports them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from renderocc_model import bench
from renderocc_model.base.config import apply_overrides
from renderocc_model.bench import pool as bench_pool
from renderocc_model.network.presets import PRESETS

pytestmark = pytest.mark.slow

SMALL = ("images.height=32", "images.width=64", "lift.context_channels=5", "lift.depth.count=9")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench_pool, "SIZES", {"small": apply_overrides(PRESETS["tiny"], SMALL)})


@pytest.mark.parametrize("way", bench_pool.WAYS)
def test_every_way_gives_the_results_of_the_reference(small, way):
    for row, dtype in zip(bench_pool.measure_all(way, "cpu", 1), bench_pool.DTYPES, strict=True):
        assert row["size"] == "small" and row["dtype"] == dtype and row["shape"] == (6, 9, 4, 8)
        assert 0 < row["forward"] <= row["both"] and row["plan"] > 0 and row["place"] > 0 and row["memory"] >= 0
        json.dumps(row)


def test_results_that_differ_are_no_figures(small):
    case, _ = bench_pool.make_case(bench_pool.SIZES["small"], torch.float32, "cpu")
    depth, context = case.depth.clone().requires_grad_(), case.context.clone().requires_grad_()
    result = bench_pool.textbook(depth, context, case.index, case.plan.cells)
    upstream = torch.ones_like(result)
    result.backward(upstream)
    found = [result.detach(), depth.grad, context.grad]
    bench_pool.compare("textbook", case, upstream, found)
    found[2] = found[2] + found[2].abs().max() / 10
    with pytest.raises(RuntimeError, match="textbook and reference differ by .* in context"):
        bench_pool.compare("textbook", case, upstream, found)


def test_the_sizes_are_those_that_peers_give_figures_for():
    case, _ = bench_pool.make_case(bench_pool.SIZES["640x1600"], torch.bfloat16, "cpu")
    assert case.plan.shape == (6, 118, 40, 100) and case.plan.cells == 200 * 200 and case.context.shape[1] == 80


def test_floor_counts_what_is_read_and_written_once(small):
    case, _ = bench_pool.make_case(bench_pool.SIZES["small"], torch.bfloat16, "cpu")
    inside = int((case.index >= 0).sum())
    # 6 x 9 x 4 x 8 depths of 4 bytes, 6 x 5 x 4 x 8 numbers of context of 2, 100 x 100 x 4 cells of 5 numbers of 2 and
    # a start of 4; backward a cell for each depth, depth and context again and their gradients, and the upstream one.
    forward = 8 * inside + 4 * 40_000 + 6912 + 1920 + 400_000
    assert case.floor_bytes == (forward, forward + 6912 + 2 * (6912 + 1920) + 400_000)


def test_the_table_shows_times_memory_ratios_and_the_plan(monkeypatch, capsys, tmp_path):
    seconds = {"textbook": 0.060, "reference": 0.020, "ours": 0.001}
    monkeypatch.setattr(bench_pool, "copy_speed", lambda *_: 2e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(way, threads, frames):
        shared = {"shape": (6, 9, 4, 8), "floor": (1e6, 3e6), "plan": 0.002, "place": 0.003}
        spent = {"forward": seconds[way] / 2, "both": seconds[way], "cpu_forward": 0.003, "cpu": 0.004}
        memory = {"memory": seconds[way] * 2**30}
        return [{"size": "base", "dtype": dtype, **shared, **spent, **memory} for dtype in bench_pool.DTYPES]

    monkeypatch.setattr(bench_pool, "run", run)
    path = tmp_path / "pool.json"
    assert bench.main(["pool", "--frames", "3", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    # 1 MB in 0.5 ms is 2 GB/s; 3 MB in 1 ms are 3 GB/s, faster than the copy: from caches.
    assert "| base | float32 | forward | 30 ms | 10 ms | 0.5 ms | 60.0 | 20.0 | 100% |" in printed
    assert "| base | bfloat16 | forward + backward | 60 ms | 20 ms | 1 ms | 60.0 | 20.0 | 150% |" in printed
    assert "| base | float32 | CPU time of both | 4 ms | 4 ms | 4 ms | 1.0 | 1.0 |  |" in printed
    assert "| 61.4 MiB | 20.5 MiB | 1.02 MiB | 60.0 | 20.0 |  |" in printed
    assert "| base | 6 x 9 x 4 x 8 | 2 ms | 3 ms |" in printed
    assert len(json.loads(Path(path).read_text())["pool"]["cpu"]["rows"]) == 2


def test_launches_are_compared_in_a_table():
    rows = [{"launch": "Launch(cells=4)", **dict.fromkeys(bench_pool.SIZES, 0.001)}]
    assert bench_pool.launch_table(rows)[-1] == "| Launch(cells=4) | 1 ms | 1 ms | 1 ms |"


def test_a_way_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(bench_pool.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="`bench pool` ours: ended without a message"):
        bench_pool.run("ours", 1, 1)
