"""~/save's files: both are there or neither is."""

import pytest

from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.output.saving import SaveFolder
from renderocc_ros.parameters import NodeConfig


class Volume:
    """Writes its text, and fails at a file of one kind once it has begun to."""

    def __init__(self, text: str, failing: str = "", error: BaseException | None = None) -> None:
        self.text, self.failing, self.error = text, failing, error

    def save_npz(self, path) -> None:
        if path.suffix == self.failing:
            raise self.error
        path.write_text(self.text)

    save_ply = save_npz


def save(folder, volume: Volume):
    frame = Frame(7, "front", 0.0, occupancy=volume)
    return SaveFolder(str(folder)).save(frame, NodeConfig(save_directory=str(folder)))


@pytest.mark.parametrize("failing", [".npz", ".ply"])
@pytest.mark.parametrize("error", [OSError("no space left"), MemoryError()])
def test_where_one_file_cannot_be_written_neither_is_left(tmp_path, failing, error):
    with pytest.raises(type(error)):
        save(tmp_path, Volume("new", failing, error))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_takes_nothing_away_that_an_earlier_one_of_the_frame_wrote(tmp_path):
    assert save(tmp_path, Volume("old")) == [tmp_path / "7.npz", tmp_path / "7.ply"]
    with pytest.raises(OSError):
        save(tmp_path, Volume("new", ".ply", OSError("no space left")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7.npz", "7.ply"]
    assert (tmp_path / "7.ply").read_text() == "old"


def test_the_map_lies_beside_the_volume_and_if_it_cannot_be_written_neither_is_left(tmp_path):
    folder = SaveFolder(str(tmp_path))
    config, frame = NodeConfig(save_directory=str(tmp_path)), Frame(7, "front", 0.0, occupancy=Volume("volume"))
    names = ["7.npz", "7.ply", "7_map.npz", "7_map.ply"]
    with pytest.raises(OSError):
        folder.save(frame, config, Volume("map", ".ply", OSError("no space left")))
    assert list(tmp_path.iterdir()) == []
    assert folder.save(frame, config, Volume("map")) == [tmp_path / name for name in names]
    assert [(tmp_path / name).read_text() for name in names] == ["volume", "volume", "map", "map"]
