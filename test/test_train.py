"""`renderocc train` as a whole: it learns, what it writes can be used, and what stops it does not change the result."""

import errno
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import time
from contextlib import nullcontext

import numpy as np
import pytest
import tiny_bag
import torch
from safetensors.torch import load_file
from small_training import read_until, small_settings, small_tables, start_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from renderocc_model.base.machine_errors import machine_error
from renderocc_model.cli import main as renderocc
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import load_checkpoint, read_checkpoint_metadata
from training.supervision.supervise import Supervision
from training.train import main, remedy
from training.train.config import load_train_config
from training.train.distributed import Processes
from training.train.loop import train
from training.train.run_data import open_data
from training.train.run_folder import RunFolder

pytestmark = pytest.mark.slow

STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of tables and settings, and `straight`, a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("train")
    small_tables(path)
    settings = small_settings(path)
    threads = torch.get_num_threads()
    assert main(["--config", str(settings), "--out", str(path / "straight")]) == 0
    torch.set_num_threads(threads)
    return path


def curve(run, kind="train") -> list[dict]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def test_a_run_learns_and_leaves_all_that_is_needed(folder):
    run = folder / "straight"
    losses = [line["loss"] for line in curve(run)]
    assert len(losses) == STEPS and np.mean(losses[-3:]) < np.mean(losses[:3])
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "state.pt",
        "metrics.jsonl",
        "pictures",
        "last.safetensors",
        "best.safetensors",
        "checkpoint.safetensors",
    }
    (validation,) = curve(run, "held_out")
    assert validation["step"] == STEPS and 0 < validation["abs_rel"] < 10
    assert len(list((run / "pictures").iterdir())) == 1


def test_the_checkpoint_drives_a_predictor_and_says_where_it_comes_from(folder):
    checkpoint = load_checkpoint(folder / "straight" / "checkpoint.safetensors")
    provenance = checkpoint.provenance
    assert provenance["steps"] == STEPS and provenance["data"]["training"] == ["one", "two"]
    images, sample = checkpoint.config.images, provenance["settings"]["sample"]
    assert (sample["height"], sample["width"]) == (images.height, images.width)  # not the defaults
    assert provenance["data"]["held_out"] == ["three"] and "abs_rel" in provenance["metrics"]
    calibration = provenance["calibration"]
    stored = read_checkpoint_metadata(folder / "straight" / "checkpoint.safetensors")
    assert calibration["threshold"] == stored["threshold"] and {"ray_iou", "voxel_iou"} < set(calibration)
    assert calibration["curve"] == stored["threshold_by_distance"]
    assert calibration["frames"] == 1 and calibration["recordings"] == ["three"]  # `run.validation_frames`
    assert str(folder) not in json.dumps(provenance)  # no paths of the machine it was made on
    predictor = Predictor(checkpoint, tiny_bag.RIG, device="cpu")
    assert not predictor.warnings  # the rig is the one it was trained on
    occupancy = predictor({name: tiny_bag.picture(0, name) for name in tiny_bag.RIG.names})
    assert occupancy.semantics.shape == (16, 16, 4)


def test_a_run_killed_and_stopped_goes_on_to_the_same_weights_bit_for_bit(folder):
    """Killed just after the second and the sixth step, while their states are saved; then asked to stop."""
    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "broken"), "run.workers=1"]
    for step in (2, 6):
        killed = start_training(*arguments)
        said = read_until(killed, f"step {step}/")
        time.sleep(random.uniform(0, 0.1))
        killed.kill()
        killed.wait()
        assert f"step {step}/" in said
    second = start_training(*arguments)
    said = read_until(second, "step 8/")
    os.killpg(second.pid, signal.SIGTERM)  # its loading process too, as torchrun does
    rest = second.communicate(timeout=300)[0]
    assert second.returncode == 0 and "stopped; give the same command again" in rest, said + rest
    assert "step 4/" not in said  # it went on after step 4 or 6
    assert main(arguments) == 0
    for name in ("checkpoint.safetensors", "last.safetensors"):
        straight, broken = load_file(folder / "straight" / name), load_file(folder / "broken" / name)
        assert all(torch.equal(tensor, broken[key]) for key, tensor in straight.items()), name
    wanted, found = curve(folder / "straight"), curve(folder / "broken")
    assert [(line["step"], line["loss"]) for line in found] == [(line["step"], line["loss"]) for line in wanted]
    assert not list((folder / "broken").glob(".*.part"))


