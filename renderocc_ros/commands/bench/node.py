"""The node without its network against the conventional baseline, each in a process of its own.

One frame is six raw 1600x900 bgr8 images with their camera_infos and a /tf message, from serialised messages to network
input, then 50,000 occupied surface voxels from a volume to serialised MarkerArray, PointCloud2 and OccupancyGrid.
Receiving and sending belong to the middleware and cost the same for both. Turning messages into Python objects and back
belongs to the node.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
YAWS = (0.0, 0.96, -0.96, 3.14159, 1.92, -1.92)
WIDTH, HEIGHT = 1600, 900
VOXELS = 50_000
PARTS = ("ours", "conventional")
STAGES = ("receiving and matching", "input", "output")


def serialised_frame(index: int, pixels: np.ndarray) -> tuple[list[bytes], list[bytes], bytes]:
    """Images, camera_infos and a /tf message of frame `index`, as they arrive."""
    from geometry_msgs.msg import TransformStamped
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage

    images, infos = [], []
    focal = 0.8 * WIDTH
    for camera in CAMERAS:
        image = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
        image.data.frombytes(pixels.tobytes())
        info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", d=[-0.1, 0.02, 0.0, 0.0, 0.0])
        info.k = [focal, 0.0, WIDTH / 2, 0.0, focal, HEIGHT / 2, 0.0, 0.0, 1.0]
        for message in (image, info):
            message.header.stamp.sec, message.header.frame_id = 1000 + index, f"{camera}_optical"
        images.append(serialize_message(image))
        infos.append(serialize_message(info))
    transform = TransformStamped(child_frame_id="base_link")
    transform.header.frame_id, transform.header.stamp.sec = "odom", 1000 + index
    transform.transform.translation.x = float(index)
    return images, infos, serialize_message(TFMessage(transforms=[transform]))


def occupancy_with_surface():
    """A 200x200x16 volume whose surface is exactly VOXELS voxels: single voxels with free space between them."""
    from renderocc_model.field.classes import OCC3D_NUSCENES
    from renderocc_model.field.occupancy import Occupancy
    from renderocc_model.geometry.grid import OCC3D_GRID

    generator = np.random.default_rng(0)
    semantics = np.full(OCC3D_GRID.shape, OCC3D_NUSCENES.free, np.uint8)
    x, y, z = (index.ravel() for index in np.meshgrid(*(np.arange(size) for size in OCC3D_GRID.shape), indexing="ij"))
    chosen = np.flatnonzero((x + y + z) % 2 == 0)[:VOXELS]  # a checkerboard: no two of them touch
    semantics[x[chosen], y[chosen], z[chosen]] = generator.integers(0, OCC3D_NUSCENES.free, VOXELS)
    confidence = generator.uniform(0.5, 1.0, OCC3D_GRID.shape).astype(np.float32)
    return Occupancy(OCC3D_GRID, OCC3D_NUSCENES, semantics, confidence, np.ones(OCC3D_GRID.shape, bool))


def our_stages() -> dict[str, Callable]:
    """{stage: function of (images, infos, tf)} of this package's node. Each stage uses the result of the one before."""
    import torch

    from renderocc_model.geometry.mount_entries import quaternion_from_euler
    from renderocc_model.geometry.mounts import BODY_FROM_OPTICAL
    from renderocc_model.geometry.transforms import transform_from
    from renderocc_model.images.preprocessing import normalise
    from renderocc_model.rosio.tf_buffer import TransformBuffer
    from renderocc_ros.frame.decoding import ViewTables, decode_view
    from renderocc_ros.frame.placement import place_cameras
    from renderocc_ros.health.throttled_log import ThrottledLog
    from renderocc_ros.input.intake import Intake
    from renderocc_ros.output import messages as outputs
    from renderocc_ros.parameters import NodeConfig

    config = NodeConfig(cameras=CAMERAS, max_future=0.0)
    tables, transforms = ViewTables(128, 352), TransformBuffer()
    intake = Intake(config, CAMERAS, transforms, ThrottledLog(print), ThrottledLog(lambda text: None), lambda: 0)
    mounts = {
        camera: transform_from(np.zeros(3), quaternion_from_euler(0, 0, yaw)) @ BODY_FROM_OPTICAL
        for camera, yaw in zip(CAMERAS, YAWS)
    }
    occupancy = occupancy_with_surface()
    state = {}

    def match(images, infos, tf):
        intake.add_tf(tf, static=False)
        for camera, info in zip(CAMERAS, infos):
            intake.add_camera_info(camera, info)
        for camera, image in zip(CAMERAS, images):
            intake.add(camera, bytes(memoryview(image)), False)
        matched = state["matched"] = intake.mailbox.take(0).matched
        frames = {camera: (image.frame_id, stamp_ns) for camera, (stamp_ns, image) in matched.entries.items()}
        placements = place_cameras(transforms, frames, matched.stamp_ns, "base_link", "odom", 0.0, mounts)
        assert len(placements.base_from_camera) == len(CAMERAS) and placements.odom_from_base is not None

    def decode(images, infos, tf):
        entries, calibrations = state["matched"].entries, intake.calibrations
        views = [
            decode_view(entries[camera][1], tables.of(camera, calibrations[camera].model, mounts[camera]))
            for camera in CAMERAS
        ]
        normalise(torch.from_numpy(np.stack(views)))

    def publish(images, infos, tf):
        surface = outputs.surface_voxels(occupancy)
        assert len(surface) == VOXELS
        outputs.markers_message(surface, occupancy.classes, occupancy.grid.voxel_size, 1, "base_link")
        outputs.points_message(surface, occupancy.classes, 1, "base_link")
        cells = outputs.height_band_cells(
            occupancy, config.grid_min_height, config.grid_max_height, config.grid_ignored_classes
        )
        outputs.grid_message(cells, occupancy, config.grid_min_height, 1, "base_link")

    return {"receiving and matching": match, "input": decode, "output": publish}


