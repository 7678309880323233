"""Which voxels the cameras see: what they do not see is unknown, never free.

A voxel is visible if, for some camera,
- the camera's view contains the voxel's centre: in front of it, on its pixels, on a pixel that exists; and
- light gets there: the transmittance from the camera to the voxel's near side is at least `minimum_transmittance`.
The near side, because a surface voxel that is seen is dense itself, and so are its neighbours: towards the centre of a
patch of road 20 m away, the line of sight runs through metres of road.

Transmittance only falls along a ray. So each ray is described by one number, the distance at which it falls below the
minimum, and a camera by an image of them: a shadow map. Its rays stand about one voxel apart at the grid's far end and
count the density in steps of `STEP` voxels. A voxel is reached if its point nearest to the camera is not farther than
the farthest of the four rays around that point, plus `BIAS`. Compared with light marched to 27 points of every voxel,
95 to 98 % of the voxels in view are judged alike; most of the others are free voxels of which a corner peeps out behind
an obstacle, left unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.undistortion import View
from .. import visibility as loops
from ..render import runs_of_similar_length

__all__ = ["Lookout", "visible_voxels"]

_FARTHEST = 1e9  # voxels or pixels: what the loops' 32 bits can still count
STEP = 0.75  # voxels
BIAS = 0.5  # voxels
NEAREST = 0.05  # voxels in front of a camera from which on points count as in front
_CPU_RUN, _GPU_RUN = 2**17, 2**25  # samples worked on at once: what fits a core's cache; everything


def visible_voxels(
    field: SemanticDensityField,
    views: Sequence[View],
    base_from_camera: np.ndarray,
    present: Sequence[bool] | np.ndarray | None = None,
    valid: Sequence[np.ndarray | Tensor | None] | None = None,
    minimum_transmittance: float = 0.5,
) -> Tensor:
    """Find the voxels that at least one camera sees (module docstring for what that means).

    Poses are taken on the host and all sizes follow from them, so that nothing waits for a GPU.

    Args:
        field: the volume; only its density counts.
        views: N pinhole views.
        base_from_camera: (N, 4, 4) poses of the optical frames in the grid's frame.
        present: (N,) whether there is a picture from the camera; all, if left out.
        valid: for each camera (height, width) bool, the view's pixels that exist, or None for all of them.
        minimum_transmittance: in (0, 1). 0.5 ends the view where half of the light is gone: at the median of where the
            ray ends.

    Returns:
        (X, Y, Z) bool on the field's device.

    Raises:
        ValueError: numbers of cameras differ, a pose is not finite, or a mask has another size than its view.
    """
    poses = np.asarray(base_from_camera, dtype=np.float64).reshape(-1, 4, 4)
    present = np.ones(len(views), bool) if present is None else np.asarray(present, dtype=bool)
    masks = [None] * len(views) if valid is None else list(valid)
    _check(views, poses, present, masks, minimum_transmittance)
    grid, device = field.grid, field.device
    visible = torch.zeros(grid.shape, dtype=torch.bool, device=device)
    cameras = [(view, _Pose(pose, grid), mask) for view, pose, mask, here in zip(views, poses, masks, present) if here]
    maps = _shadow_maps(field, [(view, pose) for view, pose, _ in cameras], -math.log(minimum_transmittance))
    for (view, pose, mask), (shadow, stride) in zip(cameras, maps):
        box = _frustum_box(view, pose, grid)
        if box is not None:
            visible[box] |= _seen_in_box(view, pose, mask, shadow, stride, box, device)
    return visible


class Lookout:
    """The cameras of a set of views, ready for `ops.visibility`: everything but where they stand is worked out once.

    Args:
        grid: the volume.
        views: N pinhole views.
        valid: as in `visible_voxels`; masks must have one size.
        device: of the densities to come.
        minimum_transmittance: as in `visible_voxels`.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        views: Sequence[View],
        valid: Sequence[np.ndarray | None],
        device: torch.device,
        minimum_transmittance: float = 0.5,
    ) -> None:
        self._grid, self._device = grid, device
        self._depth_limit = -math.log(minimum_transmittance)
        self._K = np.array([view.K for view in views])
        nodes = [_node_directions(view, grid) for view in views]
        sizes = [directions.shape[:2] for directions, _ in nodes]
        counts = [rows * columns for rows, columns in sizes]
        firsts = np.cumsum([0, *counts[:-1]])
        masks = [mask for mask in valid if mask is not None]
        numbers = iter(range(len(masks)))
        self._fixed = np.array(
            [
                (view.width, view.height, stride, rows, columns, first, -1 if mask is None else next(numbers))
                for view, (_, stride), (rows, columns), first, mask in zip(views, nodes, sizes, firsts, valid)
            ],
            dtype=np.float64,
        )
        directions = np.concatenate([directions.reshape(-1, 3) for directions, _ in nodes]).astype(np.float32)
        owner = np.repeat(np.arange(len(views), dtype=np.int32), counts)
        stack = np.stack(masks).astype(np.uint8) if masks else np.zeros((1, 1, 1), np.uint8)
        self._still = tuple(torch.from_numpy(array).to(device) for array in (directions, owner, stack))

    @property
    def limit(self) -> float:
        """What the densities at a ray's samples sum up to where its view ends."""
        return self._depth_limit / (STEP * self._grid.voxel_size)

    def sight(self, base_from_camera: np.ndarray) -> loops.Sight:
        """Of cameras that stand at these (N, 4, 4) poses; the table of cameras is on the host."""
        return self.sight_of(torch.from_numpy(self.cameras(base_from_camera)))

    def sight_of(self, cameras: Tensor) -> loops.Sight:
        """Of a table of `cameras`, wherever it lies."""
        return loops.Sight(cameras, *self._still)

    def cameras(self, base_from_camera: np.ndarray) -> np.ndarray:
        """`Sight.cameras` of these poses."""
        rotation = base_from_camera[:, :3, :3]
        position = (base_from_camera[:, :3, 3] - np.array(self._grid.lower)) / self._grid.voxel_size
        pixels = self._K @ rotation.transpose(0, 2, 1)
        parts = [position, rotation.reshape(-1, 9), pixels.reshape(-1, 9), self._fixed]
        table = np.concatenate(parts, axis=1)
        if not np.abs(table).max(initial=0) < _FARTHEST:
            raise ValueError(f"base_from_camera has a camera {np.abs(position).max():.3g} voxels away; leave it out")
        return table.astype(np.float32)

    def seen(self, density: Tensor, sight: loops.Sight) -> Tensor:
        """(X, Y, Z) bool: what the cameras see of a volume with this density (X, Y, Z), float32."""
        return loops.seen_voxels(density.contiguous(), sight, self.limit, STEP, BIAS, NEAREST)


