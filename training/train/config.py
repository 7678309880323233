"""The settings of a training run. `load_train_config` reads them from YAML and `a.b=value` words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renderocc_model.base.config import apply_overrides, configuration, from_mapping, load_yaml, setting
from renderocc_model.network.checkpoint import read_checkpoint_metadata
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.presets import PRESETS

from ..data.augment import AugmentConfig
from ..data.dataset import SampleConfig
from ..data.prepare import PrepareConfig
from ..supervision.supervise import SupervisionConfig

__all__ = ["DataConfig", "OptimiserConfig", "RunConfig", "TrainConfig", "fast_dev_run", "load_train_config"]


@configuration
class DataConfig:
    """The recordings. Each is used either for training or for validation, never for both."""

    prepared: str = setting("", "folder of `renderocc prepare`; when empty, `tables` in the run's folder")
    bags: tuple[str, ...] = setting((), "recordings to prepare first; when empty, all that are prepared already")
    labels: tuple[str, ...] = setting((), "sidecars, one for each of `bags`; when empty, BAG_labels, or BAG itself")
    training: tuple[str, ...] = setting((), "names of recordings to train on; when empty, all that are not held out")
    validation: tuple[str, ...] = setting((), "names of recordings to hold out; when empty, a share of all")
    held_out: float = setting(0.1, "share of recordings to hold out when there are no names", minimum=0.0, maximum=0.9)
    params: str = setting(
        "", "the node's parameter file of the vehicle that recorded `bags`; in place of prepare.vehicle"
    )
    prepare: PrepareConfig = setting(PrepareConfig(), "how `bags` are prepared")

    def check(self) -> None:
        if self.labels and len(self.labels) != len(self.bags):
            raise ValueError(f"labels names {len(self.labels)} sidecars for {len(self.bags)} bags; give one for each")
        both = sorted(set(self.training) & set(self.validation))
        if both:
            raise ValueError(f"{', '.join(both)} are in training and in validation; remove them from one of these")


@configuration
class OptimiserConfig:
    """AdamW with warm-up and cosine decay, and an exponential moving average of the weights."""

    learning_rate: float = setting(1e-4, "largest learning rate", minimum=0.0, maximum=1.0)
    backbone_factor: float = setting(1.0, "factor for the backbone's learning rate", minimum=0.0, maximum=100.0)
    weight_decay: float = setting(1e-2, "weight decay; norms and biases have none", minimum=0.0, maximum=1.0)
    warm_up: int = setting(200, "steps in which the learning rate rises from zero", minimum=0)
    final_factor: float = setting(0.01, "factor for the learning rate at the last step", minimum=0.0, maximum=1.0)
    clip: float = setting(5.0, "largest norm of the gradient; larger gradients are scaled down to it", minimum=1e-6)
    ema: float = setting(0.999, "decay of the averaged weights; 0 averages nothing", minimum=0, maximum=0.99999)
    batch_norm: str = setting(
        "learn",
        "statistics of batch normalisation: learned, or frozen as in the initial weights (in the backbone, or all)",
        choices=("learn", "backbone_frozen", "frozen"),
    )


@configuration
class RunConfig:
    """Settings that do not change the weights. They may be changed when a run is continued."""

    device: str = setting("auto", "auto (CUDA if available), cpu or cuda")
    threads: int = setting(0, "threads of the main process; 0 is torch's default", minimum=0)
    workers: int = setting(2, "processes that load samples; 0 loads in the main process", minimum=0, maximum=256)
    log_every: int = setting(20, "steps between progress lines", minimum=1)
    save_every: int = setting(250, "steps between saved states", minimum=1)
    validate_every: int = setting(1000, "steps between validations; 0 validates only at the end", minimum=0)
    validation_frames: int = setting(
        32, "held-out frames, spread evenly, for validation and for the calibration of the threshold; 0: all", minimum=0
    )
    picture_every: int = setting(500, "steps between pictures; 0 draws only at the end", minimum=0)
    pictures: int = setting(2, "held-out frames that are drawn", minimum=1, maximum=16)
    tensorboard: bool = setting(True, "write curves and pictures for TensorBoard")
    wandb: str = setting("", "project of Weights & Biases to which curves are written, too; when empty, none")


@configuration
class TrainConfig:
    """A training run."""

    model: ModelConfig = setting(PRESETS["tiny"], "the network; its entry `preset` names the network to start from")
    data: DataConfig = setting(DataConfig(), "recordings")
    sample: SampleConfig = setting(SampleConfig(), "rays and augmentation of a sample")
    supervision: SupervisionConfig = setting(SupervisionConfig(), "losses")
    optimiser: OptimiserConfig = setting(OptimiserConfig(), "optimiser and learning rate")
    initial: str = setting("", "checkpoint with the initial weights; when empty, model.backbone.pretrained")
    steps: int = setting(6000, "optimiser steps of the whole run", minimum=1)
    batch: int = setting(1, "samples of a step, over all processes", minimum=1, maximum=65536)
    accumulate: int = setting(1, "parts into which a process divides its samples, to need less memory", minimum=1)
    precision: str = setting(
        "auto",
        "of the network: auto (bfloat16 if the device multiplies it, float16 on older GPUs, else float32)",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    seed: int = setting(0, "seed of all random numbers", minimum=0)
    run: RunConfig = setting(RunConfig(), "loading, saving and logging")

    def check(self) -> None:
        usual = SampleConfig()
        for name, instead in _DERIVED.items():
            if getattr(self.sample, name) != getattr(usual, name):
                raise ValueError(f"sample.{name} follows from {instead}; set that")

    def samples(self, training: bool) -> SampleConfig:
        """The settings of samples: images have the model's size, and held-out samples have no augmentation."""
        images = self.model.images
        return replace(
            self.sample,
            height=images.height,
            width=images.width,
            previous=self.model.fusion.earlier_frames,
            previous_interval=self.model.fusion.interval,
            truth=training and self.supervision.labels_3d != "off",
            voxels=training and self.supervision.uses("voxels") and self.supervision.labels_3d != "only",
            depth_rays=self.sample.depth_rays if training else 0,
            augment=self.sample.augment if training else AugmentConfig(),
        )