def conventional_stages() -> dict[str, Callable]:
    """The same three stages of the conventional baseline."""
    from renderocc_model.geometry.camera_model import CameraModel
    from renderocc_model.geometry.undistortion import network_view
    from renderocc_ros.commands.bench.conventional_baseline import (
        ConventionalInput,
        conventional_outputs,
        conventional_transforms,
    )

    focal = 0.8 * WIDTH
    K = np.array([[focal, 0.0, WIDTH / 2], [0.0, focal, HEIGHT / 2], [0.0, 0.0, 1.0]])
    view = network_view(CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (-0.1, 0.02, 0.0, 0.0, 0.0)), 128, 352)
    inputs: dict[str, ConventionalInput] = {}
    occupancy = occupancy_with_surface()
    state = {}

    def match(images, infos, tf):
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import CameraInfo, Image

        conventional_transforms(tf)
        for camera, info in zip(CAMERAS, infos):
            deserialize_message(info, CameraInfo)
            if camera not in inputs:
                inputs[camera] = ConventionalInput(info, view)
        # A synchroniser holds one message of each camera until all are there.
        state["messages"] = [deserialize_message(image, Image) for image in images]

    def decode(images, infos, tf):
        np.stack([inputs[camera].network_input(message) for camera, message in zip(CAMERAS, state["messages"])])

    def publish(images, infos, tf):
        conventional_outputs(occupancy)

    return {"receiving and matching": match, "input": decode, "output": publish}


def measure(part: str, frames: int) -> dict:
    """CPU seconds of each stage as medians over frames, and the process's peak memory without what loading took."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pixels = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    stages = our_stages() if part == "ours" else conventional_stages()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent: dict[str, list[float]] = {stage: [] for stage in stages}
    for index in range(frames + 1):  # the first frame is not counted: it makes tables and loads libraries
        frame = serialised_frame(index, pixels)
        for stage, function in stages.items():
            start = time.process_time()
            function(*frame)
            if index:
                spent[stage].append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "stages": {stage: float(np.median(values)) for stage, values in spent.items()},
        "total": float(np.median(np.sum(list(spent.values()), axis=0))),
        "memory_kib": peak - before,
    }


def run(frames: int) -> dict:
    """Measure both, each in its own process with one thread. Returns {part: result of `measure`}."""
    results = {}
    for part in PARTS:
        done = subprocess.run([sys.executable, "-m", __name__, part, str(frames)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"`bench node` {part}: {done.stderr.strip()[-2000:]}")
        results[part] = json.loads(done.stdout.strip().splitlines()[-1])
    return results


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
