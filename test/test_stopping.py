"""However the node is told to end: status 0, gone from the graph of other programs, no shared memory left.

RENDEROCC_STOPS=50 starts and stops it fifty times; by default each way is tried twice.
"""

import os
import signal
import time
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import String
from system import (
    PATIENCE,
    Listener,
    Program,
    all_segments,
    left_of,
    new_domain,
    node_command,
    segments_of,
    untrained_network,
    wait_until,
)

pytestmark = pytest.mark.system

pytestmark = pytest.mark.system
STOPS = int(os.environ.get("RENDEROCC_STOPS", 6))
GONE_WITHIN = 1.0  # seconds after the process has ended
SHUTDOWN = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
WAYS = ("SIGINT", "SIGTERM", "shutdown")
NAME = f"leaving_{os.getpid()}"  # another program in the same domain may have a node of the usual name


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def listener():
    domain = new_domain()
    made = Listener(domain)
    made.domain = domain
    yield made
    made.close()


def shut_down(listener) -> None:
    state = listener.call(GetState, f"/{NAME}/get_state").current_state.id
    request = ChangeState.Request(transition=Transition(id=SHUTDOWN[state]))
    assert listener.call(ChangeState, f"/{NAME}/change_state", request).success


def started(parameters, listener) -> Program:
    command = node_command(parameters, "-r", f"__node:={NAME}", module="renderocc_ros.start")
    return Program(command, listener.domain)


def on_graph(listener) -> bool:
    return NAME in listener.node.get_node_names()


def expect_gone(listener, memory: set[str], ended: float) -> None:
    """From the graph, and all of its own shared memory."""
    wait_until(lambda: not on_graph(listener), 30, "the node to leave the graph")
    after = time.monotonic() - ended
    assert after < GONE_WITHIN, f"the node was on the graph for {after:.2f} s after its end"
    wait_until(lambda: not left_of(memory), GONE_WITHIN, f"nothing of {sorted(memory)} to be left")
    print(f"off the graph {after:.3f} s after its end; of {len(memory)} files in /dev/shm none is left")


@pytest.mark.parametrize("number", range(STOPS))
def test_the_node_ends_with_status_0_and_leaves_graph_and_shared_memory(number, listener, checkpoint):
    way, active = WAYS[number % len(WAYS)], number // len(WAYS) % 5 == 0  # the others are still unconfigured
    parameters = {
        "cameras": ("front", "left"),
        "image_topic": "/{camera}/image_raw",
        "camera_info_topic": "/{camera}/camera_info",
        "checkpoint": checkpoint,
        "autostart": active,
    }
    before = all_segments()
    node = started(parameters, listener)
    wait_until(lambda: on_graph(listener), 60, "the node on the graph")
    if active:
        node.expect("active: 2 cameras", 90)
    memory = segments_of(node.process.pid) - before
    assert memory, "the node has no shared memory of its own: this test sees nothing"
    told = time.monotonic()
    if way == "shutdown":
        shut_down(listener)
    else:
        node.process.send_signal(getattr(signal, way))
    status = node.process.wait(30 * PATIENCE)
    ended = time.monotonic()
    assert status == 0, "\n".join(node.lines[-20:])
    print(f"{way}, {'active' if active else 'unconfigured'}: ended within {ended - told:.2f} s, status {status}")
    expect_gone(listener, memory, ended)


def test_a_signal_while_the_node_is_made_leaves_nothing_either(listener, checkpoint):
    """At any moment from the first line of Python to the last of the configuration."""
    for after in (0.3, 0.8, 1.3, 2.0, 3.0):
        before = all_segments()
        node = started({"cameras": ("front", "left"), "checkpoint": checkpoint}, listener)
        time.sleep(after)
        memory = segments_of(node.process.pid) - before
        node.process.send_signal(signal.SIGTERM)
        status = node.process.wait(30 * PATIENCE)
        ended = time.monotonic()
        assert status in (0, -signal.SIGTERM), "\n".join(node.lines[-20:])  # killed: before Python ran a line of ours
        expect_gone(listener, memory, ended)


def test_replay_leaves_nothing_however_it_ends(listener, tmp_path):
    bag = word_bag(tmp_path / "bag")
    listener.listen(String, "/word")
    for way in ("", "SIGINT", "SIGTERM"):
        before = all_segments()
        replay = Program(["-m", "renderocc_model.cli", "replay", bag, *(["--loop"] if way else [])], listener.domain)
        wait_until(lambda: "renderocc_replay" in listener.node.get_node_names(), 60, "the player on the graph")
        memory = segments_of(replay.pid) - before
        assert memory
        if way:
            replay.signal(getattr(signal, way))
        assert replay.wait(60 * PATIENCE) == 0, replay.tail()
        wait_until(lambda: "renderocc_replay" not in listener.node.get_node_names(), GONE_WITHIN, "the player to leave")
        wait_until(lambda: not left_of(memory), GONE_WITHIN, f"nothing of {sorted(memory)} to be left")


def word_bag(folder: Path) -> Path:
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/word", "std_msgs/msg/String", typestore=store)
        for stamp in (1, 3_000_000_000):
            data = store.serialize_cdr(store.types["std_msgs/msg/String"](data="one"), "std_msgs/msg/String")
            writer.write(topic, stamp, data)
    return folder


@pytest.mark.parametrize(("way", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_demo_that_is_stopped_takes_its_node_and_all_shared_memory_with_it(town_bag, tmp_path, way, status):
    before = all_segments()
    demo = Program(["-m", "renderocc_model.cli", "demo", "--bag", town_bag, "--out", tmp_path], None)
    demo.expect("starting the node", 120)
    node = tmp_path / "node.log"
    wait_until(lambda: "loading PyTorch" in node.read_text(), 60, "the node at work")
    family = [demo.pid, *children(demo.pid)]
    assert len(family) == 2
    memory = set().union(*map(segments_of, family)) - before
    assert memory
    demo.process.send_signal(getattr(signal, way))
    assert demo.process.wait(90 * PATIENCE) == status, demo.tail()
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    wait_until(lambda: not left_of(memory), GONE_WITHIN, f"nothing of {sorted(memory)} to be left")
    assert not list(tmp_path.glob(".outputs_*"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
