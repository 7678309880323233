"""Semantic 3D occupancy from cameras: the network, the field it predicts, the renderer; no ROS, no bags.

Names are imported from their modules when they are first used, so that `import renderocc_model` is light and what needs
no network needs no PyTorch.
"""

from __future__ import annotations

import importlib

_HOME = {
    "grid": ("OCC3D_GRID", "SEMANTIC_KITTI_GRID", "VoxelGrid"),
    "classes": ("OCC3D_NUSCENES", "SEMANTIC_KITTI", "UNLABELLED", "ClassTable"),
    "rig": ("Camera", "CameraModel", "Rig"),
    "undistort": ("UndistortTable", "View", "network_view"),
    "config": ("apply_overrides", "from_mapping", "load_config", "load_yaml", "to_mapping"),
    "model_config": ("ModelConfig",),
    "presets": ("PRESETS", "load_model_config", "preset"),
    "lift": ("Frustums", "LiftGeometry"),
    "fusion": ("Volume",),
    "network": ("NetworkOutput", "OccupancyNetwork", "build_network"),
    "checkpoint": ("Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"),
    "field": ("SemanticDensityField",),
    "rays": ("Rays", "camera_rays"),
    "ops.render": ("RenderResult", "render"),
    "ops.voxel_pooling": ("voxel_pooling",),
    "visibility": ("visible_voxels",),
    "predictor": ("Occupancy", "Predictor"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
