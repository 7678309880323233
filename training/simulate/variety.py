"""The kinds of variation that `renderocc simulate` can draw at random. Each has its own random numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["KINDS", "stream"]

# Name: what is drawn. Random streams are numbered in this order, so new kinds must be added at the end.
KINDS = {
    "rig": "cameras: number, mounts, lenses, sizes, lost images, and the car's own body in view",
    "light": "sun low or high, overcast sky, dusk, night with street lamps and headlights",
    "weather": "haze, fog, rain and wet roads",
    "exposure": "images that are too bright or too dark",
    "blur": "lenses out of focus and motion blur",
    "noise": "sensor noise, and the cameras' noise reduction",
    "jpeg": "JPEG quality from 25 to 97",
    "colour": "white balance, saturation, contrast, vignette",
    "slopes": "steeper and shorter hills, and a car body that pitches and rolls",
    "materials": "colours, contrast and scale of surfaces, markings and stains",
    "ground": "kerbs from flush to high, grass or gravel in place of sidewalks, fields above and below the road",
}
_FIRST = 7000  # the streams of the town have small numbers


def stream(seed: int, kind: str, number: int = 0) -> np.random.Generator:
    """Random numbers for one kind of variation. They do not depend on which other kinds are drawn.

    Args:
        seed: seed of the recording.
        kind: a key of `KINDS`.
        number: number of the stream, if a kind has several, for example the frame.
    """
    return np.random.default_rng([seed, _FIRST + list(KINDS).index(kind), number])
