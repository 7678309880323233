"""`renderocc demo`: the real node on a recording, compared with truth; its report and its pictures."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.interfaces import QosDurability

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES
from renderocc_model.field.drawing import FREE_COLOUR, UNKNOWN_COLOUR
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.geometry.rig import Rig
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.presets import preset
from renderocc_model.network.untrained import untrained_checkpoint
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_ros.commands.demo import about_town, headings_of_cameras
from renderocc_ros.commands.demo.pictures import demo_picture, legend, rows_of_cameras, truth_volume
from renderocc_ros.commands.demo.report import percent, truth_section
from renderocc_ros.commands.demo.truth import Comparison, tables_of, truth_of_frames
from renderocc_ros.parameters import NodeConfig

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[1]
FREE, CAR, ROAD = OCC3D_NUSCENES.free, 4, 11
TINY_GRID = VoxelGrid((-20, -20, -1), (20, 20, 5.4), 0.4)
TOPICS = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")


# ---- the whole ----------------------------------------------------------------------------------


def demo(*options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "renderocc_model.cli", "demo", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def small_network(tmp_path_factory):
    """A checkpoint of the grid of `tiny`, from small images, that says of itself what it is."""
    config = preset("tiny", ("images.height=64", "images.width=96"))
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    made = untrained_checkpoint(config, OCC3D_NUSCENES)
    save_checkpoint(path, made.network, OCC3D_NUSCENES, 0.3, None, {"by": "test"})
    return path


@pytest.fixture(scope="module")
def shown(town_bag, small_network, tmp_path_factory):
    """A demo of the town's recording: what it printed, and its folder."""
    out = tmp_path_factory.mktemp("demo")
    done = demo("--bag", town_bag, "--checkpoint", small_network, "--out", out, "--rate", 0.5)
    assert done.returncode == 0, done.stdout + done.stderr
    return done, out


def test_one_recording_holds_the_inputs_and_the_outputs_in_the_time_of_the_recording(shown, town_bag):
    done, out = shown
    assert f"wrote {out / 'recording'}: inputs and outputs in one MCAP" in done.stdout
    assert [path.suffix for path in (out / "recording").iterdir()].count(".mcap") == 1
    with Bag(out / "recording") as recording, Bag(town_bag) as inputs:
        copied = list(recording.messages(inputs.topics))
        assert sorted(copied, key=lambda m: m[:2]) == sorted(inputs.messages(), key=lambda m: m[:2])
        outputs = {name: topic for name, topic in recording.topics.items() if name not in inputs.topics}
        camera = next(name.split("/")[1] for name in inputs.topics if name.endswith("/camera_info"))
        views = {f"/renderocc/rendered/{camera}/{kind}" for kind in ("semantic", "depth", "camera_info")}
        assert {f"/renderocc/{name}" for name in ("points", "markers", "grid", "classes")} | views <= set(outputs)
        published = int(re.search(r"(\d) of the recording's 3 frames became messages", done.stdout)[1])
        assert recording.topics["/renderocc/points"].count == published
        for _, at, data in recording.messages(["/renderocc/points", *views]):
            stamp, _ = cdr.read_header(data)
            assert inputs.start_ns <= stamp <= at  # an answer does not come before its question
        for name in ("grid", "classes"):  # for RViz, which asks for what is latched
            (offered,) = recording.topics[f"/renderocc/{name}"].qos
            assert offered.durability is QosDurability.TRANSIENT_LOCAL
        assert "/clock" not in recording.topics  # whoever plays it makes it


def panels(part) -> list[str]:
    """Names of the panels in a Foxglove layout's tree."""
    return [part] if isinstance(part, str) else [*panels(part["first"]), *panels(part["second"])]


