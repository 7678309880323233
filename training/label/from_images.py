"""Makes dense labels of one image from a depth image, a label image, or a segmentation network."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from renderocc_model.base.config import load_yaml
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio.cdr import CompressedImageMessage, ImageMessage
from training.recordings.label_images import LabelImageError, depth_image, png_image, raw_channel

from .mapping import ClassMapping, LabelError, mapping_from

__all__ = ["Segmenter", "recorded_classes", "recorded_depth"]

# compressed_depth_image_transport has an int32 format and two float32 before the PNG. For 32FC1 the PNG holds the
# quantised inverse depth, first / depth + second.
_DEPTH_HEADER = struct.Struct("<iff")
_IDS = {"mono8": np.uint8, "8UC1": np.uint8, "mono16": np.uint16, "16UC1": np.uint16}
_COLOURS = ("rgb8", "bgr8")


def recorded_depth(message: ImageMessage | CompressedImageMessage, height: int, width: int) -> np.ndarray:
    """Decode a depth image: raw 16UC1 or 32FC1, a 16-bit PNG, or compressedDepth of either.

    Returns:
        (height, width) float32 metres of z-depth; 0 is unknown.
    Raises:
        LabelImageError: the size or encoding is wrong, or the data is damaged.
    """
    if not isinstance(message, CompressedImageMessage) or "compressedDepth" not in message.format:
        return depth_image(message, height, width)
    if message.data.size <= _DEPTH_HEADER.size:
        raise LabelImageError(f"compressedDepth image of {message.data.size} bytes is cut off")
    if "rvl" in message.format.lower():
        raise LabelImageError(
            f"the format {message.format!r} is RVL, which is not read; set the publisher's compressedDepth format to "
            "png, or convert the topic with image_transport republish"
        )
    _, first, second = _DEPTH_HEADER.unpack_from(message.data.data)
    png = np.ascontiguousarray(message.data[_DEPTH_HEADER.size :])
    if message.format.split(";")[0].strip() != "32FC1":
        return depth_image(message._replace(format="png", data=png), height, width)
    inverse = png_image(png, height, width)
    if inverse.dtype != np.uint16 or inverse.ndim != 2:
        raise LabelImageError(f"compressedDepth holds {inverse.dtype} {inverse.shape}; expected one 16-bit channel")
    inverse = inverse.astype(np.float32)
    with np.errstate(divide="ignore"):
        depth = np.float32(first) / (inverse - np.float32(second))
    return np.where((inverse > 0) & np.isfinite(depth) & (depth > 0), depth, np.float32(0)).astype(np.float32)


def recorded_classes(
    message: ImageMessage | CompressedImageMessage, height: int, width: int, mapping: ClassMapping
) -> np.ndarray:
    """Decode a label image of ids (one channel of 8 or 16 bits) or colours (rgb8, bgr8, or a PNG of three channels).

    Returns:
        (height, width) uint8 class ids.
    Raises:
        LabelError: the mapping does not list an id or colour.
        LabelImageError: the size or encoding is wrong, or the data is damaged.
    """
    if isinstance(message, CompressedImageMessage):
        image = png_image(message.data, height, width)
        if image.ndim == 2:
            return mapping.of_ids(image)
        if image.dtype != np.uint8 or image.shape[2] != 3:
            raise LabelImageError(f"label image is {image.dtype} {image.shape}; expected ids or 8-bit red, green, blue")
        return mapping.of_colours(image[..., ::-1])
    if message.encoding in _COLOURS:
        if (message.height, message.width) != (height, width):
            text = f"label image is {message.width}x{message.height} but the camera is {width}x{height}"
            raise LabelImageError(f"{text}; record label images with the pixels of the camera's image")
        return mapping.of_colours(decode_raw(message.data, height, width, message.step, message.encoding))
    return mapping.of_ids(raw_channel(message, height, width, _IDS, "semantic"))


class Segmenter:
    """A segmentation network in ONNX or TorchScript.

    A YAML file beside the network describes it; `ids` maps its output channels, or its output ids, to classes:

        size: [512, 1024]                # height and width of its input (default: those of the image)
        mean: [0.485, 0.456, 0.406]      # of red, green, blue in 0..1; the input is (image / 255 - mean) / std
        std: [0.229, 0.224, 0.225]
        channels: rgb                    # or bgr
        classes: occ3d_nuscenes
        ids: {0: driveable_surface, 1: sidewalk, 13: car}
        others: unlabelled

    The input is float32 (1, 3, H, W). The output is scores (1, classes, h, w) or ids (1, h, w); h and w may be smaller
    than H and W.

    Args:
        model: path of a .onnx, .pt, .ts or .torchscript file.
        description: path of the YAML file. None is the model's path with the ending .yaml.
    Raises:
        LabelError: a file is wrong. The text names the file and the fault.
    """

    _KEYS = ("size", "mean", "std", "channels")

    def __init__(self, model: Path, description: Path | None = None) -> None:
        self.path = Path(model)
        where = Path(description) if description is not None else self.path.with_suffix(".yaml")
        document = load_yaml(where)
        options = {key: document.pop(key) for key in self._KEYS if key in document}
        self.mapping = mapping_from(document, str(where))
        self.size = _numbers(where, "size", options.get("size"), 2, lambda v: float(v).is_integer() and v > 0)
        mean = _numbers(where, "mean", options.get("mean", (0.485, 0.456, 0.406)), 3, np.isfinite)
        std = _numbers(where, "std", options.get("std", (0.229, 0.224, 0.225)), 3, lambda v: v > 0)
        self._mean, self._std = (np.array(values, np.float32) for values in (mean, std))
        self._flipped = options.get("channels", "rgb")
        if self._flipped not in ("rgb", "bgr"):
            raise LabelError(f"{where}: channels is {self._flipped!r}; expected rgb or bgr")
        if not self.path.is_file():
            raise LabelError(f"{self.path}: there is no such file; give the path of the network")
        self._run = _onnx(self.path) if self.path.suffix == ".onnx" else _torchscript(self.path)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of an image (H, W, 3) uint8 RGB.

        Raises:
            LabelError: the network fails, or its output is neither scores nor ids.
        """
        height, width = image.shape[:2]
        if self.size:
            image = cv2.resize(image, (int(self.size[1]), int(self.size[0])), interpolation=cv2.INTER_AREA)
        normal = (image.astype(np.float32) / np.float32(255) - self._mean) / self._std
        normal = normal[..., ::-1] if self._flipped == "bgr" else normal
        try:
            out = np.asarray(self._run(np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)))
        except Exception as error:  # a network of another project can raise anything
            raise LabelError(f"{self.path}: the network failed: {' '.join(str(error).split())[:300]}") from None
        if out.ndim == 4 and out.shape[0] == 1 and out.shape[1] > 1:
            ids = out[0].argmax(axis=0)
        elif out.size and out.shape[0] == 1 and out.ndim in (3, 4):
            ids = out.reshape(out.shape[-2:])
        else:
            raise LabelError(f"{self.path}: its output is {out.shape}; expected (1, classes, h, w) or (1, h, w)")
        try:
            classes = self.mapping.of_ids(ids)
        except LabelError as error:
            raise LabelError(f"{self.path}: {error}") from None
        return cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)


def _numbers(where: Path, name: str, values: Any, count: int, good) -> tuple | None:
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values)
        if len(numbers) == count and all(good(value) for value in numbers):
            return numbers
    except (TypeError, ValueError):
        pass
    raise LabelError(f"{where}: {name} is {values!r}; expected {count} numbers in their range")


def _onnx(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    available = [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=available)
    except Exception as error:  # onnxruntime's own exceptions share no base class but Exception
        raise LabelError(f"{path}: not an ONNX network: {' '.join(str(error).split())[:300]}") from None
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def _torchscript(path: Path):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise LabelError(f"{path}: not a TorchScript network: {' '.join(str(error).split())[:300]}") from None

    def run(array: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = network(torch.from_numpy(array).to(device))
        if isinstance(out, dict):  # torchvision's segmentation networks
            out = out["out"]
        return out.cpu().numpy()

    return run
