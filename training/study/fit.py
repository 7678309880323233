"""`renderocc fit`: fit a free field, without any network, to the labels of single frames by the losses of training.

Every voxel has its own density and logits. The result shows within a minute what a loss, a ray sampling or a rule for
points can achieve at best, before a network is trained with it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from renderocc_model.base.config import configuration, from_mapping, load_yaml, setting
from renderocc_model.base.files import replacing
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.network.network import NetworkOutput

from ..data.augment import AugmentConfig
from ..data.batch import make_batch
from ..data.dataset import RayDataset
from ..evaluate.frame_truth import occupied_classes, ray_origins, truth_of
from ..evaluate.held_out import RayScores, evenly
from ..evaluate.metrics import VolumeScores
from ..evaluate.rayiou import cast_frame
from ..evaluate.report import markdown_table, percent, text_table
from ..evaluate.threshold import ThresholdSearch
from ..supervision.config import SupervisionConfig
from ..supervision.supervise import Supervision
from ..train.config import TrainConfig, load_train_config
from .description import EXACT, Variant
from .illustrations import volumes_from_above, write_jpeg

__all__ = ["FitConfig", "Fitted", "fit_frames", "fit_table", "main"]

_FIRST_DENSITY = 0.05  # 1/m, that of a network's heads before training
_UNEVEN = 0.01  # standard deviation of the initial parameters, so that no two voxels are equal
_NAMES = ("mIoU %", "RayIoU %", "occupied IoU %", "AbsRel", "within 25 %", "2D mIoU %", "threshold", "seconds")


@configuration
class FitConfig:
    """What is fitted."""

    train: str = setting("", "YAML of the training run that all variants change, beside this file")
    variants: tuple[Variant, ...] = setting((), "settings to compare")
    learning_rate: float = setting(0.1, "learning rate of Adam", 1e-6, 10.0)

    def check(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variants are called {', '.join(names)}; give each a name of its own")
        for variant in self.variants:
            if variant.labels != EXACT:
                raise ValueError(
                    f"variant '{variant.name}' has labels '{variant.labels}'; leave it out: a fit takes --data's"
                )


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of one variant.

    fields: the fitted field of each frame.
    threshold: threshold of occupancy, found with the frames' own 2D labels.
    scores: miou, rayiou and occupied IoU against 3D truth (None without truth), and the results of `RayScores` on the
        frames' own labels, which were also fitted.
    seconds: time of fitting per frame.
    """

    fields: list[SemanticDensityField]
    threshold: float
    scores: dict
    seconds: float


def fit_frames(
    config: TrainConfig, dataset: RayDataset, indices: Sequence[int], steps: int, learning_rate: float
) -> Fitted:
    """Fit a field to each of some frames, and compare it with labels and truth.

    Args:
        config: its supervision, grid and seed are used.
        dataset: samples without augmentation, with the rays that the supervision uses.
    Raises:
        ValueError: labels do not fit the model's classes, or no ray returns.
    """
    start = time.monotonic()
    supervision = Supervision(_without_depth_head(config), config.model, dataset.classes, dataset.class_counts)
    fields = [_fit(config, supervision, dataset, index, steps, learning_rate) for index in indices]
    seconds = (time.monotonic() - start) / max(len(indices), 1)

    rays, search = RayScores(dataset.classes, config.supervision.step), ThresholdSearch(dataset.classes)
    for index, field in zip(indices, fields):
        labels = dataset.rays_of(index)
        rays.add(field, labels)
        search.add(field, labels)
    threshold = search.result().threshold
    scores = VolumeScores.empty(dataset.classes, True)
    assert scores.rays is not None  # asked for
    for index, field in zip(indices, fields):
        recording, frame = dataset.recording_of(index)
        truth = truth_of(recording, frame, field.grid)
        if truth is None:
            continue
        volume = occupied_classes(field, dataset.classes, threshold)
        cast_frame([scores.rays], [volume], truth.semantics, field.grid, ray_origins(recording, frame, field.grid))
        scores.voxels.add(volume, truth.semantics, truth.mask)
        scores.frames += 1
    volumes = scores.as_dict() if scores.frames else {}
    return Fitted(fields, threshold, {**rays.as_dict(), **volumes}, seconds)


def _without_depth_head(config: TrainConfig) -> SupervisionConfig:
    weights = replace(config.supervision.weights, depth_distribution=0.0)
    return replace(config.supervision, weights=weights)


def _fit(
    config: TrainConfig, supervision: Supervision, dataset: RayDataset, index: int, steps: int, learning_rate: float
) -> SemanticDensityField:
    grid = config.model.grid
    generator = torch.Generator().manual_seed(config.seed)
    first = math.log(math.expm1(_FIRST_DENSITY))
    x, y, z = grid.shape
    uneven = _UNEVEN * torch.randn(1, x, y, z * config.model.heads.density_layers, generator=generator)
    before_softplus = (first + uneven).requires_grad_()
    logits = torch.zeros(1, *grid.shape, config.model.class_count, requires_grad=True)
    optimiser = torch.optim.Adam([before_softplus, logits], lr=learning_rate)
    for step in range(steps):
        batch = make_batch([dataset.sample(step, index)], config.model, 0)
        depths = torch.zeros(batch.images.shape[1], 1, 1, 1)
        output = NetworkOutput(functional.softplus(before_softplus), logits, depths, None)
        terms = supervision.terms(output, batch, generator)
        optimiser.zero_grad(set_to_none=True)
        loss = sum(terms.values())
        if not loss.requires_grad:
            raise ValueError(f"{batch.names[0]}: has no label that the losses use; fit other frames")
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return SemanticDensityField.of_layers(grid, functional.softplus(before_softplus)[0], logits.detach()[0])


