"""The compiled loop that finds surfaces, against the reference: rendered rays that are read as surfaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch_threads import threads_as_before  # noqa: F401  (for every test here)

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import cpu_kernel, render_surfaces


def scene(shape: tuple[int, int, int], rays: int, classes: int, seed: int) -> tuple[SemanticDensityField, Rays]:
    """Fog with walls, and rays from in and around the grid, some along its axes."""
    random = torch.Generator().manual_seed(seed)
    grid = VoxelGrid((-1.0, 2.0, 0.5), tuple(low + 0.4 * n for low, n in zip((-1.0, 2.0, 0.5), shape)), 0.4)
    density = torch.rand(shape, generator=random) ** 8 * 20
    logits = 6 * torch.randn(*shape, classes, generator=random)
    extent = torch.tensor(grid.upper) - torch.tensor(grid.lower)
    origins = torch.tensor(grid.lower) + extent * (torch.rand(rays, 3, generator=random) * 1.6 - 0.3)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=random), dim=1)
    directions[: rays // 8] = torch.tensor([1.0, 0.0, 0.0])
    return SemanticDensityField(grid, density, logits), Rays(origins, directions)


@pytest.mark.parametrize("step", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(
    ("shape", "rays", "classes"),
    [
        ((20, 17, 9), 3000, 17),
        ((1, 7, 5), 300, 3),
        ((6, 1, 1), 300, 1),
        ((1, 1, 1), 40, 2),
        ((8, 8, 8), 0, 17),
        ((8, 8, 8), 1, 8),
    ],
)
def test_the_loop_finds_the_surfaces_of_the_reference(shape, rays, classes, step):
    field, rays = scene(shape, rays, classes, seed=sum(shape))
    found, expected = (render_surfaces(field, rays, step, backend) for backend in ("cpu", "reference"))
    assert (found.opaque == expected.opaque).float().mean() > 0.999 or len(rays) == 0
    # 1e-6 of the light, over at most 15 m, and float32's rounding.
    torch.testing.assert_close(found.distances, expected.distances, atol=1e-4, rtol=1e-5)
    both = found.opaque & expected.opaque
    differs = (found.channels != expected.channels)[both]
    assert differs.float().sum() <= 1e-3 * len(rays)


def test_classes_differ_only_where_two_logits_are_all_but_equal():
    from renderocc_model.ops.render import render

    field, rays = scene((20, 17, 9), 20_000, 17, seed=3)
    found, rendered = render_surfaces(field, rays, 1.0, "cpu"), render(field, rays, 1.0, backend="reference")
    first, second = rendered.semantics.topk(2, dim=1).values.unbind(1)
    differs = found.opaque & (found.channels != rendered.semantics.argmax(dim=1))
    # Logits are below 30. Of a ray's weights those below 1e-5 are left out, together less than 1e-3 here.
    assert ((first - second)[differs] < 2 * 30 * 1e-3).all() and differs.sum() <= 5
    assert found.opaque.float().mean() > 0.3


def test_a_ray_through_fog_is_read_by_the_rule_of_evaluation():
    """Density s over a way of 4 m: opacity 1 - exp(-4 s); half of the light has been stopped after ln 2 / s."""
    grid = VoxelGrid((0.0, 0.0, 0.0), (4.0, 0.4, 0.4), 0.4)
    ray = Rays(torch.tensor([[0.0, 0.2, 0.2]]), torch.tensor([[1.0, 0.0, 0.0]]))
    for density, opaque in ((0.17, False), (0.18, True)):  # half of the light ends at ln 2 / 4 = 0.1733
        field = SemanticDensityField(
            grid, torch.full(grid.shape, density), torch.tensor([1.0, 3.0]).expand(*grid.shape, 2)
        )
        found = render_surfaces(field, ray, 1.0, "cpu")
        distance = math.log(2) / density if opaque else 4.0
        assert bool(found.opaque) == opaque and float(found.distances) == pytest.approx(distance, abs=1e-5)
        assert int(found.channels) == opaque


def test_threads_give_the_same_bytes(monkeypatch):
    field, rays = scene((20, 17, 9), 3000, 17, seed=5)
    torch.set_num_threads(1)
    alone = render_surfaces(field, rays, 1.0, "cpu")
    monkeypatch.setattr(cpu_kernel, "RAYS_WORTH_A_THREAD", 1)
    torch.set_num_threads(3)
    together = render_surfaces(field, rays, 1.0, "cpu")
    for name in ("opaque", "distances", "channels"):
        assert torch.equal(getattr(alone, name), getattr(together, name))
