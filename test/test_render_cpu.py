"""The compiled renderer for CPUs against the float64 reference: results, every gradient, threads and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
import torch
from poison import poison_new_buffers
from test_render import UNIT_GRID, random_field, random_rays, rays_of
from torch_threads import threads_as_before  # noqa: F401  (for every test here)

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops import execution
from renderocc_model.ops.render import RenderResult, cpu_kernel, cpu_loops, reference, render

OUTPUTS = ("distance", "semantics", "opacity", "distortion")
# Float32 has 24 bits: one rounding is 6e-8 of a number. A result sums up tens of samples.
ROUNDING = 2e-6


@pytest.fixture
def many_threads(monkeypatch):
    """Threads even for the few samples of a test."""
    monkeypatch.setattr(cpu_kernel, "SAMPLES_WORTH_A_THREAD", 1)


def grid_of(*shape: int, size: float = 0.4) -> VoxelGrid:
    lower = (-1.0, 2.0, 0.5)
    return VoxelGrid(lower, tuple(low + n * size for low, n in zip(lower, shape)), size)


def rendered(
    field: SemanticDensityField,
    rays: Rays,
    backend: str,
    background: torch.Tensor | None = None,
    step: float = 0.5,
    seed: int = 0,
    outputs: tuple[str, ...] = OUTPUTS,
) -> tuple[RenderResult, dict[str, torch.Tensor]]:
    """Results, and gradients of a random weighting of `outputs`: the reference's in float64 from the same numbers."""
    dtype = torch.float64 if backend == "reference" else field.dtype
    inputs = {"density": field.density, "semantics": field.semantics}
    if background is not None:
        inputs["background"] = background
    inputs = {name: value.detach().to(dtype).requires_grad_() for name, value in inputs.items()}
    field = SemanticDensityField(field.grid, inputs["density"], inputs["semantics"])
    rays = rays.to(dtype=torch.float64) if backend == "reference" else rays
    result = render(field, rays, step, inputs.get("background"), return_distortion=True, backend=backend)
    generator = torch.Generator().manual_seed(seed)
    upstream = {name: torch.randn(getattr(result, name).shape, generator=generator) for name in OUTPUTS}
    values = [getattr(result, name) for name in outputs]
    torch.autograd.backward(values, [upstream[name].to(value.dtype) for name, value in zip(outputs, values)])
    return result, {name: value.grad for name, value in inputs.items()}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str, rounding: float = ROUNDING) -> None:
    """To within rounding of the largest number: what a voxel that hardly counts gets is a difference of larger ones."""
    assert actual.shape == expected.shape, name
    if expected.numel():
        worst = (actual.double() - expected.double()).abs().max().item()
        assert worst <= rounding * max(expected.abs().max().item(), 1e-3), (name, worst, expected.abs().max().item())


def assert_same_median(found: RenderResult, expected: RenderResult, atol: float = 2e-3, typical: float = 1e-5) -> None:
    """To within rounding of half the light, which is millimetres in thin fog; at the very half, either is right."""
    one, other = found.median.double().cpu(), expected.median.double().cpu()
    decided = (expected.opacity.detach().cpu() - 0.5).abs() > 1e-4
    assert torch.equal(one.isfinite()[decided], other.isfinite()[decided])
    both = one.isfinite() & other.isfinite()
    torch.testing.assert_close(one[both], other[both], atol=atol, rtol=0)
    assert not both.any() or (one - other)[both].abs().median() < typical


def assert_agree(field: SemanticDensityField, rays: Rays, rounding: float = ROUNDING, **options) -> None:
    result, gradients = rendered(field, rays, "cpu", **options)
    expected, expected_gradients = rendered(field, rays, "reference", **options)
    for name in OUTPUTS:
        value = getattr(result, name)
        assert value.dtype == torch.float32
        assert_close(value, getattr(expected, name), name, rounding)
    assert_same_median(result, expected)
    for name, gradient in expected_gradients.items():
        # A gradient leaves in the type of its tensor: of half precision, rounded to 8 or 11 bits.
        coarse = 2 * torch.finfo(gradients[name].dtype).eps if gradients[name].dtype != torch.float32 else 0
        assert_close(gradients[name], gradient, name, rounding + coarse)


