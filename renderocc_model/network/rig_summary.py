"""What a network remembers of the rig it was trained on, compared with the rig it runs on."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..geometry.camera_model import CameraModel

__all__ = ["compare_summaries", "summary_of_models"]

_SHAPE_CHANGE = 0.02  # relative change of width to height beyond which a view shows more or less above and below
_FOV_CHANGE = 0.1  # relative change of a field of view beyond which a network sees objects at an untrained size
_HEIGHT_CHANGE = 0.3  # metres
_YAW_CHANGE = math.radians(15)


def compare_summaries(trained: Mapping, now: Mapping) -> list[str]:
    """Warnings where the rig a network runs on differs from the one it was trained on; empty when they agree.

    Args:
        trained, now: results of `Rig.summary`.
    Returns:
        one sentence each. Cameras are compared by name where the names agree, else with the trained camera that points
        most nearly the same way.
    """
    warnings = []
    if trained["count"] != now["count"]:
        warnings.append(f"trained with {trained['count']} cameras, running with {now['count']}")
    by_name = {camera["name"]: camera for camera in trained["cameras"]}
    for camera in now["cameras"]:
        other = by_name.get(camera["name"]) or min(
            trained["cameras"], key=lambda candidate: abs(_turn(candidate["yaw"], camera["yaw"]))
        )
        differences = _differences(other, camera)
        if differences:
            against = "" if other["name"] == camera["name"] else f" (compared with '{other['name']}')"
            warnings.append(f"camera '{camera['name']}'{against}: {', '.join(differences)}")
    return warnings


def summary_of_models(models: Mapping[str, CameraModel], trained: Mapping) -> dict:
    """A summary of cameras whose mounts are not known: they get those of the camera they are compared with."""
    cameras = []
    for name, model in models.items():
        field_of_view = sum(model.horizontal_extent)
        other = next((camera for camera in trained["cameras"] if camera["name"] == name), None)
        other = other or min(trained["cameras"], key=lambda camera: abs(camera["horizontal_fov"] - field_of_view))
        own = {"name": name, "width": model.width, "height": model.height, "horizontal_fov": field_of_view}
        cameras.append({**other, **own})
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
    if abs(now["mount_height"] - trained["mount_height"]) > _HEIGHT_CHANGE:
        differences.append(f"mounted at {now['mount_height']:.2f} m, trained {trained['mount_height']:.2f} m")
    if abs(_turn(trained["yaw"], now["yaw"])) > _YAW_CHANGE:
        differences.append(
            f"heading {math.degrees(now['yaw']):.0f} degrees, trained {math.degrees(trained['yaw']):.0f}"
        )
    return differences


def _turn(start: float, end: float) -> float:
    return math.remainder(end - start, 2 * math.pi)
