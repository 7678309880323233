"""Describes a study: its towns, variants of a training run, seeds and tables. It is read from YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from renderocc_model.base.config import configuration, from_mapping, load_yaml, setting, to_mapping

from ..train.config import TrainConfig, load_train_config

__all__ = [
    "EXACT",
    "LIDAR",
    "MOTION",
    "PARTS",
    "Comparison",
    "Row",
    "Run",
    "Study",
    "StudyConfig",
    "Table",
    "TownData",
    "Towns",
    "deciding_settings",
    "load_study",
]

PARTS = ("training", "validation", "test")
# What 2D labels a variant learns from: those of the simulator, or those that `renderocc label` makes.
EXACT, LIDAR, MOTION = "exact", "lidar", "motion"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@configuration
class Towns:
    """Recordings of simulated towns."""

    seeds: tuple[int, ...] = setting((), "seeds of the towns; there is one recording for each", minimum=0)
    frames: int = setting(10, "number of frames of each recording", minimum=1, maximum=100_000)


@configuration
class TownData:
    """The towns of a study. Test towns are used for nothing but the figures."""

    training: Towns = setting(Towns(), "towns to train on")
    validation: Towns = setting(Towns(), "towns for finding the occupancy threshold, with 2D labels")
    test: Towns = setting(Towns(), "towns for the figures")
    width: int = setting(704, "columns of the recorded images", minimum=32, maximum=8192)
    height: int = setting(256, "rows of the recorded images", minimum=32, maximum=4096)
    rate: float = setting(2.0, "frames a second", minimum=0.1, maximum=100.0)
    pixels_per_image: int = setting(0, "labelled pixels kept of an image, drawn evenly; 0: all", minimum=0)

    def check(self) -> None:
        owner: dict[int, str] = {}
        for part in PARTS:
            seeds = getattr(self, part).seeds
            if not seeds:
                raise ValueError(f"{part}.seeds is empty; name the towns")
            for seed in seeds:
                if seed in owner:
                    again = "twice" if owner[seed] == part else f"in {part} too"
                    raise ValueError(f"town {seed} of {owner[seed]}.seeds is {again}; give each town to one part, once")
                owner[seed] = part

    def recordings(self, part: str) -> list[str]:
        """Names of the recordings of one of PARTS."""
        return [f"town_{seed}" for seed in getattr(self, part).seeds]


@configuration
class Variant:
    """A variant of the training run."""

    name: str = setting("", "name, also of its result files")
    about: str = setting("", "description in one sentence")
    settings: tuple[str, ...] = setting((), "settings that differ from the training run's YAML, name=value")
    labels: str = setting(
        EXACT,
        "2D labels of the training and validation towns: exact, or made from the LiDAR's clouds, or depth from motion "
        "with the exact classes",
        choices=(EXACT, LIDAR, MOTION),
    )

    def check(self) -> None:
        _check_name("variant", self.name)


@configuration
class Row:
    """A line of a table."""

    variant: str = setting("", "variant whose figures are shown")
    label: str = setting("", "first cell of the line")
    paper: str = setting("", "the paper's figure; when empty, it has none")

    def check(self) -> None:
        if not self.label:
            raise ValueError(f"the row of variant '{self.variant}' has no label; give one")


@configuration
class Table:
    """A table of the document."""

    title: str = setting("", "heading")
    note: str = setting("", "text below the heading")
    paper: str = setting("paper: mIoU", "heading of the column with the paper's figures")
    rows: tuple[Row, ...] = setting((), "lines, from top to bottom")
    relative_to: str = setting("", "variant whose mIoU and RayIoU count as 100 % in two further columns")


@configuration
class Comparison:
    """Variants and tables. A variant is run once, even if several tables name it."""

    variants: tuple[Variant, ...] = setting((), "variants of the training run")
    tables: tuple[Table, ...] = setting((), "tables of the document")
    main: str = setting("", "variant whose views are drawn")
    drawn: tuple[str, ...] = setting((), "further variants whose volumes are drawn from above")

    def check(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names:
            raise ValueError("variants is empty; describe at least one")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"several variants are called {', '.join(repeated)}; rename all but one")
        for table in self.tables:
            wanted = [row.variant for row in table.rows] + ([table.relative_to] if table.relative_to else [])
            unknown = [name for name in wanted if name not in names]
            if unknown:
                raise ValueError(f"table '{table.title}' names variant '{unknown[0]}'; there are {', '.join(names)}")
        for name in (self.main, *self.drawn):
            if name not in names:
                raise ValueError(f"main or drawn names variant '{name}'; there are {', '.join(names)}")


@configuration
class StudyConfig:
    """A study: every variant is trained with every seed on the same towns."""

    name: str = setting("", "name of the study's section and of its results' folder")
    title: str = setting("", "heading of the study's section")
    seeds: tuple[int, ...] = setting((0, 1, 2), "seeds of the training runs", minimum=0)
    data: TownData = setting(TownData(Towns((0,)), Towns((1,)), Towns((2,))), "towns")
    train: str = setting("", "YAML file of the training run, in this file's folder")
    comparison: str = setting("", "YAML file of variants and tables, in this file's folder")

    def check(self) -> None:
        _check_name("study", self.name)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}; give one or more different seeds")


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant.name}_{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study whose files were read and checked."""

    config: StudyConfig
    comparison: Comparison
    train: Path

    def runs(self) -> Iterator[Run]:
        """All runs, seed by seed, so that a study that is stopped early has results of every variant."""
        for seed in self.config.seeds:
            for variant in self.comparison.variants:
                yield Run(variant, seed)

    def labels(self) -> tuple[str, ...]:
        """What labels the variants learn from, each once."""
        return tuple(dict.fromkeys(variant.labels for variant in self.comparison.variants))

    def words(self, run: Run) -> list[str]:
        """The settings of a run that decide what is learned. Paths and `run` are added later."""
        data = self.config.data
        names = {part: f"[{', '.join(data.recordings(part))}]" for part in PARTS}
        return [
            *run.variant.settings,
            f"seed={run.seed}",
            f"data.training={names['training']}",
            f"data.validation={names['validation']}",
        ]

    def train_config(self, run: Run, words: Sequence[str] = ()) -> TrainConfig:
        """The settings of a run, with further `words`."""
        return load_train_config(self.train, [*self.words(run), *words])

    def identity(self, run: Run) -> dict:
        """Everything that a run's figures depend on, as plain data: towns, settings, and labels that are not exact."""
        made_with = {"towns": to_mapping(self.config.data), "training": deciding_settings(self.train_config(run))}
        return made_with if run.variant.labels == EXACT else {**made_with, "labels": run.variant.labels}


