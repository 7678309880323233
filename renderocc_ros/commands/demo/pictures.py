"""The demo's pictures: what the cameras saw, what the node made of it and, where there is truth, what was there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.field.drawing import (
    FREE_COLOUR,
    UNKNOWN_COLOUR,
    bird_eye_view,
    default_camera,
    perspective_view,
)
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.camera_search import CameraSource
from renderocc_model.rosio.video_track import VIDEO_READERS, VideoTrack

__all__ = ["demo_picture", "legend", "rows_of_cameras", "truth_volume", "views_at", "write_png"]

WIDTH = 1600
PAIR_HEIGHT, ALONE_HEIGHT = 460, 720  # of views in perspective: two side by side, or one
BIRD = 480  # side of a view from above
BEHIND = math.radians(100)  # cameras that look farther back than this are in the lower row
BACKGROUND, TEXT, PLATE = (24, 26, 31), (240, 240, 240), (24, 26, 31)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def rows_of_cameras(headings: Mapping[str, float | None]) -> list[list[str]]:
    """Cameras as one would lay their pictures out: those that look ahead above, from left to right, then those behind.

    Args:
        headings: camera -> where it looks, radians from straight ahead to the left; None where that is not known.
    Returns:
        one or two rows of names. In the lower one, too, left is left: as if one turned one's head, not the car.
    """
    known = {name: math.remainder(heading, math.tau) for name, heading in headings.items() if heading is not None}
    ahead = sorted((name for name in known if abs(known[name]) <= BEHIND), key=lambda name: -known[name])
    # From the left by the back to the right: 110, 180, 250 degrees.
    behind = sorted((name for name in known if abs(known[name]) > BEHIND), key=lambda name: known[name] % math.tau)
    behind += [name for name in headings if name not in known]
    return [row for row in (ahead, behind) if row]


def views_at(bag: Path, cameras: Sequence[CameraSource], stamp_ns: int) -> dict[str, np.ndarray]:
    """Of each camera the (H, W, 3) uint8 RGB image nearest to a stamp."""
    nearest: dict[str, tuple[int, CameraSource, bytes]] = {}
    topics = {camera.image_topic: camera for camera in cameras if camera.kind not in VIDEO_READERS}
    with Bag(bag) as recording:
        videos = {
            camera.name: found
            for camera in cameras
            if camera.kind in VIDEO_READERS and (found := picture_of_video(recording, camera, stamp_ns))
        }
        for topic, _, buffer in recording.messages(topics):
            camera, apart = topics[topic], abs(cdr.read_header(buffer)[0] - stamp_ns)
            if camera.name not in nearest or apart < nearest[camera.name][0]:
                nearest[camera.name] = (apart, camera, buffer)
    views = {name: decoded(camera, buffer) for name, (_, camera, buffer) in nearest.items()}
    return {**{name: picture for name, (picture,) in videos.items()}, **views}


def picture_of_video(recording: Bag, camera: CameraSource, stamp_ns: int) -> tuple[np.ndarray] | None:
    """The picture nearest to a stamp, (H, W, 3) uint8 RGB, of a camera's video; None without a video."""
    track, stamps = VideoTrack(recording, camera.image_topic), []
    for _, recorded_ns, data in recording.messages([camera.image_topic]):
        with contextlib.suppress(ValueError):  # the node says what is wrong with it
            message = VIDEO_READERS[camera.kind](data)
            track.take(message, recorded_ns)
            stamps.append(message.stamp_ns)
    return (track.picture(min(stamps, key=lambda stamp: abs(stamp - stamp_ns))),) if stamps else None


def decoded(camera: CameraSource, buffer: bytes) -> np.ndarray:
    if camera.compressed:
        return decode_compressed(cdr.read_compressed_image(buffer).data)
    return decode_raw(*cdr.read_image(buffer).pixel_arguments)


def truth_volume(path: Path, like: Occupancy) -> Occupancy | None:
    """The truth cut to a volume's grid; None where it is not of Occ3D's grid.

    All that is occupied is in it, also where no camera sees; what is free and unseen is unknown, as in the node's.

    Args:
        path: Occ3D's layout: `semantics` and, if there is one, `mask_camera`.
        like: a volume whose grid is a part of Occ3D's.
    """
    with np.load(path, allow_pickle=False) as file:
        semantics = file["semantics"]
        seen = file["mask_camera"] != 0 if "mask_camera" in file.files else np.ones(semantics.shape, bool)
    if semantics.shape != like.grid.shape:
        first, inside = OCC3D_GRID.index_of(like.grid.centres()[:1, 0, 0])
        window = tuple(slice(low, low + size) for low, size in zip(first[0], like.grid.shape))
        if semantics.shape != OCC3D_GRID.shape or not inside[0]:
            return None
        semantics, seen = semantics[window], seen[window]
        if semantics.shape != like.grid.shape:
            return None
    occupied = semantics != like.classes.free
    semantics = np.where(seen | occupied, semantics, UNLABELLED).astype(np.uint8)
    return Occupancy(like.grid, like.classes, semantics, occupied.astype(np.float32), np.ascontiguousarray(seen))