def test_each_topic_of_the_foxglove_layout_is_in_the_recording_with_a_type_that_its_panel_shows(shown):
    _, out = shown
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
    configs = layout["configById"]
    reached = panels(layout["layout"])
    for name in reached:  # grows: tabs hold panels of their own
        reached += [inner for tab in configs[name].get("tabs", []) for inner in panels(tab["layout"])]
    assert sorted(reached) == sorted(configs)  # each panel has its place, and one place only
    with Bag(out / "recording") as recording:
        types = {name: topic.type.replace("/msg/", "/") for name, topic in recording.topics.items()}
        frames = {one.child for _, _, data in recording.messages(["/tf", "/tf_static"]) for one in cdr.read_tf(data)}
    used = set()
    for name, config in configs.items():
        kind = name.partition("!")[0]
        if kind == "Image":
            image, info = config["imageMode"]["imageTopic"], config["imageMode"]["calibrationTopic"]
            assert types[image] in ("sensor_msgs/Image", "sensor_msgs/CompressedImage"), name
            assert types[info] == "sensor_msgs/CameraInfo", name
            used |= {image, info}
        elif kind == "3D":
            assert config["followTf"] in frames
            named = {types[topic] for topic in config["topics"]}
            expected = {"PointCloud2": "sensor_msgs", "CameraInfo": "sensor_msgs", "OccupancyGrid": "nav_msgs"}
            expected["MarkerArray"] = "visualization_msgs"
            assert named == {f"{package}/{message}" for message, package in expected.items()}
            assert any(config["topics"][topic]["visible"] for topic in config["topics"] if "/renderocc/" in topic)
            used |= set(config["topics"])
        elif kind == "DiagnosticSummary":
            assert types[config["topicToRender"]] == "diagnostic_msgs/DiagnosticArray"
            used.add(config["topicToRender"])
        else:
            assert kind == "Tab", name
    outputs = {topic for topic in types if topic.startswith("/renderocc/")}
    assert outputs - used == {"/renderocc/classes"}  # nothing that the node published is forgotten


def test_the_rerun_recording_has_the_volumes_that_the_node_published_and_the_truth(shown):
    chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")
    done, out = shown
    assert f"wrote {out / 'demo.rrd'}; open it with `rerun" in done.stdout
    rows: dict[str, list[int]] = {}
    for part in chunk.RrdReader(out / "demo.rrd").stream():
        batch = part.to_record_batch()
        if "stamp" in part.timeline_names and "Boxes3D:centers" in batch.schema.names:
            rows.setdefault(part.entity_path, []).extend(batch.column("stamp").cast("int64").to_pylist())
    with Bag(out / "recording") as recording:
        stamps = {
            name: sorted({cdr.read_header(data)[0] for _, _, data in recording.messages([name])})
            for name in ("/renderocc/points", "/renderocc/map/points")
        }
    assert sorted(rows["/world/vehicle/voxels"]) == sorted(rows["/world/vehicle/truth"]) == stamps["/renderocc/points"]
    assert sorted(rows["/world/map"]) == stamps["/renderocc/map/points"]


def test_every_volume_that_the_node_saved_is_compared_and_shown_beside_the_truth(town_bag, shown, small_network):
    done, tmp_path = shown
    report = (tmp_path / "report.md").read_text()
    assert report.strip() in done.stdout

    # Truth is of the moments at which the front camera fires: it is the anchor, and every stamp is that of a truth.
    # ~/save writes the map of that moment beside it.
    saved = {path.stem for path in (tmp_path / "volumes").glob("*.npz") if not path.stem.endswith("_map")}
    assert saved and saved <= {path.stem for path in (town_bag / "occupancy").glob("*.npz")}
    assert f"{len(saved)} of the recording's 3 frames ({len(saved)} volumes saved)" in report
    published = int(re.search(r"(\d) of the recording's 3 frames became messages", report)[1])
    assert len(saved) <= published <= 3

    # The figures are those of `renderocc metrics` on the same files, here by the definition.
    scores = json.loads((tmp_path / "metrics.json").read_text())
    hits = union = 0
    for stem in saved:
        volume = Occupancy.load_npz(tmp_path / "volumes" / f"{stem}.npz", OCC3D_NUSCENES)
        assert volume.grid == TINY_GRID
        with np.load(town_bag / "occupancy" / f"{stem}.npz") as file:  # the middle 100 x 100 of 200 x 200
            there, seen = file["semantics"][50:150, 50:150] != FREE, file["mask_camera"][50:150, 50:150] != 0
        hits += (volume.occupied & there & seen).sum()
        union += ((volume.occupied | there) & seen).sum()
    assert scores["counts"]["frames"] == len(saved)
    assert scores["iou_occupied"] == pytest.approx(hits / union)
    flat = scores["baselines"]["flat_ground"]
    assert f"| the node | {percent(scores['miou'])} |" in report
    assert f"| a flat road and nothing on it | {percent(flat['miou'])} |" in report

    # Named and not marked as untrained: only the node knows what it runs.
    assert str(small_network) in report and "UNTRAINED" not in report
    assert cv2.imread(str(tmp_path / "demo.png")).shape[1] == 1600
    assert cv2.imread(str(tmp_path / "bird_eye.png")).shape == (400, 400, 3)