def test_a_loss_that_is_no_number_ends_in_one_line_and_what_was_saved_goes_on_without_it(folder, monkeypatch, capsys):
    terms_of, calls = Supervision.terms, []

    def spoilt(*arguments):
        calls.append(arguments)
        terms = terms_of(*arguments)
        return {name: term * torch.nan for name, term in terms.items()} if len(calls) > 2 * 5 else terms

    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "spoilt")]
    with monkeypatch.context() as patched:
        patched.setattr(Supervision, "terms", spoilt)
        assert main(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "step 5: loss terms" in line and "optimiser.learning_rate" in line and "are kept in" in line
    assert torch.load(folder / "spoilt" / "state.pt", weights_only=True)["step"] == 4
    assert main(arguments) == 0
    straight, spoilt = (load_file(folder / name / "checkpoint.safetensors") for name in ("straight", "spoilt"))
    assert all(torch.equal(tensor, spoilt[key]) for key, tensor in straight.items())


@pytest.mark.parametrize("interrupted", [False, True], ids=["stopped", "interrupted"])
def test_tensorboard_has_every_step_however_training_ends_and_what_a_killed_run_goes_on_from(
    folder, tmp_path, monkeypatch, interrupted
):
    # Files that cannot be appended to, as on remote storage: events are held in memory until they are flushed.
    monkeypatch.delattr(LocalFileSystem, "append")
    config = load_train_config(folder / "tiny.yaml", ["run.tensorboard=true"])  # saves every second step
    data = open_data(config, folder / "tables")
    before_the_end = []

    def steps() -> list[int]:
        return [event.step for event in EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")]

    def stop() -> bool:
        if len(curve(tmp_path)) < 3:
            return False
        before_the_end.extend(steps())
        if interrupted:
            raise KeyboardInterrupt
        return True

    ends = pytest.raises(KeyboardInterrupt) if interrupted else nullcontext()
    with ends:
        run = RunFolder(tmp_path, config, data.identity())
        assert train(config, data, run, Processes(0, 1, torch.device("cpu")), stop) is None
    assert before_the_end == [1, 2] and steps() == [1, 2, 3]


def test_ctrl_c_saves_and_ends_with_130(folder):
    process = start_training("--config", str(folder / "tiny.yaml"), "--out", str(folder / "ctrl_c"), "steps=999")
    said = read_until(process, "step 3/")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said += process.communicate(timeout=300)[0]
    assert process.returncode == 130 and "stopped; give the same command again" in said, said
    state = torch.load(folder / "ctrl_c" / "state.pt", weights_only=True)
    assert state["step"] == curve(folder / "ctrl_c")[-1]["step"] >= 3  # the last step done, not that of `save_every`


def test_two_processes_learn_what_one_does(folder):
    """Frozen batch statistics, as each process on CPUs has its own; then only the order of sums differs."""
    arguments = ["--config", str(folder / "tiny.yaml"), "steps=4", "optimiser.batch_norm=frozen", "batch=4"]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = start_training(*arguments, "--out", str(folder / "two"), launcher=launcher)
    assert main([*arguments, "--out", str(folder / "one"), "accumulate=2"]) == 0
    said = two.communicate(timeout=300)[0]
    assert two.returncode == 0, said
    assert said.count("step 1/4") == 1  # one of them speaks
    for one, other in zip(curve(folder / "one"), curve(folder / "two"), strict=True):
        assert one["step"] == other["step"] and one["rays_per_second"] > 0
        for name in ("loss", "depth", "semantics", "gradient_norm"):
            assert other[name] == pytest.approx(one[name], rel=2e-4), name
    one, two = (load_file(folder / name / "checkpoint.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_fast_dev_run_goes_through_everything_and_leaves_the_run_alone(folder, capsys):
    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "fast"), "--fast-dev-run"]
    assert renderocc(["train", *arguments, "run.tensorboard=true"]) == 0
    run = folder / "fast" / "fast_dev_run"
    assert str(run / "checkpoint.safetensors") in capsys.readouterr().out
    assert list((run / "tensorboard").iterdir()) and len(curve(run)) == 4
    assert not (folder / "fast" / "state.pt").exists()


def test_bags_are_prepared_into_the_runs_own_folder(folder, capsys):
    bags = f"data.bags=[{folder / 'one'}, {folder / 'two'}]"
    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "own"), "steps=1", "data.prepared="]
    assert main([*arguments, bags, "data.validation=[two]"]) == 0
    assert {path.name for path in (folder / "own" / "tables").iterdir()} == {"one", "two", "directions"}
    assert load_checkpoint(folder / "own" / "checkpoint.safetensors").provenance["data"]["training"] == ["one"]
    assert main([*arguments, f"data.bags=[{folder / 'nowhere'}]"]) == 2
    assert "nowhere: there is no such file or folder" in capsys.readouterr().err