def fit_table(results: dict[str, Fitted]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one for each variant; a dash where there is no 3D truth."""
    rows = []
    for name, one in results.items():
        scores = one.scores
        figures = (
            percent(scores.get("miou")),
            percent(scores.get("rayiou")),
            percent(scores.get("iou_occupied")),
            f"{scores['abs_rel']:.3f}",
            percent(scores["delta_1"]),
            percent(scores["miou_2d"]),
            f"{one.threshold:.3f}",
            f"{one.seconds:.0f}",
        )
        rows.append([name, *figures])
    return ["", *_NAMES], rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc fit",
        description="Fit a free field to the labels of single frames with each of several losses, and compare it with "
        "labels and 3D truth: the best that a loss can achieve. It takes half a minute for a frame and a loss.",
        epilog="example: renderocc fit config/study/fit.yaml --data tables --recordings town_2000 --frames 2 --out "
        "runs/fit; --try rays10 supervision.mode=query sample.rays=10000",
    )
    made.add_argument("config", type=Path, help="YAML of the variants (config/study/fit.yaml)")
    made.add_argument("--data", type=Path, required=True, metavar="PREPARED", help="folder of `renderocc prepare`")
    made.add_argument("--recordings", nargs="+", metavar="NAME", help="recordings in that folder (default: all)")
    made.add_argument("--frames", type=int, default=2, metavar="N", help="number of frames, evenly spread (default 2)")
    made.add_argument("--steps", type=int, default=150, metavar="N", help="steps of each fit (default 150)")
    made.add_argument("--seed", type=int, default=0, help="seed of rays, points and the initial field (default 0)")
    made.add_argument("--only", nargs="+", metavar="VARIANT", help="fit these variants only; - for none")
    made.add_argument(
        "--try",
        dest="tried",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "SETTING"),
        help="one more variant: its name, and settings of the training run as a.b=value; may be given several times",
    )
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write fit.md and fit.jpg to")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc fit`: exit status 0, or 2 where something is missing or wrong."""
    arguments = parser().parse_args(argv)
    try:
        results = run(arguments)
    except (ValueError, OSError) as error:
        print(f"renderocc fit: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2
    print(text_table(*fit_table(results)))
    print(f"wrote {(arguments.out / 'fit.md').resolve()}")
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Fitted]:
    """Fit all variants that the command line asks for, and write the table and the image."""
    for name in ("frames", "steps"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; expected 1 or more")
    config = from_mapping(FitConfig, load_yaml(arguments.config), str(arguments.config))
    if not config.train:
        raise ValueError(f"{arguments.config}: 'train' is missing; name a YAML beside {arguments.config.name}")
    train = arguments.config.parent / config.train
    settings = {}
    for variant in _chosen(config, arguments):
        try:
            settings[variant.name] = load_train_config(train, [*variant.settings, f"seed={arguments.seed}"])
        except ValueError as error:
            raise ValueError(f"variant '{variant.name}': {error}") from None
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, one in settings.items():
        dataset = _dataset(one, arguments)
        indices = evenly(len(dataset), arguments.frames)
        results[name] = fit_frames(one, dataset, indices, arguments.steps, config.learning_rate)
        print(f"[{len(results)} of {len(settings)}] {name}: {results[name].seconds:.0f} s a frame", flush=True)
    _write(arguments, results, dataset, indices)
    return results


def _chosen(config: FitConfig, arguments: argparse.Namespace) -> list[Variant]:
    known = {variant.name: variant for variant in config.variants}
    only = [name for name in arguments.only or known if name != "-"]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(f"--only names '{unknown[0]}'; the variants are {', '.join(known)}")
    chosen = [known[name] for name in only] + [Variant(words[0], "", tuple(words[1:])) for words in arguments.tried]
    if not chosen:
        raise ValueError("there is no variant to fit; name one with --only, or describe one with --try")
    return chosen


def _dataset(config: TrainConfig, arguments: argparse.Namespace) -> RayDataset:
    samples = replace(config.samples(training=True), augment=AugmentConfig(), previous=0)
    return RayDataset(
        arguments.data,
        samples,
        arguments.recordings,
        config.seed,
        grid=config.supervision.truth_grid,
        label_grid=config.model.grid,
    )


def _write(
    arguments: argparse.Namespace, results: dict[str, Fitted], dataset: RayDataset, indices: Sequence[int]
) -> None:
    shown = ", ".join(f"{dataset.recording_of(i)[0].name} frame {dataset.recording_of(i)[1]}" for i in indices)
    lines = [
        "# A free field fitted to labels",
        f"{len(indices)} frames ({shown}), {arguments.steps} steps, seed {arguments.seed}. Thresholds are found with "
        "the frames' own 2D labels; AbsRel, within 25 % and 2D mIoU are measured on the labels that were fitted.",
        markdown_table(*fit_table(results)),
        "![Volumes from above: truth and variants](fit.jpg)",
    ]
    with replacing(arguments.out / "fit.md") as partial:
        partial.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    rows: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {}
    for number, index in enumerate(indices):
        recording, frame = dataset.recording_of(index)
        grid = next(iter(results.values())).fields[number].grid
        truth = truth_of(recording, frame, grid)
        if truth is not None:
            rows.setdefault("truth", []).append((truth.semantics, truth.mask))
        for name, one in results.items():
            volume = occupied_classes(one.fields[number], dataset.classes, one.threshold)
            rows.setdefault(name, []).append((volume, None if truth is None else truth.mask))
    write_jpeg(arguments.out / "fit.jpg", volumes_from_above(rows, grid, dataset.classes))
