"""Rendering of a semantic density field: `render(field, rays, step=0.5) -> RenderResult`, for training and evaluation,
and `render_surfaces(field, rays, step) -> RaySurfaces`, for pictures.

Implementations of one signature, compared with each other in the tests:

    reference       plain PyTorch, any device and type, also weights of the single samples
    cpu             compiled loops over rays on the CPU's cores, float32 (`cpu_kernel`)
    triton          fused loops on CUDA devices, float32 sums of fields of 16 or 32 bits (`triton_kernel`)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.rays import Rays
from ..execution import choose_backend, device_obstacle
from ..stretching import stretched_field, stretched_rays
from . import cpu_kernel, reference, triton_kernel
from .reference import RenderResult, intersect_box, runs_of_similar_length
from .surfaces import RaySurfaces, read_surfaces

__all__ = [
    "RaySurfaces",
    "RenderResult",
    "choose",
    "intersect_box",
    "render",
    "render_surfaces",
    "runs_of_similar_length",
]

_KERNELS = {"cpu": cpu_kernel, "triton": triton_kernel}


def render(
    field: SemanticDensityField,
    rays: Rays,
    step: float = 0.5,
    background: Tensor | None = None,
    return_weights: bool = False,
    return_distortion: bool = False,
    backend: str = "auto",
) -> RenderResult:
    """Render distance, semantics and opacity along rays (equations: `reference`).

    Differentiable in the field's density and semantics and in the background; rays are data and get no gradient.
    Half-precision fields are rendered in float32, others in their own type.

    Args:
        field: what to render; of a field in layers, its layers.
        rays: R >= 0 rays on the field's device; those that miss the grid are transparent.
        step: distance between samples, in voxels.
        background: (C,) or (R, C) semantics behind the grid, composited with the light that is left.
        return_weights: also return (R, N) weights and sample distances (R * N numbers of memory each).
        return_distortion: also return (R,) the distortion loss of each ray in metres.
        backend: "reference"; "cpu" and "triton", for fields on the CPU and on CUDA devices of at most 32 bits, without
            return_weights; or "auto", the one of these that can do what is asked, and "reference" where none can.

    Raises:
        ValueError: step is not positive, the devices differ, the background has another shape, or the backend is
            unknown or cannot do what is asked.
        ImportError: the loops of a CPU or a GPU are wanted and what compiles them, Numba or Triton, is not installed.
    """
    backend = choose(field, return_weights, backend)
    if field.layers is not None:
        rays, field = stretched_rays(rays, field.layer_count), stretched_field(field)
    if backend == "reference":
        return reference.render(field, rays, step, background, return_weights, return_distortion)
    return _KERNELS[backend].render(field, rays, step, background, return_distortion)


@torch.inference_mode()
def render_surfaces(field: SemanticDensityField, rays: Rays, step: float = 1.0, backend: str = "auto") -> RaySurfaces:
    """The surfaces that rays show: `read_surfaces(render(...))`, without gradients.

    "reference" and "triton" do just that. "cpu" marches through the density and composites logits of opaque rays
    alone. It leaves out light below 1e-6 and, of the logits, weights below 1e-5: classes differ only where two
    composited logits are all but equal.

    Args:
        field, rays, step: as in `render`.
        backend: "reference", "cpu", "triton" or "auto", as in `render`.
    Returns:
        the surfaces, on the field's device, in float32 (float64 for such a field).
    Raises:
        ValueError, ImportError: as `render`.
    """
    backend = choose(field, False, backend)
    if backend == "cpu":
        return cpu_kernel.render_surfaces(field, rays, step)
    result = render(field, rays, step, backend=backend)
    grid, like = field.grid, result.distance
    far = intersect_box(rays.origins.to(like), rays.directions.to(like), grid.lower, grid.upper)[1]
    return read_surfaces(result, far)


def choose(field: SemanticDensityField, return_weights: bool, backend: str) -> str:
    """Which implementation `render` takes; whether what it needs is installed does not count.

    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    return choose_backend(backend, lambda name: _obstacle(name, field, return_weights), "render")


def _obstacle(backend: str, field: SemanticDensityField, return_weights: bool) -> str | None:
    """What keeps "cpu" or "triton" from what is asked, None if nothing does."""
    if obstacle := device_obstacle(backend, field.device, "the field is"):
        return obstacle
    if field.dtype == torch.float64:
        return "renders in float32, and the field is float64"
    return "keeps no weights of single samples" if return_weights else None
