"""Fills images between the points of depth from motion, by a depth network in ONNX."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from renderocc_model.base.config import load_yaml
from renderocc_model.base.config_arguments import from_arguments

from .depth_fit import DenseDepth, DepthFit, fit_depth
from .mapping import LabelError
from .network_backends import load_network
from .network_input import INPUT_KEYS, NetworkInput

__all__ = ["Densifier", "densifier_of"]

_INVERSE, _DEPTH = "inverse_depth", "depth"
_FILLED = "filled"


class Densifier:
    """A network for depth from one image, whose scale is fitted to each image's points.

    A YAML file beside the network describes it; all entries may be missing, and so may the file:

        size: [518, 924]                 # height and width of its input (default: those of the image)
        mean: [0.485, 0.456, 0.406]      # of red, green, blue in 0..1; the input is (image / 255 - mean) / std
        std: [0.229, 0.224, 0.225]
        channels: rgb                    # or bgr
        output: inverse_depth            # up to scale and shift (MiDaS, Depth Anything), or: depth, up to scale

    The input is float32 (1, 3, H, W). The output is (1, h, w) or (1, 1, h, w); h and w may be smaller than H and W.

    Args:
        model: path of a .onnx, .pt, .ts or .torchscript file.
        description: path of the YAML file. None is the model's path with the ending .yaml, if there is one.
        provider: the device, see `network_backends.load_network`.
        settings: when an image may be filled.
    Attributes:
        counts: images by what became of them: filled, or why not.
    Raises:
        LabelError: a file is wrong. The text names the file and the fault.
    """

    def __init__(
        self,
        model: Path,
        description: Path | None = None,
        provider: str = "auto",
        settings: DenseDepth = DenseDepth(),
    ) -> None:
        self.path, self.settings = Path(model), settings
        where = Path(description) if description is not None else self.path.with_suffix(".yaml")
        document = load_yaml(where) if description is not None or where.is_file() else {}
        unknown = set(document) - {*INPUT_KEYS, "output"}
        if unknown:
            raise LabelError(
                f"{where}: has {', '.join(sorted(map(str, unknown)))}; expected {', '.join(INPUT_KEYS)} and output"
            )
        self._input = NetworkInput.read(document, where)
        output = document.get("output", _INVERSE)
        if output not in (_INVERSE, _DEPTH):
            raise LabelError(f"{where}: output is {output!r}; expected {_INVERSE} or {_DEPTH}")
        self._inverse = output == _INVERSE
        if not self.path.is_file():
            raise LabelError(f"{self.path}: there is no such file; give the path of the network")
        self._run = load_network(self.path, provider)
        self.counts: Counter[str] = Counter()
        self._counting = Lock()

    def fill(self, image: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The depth image with the network's depths where it has none; as it is if the network does not fit.

        Args:
            image: (H, W, 3) uint8 RGB.
            depth: (H, W) float32 z-depths from motion, metres; 0 is unknown.
        Raises:
            LabelError: the network fails, or its output has another shape.
        """
        rows, columns = np.nonzero(depth)
        if len(rows) < self.settings.densify_min_points:
            self._count("too few points")
            return depth
        output = cv2.resize(self._output(image), depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        fit = fit_depth(output[rows, columns], depth[rows, columns], self._inverse, self.settings)
        if not isinstance(fit, DepthFit):
            self._count(fit)
            return depth
        self._count(_FILLED)
        return np.where(depth > 0, depth, fit.depth(output))

    def text(self) -> str:
        """What became of the images, for people."""
        refused = [f"{count} not ({why})" for why, count in sorted(self.counts.items()) if why != _FILLED]
        return f"{self.path.name}: {', '.join([f'{self.counts[_FILLED]} images filled', *refused])}"

    def _count(self, what: str) -> None:
        with self._counting:
            self.counts[what] += 1

    def _output(self, image: np.ndarray) -> np.ndarray:
        """(h, w) float32."""
        try:
            out = np.asarray(self._run(self._input.array(image)[None]), np.float32)
        except Exception as error:  # a network of another project can raise anything
            text = " ".join(str(error).split())[:300]
            raise LabelError(
                f"{self.path}: the network failed: {text}; does its description say the size of its input?"
            ) from None
        if out.size and out.shape[:-2] in ((1,), (1, 1)):
            return out.reshape(out.shape[-2:])
        raise LabelError(f"{self.path}: its output for an image is {out.shape}; expected (1, h, w) or (1, 1, h, w)")


def densifier_of(wanted: Namespace) -> Densifier | None:
    """The network that the options of `renderocc label` name, or None.

    Raises:
        LabelError: it cannot be used, or depth does not come from motion.
    """
    if wanted.densify is None:
        if wanted.densify_config is not None:
            raise LabelError("--densify-config describes the network of --densify; name one")
        return None
    if wanted.depth_from != "motion":
        raise LabelError(
            "--densify fills images between the points of --depth-from motion, which was not given; a LiDAR's labels "
            "and depth images stay as they are"
        )
    return Densifier(wanted.densify, wanted.densify_config, wanted.provider, from_arguments(wanted, DenseDepth))
