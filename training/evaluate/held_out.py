"""Evaluation without 3D truth: fields are rendered along labelled rays of held-out recordings.

A ray counts by its measured distance d and the distance t_far at which it leaves the grid:

- d < t_far, a return: the rendered distance and class are compared with the label.
- d >= t_far: the ray's path through the grid is empty. Any opacity that is rendered is a surface that does not exist.
- d is unknown, or the origin is outside the grid: the ray does not count.

Two distances are compared. The mean is D + (1 - O) t_far: light that nothing stops counts with the distance at which
it leaves the grid. So the error of a ray that meets nothing is the whole distance to the grid's end. With D / O it
would be 0 / 0 and left out, and a surface of low opacity would count like a full one. The median is where half of the
light has been stopped, or t_far if less is: the surface that is drawn (`ops.render.surfaces`). In the same way, a ray's
class is that of the largest composited logit if the opacity is at least 1/2, and else free, which no label is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.rays import Rays
from renderocc_model.inference.precision import autocast
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.network import OccupancyNetwork
from renderocc_model.ops.render import render
from renderocc_model.ops.render.surfaces import read_surfaces, with_exit

from ..data.batch import make_batch
from ..data.dataset import RayDataset
from ..data.previous_frame import previous_frame
from ..data.sample import Sample
from ..supervision.ray_rules import RayKinds
from .confusion import Confusion

__all__ = ["RayScores", "evaluate_rays", "evenly", "fields_of_predictor", "predicted_fields"]

RAYS_OF_A_FRAME = 20_000
_DELTA = 1.25


class RayScores:
    """Metrics of rendered rays, over any number of frames.

    Args:
        classes: the labels' class table. The field's channel i is classes.occupied_ids[i].
        step: distance between samples of a ray, in voxels.
    """

    def __init__(self, classes: ClassTable, step: float = 0.5) -> None:
        self.confusion, self.step = Confusion(classes), step
        self._channels = np.array(classes.occupied_ids)
        self.frames = self.returns = self.empty = 0
        self._by_camera: dict[str, np.ndarray] = {}  # returns, sum of |error| / d, within 1.25
        # Of returns: |error| / d, error^2, within 1.25, the median's |error| / d and within 1.25, opacity; and the
        # opacity of empty rays.
        self._sums = np.zeros(7)

    @torch.no_grad()
    def add(
        self, field: SemanticDensityField, rays: Rays, cameras: np.ndarray | None = None, names: Sequence[str] = ()
    ) -> None:
        """Render a frame's labelled rays, on the field's device.

        Args:
            cameras: (R,) the number of each ray's camera, for figures by camera; None for none.
            names: of the cameras.
        Raises:
            ValueError: the rays have no distances or classes, or the field's channels are not those of the classes.
        """
        if rays.distances is None or rays.classes is None:
            raise ValueError("rays have no distances or no classes; give labelled rays (RayDataset.rays_of)")
        if field.class_count != len(self._channels):
            raise ValueError(f"the field has {field.class_count} classes, not the labels' {len(self._channels)}")
        kinds = RayKinds.of(rays, field.grid)
        used = kinds.returned | kinds.beyond
        wanted, classes = rays.distances[used].double(), rays.classes[used]
        rays, far, is_return = rays[used], kinds.far[used], kinds.returned[used]
        result = render(field, rays, step=self.step)
        opacity = result.opacity.double()
        surfaces = read_surfaces(result, far)
        wanted = wanted[is_return]
        rendered = with_exit(result.distance, result.opacity, far)[is_return].double()
        error, close = _compared(rendered, wanted)
        median_error, median_close = _compared(surfaces.distances[is_return].double(), wanted)
        if cameras is not None:
            of_returns = cameras[used.cpu().numpy()][is_return.cpu().numpy()]
            self._add_by_camera(of_returns, names, error.cpu().numpy(), close.cpu().numpy())
        sums = [
            error.sum(),
            (rendered - wanted).square().sum(),
            close.sum(),
            median_error.sum(),
            median_close.sum(),
            opacity[is_return].sum(),
            opacity[~is_return].sum(),
        ]
        self._sums += np.array([float(value) for value in sums])
        self.frames += 1
        self.returns += int(is_return.sum())
        self.empty += int((~is_return).sum())
        channels = surfaces.channels[is_return].cpu().numpy()
        opaque = surfaces.opaque[is_return].cpu().numpy()
        found = np.where(opaque, self._channels[channels], self.confusion.classes.free)
        self.confusion.add(found, classes[is_return].cpu().numpy())

    def _add_by_camera(self, cameras: np.ndarray, names: Sequence[str], error: np.ndarray, close: np.ndarray) -> None:
        """Count returns, relative errors and distances within 25 %, (R,) each, for the camera of each."""
        columns = (np.bincount(cameras, weight, len(names)) for weight in (None, error, close))
        for name, *sums in zip(names, *columns):
            self._by_camera[name] = self._by_camera.get(name, np.zeros(3)) + sums

    def by_camera(self) -> dict[str, dict]:
        """abs_rel, delta_1 and the number of returns by the cameras' names; of those without returns, None."""
        return {
            name: {
                "abs_rel": float(error / count) if count else None,
                "delta_1": float(close / count) if count else None,
                "returns": int(count),
            }
            for name, (count, error, close) in self._by_camera.items()
        }

    def as_dict(self) -> dict:
        """abs_rel, rmse (m), delta_1, abs_rel_median, delta_1_median, miou_2d, iou_2d by class, opacity of returns and
        of empty rays, and counts.

        Means without values are None.
        """
        classes, iou = self.confusion.classes, self.confusion.iou()

        def mean(index: int, count: int) -> float | None:
            return float(self._sums[index] / count) if count else None

        square = mean(1, self.returns)
        miou = self.confusion.miou()
        return {
            "abs_rel": mean(0, self.returns),
            "rmse": None if square is None else square**0.5,
            "delta_1": mean(2, self.returns),
            "abs_rel_median": mean(3, self.returns),
            "delta_1_median": mean(4, self.returns),
            "miou_2d": None if np.isnan(miou) else miou,
            "iou_2d": {classes.names[i]: None if np.isnan(iou[i]) else float(iou[i]) for i in classes.occupied_ids},
            "opacity_returns": mean(5, self.returns),
            "opacity_empty": mean(6, self.empty),
            "counts": {
                "frames": self.frames,
                "returns": self.returns,
                "empty": self.empty,
                "classes": int(self.confusion.histogram.sum()),
            },
        }