def deciding_settings(config: TrainConfig) -> dict:
    """The settings that decide what is learned, as plain data: all but paths and `run`."""
    settings = to_mapping(config)
    del settings["run"]
    for name in ("prepared", "bags", "labels"):
        del settings["data"][name]
    return settings


def load_study(path: str | Path) -> Study:
    """Read a study from its YAML file and the two files that it names. The settings of all variants are checked.

    Raises:
        ValueError: a setting is unknown or wrong, a town is used twice, or a table names a variant that does not exist.
            The text names the file and the entry.
    """
    path = Path(path)
    config = from_mapping(StudyConfig, load_yaml(path), str(path))
    beside = {}
    for name in ("train", "comparison"):
        if not getattr(config, name):
            raise ValueError(f"{path}: '{name}' is missing; name a YAML file beside {path.name}")
        beside[name] = path.parent / getattr(config, name)
    comparison = from_mapping(Comparison, load_yaml(beside["comparison"]), str(beside["comparison"]))
    study = Study(config, comparison, beside["train"])
    for variant in comparison.variants:
        try:
            study.identity(Run(variant, config.seeds[0]))
        except ValueError as error:
            raise ValueError(f"{beside['comparison']}: variant '{variant.name}': {error}") from None
    return study


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name of a {kind} is {name!r}; use lower-case letters, digits and underscores")
