"""Counts what `renderocc label` has labelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from training.recordings.label_images import FARTHEST
from training.recordings.raw_classes import NO_SURFACE

from .from_clouds import Labels
from .mapping import ClassMapping

__all__ = ["Coverage", "coverage_table", "source_table"]


@dataclass
class Coverage:
    """Counts of labelled images and pixels.

    Attributes:
        images: {camera: images in the recording}.
        labelled: {camera: images with labels}.
        depths: {camera: pixels with depth, over all images with labels}.
        classified: {camera: pixels with a class, over all images with labels}.
        frequencies: (256,) pixels of each class id.
        skipped: [count, camera and time of the first, its reason] for each kind of reason why images have no labels.
            Reasons that differ only in their numbers are of one kind.
    """

    images: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    classified: dict[str, int] = field(default_factory=dict)
    frequencies: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    skipped: dict[str, list] = field(default_factory=dict)

    def add(self, camera: str, labels: Labels) -> None:
        """Count the labels of an image."""
        self.labelled[camera] = self.labelled.get(camera, 0) + 1
        written = int(np.count_nonzero((labels.depth > 0) & (labels.depth < FARTHEST)))
        self.depths[camera] = self.depths.get(camera, 0) + written
        if labels.semantic is not None:
            counts = np.bincount(labels.semantic.ravel(), minlength=256)
            self.frequencies += counts
            self.classified[camera] = self.classified.get(camera, 0) + int(counts[:UNLABELLED].sum())

    def skip(self, reason: str, where: str) -> None:
        """Count an image without labels."""
        self.skipped.setdefault(re.sub(r"[-+]?\d[\d.]*|'[^']*'", "#", reason), [0, where, reason])[0] += 1


def coverage_table(coverage: Coverage, classes: ClassTable) -> str:
    """The counts as text: pixels by camera, pixels by class, and images without labels."""
    lines = [f"{'camera':<20} {'images':>9} {'depth pixels/image':>19} {'class pixels/image':>19}"]
    for camera, images in coverage.images.items():
        labelled = coverage.labelled.get(camera, 0)
        depths, known = (found.get(camera, 0) / max(labelled, 1) for found in (coverage.depths, coverage.classified))
        lines.append(f"{camera:<20} {f'{labelled}/{images}':>9} {depths:>19,.0f} {known:>19,.0f}")
    total = coverage.frequencies[: len(classes)].sum()
    if total:
        lines += ["", f"{'class':<22} {'pixels':>12} {'share':>8}"]
        counts = coverage.frequencies[: len(classes)].tolist()
        rows = [(name, count) for name, count in zip(classes.names, counts) if count]
        lines += [f"{name:<22} {count:>12,} {count / total:>8.2%}" for name, count in rows]
        absent = [classes.names[index] for index in classes.occupied_ids if not counts[index]]
        lines += [f"not seen: {', '.join(absent)}"] if absent else []
    for count, first, reason in coverage.skipped.values():
        lines.append(f"{count} images without labels, first {first}: {reason}")
    return "\n".join(lines)


def source_table(counts: Mapping[int, int], mapping: ClassMapping) -> str:
    """What share of all pixels got which label of a network, and the class that it is mapped to, as text.

    Args:
        counts: {id of the network: pixels}.
        mapping: maps the ids to classes.
    """
    total = max(sum(counts.values()), 1)
    special = {UNLABELLED: "unlabelled", NO_SURFACE: "no surface"}
    rows = [f"{'label':<34} {'class':<22} {'pixels':>12} {'share':>8}"]
    for index, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        target = mapping.ids.get(index, mapping.others)
        assert target is not None  # an id without a class is an error before this
        name = special.get(target) or mapping.classes.names[target]
        label = f"{index} {mapping.names.get(index, '')}".strip()
        rows.append(f"{label:<34} {name:<22} {count:>12,} {count / total:>8.2%}")
    return "\n".join(rows)
