"""Which class table ids are of: notes decide, and nobody is believed who contradicts them."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_bag import Plan, write_bag

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.geometry.grid import VoxelGrid
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import Tables
from training.evaluate.int8.frames import FrameReader
from training.recordings.frames import Recording
from training.recordings.notes import (
    IMPORT_NOTE,
    LABELS_NOTE,
    TRUTH_NOTE,
    class_table,
    find_sidecar,
    noted_classes,
    recording_name,
    truth_class_table,
)


@pytest.fixture
def bag(tmp_path):
    """A recording that was imported as SemanticKITTI; only the notes matter here, there are no messages."""
    folder = tmp_path / "drive"
    folder.mkdir()
    (folder / IMPORT_NOTE).write_text(json.dumps({"dataset": "x", "classes": SEMANTIC_KITTI.to_dict()}))
    return folder


def with_note(folder: Path, classes) -> Path:
    folder.mkdir()
    (folder / LABELS_NOTE).write_text(yaml.safe_dump({"recording": "drive", "classes": classes.to_dict()}))
    return folder


def test_the_sidecars_note_counts_before_the_recordings(bag, tmp_path):
    assert noted_classes(bag) == class_table(None, bag) == SEMANTIC_KITTI
    assert noted_classes(bag / "drive.mcap") == SEMANTIC_KITTI  # a file in the folder of the note
    sidecar = with_note(tmp_path / "drive_labels", OCC3D_NUSCENES)
    assert class_table(None, bag, sidecar) == OCC3D_NUSCENES
    assert class_table("semantic_kitti", bag, tmp_path) == SEMANTIC_KITTI  # a sidecar without a note says nothing


def test_without_notes_the_wanted_table_counts_and_else_occ3d(tmp_path):
    assert class_table(None, tmp_path) == class_table("", tmp_path, tmp_path) == OCC3D_NUSCENES
    assert class_table("semantic_kitti", tmp_path) == SEMANTIC_KITTI


def test_asking_for_another_table_than_the_notes_is_refused(bag):
    with pytest.raises(ValueError, match="drive: its class table is unlabeled, car, .* not occ3d_nuscenes"):
        class_table("occ3d_nuscenes", bag)


@pytest.mark.parametrize("text", ["{", "{}", '{"classes": {"names": ["a"]}}', '{"classes": 3}'])
def test_a_damaged_note_is_named_with_what_to_do(bag, text):
    (bag / IMPORT_NOTE).write_text(text)
    with pytest.raises(ValueError, match="import.json: the class table cannot be read .*run `renderocc import` again"):
        noted_classes(bag)


def test_a_sidecar_is_found_beside_its_recording(tmp_path):
    assert recording_name(tmp_path / "drive") == recording_name(tmp_path / "drive.mcap") == "drive"
    assert find_sidecar(tmp_path / "drive") is None
    (tmp_path / "drive_labels").mkdir()
    assert find_sidecar(tmp_path / "drive") is None  # half of one is none
    (tmp_path / "drive_labels" / "metadata.yaml").touch()
    assert find_sidecar(tmp_path / "drive") == find_sidecar(tmp_path / "drive.mcap") == tmp_path / "drive_labels"


def test_prepared_tables_are_of_the_table_that_the_sidecar_notes(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=1, labels=lambda *_: None))
    sidecar = write_bag(tmp_path / "drive_labels", Plan(frames=1))  # its ids 4 and 11 are of both tables
    (sidecar / LABELS_NOTE).write_text(yaml.safe_dump({"classes": SEMANTIC_KITTI.to_dict()}))
    tables = Tables(prepare_recording(bag, None, tmp_path / "t", PrepareConfig()))
    assert tables.classes == SEMANTIC_KITTI and tables.class_counts[4] > 0
    with pytest.raises(ValueError, match="leave out --classes"):
        prepare_recording(bag, None, tmp_path / "other", PrepareConfig(classes="occ3d_nuscenes"))


def test_accumulated_truth_is_of_the_table_beside_it_and_not_taken_for_another(tmp_path):
    drive = write_bag(tmp_path / "drive", Plan(frames=2))
    volumes = drive / "occupancy"
    volumes.mkdir()
    np.savez(volumes / "5.npz", semantics=np.zeros((2, 2, 2), np.uint8))
    grid = VoxelGrid((0, 0, 0), (2, 2, 2), 1.0)
    with Recording(drive, None) as recording:
        assert truth_class_table(drive) == OCC3D_NUSCENES
        assert FrameReader(recording, (8, 8), grid, OCC3D_NUSCENES).has_truth
        (volumes / TRUTH_NOTE).write_text(json.dumps({"classes": GROUND_OBSTACLE.to_dict()}))
        assert truth_class_table(drive) == GROUND_OBSTACLE
        reader = FrameReader(recording, (8, 8), grid, OCC3D_NUSCENES)
        assert not reader.has_truth and "has the classes ground, obstacle" in reader.note
        assert FrameReader(recording, (8, 8), grid, GROUND_OBSTACLE).has_truth
    (volumes / TRUTH_NOTE).write_text("{}")
    with pytest.raises(ValueError, match=r"truth\.json: the class table cannot be read"):
        truth_class_table(drive)
