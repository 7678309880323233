"""Pictures of an occupancy volume, made without a display: from above, and obliquely as shaded cubes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .occupancy import Occupancy

__all__ = ["FREE_COLOUR", "UNKNOWN_COLOUR", "VirtualCamera", "bird_eye_view", "default_camera", "perspective_view"]

# Of the floor: warm tones that no class of the built-in tables has, nor one of its shades; a test measures it.
UNKNOWN_COLOUR = (76, 62, 50)  # dark brown: no voxel of the column is seen
FREE_COLOUR = (224, 208, 184)  # sand: something of the column is seen, and nothing is there
SKY_COLOUR = (40, 44, 52)
MARKER_COLOUR = (230, 40, 40)

_NEAR = 0.3  # metres in front of the virtual camera at which faces are left out
_SUPERSAMPLING = 2
_HAZE = 0.35  # how much of the sky's colour the farthest faces take on
_OUTLINE_PIXELS = 9  # apparent size from which cubes get outlines: smaller ones would become all outline
_FROM = np.array([-0.77, -0.22, 0.60])  # direction of the default camera's eye from its target
_FILLED = 0.98  # share of the picture, from its middle to its edges, that the grid may take up
# Light from above and from the front left: brightness of faces with normals -x, +x, -y, +y, -z, +z.
_BRIGHTNESS = np.array([0.72, 0.86, 0.62, 0.78, 0.45, 1.0])
# An arrow at the frame's origin that points forward, metres.
_MARKER = np.array([[1.6, 0.0, 0.0], [-1.2, 0.9, 0.0], [-0.6, 0.0, 0.0], [-1.2, -0.9, 0.0]])
_CORNER_SHADE = 0.08  # how much darker a face is for each of the four voxels that stand over its edges


@dataclass(frozen=True)
class VirtualCamera:
    """Where to look from: eye and target, metres in the grid's frame; vertical field of view, radians."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view: float = 0.75

    def camera_from_grid(self) -> np.ndarray:
        """(4, 4) into the optical frame (x right, y down, z forward), the grid's z upright in the picture.

        Raises:
            ValueError: eye and target are the same, or one is straight above the other.
        """
        forward = np.subtract(self.target, self.eye).astype(float)
        right = np.cross(forward, (0, 0, 1))
        if np.linalg.norm(right) < 1e-9 * max(float(np.linalg.norm(forward)), 1e-300):
            raise ValueError(f"eye {self.eye} is at or straight above or below target {self.target}; move it sideways")
        forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
        transform = np.eye(4)
        transform[:3, :3] = [right, np.cross(forward, right), forward]
        transform[:3, 3] = -transform[:3, :3] @ self.eye
        return transform


def default_camera(occupancy: Occupancy, aspect: float = 16 / 9) -> VirtualCamera:
    """Behind, above and a little to the right of the grid's middle, as near as shows the whole grid in the picture.

    Args:
        occupancy: what to show.
        aspect: width of the picture divided by its height.
    """
    lower, upper = np.array(occupancy.grid.lower), np.array(occupancy.grid.upper)
    length = float((upper[:2] - lower[:2]).max())
    target = np.array([*(lower + upper)[:2] / 2, lower[2]]) - (0.17 * length, 0.02 * length, 0)
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (upper - lower) + lower
    distance = 0.5 * length
    while True:
        camera = VirtualCamera(tuple((target + distance * _FROM).tolist()), tuple(target.tolist()))
        x, y, z = (corners @ camera.camera_from_grid()[:3, :3].T + camera.camera_from_grid()[:3, 3]).T
        reach = z * np.tan(camera.field_of_view / 2) * _FILLED
        if (reach > 0).all() and (np.abs(x) <= reach * aspect).all() and (np.abs(y) <= reach).all():
            return camera
        distance *= 1.02