def test_a_recording_that_cannot_be_shown_is_one_line(tmp_path):
    done = demo("--bag", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no metadata.yaml in it" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--rate", 0), "rate is 0.0; expected a finite number above 0"),
        (("--checkpoint", "nowhere.safetensors"), "nowhere"),
    ],
)
def test_an_option_that_cannot_be_is_named_before_anything_is_started(town_bag, tmp_path, options, named):
    done = demo("--bag", town_bag, "--out", tmp_path / "out", *options)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and named in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


# ---- cameras ------------------------------------------------------------------------------------


def test_cameras_lie_as_they_look_whatever_they_are_called(town_bag):
    headings, frames = headings_of_cameras(town_bag, TOPICS)
    assert frames == 3 and next(iter(headings)) == "cam_front"
    assert rows_of_cameras(headings) == [
        ["cam_front_left", "cam_front", "cam_front_right"],
        ["cam_back_left", "cam_back", "cam_back_right"],
    ]


def test_side_cameras_are_above_and_those_without_a_place_come_last():
    headings = {"a": math.pi / 2, "b": -math.pi / 2, "c": 0.0, "d": None, "e": -math.pi}
    assert rows_of_cameras(headings) == [["a", "c", "b"], ["e", "d"]]
    assert rows_of_cameras({"only": None}) == [["only"]]


def test_the_rigs_of_the_repository_have_every_camera_in_a_row():
    for path in sorted((ROOT / "config" / "rigs").glob("*.yaml")):
        forward = {camera.name: camera.base_from_camera[:3, 2] for camera in Rig.load(path)}
        rows = rows_of_cameras({name: math.atan2(axis[1], axis[0]) for name, axis in forward.items()})
        assert sorted(name for row in rows for name in row) == sorted(forward)


# ---- truth --------------------------------------------------------------------------------------


def test_truth_is_taken_from_the_nearest_moment_or_not_at_all(tmp_path):
    (tmp_path / "occupancy").mkdir()
    for stamp in (1_000_000_000, 1_500_000_000):
        (tmp_path / "occupancy" / f"{stamp}.npz").touch()
    first, second = (tmp_path / "occupancy" / f"{stamp}.npz" for stamp in (1_000_000_000, 1_500_000_000))
    found = truth_of_frames(tmp_path, [1_000_000_000, 1_450_000_000, 1_250_000_000])
    assert found == {1_000_000_000: first, 1_450_000_000: second}
    assert truth_of_frames(tmp_path / "one.mcap", [1_000_000_000]) == found.fromkeys([1_000_000_000], first)
    shutil.rmtree(tmp_path / "occupancy")
    assert truth_of_frames(tmp_path, [1_000_000_000]) == {}


def of_tiny(semantics) -> Occupancy:
    return Occupancy(TINY_GRID, OCC3D_NUSCENES, semantics, np.zeros(TINY_GRID.shape, np.float32), semantics != 255)


def test_shown_truth_is_the_middle_of_it_with_what_is_hidden_but_not_as_free(tmp_path):
    semantics, seen = np.full(OCC3D_GRID.shape, FREE, np.uint8), np.zeros(OCC3D_GRID.shape, np.uint8)
    semantics[50, 60, 2], semantics[51, 60, 2], semantics[49, 60, 2] = ROAD, CAR, CAR  # the last is out of the grid
    seen[50, 60, 2:4] = 1
    np.savez(tmp_path / "truth.npz", semantics=semantics, mask_camera=seen)
    truth = truth_volume(tmp_path / "truth.npz", of_tiny(np.full(TINY_GRID.shape, 255, np.uint8)))
    assert truth.semantics[0, 10, 2] == ROAD and truth.semantics[1, 10, 2] == CAR
    assert truth.semantics[0, 10, 3] == FREE and truth.occupied.sum() == 2 and (~truth.unknown).sum() == 3
    np.savez(tmp_path / "truth.npz", semantics=semantics[:, :, :8])
    assert truth_volume(tmp_path / "truth.npz", of_tiny(np.full(TINY_GRID.shape, 255, np.uint8))) is None


def figures(miou: float, frames: int) -> dict:
    rays = {"rayiou": 0.25, "rayiou_1": 0.2, "rayiou_2": 0.25, "rayiou_4": 0.3}
    iou = {"car": 0.5, "bus": None, "bicycle": 0.0}
    counts = {"frames": frames, "voxels_truth": {"car": 3, "bus": 0, "bicycle": 1}}
    return {"miou": miou, "iou": iou, "iou_occupied": None, "counts": counts, **rays}


