"""The image quality of different cameras: exposure, blur, noise, rain on the lens, colours and JPEG quality."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .shade import BRIGHTEST, tone
from .variety import stream
from .write import JPEG_QUALITY

__all__ = ["Imaging", "blurred_by_motion", "draw_imaging", "lattice", "photograph"]

_SHARP = 0.55  # pixels: the blur of a good lens
_NOISIEST = 25.0  # factor of the noise variance, also at night
_LATTICE = 4  # spacing in pixels of the lattice on which motion is computed


@dataclass(frozen=True)
class Imaging:
    """The image quality of a camera. The defaults are those of a good camera.

    Attributes:
        stops, jitter: exposure above the metered one, and its standard deviation from image to image, in stops.
        shutter: seconds over which motion is smeared.
        defocus: standard deviation of the lens's blur, pixels.
        sharpening: share of the detail lost to blur that is added again, 0 to about 1.5.
        noise: factor of the sensor's noise variance.
        smoothing: standard deviation of the blur against noise, pixels; 0 for none.
        blotches: amplitude of coarse colour noise.
        quality: JPEG quality, 1 to 100.
        balance: (3,) factors of red, green and blue.
        saturation, contrast: factors.
        lift: brightness of black, 0 to 1.
        vignette: how much darker the corners are.
        drops: number of water drops on the lens.
    """

    stops: float = 0.0
    jitter: float = 0.15
    shutter: float = 0.0
    defocus: float = _SHARP
    sharpening: float = 0.0
    noise: float = 1.0
    smoothing: float = 0.0
    blotches: float = 0.0
    quality: int = JPEG_QUALITY
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    contrast: float = 1.0
    lift: float = 0.0
    vignette: float = 0.16
    drops: int = 0


def draw_imaging(seed: int, kinds: frozenset[str], rain: float, count: int) -> list[Imaging | None]:
    """Draw the image quality of a car's cameras, which are similar but not equal. None if `kinds` varies none of it.

    Args:
        seed: seed of the recording.
        kinds: which of exposure, blur, noise, jpeg and colour vary.
        rain: rain of the weather, 0 to 1.
        count: number of cameras.
    """
    if not rain and not kinds & set(_DRAWS):
        return [None] * count
    imagings = [Imaging()] * count
    for kind, draw in _DRAWS.items():
        if kind in kinds:
            common = stream(seed, kind)
            shared = common.random(8)
            for index in range(count):
                # Most of the variation is common to all cameras of the car; the rest is the camera's own.
                own = np.clip(shared + stream(seed, kind, 1 + index).normal(0, 0.06, 8), 0, 1)
                imagings[index] = replace(imagings[index], **draw(own))
    if rain:
        for index in range(count):
            wet = stream(seed, "weather", 1 + index)
            imagings[index] = replace(imagings[index], drops=int(wet.integers(0, 1 + round(14 * rain))))
    return list(imagings)


def _exposure(u: np.ndarray) -> dict:
    # Real cameras often expose for the sky, so that their images are darker than if exposed for the ground; but some
    # show a sunlit road as white.
    return {"stops": float(3.0 * (u[0] - 0.7) + 0.5 * (u[1] - 0.5)), "jitter": float(0.1 + 0.25 * u[2])}


def _blur(u: np.ndarray) -> dict:
    return {
        "shutter": float(0.0004 * 30 ** u[0]),
        "defocus": float(0.25 + 1.1 * u[1] ** 3.5),
        "sharpening": float(1.4 * max(u[2] - 0.3, 0)),
    }


def _noise(u: np.ndarray) -> dict:
    strong = u[0] ** 1.5
    return {
        "noise": float(0.3 * 60**strong),
        "smoothing": float(0.9 * strong * (u[1] > 0.5)),
        "blotches": float(0.05 * strong * max(u[2] - 0.4, 0)),
    }


def _jpeg(u: np.ndarray) -> dict:
    return {"quality": int(25 + 72 * u[0] ** 0.6)}


def _colour(u: np.ndarray) -> dict:
    warm, green = 0.5 * (u[0] - 0.5), 0.12 * (u[1] - 0.5)
    return {
        "balance": (float(np.exp(warm)), float(np.exp(green)), float(np.exp(-warm))),
        "saturation": float(0.3 + 0.75 * u[2]),
        "contrast": float(np.exp(0.65 * (u[3] - 0.35))),
        "lift": float(0.1 * max(u[5] - 0.6, 0)),
        "vignette": float(0.5 * u[6] ** 1.5),
    }


_DRAWS = {"exposure": _exposure, "blur": _blur, "noise": _noise, "jpeg": _jpeg, "colour": _colour}


def blurred_by_motion(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A linear image with motion blur.

    Args:
        image: (H, W, 3).
        flow: (h, w, 2) motion during the exposure, in pixels, on a coarser lattice over the same image.
    """
    height, width = image.shape[:2]
    flow = cv2.resize(flow.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    longest = float(np.abs(flow).max())
    if longest < 0.5:
        return image
    steps = int(np.clip(np.ceil(longest), 2, 9))
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    total = np.zeros_like(image)
    for part in (np.arange(steps) + 0.5) / steps - 0.5:
        x, y = columns + flow[..., 0] * np.float32(part), rows + flow[..., 1] * np.float32(part)
        total += cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(steps)


def lattice(shape: tuple[int, int]) -> np.ndarray:
    """Indices into the flattened image of the pixels whose motion is computed, (h, w)."""
    rows, columns = (np.arange(size // _LATTICE) * _LATTICE + _LATTICE // 2 for size in shape)
    return rows[:, None] * shape[1] + columns


def photograph(
    image: np.ndarray, imaging: Imaging, exposure: float, rain: float, horizon: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A photograph of linear radiance by a camera that is not ideal.

    Args:
        image: (H, W, 3) linear.
        imaging: the camera's image quality.
        exposure: multiplies the radiance.
        rain: 0 to 1; streaks in the air have the colour of the `horizon`, (3,) linear.
        rng: random numbers of this image.
    Returns:
        (H, W, 3) uint8 sRGB.
    """
    height, width = image.shape[:2]
    if rain:
        image = image + _streaks(height, width, rain, rng)[..., None] * horizon
    image = np.minimum(image * (np.array(imaging.balance, np.float32) * np.float32(exposure)), BRIGHTEST)
    image = cv2.GaussianBlur(image, (0, 0), imaging.defocus)
    if imaging.drops:
        image = _through_drops(image, imaging.drops, rng)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32) * (height / width)
    image *= np.maximum(1 - np.float32(imaging.vignette) * (x[None] ** 2 + y[:, None] ** 2), 0)[..., None]
    gain = max(1.0, 0.4 * exposure)  # dark images are amplified, and their noise with them
    variance = np.float32(min(imaging.noise * gain, _NOISIEST)) * (np.float32(0.00006) + np.float32(0.0007) * image)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.sqrt(variance)
    if imaging.blotches:
        coarse = rng.standard_normal((height // 6 + 1, width // 6 + 1, 3), dtype=np.float32) * np.float32(
            imaging.blotches
        )
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.sqrt(np.maximum(image, 0))
    if imaging.smoothing:
        image = cv2.GaussianBlur(image, (0, 0), imaging.smoothing)
    return _graded(tone(image), imaging)


def _graded(picture: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Saturation, contrast and lift of an sRGB picture, then sharpening; uint8."""
    levels = np.arange(256, dtype=np.float32) / 255
    middle = np.float32(0.45)
    curve = np.clip(middle + (levels - middle) * np.float32(imaging.contrast), 0, 1)
    curve = np.float32(imaging.lift) + curve * np.float32(1 - imaging.lift)
    picture = cv2.LUT(picture, np.rint(curve * 255).astype(np.uint8))
    if imaging.saturation != 1:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        picture = cv2.addWeighted(picture, imaging.saturation, grey, 1 - imaging.saturation, 0)
    if imaging.sharpening:
        soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
        picture = cv2.addWeighted(picture, 1 + imaging.sharpening, soft, -imaging.sharpening, 0)
    return picture


def _streaks(height: int, width: int, rain: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 share of the horizon's light that falling rain adds: slanting streaks, longer for near drops."""
    layer = np.zeros((height, width), np.uint8)
    slant = rng.uniform(-0.25, 0.25)
    count = int(rain * height * width / 700)
    x, y = rng.uniform(0, width, count), rng.uniform(-0.1 * height, height, count)
    length = height * (0.015 + 0.1 * rng.random(count) ** 3)
    bright = rng.integers(20, 90, count)
    for column, row, long, light in zip(x, y, length, bright):
        end = (round(column + slant * long), round(row + long))
        cv2.line(layer, (round(column), round(row)), end, int(light), 1, cv2.LINE_AA)
    return cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 0.6) * np.float32(1 / 255)


def _through_drops(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The image through drops on the lens: inside a drop it is out of focus and a little brighter."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for x, y, radius in zip(rng.uniform(0, width, count), rng.uniform(0, height, count), rng.random(count)):
        reach = max(height * (0.02 + 0.09 * radius**2), 1.5)
        cv2.ellipse(mask, (round(x), round(y)), (round(reach), round(reach * 1.15)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    share = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), height * 0.012)[..., None]
    soft = cv2.GaussianBlur(image, (0, 0), height * 0.045)
    return image + (soft * np.float32(1.06) - image) * share
