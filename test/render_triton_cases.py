"""The Triton renderer against the float64 reference: results and every gradient. Run by `test_render_triton`, in a
process of its own: Triton decides when it is imported whether its kernels are interpreted, as they are without a GPU.

All buffers are filled with NaN or large integers first, so every test notices elements that a kernel does not write.
"""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from poison import poison_new_buffers
from test_render import UNIT_GRID, random_field, random_rays, rays_of
from test_render_cpu import OUTPUTS, assert_close, assert_same_bytes, assert_same_median, grid_of

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import reference, render, triton_kernel
from renderocc_model.ops.render.triton_kernel import Launch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
MANY = Launch(rays=128, run=2)  # all rays in one program, because the interpreter is slow per program
ROUNDING = 1e-6  # one rounding of float32 is 6e-8; a result sums up tens of samples
F32 = torch.float32


@pytest.fixture(autouse=True)
def unwritten_buffers_are_poisoned(monkeypatch):
    torch.set_num_threads(1)
    poison_new_buffers(monkeypatch)
    monkeypatch.setattr(triton_kernel, "LAUNCH", MANY if DEVICE == "cpu" else Launch())


def rendered(field, rays, backend, background=None, step=0.5, outputs=OUTPUTS):
    """Results, and gradients of a random weighting of `outputs`. The reference gets the same numbers in float64."""
    exact = backend == "reference"
    dtype, device = (torch.float64, "cpu") if exact else (field.dtype, DEVICE)
    inputs = {"density": field.density, "semantics": field.semantics}
    if background is not None:
        inputs["background"] = background
    inputs = {name: value.detach().to(device, dtype).requires_grad_() for name, value in inputs.items()}
    field = SemanticDensityField(field.grid, inputs["density"], inputs["semantics"])
    rays = rays.to(device, torch.float64 if exact else None)
    result = render(field, rays, step, inputs.get("background"), return_distortion=True, backend=backend)
    generator = torch.Generator().manual_seed(0)
    upstream = {name: torch.randn(getattr(result, name).shape, generator=generator) for name in OUTPUTS}
    values = [getattr(result, name) for name in outputs]
    torch.autograd.backward(values, [upstream[name].to(value) for name, value in zip(outputs, values)])
    return result, {name: value.grad for name, value in inputs.items()}


def assert_agree(field, rays, rounding=ROUNDING, **options):
    result, gradients = rendered(field, rays, "triton", **options)
    expected, expected_gradients = rendered(field, rays, "reference", **options)
    for name in OUTPUTS:
        value = getattr(result, name)
        assert value.dtype == F32
        assert_close(value.cpu(), getattr(expected, name), name, rounding)
    # Optical depths of a sample end at 32 here: a wall may be a fiftieth of a step later.
    assert_same_median(result, expected, atol=0.02, typical=0.02)
    for name, gradient in expected_gradients.items():
        # A gradient has the type of its tensor. In half precision it is rounded to 8 or 11 bits.
        coarse = 2 * torch.finfo(gradients[name].dtype).eps if gradients[name].dtype != F32 else 0
        assert_close(gradients[name].cpu(), gradient, name, rounding + coarse)
    return result, gradients


# --- results and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "classes"),
    [((5, 7, 3), 3), ((1, 6, 2), 1), ((4, 1, 3), 8), ((3, 2, 1), 17), ((1, 1, 1), 2), ((23, 19, 5), 17)],
)
def test_agrees_with_the_reference_in_every_result_and_gradient(shape, classes):
    grid = grid_of(*shape)
    background = torch.randn(classes, generator=torch.Generator().manual_seed(1))
    # Half of the origins lie inside, half of the rays aim at the grid, the others mostly miss.
    assert_agree(random_field(grid, classes, dtype=F32), random_rays(77, grid, dtype=F32), background=background)


