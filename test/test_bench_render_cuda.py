"""The part of `renderocc bench render` for CUDA devices, as far as it goes without one."""

import json

import pytest
import torch

from renderocc_model.bench import render_cuda as bench_render_cuda
from renderocc_model.bench import render_scene
from renderocc_model.geometry.grid import VoxelGrid

pytestmark = pytest.mark.slow


def test_textbook_and_reference_agree_in_every_type(monkeypatch):
    monkeypatch.setattr(render_scene, "GRID", VoxelGrid((-4.0, -4.0, -1.0), (4.0, 4.0, 2.2), 0.4))  # 20 x 20 x 8
    monkeypatch.setattr(render_scene, "RAYS", 200)
    rays = render_scene.bench_rays()
    for dtype in bench_render_cuda.DTYPES.values():
        field = [value.to(dtype) for value in render_scene.bench_field("opaque")]
        figures, expected = bench_render_cuda.measure("reference", field, rays, 1)
        found = bench_render_cuda.measure("textbook", field, rays, 1)[1]
        bench_render_cuda.compare("textbook", expected, found, dtype)
        assert 0 < figures["forward"] <= figures["both"]
        found[3] = found[3] + expected[3].abs().max() / 10
        with pytest.raises(RuntimeError, match="textbook and triton differ by .* in gradient of density"):
            bench_render_cuda.compare("textbook", expected, found, dtype)


def test_floor_counts_the_field_twice_and_its_gradients_once():
    # (2 + 6) numbers of 4 bytes, three times: 96 bytes; at 48 bytes a second, 2 s.
    assert bench_render_cuda.floor_seconds([torch.zeros(2), torch.zeros(2, 3)], 48.0) == 2.0


def test_table_shows_ratios_memory_the_floor_and_what_did_not_fit():
    row = {
        "field": "opaque",
        "dtype": "float32",
        "floor": 5e-5,
        "textbook": None,
        "reference": {"forward": 0.01, "both": 0.03, "memory": 100 * 2**20},
        "triton": {"forward": 0.001, "both": 0.002, "memory": 4 * 2**20},
        "launches": {"Launch(run=8)": 0.002},
    }
    figures = {"device": "a GPU", "copy_gb_s": 2500.0, "rows": [row]}
    json.dumps(figures)
    printed = "\n".join(bench_render_cuda.table(figures, ["textbook", "reference", "triton"]))
    assert "on a GPU, which copies 2500 GB/s" in printed
    assert "| forward + backward | out of memory | 30 ms | 2 ms |  | 15.0 | 0.05 ms |" in printed
    assert "| peak memory | out of memory | 100 MiB | 4 MiB |  | 25.0 |  |" in printed
    assert "| Launch(run=8) | 2 ms |" in printed
