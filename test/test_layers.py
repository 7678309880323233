"""Fields whose voxels have layers of density: what light meets, and what is read of a voxel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_field import GRID

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.network.config import HeadsConfig
from renderocc_model.network.heads import VoxelHeads, spread_over_layers
from renderocc_model.ops.render import render, render_surfaces
from renderocc_model.ops.stretching import stretched_rays
from renderocc_model.ops.termination import return_windows, termination

ROOM = VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 2.2), 0.4)  # 40 x 40 x 8
BACKENDS = ("reference", "cpu")


def ground(height: float, layers: int, density: float = 200.0) -> SemanticDensityField:
    """All that is below a height, class 1 in the voxels that hold any of it."""
    x, y, z = ROOM.shape
    edge = ROOM.voxel_size / layers
    full = torch.tensor([ROOM.lower[2] + (k + 1) * edge <= height + 1e-6 for k in range(z * layers)])
    values = torch.zeros(x, y, z * layers) + density * full
    semantics = torch.zeros(x, y, z, 3)
    semantics[..., : math.ceil((height - ROOM.lower[2]) / ROOM.voxel_size - 1e-6), 1] = 5.0
    return SemanticDensityField.of_layers(ROOM, values, semantics)


def downward(slopes: list[float]) -> Rays:
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, slope] for slope in slopes]), dim=1)
    return Rays(torch.tensor([[-6.0, 0.1, 1.5]]).expand(len(slopes), 3).clone(), directions)


def noise(layers: int, rays: int = 200) -> tuple[SemanticDensityField, Rays]:
    random = torch.Generator().manual_seed(layers)
    values = torch.rand(40, 40, 8 * layers, generator=random) ** 6 * 8
    field = SemanticDensityField.of_layers(ROOM, values, torch.randn(40, 40, 8, 3, generator=random))
    origins = torch.rand(rays, 3, generator=random) * torch.tensor([14.0, 14.0, 2.8]) - torch.tensor([7.0, 7.0, 0.8])
    directions = torch.randn(rays, 3, generator=random) * torch.tensor([1.0, 1.0, 0.4])
    return field, Rays(origins, torch.nn.functional.normalize(directions, dim=1))


def marched(field: SemanticDensityField, origin: np.ndarray, direction: np.ndarray, step: float) -> tuple[float, float]:
    """Distance and opacity of one ray in NumPy, at the layers' own places; SciPy interpolates."""
    from scipy.ndimage import map_coordinates

    lower, upper, size = np.array(field.grid.lower), np.array(field.grid.upper), field.grid.voxel_size
    edges = np.array([size, size, size / field.layer_count])
    hits = np.sort(((lower - origin) / direction, (upper - origin) / direction), axis=0)
    near, far = max(hits[0].max(), 0.0), hits[1].min()
    light, distance, t = 1.0, 0.0, near + step * size / 2
    values = (field.density if field.layers is None else field.layers).numpy()
    while t < far:
        place = ((origin + t * direction - lower) / edges - 0.5)[:, None]
        stopped = light * -np.expm1(-step * size * map_coordinates(values, place, order=1, mode="nearest")[0])
        light, distance, t = light - stopped, distance + stopped * t, t + step * size
    return distance, 1 - light


# --- the field -------------------------------------------------------------------------------------------------------


def test_a_voxels_density_is_the_mean_of_its_layers():
    values = torch.arange(48.0).view(4, 3, 4).requires_grad_()
    field = SemanticDensityField.of_layers(GRID, values, torch.zeros(4, 3, 2, 5))
    assert field.layer_count == 2 and field.density[0, 0].tolist() == [0.5, 2.5]
    field.density[3, 2, 1].backward()
    assert values.grad[3, 2].tolist() == [0, 0, 0.5, 0.5]
    for same in (field.to(dtype=torch.float64), field.detach()):
        assert same.layer_count == 2 and torch.equal(same.layers.float(), values)
    assert not field.detach().layers.requires_grad


def test_a_field_of_one_layer_is_an_ordinary_one():
    field = SemanticDensityField.of_layers(GRID, torch.ones(4, 3, 2), torch.zeros(4, 3, 2, 5))
    assert field.layers is None and field.layer_count == 1


def test_layers_that_do_not_fit_are_named():
    density, semantics = torch.ones(4, 3, 2), torch.zeros(4, 3, 2, 5)
    for wrong in (torch.ones(4, 3, 3), torch.ones(3, 4, 4), torch.ones(4, 3, 0), torch.ones(4, 3)):
        with pytest.raises(ValueError, match=r"make it \(X, Y, Z\), or \(X, Y, Z \* L\)"):
            SemanticDensityField.of_layers(GRID, wrong, semantics)
    with pytest.raises(ValueError, match="one layer is the density itself"):
        SemanticDensityField(GRID, density, semantics, density)
    with pytest.raises(ValueError, match="density runs from -1.0"):
        SemanticDensityField.of_layers(GRID, -torch.ones(4, 3, 4), semantics)


