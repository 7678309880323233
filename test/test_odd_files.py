"""Recordings that are cut, empty, foreign, mixed or lying: every command ends with a sentence, never in a traceback."""

import shutil
import sqlite3

import numpy as np
import pytest
from test_bags import without_message_index
from tiny_bag import Plan, write_bag

from renderocc_ros.commands.doctor import main as doctor
from training.check import main as check
from training.data.prepare import main as prepare
from training.label import main as label
from training.train import main as train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("odd") / "drive", Plan(frames=2))


def storage(bag):
    return next(bag.glob("*.mcap"))


def cut_to(share):
    def change(bag):
        file = storage(bag)
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])

    return change


def flipped(seed):
    """200 bytes of the file are others; its length stays."""

    def change(bag):
        file = storage(bag)
        data = bytearray(file.read_bytes())
        rng = np.random.default_rng(seed)
        for place in rng.integers(0, len(data), 200):
            data[place] = rng.integers(256)
        file.write_bytes(data)

    return change


def other_database(bag):
    file = storage(bag)
    name = file.with_suffix(".db3")
    file.unlink()
    with sqlite3.connect(name) as database:
        database.execute("create table people (name text)")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace(file.name, name.name).replace("mcap", "sqlite3"))


def two_kinds(bag):
    """A recording that lists an MCAP and an SQLite file, of which the second is no database."""
    (bag / "more.db3").write_bytes(b"SQLite format 3\0" + bytes(100))
    listed(bag, [storage(bag).name, "more.db3"])


def listed(bag, names):
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(
        text.replace(f"  - {storage(bag).name}", "\n".join(f"  - {n}" for n in names), 1)
    )


def metadata(text):
    return lambda bag: (bag / "metadata.yaml").write_text(text)


def folder_for_file(bag):
    name = storage(bag)
    name.unlink()
    name.mkdir()


FORMS = {
    "cut to nothing": cut_to(0),
    "cut to a tenth": cut_to(0.1),
    "cut to a half": cut_to(0.5),
    "cut at the end": cut_to(0.999),
    **{f"flipped {seed}": flipped(seed) for seed in range(4)},
    "index without messages": without_message_index,
    "a text in place of the storage": lambda bag: storage(bag).write_text("hello"),
    "another database": other_database,
    "two kinds of storage": two_kinds,
    "a file twice": lambda bag: listed(bag, [storage(bag).name] * 2),
    "a folder in place of the file": folder_for_file,
    "no metadata": lambda bag: (bag / "metadata.yaml").unlink(),
    "empty metadata": metadata(""),
    "metadata of another program": metadata("a: [1, 2\n"),
    "metadata with a list": metadata("- 1\n- 2\n"),
    "metadata with odd types": metadata("rosbag2_bagfile_information: {relative_file_paths: {a: 1}}\n"),
    "an empty folder": lambda bag: [path.unlink() for path in bag.iterdir()],
    "labels.yaml of another program": lambda bag: (bag / "labels.yaml").write_text("classes: 7\n"),
    "import.json of another program": lambda bag: (bag / "import.json").write_text("[1, 2]"),
    "occupancy is a file": lambda bag: (bag / "occupancy").write_text("x"),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_command_ends_in_a_traceback(sound, tmp_path, capsys, form):
    bag = tmp_path / "drive"
    shutil.copytree(sound, bag)
    FORMS[form](bag)
    calls = {
        "check": lambda: check([str(bag)]),
        "label": lambda: label(
            [str(bag), "--jobs", "1", "--depth-topic", "/{camera}/depth", "--out", str(tmp_path / "l")]
        ),
        "prepare": lambda: prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"]),
        "doctor": lambda: doctor(["--bag", str(bag)]),
    }
    for name, call in calls.items():
        status = call()  # an exception is the failure
        said = capsys.readouterr()
        assert status in (0, 1, 2), name
        if status and name != "doctor":
            assert str(bag) in said.out + said.err, f"{name} does not name the recording: {said.out + said.err}"


@pytest.mark.parametrize("words", [["{bag}/nowhere"], ["{bag}/metadata.yaml"], ["/dev/null"], ["{bag}", "{bag}"]])
def test_paths_that_are_no_recordings_are_named(sound, tmp_path, capsys, words):
    words = [word.format(bag=sound) for word in words]
    statuses = {
        "check": check([words[0]]) if len(words) == 1 else 1,
        "prepare": prepare([*words, "--out", str(tmp_path / "tables"), "--jobs", "1"]),
        "train": train(["--out", str(tmp_path / "run"), f"data.bags=[{','.join(words)}]"]),
    }
    assert all(statuses.values()), statuses
    said = capsys.readouterr()
    assert words[-1] in said.out + said.err or "several recordings are called drive" in said.err
