"""The summary of the rigs that a network was trained on, and its comparison with the rig it runs on.

A summary is plain data that JSON can hold, in one of three forms:

    {"count", "cameras": [...]}     one rig, as `Rig.summary` gives it
    {"rigs": [summary, ...]}        a few rigs: a rig is compared with the one that is most like it
    {"rig_count", "ranges": {...}}  many rigs: the least and the largest of each number, angles in radians
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..geometry.camera_model import CameraModel
from ..geometry.rig import Rig

__all__ = ["compare_summaries", "summary_of_models", "summary_of_rigs"]

_SHAPE_CHANGE = 0.02  # relative change of width to height beyond which a view shows more or less above and below
_FOV_CHANGE = 0.1  # relative change of a field of view beyond which a network sees objects at an untrained size
_HEIGHT_CHANGE = 0.3  # metres
_YAW_CHANGE = math.radians(15)
_FEW_RIGS = 8  # up to this many are stored one by one
_RANGES = ("width", "shape", "horizontal_fov", "mount_height")


def summary_of_rigs(rigs: Iterable[Rig]) -> dict:
    """The summary of all rigs that a network was trained on; at least one."""
    summaries: list[dict] = []
    for summary in (rig.summary() for rig in rigs):
        if summary not in summaries:
            summaries.append(summary)
    if len(summaries) == 1:
        return summaries[0]
    if len(summaries) <= _FEW_RIGS:
        return {"rigs": summaries}
    cameras = [_with_shape(camera) for summary in summaries for camera in summary["cameras"]]
    counts = [summary["count"] for summary in summaries]
    ranges = {name: _range(camera[name] for camera in cameras) for name in _RANGES}
    return {"rig_count": len(summaries), "ranges": {"count": _range(counts), **ranges}}


def compare_summaries(trained: Mapping, now: Mapping) -> list[str]:
    """Warnings where the rig a network runs on differs from those it was trained on; empty when one of them agrees.

    Args:
        trained: result of `summary_of_rigs` or `Rig.summary`.
        now: result of `Rig.summary`, or of `summary_of_models`.
    Returns:
        one sentence each. Cameras are compared by name where the names agree, else with the trained camera that points
        most nearly the same way. Of several trained rigs the one counts that gives the fewest differences; many are
        compared by their ranges.
    """
    if "ranges" in trained:
        return _outside_ranges(trained["ranges"], trained["rig_count"], now)
    if "rigs" in trained:
        found = [_compare(rig, now) for rig in trained["rigs"]]
        closest = min(found, key=lambda pair: pair[0])[1]
        return [f"{text} (of {len(found)} trained rigs the most similar)" for text in closest]
    return _compare(trained, now)[1]


def _compare(trained: Mapping, now: Mapping) -> tuple[int, list[str]]:
    """The number of differences to one rig, and the sentences that name them."""
    warnings = []
    if trained["count"] != now["count"]:
        warnings.append(f"trained with {trained['count']} cameras, running with {now['count']}")
    total = len(warnings)
    by_name = {camera["name"]: camera for camera in trained["cameras"]}
    for camera in now["cameras"]:
        other = by_name.get(camera["name"]) or min(
            trained["cameras"], key=lambda candidate: abs(_turn(candidate["yaw"], camera.get("yaw", 0.0)))
        )
        differences = _differences(other, camera)
        total += len(differences)
        if differences:
            against = "" if other["name"] == camera["name"] else f" (compared with '{other['name']}')"
            warnings.append(f"camera '{camera['name']}'{against}: {', '.join(differences)}")
    return total, warnings


def summary_of_models(models: Mapping[str, CameraModel], trained: Mapping) -> dict:
    """A summary of cameras whose mounts are not known: they get those of the camera they are compared with.

    Against several trained rigs they have no mounts, which are then not compared.
    """
    cameras = []
    for name, model in models.items():
        field_of_view = sum(model.horizontal_extent)
        own = {"name": name, "width": model.width, "height": model.height, "horizontal_fov": field_of_view}
        other = next((camera for camera in trained.get("cameras", ()) if camera["name"] == name), None)
        if other is None and "cameras" in trained:
            other = min(trained["cameras"], key=lambda camera: abs(camera["horizontal_fov"] - field_of_view))
        cameras.append({**(other or {}), **own})
    return {"count": len(cameras), "cameras": cameras}


def _differences(trained: Mapping, now: Mapping) -> list[str]:
    differences = []
    # Networks see images scaled to a size of their own: more pixels of the same shape look alike, fewer are blurred.
    shape, trained_shape = (camera["width"] / camera["height"] for camera in (now, trained))
    if now["width"] < trained["width"] or abs(shape - trained_shape) > _SHAPE_CHANGE * trained_shape:
        differences.append(f"image {now['width']}x{now['height']}, trained {trained['width']}x{trained['height']}")
    if abs(now["horizontal_fov"] - trained["horizontal_fov"]) > _FOV_CHANGE * trained["horizontal_fov"]:
        now_degrees, trained_degrees = (math.degrees(item["horizontal_fov"]) for item in (now, trained))
        differences.append(f"field of view {now_degrees:.0f} degrees, trained {trained_degrees:.0f}")
    if "mount_height" in now and abs(now["mount_height"] - trained["mount_height"]) > _HEIGHT_CHANGE:
        differences.append(f"mounted at {now['mount_height']:.2f} m, trained {trained['mount_height']:.2f} m")
    if "yaw" in now and abs(_turn(trained["yaw"], now["yaw"])) > _YAW_CHANGE:
        differences.append(
            f"heading {math.degrees(now['yaw']):.0f} degrees, trained {math.degrees(trained['yaw']):.0f}"
        )
    return differences


def _outside_ranges(ranges: Mapping, rig_count: int, now: Mapping) -> list[str]:
    """Sentences about numbers outside the ranges of training, with a tolerance of a tenth (heights: 0.3 m)."""
    warnings = []
    low, high = ranges["count"]
    if not low <= now["count"] <= high:
        warnings.append(f"the {rig_count} rigs in training had {low} to {high} cameras, running with {now['count']}")
    for camera in map(_with_shape, now["cameras"]):
        differences = []
        low, high = ranges["shape"]
        if camera["width"] < ranges["width"][0] or not low * 0.98 <= camera["shape"] <= high * 1.02:
            differences.append(
                f"image {camera['width']}x{camera['height']}, trained with at least {ranges['width'][0]} columns, "
                f"{low:.2f} to {high:.2f} times as wide as high"
            )
        low, high = ranges["horizontal_fov"]
        if not low * (1 - _FOV_CHANGE) <= camera["horizontal_fov"] <= high * (1 + _FOV_CHANGE):
            degrees = math.degrees(camera["horizontal_fov"])
            differences.append(
                f"field of view {degrees:.0f} degrees, trained {math.degrees(low):.0f} to {math.degrees(high):.0f}"
            )
        low, high = ranges["mount_height"]
        height = camera.get("mount_height", low)
        if not low - _HEIGHT_CHANGE <= height <= high + _HEIGHT_CHANGE:
            differences.append(f"mounted at {height:.2f} m, trained {low:.2f} to {high:.2f} m")
        if differences:
            warnings.append(f"camera '{camera['name']}' (of {rig_count} rigs in training): {', '.join(differences)}")
    return warnings


def _with_shape(camera: Mapping) -> dict:
    return {**camera, "shape": camera["width"] / camera["height"]}


def _range(values: Iterable[float]) -> list[float]:
    values = list(values)
    return [min(values), max(values)]


def _turn(start: float, end: float) -> float:
    return math.remainder(end - start, 2 * math.pi)
