"""The renderer against hand-worked cases, an independent implementation, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import intersect_box, reference, render

UNIT_GRID = VoxelGrid((0.0, 0.0, 0.0), (5.0, 5.0, 5.0), 1.0)


def rays_of(*pairs, dtype=torch.float64) -> Rays:
    """Rays from (origin, direction) pairs; directions are normalised here."""
    origins = torch.tensor([pair[0] for pair in pairs], dtype=dtype).reshape(-1, 3)
    directions = torch.tensor([pair[1] for pair in pairs], dtype=dtype).reshape(-1, 3)
    return Rays(origins, directions / directions.norm(dim=1, keepdim=True))


def constant_field(grid: VoxelGrid, sigma: float, logits=(1.0, -2.0)) -> SemanticDensityField:
    density = torch.full(grid.shape, sigma, dtype=torch.float64)
    semantics = torch.tensor(logits, dtype=torch.float64).expand(*grid.shape, -1).clone()
    return SemanticDensityField(grid, density, semantics)


def random_field(grid: VoxelGrid, classes: int = 3, seed: int = 0, dtype=torch.float64) -> SemanticDensityField:
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(grid.shape, generator=generator, dtype=torch.float64) ** 3 * 2
    semantics = torch.randn(*grid.shape, classes, generator=generator, dtype=torch.float64)
    return SemanticDensityField(grid, density.to(dtype), semantics.to(dtype))


def random_rays(count: int, grid: VoxelGrid, seed: int = 0, dtype=torch.float64) -> Rays:
    """Origins in and around the grid, every second ray towards a point in it: they start inside, enter and miss."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = torch.tensor(grid.lower), torch.tensor(grid.upper)
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    origins = middle + half * 2 * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1)
    directions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = middle + half * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1)
    directions[::2] = (targets - origins)[::2]
    directions = directions / directions.norm(dim=1, keepdim=True)
    return Rays(origins.to(dtype), directions.to(dtype))


def march(field: SemanticDensityField, origin, direction, step: float):
    """One ray in NumPy: SciPy interpolates (edge values continued), loops compose, products give the transmittance."""
    grid = field.grid
    lower, upper, size = np.array(grid.lower), np.array(grid.upper), grid.voxel_size
    near, far = 0.0, np.inf
    for axis in range(3):
        if direction[axis] == 0:
            if not lower[axis] <= origin[axis] <= upper[axis]:
                far = -1.0
        else:
            hits = sorted((face[axis] - origin[axis]) / direction[axis] for face in (lower, upper))
            near, far = max(near, hits[0]), min(far, hits[1])
    distance, semantics, opacity, transmittance, i = 0.0, np.zeros(field.class_count), 0.0, 1.0, 0
    while near + (i + 0.5) * step * size < far:
        t = near + (i + 0.5) * step * size
        at = ((np.array(origin) + t * np.array(direction) - lower) / size - 0.5)[:, None]
        sigma = map_coordinates(field.density.numpy(), at, order=1, mode="nearest")[0]
        logits = [
            map_coordinates(field.semantics[..., c].numpy(), at, order=1, mode="nearest")[0]
            for c in range(field.class_count)
        ]
        alpha = 1 - math.exp(-sigma * step * size)
        weight = transmittance * alpha
        transmittance *= 1 - alpha
        distance, opacity = distance + weight * t, opacity + weight
        semantics = semantics + weight * np.array(logits)
        i += 1
    return distance, semantics, opacity


# --- hand-worked -----------------------------------------------------------------------------------------------------


