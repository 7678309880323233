"""A sheet of images: the first views of the cameras of some seeds, a row for each seed.

python3 -m training.simulate.sheet 1100 1101 1102 --random-all --out sheet.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .record import SensorSimulator, Settings, frame_ns
from .rigs import Vehicle, random_vehicle
from .sensors import town_rig
from .town import build_town
from .variety import KINDS

__all__ = ["row_of_pictures", "sheet"]

_GAP = 3  # pixels


def row_of_pictures(seed: int, varied: frozenset[str], width: int, height: int, frame: int = 0) -> np.ndarray:
    """The images of one seed's cameras side by side, after JPEG, (height, any, 3) uint8 RGB.

    Args:
        varied: keys of `variety.KINDS`.
        width: image width of the cameras.
        height: image height on the sheet.
        frame: number of the frame, at two frames per second.
    """
    vehicle = random_vehicle(seed, width) if "rig" in varied else Vehicle(town_rig(width, round(width * 4 / 11)))
    settings = Settings(seed, frame + 1, lidar=False, labels=False, truth=False, varied=varied)
    simulator = SensorSimulator(build_town(seed, frame_ns(settings, frame) / 1e9 + 1.0, varied), vehicle, settings)
    pictures = []
    for number in range(len(vehicle.rig)):
        jpeg = np.frombuffer(simulator.work((frame, (number,)))[0]["image_raw"], np.uint8)
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        picture = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        size = (round(picture.shape[1] * height / picture.shape[0]), height)
        pictures += [cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.full((height, _GAP, 3), 255, np.uint8)]
    return np.concatenate(pictures[:-1], 1)


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images below one another, padded with white."""
    widest = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)[:-_GAP]


def main(argv: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(prog="python3 -m training.simulate.sheet", description=__doc__.splitlines()[0])
    made.add_argument("seeds", type=int, nargs="+")
    made.add_argument("--out", type=Path, required=True, help="image file to write, .jpg or .png")
    for kind in KINDS:
        made.add_argument(f"--random-{kind}", action="append_const", dest="varied", const=kind)
    made.add_argument("--random-all", action="store_true")
    made.add_argument("--width", type=int, default=352, help="image width of the cameras (default 352)")
    made.add_argument("--height", type=int, default=100, help="image height on the sheet (default 100)")
    made.add_argument("--frame", type=int, default=0, help="number of the frame (default 0)")
    arguments = made.parse_args(argv)
    varied = frozenset(KINDS if arguments.random_all else arguments.varied or ())
    size = (arguments.width, arguments.height, arguments.frame)
    picture = sheet([row_of_pictures(seed, varied, *size) for seed in arguments.seeds])
    options = [cv2.IMWRITE_JPEG_QUALITY, 80] if arguments.out.suffix in (".jpg", ".jpeg") else []
    cv2.imwrite(str(arguments.out), picture[..., ::-1], options)
    print(f"wrote {arguments.out.resolve()}: {picture.shape[1]} x {picture.shape[0]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
