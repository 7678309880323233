"""`renderocc bench network`: both ways find the same, and the table says what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from renderocc_model import bench as bench_command
from renderocc_model.bench import network as bench
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.presets import preset
from renderocc_model.network.untrained import surround_cameras, untrained_checkpoint

pytestmark = pytest.mark.slow

SMALL = preset("tiny", ("images.height=64", "images.width=96", "grid.lower=[-8, -8, -1]", "grid.upper=[8, 8, 5.4]"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_both_ways_find_the_same_voxels():
    checkpoint = untrained_checkpoint(SMALL, OCC3D_NUSCENES)
    views, poses = surround_cameras(bench.CAMERAS, 64, 96)
    tables = [UndistortTable(bench.CameraModel(96, 64, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
    pictures = np.random.default_rng(3).integers(0, 256, (bench.CAMERAS, 64, 96, 3), dtype=np.uint8)
    plain = bench.plain_way(checkpoint, tables, torch.device("cpu"), "float32")
    vehicle = bench.vehicle_way(Predictor(checkpoint, device="cpu", precision="float32"), tables)
    ended: dict[str, list[str]] = {"plain": [], "vehicle": []}
    semantics, _, visible = plain(pictures, poses, ended["plain"].append)
    found, seen, *_ = vehicle(pictures, poses, ended["vehicle"].append)
    assert (semantics != found).mean() < 1e-3 and (visible != seen).mean() < 1e-3
    assert ended["plain"] == ended["vehicle"] == list(bench.STAGES)


def test_the_table_has_both_ways_of_each_preset_and_their_ratio(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "PRESETS", {"tiny": SMALL, "base": SMALL})
    path = tmp_path / "bench.json"
    assert bench_command.main(["network", "--frames", "2", "--json", str(path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    # Head, rule, and three lines for each of two presets, of as many cells.
    assert len(rows) == 8 and {row.count("|") for row in rows} == {len(bench.STAGES) + 6}
    figures = json.loads(path.read_text())["network"]
    for name in ("tiny", "base"):
        for way in bench.WAYS:
            one = figures["presets"][name][way]
            assert set(one["stages"]) == set(bench.STAGES)
            assert 0 < sum(one["stages"].values()) <= one["frame"] * 1.5 and one["cpu"] > 0 and one["peak_bytes"] >= 0