def test_single_dense_voxel_is_rendered_as_worked_out_by_hand():
    # Only voxel (2, 2, 2), centre 2.5 m, has density 4 / m. Along the row of centres y = z = 2.5 the density is a tent
    # 4 (1 - |x - 2.5|): samples half a metre apart stand at 0.25, 0.75, ..., and those at 1.75, 2.25, 2.75, 3.25 meet
    # 1, 3, 3, 1 per metre: optical depths 0.5, 1.5, 1.5, 0.5. The logit 7 of that voxel makes the same tent / 4 * 7.
    density, semantics = torch.zeros(5, 5, 5, dtype=torch.float64), torch.zeros(5, 5, 5, 1, dtype=torch.float64)
    density[2, 2, 2], semantics[2, 2, 2] = 4.0, 7.0
    result = render(
        SemanticDensityField(UNIT_GRID, density, semantics), rays_of(((0, 2.5, 2.5), (1, 0, 0))), return_weights=True
    )
    w = [
        1 - math.exp(-0.5),
        math.exp(-0.5) * (1 - math.exp(-1.5)),
        math.exp(-2.0) * (1 - math.exp(-1.5)),
        math.exp(-3.5) * (1 - math.exp(-0.5)),
    ]
    assert result.weights[0].tolist() == pytest.approx([0, 0, 0, *w, 0, 0, 0], abs=1e-12)
    assert result.sample_distances[0].tolist() == pytest.approx([0.25 + 0.5 * i for i in range(10)], abs=1e-12)
    assert result.distance.item() == pytest.approx(1.75 * w[0] + 2.25 * w[1] + 2.75 * w[2] + 3.25 * w[3], abs=1e-12)
    assert result.semantics.item() == pytest.approx(7 * (w[0] + 3 * w[1] + 3 * w[2] + w[3]) / 4, abs=1e-12)
    assert result.opacity.item() == pytest.approx(1 - math.exp(-4), abs=1e-12)  # depths add up to 4
    assert result.mean_distance().item() == pytest.approx(result.distance.item() / (1 - math.exp(-4)), abs=1e-12)


@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 0.3, 0), (1, -0.5, 0.05), (1, 0.9, -0.03)])
@pytest.mark.parametrize("origin_x", [0.0, 0.07, 1.23])
def test_wall_at_20_m_renders_at_20_m_to_within_half_a_voxel(direction, origin_x):
    density = torch.zeros(OCC3D_GRID.shape)
    density[150:152] = 200.0  # x from 20.0 to 20.8
    field = SemanticDensityField(OCC3D_GRID, density, torch.zeros(*OCC3D_GRID.shape, 2))
    rays = rays_of(((origin_x, 0, 1.5), direction), dtype=torch.float32)
    result = render(field, rays)
    assert result.opacity.item() == pytest.approx(1, abs=1e-6)
    depth = result.distance.item() * rays.directions[0, 0].item() + origin_x  # where along x
    assert abs(depth - 20.0) <= 0.2


def test_constant_density_attenuates_as_beer_and_lambert_say():
    # 5 m of 0.3 / m: ten steps of half a metre cover the grid exactly, whatever the samples.
    result = render(constant_field(UNIT_GRID, 0.3), rays_of(((-3, 1.2, 3.4), (1, 0, 0))))
    assert result.opacity.item() == pytest.approx(1 - math.exp(-1.5), abs=1e-12)
    assert result.semantics[0].tolist() == pytest.approx([1 - math.exp(-1.5), -2 * (1 - math.exp(-1.5))], abs=1e-12)


def test_ray_that_starts_inside_sees_only_what_is_in_front():
    field = constant_field(UNIT_GRID, 0.3)
    ahead, behind = rays_of(((3.0, 2.5, 2.5), (1, 0, 0)), ((3.0, 2.5, 2.5), (-1, 0, 0))), 3.0
    result = render(field, ahead, return_weights=True)
    assert result.opacity[0].item() == pytest.approx(1 - math.exp(-0.3 * 2.0), abs=1e-12)
    assert result.opacity[1].item() == pytest.approx(1 - math.exp(-0.3 * behind), abs=1e-12)
    assert result.sample_distances[0, 0].item() == pytest.approx(0.25)


def test_grid_behind_the_origin_is_not_seen():
    result = render(constant_field(UNIT_GRID, 9.0), rays_of(((6, 2.5, 2.5), (1, 0, 0)), ((6, 2.5, 2.5), (-1, 0, 0))))
    assert result.opacity[0].item() == 0
    assert result.opacity[1].item() > 0.999


def test_rays_that_miss_are_transparent_and_at_distance_zero():
    misses = rays_of(
        ((-1, 6, 2.5), (1, 0, 0)),  # beside the grid, parallel to it
        ((-1, -1, 2.5), (1, -1, 0)),
        ((2.5, 2.5, 9), (0, 0, 1)),  # away from it
        ((-1, 4, 2.5), (1, 1.5, 0)),  # passes its corner: y = 5.5 at x = 0
    )
    result = render(constant_field(UNIT_GRID, 5.0), misses, return_weights=True)
    for values in (result.distance, result.semantics, result.opacity, result.weights):
        assert not values.any()


