"""Ray termination: the likelihood that the light of a labelled ray ends at its return. No rendered distance is
compared.

A field of density sigma stops light as a Poisson process stops particles. Let tau be the optical depth, the integral of
sigma along a ray. Light reaches a window around the return and ends in it with probability

    p = exp(-tau_before) (1 - exp(-tau_window)),    -log p = tau_before - log(1 - exp(-tau_window)).

A ray whose label is outside the grid has p = exp(-tau) over its whole path. As no expected depth is compared, a fog
with the right mean distance is as unlikely as it should be.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.stretching import stretched_grid, stretched_rays
from renderocc_model.ops.termination import (
    OpticalDepths,
    log1mexp,
    mark_voxels,
    negative_log_likelihood,
    return_windows,
    termination,
)

from . import losses
from .config import SupervisionConfig
from .queries import density_at
from .ray_labels import RayLabels

__all__ = ["layers_around_returns", "termination_terms"]

SMALLEST_STOP = 1e-6  # added to the optical depth that should stop light, so that the loss is at most 14


def termination_terms(
    config: SupervisionConfig,
    field: SemanticDensityField,
    rays: Rays,
    labels: RayLabels,
    generator: torch.Generator | None,
    marks: Tensor | None = None,
) -> dict[str, Tensor]:
    """The unweighted terms of ray termination whose weight is above 0.

    The window reaches from `margin` voxels before the return to as many behind it. At a low angle, a surface's own
    voxels stop light metres before the return. So with `run`, the window begins with the unbroken run of voxels before
    the return that hold returns of the same sample (as `query.occupied_first` for points).

    Args:
        generator: random numbers for the samples of a ray, and for the point at the return that should stop the light.
        marks: (X, Y, Z * L) bool, voxels, or layers (`layers_around_returns`), that count as holding a return beside
            those that hold one of these rays. Of a field in layers the run is of layers.
    Returns:
        termination: the mean of -log p over returns, plus the mean of tau over rays that left the grid, times the
            number of these rays divided by the number of returns.
        return_voxel: the mean of -log(1 - exp(-x)) over returns, with x the optical depth of one voxel length at a
            point up to a voxel behind the return, times `occupancy_factor`. A window of many voxels can stop light with
            little density in each; this term asks for a surface.
    """
    grid, returned = field.grid, labels.returned > 0
    terms = {}
    if config.weights.termination > 0:
        window = config.termination
        starts, ends = return_windows(
            grid, rays, labels.distances, returned, window.margin, window.run, config.step, marks, field.layer_count
        )
        depths = termination(field, rays, starts, ends, config.step, _uniform(labels.distances, generator))
        depths = OpticalDepths(depths.before, depths.window + SMALLEST_STOP)
        each = negative_log_likelihood(depths, returned)
        share = labels.beyond.sum() / labels.returned.sum().clamp(min=1)
        terms["termination"] = losses.weighted_mean(each, labels.returned) + share * losses.weighted_mean(
            each, labels.beyond
        )
    if config.weights.return_voxel > 0:
        behind = labels.distances + grid.voxel_size * _uniform(labels.distances, generator)
        points = rays.origins.float() + behind[:, None] * rays.directions.float()
        optical_depth = density_at(field, points) * grid.voxel_size * config.occupancy_factor + SMALLEST_STOP
        terms["return_voxel"] = losses.weighted_mean(-log1mexp(optical_depth), labels.returned)
    return terms


def layers_around_returns(field: SemanticDensityField, rays: Rays, distances: Tensor, returned: Tensor) -> Tensor:
    """(X, Y, Z * L) bool: layers that hold a return of these rays, and those beside them at the same height, as most
    surfaces that are seen at a low angle are level."""
    layers = field.layer_count
    marked = mark_voxels(stretched_grid(field.grid, layers), stretched_rays(rays, layers), distances, returned)
    levels = marked.permute(2, 0, 1)[None].float()
    return functional.max_pool2d(levels, 3, stride=1, padding=1)[0].permute(1, 2, 0) > 0


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """(R,) in [0, 1), drawn where the generator is and moved to where `like` (R,) is."""
    device = like.device if generator is None else generator.device
    return torch.rand(len(like), generator=generator, device=device).to(like.device)
