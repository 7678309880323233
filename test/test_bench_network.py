"""`renderocc bench network`: both ways find the same, and the table says what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from renderocc_model import bench as bench_command
from renderocc_model.bench import backends
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
    absent = {name: missing for name in backends.BACKENDS if not name.startswith("torch")}
    monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, **absent})
    path = tmp_path / "bench.json"
    assert bench_command.main(["network", "--frames", "2", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    rows, libraries = rows[:8], rows[8:]
    # Head, rule, and three lines for each of two presets, of as many cells; then head, rule and the libraries.
    assert len(libraries) == 2 + len(backends.BACKENDS) and {row.count("|") for row in libraries} == {5}
    assert len(rows) == 8 and {row.count("|") for row in rows} == {len(bench.STAGES) + 6}
    figures = json.loads(path.read_text())["network"]
    for name in ("tiny", "base"):
        for way in bench.WAYS:
            one = figures["presets"][name][way]
            assert set(one["stages"]) == set(bench.STAGES)
            assert 0 < sum(one["stages"].values()) <= one["frame"] * 1.5 and one["cpu"] > 0 and one["peak_bytes"] >= 0


def missing(checkpoint, folder, frames):
    raise ValueError("a library cannot be imported; python3 -m pip install it")


def test_a_library_that_is_missing_is_a_row_that_says_what_to_install_and_others_have_ratios_to_torch():
    lines = backends.backend_lines({"torch, float32": 0.2, "torch, bfloat16": 0.1, "c": 0.05, "d": "pip install d"}, 3)
    assert lines[-4:] == [
        "| torch, float32 | 200.0 ms | 1.00 | 2.00 |",
        "| torch, bfloat16 | 100.0 ms | 0.50 | 1.00 |",
        "| c | 50.0 ms | 0.25 | 0.50 |",  # 0.05 / 0.2 and 0.05 / 0.1
        "| d | not measured: pip install d | | |",
    ]
    without = backends.backend_lines({"torch, float32": 0.2, "torch, bfloat16": "no", "c": 0.05}, 3)
    assert without[-1] == "| c | 50.0 ms | 0.25 |  |"


def test_each_library_that_is_installed_is_measured(monkeypatch):
    """Of a small network: what is not measured names its package. Other tests export it for onnxruntime."""
    rows = ("torch, float32", "OpenVINO, float32", "OpenVINO, INT8 and float32")
    monkeypatch.setattr(backends, "BACKENDS", {name: backends.BACKENDS[name] for name in rows})
    checkpoint = untrained_checkpoint(SMALL, OCC3D_NUSCENES)
    for name, found in backends.measure_backends(checkpoint, 1).items():
        assert (isinstance(found, float) and found > 0) or "cannot be imported" in found, (name, found)
