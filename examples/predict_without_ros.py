"""Predict the occupancy around a vehicle from a recording, without ROS.

    python examples/predict_without_ros.py [RECORDING] [--out FOLDER]

Without RECORDING, the path of a rosbag2, a frame of a simulated town is recorded first. FOLDER gets `volume.npz`, in
Occ3D's layout, and `volume.png`, a picture of it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from renderocc_model import Camera, Predictor, Rig
from renderocc_model.field.drawing import perspective_view
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio.cdr import CompressedImageMessage, ImageMessage
from training.recordings.frames import Recording
from training.simulate.record import Settings, record
from training.simulate.sensors import town_rig


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("recording", type=Path, nargs="?", help="a rosbag2 with images, camera_info and TF")
    options.add_argument("--out", type=Path, default=Path("example_output/predict"))
    arguments = options.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    recording = arguments.recording or simulated(out / "town")

    rig, images = first_frame(recording)
    predictor = Predictor("tiny", rig)  # the network in the package; or the path of a checkpoint of yours
    for warning in predictor.warnings:
        print(f"caution: {warning}")
    occupancy = predictor(images)

    known = occupancy.semantics[occupancy.visible]
    names = [predictor.classes.names[index] for index in known[known < len(predictor.classes)]]
    for name, count in Counter(names).most_common(5):
        print(f"{count:7} seen voxels are {name}")
    np.savez_compressed(out / "volume.npz", semantics=occupancy.semantics, mask_camera=occupancy.visible)
    cv2.imwrite(str(out / "volume.png"), perspective_view(occupancy)[..., ::-1])
    print(f"wrote {out / 'volume.npz'} and {out / 'volume.png'}")


def simulated(folder: Path) -> Path:
    """A recording of one frame of a town; made once."""
    if not folder.exists():
        record(folder, town_rig(704, 256), Settings(seed=7, frames=1))
    return folder


def first_frame(path: Path) -> tuple[Rig, dict[str, np.ndarray]]:
    """The cameras of a recording, and their pictures (H, W, 3), uint8 RGB, at the first moment that has any."""
    cameras, images = [], {}
    with Recording(path) as recording:
        frame = recording.frames()[0]
        for name, stamp in frame.images.items():
            mount = recording.base_from_camera(name, stamp, frame.stamp_ns)
            cameras.append(Camera(name, recording.models[name], mount))
            images[name] = decoded(recording.image_message(name, stamp))
    return Rig(tuple(cameras)), images


def decoded(message: ImageMessage | CompressedImageMessage) -> np.ndarray:
    if isinstance(message, CompressedImageMessage):
        return decode_compressed(message.data)
    size = message.height, message.width, message.step
    return decode_raw(message.data, *size, message.encoding, message.is_bigendian)


if __name__ == "__main__":
    main()
