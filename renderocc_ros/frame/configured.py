"""What a configured node consists of, between its subscriptions and its publishers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.pipeline import FramePipeline
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.frame.worker import Worker
from renderocc_ros.input.intake import Intake
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:  # it loads PyTorch, which takes seconds: the node is on the graph before that
    from renderocc_model.inference.predictor import Predictor

__all__ = ["ConfiguredNode"]


@dataclass(frozen=True)
class ConfiguredNode:
    """The parts that configuring makes and cleaning up gives back.

    Attributes:
        config: the parameters; a change of one at run time makes a new ConfiguredNode.
        predictor: the network.
        transforms: what /tf and /tf_static have said.
        intake: bytes to sets of images.
        pipeline: sets of images to frames.
        worker: the thread that runs the pipeline and publishes.
        vehicle_map: what the last frames have shown.
    """

    config: NodeConfig
    predictor: Predictor
    transforms: TransformBuffer
    intake: Intake
    pipeline: FramePipeline
    worker: Worker
    vehicle_map: VehicleMap
