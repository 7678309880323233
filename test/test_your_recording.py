"""The page `docs/your_recording.md`: what it says the commands say, they say; the options that it names exist."""

import re
import shutil
from pathlib import Path

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from test_check_labelling import PACKETS, STORE, clouds
from test_check_verdicts import RECORDINGS, first, pictures, unlabelled
from tiny_bag import START_NS, Plan, write_bag

from renderocc_model.rosio.bags import Bag
from renderocc_ros.commands.doctor import parser as doctor_parser
from training.check import main as check
from training.check import parser as check_parser
from training.data.prepare import main as prepare
from training.data.prepare import parser as prepare_parser
from training.label import main as label
from training.label import parser as label_parser

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your_recording.md"
COMMANDS = {"label", "prepare", "renderocc label", "ros2 bag reindex", "mcap recover IN -o OUT"}


def without(*topics):
    """The small recording with clouds, without some topics."""

    def written(folder):
        whole = unlabelled(folder.with_name("whole"))
        with Bag(whole) as source, Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            out = {}
            for topic, at, data in source.messages():
                if topic not in topics:
                    kind = source.topics[topic].type
                    out[topic] = out.get(topic) or writer.add_connection(topic, kind, typestore=STORE)
                    writer.write(out[topic], at, data)
        return folder

    return written


def spoiled(change):
    def written(folder):
        bag = unlabelled(folder)
        change(bag)
        return bag

    return written


def cut(bag):
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-3000])


def late_poses(folder):
    return write_bag(
        folder, Plan(frames=3, poses=list(range(START_NS + 300_000_000, START_NS + 1_200_000_000, 20_000_000)))
    )


CASES = {
    "`camera_info` of a camera": without("/front/camera_info"),
    "a calibration (K is zero)": RECORDINGS["K of zeros"],
    "all images of a camera": without("/front/image_raw/compressed"),
    "all images": without("/front/image_raw/compressed", "/wide/image_raw/compressed"),
    "static transforms": without("/tf_static"),
    "poses of the vehicle": without("/tf"),
    "poses of the first images": late_poses,
    "a LiDAR": without("/lidar/points"),
    "clouds, there are packets": lambda f: unlabelled(f, [(START_NS, "/velodyne_packets", PACKETS, bytes(20))]),
    "the choice of a LiDAR": lambda f: unlabelled(f, clouds() + clouds("/rear/points")),
    "a common clock": RECORDINGS["a LiDAR with another clock"],
    "points in the clouds": RECORDINGS["empty clouds"],
    "the end of an image": lambda f: unlabelled(f, change=first(pictures(".jpg", cut=-400))),
    "the end of the file": spoiled(cut),
    "`metadata.yaml`": spoiled(lambda bag: (bag / "metadata.yaml").unlink()),
    "labels": lambda f: unlabelled(f),
    "depth in the labels": RECORDINGS["labels of nothing"],
}


def rows():
    """{what is missing: (the cell about `check`, the cell about `label` and `prepare`)} of the page's last table."""
    table = PAGE.read_text().split("## What is said when something is missing")[1]
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.M)
    return {missing: (asked, later) for missing, asked, later in found if asked != "`check`"}


def quotes(cell):
    return [text for text in re.findall(r"`([^`]+)`", cell) if not text.startswith("--") and text not in COMMANDS]


def test_every_row_of_the_table_is_tried():
    assert set(rows()) == set(CASES)


@pytest.mark.parametrize("missing", CASES)
def test_the_commands_say_what_the_page_says(missing, tmp_path, capsys):
    asked, later = rows()[missing]
    bag = CASES[missing](tmp_path / "drive")
    has_labels = missing in ("labels", "depth in the labels", "poses of the first images")
    status = check([str(bag), *([] if has_labels else ["--no-labels"])])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(asked.split()[0])]
    for text in quotes(asked):
        assert any(text in line for line in said), said
    assert (asked.startswith("FAIL")) == (status != 0)
    label([str(bag), "--jobs", "1"])
    shutil.rmtree(tmp_path / "drive_labels", ignore_errors=True)
    prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"])
    said = capsys.readouterr()
    for text in quotes(later):
        assert text in said.out + said.err, (text, said)


def test_the_options_of_the_page_exist():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text())) - {"--all", "--storage", "--output"}
    parsers = (check_parser(), label_parser(), prepare_parser(), doctor_parser())
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    assert named and named <= known, named - known
