"""Recordings whose files say one thing and hold another."""

import pytest
from tiny_bag import Plan, write_bag

from renderocc_model.rosio.bags import Bag, BagError
from training.check import main as check
from training.label import main as label


def without_message_index(bag):
    """Set the offsets of message indexes in the chunk indexes to none, as writers do that write no message index."""
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    footer = len(data) - 8 - 20
    place = int.from_bytes(data[footer : footer + 8], "little")  # of the summary
    while place < footer - 9:
        kind, length = data[place], int.from_bytes(data[place + 1 : place + 9], "little")
        if kind == 0x08:  # chunk index: 4 numbers of 8 bytes, then a map with its length in bytes
            at = place + 9 + 32
            size = int.from_bytes(data[at : at + 4], "little")
            for entry in range(at + 4, at + 4 + size, 10):
                data[entry : entry + 2] = (60_000).to_bytes(2, "little")  # a channel that is none
        place += 9 + length
    file.write_bytes(data)
    return bag


@pytest.fixture
def unindexed(tmp_path):
    return without_message_index(write_bag(tmp_path / "drive", Plan(frames=2)))


def test_messages_that_the_index_does_not_list_are_an_error(unindexed):
    with Bag(unindexed) as bag:
        assert bag.topics["/tf"].count > 0
        with pytest.raises(BagError, match=r"drive_?\d*\.mcap: .*counts messages on .*/tf.*mcap recover"):
            list(bag.messages())
        assert list(bag.messages(["/tf"], bag.start_ns, bag.start_ns + 1)) == []  # a part may hold none


def test_commands_refuse_such_a_recording_with_a_sentence(unindexed, capsys):
    assert check([str(unindexed)]) == 2
    assert label([str(unindexed)]) == 2
    said = capsys.readouterr()
    assert "mcap recover" in said.out and "mcap recover" in said.err


def test_several_files_without_metadata_are_said_to_be_parts(tmp_path):
    bag = write_bag(tmp_path / "drive", Plan(frames=2))
    (bag / "metadata.yaml").unlink()
    with pytest.raises(BagError, match=r"or name \S+\.mcap itself$"):
        Bag(bag)
    (bag / "drive_1.mcap").write_bytes(b"")
    with pytest.raises(BagError, match="name one of its 2 files, which is only a part of the recording"):
        Bag(bag)