# --- results and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("classes", [1, 3, 8, 17])
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 6, 2), (4, 1, 3), (3, 2, 1), (1, 1, 1), (23, 19, 5)])
def test_agrees_with_the_reference_in_every_result_and_gradient(shape, classes, threads, many_threads):
    torch.set_num_threads(threads)
    grid = grid_of(*shape)
    field = random_field(grid, classes, dtype=torch.float32)
    background = torch.randn(classes, generator=torch.Generator().manual_seed(1))
    # Half of the origins lie inside, half of the rays aim at the grid, the others mostly miss.
    assert_agree(field, random_rays(77, grid, dtype=torch.float32), background=background)


@pytest.mark.parametrize("step", [0.3, 1.0, 1.7, 40.0])
def test_any_step_and_a_background_for_each_ray_agree(step):
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(60, UNIT_GRID, dtype=torch.float32)
    background = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    assert_agree(field, rays, step=step, background=background)


@pytest.mark.parametrize("origin", [(2.6, 2.4, 2.3), (-3.0, 1.0, 2.0)], ids=["inside", "outside"])
def test_one_ray_agrees(origin):
    assert_agree(random_field(UNIT_GRID, dtype=torch.float32), rays_of((origin, (1, 0.2, 0.1)), dtype=torch.float32))


def test_rays_along_faces_edges_and_axes_agree():
    field = random_field(UNIT_GRID, dtype=torch.float32)
    directions = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1), (-0.0, 0.0, 1))
    origins = ((0, 0, 0), (5, 5, 5), (2.5, 0, 2.5), (2.5, 5, 1.1))
    assert_agree(field, rays_of(*[(o, d) for o in origins for d in directions], dtype=torch.float32), step=0.49)


@pytest.mark.parametrize(
    "rays", [rays_of(), rays_of(((-1, 9, 0), (1, 0, 0)), ((0, 0, 9), (0, 0, 1)))], ids=["none", "misses"]
)
def test_no_rays_and_only_misses_can_be_differentiated(rays):
    result, gradients = rendered(
        random_field(UNIT_GRID, dtype=torch.float32), rays.to(dtype=torch.float32), "cpu", torch.ones(3)
    )
    assert result.distance.shape == (len(rays),) and result.semantics.shape == (len(rays), 3)
    assert not result.distance.any() and not result.distortion.any() and bool((result.semantics == 1).all())
    assert not gradients["density"].any() and not gradients["semantics"].any()


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 0.3, 30.0, 1e4])
def test_empty_thin_and_very_dense_fields_agree(sigma):
    """Also in empty space, where no weight is, density has a gradient: what would be seen if something were there."""
    field = random_field(UNIT_GRID, dtype=torch.float32)
    field = SemanticDensityField(UNIT_GRID, torch.full((5, 5, 5), sigma), field.semantics)
    assert_agree(field, random_rays(50, UNIT_GRID, dtype=torch.float32))


def test_single_walls_in_empty_space_agree():
    grid = grid_of(40, 40, 8)
    density = torch.zeros(grid.shape)
    density[30:32], density[:, 33:34], density[..., 1] = 200.0, 5.0, 1e9
    field = SemanticDensityField(grid, density, random_field(grid, 5, dtype=torch.float32).semantics)
    assert_agree(field, random_rays(150, grid, dtype=torch.float32))


@pytest.mark.parametrize("outputs", [(name,) for name in OUTPUTS])
def test_each_result_alone_can_be_differentiated(outputs):
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(40, UNIT_GRID, dtype=torch.float32)
    assert_agree(field, rays, outputs=outputs)


