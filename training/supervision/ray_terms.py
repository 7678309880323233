"""What labelled rays say of a field that is rendered along them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import RenderResult, render

from . import losses
from .config import SupervisionConfig
from .ray_rules import RayKinds, with_exit

__all__ = ["RayLabels", "render_terms"]


@dataclass(frozen=True, eq=False)
class RayLabels:
    """What each of R rays is a label of; float32 weights, 0 where it is none.

    distances: (R,) measured metres; 1 where there is none.
    exits: (R,) metres to where the ray leaves the grid.
    channels: (R,) int64, the logit of its class; -1 for none.
    returned: (R,) it met something in the grid.
    beyond: (R,) it left the grid.
    classified: (R,) its class is that of something in the grid.
    """

    distances: Tensor
    exits: Tensor
    channels: Tensor
    returned: Tensor
    beyond: Tensor
    classified: Tensor

    @staticmethod
    def of(config: SupervisionConfig, grid: VoxelGrid, channel_table: Tensor, rays: Rays) -> RayLabels:
        """Sort rays by what they say (`supervise`), with `channel_table` (256,) the logit of each class id."""
        distances, kinds = rays.distances.to(torch.float32), RayKinds.of(rays, grid)
        weights = torch.ones_like(distances) if rays.weights is None else rays.weights.to(torch.float32)
        if not config.auxiliary_rays and rays.frame_offsets is not None:
            weights = weights * (rays.frame_offsets == 0)
        weights = weights * kinds.inside
        distances = torch.where(kinds.measured, distances, torch.ones_like(distances))
        if rays.classes is None:
            channels = torch.full_like(distances, -1, dtype=torch.int64)
        else:
            channels = channel_table[rays.classes.to(torch.int64)]
        returned = weights * kinds.returned
        unmeasured = torch.zeros_like(weights)
        if config.class_only_rays:
            unmeasured = weights * (~kinds.measured & (channels >= 0))
        return RayLabels(distances, kinds.far, channels, returned, weights * kinds.beyond, returned + unmeasured)

    @property
    def used(self) -> Tensor:
        """(R,) weights of rays that are a label of anything."""
        return self.classified + self.beyond


def render_terms(
    config: SupervisionConfig,
    field: SemanticDensityField,
    rays: Rays,
    labels: RayLabels,
    z_cosine: Tensor | None,
    class_weights: Tensor | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Render all rays once and compare with their labels.

    Args:
        z_cosine: (R,) z-depth per metre of distance, for contracted depths only.
        class_weights: (C,).
    Returns:
        terms: unweighted, those of weight above 0 among depth, semantics, distortion, opacity and empty.
        sums: detached (2,) weighted sums and sums of weights, for `figures`.
    """
    weights = config.weights
    contracted = config.depth_target == "contracted"
    spread = weights.distortion > 0
    rendered = render(
        field, rays, step=config.step, return_weights=contracted, return_distortion=spread and not contracted
    )
    depth = _depth(config, rendered, labels.exits)
    target, returned = labels.distances, labels.returned
    if contracted:
        target = target * z_cosine
        returned = returned * (target > 0)  # a wide lens sees what lies behind its own image plane
    terms = {}
    if config.use_depth and weights.depth > 0:
        terms["depth"] = losses.silog(depth, target, returned, config.variance_focus)
    if config.use_semantics and weights.semantics > 0:
        terms["semantics"] = losses.semantic_cross_entropy(
            rendered.semantics, labels.channels, class_weights, labels.classified
        )
    if spread:
        diagonal = math.dist(field.grid.lower, field.grid.upper)
        each = _contracted_distortion(config, rendered) if contracted else rendered.distortion / diagonal
        terms["distortion"] = losses.weighted_mean(each, labels.used)
    if weights.opacity > 0:
        terms["opacity"] = losses.opacity_entropy(rendered.opacity, labels.used)
    if config.use_depth and weights.empty > 0:
        terms["empty"] = losses.empty_space(rendered.opacity, labels.beyond)
    with torch.no_grad():
        sums = {
            "opacity/labelled": _pair(rendered.opacity, labels.returned),
            "opacity/beyond": _pair(rendered.opacity, labels.beyond),
            "depth/abs_rel": _pair((depth - target).abs() / target, returned),
        }
    return terms, sums


def _depth(config: SupervisionConfig, rendered: RenderResult, exits: Tensor) -> Tensor:
    """(R,) rendered depth, metres; see `supervise` for what its two settings mean."""
    radius = config.contraction_radius
    if config.depth_target == "contracted":
        places = rendered.sample_distances / (rendered.sample_distances + radius)
        depth, last = radius * (rendered.weights * places).sum(dim=1), radius * exits / (exits + radius)
    else:
        depth, last = rendered.distance, exits
    return with_exit(depth, rendered.opacity, last) if config.depth_completion == "exit" else depth


def _contracted_distortion(config: SupervisionConfig, rendered: RenderResult) -> Tensor:
    """(R,) distortion of s; the authors take 1 / the number of all samples for a sample's length, as good as 0."""
    places = rendered.sample_distances / (rendered.sample_distances + config.contraction_radius)
    return losses.distortion(rendered.weights, places, 0.0)


def _pair(values: Tensor, weights: Tensor) -> Tensor:
    """(2,) sum of w v and of w, for a mean over frames that is taken later."""
    return torch.stack([(values.masked_fill(weights == 0, 0) * weights).sum(), weights.sum()])