def _compared(rendered: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) |error| / d, and whether the larger of two distances is less than 1.25 times the other."""
    return (rendered - wanted).abs() / wanted, torch.maximum(rendered / wanted, wanted / rendered) < _DELTA


def evaluate_rays(
    network: OccupancyNetwork,
    model_config: ModelConfig,
    dataset: RayDataset,
    frames: int | None = None,
    device: torch.device | str = "cpu",
    rays: int | None = RAYS_OF_A_FRAME,
    auxiliary: bool = False,
    precision: str = "float32",
    step: float = 0.5,
) -> dict:
    """Ray metrics of a network on held-out recordings.

    Args:
        network: a network on `device`. It runs in evaluation mode; afterwards its mode is as before.
        model_config: the network's settings.
        dataset: held-out frames without augmentation, with views of the model's size.
        frames: number of frames, spread evenly; None or 0 for all.
        device: the network's device.
        rays: largest number of labelled rays of a frame, spread evenly; None for all.
        auxiliary: whether to use rays of neighbouring frames, too (the dataset's `auxiliary_offsets`), if their classes
            do not move.
        precision: the network's precision: float32, bfloat16 or float16 (CUDA).
        step: distance between samples of a ray, in voxels.
    Returns:
        see `RayScores.as_dict`.
    """
    scores = RayScores(dataset.classes, step)
    offsets = dataset.config.auxiliary_offsets if auxiliary else ()
    indices = evenly(len(dataset), frames)
    for index, _, field in predicted_fields(network, model_config, dataset, indices, device, precision):
        scores.add(field, dataset.rays_of(index, rays, offsets).to(device))
    return scores.as_dict()


def predicted_fields(
    network: OccupancyNetwork,
    model_config: ModelConfig,
    dataset: RayDataset,
    indices: Sequence[int],
    device: torch.device | str = "cpu",
    precision: str = "float32",
    what: str = "",
) -> Iterator[tuple[int, Sample, SemanticDensityField]]:
    """Yield the network's fields, float32, for frames of a dataset.

    A model with temporal fusion gets the previous frame, as in training.

    Args:
        network: a network on `device`.
        model_config: the network's settings.
        dataset: the frames.
        indices: indices of the frames.
        device: the network's device.
        precision: the network's precision.
        what: a word before the progress bar; no bar if it is empty.
    """
    from tqdm import tqdm

    device = torch.device(device)
    for index in tqdm(indices, what, unit="frame", disable=not (what and sys.stderr.isatty())):
        sample = dataset.sample(0, index)
        batch = make_batch([sample], model_config).to(device)
        with torch.no_grad(), _evaluating(network), autocast(device, precision):
            output = network(batch.current.network_input(), batch.geometry, previous_frame(network, batch))
        field = SemanticDensityField.of_layers(
            model_config.grid, output.density[0].float(), output.semantics[0].float()
        )
        yield index, sample, field


def fields_of_predictor(
    predictor: Predictor, dataset: RayDataset, indices: Sequence[int], what: str = ""
) -> Iterator[tuple[int, Sample, SemanticDensityField]]:
    """As `predicted_fields`, by a predictor: for exported networks, which cannot be called in PyTorch.

    Args:
        predictor: predicts the earlier frames first, if it joins frames.
        dataset, indices, what: as of `predicted_fields`.
    """
    from tqdm import tqdm

    for index in tqdm(indices, what, unit="frame", disable=not (what and sys.stderr.isatty())):
        sample = dataset.sample(0, index)
        tables, _ = dataset.recording_of(index)
        predictor.reset()
        for frame in (*reversed(sample.previous), sample.current):
            used = np.flatnonzero(frame.present)
            undistorted = [dataset.undistortion(tables.cameras[camera]) for camera in used]
            poses, seconds = frame.base_from_camera[used], frame.stamp_ns * 1e-9
            occupancy = predictor.predict(frame.views[used], undistorted, poses, frame.odom_from_base, seconds)
        yield index, sample, occupancy.field


def evenly(size: int, count: int | None) -> list[int]:
    """`count` indices below `size`, spread evenly from 0; all indices if `count` is None, 0 or larger than `size`."""
    count = min(count or size, size)
    return [index * size // count for index in range(count)]


@contextmanager
def _evaluating(network: OccupancyNetwork) -> Iterator[None]:
    """Set evaluation mode, and afterwards each module's own mode again, as some may have been frozen for training."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
