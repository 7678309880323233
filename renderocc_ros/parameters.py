"""The node's parameters: one frozen dataclass. ROS declarations, checks and the README's table are made from it."""

from __future__ import annotations

import os
from pathlib import Path

from renderocc_model.base.config import configuration, setting
from renderocc_model.inference.map_config import MapConfig
from renderocc_model.rosio.vehicle import Vehicle

# Parameters that `ros2 param set` can change while the node runs. The others are read when the node is configured.
RUNTIME_PARAMETERS = {
    "threshold",
    "max_markers",
    "grid_min_height",
    "grid_max_height",
    "grid_ignored_classes",
    "rendered_stride",
    "save_directory",
    "map.max_voxels",
    "map.rate",
    "map.grid_period",
    "map.memory",
    "map.gain",
    "map.hit",
    "map.miss",
    "map.highest",
    "map.lowest",
    "map.dynamic_highest",
    "map.dynamic_frames",
    "map.dynamic_decay",
}


@configuration
class MapParameters(MapConfig):
    """The map's parameters: how it remembers, and how it is published."""

    enabled: bool = setting(True, "whether a map of the last frames is kept, which needs odometry")
    max_voxels: int = setting(
        100_000,
        "largest number of voxels in ~/map/points and ~/map/markers; those nearest to the vehicle are kept",
        minimum=0,
        maximum=1_000_000,
    )
    rate: float = setting(
        0.0, "most messages a second on each topic of the map; 0: one for each frame [Hz]", minimum=0.0, maximum=100.0
    )
    grid_period: float = setting(
        1.0,
        "longest time between two whole grids on ~/map/grid; in between, ~/map/grid_updates has what has changed [s]",
        minimum=0.0,
        maximum=60.0,
    )


@configuration
class NodeConfig(Vehicle):
    """Every parameter of the node `renderocc`: those of the vehicle, and its own.

    Raises:
        ValueError: a value is out of its range, or two values contradict each other; the text names the parameter.
    """

    anchor_camera: str = setting("", "camera whose stamps the outputs have; empty: the first of `cameras`")

    # Transforms
    tf_timeout: float = setting(
        0.1, "longest wait of a frame for the ego pose at its image stamps [s]", minimum=0.0, maximum=5.0
    )
    startup_grace: float = setting(
        2.0,
        "longest wait of the first images for the mounts and calibrations of their cameras, "
        "which may come later in a recording [s]",
        minimum=0.0,
        maximum=60.0,
    )
    tf_history: float = setting(10.0, "time for which transforms of /tf are kept [s]", minimum=0.5, maximum=600.0)

    # Matching
    max_camera_time_diff: float = setting(
        0.1,
        "largest difference between the stamps of an image and of the anchor's image in one frame [s]",
        minimum=0.0,
        maximum=5.0,
    )
    max_wait: float = setting(
        0.15,
        "longest wait of a frame for its other cameras, from the arrival of the anchor's image [s]",
        minimum=0.0,
        maximum=5.0,
    )
    camera_timeout: float = setting(
        2.0,
        "time of silence after which a camera is reported and frames do not wait for it [s]",
        minimum=0.05,
        maximum=60.0,
    )
    min_cameras: int = setting(
        1, "least number of usable cameras in a frame; with fewer, nothing is published", minimum=1, maximum=64
    )
    max_future: float = setting(
        1.0,
        "largest time that an image's stamp may be ahead of the node's clock; others are dropped [s]; 0: no limit",
        minimum=0.0,
        maximum=3600.0,
    )

    # Network
    checkpoint: str = setting(
        "",
        "path of a .safetensors checkpoint, or of a file that `renderocc export` wrote; "
        "empty: the network of `preset` that comes with the package",
    )
    preset: str = setting(
        "tiny",
        "network to use if `checkpoint` is empty; the package has a trained `tiny`, "
        "the others are untrained and their output means nothing",
        choices=("tiny", "base", "paper"),
    )
    device: str = setting(
        "auto",
        "device of the network; auto: CUDA if there is a GPU, else the CPU; "
        "intel_gpu, intel_npu: by OpenVINO, not tried so far",
        choices=("auto", "cpu", "cuda", "intel_gpu", "intel_npu"),
    )
    backend: str = setting(
        "auto",
        "library that runs the network; auto: onnxruntime for .onnx files, OpenVINO for .openvino files; for "
        "checkpoints OpenVINO, if it is installed and there is no CUDA device, else torch",
        choices=("auto", "torch", "onnxruntime", "tensorrt", "openvino"),
    )
    precision: str = setting(
        "auto",
        "numbers that the network computes with; "
        "auto: 16 bits if the device is fast with them (CUDA, CPUs with bfloat16), else float32",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    image_decoding: str = setting(
        "cpu",
        "device that decodes images; cuda: JPEG with nvJPEG, raw images with one kernel",
        choices=("cpu", "cuda"),
    )
    threshold: float = setting(
        0.0,
        "probability above which a voxel is occupied; 0: the threshold in the checkpoint",
        minimum=0.0,
        maximum=0.999,
    )
    cpu_threads: int = setting(0, "number of CPU threads of the network; 0: one for each core", minimum=0, maximum=256)

    # Outputs
    max_markers: int = setting(
        50_000, "largest number of cubes in ~/markers; the nearest voxels are kept", minimum=0, maximum=1_000_000
    )
    grid_min_height: float = setting(
        0.3, "lower edge of the height band of ~/grid above base_link [m]", minimum=-100.0, maximum=100.0
    )
    grid_max_height: float = setting(
        2.0, "upper edge of the height band of ~/grid above base_link [m]", minimum=-100.0, maximum=100.0
    )
    grid_ignored_classes: tuple[str, ...] = setting(
        ("driveable_surface", "other_flat", "sidewalk", "terrain", "ground"),
        "classes that count as ground, not as obstacles, in ~/grid",
    )
    rendered_stride: int = setting(
        4,
        "step between the rays of ~/rendered/<camera>, in pixels of the network's view; 4: one ray for 4 x 4 pixels",
        minimum=1,
        maximum=64,
    )
    save_directory: str = setting(
        "~/.ros/renderocc",
        "folder that ~/save writes to; "
        "while the node runs it can only be changed to a folder inside the one it started with",
    )
    map: MapParameters = MapParameters()
    diagnostics_period: float = setting(1.0, "time between two messages on /diagnostics [s]", minimum=0.1, maximum=60.0)
    autostart: bool = setting(True, "whether the node configures and activates itself, once its cameras are there")

    def check(self) -> None:
        super().check()
        if self.anchor_camera and self.cameras and self.anchor_camera not in self.cameras:
            raise ValueError(
                f"parameter 'anchor_camera' is {self.anchor_camera!r}, "
                f"which is not one of 'cameras' {list(self.cameras)}"
            )
        if self.cameras and self.min_cameras > len(self.cameras):
            raise ValueError(
                f"parameter 'min_cameras' is {self.min_cameras}, but there are only {len(self.cameras)} cameras"
            )
        if self.grid_min_height >= self.grid_max_height:
            raise ValueError(
                f"parameter 'grid_min_height' ({self.grid_min_height}) must be below "
                f"'grid_max_height' ({self.grid_max_height})"
            )

    def save_path(self) -> Path:
        return Path(os.path.expandvars(self.save_directory)).expanduser().resolve()
