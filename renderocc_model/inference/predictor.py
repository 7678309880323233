"""From camera pictures to occupancy: a network, ready to be used without ROS."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..export.backends import chosen_backend
from ..field.classes import OCC3D_NUSCENES, ClassTable
from ..field.occupancy import Occupancy
from ..field.threshold import Threshold
from ..geometry.grid import VoxelGrid
from ..geometry.rig import CameraModel, Rig
from ..geometry.undistortion import UndistortTable
from ..images.preprocessing import Preprocessor
from ..network.checkpoint import Checkpoint
from ..network.config import ModelConfig
from ..network.fusion import EarlierFrame, KeptFrame, placed
from ..network.lift import LiftGeometry
from ..network.presets import preset as preset_named
from ..network.rig_summary import compare_summaries, summary_of_models
from ..network.untrained import surround_cameras, untrained_checkpoint
from ..ops.left_out import left_out
from .camera_set import CameraSet, CameraSets
from .cuda_graph import record_graph
from .fixed_frames import FixedFrames, FrameInputs, Recorder
from .frame_history import FrameHistory
from .input_checks import check_inputs
from .loading import load_network
from .occupancy_reader import OccupancyReader
from .precision import chosen_device
from .prepared_network import InferenceNetwork, Prediction

__all__ = ["Occupancy", "Predictor"]

_FRAMES_BEFORE_CAPTURE = 1  # for a set of cameras that delivers a single frame, recording does not pay
_CAPTURES = 3  # sets of cameras whose frames are kept recorded, with their memory


class Predictor:
    """Predicts the occupancy around a vehicle from one set of pictures at a time.

        rig = Rig.load("rig.yaml")
        predictor = Predictor("checkpoint.safetensors", rig)
        occupancy = predictor({name: rgb_picture_of(name) for name in rig.names})

    The checkpoint's network is left as it is: a copy is made ready for inference. On CUDA devices the
    second frame of a set of cameras is recorded as a CUDA graph, from normalisation to the list of occupied voxels, and
    replayed for later ones (`fixed_frames`); exported models run without a graph.

    Used by one thread at a time. With a model that joins an earlier frame, give the vehicle's pose and the time with
    each call: what was kept of the frame of about `model.fusion.interval` ago is moved by the ego motion between the
    two poses. (Of a model with `fusion.frames` above 1 that is what it had joined by then.) All frames are forgotten
    when a pose is missing.

    Args:
        checkpoint: a checkpoint, the path of one or of what `renderocc export` wrote, or "tiny", the trained network
            in the package.
        rig: the cameras, for `predictor(images)` and for `warnings`; `predict` needs none.
        device: "auto" (CUDA where there is any, else the CPU), "cpu", "cuda", "cuda:1"; with backend "openvino" also
            "intel_gpu" and "intel_npu", on which nobody has run it yet.
        precision: "auto" (float16 on CUDA; bfloat16 on CPUs that have instructions for it; else float32), "float32",
            "float16" (CUDA only), "bfloat16".
        minimum_transmittance: share of light that must reach a voxel for it to count as seen.
        backend: what runs the network: "auto" (`chosen_backend`), "torch", "openvino", "onnxruntime" (both on the CPU
            with as many threads as torch has), "tensorrt". Exported networks compute in float32; in TensorRT in
            float16, if precision is "auto". In INT8 networks (.openvino) the precision is of the layers that are not
            INT8.

    Attributes:
        backend: the one that is used.
        threshold: a voxel is occupied where 1 - exp(-density * voxel_size) exceeds it, a number or a curve over the
            distance; may be set.
        stored_threshold: the checkpoint's.
        warnings: sentences about where the rig differs from the one the network was trained on.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ValueError: the device is not there, or the precision does not exist on it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | Path,
        rig: Rig | None = None,
        device: torch.device | str = "auto",
        precision: str = "auto",
        minimum_transmittance: float = 0.5,
        backend: str = "auto",
    ) -> None:
        loaded = load_network(checkpoint, backend, device, precision)
        self.backend, self.device, self.precision = loaded.backend, loaded.device, loaded.precision
        self._network, self._exported, self._described = loaded.network, loaded.exported, loaded.description
        self._reader = OccupancyReader(self.grid, self.classes, self.device, self._described.threshold)
        self.stored_threshold = self._described.threshold
        self._camera_sets = CameraSets(self.config, self.device, minimum_transmittance)
        self._recorder: Recorder | None = None
        if self.device.type == "cuda" and self._network is not None:
            self._recorder = partial(record_graph, device=self.device)
        self._history = FrameHistory(self.config.fusion.interval)
        self._rig = rig
        self._preprocessor = None if rig is None else Preprocessor(rig, *self.view_size)
        self.warnings = [] if rig is None else self.compare_rig(rig)

    @classmethod
    def untrained(
        cls,
        preset: str | ModelConfig = "tiny",
        rig: Rig | None = None,
        seed: int = 0,
        device: torch.device | str = "auto",
        precision: str = "auto",
        classes: ClassTable = OCC3D_NUSCENES,
        backend: str = "auto",
    ) -> Predictor:
        """A predictor with random weights, the same for the same seed: for tests and first trials.

        Its output means nothing, but has free and occupied voxels of many classes: see `untrained_checkpoint`.
        """
        config = preset_named(preset) if isinstance(preset, str) else preset
        if chosen_backend("", backend, device) != "openvino":
            device = chosen_device(device)
        where = device if isinstance(device, torch.device) else "cpu"
        return cls(untrained_checkpoint(config, classes, seed, where), rig, device, precision, backend=backend)

    @property
    def config(self) -> ModelConfig:
        return self._described.config

    @property
    def classes(self) -> ClassTable:
        return self._described.classes

    @property
    def grid(self) -> VoxelGrid:
        return self.config.grid

    @property
    def provenance(self) -> dict:
        """Where the checkpoint came from."""
        return self._described.provenance

    @property
    def view_size(self) -> tuple[int, int]:
        """(height, width) of the views the network takes."""
        return self.config.images.height, self.config.images.width

    @property
    def threshold(self) -> Threshold:
        return self._reader.threshold

    @threshold.setter
    def threshold(self, value: Threshold) -> None:
        self._reader.set_threshold(value)

    def __call__(
        self,
        images: Mapping[str, np.ndarray],
        odom_from_base: np.ndarray | None = None,
        seconds: float | None = None,
    ) -> Occupancy:
        """Predict from pictures as the rig's cameras deliver them.

        Args:
            images: camera name -> (H, W, 3) uint8 RGB of the camera's own size; cameras left out are absent, and what
            only these would see is unknown.
            odom_from_base, seconds: as of `predict`, for models that join an earlier frame.

        Raises:
            ValueError: there is no rig or no picture, a name is not in the rig, or a picture is not its camera's size.
        """
        return self.predict(*self.prepare(images), odom_from_base=odom_from_base, seconds=seconds)

    def prepare(self, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[UndistortTable], np.ndarray]:
        """Undistort and resize pictures: the first three arguments of `predict`. Arguments and errors of `__call__`."""
        if self._rig is None or self._preprocessor is None:
            raise ValueError("this predictor has no rig; make it with Predictor(checkpoint, rig), or use predict()")
        if not isinstance(images, Mapping):
            raise ValueError(
                f"images are a {type(images).__name__}; give a dict, name -> (H, W, 3) uint8 RGB array, of any of the "
                f"cameras {', '.join(self._rig.names)}"
            )
        if not images:
            raise ValueError(f"there is no picture; give one from at least one of {', '.join(self._rig.names)}")
        views = np.stack([self._preprocessor.from_rgb(name, image) for name, image in images.items()])
        tables = [self._preprocessor.table(name) for name in images]
        return views, tables, np.stack([self._rig[name].base_from_camera for name in images])

    @torch.inference_mode()
    def predict(
        self,
        views: np.ndarray | Tensor,
        tables: Sequence[UndistortTable],
        base_from_camera: np.ndarray,
        odom_from_base: np.ndarray | None = None,
        seconds: float | None = None,
    ) -> Occupancy:
        """Predict from the network's own views, from any number of cameras, in any order.

        Args:
            views: (N, height, width, 3) uint8 RGB, N >= 1, of `view_size`; an array, or a tensor on any device.
            tables: N tables the views were made with; only their pinhole views and the masks of existing pixels are
                used.
            base_from_camera: (N, 4, 4) poses of the optical frames in the grid's frame at the output's stamp.
            odom_from_base: (4, 4) pose of the vehicle at the output's stamp, or None if it is not known.
            seconds: the output's stamp. None: `model.fusion.interval` after the frame before.

        Raises:
            ValueError: shapes or types do not fit, a pose is not finite, or the network's output is not a number.
        """
        check_inputs(views, len(tables), self.view_size, base_from_camera, odom_from_base)
        cameras = self._camera_sets.of(tables)
        cameras.used += 1
        seconds = self._history.next_seconds if seconds is None else seconds
        if self._records and cameras.frames is None and cameras.used > _FRAMES_BEFORE_CAPTURE:
            self._record(cameras, views, base_from_camera)
        # The copy to the device begins first; meanwhile the host works on poses.
        pictures = self._upload(views) if cameras.frames is None else cameras.frames.upload(views)
        geometry = cameras.frustums.place(base_from_camera)
        earlier = self._earlier_frame(geometry, odom_from_base, seconds)
        if cameras.frames is not None:
            occupancy, kept = self._replay(cameras, cameras.frames, base_from_camera, earlier)
        else:
            prediction = self._run_network(pictures, cameras, geometry, earlier)
            occupancy, kept = self._occupancy(prediction, cameras, base_from_camera), prediction.kept
        if kept and odom_from_base is not None:
            frame = KeptFrame.current(*kept).with_cameras(geometry)
            self._history.add(frame, odom_from_base, seconds)
        return occupancy

    def view_buffer(self, tables: Sequence[UndistortTable]) -> np.ndarray:
        """(N, height, width, 3) uint8 memory to write the views of the next frame into, before `predict` is given it.

        On CUDA devices it is pinned once these cameras' frames are recorded: what is written there is not copied on the
        host again. Between two frames its content is undefined.
        """
        frames = self._camera_sets.of(tables).frames
        return np.empty((len(tables), *self.view_size, 3), np.uint8) if frames is None else frames.buffer

    def reset(self) -> None:
        """Forget earlier frames: the next frame is predicted as if it were the first."""
        self._history.clear()

    def warm_up(self, cameras: int = 6) -> None:
        """Run on grey pictures, then reset: memory is taken and kernels are chosen before the first real frame."""
        height, width = self.view_size
        views, poses = surround_cameras(cameras, height, width)
        tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
        for _ in range(_FRAMES_BEFORE_CAPTURE + 1 if self._records else 1):
            self.predict(np.full((cameras, height, width, 3), 128, np.uint8), tables, poses)
        self._camera_sets.release_frames(0)
        self.reset()

    def compare_rig(self, rig: Rig | Mapping[str, CameraModel]) -> list[str]:
        """Sentences about where a rig differs from the one the network was trained on; none if that is not known.

        Args:
            rig: the rig in use, or only its cameras' models by name; mounts are then not compared.
        """
        trained = self._described.rig_summary
        if not trained:
            return []
        return compare_summaries(trained, rig.summary() if isinstance(rig, Rig) else summary_of_models(rig, trained))

    @property
    def _records(self) -> bool:
        """Whether frames are recorded. A reference inside waits for the device, which a recording cannot hold."""
        return self._recorder is not None and not left_out().keys() & {"cuda_graph", "voxel_pooling", "visibility"}

    def _run_network(
        self, pictures: Tensor, cameras: CameraSet, geometry: LiftGeometry, earlier: EarlierFrame | None
    ) -> Prediction:
        if self._exported is not None:
            density, logits, *kept = self._exported(pictures, geometry, earlier)
            layers = kept.pop(0) if self.config.heads.density_layers > 1 else None
            return Prediction(density, logits, _same, tuple(kept), layers)
        assert self._network is not None
        return self._network.predict(pictures, geometry.cameras[0], cameras.plan(geometry), earlier)

    def _earlier_frame(
        self, geometry: LiftGeometry, odom_from_base: np.ndarray | None, seconds: float
    ) -> EarlierFrame | None:
        if odom_from_base is None:
            self._history.clear()
            return None
        previous = self._history.before(odom_from_base, seconds)
        return None if previous is None else placed(previous, self.grid, geometry, self.config.fusion.stereo.views)

    def _upload(self, views: np.ndarray | Tensor) -> Tensor:
        pictures = views if isinstance(views, Tensor) else torch.from_numpy(np.require(views, requirements=["C", "W"]))
        if self.device.type == "cuda" and pictures.device.type == "cpu":
            pictures = pictures.pin_memory()
        return pictures.to(self.device, non_blocking=True)

    def _record(self, cameras: CameraSet, views: np.ndarray | Tensor, base_from_camera: np.ndarray) -> None:
        """Record these cameras' frames for replay; if that is not possible, warn once and go on without."""
        self._camera_sets.release_frames(_CAPTURES - 1)
        assert isinstance(self._network, InferenceNetwork)  # others are never recorded
        inputs = self._inputs(cameras, base_from_camera)
        try:
            cameras.frames = FixedFrames(
                self._network,
                cameras.view_frusta,
                self._reader.channel_ids,
                inputs,
                tuple(views.shape),
                self.device,
                self._recorder,
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recorder = None
            warnings.warn(
                f"frames cannot be recorded as a CUDA graph, and are computed one by one, more slowly: {error}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _replay(
        self,
        cameras: CameraSet,
        frames: FixedFrames,
        base_from_camera: np.ndarray,
        earlier: EarlierFrame | None,
    ) -> tuple[Occupancy, tuple[Tensor, ...]]:
        found, prediction = frames.run(replace(self._inputs(cameras, base_from_camera), earlier=earlier))
        occupancy = self._reader.of_record(frames.record, found, prediction)
        return occupancy or self._occupancy(prediction, cameras, base_from_camera), prediction.kept

    def _inputs(self, cameras: CameraSet, base_from_camera: np.ndarray) -> FrameInputs:
        geometry = cameras.frustums.place(base_from_camera)
        table = cameras.view_frusta.camera_table(base_from_camera)
        return FrameInputs(geometry.cameras[0], cameras.plan(geometry), table, self._reader.voxel_threshold)

    def _occupancy(self, prediction: Prediction, cameras: CameraSet, base_from_camera: np.ndarray) -> Occupancy:
        return self._reader.of_prediction(prediction, cameras.view_frusta.at(base_from_camera))


def _same(logits: Tensor) -> Tensor:
    return logits
