"""The table of all targets, by the module that has them: a target imports only what it needs."""

from __future__ import annotations

import importlib

from .target import Target

__all__ = ["GROUPS", "NAMES", "find"]

GROUPS: dict[str, tuple[str, ...]] = {
    "messages": (
        "cdr_header",
        "cdr_image",
        "cdr_compressed_image",
        "cdr_camera_info",
        "cdr_point_cloud",
        "cdr_livox",
        "cdr_video",
        "video_packet",
        "video",
        "tf",
        "camera_model",
        "pictures",
        "label_png",
        "label_raw",
    ),
    "files": (
        "yaml",
        "rig",
        "model_settings",
        "class_mapping",
        "checkpoint_header",
        "checkpoint",
        "exported_onnx",
        "exported_pt2",
        "volume",
        "saved_volume",
        "ray_origins",
    ),
    "recordings": (
        "bag_mcap",
        "bag_sqlite",
        "bag_packed",
        "note",
        "tables",
        "journal",
        "devkit_table",
        "nuscenes",
        "kitti",
        "occ3d_truth",
    ),
}
NAMES = tuple(name for names in GROUPS.values() for name in names)


def find(name: str) -> Target:
    """A target by name; KeyError where there is none."""
    group = next((group for group, names in GROUPS.items() if name in names), None)
    if group is None:
        raise KeyError(name)
    return importlib.import_module(f"fuzz.{group}").TARGETS[name]
