"""Which cameras are alive: when each was last heard, and until when sets of images wait for it."""

from __future__ import annotations

from collections.abc import Iterable

from .camera_queue import CameraQueue

__all__ = ["CameraLiveness"]


class CameraLiveness:
    """Notes when cameras are heard. All times are steady seconds that the caller counts.

    Args:
        timeout: seconds of silence after which nothing waits for a camera.
    """

    def __init__(self, timeout: float):
        self._timeout = timeout
        self._start: float | None = None
        self._last_heard: float | None = None
        self._active_since = 0.0

    def begin(self, now: float) -> None:
        """Start counting now, unless it has started already."""
        if self._start is None:
            self._start = now

    def resume(self, cameras: Iterable[CameraQueue], now: float) -> None:
        """Give every camera the timeout again, after a pause in which no image was taken in."""
        self._start = now
        for camera in cameras:
            camera.heard = None if camera.heard is None else now

    def hear(self, camera: CameraQueue, now: float) -> None:
        """Note that the camera has sent a usable image."""
        if self._last_heard is None or now - self._last_heard >= self._timeout:
            self._active_since = now  # all cameras were silent: each gets the timeout again
        self._last_heard = camera.heard = now

    def past_start(self, now: float) -> bool:
        """Whether the timeout has passed since the start."""
        return self._start is not None and now >= self._start + self._timeout

    def silent_at(self, camera: CameraQueue) -> float | None:
        """When the camera has been silent for the timeout, counted from the start if it never sent anything."""
        since = self._start if camera.heard is None else camera.heard
        return None if since is None else since + self._timeout

    def is_silent(self, camera: CameraQueue, now: float) -> bool:
        at = self.silent_at(camera)
        return at is not None and now >= at

    def waits_until(self, camera: CameraQueue) -> float:
        """Until when sets wait for the camera. Time in which all cameras were silent does not count."""
        heard = self._active_since if camera.heard is None else max(camera.heard, self._active_since)
        return heard + self._timeout
