"""`renderocc replay` against real subscribers in processes of their own, and the recordings it must refuse."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from realdata import REALDATA, needs_realdata
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from system import new_domain

from renderocc_model.rosio.bags import Bag, BagError
from renderocc_ros.commands.recorded_topics import ReplayError, is_latched, qos_profile
from renderocc_ros.commands.replay import main, play, ros_arguments

pytestmark = pytest.mark.system

STORE = get_typestore(Stores.ROS2_JAZZY)
T0 = 1_700_000_000_000_000_000
FOREVER = QosTime(2147483647, 4294967295)

SUBSCRIBER = r"""
import json, sys, time
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

wanted, clock, seconds = json.loads(sys.argv[1]), sys.argv[2] == "clock", float(sys.argv[3])
rclpy.init()
node = rclpy.create_node("listener")
seen, keep = [], []

def listen(kind, topic, qos):
    note = lambda data: seen.append([topic, time.monotonic(), data.hex()])
    keep.append(node.create_subscription(kind, topic, note, qos, raw=True))

for topic in wanted:
    latched = topic == "/tf_static"
    qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)
    listen(TFMessage if latched else Header, topic, qos)
if clock:
    listen(Clock, "/clock", QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE))
print("ready", flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end and not any(b"last\0" in bytes.fromhex(d) for _, _, d in seen):
    rclpy.spin_once(node, timeout_sec=0.1)
for _ in range(20):
    rclpy.spin_once(node, timeout_sec=0.02)
print(json.dumps(seen), flush=True)
"""


def offered(
    reliability=QosReliability.RELIABLE, durability=QosDurability.VOLATILE, depth=10, history=QosHistory.KEEP_LAST
):
    return Qos(history, depth, reliability, durability, FOREVER, FOREVER, QosLiveliness.AUTOMATIC, FOREVER, False)


LATCHED = offered(durability=QosDurability.TRANSIENT_LOCAL, depth=1)


def header(stamp_ns, text):
    kinds = STORE.types
    stamp = kinds["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return bytes(STORE.serialize_cdr(kinds["std_msgs/msg/Header"](stamp=stamp, frame_id=text), "std_msgs/msg/Header"))


def transform(parent, child):
    kinds = STORE.types
    stamp = kinds["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    message = kinds["geometry_msgs/msg/TransformStamped"](
        header=kinds["std_msgs/msg/Header"](stamp=stamp, frame_id=parent),
        child_frame_id=child,
        transform=kinds["geometry_msgs/msg/Transform"](
            translation=kinds["geometry_msgs/msg/Vector3"](x=1.0, y=0.0, z=0.0),
            rotation=kinds["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        ),
    )
    return bytes(STORE.serialize_cdr(kinds["tf2_msgs/msg/TFMessage"](transforms=[message]), "tf2_msgs/msg/TFMessage"))


def write_bag(
    folder, storage=StoragePlugin.MCAP, compression=None, spacing_s=0.1, count=10, version=9, qos=(), static=3
):
    """`static` /tf_static messages at the start, then `count` numbered headers on /numbers; the last reads 'last'."""
    writer = Writer(folder, version=version, storage_plugin=storage)
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        tf = writer.add_connection(
            "/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE, offered_qos_profiles=[LATCHED]
        )
        numbers = writer.add_connection(
            "/numbers", "std_msgs/msg/Header", typestore=STORE, offered_qos_profiles=list(qos)
        )
        for index in range(static):
            writer.write(tf, T0 + index, transform("base_link", f"sensor_{index}"))
        for index in range(count):
            stamp = T0 + round(index * spacing_s * 1e9) + 10
            writer.write(numbers, stamp, header(stamp - 7, "last" if index == count - 1 else str(index)))
    return folder


@pytest.fixture
def alone(monkeypatch):
    """A ROS domain of this test's own, on this machine only."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(new_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def subscriber(topics, clock=False, seconds=15.0):
    process = subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, json.dumps(topics), "clock" if clock else "", str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def received(process):
    text, _ = process.communicate(timeout=30)
    return [(topic, at, bytes.fromhex(data)) for topic, at, data in json.loads(text)]


def on_the_wire(data):
    """RTPS pads a message to whole words."""
    return data + bytes(-len(data) % 4)


def command(*arguments):
    return [sys.executable, "-m", "renderocc_model.cli", "replay", *map(str, arguments)]


def clock_ns(data):
    return int.from_bytes(data[4:8], "little") * 10**9 + int.from_bytes(data[8:12], "little")


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_subscriber_in_another_process_receives_every_message_byte_for_byte(tmp_path, alone, storage):
    bag = write_bag(tmp_path / "bag", storage)
    listener = subscriber(["/numbers", "/tf_static"])
    assert subprocess.run(command(bag, "--rate", "4"), timeout=30).returncode == 0
    got = received(listener)
    with Bag(bag) as recording:
        sent = [(topic, data) for topic, _, data in recording.messages()]
    for topic in ("/numbers", "/tf_static"):
        assert [data for name, _, data in got if name == topic] == [
            on_the_wire(data) for name, data in sent if name == topic
        ]


def test_messages_keep_their_pace_and_the_clock_runs_with_them(tmp_path, alone):
    # 10 messages 0.1 s apart at rate 2: the last one 0.45 s after the first.
    bag = write_bag(tmp_path / "bag")
    listener = subscriber(["/numbers"], clock=True)
    played = play(bag, rate=2.0, clock_hz=50.0)
    got = received(listener)
    times = [at for name, at, _ in got if name == "/numbers"]
    assert len(times) == 10 and played.messages == 13
    assert times[-1] - times[0] == pytest.approx(0.45, abs=0.1)
    clocks = [clock_ns(data) for name, _, data in got if name == "/clock"]
    assert clocks == sorted(clocks)
    # The record time of every message is among them, and ticks of 20 ms / rate between.
    stamps = [T0 + round(index * 0.1e9) + 10 for index in range(10)]
    assert set(stamps) <= set(clocks) and len(set(clocks)) > 20


def test_a_late_subscriber_still_gets_all_latched_transforms(tmp_path, alone):
    # Three /tf_static messages, each recorded from a publisher of depth 1: one writer has to keep all three.
    bag = write_bag(tmp_path / "bag", spacing_s=1.0, count=8)
    player = subprocess.Popen(command(bag, "--wait-for", "0"))
    time.sleep(2.0)
    got = received(subscriber(["/tf_static"], seconds=3.0))
    player.send_signal(signal.SIGINT)
    assert player.wait(10) == 0
    assert len(got) == 3


def test_start_skips_ahead_but_keeps_what_was_latched_before(tmp_path, alone):
    bag = write_bag(tmp_path / "bag")
    listener = subscriber(["/numbers", "/tf_static"])
    play(bag, start=0.45, rate=4)
    got = received(listener)
    # Messages lie at 0.0, 0.1 ... 0.9 s: five of them (0.5 to 0.9) are at or after 0.45 s.
    assert [name for name, _, _ in got].count("/numbers") == 5
    assert [name for name, _, _ in got].count("/tf_static") == 3


def test_loop_repeats_until_interrupted_and_remap_renames(tmp_path, alone):
    bag = write_bag(tmp_path / "bag", spacing_s=0.02, count=5, qos=[offered(depth=100)])
    with Bag(bag) as recording:
        last = on_the_wire([data for topic, _, data in recording.messages(["/numbers"])][-1])
    listener = subscriber(["/renamed"], seconds=6.0)
    player = subprocess.Popen(command(bag, "--loop", "--topics", "/num*", "--remap", "/numbers:=/renamed"))
    seen = received(listener)
    player.send_signal(signal.SIGINT)
    assert player.wait(10) == 0
    # The listener leaves after 'last'; the spins that follow catch the beginning of the next round.
    data = [data for _, _, data in seen]
    assert last in data and data.index(last) == 4


def test_interrupting_the_wait_for_subscribers_ends_cleanly(tmp_path, alone):
    player = subprocess.Popen(
        command(write_bag(tmp_path / "bag"), "--wait-for", "60"), stderr=subprocess.PIPE, text=True
    )
    assert "waiting up to 60 s" in player.stderr.readline()
    player.send_signal(signal.SIGINT)
    assert player.wait(10) == 0
    assert "Traceback" not in player.stderr.read()


@pytest.mark.parametrize("compression", [CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_compressed_recordings_read_like_plain_ones(tmp_path, compression):
    with (
        Bag(write_bag(tmp_path / "plain")) as plain,
        Bag(write_bag(tmp_path / "packed", compression=compression)) as packed,
    ):
        assert list(plain.messages()) == list(packed.messages())
        assert (plain.start_ns, plain.end_ns, plain.message_count) == (
            packed.start_ns,
            packed.end_ns,
            packed.message_count,
        )


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_recorded_qos_is_found_in_the_bare_file_and_in_the_folder(tmp_path, storage, version):
    qos = [offered(QosReliability.BEST_EFFORT, depth=3)]
    folder = write_bag(tmp_path / "bag", storage, version=version, qos=qos)
    for path in (folder, next(file for file in folder.iterdir() if file.suffix in (".mcap", ".db3"))):
        with Bag(path) as bag:
            assert bag.topics["/numbers"].qos == tuple(qos)
            assert is_latched(bag.topics["/tf_static"]) and not is_latched(bag.topics["/numbers"])


def profile_of(tmp_path, qos, **options):
    with Bag(write_bag(tmp_path / "bag", qos=qos, **options)) as bag:
        return qos_profile(bag.topics["/numbers"])


def test_without_recorded_qos_a_topic_is_reliable_and_volatile(tmp_path):
    made = profile_of(tmp_path, [])
    assert (made.reliability.name, made.durability.name, made.depth) == ("RELIABLE", "VOLATILE", 10)


def test_of_several_publishers_the_strongest_offer_is_made(tmp_path):
    made = profile_of(tmp_path, [offered(QosReliability.BEST_EFFORT, depth=4), LATCHED])
    # Two publishers that kept at most 4 messages each.
    assert (made.reliability.name, made.durability.name, made.depth) == ("RELIABLE", "TRANSIENT_LOCAL", 8)


def test_a_depth_the_recorder_could_not_know_becomes_the_default(tmp_path):
    made = profile_of(tmp_path, [offered(depth=0, history=QosHistory.UNKNOWN)])
    assert made.depth == 10


def test_a_topic_whose_type_is_not_installed_is_skipped_with_the_package_to_install(tmp_path, alone):
    folder = tmp_path / "bag"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        strange = writer.add_connection("/strange", "nobody_msgs/msg/Thing", msgdef="int32 a\n", rihs01="RIHS01_0")
        known = writer.add_connection("/numbers", "std_msgs/msg/Header", typestore=STORE)
        writer.write(strange, T0, b"\0\1\0\0\1\0\0\0")
        writer.write(known, T0, header(T0, "last"))
    lines = []
    played = play(folder, wait_for=0, say=lines.append)
    assert played.messages == 1
    assert len(lines) == 1 and "/strange is skipped" in lines[0] and "ros-$ROS_DISTRO-nobody-msgs" in lines[0]


def test_incompatible_subscribers_are_named(tmp_path, alone):
    bag = write_bag(tmp_path / "bag", qos=[offered(QosReliability.BEST_EFFORT)])
    listener = subscriber(["/numbers", "/tf_static"], seconds=4.0)
    lines = []
    play(bag, rate=10, say=lines.append)
    assert received(listener)
    assert any("/numbers: listener asks for reliable" in line for line in lines)


def refused(capsys, *arguments):
    status = main([str(argument) for argument in arguments] + ["--wait-for", "0"])
    text = capsys.readouterr().err
    assert status == 2 and text.count("\n") == 1, text
    return text


def test_what_is_not_a_recording_is_refused_in_one_line(tmp_path, capsys):
    assert "no such file or folder" in refused(capsys, tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    assert "not a rosbag2 recording" in refused(capsys, tmp_path / "folder")
    for name, content, expected in (
        ("a.txt", b"hello", "expected .mcap or .db3"),
        ("old.bag", b"#ROSBAG V2.0\n", "rosbags-convert"),
        ("a.mcap", b"not an MCAP file at all, but long enough to look", "not an MCAP file"),
        ("b.mcap", b"", "empty"),
        ("a.db3", b"x" * 5000, "not a rosbag2 SQLite recording"),
    ):
        (tmp_path / name).write_bytes(content)
        assert expected in refused(capsys, tmp_path / name)


def test_a_folder_without_metadata_names_its_file_and_reindex(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    text = refused(capsys, bag)
    assert "ros2 bag reindex" in text and "bag.mcap" in text


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_a_truncated_recording_is_refused_in_one_line(tmp_path, capsys, keep):
    file = write_bag(tmp_path / "bag") / "bag.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    assert "mcap recover" in refused(capsys, tmp_path / "bag")


def test_damage_anywhere_in_a_file_is_a_bag_error_and_nothing_else(tmp_path):
    for storage, name in ((StoragePlugin.MCAP, "m/m.mcap"), (StoragePlugin.SQLITE3, "s/s.db3")):
        write_bag(tmp_path / name[0], storage)
        file = tmp_path / name
        whole = file.read_bytes()
        rng = random.Random(0)
        for _ in range(150):
            broken = bytearray(whole)
            for _ in range(8):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            file.write_bytes(broken)
            try:
                with Bag(file) as bag:
                    for _, _, data in bag.messages():
                        assert isinstance(data, bytes)
            except BagError:
                pass


def test_an_empty_recording_is_refused(tmp_path, capsys):
    assert "holds no messages" in refused(capsys, write_bag(tmp_path / "bag", count=0, static=0))


def test_metadata_that_lists_a_missing_file_or_lies_about_counts_is_named(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag")
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 13", "message_count: 99"))
    with Bag(bag) as recording:
        assert recording.notes == ["metadata.yaml promises 99 messages, the files hold 13"]
    (bag / "bag.mcap").unlink()
    assert "bag.mcap is listed but not in the folder" in refused(capsys, bag)
    metadata.write_text(metadata.read_text().replace("bag.mcap", "bag" * 100 + ".mcap"))  # longer than a name can be
    assert "is listed but not in the folder" in refused(capsys, bag)


@pytest.mark.parametrize(
    "text", ["", "[", "a: 1", "rosbag2_bagfile_information: 3", "rosbag2_bagfile_information: {relative_file_paths: 5}"]
)
def test_metadata_that_is_none_is_refused(tmp_path, capsys, text):
    bag = write_bag(tmp_path / "bag")
    (bag / "metadata.yaml").write_text(text)
    assert "metadata.yaml" in refused(capsys, bag)


@pytest.mark.parametrize(
    "option",
    [
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--clock", "-1"),
        ("--start", "-1"),
        ("--start", "99"),
        ("--duration", "0"),
        ("--remap", "/numbers"),
        ("--remap", "/number:=/x"),
        ("--topics", "/nubers"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, capsys, option):
    refused(capsys, write_bag(tmp_path / "bag"), *option)


def test_a_split_recording_is_read_in_order(tmp_path):
    first, second = write_bag(tmp_path / "one", count=3), write_bag(tmp_path / "two", count=4, static=0)
    shutil.copy(second / "two.mcap", first / "two.mcap")
    metadata = first / "metadata.yaml"
    metadata.write_text(
        metadata.read_text().replace(
            "  relative_file_paths:\n  - one.mcap\n", "  relative_file_paths:\n  - one.mcap\n  - two.mcap\n"
        )
    )
    with Bag(first) as bag:
        assert bag.topics["/numbers"].count == 7
        assert [topic for topic, _, _ in bag.messages()] == ["/tf_static"] * 3 + ["/numbers"] * 7


def test_launch_arguments_are_split_off():
    assert ros_arguments(["bag", "--clock", "--ros-args", "-r", "a:=b", "--", "--loop"]) == (
        ["bag", "--clock", "--loop"],
        ["--ros-args", "-r", "a:=b"],
    )


def test_an_unusable_recording_leaves_no_node_behind(tmp_path, alone):
    with pytest.raises(ReplayError):
        play(write_bag(tmp_path / "bag"), remap={"/absent": "/x"}, wait_for=0)


@needs_realdata
def test_every_message_of_the_real_recordings_can_be_published(alone):
    for name, count in (("ddad_6cam", 46), ("nuscenes_keyframe", 21), ("fisheye_4cam", 10)):
        assert play(Path(REALDATA) / name, rate=50, wait_for=0, say=lambda line: None).messages == count