@pytest.mark.parametrize("wanted", ["density", "semantics"])
def test_gradient_of_one_input_alone_is_that_of_both(wanted):
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(50, UNIT_GRID, dtype=torch.float32)

    def gradient(names):
        both = ("density", "semantics")
        tensors = {name: getattr(field, name).clone().requires_grad_(name in names) for name in both}
        result = render(SemanticDensityField(UNIT_GRID, **tensors), rays, backend="cpu")
        (result.distance.sum() + result.semantics.square().sum() + result.opacity.sum()).backward()
        assert [tensors[name].grad is not None for name in both] == [name in names for name in both]
        return tensors[wanted].grad

    assert torch.equal(gradient({wanted}), gradient({"density", "semantics"}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_fields_agree_with_the_reference_of_the_same_numbers(dtype):
    field = random_field(UNIT_GRID, dtype=dtype)
    assert_agree(field, random_rays(50, UNIT_GRID, dtype=torch.float32))
    assert_agree(field, random_rays(50, UNIT_GRID, dtype=torch.float64))


def test_non_contiguous_fields_and_rays_give_the_same_bytes():
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(50, UNIT_GRID, dtype=torch.float32)
    density = field.density.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    semantics = field.semantics.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    columns = Rays(rays.origins.T.contiguous().T, rays.directions.repeat(1, 2)[:, 3:])
    assert not (density.is_contiguous() or semantics.is_contiguous() or columns.directions.is_contiguous())
    assert_same_bytes(
        rendered(field, rays, "cpu"), rendered(SemanticDensityField(UNIT_GRID, density, semantics), columns, "cpu")
    )


def test_field_without_classes_renders_its_geometry():
    field = SemanticDensityField(UNIT_GRID, torch.ones(5, 5, 5), torch.zeros(5, 5, 5, 0))
    assert_agree(field, random_rays(30, UNIT_GRID, dtype=torch.float32))


def test_every_number_of_a_result_is_written(monkeypatch):
    poison_new_buffers(monkeypatch)
    result, gradients = rendered(
        random_field(UNIT_GRID, dtype=torch.float32), random_rays(99, UNIT_GRID, dtype=torch.float32), "cpu"
    )
    for value in (*(getattr(result, name) for name in OUTPUTS), *gradients.values()):
        assert torch.isfinite(value).all()


def test_without_gradients_the_results_are_the_same():
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(50, UNIT_GRID, dtype=torch.float32)
    with torch.inference_mode():
        result = render(field, rays, backend="cpu")
    assert result.distortion is None and result.weights is None
    assert torch.equal(result.semantics, rendered(field, rays, "cpu")[0].semantics.detach())


# --- threads ---------------------------------------------------------------------------------------------------------


def assert_same_bytes(one: tuple[RenderResult, dict], other: tuple[RenderResult, dict]) -> None:
    for name in OUTPUTS:
        assert torch.equal(getattr(one[0], name), getattr(other[0], name)), name
    for name in one[1]:
        assert torch.equal(one[1][name], other[1][name]), name


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_number_of_threads_gives_the_same_bytes(threads, many_threads):
    torch.set_num_threads(threads)
    grid = grid_of(23, 19, 5)
    field, rays = random_field(grid, 17, dtype=torch.float32), random_rays(500, grid, dtype=torch.float32)
    first = rendered(field, rays, "cpu")
    for _ in range(3):
        assert_same_bytes(first, rendered(field, rays, "cpu"))


def test_results_do_not_depend_on_the_number_of_threads(many_threads):
    """Gradients do, by the order in which rays are added up."""
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(200, UNIT_GRID, dtype=torch.float32)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(rendered(field, rays, "cpu")[0])
    for name in OUTPUTS:
        assert torch.equal(*(getattr(result, name) for result in results)), name


def test_threads_take_as_much_work_each_and_no_more_than_there_is_memory_for(monkeypatch):
    order, work = np.arange(1000)[::-1], np.arange(1000)
    runs = execution.runs_of_equal_work(order, work, 4)
    assert np.array_equal(np.concatenate(runs), order)
    # A quarter of 499,500 samples and 4 for each ray, to within a ray.
    assert all(abs((work[run] + 4).sum() - (499_500 + 4000) / 4) <= 1004 for run in runs)
    torch.set_num_threads(64)
    steps = np.full(10, 10**6)
    assert cpu_kernel._backward_parts(steps, 46 * 10**6) == 12  # 11 x 46 MB beside the result are less than 512 MiB
    assert cpu_kernel._backward_parts(steps, 10**9) == 1
    assert cpu_kernel._backward_parts(steps, 0) == 64
    assert cpu_kernel._backward_parts(np.full(10, 10), 0) == 1


def test_two_threads_can_render_at_once(many_threads):
    torch.set_num_threads(2)
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(300, UNIT_GRID, dtype=torch.float32)
    expected, found = rendered(field, rays, "cpu"), []
    threads = [
        threading.Thread(target=lambda: found.extend(rendered(field, rays, "cpu") for _ in range(5))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for one in found:
        assert_same_bytes(expected, one)


def test_a_process_forked_after_rendering_renders_too(many_threads):
    """As the workers of a DataLoader are."""
    torch.set_num_threads(2)
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(100, UNIT_GRID, dtype=torch.float32)
    expected = render(field, rays, backend="cpu").semantics.numpy()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            # PyTorch's own threads do not live on in a child; the renderer's are made anew.
            order = np.arange(len(rays))
            threads = threading.active_count()
            execution.in_threads(lambda part: None, [order] * 8, 4)
            walk = cpu_kernel._walk(UNIT_GRID, rays, 0.5)
            loops, results = cpu_kernel._loops(), [np.empty(len(rays), np.float32) for _ in range(4)]
            density, table = field.density.reshape(-1).numpy(), field.semantics.reshape(-1, 3).numpy()
            semantics = np.empty((len(rays), 3), np.float32)
            loops.march_forward(
                density,
                table,
                walk.shape,
                walk.rays,
                walk.order,
                walk.counts,
                walk.delta,
                results[0],
                semantics,
                *results[1:],
                np.empty(len(rays), np.int64),
            )
            os.write(write, b"y" if np.array_equal(semantics, expected) and threads == 1 else b"n")
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"y"
    os.waitpid(child, 0)


# --- the choice of the implementation --------------------------------------------------------------------------------


def test_auto_takes_the_loops_where_they_can_do_it_and_the_reference_elsewhere():
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(40, UNIT_GRID, dtype=torch.float32)
    same = [torch.equal(render(field, rays).semantics, render(field, rays, backend=name).semantics) for name in NAMES]
    assert same == [True, False]  # they round differently
    assert torch.equal(render(field, rays, return_weights=True).semantics, reference.render(field, rays).semantics)
    assert render(field.to(dtype=torch.float64), rays).distance.dtype == torch.float64


NAMES = ("cpu", "reference")


def test_what_the_loops_cannot_do_is_refused_when_they_are_asked_for():
    field, rays = random_field(UNIT_GRID, dtype=torch.float32), random_rays(4, UNIT_GRID, dtype=torch.float32)
    with pytest.raises(ValueError, match="'cpu' renders in float32, and the field is float64; use backend='reference'"):
        render(field.to(dtype=torch.float64), rays, backend="cpu")
    with pytest.raises(ValueError, match="'cpu' keeps no weights of single samples; use backend='reference'"):
        render(field, rays, return_weights=True, backend="cpu")
    with pytest.raises(ValueError, match="'cpu' works on the CPU, and the field is on meta"):
        render(field.to("meta"), rays.to("meta"), backend="cpu")
    with pytest.raises(ValueError, match="backend is 'fast'; expected one of 'auto', 'reference', 'cpu'"):
        render(field, rays, backend="fast")
    for step in (0, float("nan")):
        with pytest.raises(ValueError, match="step is"):
            render(field, rays, step=step)
    with pytest.raises(ValueError, match="background has shape"):
        render(field, rays, background=torch.zeros(2))


def test_loading_the_renderer_loads_no_compiler_and_without_one_a_line_says_what_to_install():
    code = """
import sys, torch
from renderocc_model import SemanticDensityField, VoxelGrid, Rays
from renderocc_model.ops.render import render
print("numba" in sys.modules)
sys.modules["numba"] = None  # as if it were not installed
grid = VoxelGrid((0, 0, 0), (1, 1, 1), 1.0)
field = SemanticDensityField(grid, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, 2))
rays = Rays(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
print(render(field, rays, backend="reference").opacity.tolist())
try:
    render(field, rays)
except ImportError as error:
    print(error)
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["False", "[0.0]"] and len(lines) == 3, done.stderr
    assert "needs Numba: python3 -m pip install numba" in lines[2]


def test_where_nothing_can_be_written_the_loops_are_compiled_all_the_same(monkeypatch):
    """Numba then refuses to keep them; here it may only write beside modules in zip files, which this is not."""
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "ZipCacheLocator")
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(cpu_loops._any.py_func)
    assert cpu_loops.compiled(cpu_loops._any.py_func)(np.array([0.0, 2.0], np.float32))
