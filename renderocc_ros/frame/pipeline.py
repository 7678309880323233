"""One frame: from the bytes of a set of images to an occupancy volume, by placement, decoding and the network."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.mount_entries import camera_mounts
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.geometry.transforms import invert
from renderocc_model.geometry.undistortion import UndistortTable, View
from renderocc_model.rosio.motion import Jump, JumpWatch
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_model.rosio.rectification import baseline_doubts, frames_from_optical
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_ros.frame.decoding import ViewTables, decode_view, decode_view_on_device
from renderocc_ros.frame.mounts import MountChecks
from renderocc_ros.frame.placement import Placements, place_cameras
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.calibrations import Calibration
from renderocc_ros.input.intake import CameraImage
from renderocc_ros.input.matcher import MatchedSet
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:  # they load PyTorch, which takes seconds: the node is on the graph before that
    from torch import Tensor

    from renderocc_model.inference.device_decoding import DeviceDecoder
    from renderocc_model.inference.predictor import Predictor

MOST_WAITS_IN_VAIN = 3  # frames in a row that wait for an ego pose and get none; later ones wait only after a new pose


@dataclass
class Frame:
    """What became of one matched set.

    stamp_ns, anchor: stamp of the outputs, and the camera that it comes from.
    arrival: steady seconds at which the last image arrived.
    occupancy: the volume; None if fewer than `min_cameras` cameras could be used.
    used: cameras whose images the network got.
    missing: {camera: reason} of all others.
    ego_motion_missing: why there was no ego motion; empty if there was.
    odom_from_base: (4, 4) ego pose at `stamp_ns`; None without ego motion.
    jump: the jump of the ego pose since the frame before, which nothing from before it is related to; None without.
    views, base_from_camera, stamps, optical_frames: {camera: ...} of the cameras used, for rendering.
    frames_from_optical: {camera: (4, 4)} of cameras with rectified images, whose optical axes are not their frame's.
    """

    stamp_ns: int
    anchor: str
    arrival: float
    occupancy: Occupancy | None = None
    used: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    ego_motion_missing: str = ""
    odom_from_base: np.ndarray | None = None
    jump: Jump | None = None
    views: dict[str, View] = field(default_factory=dict)
    base_from_camera: dict[str, np.ndarray] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    optical_frames: dict[str, str] = field(default_factory=dict)
    frames_from_optical: dict[str, np.ndarray] = field(default_factory=dict)

    def base_from_frame(self, camera: str) -> np.ndarray:
        """Pose (4, 4) of a camera's frame in TF; that of its optical axes, but for rectified images."""
        pose, turned = self.base_from_camera[camera], self.frames_from_optical.get(camera)
        return pose if turned is None else pose @ invert(turned)


