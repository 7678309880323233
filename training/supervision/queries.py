"""Query supervision: labelled rays become 3D points that are empty or occupied. Nothing is rendered.

Points before a ray's return are empty, and points just behind it are occupied by the ray's class. If the label is
outside the grid, all points on the ray are empty. (This is the idea of QueryOcc; it is not in RenderOcc.) A point needs
one look-up, a rendered ray about a hundred. A point's gradient reaches only the voxels around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from renderocc_model.base.config import configuration, setting
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render.reference import trilinear
from renderocc_model.ops.stretching import stretched, stretched_density, stretched_grid

from .losses import SMALLEST_WEIGHT, occupancy_cross_entropy, semantic_cross_entropy
from .ray_rules import RayKinds

__all__ = ["Queries", "QueryConfig", "density_at", "draw_queries", "query_losses"]


@configuration
class QueryConfig:
    """The points on a ray, and their weights."""

    empty_points: int = setting(8, "points between the sensor and the return, one in each of this many equal parts", 0)
    occupied_points: int = setting(1, "points behind the return", 0)
    margin: float = setting(1.0, "length before the return without empty points, voxels", 0.0)
    depth: float = setting(1.0, "length behind the return with occupied points, voxels", 0.0)
    occupied_first: bool = setting(
        True, "leave out empty points in voxels that have a return of the same sample, as OctoMap does"
    )
    occupied_share: float = setting(
        0.5, "weight of all occupied points together in the occupancy loss; empty points have the rest", 0.0, 1.0
    )
    weighing: str = setting(
        "ray",
        "ray: points of all rays weigh the same, within the shares of empty and occupied points; volume: all voxels "
        "with points weigh the same, so that probabilities mean the same near and far",
        choices=("ray", "volume"),
    )
    interpolation: str = setting(
        "trilinear",
        "what a point is compared with: densities and classes between voxels' centres, as they are rendered, or those "
        "of the point's voxel",
        choices=("trilinear", "nearest"),
    )
    layers: bool = setting(
        False,
        "of voxels with layers of density: a point is in a layer, which is empty or occupied; false: in a voxel, with "
        "the mean of its layers",
    )

    def check(self) -> None:
        if self.empty_points + self.occupied_points == 0:
            raise ValueError("empty_points and occupied_points are both 0; ask for at least one point on a ray")


@dataclass(frozen=True, eq=False)
class Queries:
    """Points with labels.

    Attributes:
        empty: (E, 3) empty points, metres in base_link.
        empty_weights: (E,) float32 >= 0; 0 for points that are not used.
        occupied: (S, 3) occupied points.
        occupied_weights: (S,) float32 >= 0.
        channels: (S,) int64, index of the correct logit of each occupied point; -1 for none.
    """

    empty: Tensor
    empty_weights: Tensor
    occupied: Tensor
    occupied_weights: Tensor
    channels: Tensor


def draw_queries(
    rays: Rays,
    channels: Tensor,
    grid: VoxelGrid,
    generator: torch.Generator | None = None,
    config: QueryConfig | None = None,
    weights: Tensor | None = None,
    holding: Tensor | None = None,
    layers: int = 1,
) -> Queries:
    """Points on R labelled rays: E = R * empty_points, S = R * occupied_points.

    Their number does not depend on the labels, so that no size has to be read back from a GPU. Points without a label,
    and points outside of the grid, get weight 0. So do all points of rays without a measured distance (0 or NaN), and
    of rays that begin outside of the grid. Rays whose return is behind the grid give empty points up to its face.

    If a surface is seen at a low angle, the last metres of a ray are in the surface's own voxels. (On a road seen from
    1.6 m above, at 15 m, the last 3.7 m are less than a voxel of 0.4 m above it.) Points there cannot be called empty:
    `occupied_first` leaves them out. `margin` leaves out the last piece of a ray at any angle.

    Args:
        rays: with distances.
        channels: (R,) int64, logit of each ray's class, -1 for none.
        grid: grid of the field.
        generator: random positions of the points within their parts of a ray; on any device.
        weights: (R,) >= 0, weight of each ray's points; None for 1.
        holding: (X, Y, Z * layers) bool, more voxels that hold a return than those of these rays, for `occupied_first`.
        layers: of a voxel, each of which is then what is said of voxels here; 1 for whole voxels.
    """
    config = config or QueryConfig()
    origins, directions = rays.origins.to(torch.float32), rays.directions.to(torch.float32)
    kinds = RayKinds.of(rays, grid)
    far, returned, known = kinds.far, kinds.returned, kinds.returned | kinds.beyond
    if weights is not None:
        known, returned = known & (weights > 0), returned & (weights > 0)
    assert rays.distances is not None, "labelled rays need distances"
    distances = rays.distances.to(torch.float32)
    distances = torch.where(known, distances, torch.zeros_like(distances))
    counts = torch.ones_like(distances) if weights is None else weights.to(torch.float32)

    # Stratified: the empty part of the ray is divided equally, with one random point in each part.
    end = torch.where(returned, (distances - config.margin * grid.voxel_size).clamp(min=0), far)
    parts = torch.arange(config.empty_points, device=end.device)
    empty_at = end[:, None] * (parts + _uniform(distances, config.empty_points, generator)) / max(len(parts), 1)
    behind = config.depth * grid.voxel_size * _uniform(distances, config.occupied_points, generator)
    occupied_at = distances[:, None] + behind
    empty = origins[:, None] + empty_at[..., None] * directions[:, None]
    occupied = origins[:, None] + occupied_at[..., None] * directions[:, None]

    empty_counts = ((known & (end > 0)) * counts)[:, None].expand_as(empty_at)
    occupied_counts = (returned[:, None] & (occupied_at < far[:, None])) * counts[:, None]
    cells = stretched_grid(grid, layers)
    of_empty, of_occupied = (_voxel_of(stretched(points, layers), cells) for points in (empty, occupied))
    if config.occupied_first:
        held = _holding(stretched(origins + distances[:, None] * directions, layers), returned, cells)
        held = held if holding is None else held | holding.flatten()
        empty_counts = empty_counts.masked_fill(held[of_empty], 0)
    if config.weighing == "volume":
        empty_counts, occupied_counts = _by_volume(cells, (of_empty, of_occupied), (empty_counts, occupied_counts))
    return Queries(
        empty.flatten(0, 1),
        empty_counts.flatten(),
        occupied.flatten(0, 1),
        occupied_counts.flatten(),
        channels[:, None].expand_as(occupied_at).flatten(),
    )


def query_losses(
    field: SemanticDensityField,
    queries: Queries,
    class_weights: Tensor | None = None,
    config: QueryConfig | None = None,
    occupancy_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Losses of the field at points with labels.

    Args:
        field: differentiable in density and semantics.
        class_weights: (C,).
        occupancy_factor: see `SupervisionConfig`.
    Returns:
        occupancy: binary cross-entropy with p = 1 - exp(-occupancy_factor * sigma * voxel_size): the mean over
            occupied points times `occupied_share`, plus the mean over empty points times 1 - `occupied_share`; or with
            `weighing` volume, the mean over all.
        semantics: cross-entropy of the class at occupied points, by their weights and those of the classes.
    """
    config = config or QueryConfig()
    density_of = density_at if config.interpolation == "trilinear" else _nearest_density
    layers, met = (field.layer_count, stretched_density(field)) if config.layers else (1, field)
    logits_of = _trilinear_logits if config.interpolation == "trilinear" else _nearest_logits
    terms, sizes = [], []
    for points, weights, solid in (
        (queries.empty, queries.empty_weights, False),
        (queries.occupied, queries.occupied_weights, True),
    ):
        optical_depth = density_of(met, stretched(points, layers)) * field.grid.voxel_size * occupancy_factor
        occupied = torch.full_like(optical_depth, solid, dtype=torch.bool)
        terms.append(occupancy_cross_entropy(optical_depth, occupied, weights))
        sizes.append(weights.sum())
    share = config.occupied_share
    if config.weighing == "volume":
        share = sizes[1] / (sizes[0] + sizes[1]).clamp(min=SMALLEST_WEIGHT)
    occupancy = (1 - share) * terms[0] + share * terms[1]
    logits = logits_of(field, queries.occupied)
    return occupancy, semantic_cross_entropy(logits, queries.channels, class_weights, queries.occupied_weights)


