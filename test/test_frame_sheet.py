"""The sheets of a training run: labels where they were labelled, the rendered field where it is."""

import numpy as np
import pytest
import torch
from small_models import small_config
from tiny_bag import RIG, Plan, write_bag

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.field import SemanticDensityField
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording
from training.train.frame_sheet import draw_frame, occupancy_of

CONFIG = small_config()  # views of 64 x 96, 16 x 16 x 4 voxels of 1 m
TITLES, COLUMN = 22, 352
ROW = round(64 * COLUMN / 96)  # 235 pixels
CAR = 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")

    def labels(frame, camera):  # cars in the left half of each image, at 5 m
        semantic, depth = np.full((48, 64), 255, np.uint8), np.zeros((48, 64))
        semantic[:, :32], depth[:, :32] = CAR, 5.0
        return semantic, depth

    prepare_recording(write_bag(folder / "drive", Plan(frames=1, labels=labels)), None, folder / "t", PrepareConfig())
    config = SampleConfig(height=64, width=96, rays=100_000, auxiliary_offsets=())
    return RayDataset(folder / "t", config).sample(0, 0)


def field(wall: bool) -> SemanticDensityField:
    """Nothing, or a wall of cars across the whole grid 4 to 5 m ahead."""
    density, semantics = torch.zeros(CONFIG.grid.shape), torch.zeros(*CONFIG.grid.shape, 17)
    semantics[..., OCC3D_NUSCENES.occupied_ids.index(CAR)] = 1.0
    if wall:
        density[12] = 50.0
    return SemanticDensityField(CONFIG.grid, density, semantics)


def tile(sheet: np.ndarray, camera: int, column: int) -> np.ndarray:
    top = TITLES + camera * ROW
    return sheet[top : top + ROW, column * COLUMN : (column + 1) * COLUMN]


def test_a_sheet_has_a_row_for_each_camera_and_the_volume_beside_them(sample):
    sheet = draw_frame(field(True), sample, OCC3D_NUSCENES)
    height = TITLES + len(RIG) * ROW
    assert sheet.shape == (height, 5 * COLUMN + height, 3) and sheet.dtype == np.uint8  # the grid is square
    car = OCC3D_NUSCENES.palette()[CAR]
    labelled = (tile(sheet, 0, 1) == car).all(axis=2)
    assert labelled[:, :150].mean() > 0.4 and labelled[:, 220:].mean() == 0
    rendered = (tile(sheet, 0, 2) == car).all(axis=2)
    assert rendered[ROW // 2].mean() > 0.9  # at the horizon the wall fills the view
    assert np.ptp(tile(sheet, 0, 4)[ROW // 2, COLUMN // 2].astype(int)) > 0  # a colour, so a distance


def test_nothing_is_drawn_of_an_empty_field_and_of_absent_cameras(sample):
    sheet = draw_frame(field(False), sample, OCC3D_NUSCENES)
    assert (tile(sheet, 0, 2) == (40, 44, 52)).all() and (tile(sheet, 1, 4) == (40, 44, 52)).all()
    sample.current.present[1] = False
    try:
        assert draw_frame(field(False), sample, OCC3D_NUSCENES).shape[0] == TITLES + ROW
    finally:
        sample.current.present[1] = True


def test_the_volume_is_what_the_node_would_publish(sample):
    """The front camera stands at x = 1 m: what it sees behind the wall at 4 to 5 m is unknown, not free."""
    occupancy = occupancy_of(field(True), sample, OCC3D_NUSCENES, 0.5)
    assert occupancy.semantics[12, 8, 2] == CAR and occupancy.semantics[10, 8, 2] == OCC3D_NUSCENES.free
    assert occupancy.semantics[14, 8, 2] == 255
    assert not occupancy_of(field(False), sample, OCC3D_NUSCENES, 0.5).occupied.any()