def bird_eye_view(occupancy: Occupancy, pixels_per_voxel: int = 4) -> np.ndarray:
    """The volume from above: x (forward) points up, y (left) to the left.

    A column has the colour of its topmost occupied voxel, the lower the darker. Without one it has FREE_COLOUR where
    something of it is seen, and UNKNOWN_COLOUR where nothing is. A red arrow marks the frame's origin, if in the grid.

    Returns:
        (X * pixels_per_voxel, Y * pixels_per_voxel, 3) uint8 RGB.
    """
    occupied = occupancy.occupied
    heights = occupied.shape[2]
    top = heights - 1 - occupied[:, :, ::-1].argmax(axis=2)
    labels = np.take_along_axis(occupancy.semantics, top[:, :, None], axis=2)[:, :, 0]
    shade = 0.7 + 0.3 * (top + 1) / heights
    painted = occupancy.classes.palette()[labels] * shade[:, :, None]
    cells = np.where(occupied.any(axis=2, keepdims=True), painted, _ground_cells(occupancy))
    cells = np.rint(cells).astype(np.uint8)[::-1, ::-1]
    picture = np.ascontiguousarray(cells.repeat(pixels_per_voxel, axis=0).repeat(pixels_per_voxel, axis=1))
    to_pixels = pixels_per_voxel / occupancy.grid.voxel_size
    if _has_origin(occupancy):
        corners = (np.array(occupancy.grid.upper[:2]) - _MARKER[:, :2])[:, ::-1] * to_pixels
        cv2.fillPoly(picture, [np.rint(corners - 0.5).astype(np.int32)], MARKER_COLOUR, cv2.LINE_AA)
    return picture


