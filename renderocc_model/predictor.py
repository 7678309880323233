"""From camera pictures to occupancy: a network, ready to be used without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Checkpoint, Description, load_checkpoint
from .classes import OCC3D_NUSCENES, UNLABELLED, ClassTable
from .export_backends import ExportedNetwork, chosen_backend, load_exported
from .export_file import is_exported
from .field import SemanticDensityField
from .fusion import Volume
from .geometry import invert
from .grid import VoxelGrid
from .lift import Frustums, LiftGeometry
from .model_config import ModelConfig
from .network import NetworkOutput
from .occupancy import Occupancy
from .precision import PRECISIONS, autocast, cpu_multiplies_bfloat16
from .preprocess import Preprocessor, normalise
from .presets import preset as preset_named
from .rig import CameraModel, Rig, compare_summaries
from .undistort import UndistortTable, View
from .untrained import surround_cameras, untrained_checkpoint
from .visibility import visible_voxels

__all__ = ["Occupancy", "Predictor"]

_KEPT_FRUSTUMS = 8  # sets of cameras: a camera that drops out now and then makes a few


class Predictor:
    """Predicts the occupancy around a vehicle from one set of pictures at a time.

        rig = Rig.load("rig.yaml")
        predictor = Predictor("checkpoint.safetensors", rig)
        occupancy = predictor({name: rgb_picture_of(name) for name in rig.names})

    Used by one thread at a time. With a model that joins the previous frame, give the vehicle's pose with each call:
    the previous volume is moved by the ego motion between two poses, and forgotten when a pose is missing.

    Args:
        checkpoint: a checkpoint, the path of one or of what `renderocc export` wrote, or "tiny", the trained network
            in the package.
        rig: the cameras, for `predictor(images)` and for `warnings`; `predict` needs none.
        device: "auto" (CUDA where there is any, else the CPU), "cpu", "cuda", "cuda:1".
        precision: "auto" (float16 on CUDA; bfloat16 on CPUs that have instructions for it; else float32), "float32",
            "float16" (CUDA only), "bfloat16".
        minimum_transmittance: share of light that must reach a voxel for it to count as seen.
        backend: what runs the network: "auto" (torch; onnxruntime for .onnx files), "torch", "onnxruntime" (on the CPU,
            with as many threads as torch has), "tensorrt". Exported networks compute in float32; in TensorRT in
            float16, if precision is "auto".

    Attributes:
        backend: the one that is used.
        threshold: a voxel is occupied where 1 - exp(-density * voxel_size) exceeds it; may be set.
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
        self.backend = chosen_backend("" if isinstance(checkpoint, Checkpoint) else checkpoint, backend)
        self.device = _chosen_device(_device_of(self.backend, device))
        self._exported: ExportedNetwork | None = None
        self._checkpoint: Checkpoint | Description
        if not isinstance(checkpoint, Checkpoint) and is_exported(checkpoint):
            self.precision = _exported_precision(precision, self.backend)
            exported = load_exported(checkpoint, self.backend, self.device, self.precision)
            self._exported, self._checkpoint = exported.network, exported.description
        else:
            self.precision = _chosen_precision(precision, self.device)
            if not isinstance(checkpoint, Checkpoint):
                checkpoint = load_checkpoint(checkpoint, self.device)
            self._network = checkpoint.network.to(self.device).eval().requires_grad_(False)
            self._checkpoint = checkpoint
        checkpoint = self._checkpoint
        self.minimum_transmittance = minimum_transmittance
        self.stored_threshold = self.threshold = checkpoint.threshold
        self._channel_ids = torch.tensor(checkpoint.classes.occupied_ids, dtype=torch.uint8, device=self.device)
        self._frustums: dict[tuple[View, ...], Frustums] = {}
        self._previous: tuple[Volume, np.ndarray] | None = None
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
    ) -> Predictor:
        """A predictor with random weights, the same for the same seed: for tests, and to see everything around it work.

        Its output means nothing, but has some of everything: see `untrained_checkpoint`.
        """
        config = preset_named(preset) if isinstance(preset, str) else preset
        device = _chosen_device(device)
        return cls(untrained_checkpoint(config, classes, seed, device), rig, device, precision)

    @property
    def config(self) -> ModelConfig:
        return self._checkpoint.config

    @property
    def classes(self) -> ClassTable:
        return self._checkpoint.classes

    @property
    def grid(self) -> VoxelGrid:
        return self.config.grid

    @property
    def provenance(self) -> dict:
        """Where the checkpoint came from."""
        return self._checkpoint.provenance

    @property
    def view_size(self) -> tuple[int, int]:
        """(height, width) of the views the network takes."""
        return self.config.images.height, self.config.images.width

    @property
    def threshold(self) -> float:
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not 0 < value < 1:
            raise ValueError(f"threshold is {value}; expected an occupancy probability between 0 and 1")
        self._threshold = float(value)

    def __call__(self, images: Mapping[str, np.ndarray], odom_from_base: np.ndarray | None = None) -> Occupancy:
        """Predict from pictures as the rig's cameras deliver them.

        Args:
            images: camera name -> (H, W, 3) uint8 RGB of the camera's own size; cameras left out are absent, and what
                only they would see is unknown.
            odom_from_base: (4, 4) pose of the vehicle, for models that join the previous frame.

        Raises:
            ValueError: there is no rig or no picture, a name is not in the rig, or a picture is not its camera's size.
        """
        return self.predict(*self.prepare(images), odom_from_base=odom_from_base)

    def prepare(self, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[UndistortTable], np.ndarray]:
        """Undistort and resize pictures: the first three arguments of `predict`. Arguments and errors of `__call__`."""
        if self._rig is None:
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
        views: np.ndarray,
        tables: Sequence[UndistortTable],
        base_from_camera: np.ndarray,
        odom_from_base: np.ndarray | None = None,
    ) -> Occupancy:
        """Predict from the network's own views, from any number of cameras, in any order.

        Args:
            views: (N, height, width, 3) uint8 RGB, N >= 1, of `view_size`.
            tables: N tables the views were made with; their pinhole view and which of its pixels exist are looked at.
            base_from_camera: (N, 4, 4) poses of the optical frames in the grid's frame at the output's stamp.
            odom_from_base: (4, 4) pose of the vehicle at the output's stamp, or None if it is not known.

        Raises:
            ValueError: shapes or types do not fit, a pose is not finite, or the network's output is not a number.
        """
        self._check(views, tables, base_from_camera, odom_from_base)
        pinholes = tuple(table.view for table in tables)
        geometry = self._frustums_of(pinholes).place(base_from_camera)
        pictures = torch.from_numpy(np.require(views, requirements=["C", "W"]))
        if self.device.type == "cuda":
            pictures = pictures.pin_memory().to(self.device, non_blocking=True)
        if self._exported is not None:
            density, semantics = self._exported(pictures, geometry)
        else:
            output = self._run_network(pictures, geometry, odom_from_base)
            density, semantics = output.density[0], output.semantics[0]
        return self._occupancy(density, semantics, tables, base_from_camera)

    def reset(self) -> None:
        """Forget the previous volume: the next frame is predicted as if it were the first."""
        self._previous = None

    def warm_up(self, cameras: int = 6) -> None:
        """Run on grey pictures, then reset: the first frame shall not pay for taking memory and choosing kernels."""
        height, width = self.view_size
        views, poses = surround_cameras(cameras, height, width)
        tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
        self.predict(np.full((cameras, height, width, 3), 128, np.uint8), tables, poses)
        self.reset()

    def compare_rig(self, rig: Rig | Mapping[str, CameraModel]) -> list[str]:
        """Sentences about where a rig differs from the one the network was trained on; none if that is not known.

        Args:
            rig: the rig in use, or only its cameras' models by name; mounts are then not compared.
        """
        trained = self._checkpoint.rig_summary
        if not trained:
            return []
        return compare_summaries(trained, rig.summary() if isinstance(rig, Rig) else _summary_of_models(rig, trained))

    def _run_network(
        self, pictures: Tensor, geometry: LiftGeometry, odom_from_base: np.ndarray | None
    ) -> NetworkOutput:
        previous = self._moved_previous(odom_from_base)
        with autocast(self.device, self.precision):
            output = self._network(normalise(pictures)[None], geometry, previous)
        self._previous = None
        if output.volume is not None and odom_from_base is not None:
            self._previous = (output.volume, np.array(odom_from_base, dtype=np.float64))
        return output

    def _frustums_of(self, views: tuple[View, ...]) -> Frustums:
        if views not in self._frustums:
            if len(self._frustums) >= _KEPT_FRUSTUMS:
                self._frustums.pop(next(iter(self._frustums)))
            self._frustums[views] = Frustums(self.config, views, self.device)
        return self._frustums[views]

    def _moved_previous(self, odom_from_base: np.ndarray | None) -> Volume | None:
        if self._previous is None or odom_from_base is None:
            return None
        volume, odom_from_previous_base = self._previous
        return volume.moved(torch.from_numpy(invert(odom_from_base) @ odom_from_previous_base))

    def _occupancy(
        self, density: Tensor, semantics: Tensor, tables: Sequence[UndistortTable], base_from_camera: np.ndarray
    ) -> Occupancy:
        """Occupied, free and unknown (design: unknown is what no camera sees, or what lies behind what they see)."""
        grid, classes = self.grid, self.classes
        try:
            field = SemanticDensityField(grid, density, semantics)
        except ValueError as error:
            raise ValueError(f"the network's output cannot be used ({error}); try precision float32") from error
        confidence = field.occupancy_probability()
        masks = [None if table.valid.all() else table.valid for table in tables]
        visible = visible_voxels(
            field,
            [table.view for table in tables],
            base_from_camera,
            valid=masks,
            minimum_transmittance=self.minimum_transmittance,
        )
        semantics = torch.full_like(visible, UNLABELLED, dtype=torch.uint8).masked_fill_(visible, classes.free)
        self._label(semantics, field, visible & (confidence > self._threshold))
        semantics, confidence, visible = self._to_host(semantics, confidence, visible)
        if not np.isfinite(confidence.sum()):
            raise ValueError("the network's output is not a number; try precision float32, or another checkpoint")
        return Occupancy(grid, classes, semantics, confidence, visible, field)

    def _label(self, semantics: Tensor, field: SemanticDensityField, occupied: Tensor) -> None:
        """Write the most likely class into the occupied voxels of `semantics`."""
        if self.device.type == "cpu":
            rows = occupied.view(-1).nonzero()[:, 0]  # few: cheaper than comparing the logits of all voxels
            logits = field.semantics.reshape(self.grid.size, -1).index_select(0, rows)
            semantics.view(-1)[rows] = self._channel_ids[logits.argmax(dim=1)]
        else:
            labels = self._channel_ids[field.semantics.argmax(dim=-1)]
            semantics.copy_(torch.where(occupied, labels, semantics))

    def _to_host(self, *tensors: Tensor) -> list[np.ndarray]:
        if self.device.type == "cpu":
            return [tensor.numpy() for tensor in tensors]
        copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(copies, tensors):
            copy.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return [copy.numpy() for copy in copies]

    def _check(self, views: np.ndarray, tables: Sequence, base_from_camera: np.ndarray, odom_from_base) -> None:
        expected = (len(tables), *self.view_size, 3)
        if not len(tables):
            raise ValueError("there is no view; give at least one camera's")
        if not isinstance(views, np.ndarray):
            raise ValueError(f"views are a {type(views).__name__}; expected an array, uint8 {expected}")
        if views.dtype != np.uint8 or views.shape != expected:
            raise ValueError(f"views are {views.dtype} of shape {views.shape}; expected uint8 {expected}")
        if np.shape(base_from_camera) != (len(tables), 4, 4) or not np.isfinite(base_from_camera).all():
            raise ValueError(
                f"base_from_camera is {np.shape(base_from_camera)} or not finite; expected ({len(tables)}, 4, 4)"
            )
        if odom_from_base is not None and (np.shape(odom_from_base) != (4, 4) or not np.isfinite(odom_from_base).all()):
            raise ValueError("odom_from_base is no finite 4x4 transform; give None if the vehicle's pose is not known")