# --- rays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_surface_is_seen_at_its_height_within_a_voxel(backend):
    # The ground voxel reaches from -0.2 to 0.2 m. Density ramps from layer to layer, so a surface is up to a layer off.
    rays = downward([-0.5, -0.25, -0.15])
    for height in (-0.1, 0.0, 0.1, 0.2):
        field = ground(height, layers=4)
        rendered = render(field, rays, 0.125, backend=backend)
        for distances in (rendered.mean_distance(), rendered.median):
            assert (1.5 + distances * rays.directions[:, 2] - height).abs().max() < 0.11, height
        drawn = render_surfaces(field, rays, 0.125, backend).distances
        torch.testing.assert_close(drawn, rendered.median, atol=1e-4, rtol=1e-5)
    voxels = SemanticDensityField(ROOM, field.density, field.semantics)
    assert voxels.layers is None
    flat = SemanticDensityField.of_layers(ROOM, ground(-0.1, 4).density, field.semantics)
    without = 1.5 + render(flat, rays, 0.125, backend=backend).mean_distance() * rays.directions[:, 2]
    assert (without + 0.1).min() > 0.2  # without layers the same voxels stop light far above


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_rays_meet_the_layers_where_they_are(backend, layers):
    field, rays = noise(layers, 12)
    found = render(field, rays, 0.5, backend=backend)
    for row in range(12):
        origin, direction = rays.origins[row].double().numpy(), rays.directions[row].double().numpy()
        distance, opacity = marched(field, origin, direction, 0.5)
        assert found.distance[row].item() == pytest.approx(distance, abs=2e-4)
        assert found.opacity[row].item() == pytest.approx(opacity, abs=2e-5)


def test_all_layers_of_a_voxel_have_its_logits_and_pass_gradients_to_them():
    field, rays = noise(3)
    results = []
    for backend in BACKENDS:
        density, semantics = field.layers.clone().requires_grad_(), field.semantics.clone().requires_grad_()
        made = render(SemanticDensityField.of_layers(ROOM, density, semantics), rays, backend=backend)
        (made.distance.sum() + made.semantics.square().sum()).backward()
        results.append((made.distance, made.semantics, made.opacity, density.grad, semantics.grad))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    even = SemanticDensityField.of_layers(
        ROOM, field.layers, torch.tensor([1.0, -2.0, 3.0]).expand(40, 40, 8, 3).clone()
    )
    made = render(even, rays)
    torch.testing.assert_close(made.semantics, made.opacity[:, None] * torch.tensor([1.0, -2.0, 3.0]))


@pytest.mark.parametrize("layers", [2, 4])
def test_the_loop_for_pictures_finds_the_surfaces_of_the_reference(layers):
    field, rays = noise(layers, 2000)
    found, expected = (render_surfaces(field, rays, 0.5, backend) for backend in BACKENDS[::-1])
    torch.testing.assert_close(found.distances, expected.distances, atol=1e-4, rtol=1e-5)
    assert torch.equal(found.opaque, expected.opaque)
    assert (found.channels != expected.channels)[found.opaque].float().mean() < 1e-3


def test_light_ends_in_layers_with_gradients_of_finite_differences():
    field, rays = noise(3, 20)
    density = field.layers[::1].double().requires_grad_()
    rays = rays.to(dtype=torch.float64)
    starts, ends = torch.full((20,), 1.0, dtype=torch.float64), torch.full((20,), 2.0, dtype=torch.float64)

    def depths(values: torch.Tensor, backend: str = "auto") -> torch.Tensor:
        field = SemanticDensityField.of_layers(ROOM, values, values.new_zeros(40, 40, 8, 0))
        return torch.stack(termination(field, rays, starts, ends, backend=backend))

    total = depths(density)
    total.sum().backward()
    change = torch.zeros_like(density)
    change[density.grad > 0] = torch.rand(int((density.grad > 0).sum()), dtype=torch.float64)
    with torch.no_grad():
        moved = depths(density + change)  # depths are linear in density
    assert (moved - total).sum().item() == pytest.approx((density.grad * change).sum().item(), rel=1e-9)
    single = torch.stack(
        termination(
            SemanticDensityField.of_layers(ROOM, density.detach().float(), torch.zeros(40, 40, 8, 0)),
            rays,
            starts,
            ends,
        )
    )
    torch.testing.assert_close(single.double(), total.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_follows_layers_and_not_whole_voxels(backend):
    # Returns on the ground at 0 m, all along the ray's way; 0.4 m voxels hold them from 0.2 m on, layers only near 0.
    rays = downward([-0.15])
    distance = torch.tensor([1.5 / -float(rays.directions[0, 2])])
    returned = torch.tensor([True])

    def start(layers: int) -> float:
        marks = torch.zeros(40, 40, 8 * layers, dtype=torch.bool)
        marks[..., int((0.001 + 1.0) / 0.4 * layers)] = True
        return float(return_windows(ROOM, rays, distance, returned, 0.1, True, 0.1, marks, layers, backend)[0])

    height = [1.5 + start(layers) * float(rays.directions[0, 2]) for layers in (1, 4)]
    assert height[0] == pytest.approx(0.2, abs=0.02) and height[1] == pytest.approx(0.1, abs=0.02)


def test_stretched_rays_keep_distances_and_labels():
    rays = Rays(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.6, 0.0, -0.8]]), torch.tensor([5.0]))
    found = stretched_rays(rays, 4)
    torch.testing.assert_close(found.directions, torch.tensor([[0.6, 0.0, -3.2]]))
    torch.testing.assert_close(found.origins, torch.tensor([[0.0, 0.0, 4.0]]))
    assert found.distances is rays.distances


# --- the network -----------------------------------------------------------------------------------------------------


def test_heads_give_each_voxel_its_layers_and_begin_alike():
    torch.manual_seed(0)
    one, several = VoxelHeads(HeadsConfig(), 3), VoxelHeads(HeadsConfig(density_layers=3), 3)
    several.load_state_dict(spread_over_layers(one.state_dict(), 3))
    features = torch.randn(2, 4, 5, 6, 16)
    (before, logits), (after, same) = one(features), several(features)
    assert after.shape == (2, 4, 5, 18) and torch.equal(logits, same)
    torch.testing.assert_close(after, before.repeat_interleave(3, dim=-1))