def perspective_view(
    occupancy: Occupancy, width: int = 1280, height: int = 720, camera: VirtualCamera | None = None
) -> np.ndarray:
    """The volume as shaded cubes, seen from a virtual camera (painter's algorithm: farthest faces first).

    The floor has FREE_COLOUR where something of a column is seen, and UNKNOWN_COLOUR where nothing is.

    Args:
        occupancy: what to show; unknown and free voxels are not drawn.
        width, height: of the picture, pixels.
        camera: where from; `default_camera`, if left out.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    camera = camera or default_camera(occupancy, width / height)
    size = np.array([width, height]) * _SUPERSAMPLING
    focal = size[1] / 2 / np.tan(camera.field_of_view / 2)
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    pixels_from_grid = K @ camera.camera_from_grid()[:3]
    picture = np.empty((size[1], size[0], 3), np.uint8)
    picture[:] = SKY_COLOUR
    _paint_floor(picture, occupancy, pixels_from_grid)
    _paint_faces(picture, occupancy, pixels_from_grid, np.array(camera.eye), focal)
    _paint_marker(picture, occupancy, pixels_from_grid)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _ground_cells(occupancy: Occupancy) -> np.ndarray:
    """(X, Y, 3) colours of the floor under columns that are seen or not."""
    seen = (~occupancy.unknown).any(axis=2, keepdims=True)
    return np.where(seen, FREE_COLOUR, UNKNOWN_COLOUR).astype(np.float64)


def _has_origin(occupancy: Occupancy) -> bool:
    grid = occupancy.grid
    return all(low <= 0 <= high for low, high in zip(grid.lower[:2], grid.upper[:2]))


def _project(points: np.ndarray, pixels_from_grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., 2), centres at integers, NaN for points too near, and z-depths (...) of points (..., 3)."""
    homogeneous = points @ pixels_from_grid[:, :3].T + pixels_from_grid[:, 3]
    depth = homogeneous[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.where(depth[..., None] > _NEAR, homogeneous[..., :2] / depth[..., None] - 0.5, np.nan)
    return pixels, depth


def _paint_floor(picture: np.ndarray, occupancy: Occupancy, pixels_from_grid: np.ndarray) -> None:
    """Lay the floor's cells onto the grid's lowest plane: a homography of a plane, pixel by pixel."""
    grid = occupancy.grid
    x, y, z = grid.lower
    grid_from_cells = np.array([[grid.voxel_size, 0, x], [0, grid.voxel_size, y], [0, 0, z], [0, 0, 1]])
    cells_from_pixels = np.linalg.inv(pixels_from_grid @ grid_from_cells)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones_like(rows)], axis=-1)
    place = pixels @ cells_from_pixels.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cells = np.floor(place[..., :2] / place[..., 2:])
    on_floor = (place[..., 2] > 0) & (cells >= 0).all(-1) & (cells < grid.shape[:2]).all(-1)
    x, y = cells[on_floor].astype(int).T
    colours = _ground_cells(occupancy)[x, y]
    colours[(x // 10 + y // 10) % 2 == 1] *= 0.95  # squares of ten voxels give a sense of distance
    picture[on_floor] = np.rint(colours)


@dataclass(frozen=True)
class _Faces:
    """Squares to paint. corners: (F, 4, 3) metres. labels: (F,) class ids. brightness: (F,) in 0..1."""

    corners: np.ndarray
    labels: np.ndarray
    brightness: np.ndarray


def _visible_faces(occupancy: Occupancy, eye: np.ndarray) -> _Faces:
    """Faces of occupied voxels with nothing occupied before them, on the eye's side."""
    grid, occupied = occupancy.grid, occupancy.occupied
    padded = np.pad(occupied, 1)
    corners, labels, brightness = [], [], []
    for axis in range(3):
        for side in (0, 1):
            beyond = tuple(
                slice(2 * side, 2 * side + size) if other == axis else slice(1, size + 1)
                for other, size in enumerate(grid.shape)
            )
            index = np.argwhere(occupied & ~padded[beyond])
            plane = grid.lower[axis] + (index[:, axis] + side) * grid.voxel_size
            index = index[(eye[axis] - plane) * (1 if side else -1) > 0]
            first, second = [other for other in range(3) if other != axis]
            unit = np.eye(3, dtype=int)
            before = index + 1 + unit[axis] * (2 * side - 1)  # the empty voxel in front of the face, in `padded`
            edges = sum(
                padded[tuple((before + step).T)].astype(float)
                for step in (unit[first], -unit[first], unit[second], -unit[second])
            )
            offsets = np.zeros((4, 3))
            offsets[:, axis] = side
            offsets[:, first], offsets[:, second] = (0, 1, 1, 0), (0, 0, 1, 1)
            corners.append((index[:, None] + offsets) * grid.voxel_size + grid.lower)
            labels.append(occupancy.semantics[tuple(index.T)])
            brightness.append(_BRIGHTNESS[2 * axis + side] * (1 - _CORNER_SHADE * edges))
    return _Faces(np.concatenate(corners), np.concatenate(labels), np.concatenate(brightness))


def _paint_faces(
    picture: np.ndarray, occupancy: Occupancy, pixels_from_grid: np.ndarray, eye: np.ndarray, focal: float
) -> None:
    faces = _visible_faces(occupancy, eye)
    pixels, depth = _project(faces.corners, pixels_from_grid)
    height, width = picture.shape[:2]
    shown = np.isfinite(pixels).all((1, 2))
    shown &= (pixels.max(1) >= 0).all(1) & (pixels.min(1) <= (width, height)).all(1)
    distance = np.linalg.norm(faces.corners.mean(axis=1) - eye, axis=1)
    nearest, farthest = distance[shown].min(initial=np.inf), distance[shown].max(initial=0)
    haze = _HAZE * np.clip((distance - nearest) / max(farthest - nearest, 1.0), 0, 1)[:, None] ** 2
    lit = occupancy.classes.palette()[faces.labels] * faces.brightness[:, None]
    colours = np.rint(lit * (1 - haze) + np.array(SKY_COLOUR) * haze)
    apparent = focal * occupancy.grid.voxel_size / np.maximum(depth.mean(axis=1), _NEAR)
    outlined = apparent > _OUTLINE_PIXELS * _SUPERSAMPLING
    order = np.flatnonzero(shown)
    order = order[np.argsort(-distance[order], kind="stable")]
    points = np.rint(np.where(shown[:, None, None], pixels, 0) * 16).astype(np.int32)  # 4 fractional bits
    for index, colour, edge in zip(order, colours[order].tolist(), outlined[order].tolist()):
        cv2.fillConvexPoly(picture, points[index], colour, cv2.LINE_8, 4)
        if edge:
            cv2.polylines(picture, points[index : index + 1], True, [0.82 * part for part in colour], 1, cv2.LINE_8, 4)


def _paint_marker(picture: np.ndarray, occupancy: Occupancy, pixels_from_grid: np.ndarray) -> None:
    pixels, _ = _project(_MARKER, pixels_from_grid)
    if _has_origin(occupancy) and np.isfinite(pixels).all() and (np.abs(pixels) < 1e5).all():
        cv2.fillPoly(picture, [np.rint(pixels * 16).astype(np.int32)], MARKER_COLOUR, cv2.LINE_AA, 4)
