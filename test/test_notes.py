"""Which class table ids are of: notes decide, and nobody is believed who contradicts them."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_bag import HEIGHT, START_NS, WIDTH, Plan, write_bag

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.field.truth import TRUTH_NOTE
from renderocc_model.geometry.grid import VoxelGrid
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import Tables
from training.evaluate.int8.frames import FrameReader
from training.evaluate.metrics import main as metrics
from training.recordings.frames import Recording
from training.recordings.notes import (
    IMPORT_NOTE,
    LABELS_NOTE,
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


def with_truth(folder: Path, labels=OCC3D_NUSCENES, truth=None, ids=(0, 1, 2, 255)) -> Path:
    """A recording whose label bag names one table, with a volume beside it whose note names another."""

    def ground(frame, camera):
        return np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), 5.0)

    bag = write_bag(folder, Plan(frames=2, labels=lambda *_: None))
    sidecar = write_bag(folder.with_name(f"{folder.name}_labels"), Plan(frames=2, labels=ground))
    (sidecar / LABELS_NOTE).write_text(yaml.safe_dump({"classes": labels.to_dict()}))
    (bag / "occupancy").mkdir()
    semantics = np.array(ids, np.uint8).reshape(-1, 1, 1)
    np.savez(bag / "occupancy" / f"{START_NS}.npz", semantics=semantics, mask_camera=np.ones_like(semantics))
    if truth is not None:
        (bag / "occupancy" / TRUTH_NOTE).write_text(json.dumps({"classes": truth.to_dict()}))
    return bag


def test_truth_is_converted_from_the_table_that_its_note_names(tmp_path, capsys):
    # car 4, driveable_surface 11, free 17 of Occ3D become obstacle 1, ground 0, free 2
    bag = with_truth(tmp_path / "drive", GROUND_OBSTACLE, OCC3D_NUSCENES, (4, 11, 17, 255))
    assert check([str(bag)]) == 0, capsys.readouterr().out
    tables = Tables(prepare_recording(bag, None, tmp_path / "tables", PrepareConfig()))
    assert tables.classes == GROUND_OBSTACLE
    assert tables.truth_arrays(0)["semantics"].ravel().tolist() == [1, 0, 2, 255]


def test_the_note_in_a_folder_of_truth_counts_for_that_folder_alone(tmp_path):
    bag = with_truth(tmp_path / "drive", GROUND_OBSTACLE, None, (1, 0, 2, 255))
    other = with_truth(tmp_path / "made" / "drive", GROUND_OBSTACLE, OCC3D_NUSCENES, (4, 11, 17, 255))
    (tmp_path / "truth").mkdir()
    (other / "occupancy").rename(tmp_path / "truth" / "drive")
    for name, config in (("beside", PrepareConfig()), ("own", PrepareConfig(truth=str(tmp_path / "truth")))):
        tables = Tables(prepare_recording(bag, None, tmp_path / name, config))
        assert tables.truth_arrays(0)["semantics"].ravel().tolist() == [1, 0, 2, 255]


def test_an_option_that_contradicts_the_truths_note_is_refused_and_both_are_named(tmp_path, capsys):
    bag = with_truth(tmp_path / "drive", GROUND_OBSTACLE, GROUND_OBSTACLE)
    said = r"occupancy/truth\.json: the 3D truth has the classes ground, .* --truth-classes says occ3d_nuscenes"
    with pytest.raises(ValueError, match=said):
        prepare_recording(bag, None, tmp_path / "tables", PrepareConfig(truth_classes="occ3d_nuscenes"))
    assert check([str(bag), "--truth-classes", "occ3d_nuscenes"]) == 1
    assert "--truth-classes says occ3d_nuscenes; leave out --truth-classes" in capsys.readouterr().out
    assert check([str(bag), "--truth-classes", "ground_obstacle"]) == 0


def test_truth_of_ground_and_obstacle_cannot_become_that_of_more_classes(tmp_path, capsys):
    bag = with_truth(tmp_path / "drive", OCC3D_NUSCENES, GROUND_OBSTACLE)
    with pytest.raises(ValueError, match="3D truth has the classes ground, .* and the labels others, barrier"):
        prepare_recording(bag, None, tmp_path / "tables", PrepareConfig())
    assert check([str(bag)]) == 1


def test_an_imported_recordings_truth_has_the_table_of_the_import(tmp_path):
    bag = with_truth(tmp_path / "drive", GROUND_OBSTACLE, None, (1, 9, 0, 255))  # car, road, empty of SemanticKITTI
    (bag / IMPORT_NOTE).write_text(json.dumps({"classes": SEMANTIC_KITTI.to_dict()}))
    tables = Tables(prepare_recording(bag, None, tmp_path / "tables", PrepareConfig()))
    assert tables.truth_arrays(0)["semantics"].ravel().tolist() == [1, 0, 2, 255]
    (bag / "occupancy" / f"{START_NS}.npz").unlink()  # without truth its table is of no interest
    assert len(Tables(prepare_recording(bag, None, tmp_path / "none", PrepareConfig())).stamps) == 2


def test_metrics_takes_the_truths_table_from_its_note(tmp_path, capsys):
    semantics = np.array([4, 11, 17, 17], np.uint8).reshape(-1, 1, 1)
    for name, ids in (("predicted", [1, 0, 2, 2]), ("truth", [4, 11, 17, 17])):
        (tmp_path / name / "drive").mkdir(parents=True)
        volume = np.array(ids, np.uint8).reshape(-1, 1, 1)
        np.savez(tmp_path / name / "drive" / "5.npz", semantics=volume, mask_camera=np.ones_like(semantics))
    (tmp_path / "truth" / "drive" / TRUTH_NOTE).write_text(json.dumps({"classes": OCC3D_NUSCENES.to_dict()}))
    folders = [str(tmp_path / "predicted"), str(tmp_path / "truth")]
    words = [*folders, "--classes", "ground_obstacle"]
    assert metrics([*words, "--json", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["miou"] == 1
    assert metrics([*words, "--truth-classes", "semantic_kitti"]) == 2
    said = capsys.readouterr().err
    assert "--truth-classes says unlabeled, car" in said and "truth.json says others, barrier" in said
    (tmp_path / "truth" / "drive" / TRUTH_NOTE).write_text(json.dumps({"classes": GROUND_OBSTACLE.to_dict()}))
    assert metrics(folders) == 2  # volumes of Occ3D, as nothing says otherwise
    assert "ids of ground, obstacle, free, ... cannot be converted to others, barrier" in capsys.readouterr().err
