"""`renderocc bench`: that the two ways it compares do the same work with the same results, and that it reports them."""

import json

import cv2
import numpy as np
import pytest
import torch
from nav_msgs.msg import OccupancyGrid
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from system import new_domain, transform_message
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from renderocc_model import bench as bench_command
from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import transform_from
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.preprocessing import normalise
from renderocc_model.rosio import cdr
from renderocc_ros.commands import bench
from renderocc_ros.commands.bench import node as bench_node
from renderocc_ros.commands.bench import whole
from renderocc_ros.commands.bench.conventional_baseline import (
    ConventionalInput,
    conventional_outputs,
    conventional_transforms,
)
from renderocc_ros.frame.decoding import decode_view
from renderocc_ros.input.intake import CameraImage
from renderocc_ros.output import messages as outputs

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def threads_as_before():
    """`measure` sets the threads of its process, which is one of its own otherwise."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture
def small_images(monkeypatch):
    """A tenth of the size, so that the frame is made quickly; the stages are the same."""
    monkeypatch.setattr(bench_node, "WIDTH", 480)
    monkeypatch.setattr(bench_node, "HEIGHT", 270)


@pytest.mark.parametrize("part", bench_node.PARTS)
def test_one_frame_of_either_way_gives_the_time_of_each_stage(small_images, monkeypatch, part):
    monkeypatch.setattr(bench_node, "VOXELS", 500)
    result = bench_node.measure(part, frames=1)
    assert tuple(result["stages"]) == bench_node.STAGES
    assert all(seconds >= 0 for seconds in result["stages"].values())
    assert result["total"] == pytest.approx(sum(result["stages"].values()))  # one frame: its median is itself
    assert result["memory_kib"] >= 0
    json.dumps(result)  # what it hands over to the process that compares


def test_each_way_is_measured_by_a_process_of_its_own_whose_last_line_counts(monkeypatch, tmp_path):
    """A program in Python's place that says with what it was called, after what libraries like to print."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "a library says hello"\necho "{\\"called\\": \\"$*\\"}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(bench_node.sys, "executable", str(program))
    assert bench_node.run(7) == {
        part: {"called": f"-m renderocc_ros.commands.bench.node {part} 7"} for part in ("ours", "conventional")
    }


def test_a_way_that_fails_is_named_with_what_it_printed(monkeypatch):
    monkeypatch.setattr(bench_node, "PARTS", ("ours",))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(bench_node.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="`bench node` ours: "):
        bench_node.run(1)


def test_the_volume_of_the_bench_shows_as_many_voxels_as_it_says():
    occupancy = bench_node.occupancy_with_surface()
    assert occupancy.occupied.sum() == len(outputs.surface_voxels(occupancy)) == bench_node.VOXELS == 50_000


# ---- the same results ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def occupancy() -> Occupancy:
    """Some of everything: 20 % of the voxels occupied by any class, 30 % unknown."""
    generator = np.random.default_rng(5)
    grid = VoxelGrid((-4.0, -4.0, -1.0), (4.0, 4.0, 5.4), 0.4)  # 20 x 20 x 16
    semantics = np.full(grid.shape, OCC3D_NUSCENES.free, np.uint8)
    draw = generator.uniform(size=grid.shape)
    semantics[draw < 0.2] = generator.integers(0, OCC3D_NUSCENES.free, (draw < 0.2).sum())
    semantics[draw > 0.7] = UNLABELLED
    confidence = generator.uniform(0.1, 1.0, grid.shape).astype(np.float32)
    return Occupancy(grid, OCC3D_NUSCENES, semantics, confidence, semantics != UNLABELLED)


@pytest.fixture(scope="module")
def both(occupancy) -> tuple[tuple, tuple]:
    """(markers, cloud, grid) as ROS reads them: ours, the conventional baseline's."""
    surface = outputs.surface_voxels(occupancy)
    cells = outputs.height_band_cells(occupancy, 0.6, 2.2, ())  # the voxels 4 ... 7, as the baseline takes them
    ours = (
        outputs.markers_message(surface, occupancy.classes, occupancy.grid.voxel_size, 0, "base_link"),
        outputs.points_message(surface, occupancy.classes, 0, "base_link"),
        outputs.grid_message(cells, occupancy, 0.6, 0, "base_link"),
    )
    types = (MarkerArray, PointCloud2, OccupancyGrid)
    return tuple(
        tuple(deserialize_message(buffer, kind) for buffer, kind in zip(buffers, types))
        for buffers in (ours, conventional_outputs(occupancy))
    )


def test_both_ways_publish_the_same_cubes(both):
    (ours,), (conventional,) = both[0][0].markers, both[1][0].markers
    assert len(ours.points) == len(ours.colors) > 1000
    places = [np.array([[point.x, point.y, point.z] for point in marker.points]) for marker in (ours, conventional)]
    np.testing.assert_allclose(*places, atol=1e-6)  # single precision on our side
    colours = [np.array([[c.r, c.g, c.b, c.a] for c in marker.colors]) for marker in (ours, conventional)]
    np.testing.assert_array_equal(*colours)
    for name in ("header", "ns", "id", "type", "action", "pose", "scale"):
        assert getattr(ours, name) == getattr(conventional, name), name


def test_both_ways_publish_the_same_cloud_byte_for_byte(both):
    ours, conventional = both[0][1], both[1][1]
    assert bytes(ours.data) == bytes(conventional.data)
    assert ours == conventional


def test_both_ways_publish_a_grid_of_the_same_cells(both):
    """In its band, and without the classes that are ground, which the conventional baseline does not know."""
    ours, conventional = both[0][2], both[1][2]
    assert (ours.info.width, ours.info.height, ours.info.resolution) == (20, 20, conventional.info.resolution)
    assert list(ours.data) == list(conventional.data)
    assert set(ours.data) == {-1, 0, 100}


