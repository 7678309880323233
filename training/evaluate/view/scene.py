"""Writes frames as a Rerun recording: the only module that imports Rerun (`rerun-sdk`).

Entities, on the time lines `stamp` (the time of the recording) and `frame` (their number):

    /                                  the class table as annotation context, static
    world                              odom: x, y and z up
    world/trajectory                   the vehicle's way, one line for each piece without a jump, static
    world/map                          voxels of the map that remembers, as boxes
    world/vehicle                      base_link, with the vehicle's pose
    world/vehicle/voxels               voxels of the frame
    world/vehicle/truth                voxels of the 3D truth
    world/vehicle/cameras/NAME         pose and pinhole of a camera, and its image without distortion
    world/vehicle/rendered/NAME/...    pose and pinhole; `classes` and `depth` of the volume as the camera sees it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.undistortion import View

from .contents import CameraImage, FrameContents, RenderedView, Voxels

__all__ = ["APPLICATION", "SceneWriter"]

APPLICATION = "renderocc"
_JPEG_QUALITY = 85
_FRUSTUM = 1.0  # metres from a camera to its image plane in the 3D view
_WAY_WIDTH, _WAY_COLOUR = 0.1, (230, 40, 40)


class SceneWriter:
    """Writes a Rerun recording, to be used as a context manager.

    Args:
        path: the file, which is overwritten.
        name: of the recording, as the viewer shows it.
        classes: class table of all voxels.
        cameras: names, in the order of their views.
    Attributes:
        counts: how often each part was written: images, rendered, voxels, map, truth; and `frames`.
    """

    def __init__(self, path: Path, name: str, classes: ClassTable, cameras: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()
        self._cameras: set[str] = set()  # entities of the last frame
        self._stream = rr.RecordingStream(APPLICATION)
        self._stream.set_log_tick_enabled(False)
        self._stream.set_log_time_enabled(False)
        self._stream.save(path, default_blueprint=_blueprint(cameras))
        self._stream.send_recording_name(name)
        rows = [(index, name, classes.colours[index]) for index, name in enumerate(classes.names)]
        self._stream.log("/", rr.AnnotationContext(rows), static=True)
        self._stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left, and close the file."""
        self._stream.flush()
        self._stream.disconnect()

    def write(self, frame: FrameContents) -> None:
        """Write a frame. Parts that it does not have are empty at its time."""
        self._stream.set_time("stamp", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        self._stream.set_time("frame", sequence=self.counts["frames"])
        self._stream.log("world/vehicle", _pose(frame.odom_from_base))
        parts = {"vehicle/voxels": frame.voxels, "vehicle/truth": frame.truth, "map": frame.map}
        for part, voxels in parts.items():
            self._write_voxels(part, voxels)
        for camera, image in frame.images.items():
            self._write_image(_entity("cameras", camera), image)
        for camera, rendered in frame.rendered.items():
            self._write_rendered(_entity("rendered", camera), rendered)
        there = {_entity("cameras", camera) for camera in frame.images}
        there |= {_entity("rendered", camera) for camera in frame.rendered}
        for entity in self._cameras - there:  # what was there before would stay
            self._stream.log(entity, rr.Clear(recursive=True))
        self._cameras = there
        self.counts["frames"] += 1

    def write_trajectory(self, pieces: Sequence[np.ndarray]) -> None:
        """Write the vehicle's way.

        Args:
            pieces: of each piece the places, (N, 3) metres in odom.
        """
        lines = [piece for piece in pieces if len(piece) > 1]
        self._stream.log(
            "world/trajectory", rr.LineStrips3D(lines, radii=_WAY_WIDTH / 2, colors=_WAY_COLOUR), static=True
        )

    def _write_voxels(self, part: str, voxels: Voxels | None) -> None:
        kind = part.rpartition("/")[2]
        if voxels is not None:
            self.counts[kind] += 1
            boxes = rr.Boxes3D(
                centers=voxels.centres,
                half_sizes=np.full((1, 3), voxels.size / 2, np.float32),  # one for all
                class_ids=voxels.labels,
                fill_mode="solid",
                show_labels=False,
            )
            self._stream.log(f"world/{part}", boxes)
        elif self.counts[kind]:
            self._stream.log(f"world/{part}", rr.Clear(recursive=False))

    def _write_image(self, entity: str, image: CameraImage) -> None:
        self._write_camera(entity, image.view, image.base_from_camera)
        _, encoded = cv2.imencode(".jpg", image.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        self._stream.log(entity, rr.EncodedImage(contents=encoded.tobytes(), media_type="image/jpeg"))
        self.counts["images"] += 1

    def _write_rendered(self, entity: str, rendered: RenderedView) -> None:
        self._write_camera(entity, rendered.view, rendered.base_from_camera)
        if rendered.colours is not None:
            self._stream.log(f"{entity}/classes", rr.Image(rendered.colours))
        if rendered.depth is not None:
            depth = np.nan_to_num(rendered.depth, nan=0.0, posinf=0.0, neginf=0.0)  # Rerun's 0 is "nothing"
            self._stream.log(f"{entity}/depth", rr.DepthImage(depth, meter=1.0))
        self.counts["rendered"] += 1

    def _write_camera(self, entity: str, view: View, base_from_camera: np.ndarray) -> None:
        self._stream.log(entity, _pose(base_from_camera))
        pinhole = rr.Pinhole(
            image_from_camera=view.K,
            resolution=(view.width, view.height),
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=_FRUSTUM,
        )
        self._stream.log(entity, pinhole)


def _pose(parent_from_child: np.ndarray) -> rr.Transform3D:
    return rr.Transform3D(translation=parent_from_child[:3, 3], mat3x3=parent_from_child[:3, :3])


def _entity(folder: str, camera: str) -> str:
    return f"world/vehicle/{folder}/{rr.escape_entity_path_part(camera)}"


def _blueprint(cameras: Sequence[str]) -> rrb.Blueprint:
    """Tabs of 3D views of the frame, the map and the truth; beside them tabs of all cameras' images and views."""
    spaces = [
        rrb.Spatial3DView(
            origin="world",
            contents=["+ $origin/**", "- $origin/vehicle/rendered/**", *(f"- $origin/{part}/**" for part in without)],
            name=name,
        )
        for name, without in (
            ("Frame", ("map", "vehicle/truth")),
            ("Map", ("vehicle/voxels", "vehicle/truth")),
            ("Truth", ("map", "vehicle/voxels")),
        )
    ]
    pictures = [
        rrb.Grid(
            *(
                rrb.Spatial2DView(origin=_entity(folder, camera), contents=f"+ $origin{part}", name=camera)
                for camera in cameras
            ),
            name=name,
        )
        for name, folder, part in (
            ("Cameras", "cameras", ""),
            ("Rendered classes", "rendered", "/classes"),
            ("Rendered depth", "rendered", "/depth"),
        )
    ]
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Tabs(*spaces), rrb.Tabs(*pictures), column_shares=[3, 2]),
        rrb.TimePanel(timeline="stamp", state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
    )
