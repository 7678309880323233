"""Rendering of a semantic density field: `render(field, rays, step=0.5) -> RenderResult`.

Implementations of one signature, compared with each other in the tests:

    reference       plain PyTorch, any device and type, also weights of the single samples
    cpu             compiled loops over rays on the CPU's cores, float32 (`cpu_kernel`)
"""

from __future__ import annotations

from torch import Tensor

from ...field import SemanticDensityField
from ...rays import Rays
from . import cpu_kernel, reference
from .reference import RenderResult, intersect_box, runs_of_similar_length

__all__ = ["BACKENDS", "RenderResult", "intersect_box", "render", "runs_of_similar_length"]

BACKENDS = ("auto", "reference", "cpu")


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
        field: what to render.
        rays: R >= 0 rays on the field's device; those that miss the grid are transparent.
        step: distance between samples, in voxels.
        background: (C,) or (R, C) semantics behind the grid, composited with the light that is left.
        return_weights: also return (R, N) weights and sample distances (R * N numbers of memory each).
        return_distortion: also return (R,) the distortion loss of each ray in metres.
        backend: "reference"; "cpu", for fields on the CPU of at most 32 bits, without return_weights; or "auto", which
            is "cpu" wherever that can do what is asked, and "reference" elsewhere.

    Raises:
        ValueError: step is not positive, the devices differ, the background has another shape, or the backend is
            unknown or cannot do what is asked.
        ImportError: the CPU's loops are wanted and Numba, which compiles them, is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    obstacle = cpu_kernel.obstacle(field, return_weights)
    if backend == "cpu" and obstacle:
        raise ValueError(f"backend 'cpu' {obstacle}; use backend='reference'")
    if backend == "reference" or obstacle:
        return reference.render(field, rays, step, background, return_weights, return_distortion)
    return cpu_kernel.render(field, rays, step, background, return_distortion)