class _Pose:
    """A camera in voxel units: voxel (i, j, k) fills [i, i + 1) x [j, j + 1) x [k, k + 1)."""

    def __init__(self, base_from_camera: np.ndarray, grid: VoxelGrid) -> None:
        self.rotation = base_from_camera[:3, :3]
        self.position = (base_from_camera[:3, 3] - np.array(grid.lower)) / grid.voxel_size


def _shadow_maps(
    field: SemanticDensityField, cameras: list[tuple[View, _Pose]], depth_limit: float
) -> list[tuple[Tensor, float]]:
    """For each camera, how far its rays see, in voxels, and the spacing of the rays in pixels.

    Returns:
        (rows, columns) float32 per camera: the farthest of the four rays at the corners of each cell, infinite where
        nothing ends it. Cell (r, c) spans columns c * stride - 0.5 to (c + 1) * stride - 0.5, rows alike.
    """
    rays, shapes = [], []
    for view, pose in cameras:
        directions, stride = _node_directions(view, field.grid)
        shapes.append((*directions.shape[:2], stride))
        directions = directions.reshape(-1, 3) @ pose.rotation.T
        origins = np.broadcast_to(pose.position, directions.shape)
        rays.append(np.concatenate([origins, directions], axis=1).astype(np.float32))
    distances = _visible_distances(field, np.concatenate(rays) if rays else np.zeros((0, 6), np.float32), depth_limit)
    maps = []
    for part, (rows, columns, stride) in zip(distances.split([rows * columns for rows, columns, _ in shapes]), shapes):
        farthest = torch.nn.functional.max_pool2d(part.view(1, rows, columns), kernel_size=2, stride=1)[0]
        maps.append((farthest, stride))
    return maps


