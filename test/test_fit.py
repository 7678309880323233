"""`renderocc fit`: a free field learns what labels say, and what the command writes."""

import re

import cv2
import numpy as np
import pytest
from small_training import small_settings
from tiny_bag import HEIGHT, WIDTH, Plan, write_bag

from renderocc_model.cli import main as renderocc
from training.data.dataset import RayDataset
from training.data.prepare import PrepareConfig, prepare_recording
from training.study.fit import fit_frames, fit_table
from training.train.config import load_train_config

pytestmark = pytest.mark.slow

ROAD = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A wall of road 5 m before each camera's image plane, in a recording without 3D truth; settings; variants."""
    path = tmp_path_factory.mktemp("fit")
    wall = np.full((HEIGHT, WIDTH), ROAD, np.uint8), np.full((HEIGHT, WIDTH), 5.0)
    bag = write_bag(path / "wall", Plan(frames=2, labels=lambda frame, camera: wall))
    prepare_recording(bag, None, path / "tables", PrepareConfig())
    small_settings(path)
    (path / "fit.yaml").write_text(
        "train: tiny.yaml\nvariants:\n  - {name: rendered}\n  - {name: points, settings: [supervision.mode=query]}\n"
    )
    return path


def test_a_free_field_stands_where_the_labels_say(folder):
    """The front camera is at x = 1 m, so its wall stands at x = 6 m: in voxel 14 of 1 m from x = -8 m on."""
    words = ["supervision.mode=render+query+voxels", "supervision.depth_loss=termination", "sample.rays=2000"]
    config = load_train_config(folder / "tiny.yaml", [*words, "sample.auxiliary_offsets=[]"])
    dataset = RayDataset(folder / "tables", config.samples(True), ["wall"], label_grid=config.model.grid)
    early, late = (fit_frames(config, dataset, [0], steps, 0.2) for steps in (1, 60))
    assert late.scores["delta_1"] > 0.95 and late.scores["abs_rel"] < 0.5 * early.scores["abs_rel"]
    assert late.scores["abs_rel"] < 0.1 and late.scores["miou_2d"] == pytest.approx(1, abs=0.05)
    chance = late.fields[0].occupancy_probability()
    assert chance[14, 7:9, 2].min() > 0.7 and chance[10:12, 7:9, 2].max() < 0.2
    header, rows = fit_table({"all": late})
    assert len(rows[0]) == len(header) and rows[0][:4] == ["all", "-", "-", "-"]  # there is no 3D truth
    again = fit_frames(config, dataset, [0], 60, 0.2)
    assert again.threshold == late.threshold and (again.fields[0].density == late.fields[0].density).all()


def test_the_command_writes_a_table_and_a_picture(folder, capsys):
    out = folder / "out"
    arguments = ["--data", str(folder / "tables"), "--frames", "1", "--steps", "3", "--out", str(out)]
    tried = ["--try", "voxels", "supervision.mode=voxels", "sample.rays=50"]
    assert renderocc(["fit", str(folder / "fit.yaml"), *arguments, "--only", "points", *tried]) == 0
    said = capsys.readouterr().out
    assert "[2 of 2] voxels" in said and f"wrote {out.resolve() / 'fit.md'}" in said
    table = (out / "fit.md").read_text()
    assert "wall frame 0" in table and re.findall(r"^\| (\w+) \|", table, re.M) == ["points", "voxels"]
    picture = cv2.imread(str(out / "fit.jpg"))
    assert picture.shape[1] == 260 and picture.shape[0] > 2 * 260  # a tile for each variant, none for the truth


def test_what_is_missing_or_wrong_is_named(folder, capsys):
    arguments = [str(folder / "fit.yaml"), "--data", str(folder / "tables"), "--out", str(folder / "bad")]
    for words, said in (
        (["--only", "pointless"], "--only names 'pointless'; the variants are rendered, points"),
        (["--only", "-"], "describe one with --try"),
        (["--steps", "0"], "--steps is 0; expected 1 or more"),
        (["--try", "x", "supervision.mod=query"], "variant 'x'"),
        (["--recordings", "monday"], "recordings ['monday'] are not prepared"),
    ):
        assert renderocc(["fit", *arguments, *words]) == 2
        assert said in capsys.readouterr().err
    (folder / "twice.yaml").write_text("train: tiny.yaml\nvariants:\n  - {name: a}\n  - {name: a}\n")
    assert renderocc(["fit", str(folder / "twice.yaml"), *arguments[1:]]) == 2
    assert "give each a name of its own" in capsys.readouterr().err