def test_ray_along_an_edge_and_in_a_face_sees_the_nearest_centres():
    # Density depends on x only and is 1..5 at the centres; along the edge y = z = 0 it must be met as it is.
    density = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None, None].expand(5, 5, 5).clone()
    field = SemanticDensityField(UNIT_GRID, density, torch.zeros(5, 5, 5, 1, dtype=torch.float64))
    edges = rays_of(
        ((-1, 0, 0), (1, 0, 0)), ((-1, 5, 5), (1, 0, 0)), ((-1, 0, 2.5), (1, 0, 0)), ((-1, 2.5, 2.5), (1, 0, 0))
    )
    result = render(field, edges, step=1.0, return_weights=True)
    # Steps of one voxel stand on the centres: depths 1..5, so T before the k-th is exp(-(1 + ... + (k-1))).
    expected = [math.exp(-k * (k - 1) / 2) * (1 - math.exp(-k)) for k in range(1, 6)]
    for row in range(4):
        assert result.weights[row].tolist() == pytest.approx(expected, abs=1e-12)


def test_negative_zero_directions_are_parallel_too():
    origin, field = (2.5, 2.5, -1.0), constant_field(UNIT_GRID, 0.3)
    rays = Rays(torch.tensor([origin, origin]), torch.tensor([[0.0, 0.0, 1.0], [-0.0, -0.0, 1.0]]))
    opacity = render(field, rays).opacity
    assert opacity.tolist() == pytest.approx([1 - math.exp(-1.5)] * 2, abs=1e-12)


def test_transmittance_is_one_before_the_first_sample():
    result = render(constant_field(UNIT_GRID, 2.0), rays_of(((-1, 2.5, 2.5), (1, 0, 0))), return_weights=True)
    assert result.weights[0, 0].item() == pytest.approx(1 - math.exp(-2.0 * 0.5), abs=1e-12)


def test_thin_veil_before_a_very_dense_wall_keeps_its_weight():
    # In float32 1e8 + 0.1 - 1e8 is 0: the transmittance before a sample must not come from a sum that includes it.
    density = torch.zeros(5, 5, 5)
    density[1], density[3] = 0.1, 1e9
    field = SemanticDensityField(UNIT_GRID, density, torch.zeros(5, 5, 5, 1))
    result = render(field, rays_of(((0, 2.5, 2.5), (1, 0, 0)), dtype=torch.float32), step=1.0, return_weights=True)
    assert result.weights[0].tolist() == pytest.approx([0, 1 - math.exp(-0.1), 0, math.exp(-0.1), 0], abs=1e-7)


def test_distortion_of_two_thin_veils_is_worked_out_by_hand():
    # Steps of one voxel stand on the centres 0.5, 1.5, ...; voxels 1 and 4 hold w = 1/2 and 1/2 * 1/2, 3 m apart:
    # twice 1/2 * 1/4 * 3 m, and a third of 1/4 + 1/16 on intervals of 1 m.
    density = torch.zeros(5, 5, 5, dtype=torch.float64)
    density[1], density[4] = math.log(2), math.log(2)
    field = SemanticDensityField(UNIT_GRID, density, torch.zeros(5, 5, 5, 1, dtype=torch.float64))
    rays = rays_of(((-1, 2.5, 2.5), (1, 0, 0)), ((-1, 9, 2.5), (1, 0, 0)))
    result = render(field, rays, step=1.0, return_distortion=True)
    assert result.distortion.tolist() == pytest.approx([2 * 3 / 8 + 5 / 16 / 3, 0], abs=1e-12)


def test_light_that_is_left_sees_the_background():
    background = torch.tensor([10.0, 20.0], dtype=torch.float64)
    rays = rays_of(((-1, 2.5, 2.5), (1, 0, 0)), ((-1, 9, 2.5), (1, 0, 0)))
    result = render(constant_field(UNIT_GRID, 0.3), rays, background=background)
    left = math.exp(-1.5)
    assert result.semantics[0].tolist() == pytest.approx([1 - left + 10 * left, -2 * (1 - left) + 20 * left], abs=1e-12)
    assert result.semantics[1].tolist() == [10.0, 20.0]
    assert result.distance[1].item() == 0  # the background has no distance
    own = render(constant_field(UNIT_GRID, 0.3), rays, background=torch.stack([background, -background]))
    assert own.semantics[1].tolist() == [-10.0, -20.0]