class FramePipeline:
    """Turns sets of images into occupancy. One thread at a time may use it.

    Args:
        config: the node's parameters.
        cameras: names of all cameras.
        predictor: the network.
        transforms: the transforms of /tf and /tf_static.
        log: receives what is wrong with images, calibrations and TF.
        times: receives the durations of the stages.
    Attributes:
        jumps: the jumps of the ego pose.
    """

    def __init__(
        self,
        config: NodeConfig,
        cameras: tuple[str, ...],
        predictor: Predictor,
        transforms: TransformBuffer,
        log: ThrottledLog,
        times: StageTimes,
    ) -> None:
        self._config = config
        self._predictor = predictor
        self._transforms = transforms
        self._log = log
        self._times = times
        self._mounts = camera_mounts(config.mounts, cameras)
        self._cameras = cameras
        self._compared: dict[str, Calibration] = {}
        self._waits_in_vain = 0
        self._newest_ego_pose: int | None = None
        self.jumps = JumpWatch(transforms, config.fixed, config.base, config.motion)
        self._stamp_before: int | None = None  # of the frame before
        self._mount_checks = MountChecks(config.base)
        self._tables = ViewTables(*predictor.view_size)
        self._pixels = {camera: PixelFormat(config.bit_depth, config.mosaic) for camera in cameras}
        self._device_decoder = None if config.image_decoding == "cpu" else self._make_device_decoder()
        self._decoders = ThreadPoolExecutor(
            max_workers=max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="decode"
        )

    def close(self) -> None:
        self._decoders.shutdown(wait=True, cancel_futures=True)

    def reset(self) -> None:
        """Forget earlier frames, and what is known of their time."""
        self._predictor.reset()
        self.jumps.reset()
        self._stamp_before = None

    def lacking(self, matched: MatchedSet, calibrations: dict[str, Calibration]) -> list[str]:
        """Cameras of a set that have no calibration or no mount yet."""
        lacking = []
        for camera, (stamp_ns, _) in matched.entries.items():
            if camera not in calibrations:
                lacking.append(camera)
            elif camera not in self._mounts:
                frame = self._optical_frame(camera, matched, calibrations)
                try:
                    self._transforms.lookup(self._config.base, frame, stamp_ns)
                except TransformError:
                    lacking.append(camera)
        return lacking

    def process(self, matched: MatchedSet, calibrations: dict[str, Calibration]) -> Frame:
        """Turn a set into a frame. Cameras that cannot be used are reported by name and left out."""
        arrival = max(image.arrival for _, image in matched.entries.values())
        frame = Frame(matched.stamp_ns, matched.anchor, arrival)
        for camera, reason in matched.missing.items():
            self._leave_out(frame, camera, "missing", reason)
        with self._times.measure("placement"):
            placements = self._place(frame, matched, calibrations)
        if calibrations is not self._compared:
            self._compare_rig(placements, calibrations)
        with self._times.measure("decode"):
            tables = self._tables_of(frame, placements, calibrations)
            images, views = self._decode(frame, matched, tables)
        frame.used = images
        frame.base_from_camera = {camera: placements.base_from_camera[camera] for camera in images}
        frame.views = {camera: tables[camera].view for camera in images}
        frame.stamps = {camera: matched.entries[camera][0] for camera in images}
        frame.frames_from_optical = placements.frames_from_optical
        frame.optical_frames = {camera: self._optical_frame(camera, matched, calibrations) for camera in images}
        if len(images) < self._config.min_cameras:
            return frame
        with self._times.measure("network"):
            frame.occupancy = self._predictor.predict(
                views,
                [tables[camera] for camera in images],
                np.stack(list(frame.base_from_camera.values())),
                odom_from_base=placements.odom_from_base,
                seconds=frame.stamp_ns * 1e-9,
            )
        return frame

    def _optical_frame(self, camera: str, matched: MatchedSet, calibrations: dict[str, Calibration]) -> str:
        of_image, of_info = matched.entries[camera][1].frame_id, calibrations[camera].frame_id
        return self._config.optical_frame(camera, of_image, of_info)

    def _place(self, frame: Frame, matched: MatchedSet, calibrations: dict[str, Calibration]) -> Placements:
        cameras = {}
        for camera, (stamp_ns, _) in matched.entries.items():
            if camera in calibrations:
                cameras[camera] = (self._optical_frame(camera, matched, calibrations), stamp_ns)
            else:
                self._leave_out(
                    frame,
                    camera,
                    "calibration",
                    f"no usable camera_info yet on {self._config.camera_info_topic_of(camera)}",
                )
        placements = place_cameras(
            self._transforms,
            cameras,
            matched.stamp_ns,
            self._config.base,
            self._config.fixed,
            self._patience(),
            self._mounts,
            self.jumps,
            self._frames_from_optical(cameras, calibrations),
        )
        self._follow_jumps(frame, cameras)
        self._waits_in_vain = self._waits_in_vain + 1 if placements.odom_from_base is None else 0
        for camera, reason in placements.unplaced.items():
            self._leave_out(
                frame,
                camera,
                "TF",
                f"cannot be placed: {reason}; publish its mount on /tf_static, or set the parameter 'mounts'",
            )
        frame.odom_from_base = placements.odom_from_base
        if placements.ego_motion_missing and self._config.odom_frame and frame.jump is None:
            self._log.report(
                "ego motion",
                "TF",
                f"using the static mounts, so cameras of a moving vehicle disagree: {placements.ego_motion_missing}",
                time.monotonic(),
            )
        frame.ego_motion_missing = placements.ego_motion_missing
        return placements

    def _frames_from_optical(
        self, cameras: dict[str, tuple[str, int]], calibrations: dict[str, Calibration]
    ) -> dict[str, np.ndarray]:
        """{camera: (4, 4) its optical axes in its frame} of the cameras with rectified images."""
        rectified = {camera: (frame, calibrations[camera].rectification) for camera, (frame, _) in cameras.items()}
        if not any(rectification for _, rectification in rectified.values()):
            return {}
        for camera, text in baseline_doubts(rectified).items():
            self._log.report(f"camera '{camera}'", "baseline", text, time.monotonic())
        return frames_from_optical(rectified)

    def _follow_jumps(self, frame: Frame, cameras: dict[str, tuple[str, int]]) -> None:
        """Report a jump of the ego pose since the frame before, and forget the volume from before it."""
        stamps = [frame.stamp_ns, *(stamp_ns for _, stamp_ns in cameras.values())]
        before = self._stamp_before if self._stamp_before is not None else min(stamps)
        frame.jump = self.jumps.jumps.between(min(before, *stamps), max(stamps))
        self._stamp_before = frame.stamp_ns
        if frame.jump is not None:
            self._predictor.reset()
            text = f"at {seconds_text(frame.jump.after_ns)} s {frame.jump}; nothing is related across it"
            self._log.report("ego pose", "jump", text, time.monotonic())

    def has_ego_motion(self) -> bool:
        """Whether TF or the odometry relates the vehicle to the fixed frame at any time."""
        try:
            self._transforms.latest(self._config.fixed, self._config.base)
        except TransformError:
            return False
        return True

    def _patience(self) -> float:
        """Seconds that a frame may wait for its ego pose; 0 after several waits in vain, until a new pose comes."""
        try:
            newest = self._transforms.latest(self._config.fixed, self._config.base)
        except TransformError:
            newest = None
        if newest != self._newest_ego_pose:
            self._newest_ego_pose, self._waits_in_vain = newest, 0
        return self._config.tf_timeout if self._waits_in_vain < MOST_WAITS_IN_VAIN else 0.0

    def _compare_rig(self, placements: Placements, calibrations: dict[str, Calibration]) -> None:
        """Once all cameras have a mount, report how they differ from those of the training, as `renderocc doctor`."""
        mounts = placements.mounts
        if any(camera not in mounts for camera in self._cameras):
            return
        self._compared = calibrations
        rig = Rig(tuple(Camera(name, calibrations[name].model, mounts[name]) for name in self._cameras))
        for warning in self._predictor.compare_rig(rig):
            self._log.report("checkpoint", warning, warning, time.monotonic())

    def _tables_of(
        self, frame: Frame, placements: Placements, calibrations: dict[str, Calibration]
    ) -> dict[str, UndistortTable]:
        tables = {}
        for camera, mount in placements.mounts.items():
            for text in self._mount_checks.faults(camera, mount):
                self._log.report(f"camera '{camera}'", "mount", text, time.monotonic())
            try:
                tables[camera] = self._tables.of(camera, calibrations[camera].model, mount)
            except ValueError as error:
                self._leave_out(frame, camera, "calibration", str(error))
        return tables

    def _decode(
        self, frame: Frame, matched: MatchedSet, tables: dict[str, UndistortTable]
    ) -> tuple[tuple[str, ...], np.ndarray | Tensor | None]:
        """The cameras whose images could be decoded, and their (N, height, width, 3) views; None without a camera."""
        if not tables:
            return (), None
        views = self._view_buffer(list(tables.values()))
        waiting = [
            self._decoders.submit(self._decode_one, camera, matched.entries[camera][1], table, view)
            for (camera, table), view in zip(tables.items(), views)
        ]
        wait(waiting)  # for all, even if one fails: the next frame uses the same memory
        decoded = {}
        for index, (camera, result) in enumerate(zip(tables, waiting)):
            try:
                result.result()
            except ValueError as error:
                self._leave_out(frame, camera, "image", str(error))
            else:
                decoded[camera] = index
        return tuple(decoded), views if len(decoded) == len(tables) else views[list(decoded.values())]

    def _decode_one(self, camera: str, image: CameraImage, table: UndistortTable, view: np.ndarray | Tensor) -> None:
        pixels = self._pixels[camera]
        if self._device_decoder is None:
            decode_view(image, table, view, pixels)
        else:
            decode_view_on_device(image, table, self._device_decoder, camera, view, pixels)
        if pixels.warning:
            text = f"{pixels.warning}; say it with the parameter 'bit_depth'"
            self._log.report(f"camera '{camera}'", "bit depth", text, time.monotonic())

    def _view_buffer(self, tables: list[UndistortTable]) -> np.ndarray | Tensor:
        """(N, height, width, 3) uint8 for the views, on the device that decodes."""
        if self._device_decoder is None:
            return self._predictor.view_buffer(tables)
        import torch

        shape = (len(tables), *self._predictor.view_size, 3)
        return torch.empty(shape, dtype=torch.uint8, device=self._predictor.device)

    def _make_device_decoder(self) -> DeviceDecoder:
        from renderocc_model.inference.device_decoding import DeviceDecoder

        device = self._predictor.device
        if device.type != "cuda":
            raise ValueError(
                f"image_decoding is '{self._config.image_decoding}' but the network runs on '{device}'; "
                "set device to 'cuda', or image_decoding to 'cpu'"
            )

        def say(camera: str, text: str) -> None:
            self._log.report(f"camera '{camera}'", "decoding", text, time.monotonic())

        return DeviceDecoder(device, say)

    def _leave_out(self, frame: Frame, camera: str, kind: str, reason: str) -> None:
        frame.missing[camera] = reason
        self._log.report(f"camera '{camera}'", kind, reason, time.monotonic())
