"""Sum per-pixel features, weighted by the depth distribution, into the cells their frustum points fall in."""

from renderocc_model.ops.voxel_pooling.reference import voxel_pooling

__all__ = ["voxel_pooling"]