# --- against independent arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.5, 0.3, 1.7])
@pytest.mark.parametrize("shape", [(4, 3, 5), (1, 6, 2), (1, 1, 1)])
def test_agrees_with_a_march_in_scipy(shape, step):
    size = 0.4
    grid = VoxelGrid((-1.0, 2.0, 0.5), tuple(low + n * size for low, n in zip((-1.0, 2.0, 0.5), shape)), size)
    field, rays = random_field(grid), random_rays(60, grid)
    # Origins off the lattice: where the last sample falls on the face itself, rounding decides whether it counts.
    directions = ((1, 0, 0), (0, -1, 0), (0, 0, 1), (0, 1, 1), (-1, 0, 1))
    axis_parallel = rays_of(*[((-0.87, 2.13, 0.61), direction) for direction in directions])
    rays = Rays.concatenate([rays, axis_parallel])
    result = render(field, rays, step=step)
    assert (result.opacity > 0).sum() > 5
    for row in range(len(rays)):
        distance, semantics, opacity = march(field, rays.origins[row].tolist(), rays.directions[row].tolist(), step)
        assert result.distance[row].item() == pytest.approx(distance, abs=1e-10)
        assert result.semantics[row].tolist() == pytest.approx(semantics.tolist(), abs=1e-10)
        assert result.opacity[row].item() == pytest.approx(opacity, abs=1e-10)


@pytest.mark.parametrize("step", [0.5, 0.3])
def test_distortion_is_the_sum_over_all_pairs(step):
    """mip-NeRF 360, eq. 15, as written there: on intervals of equal width around the samples."""
    rays, delta = random_rays(60, UNIT_GRID), step * UNIT_GRID.voxel_size
    result = render(random_field(UNIT_GRID), rays, step=step, return_weights=True, return_distortion=True)
    w, t = result.weights, result.sample_distances
    pairs = (w[:, :, None] * w[:, None] * (t[:, :, None] - t[:, None]).abs()).sum(dim=(1, 2))
    assert torch.allclose(result.distortion, pairs + delta / 3 * w.square().sum(dim=1), rtol=1e-12, atol=1e-14)
    assert (result.distortion > 0).sum() > 20


def test_gradients_agree_with_finite_differences():
    grid = VoxelGrid((0.0, 0.0, 0.0), (1.2, 0.8, 0.8), 0.4)
    start, rays = random_field(grid, classes=2), random_rays(6, grid)
    inside = rays_of(((0.5, 0.4, 0.3), (1, 0.2, 0)), ((0.0, 0.0, 0.0), (1, 0, 0)))
    rays = Rays.concatenate([rays, inside])
    density = (start.density + 0.1).requires_grad_()
    semantics = start.semantics.clone().requires_grad_()
    background = torch.tensor([0.3, -1.2], dtype=torch.float64).requires_grad_()

    def all_outputs(density, semantics, background):
        field = SemanticDensityField(grid, density, semantics)
        # 7 samples a chunk: most rays are alone, a few share one.
        result = reference.render(
            field, rays, background=background, return_weights=True, return_distortion=True, samples_per_chunk=7
        )
        return result.distance, result.semantics, result.opacity, result.weights, result.distortion

    assert torch.autograd.gradcheck(all_outputs, (density, semantics, background))


@pytest.mark.parametrize("wanted", ["density", "semantics"])
def test_gradient_of_one_input_alone_is_that_of_both(wanted):
    field, rays = random_field(UNIT_GRID), random_rays(50, UNIT_GRID)

    def gradient(names):
        both = ("density", "semantics")
        tensors = {name: getattr(field, name).clone().requires_grad_(name in names) for name in both}
        result = render(SemanticDensityField(UNIT_GRID, **tensors), rays)
        (result.distance.sum() + result.semantics.square().sum() + result.opacity.sum()).backward()
        return tensors[wanted].grad

    assert torch.equal(gradient({wanted}), gradient({"density", "semantics"}))


