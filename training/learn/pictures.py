"""Pictures for the report: images with their labels, and curves."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.drawing import bird_eye_view
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.rosio.vehicle import Vehicle
from training.label.overlay import overlay
from training.recordings.camera_image import camera_image
from training.recordings.frames import Recording

__all__ = ["curve", "embedded", "label_picture", "truth_picture"]

_TILE = 420  # width of a camera's picture, pixels
_ACROSS = 3  # cameras beside each other
_WIDTH, _HEIGHT, _MARGIN = 640, 220, 50  # of a curve, pixels


def label_picture(bag: Path, sidecar: Path | None, vehicle: Vehicle, classes: ClassTable) -> np.ndarray | None:
    """One image of each camera with its labels drawn over it, of the middle of the recording.

    Args:
        bag: the recording.
        sidecar: its labels; None for labels in the recording.
        vehicle: its cameras, topics and frames.
        classes: the labels' class table.
    Returns:
        (H, W, 3) uint8 RGB; None if no image has labels.
    """
    tiles = []
    with Recording(bag, sidecar, vehicle) as recording:
        for camera in recording.cameras:
            stamps = [one for one in recording.stamps[camera] if recording.has_labels(camera, one, ("depth",))]
            if not stamps:
                continue
            stamp = stamps[len(stamps) // 2]
            image = camera_image(recording.image_message(camera, stamp), recording.models[camera])
            known = recording.has_labels(camera, stamp, ("semantic",))
            semantic = recording.semantic(camera, stamp) if known else None
            drawn = overlay(image, recording.depth(camera, stamp), semantic, classes)
            size = (_TILE, round(drawn.shape[0] * _TILE / drawn.shape[1]))
            tiles.append(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
    if not tiles:
        return None
    height = max(len(tile) for tile in tiles)
    tiles = [np.pad(tile, ((0, height - len(tile)), (0, 0), (0, 0)), constant_values=255) for tile in tiles]
    blank = np.full((height, _TILE, 3), 255, np.uint8)
    across = min(_ACROSS, len(tiles))
    tiles += [blank] * (-len(tiles) % across)
    return np.vstack([np.hstack(tiles[first : first + across]) for first in range(0, len(tiles), across)])


def truth_picture(folder: Path, classes: ClassTable) -> np.ndarray | None:
    """The volume of 3D truth in the middle of a drive, from above.

    Args:
        folder: what `renderocc truth` wrote.
        classes: the table of its ids.
    Returns:
        (H, W, 3) uint8 RGB; None if there is no volume.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        return None
    arrays = read_npz(files[len(files) // 2], ("semantics", "mask_lidar"))
    seen = arrays["mask_lidar"] > 0
    semantics = np.where(seen, arrays["semantics"], UNLABELLED).astype(np.uint8)
    occupied = seen & (arrays["semantics"] != classes.free)
    return bird_eye_view(Occupancy(OCC3D_GRID, classes, semantics, occupied.astype(np.float32), seen))


def embedded(picture: np.ndarray | Path, text: str) -> str:
    """An <img> with the picture inside.

    Args:
        picture: (H, W, 3) uint8 RGB, or a JPEG or PNG file.
        text: what it shows.
    """
    if isinstance(picture, Path):
        data, kind = picture.read_bytes(), "png" if picture.suffix == ".png" else "jpeg"
    else:
        written, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        assert written
        data, kind = encoded.tobytes(), "jpeg"
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def curve(points: Sequence[tuple[float, float]], title: str) -> str:
    """A curve as inline SVG, with the smallest and largest values at its axes; empty for fewer than two points."""
    finite = [(x, y) for x, y in points if np.isfinite(y)]
    if len(finite) < 2:
        return ""
    places = np.array(finite, np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    share = (places - low) / np.where(high > low, high - low, 1.0)
    x = _MARGIN + share[:, 0] * (_WIDTH - 2 * _MARGIN)
    y = _HEIGHT - _MARGIN / 2 - share[:, 1] * (_HEIGHT - _MARGIN)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    bottom = _HEIGHT - 6
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#f6f7f9"/>'
        f'<polyline points="{line}" fill="none" stroke="#0b5cad" stroke-width="1.5"/>'
        f'<text x="{_WIDTH / 2}" y="16" text-anchor="middle">{html.escape(title)}</text>'
        f'<text x="4" y="30">{high[1]:.3g}</text><text x="4" y="{_HEIGHT - _MARGIN / 2}">{low[1]:.3g}</text>'
        f'<text x="{_MARGIN}" y="{bottom}">step {low[0]:.0f}</text>'
        f'<text x="{_WIDTH - _MARGIN}" y="{bottom}" text-anchor="end">{high[0]:.0f}</text></svg>'
    )
