"""A run's settings: from YAML and words, with what follows from others kept out of reach."""

import hashlib
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from renderocc_model.base.config import from_mapping, to_mapping
from renderocc_model.network.checkpoint import read_checkpoint_metadata
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.packaged import checkpoint_file
from renderocc_model.network.presets import PRESETS
from training.data.dataset import SampleConfig
from training.train.config import TrainConfig, fast_dev_run, load_train_config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
_OF_THE_RUN = ("supervision", "optimiser", "steps", "batch", "accumulate", "seed")


@pytest.mark.parametrize("path", sorted(CONFIG.glob("train_*.yaml")), ids=lambda path: path.name)
def test_every_yaml_loads(path):
    config = load_train_config(path)
    assert config.model.name == path.stem.removeprefix("train_")


def test_the_packaged_network_was_made_with_the_settings_it_is_said_to_be():
    """Those of its last training, whose command is the last one of the document about its trainings."""
    card = (ROOT / "docs" / "model_tiny.md").read_text()
    command = (
        (ROOT / "docs" / "model_tiny_training.md")
        .read_text()
        .split("renderocc train --config config/train_tiny.yaml")[-1]
        .split("renderocc eval")[0]
    )
    setting = re.compile(r"(steps|model\.|sample\.|supervision\.|optimiser\.|run\.validation_frames)")
    changes = [word for word in command.split() if setting.match(word)]
    file = checkpoint_file("tiny")
    content, config = read_checkpoint_metadata(file), load_train_config(ROOT / "config" / "train_tiny.yaml", changes)
    provenance = content["provenance"]
    # Settings that did not exist yet have their defaults, which leave everything as it was.
    settings = from_mapping(TrainConfig, {name: provenance["settings"][name] for name in _OF_THE_RUN}, str(file))
    for name in _OF_THE_RUN:
        assert getattr(settings, name) == getattr(config, name), name
    assert from_mapping(SampleConfig, provenance["settings"]["sample"], str(file)) == config.samples(training=True)
    assert provenance["metrics"]["counts"]["frames"] == config.run.validation_frames
    assert config.model == from_mapping(ModelConfig, content["model"], str(file))
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    said = f"{content['threshold']:.3f}, found with the 2D labels of the validation towns"
    assert content.get("threshold_by_distance") is None and f"| occupied above (threshold) | {said}" in card
    assert len(changes) == 25 and f" and {provenance['steps']:,} on both kinds of towns" in card


def test_a_network_that_learns_on_is_what_it_was_unless_a_setting_says_otherwise(tmp_path):
    packaged = from_mapping(ModelConfig, read_checkpoint_metadata("tiny")["model"], "tiny")
    assert packaged != PRESETS["tiny"]
    recipe = CONFIG / "train_tiny.yaml"
    model = load_train_config(recipe, ["initial=tiny"]).model
    assert (model.lift, model.fusion, model.grid) == (packaged.lift, packaged.fusion, packaged.grid)
    changed = load_train_config(recipe, ["initial=tiny", "model.lift.rays=false", "model.class_count=2"]).model
    assert (changed.lift.rays, changed.class_count, changed.lift.heights) == (False, 2, packaged.lift.heights)
    (tmp_path / "on.yaml").write_text("initial: tiny\nmodel: {preset: tiny}\n")
    assert load_train_config(tmp_path / "on.yaml").model == packaged
    # A checkpoint of another preset says nothing about this one.
    assert load_train_config(None, ["initial=tiny", "model.preset=base"]).model == PRESETS["base"]
    with pytest.raises(ValueError, match="lost.safetensors"):
        load_train_config(None, [f"initial={tmp_path / 'lost.safetensors'}"])


def test_a_preset_is_the_start_that_other_settings_of_the_model_change(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("model: {preset: base, neck: {channels: 32}}\nsteps: 7\n")
    config = load_train_config(path, ["model.lift.context_channels=8", "supervision.mode=both"])
    assert config.model.backbone == PRESETS["base"].backbone and config.steps == 7
    assert (config.model.neck.channels, config.model.lift.context_channels) == (32, 8)
    assert load_train_config(path, ["model.preset=tiny"]).model.backbone == PRESETS["tiny"].backbone
    assert load_train_config(None).model == PRESETS["tiny"]
    with pytest.raises(ValueError, match="model.preset is 'huge'; start from one of tiny, base, paper"):
        load_train_config(path, ["model.preset=huge"])


def test_the_settings_of_semantickitti_s_volume_in_the_guide_are_a_model(tmp_path):
    lines = (ROOT / "docs" / "training.md").read_text().split("is a change of `base`, too:\n\n")[1].split("\n\n")[0]
    (tmp_path / "train.yaml").write_text(textwrap.dedent(lines))
    model = load_train_config(tmp_path / "train.yaml").model
    assert (model.grid.shape, model.grid.frame) == ((256, 256, 32), "velodyne")  # 51.2 m, 51.2 m and 6.4 m in 0.2 m
    assert (model.class_count, model.encoder) == (19, PRESETS["base"].encoder)


def test_a_run_folders_configuration_reads_back_as_it_was(tmp_path):
    config = load_train_config(CONFIG / "train_tiny.yaml", ["batch=3", "data.bags=[a, b]"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    assert load_train_config(tmp_path / "config.yaml") == config


def test_samples_are_of_the_models_size_and_held_out_ones_unvaried():
    config = load_train_config(
        None, ["model.preset=paper", "sample.augment.mirror_y=0.5", "sample.rays=10", "supervision.labels_3d=with"]
    )
    training, held_out = config.samples(True), config.samples(False)
    assert (training.height, training.width, training.previous, training.truth) == (512, 1408, 1, True)
    assert (held_out.height, held_out.rays, held_out.previous, held_out.truth) == (512, 10, 1, False)
    assert training.augment.mirror_y == 0.5 and held_out.augment.mirror_y == 0.0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["sample.height=64"], "sample.height follows from model.images.height; set that"),
        (["sample.truth=true"], "sample.truth follows from supervision.labels_3d"),
        (["data.training=[a, b]", "data.validation=[b]"], "b are in training and in validation"),
        (["data.bags=[a, b]", "data.labels=[c]"], "labels names 1 sidecars for 2 bags"),
        (["optimiser.weight_decy=0"], "did you mean 'optimiser.weight_decay'"),
        (["run.workers=-1"], "'run.workers' is -1"),
    ],
)
def test_what_does_not_fit_is_refused(words, reason):
    with pytest.raises(ValueError, match=reason):
        load_train_config(None, words)


def test_a_fast_dev_run_is_short_and_does_all_that_a_run_does():
    config = fast_dev_run(TrainConfig())
    run = config.run
    assert config.steps == 4 and config.sample.rays <= 4000
    assert all(config.steps % every == 0 for every in (run.validate_every, run.picture_every, run.save_every))