def demo_picture(
    views: Mapping[str, np.ndarray],
    rows: Sequence[Sequence[str]],
    volume: Occupancy,
    caption: str,
    truth: Occupancy | None = None,
    truth_caption: str = "truth, also where no camera sees",
) -> np.ndarray:
    """Cameras above; then the volume, and the truth beside it, in perspective; then both from above, with a legend.

    Args:
        views: camera -> (H, W, 3) uint8 RGB.
        rows: names of cameras, as they are to lie.
        caption, truth_caption: a line each on what the volumes are.
    Returns:
        (height, WIDTH, 3) uint8 RGB.
    """
    cameras = mosaic(views, rows)
    if truth is None:
        scene = captioned(perspective_view(volume, WIDTH - BIRD, ALONE_HEIGHT), caption)
        colours = legend([volume], BIRD, ALONE_HEIGHT - BIRD)
        return np.vstack([cameras, np.hstack([scene, np.vstack([from_above(volume), colours])])])
    width = WIDTH // 2
    camera = default_camera(volume, width / PAIR_HEIGHT)
    scenes = [
        captioned(perspective_view(each, width, PAIR_HEIGHT, camera), text)
        for each, text in ((volume, caption), (truth, truth_caption))
    ]
    scenes[1][:, :2] = BACKGROUND  # a line between the two
    birds = [captioned(from_above(volume), "the node, from above"), captioned(from_above(truth), "truth, from above")]
    colours = legend([volume, truth], WIDTH - 2 * BIRD, BIRD)
    return np.vstack([cameras, np.hstack(scenes), np.hstack([birds[0], colours, birds[1]])])


def mosaic(views: Mapping[str, np.ndarray], rows: Sequence[Sequence[str]]) -> np.ndarray:
    """The cameras' images in their rows, each row in the middle; (height, WIDTH, 3) uint8."""
    rows = [[name for name in row if name in views] for row in rows]
    rows = [row for row in rows if row]
    columns = max([2, *map(len, rows)])
    width = WIDTH // columns
    height = max((round(width * view.shape[0] / view.shape[1]) for view in views.values()), default=0)
    strips = []
    for row in rows:
        strip = np.full((height, WIDTH, 3), BACKGROUND, np.uint8)
        left = (WIDTH - width * len(row)) // 2
        for index, name in enumerate(row):
            begin = left + index * width
            strip[:, begin : begin + width] = captioned(fitted(views[name], width, height), name)
        strips.append(strip)
    return np.vstack(strips) if strips else np.empty((0, WIDTH, 3), np.uint8)


def fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An RGB image scaled into a tile of this size, whole and undistorted."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    tile = np.full((height, width, 3), BACKGROUND, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile


def from_above(volume: Occupancy) -> np.ndarray:
    """`bird_eye_view` in a square of BIRD pixels."""
    per_voxel = max(1, BIRD // max(volume.grid.shape[:2]))
    return fitted(bird_eye_view(volume, per_voxel), BIRD, BIRD)


def captioned(picture: np.ndarray, text: str, scale: float = 0.55) -> np.ndarray:
    """The picture with a line of text on a dark plate in its upper left corner; smaller where it would not fit."""
    picture = np.ascontiguousarray(picture)
    width, height = cv2.getTextSize(text, FONT, scale, 1)[0]
    scale *= min(1.0, (picture.shape[1] - 16) / max(width, 1))
    width, height = cv2.getTextSize(text, FONT, scale, 1)[0]
    cv2.rectangle(picture, (0, 0), (width + 16, height + 14), PLATE, cv2.FILLED)
    cv2.putText(picture, text, (8, height + 7), FONT, scale, TEXT, 1, cv2.LINE_AA)
    return picture


def legend(volumes: Sequence[Occupancy], width: int, height: int) -> np.ndarray:
    """The colours of the classes that are in the volumes and of the two kinds of floor, in two columns.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    classes = volumes[0].classes
    there = np.unique(np.concatenate([np.unique(volume.semantics[volume.occupied]) for volume in volumes]))
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    entries = [(classes.names[label].replace("_", " "), classes.colours[label]) for label in there.tolist()]
    entries += [("seen, nothing there", FREE_COLOUR), ("unknown: not seen", UNKNOWN_COLOUR)]
    rows = max(1, (len(classes.occupied_ids) + 3) // 2)
    step = height // rows
    for index, (name, colour) in enumerate(entries):
        left, top = 24 + (index // rows) * (width - 24) // 2, (step - 22) // 2 + (index % rows) * step
        cv2.rectangle(picture, (left, top), (left + 22, top + 22), colour, cv2.FILLED)
        cv2.rectangle(picture, (left, top), (left + 22, top + 22), (150, 150, 150), 1)
        cv2.putText(picture, name, (left + 34, top + 17), FONT, 0.5, TEXT, 1, cv2.LINE_AA)
    return picture


def write_png(path: Path, rgb: np.ndarray) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} could not be written")
