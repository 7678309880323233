"""The list of occupied voxels, found and packed: the same list, and what does not fit is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.inference.compaction import Record, found_voxels, occupied_and_surface, packed_voxels
from renderocc_model.inference.prepared_network import Prediction

SHAPE = (7, 5, 3)  # 105 voxels: the last byte of bits is not full
CHANNEL_IDS = torch.tensor([3, 5, 9, 11], dtype=torch.uint8)


def prediction(seed: int = 0) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(6, 4, generator=generator)
    density = torch.rand(SHAPE, generator=generator) * 4
    return Prediction(density, torch.randn(*SHAPE, 6, generator=generator), lambda voxels: voxels @ head)


def volumes(seed: int = 0) -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    made = prediction(seed)
    return made, 1 - torch.exp(-made.density * 0.4), torch.rand(SHAPE, generator=torch.Generator().manual_seed(9)) < 0.8


def pack(made, confidence, visible, threshold, record):
    return packed_voxels(made, confidence, visible, torch.tensor(threshold), CHANNEL_IDS, record).numpy()


@pytest.mark.parametrize("threshold, expected", [(0.45, "some"), (0.9999, "none"), (0.0, "all that are visible")])
def test_packed_and_found_voxels_are_the_same(threshold, expected):
    made, confidence, visible = volumes()
    found = found_voxels(made, confidence, visible, threshold, CHANNEL_IDS)
    record = Record(105, 105)
    packed = pack(made, confidence, visible, threshold, record)
    assert len(packed) == record.size == 16 + 10 * 105 + 14
    entries = record.entries(packed)
    assert record.count(packed) == len(found.index) and record.is_sound(packed)
    for name in ("index", "labels", "confidence", "surface"):
        assert np.array_equal(getattr(entries, name), getattr(found, name)), name
    count = {"some": range(10, 60), "none": [0], "all that are visible": [int(visible.sum())]}[expected]
    assert len(found.index) in count
    bits = np.unpackbits(record.visible_bits(packed), count=105, bitorder="little")
    assert np.array_equal(bits.reshape(SHAPE), visible.numpy())


def test_found_voxels_are_those_of_dense_arrays():
    made, confidence, visible = volumes()
    found = found_voxels(made, confidence, visible, 0.45, CHANNEL_IDS)
    occupied = (visible & (confidence > 0.45)).numpy()
    assert np.array_equal(found.index, np.flatnonzero(occupied))
    logits = made.head(made.voxels).numpy()
    assert np.array_equal(found.labels, CHANNEL_IDS.numpy()[logits.argmax(-1)][occupied])
    assert np.array_equal(found.confidence, confidence.numpy()[occupied])


def test_any_number_of_voxels_is_multiplied_in_few_sizes():
    # oneDNN compiles and keeps a multiplication for each size: hundreds of MiB while a vehicle drives.
    made = prediction()
    sizes = set()

    def head(voxels: torch.Tensor) -> torch.Tensor:
        sizes.add(len(voxels))
        return made.head(voxels)

    counted = Prediction(made.density, made.voxels, head)
    everything = made.head(made.voxels).reshape(-1, 4)
    for count in (0, 1, 2, 105, 255, 256, 257, 511, 600, 1000):
        rows = torch.arange(count) * 7 % 105
        assert torch.equal(counted.logits_at(rows), everything[rows]), count
    assert sizes == {256, 512, 1024}


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1), (2, 1, 5), (3, 3, 3)])
def test_the_surface_is_that_of_the_volume(shape):
    generator = np.random.default_rng(0)
    full = generator.uniform(size=shape) < 0.9
    grid = VoxelGrid((0.0, 0.0, 0.0), tuple(float(size) for size in shape), 1.0)
    semantics = np.where(full, 4, OCC3D_NUSCENES.free).astype(np.uint8)
    expected = Occupancy(grid, OCC3D_NUSCENES, semantics, np.ones(shape, np.float32), np.ones(shape, bool)).surface()
    occupied, surface = occupied_and_surface(torch.from_numpy(full).float(), torch.ones(shape, dtype=torch.bool), 0.5)
    assert np.array_equal(occupied.numpy(), full) and np.array_equal(surface.numpy(), expected)


def test_a_record_that_is_too_small_tells_how_many_there_are():
    made, confidence, visible = volumes()
    record = Record(105, 16)
    packed = pack(made, confidence, visible, 0.45, record)
    assert record.count(packed) == len(found_voxels(made, confidence, visible, 0.45, CHANNEL_IDS).index) > 16


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_densities_that_cannot_be_are_told(wrong):
    made, confidence, visible = volumes()
    made.density[2, 3, 1] = wrong
    record = Record(105, 105)
    assert not record.is_sound(pack(made, confidence, visible, 0.45, record))


def test_room_is_an_eighth_of_a_grid_and_never_tiny():
    assert Record.of_grid(200 * 200 * 16).capacity == 80_000
    assert Record.of_grid(64).capacity == 1024
