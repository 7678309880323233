"""Computes the named and weighted loss terms of a batch from the network's output and the labels."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.lift import depth_bin_edges
from renderocc_model.network.network import NetworkOutput

from ..data.batch import Batch
from . import losses
from .config import LossWeights, SupervisionConfig
from .depth_targets import depth_bin_targets, z_depth_cosine
from .label_voxels import label_voxel_losses
from .queries import draw_queries, query_losses
from .ray_labels import RayLabels
from .ray_terms import render_terms
from .termination import layers_around_returns
from .voxel_truth import voxel_targets

__all__ = ["LossWeights", "Supervision", "SupervisionConfig", "channel_table"]


class Supervision:
    """The losses of a run. It is built once.

    How a ray is used depends on its measured distance d and on where it leaves the grid:

    - d before the exit: a return in the grid. Depth is learned, and the class if the ray has one.
    - d behind the exit: the ray's path through the grid is empty (term `empty`). Its class is not used.
    - no distance: the ray is not used, unless `class_only_rays` is set.
    - origin outside the grid: the ray is not used, because the space before the grid is not modelled.

    All rays are rendered together. `depth` compares logarithms of depths (SILog). The plain sum D = sum_i w_i t_i is
    too short by the share of light that is not stopped: a wall at 20 m with opacity 1/2 gives 10 m, and a wall at 40 m
    gives 20 m. As long as light is left, more density makes D longer, even in front of the surface. D also starts at 0,
    where the logarithm is infinite. With depth_completion `exit`, the depth is D + (1 - O) t_far: the remaining light
    counts with the distance at which it leaves the grid. This is the mean distance that light travels in the grid. It
    is between 0 and t_far, and is correct only for the correct surface, or for a mixture around it. More density makes
    it shorter. Wrong density in front of the surface does so most.

    depth_loss `termination` renders no depth. It uses the probability that light ends at the return
    (`termination_terms`).

    depth_target `contracted` is that of the authors' code, for the study. It replaces t by r s, with s = t / (t + r)
    and r = `contraction_radius`, and compares this with z-depth; the distortion is that of s. (The authors also
    contract points outside a ball of radius r, and use returns up to 52 m as labels. Here returns outside the grid
    are not labels.)

    Args:
        config: how labels are used.
        model: the model's settings.
        classes: the labels' class table. Logit i is class classes.occupied_ids[i].
        class_counts: (len(classes),) labels of each class in the training recordings.
        device: device of the outputs and batches.
    Raises:
        ValueError: the number of counts is not the number of classes, or the number of logits is not that of the
            classes other than free.
    """

    def __init__(
        self,
        config: SupervisionConfig,
        model: ModelConfig,
        classes: ClassTable,
        class_counts: Tensor | np.ndarray,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(class_counts) != len(classes):
            raise ValueError(
                f"there are {len(classes)} classes but {len(class_counts)} counts; give one for each class"
            )
        if len(classes.occupied_ids) != model.class_count:
            raise ValueError(
                f"the labels have {len(classes.occupied_ids)} classes other than free, the model "
                f"{model.class_count} logits; set class_count={len(classes.occupied_ids)}"
            )
        self.config, self.model, self.classes = config, model, classes
        self.channels = channel_table(classes, device)
        self.balance = None
        if config.balanced_classes:
            self.balance = losses.class_weights(torch.as_tensor(class_counts)[list(classes.occupied_ids)]).to(device)
        self.depth_edges = torch.from_numpy(depth_bin_edges(model.lift.depth)).to(device, torch.float32)
        self._weights = {field.name: getattr(config.weights, field.name) for field in fields(LossWeights)}

    def terms(
        self,
        output: NetworkOutput,
        batch: Batch,
        generator: torch.Generator | None = None,
        figures: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted loss terms of a batch. Their sum is the loss.

        Each term is the mean over the batch's B frames; a frame without labels for it counts as 0. So the loss of a
        batch is the mean of the losses of its parts. It does not depend on how frames are divided among processes.

        Args:
            output: the network's output for the batch; it is converted to float32.
            batch: the batch, on the output's device.
            generator: random numbers for the positions of query points and samples.
            figures: receives figures to log, detached numbers that are not weighted: `rays/labelled`, `rays/beyond`
                and `rays/unused` of the batch, where rays are rendered `opacity/labelled`, `opacity/beyond` and
                `depth/abs_rel`, means over the batch's rays, and the numbers of labelled voxels `label_voxels/free`,
                `label_voxels/occupied` (of 2D labels) and `voxels/labelled` (of 3D truth).
        Returns:
            The terms in use, in the order of `LossWeights`, each a number that depends on the output.
        Raises:
            ValueError: labels do not fit the model (cameras, grids), or, on the CPU, a density is not finite.
        """
        _check(output, batch)
        terms: dict[str, Tensor] = {}
        sums: dict[str, Tensor] = {}
        with torch.autocast(output.density.device.type, enabled=False):
            for number in range(len(batch)):
                frame = _Frame(self, output, batch, number)
                _add(terms, frame.ray_terms(generator, sums))
                _add(terms, frame.depth_distribution())
                _add(terms, frame.label_voxel_terms(sums))
                _add(terms, frame.voxel_terms(sums))
                _add(terms, frame.total_variation())
        if figures is not None:
            for name, value in sums.items():
                figures[name] = value if value.ndim == 0 else value[0] / value[1].clamp(min=1e-12)
        return {name: weight * terms[name] / len(batch) for name, weight in self._weights.items() if name in terms}


def channel_table(classes: ClassTable, device: torch.device | str = "cpu") -> Tensor:
    """(256,) int64: the logit of each class id, -1 for free, unlabelled and undefined ids."""
    table = torch.full((256,), -1, dtype=torch.int64)
    table[list(classes.occupied_ids)] = torch.arange(len(classes.occupied_ids))
    return table.to(device)


