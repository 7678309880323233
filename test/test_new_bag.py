"""A new bag appears under its name when it is complete."""

import pytest

from training.recordings.new_bag import new_bag


def test_what_a_killed_process_left_of_a_bag_is_removed_and_two_do_not_write_one(tmp_path):
    (tmp_path / ".town.partial").mkdir()
    (tmp_path / ".town.partial" / "town.mcap").write_bytes(b"half")
    with new_bag(tmp_path / "town") as partial:
        assert not partial.exists()
        with pytest.raises(ValueError, match="another process is writing it"), new_bag(tmp_path / "town"):
            pass
        partial.mkdir()
        (partial / "metadata.yaml").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["town"]
