"""`renderocc demo`: run the node on a recording, subscribe to its outputs, and write pictures and a report.

Without --bag it first records a street of the simulated town with its exact 3D truth, and compares the node with that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from renderocc_model.base.config import settings_of
from renderocc_model.base.findings import Findings
from renderocc_model.base.plain_yaml import yaml_text
from renderocc_model.network.packaged import checkpoint_file
from renderocc_model.rosio.bags import Bag, BagError
from renderocc_model.rosio.camera_search import FoundCameras, find_cameras, no_cameras, topic_types, with_template
from renderocc_model.rosio.transform_topics import TransformReader, with_topics
from renderocc_model.rosio.vehicle_options import add_vehicle_options, with_options
from renderocc_ros.commands.demo.node import Child, NodeFailed, Subscriber
from renderocc_ros.commands.demo.recording import Outputs, write_recording
from renderocc_ros.commands.demo.report import headline, latest_diagnostics, report
from renderocc_ros.commands.demo.rerun_file import write_rerun
from renderocc_ros.commands.demo.truth import Comparison, compare
from renderocc_ros.commands.doctor.bag import check_bag
from renderocc_ros.commands.doctor.files import check_params
from renderocc_ros.commands.replay import check_arguments
from renderocc_ros.parameters import NodeConfig
from renderocc_ros.process import prepare_process

EXAMPLE = "example: renderocc demo --bag recording --out demo_output"
SEED, FRAMES = 7, 10
LOOKED_AT = 5.0  # seconds from the start of a recording that are searched for calibrations and mounts
SETTLED, LAST_FRAME = 3.0, 30.0  # seconds without a frame that end the wait for more, and the longest wait
TOWNS = {"training": range(1000, 1040), "validation": range(2000, 2010), "test": range(3000, 3010)}  # by seed


def about_town(seed: int) -> str:
    """A sentence on whether the network in the package was trained on a town."""
    used = ", ".join(f"{part} those of seeds {seeds[0]} to {seeds[-1]}" for part, seeds in TOWNS.items())
    part = next((part for part, seeds in TOWNS.items() if seed in seeds), None)
    if part is None:
        return f"The recording is of town {seed}, which the network in the package has not seen: {used}."
    return f"The recording is of town {seed}, one of the network's {part} towns."


def simulated_recording(out: Path, seed: int, frames: int) -> Path:
    """A recording of the simulated town with its 3D truth; made once, then kept in the output folder."""
    bag = out / f"town_{seed}"
    if not (bag / "metadata.yaml").exists():
        print(f"no recording given: simulating a street with six cameras (seed {seed})", flush=True)
        command = ["-m", "renderocc_model.cli", "simulate", str(bag), "--seed", str(seed), "--frames", str(frames)]
        subprocess.run([sys.executable, *command, "--no-lidar", "--no-labels"], check=True)
    return bag


def described(bag: Path, config: NodeConfig) -> tuple[NodeConfig, FoundCameras]:
    """The parameters with the topics that a recording has, where it has those of another name; and its cameras.

    Raises:
        BagError: the recording cannot be read, or has no camera.
    """
    with Bag(bag) as recording:
        found = find_cameras(topic_types(recording.topics.values()), config)
        if not found.cameras:
            raise BagError(f"{bag}: no camera can be used: {no_cameras(recording.topics.values(), config, found)}")
        reader = TransformReader(recording.topics, config)
        stop_ns = recording.start_ns + round(LOOKED_AT * 1e9)
        for topic, _, data in recording.messages(reader.topics & set(recording.topics), None, stop_ns):
            with contextlib.suppress(ValueError):  # the node says what is wrong with it
                reader.take(topic, data)
        reader.finish()
    for note in filter(None, (found.note, *reader.notes)):
        print(note, flush=True)
    return with_topics(with_template(config, found), reader), found


def headings_of_cameras(
    bag: Path, config: NodeConfig, found: FoundCameras | None = None
) -> tuple[dict[str, float | None], int]:
    """The recording's cameras, in the order of a rig from the front to the left, and how many frames it has.

    Returns:
        {camera: heading in radians, from straight ahead to the left; None if TF does not give it}, and the number of
        images of the first camera, which looks ahead most.
    Raises:
        BagError: the recording cannot be read, or has no camera.
    """
    found = found or described(bag, config)[1]
    with Bag(bag) as recording:
        counts = {topic.name: topic.count for topic in recording.topics.values()}
    rig = check_bag(Findings(), bag, config, LOOKED_AT)
    forward = {camera.name: camera.base_from_camera[:3, 2] for camera in rig} if rig else {}
    cameras = tuple(found.cameras)
    headings = {name: math.atan2(forward[name][1], forward[name][0]) if name in forward else None for name in cameras}
    order = sorted(cameras, key=lambda name: (headings[name] is None, abs(headings[name] or 0.0)))
    return {name: headings[name] for name in order}, counts[found.cameras[order[0]].image_topic]


def node_command(cameras: tuple[str, ...], config: NodeConfig, out: Path, checkpoint: str) -> list[str]:
    """The node with these parameters, in a file. The first camera is the anchor: volumes carry its stamps."""
    config = replace(config, cameras=cameras, anchor_camera="", save_directory=str(out / "volumes"))
    if checkpoint:
        config = replace(config, checkpoint=checkpoint)
    values: dict[str, object] = {"use_sim_time": True}
    for setting in settings_of(config):
        several = isinstance(setting.default, tuple)
        values[setting.name] = (list(setting.default) or [""]) if several else setting.default
    path = out / "node.yaml"
    path.write_text(yaml_text({"/**": {"ros__parameters": values}}), encoding="utf-8")
    return ["-m", "renderocc_ros.main", "--ros-args", "--params-file", str(path)]


def listen(node: Child, player: Child, subscriber: Subscriber) -> None:
    """Have every frame saved, until the recording has ended and no more frames come."""
    frames, newest, end = 0, time.monotonic(), math.inf
    while time.monotonic() < min(end, newest + SETTLED if end < math.inf else end):
        node.check()
        player.check()
        if subscriber.frames > frames:
            frames, newest = subscriber.frames, time.monotonic()
            subscriber.save_newest()
        if end == math.inf and not player.running:
            newest = time.monotonic()
            end = newest + LAST_FRAME
        time.sleep(0.02)
    if not subscriber.volumes:
        raise NodeFailed(f"the node published nothing; see {node.log}")


def run(bag: Path, out: Path, rate: float, checkpoint: str, about_truth: str, config: NodeConfig) -> None:
    """Play the recording to the node, and write pictures, report and outputs."""
    config, found = described(bag, config)
    headings, frames = headings_of_cameras(bag, config, found)
    volumes = out / "volumes"
    for old in [*volumes.glob("*.npz"), *volumes.glob("*.ply")]:  # from an earlier run, perhaps on another recording
        old.unlink()
    command = node_command(tuple(headings), config, out, checkpoint)
    with tempfile.TemporaryDirectory(prefix=".outputs_", dir=out) as folder:
        outputs = Path(folder) / "outputs"
        subscriber = play_and_listen(bag, out, rate, command, tuple(headings), outputs)
        told = write_recording(bag, outputs, out / "recording")
    comparison = compare(bag, subscriber.volumes, out / "metrics.json")
    text = report(subscriber, frames, comparison, about_truth)
    (out / "report.md").write_text(text + "\n")
    print("\n" + text + "\n")
    write_pictures(bag, found, headings, subscriber, comparison, out)
    print(told)
    print(write_rerun(out / "recording", bag, out / "node.yaml", out / "demo.rrd"))
    print(f"pictures, every frame's volume (.npz, .ply), logs and the report: {out.resolve()}")


def play_and_listen(
    bag: Path, out: Path, rate: float, command: list[str], cameras: tuple[str, ...], outputs: Path
) -> Subscriber:
    """Play the recording to the node. Returns what was received; `outputs` becomes a bag of it."""
    # A ROS domain of its own, on this machine only: a demo must not talk to a robot.
    prepare_process()
    os.environ.update(ROS_DOMAIN_ID=str(1 + os.getpid() % 100), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    environment = dict(os.environ)
    with Bag(bag) as recording:
        start_ns = recording.start_ns
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Outputs(outputs))
        node = Child("the node", command, environment, out / "node.log")
        stack.callback(node.stop)
        subscriber = Subscriber(cameras, recorder.add, start_ns, rate)
        stack.callback(subscriber.close)
        print(f"starting the node on {len(cameras)} cameras: {', '.join(cameras)}", flush=True)
        subscriber.wait_for_node(node, timeout=180.0)
        replay = ["-m", "renderocc_model.cli", "replay", str(bag), "--clock", "--rate", str(rate)]
        print("playing the recording", flush=True)
        player = Child("replay", replay, environment, out / "replay.log")
        stack.callback(player.stop)
        listen(node, player, subscriber)
    return subscriber


def write_pictures(
    bag: Path,
    found: FoundCameras,
    headings: dict[str, float | None],
    subscriber: Subscriber,
    comparison: Comparison,
    out: Path,
) -> None:
    """demo.png: cameras and occupancy of the frame that sees most, of those with truth; bird_eye.png: it from above."""
    from renderocc_model.field.classes import ClassTable
    from renderocc_model.field.drawing import bird_eye_view
    from renderocc_model.field.occupancy import Occupancy
    from renderocc_ros.commands.demo.pictures import demo_picture, rows_of_cameras, truth_volume, views_at, write_png

    told = json.loads(subscriber.messages["classes"][-1].data)
    rows = sorted(told["classes"], key=lambda row: row["id"])
    classes = ClassTable(
        tuple(row["name"] for row in rows),
        tuple(tuple(row["color"]) for row in rows),
        frozenset(row["id"] for row in rows if row["dynamic"]),
        told["free"],
    )
    compared = comparison.truth if comparison.figures else {}
    volumes = {
        stamp: Occupancy.load_npz(subscriber.volumes[stamp], classes) for stamp in compared or subscriber.volumes
    }
    stamp, volume = max(volumes.items(), key=lambda item: item[1].visible.sum())
    truth = truth_volume(compared[stamp], volume) if compared else None
    untrained = latest_diagnostics(subscriber).get("network", {}).get("checkpoint") == "none"
    caption = "the node's volume" + (", UNTRAINED" if untrained else "")
    figures = headline(comparison)
    views = views_at(bag, tuple(found.cameras.values()), stamp)
    picture = demo_picture(
        views, rows_of_cameras(headings), volume, f"{caption}: {figures}" if figures else caption, truth
    )
    write_png(out / "demo.png", picture)
    write_png(out / "bird_eye.png", bird_eye_view(volume))
    print(f"wrote {out / 'demo.png'} and {out / 'bird_eye.png'}")


def node_config(params: Path | None) -> NodeConfig:
    """The node's parameters in a file; the defaults without one.

    Raises:
        ValueError: the file cannot be used.
    """
    if params is None:
        return NodeConfig()
    findings = Findings()
    config = check_params(findings, params)
    wrong = [item.text for item in findings.items if item.level in ("FAIL", "warn")]
    if wrong:
        raise ValueError("; ".join(wrong))
    return config


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="renderocc demo", description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--bag",
        type=Path,
        help="rosbag2 recording (MCAP or SQLite), compared with 3D truth if its folder has "
        "occupancy/<stamp>.npz in Occ3D's layout; default: a simulated street",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=SEED,
        help=f"seed of the simulated street (default {SEED}, a town not used in training)",
    )
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"frames of the simulated street (default {FRAMES})")
    parser.add_argument("--checkpoint", default="", help="network (default: the one in the package)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="output folder (default: demo_output)")
    parser.add_argument(
        "--rate", type=float, default=0.5, help="playing speed (default: 0.5, so that two cores keep up)"
    )
    add_vehicle_options(parser)
    arguments = parser.parse_args(argv)
    try:
        check_arguments(arguments.rate, None, 0.0, None, 0.0)  # before the node is loaded
        if arguments.checkpoint and not checkpoint_file(arguments.checkpoint).exists():
            raise ValueError(f"--checkpoint {arguments.checkpoint}: there is no such file")
        config = with_options(node_config(arguments.params), arguments)
        arguments.out.mkdir(parents=True, exist_ok=True)
        bag = arguments.bag or simulated_recording(arguments.out, arguments.seed, arguments.frames)
        about_truth = "" if arguments.bag else about_town(arguments.seed)
        run(bag, arguments.out.resolve(), arguments.rate, arguments.checkpoint, about_truth, config)
    except (ValueError, NodeFailed, OSError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0
