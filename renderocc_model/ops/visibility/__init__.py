"""Which voxels the cameras see: what they do not see is unknown, never free.

A voxel is visible if, for some camera,
- the camera's view contains the voxel's centre: in front of the camera, on its pixels, on a pixel that exists; and
- light gets there: the transmittance from the camera to the voxel's near side is at least `minimum_transmittance`.
The near side, because a surface voxel that is seen is dense itself, and so are its neighbours: towards the centre of a
patch of road 20 m away, the line of sight runs through metres of road.

Transmittance only falls along a ray. So each ray is described by one number, the distance at which it falls below the
minimum, and a camera by an image of them: a shadow map. Its rays are about one voxel apart at the grid's far end and
add up the density in steps of `STEP` voxels, steep ones in steps that rise by `STEP` layers. A voxel is reached if its
point nearest to the camera is not farther than the farthest of the four rays around that point, plus `BIAS`. Rays meet
the layers of a field in layers: at a low angle they pass above the road where whole voxels would stop them. Compared
with light marched to 27 points of every voxel, 95 to 98 % of the voxels in view are judged alike. Most of the others
are free voxels of which a corner shows behind an obstacle; they are left unknown.

`visible_voxels` takes a field and views. `cast` is the operator under it; it takes `CameraFrusta`, whose shapes follow
from the views alone, so that a frame's input is a few kilobytes and nothing waits for a GPU. Implementations of one
signature, compared with each other in the tests:

    reference       plain PyTorch, any device
    cpu             compiled loops on the CPU's cores (`cpu_kernel`)
    triton          kernels for CUDA devices (`triton_kernel`)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.undistortion import View
from ..execution import choose_backend, device_obstacle
from . import cpu_kernel, reference, triton_kernel
from .frusta import CAMERA_NUMBERS, CameraFrusta, ViewFrusta

__all__ = ["CAMERA_NUMBERS", "CameraFrusta", "ViewFrusta", "cast", "choose", "visible_voxels"]

_KERNELS = {"cpu": cpu_kernel, "triton": triton_kernel}


def visible_voxels(
    field: SemanticDensityField,
    views: Sequence[View],
    base_from_camera: np.ndarray,
    present: Sequence[bool] | np.ndarray | None = None,
    valid: Sequence[np.ndarray | Tensor | None] | None = None,
    minimum_transmittance: float = 0.5,
    backend: str = "auto",
) -> Tensor:
    """Find the voxels that at least one camera sees; the module's docstring says what that means.

    Args:
        field: the volume; only its density counts, of a field in layers that of its layers.
        views: N pinhole views.
        base_from_camera: (N, 4, 4) poses of the optical frames in the grid's frame.
        present: (N,) whether there is a picture from the camera; by default from all.
        valid: for each camera (height, width) bool, the view's pixels that exist, or None for all of them.
        minimum_transmittance: in (0, 1). At 0.5 the view ends where half of the light is gone: at the median of where
            the ray ends.
        backend: as of `cast`.
    Returns:
        (X, Y, Z) bool on the field's device.
    Raises:
        ValueError: numbers of cameras differ, a pose is not finite, a mask has another size than its view, or the
            backend is unknown or cannot do what is asked.
        ImportError: what compiles the loops of a CPU or a GPU, Numba or Triton, is not installed.
    """
    poses = np.asarray(base_from_camera, dtype=np.float64).reshape(-1, 4, 4)
    present = np.ones(len(views), bool) if present is None else np.asarray(present, dtype=bool)
    masks = [None] * len(views) if valid is None else list(valid)
    if not len(views) == len(poses) == len(present) == len(masks):
        raise ValueError(
            f"{len(views)} views, {len(poses)} poses, {len(present)} entries of present and {len(masks)} masks; "
            f"give one of each for every camera"
        )
    kept = np.flatnonzero(present).tolist()
    for number in kept:
        if not np.isfinite(poses[number]).all():
            raise ValueError(f"base_from_camera of camera {number} is not finite; leave the camera out by `present`")
    backend = choose(field.device, backend)
    if not kept:
        return torch.zeros(field.grid.shape, dtype=torch.bool, device=field.device)
    frusta = ViewFrusta(
        field.grid,
        [views[number] for number in kept],
        [masks[number] for number in kept],
        torch.device("cpu") if backend == "reference" else field.device,  # where it is read
        minimum_transmittance,
    )
    return cast(field.met, frusta.at(poses[kept]), backend, field.layer_count)


def cast(density: Tensor, frusta: CameraFrusta, backend: str = "auto", layers: int = 1) -> Tensor:
    """Cast rays from cameras into a volume and find the voxels that they reach.

    Args:
        density: (X, Y, Z * layers) floating point, 1/m; taken as float32.
        frusta: from `ViewFrusta` of the same grid; brought to the density's device.
        backend: "reference"; "cpu" and "triton", for densities on the CPU and on CUDA devices; or "auto", the one of
            these two that fits the device, and "reference" where neither does.
        layers: of each voxel, one above the other.
    Returns:
        (X, Y, Z) bool on the density's device: seen by one of the cameras.
    Raises:
        ValueError: the density has not three axes, its height is not a multiple of `layers`, or the backend is unknown
            or cannot do what is asked.
        ImportError: what compiles the loops of a CPU or a GPU, Numba or Triton, is not installed.
    """
    if density.ndim != 3:
        raise ValueError(f"density has shape {tuple(density.shape)}; expected (X, Y, Z)")
    if layers < 1 or density.shape[2] % layers:
        raise ValueError(
            f"density has shape {tuple(density.shape)}; expected (X, Y, Z * {layers}), for {layers} layers"
        )
    backend = choose(density.device, backend)
    density = density.detach().to(torch.float32).contiguous()
    if backend == "reference":
        return reference.cast(density, frusta, layers)
    return _KERNELS[backend].cast(density, frusta.to(density.device), layers)


def choose(device: torch.device, backend: str) -> str:
    """Which implementation `cast` takes on a device; whether what it needs is installed does not count.

    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    return choose_backend(backend, lambda name: device_obstacle(name, device, "the density is"), "visibility")