def test_one_recording_or_classes_alone_end_in_a_checkpoint_too(folder, capsys):
    arguments = ["--config", str(folder / "tiny.yaml"), "steps=1", "run.log_every=1"]
    words = ["data.validation=[]", "data.training=[one, two, three]"]
    assert main([*arguments, "--out", str(folder / "single"), *words]) == 0
    assert "no recording is held out" in capsys.readouterr().out
    assert load_checkpoint(folder / "single" / "checkpoint.safetensors").threshold == 0.5
    labels = lambda frame, camera: (np.full((48, 64), 11, np.uint8), np.zeros((48, 64)))
    bags = [tiny_bag.write_bag(folder / name, tiny_bag.Plan(frames=2, labels=labels)) for name in ("four", "five")]
    words = ["data.prepared=", f"data.bags=[{bags[0]}, {bags[1]}]", "data.validation=[five]"]
    words += ["data.prepare.without_depth=true", "supervision.use_depth=false", "supervision.class_only_rays=true"]
    assert main([*arguments, "--out", str(folder / "classes"), *words]) == 0
    assert "not calibrated: " in capsys.readouterr().out
    assert load_checkpoint(folder / "classes" / "checkpoint.safetensors").threshold == 0.5


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["optimizer.learning_rate=1"], "did you mean 'optimiser'"),
        (["seed=1"], "has a run with seed=0, now it is 1"),
        (["data.validation=[two]"], r'has a run with data.training=\["one", "two"\], now it is \["one", "three"\]'),
        (["batch=3", "accumulate=2"], "batch is 3, which 1 processes in 2 parts"),
        (["data.prepared=", "data.validation=[]"], "give data.prepared=DIR"),
        (["data.training=[four]"], "recordings \\['four'\\] are not prepared"),
        (["precision=float16"], "needs CUDA"),
        (["run.device=gpu"], "use auto, cpu or cuda"),
        (["initial=nowhere.safetensors"], "nowhere.safetensors: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder, words, reason, capsys):
    assert main(["--config", str(folder / "tiny.yaml"), "--out", str(folder / "straight"), *words]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert re.search(reason, text), text


def test_a_run_that_is_done_is_left_alone_and_only_says_where_its_checkpoint_is(folder, capsys):
    checkpoint = folder / "straight" / "checkpoint.safetensors"
    before = checkpoint.read_bytes(), checkpoint.stat().st_mtime_ns
    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(folder / "straight")]
    assert main([*arguments, "run.workers=1", "run.log_every=5"]) == 0  # settings of `run` may change
    assert (checkpoint.read_bytes(), checkpoint.stat().st_mtime_ns) == before
    assert capsys.readouterr().out == f"wrote {checkpoint.resolve()}\n"
    checkpoint.unlink()  # as if it had been killed in its last second
    assert main(arguments) == 0
    assert checkpoint.read_bytes() == before[0]


def test_damage_that_a_loading_process_meets_is_one_line(folder, tmp_path, capsys):
    shutil.copytree(folder / "tables", tmp_path / "tables")
    for path in (tmp_path / "tables" / "directions").iterdir():
        path.write_bytes(b"")
    arguments = ["--config", str(folder / "tiny.yaml"), "--out", str(tmp_path / "run"), "run.workers=1"]
    assert main([*arguments, f"data.prepared={tmp_path / 'tables'}", "data.bags=[]", "data.labels=[]"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"renderocc train: {tmp_path}") and text.count("\n") == 1 and "prepare again" in text
    assert not multiprocessing.active_children()


def test_a_full_disk_is_one_line(folder, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # a tenth of a state
    try:
        status = main(["--config", str(folder / "tiny.yaml"), "--out", str(folder / "full"), "run.workers=1"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = capsys.readouterr().err
    assert status == 1 and text.count("\n") == 1 and "the disk is full" in text
    assert {path.name for path in (folder / "full").iterdir()} == {"config.yaml", "metrics.jsonl"}
    assert not multiprocessing.active_children()  # a loading process that lives keeps this one from ending


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), ("sample.rays", "accumulate")),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ("sample.rays", "accumulate")),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ("run.workers",)),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. Out of shared memory"), ("/dev/shm",)),
    ],
)
def test_running_out_of_memory_names_the_settings_to_change(error, words, tmp_path):
    text, status = remedy(error, tmp_path)
    assert status == 1 and all(word in text for word in words) and str(tmp_path) in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_error_of_the_disk_is_said_as_by_every_command_and_with_what_is_kept(number, tmp_path):
    error = OSError(number, os.strerror(number), "runs/first/state.pt")
    text, status = remedy(error, tmp_path)
    assert status == 1 and text == f"{machine_error(error)}; the last saved state and weights are kept in {tmp_path}"


def test_an_error_of_our_own_keeps_its_traceback(tmp_path):
    assert remedy(KeyError("x"), tmp_path)[0] == ""