def _node_directions(view: View, grid: VoxelGrid) -> tuple[np.ndarray, float]:
    """Unit directions (rows + 1, columns + 1, 3) of the corners of the cells over a view, and their size in pixels."""
    reach = max(grid.shape[0], grid.shape[1]) / 2
    stride = max(1.0, view.K[0, 0] / reach)  # `reach` voxels away, one voxel is that many pixels wide
    columns, rows = math.ceil(view.width / stride), math.ceil(view.height / stride)
    pixels = np.stack(np.meshgrid(np.arange(columns + 1) * stride - 0.5, np.arange(rows + 1) * stride - 0.5), axis=-1)
    return view.directions_of(pixels), stride


def _visible_distances(field: SemanticDensityField, rays: np.ndarray, depth_limit: float) -> Tensor:
    """(R,) distance in voxels at which the optical depth of rays (origin, direction) exceeds the limit, or infinity."""
    shape, device = field.grid.shape, field.device
    near, far = _intersect(rays, shape)
    counts = np.ceil((far - near) / STEP).astype(np.int32)
    order = np.argsort(counts, kind="stable")
    table = np.concatenate([rays, near[:, None], counts[:, None]], axis=1)[order].astype(np.float32)
    table, rows = _to_device(table, device), _to_device(order, device)
    density = field.density.float().reshape(-1)
    limit = depth_limit / (STEP * field.grid.voxel_size)  # as a sum of densities
    strides = (shape[1] * shape[2], shape[2], 1)
    result = torch.full((len(rays),), math.inf, device=device)
    for first, last, longest in runs_of_similar_length(counts[order], _GPU_RUN if device.type == "cuda" else _CPU_RUN):
        part = table[first:last]
        start, samples = part[:, 6:7], part[:, 7:8]
        steps = torch.arange(longest, device=device, dtype=torch.float32)
        # Beyond a ray's own end its last sample is repeated: whatever that adds lies outside the grid.
        along = start + (torch.minimum(steps, samples - 1) + 0.5) * STEP
        index = None
        for axis in range(3):
            cell = torch.addcmul(part[:, axis : axis + 1], part[:, axis + 3 : axis + 4], along)
            cell = cell.clamp_(0, shape[axis] - 0.5).to(torch.int32)
            index = cell.mul_(strides[axis]) if index is None else index.add_(cell, alpha=strides[axis])
        depth = density.index_select(0, index.view(-1)).view(index.shape).cumsum(dim=1)
        passed = torch.searchsorted(depth, torch.full_like(start, limit), right=True)
        distance = torch.where(passed < samples, start + passed * STEP, math.inf)
        result.index_copy_(0, rows[first:last], distance[:, 0])
    return result


