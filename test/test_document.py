"""Sections that commands write into documents: between their marks, and nowhere else."""

from __future__ import annotations

import pytest

from renderocc_model.base.document import write_section


def test_a_section_is_written_anew_and_nothing_else(tmp_path):
    path = tmp_path / "reliability.md"
    path.write_text("# A\n\n<!-- faults -->\nold\n<!-- /faults -->\n\nrest\n")
    write_section(path, "faults", "new\n", "## Never")
    assert path.read_text() == "# A\n\n<!-- faults -->\n\nnew\n\n<!-- /faults -->\n\nrest\n"


def test_prose_around_sections_is_kept(tmp_path):
    path = tmp_path / "folder" / "study.md"
    write_section(path, "study one", "first table", "# Study", note="by a command")
    assert path.read_text() == ("# Study\n\n<!-- study one: by a command -->\n\nfirst table\n\n<!-- /study one -->\n")
    path.write_text(path.read_text().replace("# Study", "# Ours\n\nBefore.") + "\nAfter.\n")
    write_section(path, "study two", "other table", "## Two")
    write_section(path, "study one", r"new \1 table", "# Study", note="by a command")
    text = path.read_text()
    assert "first table" not in text and "# Study" not in text
    order = [text.index(part) for part in ("Before.", r"new \1 table", "After.", "## Two", "other table")]
    assert order == sorted(order)


@pytest.mark.parametrize("damage", [("<!-- /load -->", ""), ("<!-- load -->", ""), ("\n", "\n<!-- load -->\n")])
def test_damaged_marks_are_refused_and_nothing_is_written(tmp_path, damage):
    path = tmp_path / "reliability.md"
    write_section(path, "load", "mine", "## Load")
    damaged = path.read_text().replace(*damage)
    path.write_text(damaged)
    with pytest.raises(ValueError, match="once each"):
        write_section(path, "load", "third")
    assert path.read_text() == damaged
