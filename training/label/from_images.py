"""Makes dense labels of one image from a depth image, a label image, or a segmentation network."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from renderocc_model.base.config import load_yaml
from renderocc_model.field.classes import ClassTable
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio.cdr import CompressedImageMessage, ImageMessage
from training.recordings.label_images import LabelImageError, depth_image, png_image, raw_channel

from .mapping import ClassMapping, LabelError, load_mapping, mapping_from
from .network_backends import load_network
from .network_input import INPUT_KEYS, NetworkInput

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
        mapping: cityscapes              # a built-in mapping or a file; or the entries of a mapping file:
        classes: occ3d_nuscenes
        ids: {0: driveable_surface, 1: sidewalk, 13: car}
        others: unlabelled

    The input is float32 (N, 3, H, W). The output is scores (N, classes, h, w) or ids (N, h, w); h and w may be smaller
    than H and W.

    Args:
        model: path of a .onnx, .pt, .ts or .torchscript file.
        description: path of the YAML file. None is the model's path with the ending .yaml, which may be missing if
            there is a mapping.
        mapping: name of a built-in mapping, or path of a mapping file, in place of that of the description.
        classes: class table to map to, see `load_mapping`; None is that of the mapping.
        provider: the device, see `network_backends.load_network`.
    Attributes:
        counts: {id of the network's output: pixels}, over all images.
    Raises:
        LabelError: a file is wrong. The text names the file and the fault.
    """

    _KEYS = (*INPUT_KEYS, "mapping")

    def __init__(
        self,
        model: Path,
        description: Path | None = None,
        mapping: str | None = None,
        classes: ClassTable | None = None,
        provider: str = "auto",
    ) -> None:
        self.path = Path(model)
        where = Path(description) if description is not None else self.path.with_suffix(".yaml")
        described = description is not None or mapping is None or where.is_file()
        document = load_yaml(where) if described else {}
        options = {key: document.pop(key) for key in self._KEYS if key in document}
        self.mapping = self._mapping(document, where, mapping, options.get("mapping"), classes)
        self._input = NetworkInput.read(options, where)
        if not self.path.is_file():
            raise LabelError(f"{self.path}: there is no such file; give the path of the network")
        self._run = load_network(self.path, provider)
        self.counts: Counter[int] = Counter()
        self._counting = Lock()

    @staticmethod
    def _mapping(
        document: dict, where: Path, wanted: str | None, described: object, classes: ClassTable | None
    ) -> ClassMapping:
        if wanted is not None:
            return load_mapping(wanted, classes)
        if described is None:
            return mapping_from(document, str(where), classes)
        if document:
            raise LabelError(f"{where}: has `mapping` and {', '.join(map(str, document))}; leave one of them out")
        beside = where.parent / str(described)  # a file is looked for beside the description
        return load_mapping(str(described) if not beside.is_file() else beside, classes)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of an image (H, W, 3) uint8 RGB.

        Raises:
            LabelError: the network fails, or its output is neither scores nor ids.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Class ids (H, W) uint8 of several images (H, W, 3) uint8 RGB; those of one size run together.

        Raises:
            LabelError: as for one image, or the network takes one image only.
        """
        inputs = [self._input.array(image) for image in images]
        by_size: dict[tuple, list[int]] = {}
        for number, each in enumerate(inputs):
            by_size.setdefault(each.shape, []).append(number)
        found: list[np.ndarray | None] = [None] * len(images)
        for numbers in by_size.values():
            for number, ids in zip(numbers, self._ids(np.stack([inputs[number] for number in numbers]))):
                found[number] = self._classes(ids, images[number].shape[:2])
        return [classes for classes in found if classes is not None]

    def _ids(self, inputs: np.ndarray) -> np.ndarray:
        """The ids that the network gives, (N, h, w)."""
        count = len(inputs)
        try:
            out = np.asarray(self._run(inputs))
        except Exception as error:  # a network of another project can raise anything
            remedy = "; if it takes one image only, export it with a dynamic first axis, or use --batch 1"
            text = " ".join(str(error).split())[:300]
            raise LabelError(f"{self.path}: the network failed: {text}{remedy if count > 1 else ''}") from None
        if out.ndim == 4 and out.shape[0] == count and out.shape[1] > 1:
            return out.argmax(axis=1)
        if out.size and out.shape[0] == count and (out.ndim == 3 or out.ndim == 4 and out.shape[1] == 1):
            return out.reshape(count, *out.shape[-2:])
        raise LabelError(
            f"{self.path}: its output for {count} images is {out.shape}; expected (N, classes, h, w) or (N, h, w)"
        )

    def _classes(self, ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The classes of ids (h, w) at an image's size (height, width)."""
        try:
            classes = self.mapping.of_ids(ids)
        except LabelError as error:
            raise LabelError(f"{self.path}: {error}") from None
        numbers, counts = np.unique(ids.astype(np.int64), return_counts=True)
        with self._counting:
            share = size[0] * size[1] / ids.size
            self.counts.update({n: round(c * share) for n, c in zip(numbers.tolist(), counts.tolist())})
        return cv2.resize(classes, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