def _chosen_device(device: torch.device | str) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is '{device}', but torch sees no CUDA device; check nvidia-smi, or use device 'cpu'")
    return chosen


def _device_of(backend: str, device: torch.device | str) -> torch.device | str:
    """Where "auto" leaves the choice: onnxruntime works on the CPU."""
    return "cpu" if backend == "onnxruntime" and str(device) == "auto" else device


def _exported_precision(precision: str, backend: str) -> str:
    if precision == "auto":
        return "float16" if backend == "tensorrt" else "float32"
    if precision not in PRECISIONS or (backend == "tensorrt" and precision == "bfloat16"):
        raise ValueError(f"precision is '{precision}'; choose auto, float32, or with backend tensorrt float16")
    return precision


def _chosen_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        on_cpu = "bfloat16" if cpu_multiplies_bfloat16() else "float32"
        return "float16" if device.type == "cuda" else on_cpu
    if precision not in PRECISIONS:
        raise ValueError(f"precision is '{precision}'; choose auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs CUDA; on the CPU use float32, or bfloat16 where the CPU has it")
    return precision


def _summary_of_models(models: Mapping[str, CameraModel], trained: Mapping) -> dict:
    """A rig summary of cameras whose mounts are not known: they get those of the camera they are compared with."""
    cameras = []
    for name, model in models.items():
        field_of_view = sum(model.horizontal_extent)
        other = next((camera for camera in trained["cameras"] if camera["name"] == name), None)
        other = other or min(trained["cameras"], key=lambda camera: abs(camera["horizontal_fov"] - field_of_view))
        own = {"name": name, "width": model.width, "height": model.height, "horizontal_fov": field_of_view}
        cameras.append({**other, **own})
    return {"count": len(cameras), "cameras": cameras}
