"""Semantic 3D occupancy from cameras: the network, the field it predicts, the renderer, recordings; no ROS needed.

Names are imported from their modules when they are first used, so that `import renderocc_model` is light and what needs
no network needs no PyTorch.
"""

from __future__ import annotations

import importlib

_HOME = {
    "geometry.grid": ("OCC3D_GRID", "SEMANTIC_KITTI_GRID", "VoxelGrid"),
    "field.classes": ("OCC3D_NUSCENES", "SEMANTIC_KITTI", "UNLABELLED", "ClassTable"),
    "geometry.rig": ("Camera", "CameraModel", "Rig"),
    "geometry.undistortion": ("UndistortTable", "View", "network_view"),
    "base.config": ("apply_overrides", "from_mapping", "load_config", "load_yaml", "to_mapping"),
    "network.config": ("ModelConfig",),
    "network.presets": ("PRESETS", "load_model_config", "preset"),
    "network.lift": ("Frustums", "LiftGeometry"),
    "network.fusion": ("Volume",),
    "network.network": ("NetworkOutput", "OccupancyNetwork", "build_network"),
    "network.checkpoint": ("Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"),
    "field.field": ("SemanticDensityField",),
    "geometry.rays": ("Rays", "camera_rays"),
    "ops.render": ("RenderResult", "render"),
    "ops.voxel_pooling": ("voxel_pooling",),
    "ops.visibility": ("visible_voxels",),
    "inference.predictor": ("Occupancy", "Predictor"),
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