def _by_volume(grid: VoxelGrid, voxels: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The weights of empty and occupied points, divided by the sum of weights in the same voxel."""
    totals = torch.zeros(grid.size, dtype=counts[0].dtype, device=counts[0].device)
    for index, one in zip(voxels, counts):
        totals.index_add_(0, index.flatten(), one.flatten())
    return tuple(one / totals[index].clamp(min=SMALLEST_WEIGHT) for index, one in zip(voxels, counts))


def _uniform(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """(R, count) in [0, 1), drawn where the generator is and moved to where `like` (R,) is."""
    device = like.device if generator is None else generator.device
    return torch.rand(len(like), count, generator=generator, device=device).to(like.device)


def _voxel_of(points: Tensor, grid: VoxelGrid) -> Tensor:
    """(...) int64 index into the flattened grid of points (..., 3), the nearest voxel for points outside."""
    index = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    for axis, count in enumerate(grid.shape):
        cell = ((points[..., axis] - grid.lower[axis]) / grid.voxel_size).floor().clamp(0, count - 1)
        index = index * count + cell.to(torch.int64)
    return index


def _holding(points: Tensor, counted: Tensor, grid: VoxelGrid) -> Tensor:
    """(voxels,) bool: whether a voxel holds one of the points that count."""
    # Points of weight 0 are written to one extra place, which is then removed.
    index = torch.where(counted, _voxel_of(points, grid), grid.size)
    return torch.zeros(grid.size + 1, dtype=torch.bool, device=points.device).index_fill_(0, index, True)[:-1]


def density_at(field: SemanticDensityField, points: Tensor) -> Tensor:
    """(P,) density of voxels, 1/m, at points (P, 3), trilinear."""
    indices, weights = trilinear(points.to(field.dtype), field.grid)
    corners = field.density.reshape(-1).index_select(0, indices.flatten()).view(indices.shape)
    return (corners * weights).sum(dim=-1)


def _trilinear_logits(field: SemanticDensityField, points: Tensor) -> Tensor:
    # The weighted sum of eight rows of the logits, without copying the rows.
    indices, weights = trilinear(points.to(field.dtype), field.grid)
    table = field.semantics.reshape(field.grid.size, field.class_count)
    return functional.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")


def _nearest_density(field: SemanticDensityField, points: Tensor) -> Tensor:
    return field.density.reshape(-1)[_voxel_of(points, field.grid)]


def _nearest_logits(field: SemanticDensityField, points: Tensor) -> Tensor:
    return field.semantics.reshape(field.grid.size, field.class_count)[_voxel_of(points, field.grid)]
