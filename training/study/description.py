"""What a study is: towns, variants of a training run, seeds, and the tables that compare them; read from YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from renderocc_model.base.config import configuration, from_mapping, load_yaml, setting, to_mapping

from ..train.config import TrainConfig, load_train_config

__all__ = [
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
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@configuration
class Towns:
    """Recordings of simulated towns."""

    seeds: tuple[int, ...] = setting((), "one recording for each", minimum=0)
    frames: int = setting(10, "of each recording", minimum=1, maximum=100_000)


@configuration
class TownData:
    """The towns of a study. What is tested is never learned from, nor is a setting chosen by it."""

    training: Towns = setting(Towns(), "towns to learn from")
    validation: Towns = setting(Towns(), "towns that the occupancy threshold is found on, with 2D labels")
    test: Towns = setting(Towns(), "towns that the figures are of")
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
    """A training run that differs from the others."""

    name: str = setting("", "of its results' files")
    about: str = setting("", "what it is, one sentence")
    settings: tuple[str, ...] = setting((), "settings of the training run that differ, name=value")

    def check(self) -> None:
        _check_name("variant", self.name)


@configuration
class Row:
    """A line of a table."""

    variant: str = setting("", "whose figures")
    label: str = setting("", "what the line is called")
    paper: str = setting("", "the paper's figure; empty: it has none")

    def check(self) -> None:
        if not self.label:
            raise ValueError(f"the row of variant '{self.variant}' has no label; give one")


@configuration
class Table:
    """A table of the document."""

    title: str = setting("", "its heading")
    note: str = setting("", "what is said below the heading")
    paper: str = setting("paper: mIoU", "heading of the column with the paper's figures")
    rows: tuple[Row, ...] = setting((), "its lines, from top to bottom")
    relative_to: str = setting("", "variant whose mIoU and RayIoU the others are also given as percentages of")


@configuration
class Comparison:
    """Variants, and the tables they appear in. A variant that several tables name is run once."""

    variants: tuple[Variant, ...] = setting((), "training runs")
    tables: tuple[Table, ...] = setting((), "of the document")
    main: str = setting("", "variant whose views are drawn")
    drawn: tuple[str, ...] = setting((), "variants whose volumes are drawn from above, beside the main one's")

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
    """A study: every variant with every seed on the same towns."""

    name: str = setting("", "of its part of the document and its results' folder")
    title: str = setting("", "heading of its part of the document")
    seeds: tuple[int, ...] = setting((0, 1, 2), "of the training runs", minimum=0)
    data: TownData = setting(TownData(Towns((0,)), Towns((1,)), Towns((2,))), "the towns")
    train: str = setting("", "YAML of the training run that all variants change, beside this file")
    comparison: str = setting("", "YAML of variants and tables, beside this file")

    def check(self) -> None:
        _check_name("study", self.name)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}; give one or more different ones")


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
    """A study whose files have been read and fit together."""

    config: StudyConfig
    comparison: Comparison
    train: Path

    def runs(self) -> Iterator[Run]:
        """Seed by seed, so that a study that is stopped early has something of every variant."""
        for seed in self.config.seeds:
            for variant in self.comparison.variants:
                yield Run(variant, seed)

    def words(self, run: Run) -> list[str]:
        """Settings of a run that decide what is learned; where its data lies and how it is run come on top."""
        data = self.config.data
        names = {part: f"[{', '.join(data.recordings(part))}]" for part in PARTS}
        return [
            *run.variant.settings,
            f"seed={run.seed}",
            f"data.training={names['training']}",
            f"data.validation={names['validation']}",
        ]

    def train_config(self, run: Run, words: Sequence[str] = ()) -> TrainConfig:
        """The configuration of a run, with further settings."""
        return load_train_config(self.train, [*self.words(run), *words])

    def identity(self, run: Run) -> dict:
        """All that a run's figures depend on, as plain data: towns and settings."""
        return {"towns": to_mapping(self.config.data), "training": deciding_settings(self.train_config(run))}


def deciding_settings(config: TrainConfig) -> dict:
    """The settings that decide what is learned, as plain data: all but paths and `run`."""
    settings = to_mapping(config)
    del settings["run"]
    for name in ("prepared", "bags", "labels"):
        del settings["data"][name]
    return settings


def load_study(path: str | Path) -> Study:
    """A study from its YAML and the two files it names, every variant's settings tried.

    Raises:
        ValueError: names the file and the entry: unknown or unfit settings, a town used twice, a table of a variant
            that does not exist.
    """
    path = Path(path)
    config = from_mapping(StudyConfig, load_yaml(path), str(path))
    beside = {}
    for name in ("train", "comparison"):
        if not getattr(config, name):
            raise ValueError(f"{path}: '{name}' is missing; name a YAML beside {path.name}")
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
        raise ValueError(f"a {kind} is called {name!r}; use small letters, digits and underscores")