def test_frames_that_were_not_compared_are_not_left_out_in_silence():
    compared = Comparison({1: Path("1.npz")}, apart=0.031, figures=figures(0.123, 4))
    text = "\n".join(truth_section(compared, 5, 10, "Of town 7."))
    assert "4 of the recording's 10 frames (5 volumes saved, at most 31 ms from its stamp)" in text
    assert "| the node | 12.3 % | none | 25.0 % | 20.0 %, 25.0 %, 30.0 % |" in text and "Of town 7." in text
    assert "car 50.0 %, bicycle 0.0 %." in text and "bus" not in text
    assert "no 3D truth" in "\n".join(truth_section(Comparison(), 5, 10, ""))
    assert "because" in "\n".join(truth_section(Comparison(complaint="because"), 5, 10, ""))


def test_the_demos_town_is_none_of_those_that_the_network_knows():
    assert "town 7, which the network in the package has not seen" in about_town(7)
    assert "training those of seeds 1000 to 1039" in about_town(7)
    assert "one of the network's test towns" in about_town(3009)


# ---- pictures -----------------------------------------------------------------------------------


def test_a_picture_has_cameras_volume_truth_and_the_colours_that_occur():
    semantics = np.full(TINY_GRID.shape, FREE, np.uint8)
    semantics[:, :, 2] = ROAD
    semantics[60:64, 50:55, 3:6] = CAR
    volume = of_tiny(semantics)
    views = {"left": np.full((100, 200, 3), (0, 0, 255), np.uint8), "right": np.full((200, 200, 3), 255, np.uint8)}
    picture = demo_picture(views, [["left", "right"]], volume, "a volume", volume)
    # Two columns of 800: the taller image makes the row 800 high; below 460 of views and 480 from above.
    assert picture.shape == (800 + 460 + 480, 1600, 3)
    assert picture[400, 400].tolist() == [0, 0, 255] and picture[400, 1200].tolist() == [255, 255, 255]
    blue = (np.abs(picture[1260:].astype(int) - OCC3D_NUSCENES.colours[CAR]).max(-1) < 80).any(axis=0)
    assert blue[:480].any() and blue[480:1120].any() and blue[1120:].any()  # volume, legend, truth
    assert demo_picture(views, [["left"], ["right"]], volume, "alone").shape == (2 * 800 + 720, 1600, 3)
    shown = legend([volume], 640, 480)
    assert [any((shown == OCC3D_NUSCENES.colours[label]).all(-1).ravel()) for label in (CAR, ROAD, 3)] == [1, 1, 0]
    for width, height in ((640, 480), (480, 240)):  # beside a truth, and alone
        shown = legend([volume], width, height)
        for colour in (FREE_COLOUR, UNKNOWN_COLOUR):
            assert (shown == colour).all(-1).sum() == 21 * 21  # a square of 23 pixels with its border


@pytest.mark.parametrize(
    "names, truth, options",
    [
        (OCC3D_NUSCENES.names, [17, 4], ["--classes", "occ3d_nuscenes"]),
        (GROUND_OBSTACLE.names, [17, 4], ["--classes", "ground_obstacle", "--truth-classes", "occ3d_nuscenes"]),
        (GROUND_OBSTACLE.names, [2, 0, 1, 255], ["--classes", "ground_obstacle"]),
        (("one", "two"), [1], []),
    ],
)
def test_volumes_are_compared_in_the_class_table_of_their_network(tmp_path, names, truth, options):
    np.savez(tmp_path / "volume.npz", semantics=np.zeros((1, 1, 1), np.uint8), class_names=np.array(names))
    np.savez(tmp_path / "truth.npz", semantics=np.array(truth, np.uint8).reshape(-1, 1, 1))
    assert tables_of(tmp_path / "volume.npz", tmp_path / "truth.npz") == options


def test_truth_that_names_its_class_table_is_not_guessed_from_its_ids(tmp_path):
    names = np.array(GROUND_OBSTACLE.names)
    np.savez(tmp_path / "volume.npz", semantics=np.zeros((1, 1, 1), np.uint8), class_names=names)
    np.savez(tmp_path / "truth.npz", semantics=np.full((1, 1, 1), 17, np.uint8))
    (tmp_path / "truth.json").write_text("{}")  # `renderocc metrics` reads it
    assert tables_of(tmp_path / "volume.npz", tmp_path / "truth.npz") == ["--classes", "ground_obstacle"]