# --- any number of rays, any chunking --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rays", [rays_of(), rays_of(((-1, 9, 0), (1, 0, 0)), ((0, 0, 9), (0, 0, 1)))], ids=["none", "misses"]
)
def test_no_rays_and_only_misses_can_be_differentiated(rays):
    field = random_field(UNIT_GRID)
    density, semantics = field.density.requires_grad_(), field.semantics.requires_grad_()
    result = render(SemanticDensityField(UNIT_GRID, density, semantics), rays, return_weights=True)
    assert result.distance.shape == (len(rays),) and result.semantics.shape == (len(rays), 3)
    assert result.weights.shape == (len(rays), 0) and result.sample_distances.shape == (len(rays), 0)
    (result.distance.sum() + result.semantics.sum() + result.opacity.sum() + result.weights.sum()).backward()
    assert not density.grad.any() and not semantics.grad.any()


@pytest.mark.parametrize("samples_per_chunk", [1, 13, 100, 10**9])
def test_chunking_changes_nothing(samples_per_chunk):
    field, rays = random_field(UNIT_GRID), random_rays(101, UNIT_GRID)
    whole = render(field, rays, return_weights=True)
    parts = reference.render(field, rays, return_weights=True, samples_per_chunk=samples_per_chunk)
    for name in ("distance", "semantics", "opacity", "weights", "sample_distances"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=0, atol=1e-12), name


def test_every_ray_is_rendered_as_if_alone():
    field, rays = random_field(UNIT_GRID), random_rays(30, UNIT_GRID, seed=3)
    together = render(field, rays)
    for row in range(len(rays)):
        alone = render(field, rays[row : row + 1])
        assert alone.distance.item() == pytest.approx(together.distance[row].item(), abs=1e-12)
        assert alone.semantics[0].tolist() == pytest.approx(together.semantics[row].tolist(), abs=1e-12)


