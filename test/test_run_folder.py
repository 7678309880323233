"""A run's folder: state that is read as data, refused where it does not fit, and curves without double steps."""

import json
import pickle
import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from training.train.config import load_train_config
from training.train.run_folder import Curves, RunFolder, RunFolderError

DATA = {"training": ["a"], "held_out": [], "frames": 3, "labels": [1, 2]}
QUIET = "run.tensorboard=false"


def folder_of(path, *words, data=DATA) -> RunFolder:
    folder = RunFolder(path, load_train_config(None, [QUIET, *words]), data)
    folder.start()
    return folder


def test_state_comes_back_as_it_was(tmp_path):
    assert folder_of(tmp_path).load_state() is None
    folder_of(tmp_path).save_state({"step": 3, "network": {"weight": torch.arange(3.0)}, "best": None})
    state = folder_of(tmp_path, "run.workers=9", "run.log_every=1").load_state()
    assert state["step"] == 3 and torch.equal(state["network"]["weight"], torch.arange(3.0)) and state["best"] is None


@pytest.mark.parametrize(
    ("words", "data", "reason"),
    [
        (["steps=7"], DATA, "steps=6000, now it is 7; give the settings"),
        (["steps=7", "seed=1"], DATA, r"\(1 more settings differ\)"),
        (["sample.augment.mirror_y=0.5"], DATA, "sample.augment.mirror_y=0.0, now it is 0.5"),
        ([], {**DATA, "frames": 4}, "data.frames=3, now it is 4"),
    ],
)
def test_a_run_of_other_settings_or_data_is_not_gone_on_with(tmp_path, words, data, reason):
    folder_of(tmp_path).save_state({"step": 3})
    with pytest.raises(RunFolderError, match=reason):
        folder_of(tmp_path, *words, data=data).load_state()


def test_state_runs_no_code_and_damage_is_named(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    folder = folder_of(tmp_path)
    torch.save({"version": 1, "identity": {}, "step": Trap()}, folder / "state.pt", pickle_module=pickle)
    with pytest.raises(RunFolderError, match="state.pt: cannot be read .*remove it to start again"):
        folder.load_state()
    assert not (tmp_path / "sprung").exists()
    folder.save_state({"step": 3})
    whole = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunFolderError, match="cannot be read"):
        folder.load_state()


def test_a_disk_that_fills_up_leaves_the_old_state(tmp_path):
    folder = folder_of(tmp_path)
    folder.save_state({"step": 3})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            folder.save_state({"step": 4, "network": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.load_state()["step"] == 3 and not list(tmp_path.glob(".*"))


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".state.pt.abc.part").write_bytes(b"half")
    folder_of(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}


def test_curves_forget_the_steps_that_are_done_again(tmp_path):
    folder = folder_of(tmp_path)
    config = load_train_config(None, [QUIET])
    curves = Curves(folder, config, 0)
    for step in (1, 2, 3):
        curves.log("train", step, {"loss": 0.5})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # killed in the middle of a line
    Curves(folder, config, 2).log("train", 3, {"loss": 0.25})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 0.5), (3, 0.25)]


def test_a_run_that_goes_on_writes_to_the_same_run_of_wandb_and_a_new_one_to_a_new_run(tmp_path, monkeypatch):
    """A stand-in for the service, which needs an account: it keeps what it was started with."""
    started = []

    class Run:
        def log(self, numbers, step):
            pass

        def finish(self):
            pass

    def init(**settings):
        started.append(settings)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    config = load_train_config(None, [QUIET, "run.wandb=project"])
    for step in (0, 4, 8, 0):  # begun, gone on with twice, begun anew
        Curves(folder_of(tmp_path), config, step).close()
    first, second, third, anew = (settings["id"] for settings in started)
    assert first == second == third != anew and all(settings["resume"] == "allow" for settings in started)


def test_a_missing_tensorboard_is_said_and_training_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Curves(folder_of(tmp_path), load_train_config(None), 0).log("train", 1, {"loss": 1.0})
    assert "python3 -m pip install tensorboard" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="python3 -m pip install wandb"):
        Curves(folder_of(tmp_path), load_train_config(None, [QUIET, "run.wandb=project"]), 0)
