"""Depth from motion of a whole recording: its windows one by one or in several processes, those done before left as
they are."""

from __future__ import annotations

import multiprocessing
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path

from renderocc_model.base.config import to_mapping
from renderocc_model.base.worker_processes import serve_parent
from training.recordings.frames import Recording

from .colmap import colmap_camera, import_pycolmap
from .judgement import check_found, check_poses
from .plan import Plan, Window, plan_windows
from .settings import MotionDepth, StructureError
from .store import WindowStore
from .window import ImageLabels, Report, Task, solve_window

__all__ = ["MotionLabels", "depth_from_motion"]

_ONLY_JUDGED = ("max_scale_error",)  # settings that windows do not depend on
_KEPT = 3  # windows whose labels are in memory at a time


class MotionLabels:
    """Labels of a recording's images, read window by window.

    Args:
        plan: the recording's windows.
        store: their results.
    Attributes:
        reports: of the windows.
    """

    def __init__(self, plan: Plan, store: WindowStore) -> None:
        self._store, self._left_out = store, plan.left_out
        self._window = {(shot.camera, shot.stamp_ns): window.number for window in plan.windows for shot in window.core}
        self._loaded: OrderedDict[int, dict[tuple[str, int], ImageLabels]] = OrderedDict()
        self.reports: list[Report] = [store.load(window.number)[1] for window in plan.windows]

    def of(self, camera: str, stamp_ns: int) -> ImageLabels:
        """The labels of an image. There may be none.

        Raises:
            StructureError: the image has no pose, or could not be read.
        """
        number = self._window.get((camera, stamp_ns))
        if number is None:
            raise StructureError(self._left_out.get((camera, stamp_ns), "the image is not in the recording"))
        if number not in self._loaded:
            self._loaded[number] = self._store.load(number)[0]
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
        if (camera, stamp_ns) not in self._loaded[number]:
            raise StructureError(f"the image cannot be read: {self.reports[number].reason}")
        return self._loaded[number][camera, stamp_ns]

    def remove_store(self) -> None:
        """Remove the windows' files, once the labels are written elsewhere."""
        self._store.remove()


def depth_from_motion(
    recording: Recording,
    settings: MotionDepth,
    folder: Path,
    jobs: int = 1,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> MotionLabels:
    """Triangulate what stands, from all images of a recording.

    Args:
        recording: an open recording.
        settings: thresholds, and the size of a window.
        folder: for the results of windows. A second call with the same recording and settings goes on with them.
        jobs: number of processes.
        on_window: called with the number of windows that are done, and of all.
    Raises:
        StructureError: pycolmap is missing, a camera has no COLMAP model, the poses cannot be true, or nothing can be
            triangulated; the text has the reason.
        RecordingError: the recording cannot be read.
    """
    import_pycolmap()
    for number, camera in enumerate(recording.cameras, 1):
        colmap_camera(camera, recording.models[camera], number)
    plan = plan_windows(recording, settings)
    if not plan.windows:
        why = next(iter(plan.left_out.values()), "it has no images")
        raise StructureError(f"{recording.path}: no image can be used for depth from motion: {why}")
    store = WindowStore(folder, _key(recording, settings))
    waiting = [window for window in plan.windows if not store.has(window.number)]
    reports = [store.load(window.number)[1] for window in plan.windows if store.has(window.number)]
    on_window(len(reports), len(plan.windows))
    for number, labels, report in _solved(recording, waiting, settings, jobs):
        store.save(number, labels, report)
        reports.append(report)
        check_poses(str(recording.path), reports, settings)
        on_window(len(reports), len(plan.windows))
    check_found(str(recording.path), reports, settings)
    return MotionLabels(plan, store)


def _key(recording: Recording, settings: MotionDepth) -> dict:
    """What the results depend on."""
    path = recording.path
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "cameras": list(recording.cameras),
        "models": [
            repr((model.K.tolist(), model.distortion_model, model.coefficients)) for model in _models(recording)
        ],
        "mounts": [recording.mount(camera).tolist() for camera in recording.cameras],
        "jumps": [[jump.before_ns, jump.after_ns] for jump in recording.jumps.items],
        "vehicle": to_mapping(recording.vehicle),
        "settings": {name: value for name, value in to_mapping(settings).items() if name not in _ONLY_JUDGED},
        "report": [field.name for field in fields(Report)],
        "pycolmap": str(import_pycolmap().__version__),
    }


def _models(recording: Recording) -> list:
    return [recording.models[camera] for camera in recording.cameras]


def _task(recording: Recording, window: Window, settings: MotionDepth) -> Task:
    shots = (*window.core, *window.beside)
    messages = recording.gather([("image", shot.camera, shot.stamp_ns) for shot in shots])
    return Task(
        window,
        {(camera, stamp): message for (_, camera, stamp), message in messages.items()},
        {camera: recording.models[camera] for camera in recording.cameras},
        settings,
    )


def _solved(
    recording: Recording, windows: list[Window], settings: MotionDepth, jobs: int
) -> Iterator[tuple[int, dict[tuple[str, int], ImageLabels], Report]]:
    """Yield the results of windows as they come, from this process or from several."""
    jobs = min(jobs, len(windows))
    if jobs <= 1:
        for window in windows:
            yield (window.number, *solve_window(_task(recording, window, settings)))
        return
    executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), serve_parent, (os.getpid(),))
    running: dict[Future, int] = {}
    try:
        for window in windows:  # the messages of few windows are in memory at a time
            running[executor.submit(solve_window, _task(recording, window, settings))] = window.number
            while len(running) > jobs:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool:
        raise StructureError(
            f"{recording.path}: a process died, probably out of memory; use fewer than {jobs} --jobs, or "
            "fewer --window-images"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future, int]) -> Iterator[tuple[int, dict[tuple[str, int], ImageLabels], Report]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in sorted(done, key=lambda one: running[one]):
        number = running.pop(future)
        yield (number, *future.result())
