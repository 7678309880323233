"""The files of 3D truth beside a recording: what names a moment, and what `prepare` refuses before training does."""

import numpy as np
import pytest
from tiny_bag import FRAME_NS, START_NS, Plan, write_bag

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.truth import check_truth_file, truth_files
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import Tables
from training.recordings.sources import RecordingError

VOLUME = np.full((4, 4, 2), 17, np.uint8)


def volume(path, semantics=VOLUME, **arrays):
    path.parent.mkdir(exist_ok=True)
    masks = {"mask_camera": np.ones_like(semantics), "mask_lidar": np.ones_like(semantics)}
    np.savez(path, semantics=semantics, **{**masks, **arrays})


def test_only_stamps_in_nanoseconds_name_truth(tmp_path):
    for name in ("17", "5", "007", "9" * 40, "²³", "-4", "a", str(2**63), str(2**63 - 1)):
        volume(tmp_path / "occupancy" / f"{name}.npz")
    assert {stamp: file.stem for stamp, file in truth_files(tmp_path).items()} == {
        5: "5",
        17: "17",
        2**63 - 1: str(2**63 - 1),
    }
    assert list(truth_files(tmp_path / "drive.mcap")) == [5, 17, 2**63 - 1]  # beside a recording that is one file


def test_ids_beyond_the_class_table_are_named(tmp_path):
    volume(tmp_path / "1.npz", np.array([[[40, 41]]], np.uint8))
    with pytest.raises(ValueError, match="class ids 40, 41 are not in the table of 18 classes"):
        check_truth_file(tmp_path / "1.npz", OCC3D_NUSCENES)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda file: file.write_bytes(b"abc"), "cannot be read"),
        (lambda file: volume(file, np.full((4, 4, 2), 40, np.uint8)), "class ids 40"),
        (lambda file: volume(file, np.full((4, 4, 3), 17, np.uint8)), r"has the shape \(4, 4, 3\), .* \(4, 4, 2\)"),
    ],
    ids=["damaged", "ids", "shape"],
)
def test_truth_that_training_cannot_read_is_refused_by_prepare_and_check(tmp_path, capsys, spoil, said):
    bag = write_bag(tmp_path / "drive", Plan(frames=2))
    files = [bag / "occupancy" / f"{START_NS + frame * FRAME_NS}.npz" for frame in range(2)]
    for file in files:
        volume(file)
    spoil(files[1])
    assert check([str(bag)]) == 1
    with pytest.raises(RecordingError, match=f"{files[1].name}: .*{said}"):
        prepare_recording(bag, None, tmp_path / "tables", PrepareConfig())


def test_truth_of_no_image_gives_no_frame_and_is_named(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=2))
    volume(bag / "occupancy" / f"{START_NS + 10**12}.npz")
    with pytest.raises(RecordingError, match="no camera has an image within 0.1 s of any of the 1 moments"):
        prepare_recording(bag, None, tmp_path / "tables", PrepareConfig())


def test_a_name_that_is_no_stamp_is_a_warning(tmp_path, capsys):
    bag = write_bag(tmp_path / "drive", Plan(frames=1))
    volume(bag / "occupancy" / f"{'9' * 40}.npz")
    assert check([str(bag)]) == 0
    assert "its name is not a stamp in nanoseconds" in capsys.readouterr().out


def test_truth_in_a_folder_of_its_own_is_taken_instead_of_that_beside_the_recording(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=3))
    volume(bag / "occupancy" / f"{START_NS}.npz")
    other = np.full((4, 4, 2), 11, np.uint8)
    (tmp_path / "truth").mkdir()
    for frame in (1, 2):
        volume(tmp_path / "truth" / "drive" / f"{START_NS + frame * FRAME_NS}.npz", other)
    folder = prepare_recording(bag, None, tmp_path / "tables", PrepareConfig(truth=str(tmp_path / "truth")))
    tables = Tables(folder)
    assert tables.stamps.tolist() == [START_NS + FRAME_NS, START_NS + 2 * FRAME_NS]
    assert (tables.truth_arrays(0)["semantics"] == other).all()
    beside = prepare_recording(bag, None, tmp_path / "other", PrepareConfig(truth=str(tmp_path / "elsewhere")))
    assert Tables(beside).stamps.tolist() == [START_NS]


def test_tables_made_before_there_was_a_folder_of_truth_are_still_complete(tmp_path):
    assert "truth" not in PrepareConfig().identity() and PrepareConfig(truth="a").identity()["truth"] == "a"
