"""Occupancy volumes: occupied, surface, and the files they are saved as."""

from __future__ import annotations

import os

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid

GRID = VoxelGrid((-1.0, 2.0, 0.0), (1.0, 4.5, 1.5), 0.5)  # 4 x 5 x 3
FREE, CAR, ROAD = OCC3D_NUSCENES.free, 4, 11


def volume(semantics: np.ndarray | None = None, classes=OCC3D_NUSCENES) -> Occupancy:
    """Free everywhere but where `semantics` says otherwise."""
    if semantics is None:
        semantics = np.full(GRID.shape, classes.free, np.uint8)
    confidence = np.linspace(0, 1, GRID.size, dtype=np.float32).reshape(GRID.shape)
    return Occupancy(GRID, classes, semantics, confidence, semantics != UNLABELLED)


def mixed() -> np.ndarray:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[:, :, 0], semantics[2, 3, 1], semantics[3] = ROAD, CAR, UNLABELLED
    return semantics


def read_ply(path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Comments and columns of a PLY file, read with nothing but this parser."""
    data = path.read_bytes()
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    kinds = {"float": "<f4", "uchar": "u1"}
    dtype = np.dtype([(line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith("property")])
    assert len(body) == count * dtype.itemsize
    vertices = np.frombuffer(body, dtype)
    return [line[8:] for line in lines if line.startswith("comment ")], {name: vertices[name] for name in dtype.names}


def test_occupied_is_neither_free_nor_unknown_in_any_class_table():
    occupied = volume(mixed()).occupied
    assert occupied.sum() == 3 * 5 + 1  # the road of three rows of columns, and the car
    assert not occupied[3].any() and volume(mixed()).unknown.sum() == 15
    kitti = np.zeros(GRID.shape, np.uint8)  # there, free is 0
    kitti[0, 0, 0], kitti[1, 1, 1] = 1, UNLABELLED
    assert np.argwhere(volume(kitti, SEMANTIC_KITTI).occupied).tolist() == [[0, 0, 0]]


def test_surface_leaves_out_only_voxels_with_all_six_neighbours_occupied():
    # A solid block of the whole grid: only voxels with index 1..X-2, 1..Y-2, 1 are covered on all sides: 2 * 3 * 1.
    surface = volume(np.full(GRID.shape, CAR, np.uint8)).surface()
    assert np.argwhere(~surface).tolist() == [[x, y, 1] for x in (1, 2) for y in (1, 2, 3)]


def test_surface_agrees_with_looking_at_each_neighbour():
    generator = np.random.default_rng(0)
    semantics = generator.choice(np.array([FREE, CAR, ROAD, UNLABELLED], np.uint8), GRID.shape, p=[0.1, 0.5, 0.3, 0.1])
    occupancy = volume(semantics)
    padded = np.pad(occupancy.occupied, 1)
    for x, y, z in np.ndindex(GRID.shape):
        neighbours = [
            padded[x + 1 + dx, y + 1 + dy, z + 1 + dz]
            for dx, dy, dz in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
        ]
        assert occupancy.surface()[x, y, z] == (occupancy.occupied[x, y, z] and not all(neighbours))


def test_surface_points_are_voxel_centres_in_the_grids_frame():
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[2, 3, 1] = CAR  # centre: -1 + 2.5 * 0.5, 2 + 3.5 * 0.5, 1.5 * 0.5
    occupancy = volume(semantics)
    centres, labels, confidence = occupancy.surface_points()
    assert centres.tolist() == [[0.25, 3.75, 0.75]] and labels.tolist() == [CAR]
    assert confidence[0] == occupancy.confidence[2, 3, 1]


def test_npz_reads_back_as_an_occ3d_label_file_and_more(tmp_path):
    occupancy = volume(mixed())
    occupancy.save_npz(tmp_path / "labels.npz")
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as file:
        assert file["semantics"].dtype == np.uint8 and np.array_equal(file["semantics"], occupancy.semantics)
        assert np.array_equal(file["confidence"], occupancy.confidence)
        assert np.array_equal(file["visible"], occupancy.visible)
        assert file["grid"].tolist() == [-1.0, 2.0, 0.0, 1.0, 4.5, 1.5, 0.5]
        assert str(file["frame"]) == "base_link" and file["class_names"][CAR] == "car"


def test_ply_reads_back_as_the_surface(tmp_path):
    occupancy = volume(mixed())
    occupancy.save_ply(tmp_path / "cloud.ply")
    comments, columns = read_ply(tmp_path / "cloud.ply")
    centres, labels, confidence = occupancy.surface_points()
    assert np.array_equal(np.stack([columns[axis] for axis in "xyz"], 1), centres)
    assert np.array_equal(columns["label"], labels) and np.array_equal(columns["confidence"], confidence)
    car = columns["label"] == CAR
    assert [int(columns[name][car][0]) for name in ("red", "green", "blue")] == [0, 150, 245]
    assert "class 4 car" in comments and "frame base_link" in comments


def test_empty_volume_is_an_empty_cloud(tmp_path):
    volume().save_ply(tmp_path / "cloud.ply")
    assert len(read_ply(tmp_path / "cloud.ply")[1]["x"]) == 0


@pytest.mark.parametrize("save", ["save_npz", "save_ply"])
def test_saving_replaces_a_file_whole_or_not_at_all(tmp_path, save, monkeypatch):
    path = tmp_path / "volume"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            getattr(volume(mixed()), save)(path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    getattr(volume(mixed()), save)(path)
    assert path.stat().st_size > 100 and list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_arrays_of_another_shape_or_type_are_named():
    good = volume()
    with pytest.raises(ValueError, match=r"semantics is int64 of shape \(4, 5, 3\)"):
        Occupancy(GRID, OCC3D_NUSCENES, good.semantics.astype(np.int64), good.confidence, good.visible)
    with pytest.raises(ValueError, match=r"visible is bool of shape \(5, 4, 3\)"):
        Occupancy(GRID, OCC3D_NUSCENES, good.semantics, good.confidence, good.visible.transpose(1, 0, 2))