@pytest.mark.parametrize(
    "launch",
    [Launch(), Launch(rays=8, samples=8, classes=2, run=4), Launch(rays=4, samples=16, classes=4, run=1)],
    ids=str,
)
def test_however_the_work_is_cut_it_agrees(launch, monkeypatch):
    """One ray a program as on a GPU; rays of several tiles; classes in several blocks; rays that fill no program."""
    monkeypatch.setattr(triton_kernel, "LAUNCH", launch)
    grid = grid_of(9, 8, 4)
    assert_agree(random_field(grid, 3, dtype=F32), random_rays(3 if launch.rays == 1 else 7, grid, dtype=F32))


@pytest.mark.parametrize("step", [0.3, 40.0])
def test_any_step_and_a_background_for_each_ray_agree(step):
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(60, UNIT_GRID, dtype=F32)
    assert_agree(field, rays, step=step, background=torch.randn(60, 3, generator=torch.Generator().manual_seed(1)))


def test_one_ray_agrees():
    assert_agree(random_field(UNIT_GRID, dtype=F32), rays_of(((-3.0, 1.0, 2.0), (1, 0.2, 0.1)), dtype=F32))


def test_rays_along_faces_edges_and_axes_agree():
    directions = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1), (-0.0, 0.0, 1))
    origins = ((0, 0, 0), (5, 5, 5), (2.5, 0, 2.5), (2.5, 5, 1.1))
    rays = rays_of(*itertools.product(origins, directions), dtype=F32)
    assert_agree(random_field(UNIT_GRID, dtype=F32), rays, step=0.49)


@pytest.mark.parametrize(
    "rays", [rays_of(), rays_of(((-1, 9, 0), (1, 0, 0)), ((0, 0, 9), (0, 0, 1)))], ids=["none", "misses"]
)
def test_no_rays_and_only_misses_can_be_differentiated(rays):
    result, gradients = rendered(random_field(UNIT_GRID, dtype=F32), rays.to(dtype=F32), "triton", torch.ones(3))
    assert result.distance.shape == (len(rays),) and result.semantics.shape == (len(rays), 3)
    assert not result.distance.any() and not result.distortion.any() and bool((result.semantics == 1).all())
    assert not gradients["density"].any() and not gradients["semantics"].any()


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1e4])
def test_empty_thin_and_very_dense_fields_agree(sigma):
    """In empty space the weights are 0, but the gradient of density is not: density there would change the result."""
    field = random_field(UNIT_GRID, dtype=F32)
    field = SemanticDensityField(UNIT_GRID, torch.full((5, 5, 5), sigma), field.semantics)
    assert_agree(field, random_rays(50, UNIT_GRID, dtype=F32))


def test_single_walls_in_empty_space_agree():
    grid = grid_of(40, 40, 8)
    density = torch.zeros(grid.shape)
    density[30:32], density[:, 33:34], density[..., 1] = 200.0, 5.0, 1e9
    field = SemanticDensityField(grid, density, random_field(grid, 5, dtype=F32).semantics)
    assert_agree(field, random_rays(100, grid, dtype=F32))


@pytest.mark.parametrize("outputs", [(name,) for name in OUTPUTS])
def test_each_result_alone_can_be_differentiated(outputs):
    assert_agree(random_field(UNIT_GRID, dtype=F32), random_rays(40, UNIT_GRID, dtype=F32), outputs=outputs)


