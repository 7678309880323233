"""`renderocc bench render`: that the ways it compares give the same results, and that it reports them."""

import json

import numpy as np
import pytest
import torch

from renderocc_model import bench
from renderocc_model.bench import render as bench_render
from renderocc_model.bench import render_scene
from renderocc_model.geometry.grid import VoxelGrid

pytestmark = pytest.mark.slow


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(render_scene, "GRID", VoxelGrid((-4.0, -4.0, -1.0), (4.0, 4.0, 2.2), 0.4))  # 20 x 20 x 8
    monkeypatch.setattr(render_scene, "RAYS", 300)


@pytest.mark.parametrize("kind", render_scene.FIELDS)
def test_all_ways_give_the_same_results_and_gradients(small, kind, tmp_path):
    for way in bench_render.WAYS:
        figures = bench_render.measure(way, kind, 1, tmp_path)
        assert 0 < figures["forward"] <= figures["both"] and figures["cpu"] > 0 and figures["memory_kib"] >= 0
        json.dumps(figures)
    bench_render.compare(tmp_path, kind)
    with np.load(tmp_path / f"reference_{kind}.npz") as results:
        opacity = results[results.files[2]]
        # At most 0.001 / m on the grid's diagonal of 12 m, or ground and walls; many rays begin beside so small a grid.
        assert opacity.max() < 0.012 if kind == "transparent" else (opacity > 0.99).sum() > 20


def test_ways_that_do_not_agree_are_no_figures(tmp_path):
    values = [np.ones(3), np.ones((3, 2)), np.ones(3), np.ones(4), np.ones((4, 2))]
    for way in bench_render.WAYS:
        np.savez(tmp_path / f"{way}_opaque.npz", *values)
    bench_render.compare(tmp_path, "opaque")
    values[3] = np.array([1, 1, 1, 1.1])
    np.savez(tmp_path / "ours_opaque.npz", *values)
    with pytest.raises(RuntimeError, match="ours and reference differ by 0.1 of 1 in gradient of density"):
        bench_render.compare(tmp_path, "opaque")


def test_the_table_shows_times_memory_and_ratios(monkeypatch, capsys):
    seconds = {"textbook": 60.0, "reference": 20.0, "ours": 1.0}
    monkeypatch.setattr(bench_render, "compare", lambda folder, kind: None)
    monkeypatch.setattr(
        bench_render,
        "run",
        lambda way, kind, threads, frames, folder: {
            "forward": seconds[way] / 2,
            "both": seconds[way],
            "cpu": 2 * seconds[way],
            "memory_kib": seconds[way] * 2**20,
        },
    )
    assert bench.main(["render", "--frames", "3"]) == 0
    printed = capsys.readouterr().out
    assert "38,400 rays through 200 x 200 x 16 voxels of 17 classes, steps of 0.5 voxels" in printed
    assert f"CPU, {torch.get_num_threads()} threads, float32" in printed
    assert "| opaque | forward + backward | 60 s | 20 s | 1 s | 60.0 | 20.0 |" in printed
    assert "| transparent | CPU time of both | 120 s | 40 s | 2 s | 60.0 | 20.0 |" in printed
    assert "| 6.14e+04 MiB | 2.05e+04 MiB | 1.02e+03 MiB | 60.0 | 20.0 |" in printed


def test_a_way_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_render.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="`bench render` ours, opaque: ended without a message"):
        bench_render.run("ours", "opaque", 1, 1, tmp_path)
