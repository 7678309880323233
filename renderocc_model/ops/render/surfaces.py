"""How rendered rays are read as surfaces: one rule for the node, for pictures of a training, and for evaluation.

A surface is where half of the light has been stopped. The mean of where it ends lies behind the surface as soon as a
few per cent of the light pass it and go on to the end of the grid.

`ops.render.render_surfaces` finds the same surfaces without the rendered rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .reference import RenderResult

__all__ = ["OPAQUE", "RaySurfaces", "read_surfaces", "with_exit"]

OPAQUE = 0.5  # opacity from which on a ray shows a surface: half of the light ends in the grid


@dataclass(frozen=True, eq=False)
class RaySurfaces:
    """What each of R rays shows.

    Attributes:
        opaque: (R,) bool, whether a ray shows a surface, whose class and distance count. The others pass through.
        distances: (R,) metres from the ray's origin to where half of its light has been stopped; to where it leaves the
            grid, if less is.
        channels: (R,) int64, channel of the largest composited logit; `ClassTable.occupied_ids` has its class. Of rays
            that pass through it has no meaning.
    """

    opaque: Tensor
    distances: Tensor
    channels: Tensor


def read_surfaces(result: RenderResult, far: Tensor) -> RaySurfaces:
    """Read rendered rays as surfaces.

    Args:
        result: from `render`, of R rays.
        far: (R,) metres from the origins to where the rays leave the grid, the second result of `intersect_box`.
    """
    return RaySurfaces(result.opacity >= OPAQUE, torch.minimum(result.median, far), result.semantics.argmax(dim=-1))


def with_exit(depth: Tensor, opacity: Tensor, far: Tensor) -> Tensor:
    """(R,) rendered depth in which light that nothing stopped counts where it leaves the grid: D + (1 - O) t_far.

    A ray that renders to nothing then has the distance to the grid's end. D alone would be 0, and D / O be 0 / 0.

        >>> import torch
        >>> with_exit(torch.tensor([5.0, 0.0]), torch.tensor([0.5, 0.0]), torch.tensor([20.0, 20.0])).tolist()
        [15.0, 20.0]
    """
    return depth + (1 - opacity) * far
