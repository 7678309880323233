"""3D truth cropped to the model's grid: by coordinates, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.network.presets import preset
from training.supervision.supervise import channel_table
from training.supervision.voxel_truth import crop_slices, voxel_targets

CHANNELS = channel_table(OCC3D_NUSCENES)


def test_the_tiny_grid_is_the_middle_of_occ3ds():
    # 40 m of 80 m, 0.4 m voxels: 100 of 200, from the 50th on; the heights are the same
    assert crop_slices(OCC3D_GRID, preset("tiny").grid) == (slice(50, 150), slice(50, 150), slice(0, 16))


def test_a_grid_is_all_of_itself():
    assert crop_slices(OCC3D_GRID, OCC3D_GRID) == (slice(0, 200), slice(0, 200), slice(0, 16))


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        (VoxelGrid((-20.0, -20.0, -1.0), (20.0, 20.0, 5.4), 0.2), "voxels of 0.4 m and the model of 0.2 m"),
        (VoxelGrid((-20.1, -20.0, -1.0), (19.9, 20.0, 5.4), 0.4), "begins 49.750 voxels from the truth's in x"),
        (VoxelGrid((-20.0, -20.0, -1.0), (20.0, 44.0, 5.4), 0.4), "from -20.0 to 44.0 m in y"),
        (VoxelGrid((-20.0, -20.0, -1.4), (20.0, 20.0, 5.4), 0.4), "from -1.4 to 5.4 m in z"),
        (VoxelGrid((-20.0, -20.0, -1.0), (20.0, 20.0, 5.4), 0.4, frame="velodyne"), "frame 'base_link'"),
    ],
)
def test_grids_that_do_not_fit_are_refused(grid, complaint):
    with pytest.raises(ValueError, match=complaint):
        crop_slices(OCC3D_GRID, grid)


def test_targets_are_those_of_the_voxels_at_the_same_place():
    rng = np.random.default_rng(0)
    part = VoxelGrid((-4.0, -8.0, -0.2), (8.0, 0.0, 3.0), 0.4)
    semantics = rng.choice([0, 5, 16, 17, 255], OCC3D_GRID.shape).astype(np.uint8)
    mask = rng.integers(0, 2, OCC3D_GRID.shape).astype(np.uint8)
    truth = {"semantics": torch.from_numpy(semantics), "mask_camera": torch.from_numpy(mask)}
    channels, occupied, counted = voxel_targets(truth, OCC3D_GRID, part, CHANNELS, OCC3D_NUSCENES)
    assert channels.shape == occupied.shape == counted.shape == part.shape
    for voxel in zip(*(rng.integers(0, size, 300) for size in part.shape)):
        centre = part.centres()[voxel][None]
        place = tuple(OCC3D_GRID.index_of(centre)[0][0])
        name = int(semantics[place])
        assert counted[voxel].item() == (mask[place] == 1 and name != 255)
        if name != 255:
            assert occupied[voxel].item() == (name != 17)
            assert channels[voxel].item() == (-1 if name == 17 else name)


def test_without_a_mask_every_known_voxel_counts():
    grid = VoxelGrid((0.0, 0.0, 0.0), (3.0, 1.0, 1.0), 1.0)
    truth = {"semantics": torch.tensor([17, 255, 4], dtype=torch.uint8).view(3, 1, 1)}
    channels, _, counted = voxel_targets(truth, grid, grid, CHANNELS, OCC3D_NUSCENES)
    assert counted.flatten().tolist() == [True, False, True] and channels.flatten().tolist() == [-1, -1, 4]


def test_truth_of_another_shape_is_refused():
    truth = {"semantics": torch.zeros(100, 100, 16, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"\(100, 100, 16\) but truth_grid has \(200, 200, 16\)"):
        voxel_targets(truth, OCC3D_GRID, OCC3D_GRID, CHANNELS, OCC3D_NUSCENES)