def saved_bytes(rays: Rays, step: float) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, without the field itself."""
    field = random_field(UNIT_GRID)
    density, semantics = field.density.requires_grad_(), field.semantics.requires_grad_()
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        field = SemanticDensityField(UNIT_GRID, density, semantics)
        result = reference.render(field, rays, step=step, samples_per_chunk=500)
    assert result.semantics.requires_grad
    return sum(size for pointer, size in storages.items() if pointer not in (density.data_ptr(), semantics.data_ptr()))


def test_memory_kept_for_training_is_linear_in_rays_and_free_of_samples():
    few, many = random_rays(300, UNIT_GRID), random_rays(3000, UNIT_GRID)
    coarse, fine = saved_bytes(many, 0.5), saved_bytes(many, 0.05)
    assert coarse <= 3000 * 200  # origins, directions, near, counts, results: 25 numbers a ray
    assert fine <= 1.5 * coarse  # ten times the samples
    assert coarse <= 11 * saved_bytes(few, 0.5)


def test_weights_sum_to_the_opacity_and_place_the_distance():
    result = render(random_field(UNIT_GRID), random_rays(40, UNIT_GRID), return_weights=True)
    assert torch.allclose(result.weights.sum(1), result.opacity, atol=1e-12)
    assert torch.allclose((result.weights * result.sample_distances).sum(1), result.distance, atol=1e-12)
    assert (result.weights >= 0).all() and (result.opacity <= 1).all()


def test_without_asking_there_are_no_weights_and_no_distortion():
    result = render(random_field(UNIT_GRID), random_rays(4, UNIT_GRID))
    assert result.weights is None and result.sample_distances is None and result.distortion is None


# --- types and refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_fields_are_rendered_in_float32(dtype):
    exact, rays = random_field(UNIT_GRID), random_rays(50, UNIT_GRID)
    coarse = exact.to(dtype=dtype)
    result, expected = render(coarse, rays), render(coarse.to(dtype=torch.float64), rays)
    assert result.distance.dtype == torch.float32
    assert torch.allclose(result.distance.double(), expected.distance, atol=2e-5)
    assert torch.allclose(result.semantics.double(), expected.semantics, atol=2e-5)


def test_field_without_classes_renders_its_geometry():
    field = SemanticDensityField(UNIT_GRID, torch.ones(5, 5, 5), torch.zeros(5, 5, 5, 0))
    result = render(field, rays_of(((-1, 2.5, 2.5), (1, 0, 0)), dtype=torch.float32))
    assert result.semantics.shape == (1, 0)
    assert result.opacity.item() == pytest.approx(1 - math.exp(-5), abs=1e-6)


@pytest.mark.parametrize("step", [0, -0.5, math.nan, math.inf])
def test_a_step_that_is_not_positive_is_refused(step):
    with pytest.raises(ValueError, match="step is"):
        render(random_field(UNIT_GRID), random_rays(1, UNIT_GRID), step=step)


def test_what_does_not_fit_is_named():
    field, rays = random_field(UNIT_GRID), random_rays(4, UNIT_GRID)
    with pytest.raises(ValueError, match=r"background has shape \(2,\)"):
        render(field, rays, background=torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="rays are on meta but the field is on cpu"):
        render(field, rays.to("meta"))
    with pytest.raises(ValueError, match="samples_per_chunk"):
        reference.render(field, rays, samples_per_chunk=0)


def test_box_is_entered_and_left_where_a_ruler_says():
    rays = rays_of(((-2, 1, 1), (1, 0, 0)), ((1, 1, 1), (0, 0, -1)), ((-3, -4, 2), (3, 4, 0)), ((7, 7, 7), (1, 1, 1)))
    near, far = intersect_box(rays.origins, rays.directions, (0, 0, 0), (5, 5, 5))
    # The third meets x = 0 and y = 0 together after 5 m, and leaves through y = 5 at t = 9 / 0.8 = 11.25.
    assert near.tolist() == pytest.approx([2, 0, 5, 0], abs=1e-12)
    assert far.tolist() == pytest.approx([7, 1, 11.25, 0], abs=1e-12)


# --- where half of the light has been stopped -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_median_is_where_half_of_the_light_has_been_stopped(backend):
    # From the face x = 0 through five voxels of 1 m of even fog: half is gone after ln 2 / sigma, or not at all.
    rays = rays_of(*3 * [((0, 2.5, 2.5), (1, 0, 0))], ((-2.0, 2.5, 2.5), (1, 0, 0)), ((0, 9.0, 2.5), (1, 0, 0)))
    for sigma in (0.1, 0.2, 1.0, 50.0):
        expected = math.log(2) / sigma if math.log(2) / sigma < 5 else math.inf
        found = render(
            constant_field(UNIT_GRID, sigma).to(dtype=torch.float32), rays.to(dtype=torch.float32), backend=backend
        ).median
        assert found.tolist() == pytest.approx([expected, expected, expected, expected + 2, math.inf], abs=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_median_is_where_a_running_sum_of_weights_passes_a_half(backend):
    field, rays = random_field(UNIT_GRID, 3, seed=2), random_rays(300, UNIT_GRID, seed=2)
    field = SemanticDensityField(field.grid, (3 * field.density).float().requires_grad_(), field.semantics.float())
    exact = render(field.detach(), rays.to(dtype=torch.float32), return_weights=True, backend="reference")
    found = render(field, rays.to(dtype=torch.float32), backend=backend)
    assert not found.median.requires_grad
    stopped = exact.weights.cumsum(dim=1)
    for row in range(300):
        after = stopped[row] >= 0.5
        assert bool(after.any()) == math.isfinite(found.median[row])
        if after.any():
            middle = exact.sample_distances[row, int(after.float().argmax())]
            assert abs(found.median[row] - middle) <= 0.25 + 1e-5  # in the step of that sample


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_little_light_that_goes_on_moves_the_mean_and_not_the_median(backend):
    walls = torch.zeros(5, 5, 5)
    walls[1], walls[4] = 8.0, 50.0
    field = SemanticDensityField(UNIT_GRID, walls, torch.zeros(5, 5, 5, 1))
    ray = rays_of(((0, 2.5, 2.5), (1, 0, 0))).to(dtype=torch.float32)
    thick = render(field, ray, backend=backend)
    walls[1] *= 0.4
    thin = render(field, ray, backend=backend)
    assert float(thin.distance - thick.distance) > 0.3 and 0 < float(thin.median - thick.median) < 0.3