_DERIVED = {
    "height": "model.images.height",
    "width": "model.images.width",
    "previous": "model.fusion.enabled",
    "previous_interval": "model.fusion.interval",
    "truth": "supervision.labels_3d",
    "voxels": "supervision.mode",
}


def load_train_config(path: str | Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a run's settings from YAML, then from `a.b=value` words.

    `model.preset` names the network whose settings those of `model` change. Where `initial` is a checkpoint of this
    preset, they change the checkpoint's own: a network that learns on is what it was, unless a setting says otherwise.

    Raises:
        ValueError: a name is unknown, or a value is wrong, or `initial` cannot be read. The text names the file or
            word, and the entry.
    """
    content = {} if path is None else load_yaml(path)
    model = content.get("model") or {}
    name = model.pop("preset", "tiny") if isinstance(model, dict) else "tiny"
    for word in overrides:
        if word.startswith("model.preset="):
            name = word.partition("=")[2]
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"{path}: model.preset is {name!r}; start from one of {', '.join(PRESETS)}")
    initial = content.get("initial")
    for word in overrides:
        if word.startswith("initial="):
            initial = word.partition("=")[2]
    base = _model_of(initial, name) if isinstance(initial, str) and initial else PRESETS[name]
    config = from_mapping(TrainConfig, content, str(path), TrainConfig(model=base))
    return apply_overrides(config, [word for word in overrides if not word.startswith("model.preset=")])


def _model_of(checkpoint: str, preset: str) -> ModelConfig:
    """The settings of a checkpoint's network if it is of a preset, else those of the preset."""
    model = from_mapping(ModelConfig, read_checkpoint_metadata(checkpoint)["model"], checkpoint)
    return model if model.name == preset else PRESETS[preset]


def fast_dev_run(config: TrainConfig) -> TrainConfig:
    """The settings of a short trial: four steps with few rays, and everything else that a long run does, once."""
    return replace(
        config,
        sample=replace(config.sample, rays=min(config.sample.rays, 4000)),
        optimiser=replace(config.optimiser, warm_up=1),
        steps=4,
        run=replace(
            config.run,
            log_every=1,
            save_every=2,
            validate_every=4,
            validation_frames=2,
            picture_every=4,
            pictures=1,
            workers=min(config.run.workers, 1),
        ),
    )
