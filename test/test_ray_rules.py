"""The rules by which rays are read: at their borders, and alike wherever they are used."""

import math

import torch

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import RenderResult
from renderocc_model.ops.render.surfaces import read_surfaces
from training.evaluate.held_out import RayScores
from training.supervision.config import SupervisionConfig
from training.supervision.queries import draw_queries
from training.supervision.ray_rules import RayKinds
from training.supervision.ray_terms import RayLabels

GRID = VoxelGrid((0.0, -2.0, -2.0), (20.0, 2.0, 2.0), 0.5)


def ahead(*distances):
    """Rays along x from x = 0.25, which leave the grid after 19.75 m; the last one begins outside."""
    origins = torch.tensor([[0.25, 0.1, 0.1]]).repeat(len(distances), 1)
    origins[-1, 0] = -1.0
    directions = torch.tensor([[1.0, 0, 0]]).repeat(len(distances), 1)
    return Rays(origins, directions, torch.tensor(distances), torch.full((len(distances),), 4))


def test_a_distance_to_the_grids_very_end_is_beyond_it_for_all():
    rays = ahead(19.7, 19.75, 25.0, 0.0, math.nan, math.inf, 10.0)
    kinds = RayKinds.of(rays, GRID)
    returned, beyond = [True] + 6 * [False], [False, True, True] + 4 * [False]
    assert kinds.returned.tolist() == returned and kinds.beyond.tolist() == beyond
    assert kinds.inside.tolist() == 6 * [True] + [False]
    assert kinds.measured.tolist() == [True] * 3 + [False] * 3 + [True]

    labels = RayLabels.of(SupervisionConfig(), GRID, torch.arange(256), rays)
    assert labels.returned.bool().tolist() == returned and labels.beyond.bool().tolist() == beyond
    queries = draw_queries(rays, torch.zeros(7, dtype=torch.int64), GRID, torch.Generator().manual_seed(0))
    empty, occupied = queries.empty_weights.view(7, -1), queries.occupied_weights
    assert (empty[3:] == 0).all() and (empty[1] > 0).any() and (occupied[1:] == 0).all()
    scores = RayScores(OCC3D_NUSCENES)
    scores.add(SemanticDensityField(GRID, torch.zeros(GRID.shape), torch.zeros(*GRID.shape, 17)), rays)
    assert (scores.returns, scores.empty) == (1, 2)


def test_half_the_light_is_a_surface_and_the_rest_leaves_the_grid():
    rendered = RenderResult(
        torch.tensor([5.0, 5.0, 5.0]),
        torch.tensor([[0.0, 1.0]] * 3),
        torch.tensor([0.4999, 0.5, 1.0]),
        torch.tensor([torch.inf, 19.0, 4.0]),
    )
    surfaces = read_surfaces(rendered, torch.tensor([20.0, 20.0, 20.0]))
    assert surfaces.opaque.tolist() == [False, True, True]
    assert surfaces.distances.tolist() == [20.0, 19.0, 4.0] and surfaces.channels.tolist() == [1, 1, 1]