def test_both_ways_give_the_network_the_same_input():
    """Of a smooth picture: they average to a quarter of the size in different orders, which noise would tell apart."""
    width, height = bench_node.WIDTH, bench_node.HEIGHT
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    picture = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2) * 100 + 128
    image = Image(height=height, width=width, encoding="bgr8", step=3 * width, data=picture.astype(np.uint8).tobytes())
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[-0.1, 0.02, 0.0, 0.0, 0.0])
    info.k = [0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0]
    model = CameraModel(width, height, np.array(info.k).reshape(3, 3), "plumb_bob", tuple(info.d))
    view = network_view(model, 128, 352)
    conventional = ConventionalInput(serialize_message(info), view).network_input(image)
    ours = decode_view(CameraImage(serialize_message(image), False, "", 0.0), UndistortTable(model, view))
    ours = normalise(torch.from_numpy(ours[None]))[0].numpy()
    assert conventional.shape == ours.shape == (3, 128, 352) and conventional.dtype == np.float32
    # Two grey levels of 255, divided by a standard deviation of 0.225, are 0.035.
    assert np.abs(conventional - ours).max() < 0.036


def test_both_ways_read_the_same_transforms():
    message = transform_message("odom", "base_link", 7, (1.0, -2.0, 0.5), (0.5, -0.5, 0.5, 0.5))
    buffer = serialize_message(TFMessage(transforms=[message]))
    (conventional,), (ours,) = conventional_transforms(buffer), cdr.read_tf(buffer)
    np.testing.assert_allclose(
        conventional, transform_from(np.array(ours.translation), np.array(ours.quaternion)), atol=1e-12
    )


# ---- the whole node ---


def test_the_whole_node_is_played_to_and_measured(monkeypatch):
    monkeypatch.setattr(whole, "FLOOD", 3.0)
    figures = whole.measure(whole.Kind(320, 200, True), frames=2, domain=new_domain(), parameters={"cpu_threads": "1"})
    assert figures["frames_per_second"] > 0 and set(figures["stages"]) == set(whole.STAGES)
    latency = figures["latency"]
    assert 0 < latency["median"] <= latency["p99"] < whole.ONE_FRAME
    json.dumps(figures)


def test_a_node_that_does_not_come_up_is_named_with_what_it_printed(monkeypatch):
    monkeypatch.setattr(whole, "START_UP", 10.0)
    with pytest.raises(whole.NodeFailed, match="(?s)(ended with status|published nothing).*cpu_threads"):
        whole.measure(whole.KINDS[1], frames=1, domain=new_domain(), parameters={"cpu_threads": "many"})


def test_the_pictures_that_are_played_are_as_large_as_a_cameras():
    jpeg = cv2.imencode(".jpg", whole.street_like(1600, 900, 0), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    assert 100_000 < jpeg.size < 200_000  # those of nuScenes: 142 kB


# ---- the command ---------------------------------------------------------------------------


def results() -> dict:
    """What `run` returns, with numbers whose ratios can be seen."""

    def of(milliseconds: float, kib: int) -> dict:
        return {
            "stages": dict.fromkeys(bench_node.STAGES, milliseconds / 1000),
            "total": 3 * milliseconds / 1000,
            "memory_kib": kib,
        }

    return {"ours": of(10.0, 20 * 1024), "conventional": of(200.0, 100 * 1024)}


def played(frames: int) -> dict:
    """What `whole.run` returns."""
    stages = dict(zip(whole.STAGES, (0.001, 0.008, 0.12, 0.004, 0.133)))
    latency = {"median": 0.140, "p99": 0.200}
    return {
        kind.name: {"frames_per_second": 7.25, "latency": latency, "stages": stages, "image_bytes": 2048}
        for kind in whole.KINDS
    }


@pytest.fixture(autouse=True)
def no_node_but_in_its_own_test(monkeypatch):
    monkeypatch.setattr(whole, "run", played)


def test_the_table_shows_each_stage_of_both_ways_and_their_ratio(monkeypatch):
    monkeypatch.setattr(bench_node, "run", lambda frames: results())
    figures, lines = bench.bench_node(7)
    assert figures == {**results(), "whole": played(7)}
    row = "| 1600x900 JPEG, 2 KiB | 7.2 | 140.0 ms | 200.0 ms | 133.0 ms | 1.0 ms | 8.0 ms | 120.0 ms | 4.0 ms |"
    assert row in lines
    assert "6 raw 1600x900 images in, 50,000 voxels out" in lines[0] and "median of 7" in lines[0]
    for stage in (*bench_node.STAGES, "all"):
        before, after = ("600.0 ms", "30.0 ms") if stage == "all" else ("200.0 ms", "10.0 ms")
        assert f"| {stage} | {before} | {after} | 0.050 |" in lines
    assert "| peak memory | 100 MiB | 20 MiB | 0.20 |" in lines


def test_the_command_prints_machine_and_table_and_writes_the_figures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_node, "run", lambda frames: results())
    path = tmp_path / "bench.json"
    assert bench_command.main(["node", "--frames", "3", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed and "| all | 600.0 ms | 30.0 ms | 0.050 |" in printed
    assert str(path) in printed
    figures = json.loads(path.read_text())
    assert figures["node"] == {**results(), "whole": played(3)}
    assert "network" not in figures and "cores" in figures["machine"]


def test_no_frames_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench_command.main(["node", "--frames", "0"])
    assert "--frames is 0; give at least 1" in capsys.readouterr().err
