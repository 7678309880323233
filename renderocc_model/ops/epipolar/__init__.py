"""Similarity of each pixel with earlier images, at each depth that the pixel may have.

The place of pixel (u, v) at depth d in an earlier image is (x, y) = (a / c, b / c), (a, b, c) = P (u d, v d, d, 1): as
d grows it moves along the pixel's epipolar line. There the earlier features are read, linear between pixels, and
multiplied with the pixel's own (plane sweep, Collins 1996; of two frames as in BEVStereo, Li et al. 2022):

    similarity[m, g, d, v, u] = sum over the channels c of group g of query[m, c, v, u] * key[m, i, c, y, x]

of the first earlier image i in which the place lies.

Implementations of one signature, compared with each other in the tests:

    reference       plain PyTorch, any device and type; also what is exported
    cpu             compiled loops on the CPU's cores, float32 (`cpu_kernel`)
"""

from __future__ import annotations

from torch import Tensor

from ..execution import choose_without_triton
from . import cpu_kernel, reference

__all__ = ["choose", "epipolar_similarity"]


def epipolar_similarity(
    queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int, backend: str = "auto"
) -> Tensor:
    """Compare the features of pixels with earlier ones along their epipolar lines.

    Differentiable in queries and keys, once.

    Args:
        queries: (M, C, h, w), features of now.
        keys: (M, V, C, h, w), features of V earlier images for each, in the order in which they are looked at.
        earlier_pixels: (M, V, 3, 4), P of each, in pixels of the feature maps; zeros where there is no image.
        depths: (D,), metres of z-depth.
        groups: of the channels; C is a multiple of it.
        backend: "reference", "cpu", or "auto", which is "cpu" for numbers of at most 32 bits on the CPU.
    Returns:
        (M, groups + 1, D, h, w) in the type of `queries`: the similarities, and at last 1 where the place lies in an
        earlier image and in front of its camera, 0 where not. Similarities are 0 there.
    Raises:
        ValueError: shapes or devices do not fit together, or the backend is unknown or cannot do what is asked.
        ImportError: Numba, which compiles the loops, is not installed.
    """
    _check(queries, keys, earlier_pixels, depths, groups)
    implementation = {"cpu": cpu_kernel}.get(choose(queries, backend), reference)
    return implementation.epipolar_similarity(queries, keys, earlier_pixels, depths, groups)


def choose(queries: Tensor, backend: str) -> str:
    """Which implementation is taken; whether what it needs is installed does not count.

    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    return choose_without_triton(backend, queries, "queries")


def _check(queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int) -> None:
    alike = queries.ndim == 4 and keys.ndim == 5 and queries.shape == keys.shape[:1] + keys.shape[2:]
    if not alike or queries.shape[1] % groups:
        raise ValueError(
            f"epipolar similarity: queries are {tuple(queries.shape)} and keys {tuple(keys.shape)}; expected "
            f"(M, C, h, w) and (M, V, C, h, w), C a multiple of {groups}"
        )
    if earlier_pixels.shape != (*keys.shape[:2], 3, 4) or depths.ndim != 1:
        raise ValueError(
            f"epipolar similarity: earlier_pixels are {tuple(earlier_pixels.shape)} and depths {tuple(depths.shape)}; "
            f"expected {(*keys.shape[:2], 3, 4)} and (D,)"
        )
    if not queries.device == keys.device == earlier_pixels.device == depths.device:
        raise ValueError(
            f"epipolar similarity: queries are on {queries.device}, keys on {keys.device}, earlier_pixels on "
            f"{earlier_pixels.device}, depths on {depths.device}; bring them to one device"
        )