def _intersect(rays: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (origin, direction) enter and leave the grid, (R,) each, in voxels; 0 and 0 where they miss it.

    A ray that runs exactly along a face (0 / 0, NaN) counts as one that misses: nothing ends its view.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / rays[:, 3:]
        at_low, at_high = -rays[:, :3] * inverse, (np.array(shape, np.float32) - rays[:, :3]) * inverse
    near = np.minimum(at_low, at_high).max(axis=1).clip(min=0)
    far = np.maximum(at_low, at_high).min(axis=1)
    misses = ~(far > near)
    return np.where(misses, 0, near), np.where(misses, 0, far)


def _frustum_box(view: View, pose: _Pose, grid: VoxelGrid) -> tuple[slice, slice, slice] | None:
    """Slices of the grid that hold every voxel centre the camera can see; None if there are none.

    A view is a pyramid from the camera to infinity. Cut at the grid's farthest corner it is the convex hull of five
    points, whose bounding box is the answer.
    """
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * grid.shape
    reach = float(((corners - pose.position) @ pose.rotation[:, 2]).max())
    if reach <= 0:
        return None
    edges = np.array([(u, v) for u in (-0.5, view.width - 0.5) for v in (-0.5, view.height - 0.5)])
    directions = view.directions_of(edges)
    far = pose.position + (directions / directions[:, 2:] * reach) @ pose.rotation.T
    points = np.concatenate([far, pose.position[None]])
    first = np.clip(np.floor(points.min(axis=0) - 0.5), 0, grid.shape).astype(int)
    last = np.clip(np.ceil(points.max(axis=0) + 0.5), 0, grid.shape).astype(int)
    if (first >= last).any():
        return None
    return tuple(slice(int(low), int(high)) for low, high in zip(first, last))


def _seen_in_box(
    view: View,
    pose: _Pose,
    mask: np.ndarray | Tensor | None,
    shadow: Tensor,
    stride: float,
    box: tuple[slice, slice, slice],
    device: torch.device,
) -> Tensor:
    """Bool over the voxels of the box: their centre is in the view and light reaches their near side.

    Every quantity linear in position is a sum of one term for (x, y) and one for z.
    """
    centres = [np.arange(part.start, part.stop) + 0.5 - pose.position[axis] for axis, part in enumerate(box)]
    nearest = [axis - np.clip(axis, -0.5, 0.5) for axis in centres]
    pixels = view.K @ pose.rotation.T  # camera frame, then homogeneous pixels
    edges = np.array([pixels[0] + 0.5 * pixels[2], (view.width - 0.5) * pixels[2] - pixels[0]])
    edges = np.concatenate([edges, [pixels[1] + 0.5 * pixels[2], (view.height - 0.5) * pixels[2] - pixels[1]]])
    # In the view: on the inner side of the pyramid's four faces, and not behind the camera.
    seen = None
    for form in (*edges, pixels[2]):
        ground, height = _terms(form, centres, device)
        inside = ground >= (NEAREST if form is pixels[2] else 0) - height
        seen = inside if seen is None else seen.logical_and_(inside)
    if mask is not None:
        seen.logical_and_(_on_valid_pixels(pixels, centres, mask, device))

    rows, columns = shadow.shape
    scale = sum(_terms(pixels[2], nearest, device)).clamp_(min=NEAREST).mul_(stride).reciprocal_()
    column = sum(_terms(edges[0], nearest, device)).mul_(scale).clamp_(0, columns - 1).to(torch.int32)
    row = sum(_terms(edges[2], nearest, device)).mul_(scale).clamp_(0, rows - 1).to(torch.int32)
    cell = row.mul_(columns).add_(column)
    limit = (shadow + BIAS).square().view(-1).index_select(0, cell.view(-1)).view(cell.shape)
    squares = [axis * axis for axis in nearest]
    distance = _column(squares[0][:, None, None] + squares[1][None, :, None], device) + _column(squares[2], device)
    return seen.logical_and_(distance <= limit)


def _terms(form: np.ndarray, axes: list[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """form . (x, y, z) as (X, Y, 1) + (Z,)."""
    ground = (form[0] * axes[0])[:, None, None] + (form[1] * axes[1])[None, :, None]
    return _column(ground, device), _column(form[2] * axes[2], device)


def _on_valid_pixels(pixels: np.ndarray, centres: list[np.ndarray], mask: np.ndarray | Tensor, device) -> Tensor:
    """Whether the pixel a centre falls on exists; anything for centres outside the view."""
    height, width = mask.shape
    mask = mask.to(device, torch.bool) if isinstance(mask, Tensor) else _to_device(np.asarray(mask, bool), device)
    scale = sum(_terms(pixels[2], centres, device)).clamp_(min=NEAREST).reciprocal_()
    column = sum(_terms(pixels[0], centres, device)).mul_(scale).add_(0.5).clamp_(0, width - 1).to(torch.int32)
    row = sum(_terms(pixels[1], centres, device)).mul_(scale).add_(0.5).clamp_(0, height - 1).to(torch.int32)
    return mask.reshape(-1).index_select(0, row.mul_(width).add_(column).view(-1)).view(row.shape)


def _column(values: np.ndarray, device: torch.device) -> Tensor:
    return _to_device(values.astype(np.float32), device)


def _to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _check(views, poses: np.ndarray, present: np.ndarray, masks: list, minimum: float) -> None:
    if not len(views) == len(poses) == len(present) == len(masks):
        raise ValueError(
            f"{len(views)} views, {len(poses)} poses, {len(present)} entries of present and {len(masks)} masks; "
            f"give one of each for every camera"
        )
    if not 0 < minimum < 1:
        raise ValueError(f"minimum_transmittance is {minimum}; expected a number between 0 and 1, usually 0.5")
    for number, (view, pose, mask, here) in enumerate(zip(views, poses, masks, present)):
        if here and not np.isfinite(pose).all():
            raise ValueError(f"base_from_camera of camera {number} is not finite; leave the camera out by `present`")
        if mask is not None and tuple(mask.shape) != (view.height, view.width):
            raise ValueError(
                f"valid of camera {number} is {tuple(mask.shape)}; expected {(view.height, view.width)}, as its view"
            )