def test_gradient_of_one_input_alone_is_that_of_both():
    field = random_field(UNIT_GRID, dtype=F32).to(DEVICE)
    rays = random_rays(50, UNIT_GRID, dtype=F32).to(DEVICE)

    def gradients(names):
        tensors = {name: getattr(field, name).clone() for name in ("density", "semantics")}
        for name in names:
            tensors[name].requires_grad_()
        result = render(SemanticDensityField(UNIT_GRID, **tensors), rays, backend="triton")
        (result.distance.sum() + result.semantics.square().sum() + result.opacity.sum()).backward()
        return [tensors[name].grad for name in ("density", "semantics")]

    both, density, semantics = gradients(("density", "semantics")), gradients(("density",)), gradients(("semantics",))
    assert density[1] is None and semantics[0] is None
    torch.testing.assert_close([density[0], semantics[1]], both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_fields_agree_with_the_reference_of_the_same_numbers(dtype):
    assert_agree(random_field(UNIT_GRID, dtype=dtype), random_rays(50, UNIT_GRID, dtype=torch.float64))


def test_non_contiguous_fields_and_rays_agree():
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(50, UNIT_GRID, dtype=F32)
    density = field.density.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    semantics = field.semantics.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    columns = Rays(rays.origins.T.contiguous().T, rays.directions.repeat(1, 2)[:, 3:])
    assert not (density.is_contiguous() or semantics.is_contiguous() or columns.directions.is_contiguous())
    assert_agree(SemanticDensityField(UNIT_GRID, density, semantics), columns)


def test_field_without_classes_renders_its_geometry():
    field = SemanticDensityField(UNIT_GRID, torch.ones(5, 5, 5), torch.zeros(5, 5, 5, 0))
    assert_agree(field, random_rays(30, UNIT_GRID, dtype=F32))


def test_fields_in_layers_agree():
    random = torch.Generator().manual_seed(4)
    density, semantics = (torch.rand(5, 6, size, 3, generator=random) for size in (12, 4))
    field = SemanticDensityField.of_layers(grid_of(5, 6, 4), 4 * density[..., 0], semantics)
    rays = random_rays(40, field.grid)
    found, expected = (
        render(field.to(device), rays.to(device, F32), backend=backend)
        for device, backend in ((DEVICE, "triton"), ("cpu", "reference"))
    )
    for name in ("distance", "semantics", "opacity"):
        assert_close(getattr(found, name).cpu(), getattr(expected, name), name, ROUNDING)


def test_rays_without_a_semantic_gradient_leave_the_logits_alone():
    """Such are rays with a distance but no class. Other rays in the same program are not affected."""
    field, rays = random_field(UNIT_GRID, dtype=F32).to(DEVICE), random_rays(40, UNIT_GRID, dtype=F32).to(DEVICE)
    labelled = torch.arange(40, device=DEVICE) % 3 == 0

    def gradients(chosen, weights):
        tensors = [value.clone().requires_grad_() for value in (field.density, field.semantics)]
        result = render(SemanticDensityField(UNIT_GRID, *tensors), chosen, backend="triton")
        (result.semantics.square().sum(dim=1) * weights).sum().backward()
        return [value.grad for value in tensors]

    alone = gradients(rays[labelled], torch.ones(int(labelled.sum()), device=DEVICE))
    torch.testing.assert_close(gradients(rays, labelled.float()), alone, rtol=1e-5, atol=1e-6)


def test_without_gradients_the_results_are_the_same():
    field, rays = random_field(UNIT_GRID, dtype=F32).to(DEVICE), random_rays(50, UNIT_GRID, dtype=F32).to(DEVICE)
    with torch.inference_mode():
        result = render(field, rays, backend="triton")
    assert result.distortion is None and result.weights is None
    assert torch.equal(result.semantics, rendered(field, rays, "triton")[0].semantics.detach())


# --- where rays enter ------------------------------------------------------------------------------------------------


def test_rays_take_as_many_samples_as_in_float64_from_places_exact_to_a_millionth_of_a_voxel():
    rays = Rays.concatenate(
        [
            random_rays(3000, OCC3D_GRID),
            rays_of(*[((x, 0.1, 1), d) for x in (0, 0.1, -40, 40, 41) for d in ((1, 0, 0), (-1, 0, 0), (0, 1, 0))]),
        ]
    )
    for step in (0.5, 0.37):
        delta = step * OCC3D_GRID.voxel_size
        walk = triton_kernel._enter(triton_kernel._loops(), OCC3D_GRID, rays.to(DEVICE), delta)
        near, counts = reference.sample_counts(rays.origins, rays.directions, OCC3D_GRID, delta)
        assert torch.equal(walk.counts.cpu().long(), counts) and counts.max() < walk.limit
        assert torch.equal(walk.nears.cpu(), near.float())
        t = near + (counts.double() - 0.5) * delta  # the last sample: all steps' roundings add up to it
        last = (rays.origins + t[:, None] * rays.directions - torch.tensor(OCC3D_GRID.lower)) / 0.4 - 0.5
        places = walk.places.cpu()
        found = (places[:, :3] + (counts[:, None] - 1) * places[:, 3:]).double() / 2**32
        assert (found - last)[counts > 0].abs().max() < (walk.limit + 2) * 2.0**-32


def test_rays_that_are_no_numbers_are_transparent():
    """`Rays` does not check values on a GPU. The kernel must not read memory outside of the field."""
    rays = random_rays(6, UNIT_GRID, dtype=F32).to(DEVICE)
    rays.origins[0], rays.directions[1], rays.origins[2, 1] = float("nan"), float("nan"), float("inf")
    field = random_field(UNIT_GRID, dtype=F32).to(DEVICE)
    result = render(field, rays, backend="triton")
    assert not result.opacity[:3].any() and not result.semantics[:3].any()
    assert torch.isfinite(result.distance).all()


def test_a_density_that_is_no_number_is_seen_in_the_result():
    field = random_field(UNIT_GRID, dtype=F32).to(DEVICE)
    field.density[2, 2, 2] = float("nan")
    rays = rays_of(((-1, 2.5, 2.5), (1, 0, 0)), ((-1, 0.3, 0.3), (1, 0, 0)), dtype=F32).to(DEVICE)
    assert render(field, rays, backend="triton").opacity.isnan().tolist() == [True, False]


# --- the same bytes every time ---------------------------------------------------------------------------------------


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_gradients_agree_and_do_not_depend_on_the_order_of_rays(deterministic):
    grid = grid_of(5, 7, 3)
    field, rays = random_field(grid, 5, dtype=F32), random_rays(77, grid, dtype=F32)
    assert_agree(field, rays)

    def gradients(order):
        tensors = [value.detach().to(DEVICE).requires_grad_() for value in (field.density, field.semantics)]
        result = render(SemanticDensityField(grid, *tensors), rays[order].to(DEVICE), backend="triton")
        weights = torch.linspace(-1, 1, 77, device=DEVICE)[order]
        ((result.semantics.sum(dim=1) + result.distance) * weights).sum().backward()
        return None, {"density": tensors[0].grad, "semantics": tensors[1].grad}

    assert_same_bytes_of_gradients(gradients(torch.arange(77)), gradients(torch.arange(77).flip(0)))


def assert_same_bytes_of_gradients(one, other):
    for name, gradient in one[1].items():
        assert gradient.any() and torch.equal(gradient, other[1][name]), name


def test_same_input_gives_the_same_results(deterministic):
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(20, UNIT_GRID, dtype=F32)
    assert_same_bytes(rendered(field, rays, "triton"), rendered(field, rays, "triton"))


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e30])
def test_deterministic_gradients_of_any_size_agree(scale, deterministic):
    field, rays = random_field(UNIT_GRID, dtype=F32), random_rays(20, UNIT_GRID, dtype=F32)

    def gradients(dtype, backend):
        tensors = [value.detach().to(DEVICE, dtype).requires_grad_() for value in (field.density, field.semantics)]
        result = render(SemanticDensityField(UNIT_GRID, *tensors), rays.to(DEVICE, dtype), backend=backend)
        result.semantics.backward(torch.full_like(result.semantics, scale))
        return [value.grad.double() for value in tensors]

    for found, expected in zip(gradients(F32, "triton"), gradients(torch.float64, "reference")):
        assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


def test_deterministic_gradients_show_what_is_not_finite(deterministic):
    field = random_field(UNIT_GRID, dtype=F32).to(DEVICE)
    semantics = field.semantics.requires_grad_()
    result = render(field, random_rays(5, UNIT_GRID, dtype=F32).to(DEVICE), backend="triton")
    (result.semantics * float("inf")).sum().backward()
    assert semantics.grad.isnan().any()
