"""Loss terms of rendered rays."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import RenderResult, render
from renderocc_model.ops.render.surfaces import with_exit

from . import losses
from .config import SupervisionConfig
from .ray_labels import RayLabels
from .termination import termination_terms

__all__ = ["render_terms"]


def render_terms(
    config: SupervisionConfig,
    field: SemanticDensityField,
    rays: Rays,
    labels: RayLabels,
    z_cosine: Tensor | None,
    class_weights: Tensor | None,
    generator: torch.Generator | None = None,
    marks: Tensor | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Render all rays once and compare them with their labels.

    Args:
        z_cosine: (R,) z-depth per metre of distance, for contracted depths only.
        class_weights: (C,).
        generator, marks: see `termination_terms`.
    Returns:
        terms: the unweighted terms of weight above 0 among depth, termination, return_voxel, semantics, distortion,
            opacity and empty.
        sums: detached (2,) weighted sums and sums of weights, for `figures`.
    """
    weights = config.weights
    contracted = config.depth_target == "contracted"
    spread = weights.distortion > 0
    if weights.semantics == 0:  # no class is rendered; of a field in layers they would be copied
        field = replace(field, semantics=field.semantics[..., :0])
    rendered = render(
        field, rays, step=config.step, return_weights=contracted, return_distortion=spread and not contracted
    )
    depth = _depth(config, rendered, labels.exits)
    target, returned = labels.distances, labels.returned
    if contracted:
        assert z_cosine is not None, "contracted depths need z-depth"
        target = target * z_cosine
        returned = returned * (target > 0)  # a wide lens also sees behind its own image plane
    terms, by_depth = {}, config.use_depth and config.depth_loss == "silog"
    if config.use_depth and config.depth_loss == "termination":
        terms.update(termination_terms(config, field, rays, labels, generator, marks))
    if by_depth and weights.depth > 0:
        terms["depth"] = losses.silog(depth, target, returned, config.variance_focus)
    if config.use_semantics and weights.semantics > 0:
        terms["semantics"] = losses.semantic_cross_entropy(
            rendered.semantics, labels.channels, class_weights, labels.classified
        )
    if spread:
        diagonal = math.dist(field.grid.lower, field.grid.upper)
        if contracted:
            each = _contracted_distortion(config, rendered)
        else:
            assert rendered.distortion is not None  # asked for above
            each = rendered.distortion / diagonal
        terms["distortion"] = losses.weighted_mean(each, labels.used)
    if weights.opacity > 0:
        terms["opacity"] = losses.opacity_entropy(rendered.opacity, labels.used)
    if by_depth and weights.empty > 0:
        terms["empty"] = losses.empty_space(rendered.opacity, labels.beyond)
    with torch.no_grad():
        sums = {
            "opacity/labelled": _pair(rendered.opacity, labels.returned),
            "opacity/beyond": _pair(rendered.opacity, labels.beyond),
            "depth/abs_rel": _pair((depth - target).abs() / target, returned),
        }
    return terms, sums


def _depth(config: SupervisionConfig, rendered: RenderResult, exits: Tensor) -> Tensor:
    """(R,) rendered depth, metres; see `Supervision` for what its two settings mean."""
    radius = config.contraction_radius
    if config.depth_target == "contracted":
        assert rendered.weights is not None and rendered.sample_distances is not None  # asked for with this target
        places = rendered.sample_distances / (rendered.sample_distances + radius)
        depth, last = radius * (rendered.weights * places).sum(dim=1), radius * exits / (exits + radius)
    else:
        depth, last = rendered.distance, exits
    return with_exit(depth, rendered.opacity, last) if config.depth_completion == "exit" else depth


def _contracted_distortion(config: SupervisionConfig, rendered: RenderResult) -> Tensor:
    """(R,) distortion of s. The authors' sample length is 1 / (number of all samples), which is practically 0."""
    assert rendered.weights is not None and rendered.sample_distances is not None  # asked for with this target
    places = rendered.sample_distances / (rendered.sample_distances + config.contraction_radius)
    return losses.distortion(rendered.weights, places, 0.0)


def _pair(values: Tensor, weights: Tensor) -> Tensor:
    """(2,) sums of w v and of w, from which the mean over frames is computed later."""
    return torch.stack([(values.masked_fill(weights == 0, 0) * weights).sum(), weights.sum()])
