"""What `renderocc simulate` can draw at random beside the town, each kind with its own random numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["KINDS", "stream"]

# Name: what is drawn. The order is that of the streams: new kinds go last.
KINDS = {
    "rig": "cameras: number, mounts, lenses, sizes, lost images, and the car's own body in view",
    "light": "sun low or high, overcast sky, dusk, night with street lamps and headlights",
    "weather": "haze, fog, rain, wet roads",
    "exposure": "pictures too bright or too dark",
    "blur": "lenses out of focus, motion during the exposure",
    "noise": "sensor noise, and what cameras do against it",
    "jpeg": "JPEG quality from 25 to 97",
    "colour": "white balance, saturation, contrast, vignette",
    "slopes": "steeper and shorter hills, a body that pitches and rolls",
    "materials": "colours, contrast and scale of surfaces, markings, stains",
}
_FIRST = 7000  # the town's own streams have small numbers


def stream(seed: int, kind: str, number: int = 0) -> np.random.Generator:
    """Random numbers for one kind of variety: what one draws does not depend on whether others are drawn at all.

    Args:
        seed: of the recording.
        kind: a key of `KINDS`.
        number: tells several streams of one kind apart, for example by frame.
    """
    return np.random.default_rng([seed, _FIRST + list(KINDS).index(kind), number])