class _Frame:
    """One frame of a batch: its part of the output and its labels."""

    def __init__(self, supervision: Supervision, output: NetworkOutput, batch: Batch, number: int) -> None:
        self.supervision, self.config = supervision, supervision.config
        self.channels, self.balance = supervision.channels, supervision.balance
        self.field = SemanticDensityField.of_layers(
            supervision.model.grid, output.density[number].float(), output.semantics[number].float()
        )
        cameras = batch.base_from_camera.shape[1]
        self.depths = output.depth_distribution.unflatten(0, (-1, cameras))[number].float()
        self.rays, self.ray_cameras = batch.rays[number], batch.ray_cameras[number]
        self.depth_rays = batch.depth_rays[number] or (self.rays, self.ray_cameras)
        self.base_from_camera, self.intrinsics = batch.base_from_camera[number], batch.intrinsics[number]
        self.present, self.truth = batch.present[number], batch.truth[number]
        self.label_voxels = batch.label_voxels[number]

    def ray_terms(self, generator: torch.Generator | None, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms of rendered rays and of query points."""
        config, weights = self.config, self.config.weights
        terms: dict[str, Tensor] = {}
        if config.labels_3d == "only":
            return terms
        labels = RayLabels.of(config, self.field.grid, self.channels, self.rays)
        _add(
            sums,
            {
                "rays/labelled": (labels.classified > 0).sum(),
                "rays/beyond": (labels.beyond > 0).sum(),
                "rays/unused": (labels.used == 0).sum(),
            },
        )
        holding = marks = None if self.label_voxels is None else self.label_voxels["occupied"]
        if self.field.layers is not None:
            marks = layers_around_returns(self.field, self.rays, labels.distances, labels.returned > 0)
        if config.uses("render"):
            cosine = None
            if config.depth_target == "contracted":
                cosine = z_depth_cosine(self.rays, self.ray_cameras, self.base_from_camera)
            rendered, rendered_sums = render_terms(
                config, self.field, self.rays, labels, cosine, self.balance, generator, marks
            )
            terms.update(rendered)
            _add(sums, rendered_sums)
        if config.uses("query"):
            used = labels.returned + labels.beyond
            held, layers = (marks, self.field.layer_count) if config.query.layers else (holding, 1)
            queries = draw_queries(
                self.rays, labels.channels, self.field.grid, generator, config.query, used, held, layers
            )
            occupancy, semantics = query_losses(
                self.field, queries, self.balance, config.query, config.occupancy_factor
            )
            if weights.query_occupancy > 0:
                terms["query_occupancy"] = occupancy
            if config.use_semantics and weights.query_semantics > 0:
                terms["query_semantics"] = semantics
        return terms

    def depth_distribution(self) -> dict[str, Tensor]:
        if not (self.config.use_depth and self.config.weights.depth_distribution > 0):
            return {}
        model = self.supervision.model
        right = depth_bin_targets(
            *self.depth_rays,
            self.base_from_camera,
            self.intrinsics,
            self.present,
            model.lifted_shape,
            model.lifted_stride,
            self.supervision.depth_edges,
            self.config.depth_bins,
        )
        return {"depth_distribution": losses.depth_distribution(self.depths, right)}

    def label_voxel_terms(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the voxels that 2D labels mark; zeros for a sample without such voxels."""
        config, field, weights = self.config, self.field, self.config.weights
        if not config.uses("voxels") or config.labels_3d == "only":
            return {}
        if self.label_voxels is None:
            occupancy, semantics = field.density[:0].sum(), field.semantics[:0].sum()
        else:
            occupancy, semantics = label_voxel_losses(
                config.label_voxels, field, self.label_voxels, self.channels, self.balance, config.occupancy_factor
            )
            _add(sums, {f"label_voxels/{name}": self.label_voxels[name].sum() for name in ("occupied", "free")})
        terms = {}
        if weights.label_voxel_occupancy > 0:
            terms["label_voxel_occupancy"] = occupancy
        if config.use_semantics and weights.label_voxel_semantics > 0:
            terms["label_voxel_semantics"] = semantics
        return terms

    def voxel_terms(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the 3D truth. They are zero for a frame without truth, so that all batches have the same terms."""
        config, field = self.config, self.field
        if config.labels_3d == "off":
            return {}
        if self.truth is None:
            occupancy, semantics = field.density[:0].sum(), field.semantics[:0].sum()
            count = torch.zeros((), dtype=torch.int64, device=field.device)
        else:
            channels, occupied, counted = voxel_targets(
                self.truth, config.truth_grid, field.grid, self.channels, self.supervision.classes
            )
            occupancy, semantics = losses.voxel_cross_entropy(
                field.density * config.occupancy_factor,
                field.semantics,
                channels,
                occupied,
                counted,
                field.grid.voxel_size,
                self.balance,
            )
            count = counted.sum()
        _add(sums, {"voxels/labelled": count})
        terms = {"voxel_occupancy": occupancy, "voxel_semantics": semantics}
        return {name: term for name, term in terms.items() if getattr(config.weights, name) > 0}

    def total_variation(self) -> dict[str, Tensor]:
        if self.config.weights.total_variation == 0:
            return {}
        return {"total_variation": losses.total_variation(self.field.occupancy_probability())}


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def _check(output: NetworkOutput, batch: Batch) -> None:
    if len(output.density) != len(batch):
        raise ValueError(f"the output is of {len(output.density)} frames, the batch of {len(batch)}; give both of one")
    for name, rays in zip(batch.names, batch.rays):
        if rays.distances is None:
            raise ValueError(f"{name}: its rays have no distances; give 0 where only the class is known")
