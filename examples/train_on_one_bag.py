"""Train a network on one recording with 2D labels, and predict with it.

    python examples/train_on_one_bag.py [RECORDING] [--out FOLDER] [--steps 200]

Without RECORDING a drive through a simulated town is recorded first, with its labels. A recording of yours needs them:
`renderocc label` makes labels. A few hundred steps on one recording show that everything works, they make no good
network; docs/training.md says what does.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from predict_without_ros import first_frame

from renderocc_model import Predictor
from training.data.prepare import PrepareConfig, prepare_recording
from training.simulate.record import Settings, record
from training.simulate.sensors import town_rig
from training.train import main as train


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("recording", type=Path, nargs="?", help="a rosbag2 with labels")
    options.add_argument("--out", type=Path, default=Path("example_output/train"))
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--rays", type=int, default=8000, help="labelled rays of a step")
    arguments = options.parse_args()
    out: Path = arguments.out
    recording = arguments.recording
    if recording is None:
        recording = out / "town"
        if not recording.exists():
            out.mkdir(parents=True, exist_ok=True)
            record(recording, town_rig(352, 128), Settings(seed=7, frames=10, lidar=False, truth=False))

    # Labelled pixels of every frame as memory-mapped tables: loading a sample is then an image and a few slices.
    tables = prepare_recording(recording, None, out / "tables", PrepareConfig())
    print(f"prepared {tables}")

    # Settings as in config/train_tiny.yaml; --config takes such a file. Given again, the command goes on.
    status = train(
        [
            *("--out", str(out / "run")),
            *("model.preset=tiny", f"data.prepared={out / 'tables'}", "supervision.mode=both"),
            *(f"steps={arguments.steps}", f"sample.rays={arguments.rays}", "optimiser.warm_up=20", "run.workers=1"),
        ]
    )
    if status:
        return status

    rig, images = first_frame(recording)
    occupancy = Predictor(out / "run" / "checkpoint.safetensors", rig)(images)
    occupied = occupancy.visible & (occupancy.semantics < occupancy.classes.free)
    print(f"the trained network sees {int(occupied.sum())} occupied voxels in the first frame")
    return 0


if __name__ == "__main__":
    sys.exit(main())
