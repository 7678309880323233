"""Where labels come from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from renderocc_model.field.classes import ClassTable
from training.label.structure.run import MotionLabels
from training.recordings.stamped_topic import StampedTopic

from .clouds import CloudSource
from .densify import Densifier
from .from_images import Segmenter
from .ground_images import ImageGround
from .mapping import ClassMapping
from .projection import Occlusion

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """The sources of labels.

    Attributes:
        classes: class table of the ids that are written.
        lidar: the clouds, or None.
        depth: {camera: topic of depth images}. These cameras do not take depth from the LiDAR.
        semantic: {camera: topic of label images}.
        mapping: maps the ids or colours of `semantic` to classes.
        network: a network that labels the images, or None.
        occlusion: how hidden points are found; None keeps them.
        min_depth: smallest z-depth of a LiDAR point, metres.
        masks: {camera: (H, W) bool}: pixels that show the vehicle itself and get no labels.
        motion: depth from motion, in place of LiDAR and depth images; or None.
        densifier: fills images between the points of depth from motion; or None.
        ground: classifies the pixels that have depth as ground or obstacle, where no LiDAR does; or None.
    """

    classes: ClassTable
    lidar: CloudSource | None = None
    depth: dict[str, StampedTopic] = field(default_factory=dict)
    semantic: dict[str, StampedTopic] = field(default_factory=dict)
    mapping: ClassMapping | None = None
    network: Segmenter | None = None
    occlusion: Occlusion | None = Occlusion()
    min_depth: float = 1.0
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    motion: MotionLabels | None = None
    densifier: Densifier | None = None
    ground: ImageGround | None = None

    @property
    def gives_classes(self) -> bool:
        """Whether a source gives classes, not only depth."""
        points = self.lidar is not None and self.lidar.classes is not None
        return points or bool(self.semantic) or self.network is not None or self.ground is not None
