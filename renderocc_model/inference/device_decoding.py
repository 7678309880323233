"""Camera images decoded on a CUDA device: the bytes are sent as they came, and one kernel makes the view.

The counterpart of `view_from_raw` and `view_from_compressed` in `images.preprocessing`. Raw images give the same view,
byte for byte (`ops.resample`). JPEGs are decoded in full by nvJPEG, through torchvision, and then reduced, while the
CPU's decoder reduces as it decodes: views differ by about one level on average, as much as between two decoders.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..geometry.undistortion import UndistortTable
from ..images.decoding import compressed_size, is_common_jpeg
from ..images.encodings import check_raw
from ..images.preprocessing import check_camera_size, view_from_compressed
from ..images.reduction import ImageError
from ..ops.left_out import left_out
from ..ops.resample import PLANAR, PixelLayout, resample

__all__ = ["DeviceDecoder", "jpeg_decoder"]


class DeviceDecoder:
    """Makes views of image bytes on a device; for several threads at once.

    Args:
        device: a CUDA device.
        say: called once for each camera whose images are decoded on the CPU because the device cannot: with the
            camera's name and the reason.
        decode_jpeg: (bytes,) uint8 on the CPU -> (3, height, width) uint8 RGB on the device; RuntimeError where it
            cannot. Torchvision's if it is not given.
    Raises:
        ImportError: torchvision is not installed.
        ValueError: torchvision cannot decode on this device.
    """

    def __init__(
        self,
        device: torch.device | str,
        say: Callable[[str, str], None],
        decode_jpeg: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._say = say
        self._told: set[str] = set()
        # A decoder that is left out is not even tried: it may hang.
        self._decode_jpeg = decode_jpeg or (_left_out if "nvjpeg" in left_out() else jpeg_decoder(self.device))

    def view_from_raw(
        self,
        table: UndistortTable,
        data: np.ndarray,
        height: int,
        width: int,
        step: int,
        encoding: str,
        is_bigendian: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """Arguments and errors as of `images.preprocessing.view_from_raw`; only the rows that the view shows are sent.

        Args:
            out: as in `ops.resample.resample`.
        Returns:
            (view height, view width, 3) uint8 on the device, `out` if it is given; ready on the current stream.
        """
        check_camera_size(table.model, height, width)
        check_raw(data, height, width, step, encoding)
        first, last = table.region[0].start, table.region[0].stop
        parts = [data[first * step : last * step]]
        if encoding == "nv12":
            parts.append(data[(height + first // 2) * step : (height + last // 2) * step])
        layout = PixelLayout(height, width, encoding, step, bool(is_bigendian), (first, last))
        return resample(self._sent(parts), layout, table, out=out)

    def view_from_compressed(
        self, table: UndistortTable, data: np.ndarray, camera: str = "", out: Tensor | None = None
    ) -> Tensor:
        """A camera's view of a JPEG or PNG; results as of `view_from_raw`, errors as of `images.preprocessing`.

        Args:
            camera: its name, for `say`.
        """
        height, width = compressed_size(data)
        check_camera_size(table.model, height, width)
        if not is_common_jpeg(data):
            return self._on_cpu(table, data, camera, "not a JPEG that nvJPEG decodes", out)
        if reason := left_out().get("nvjpeg"):
            return self._on_cpu(table, data, camera, f"nvJPEG is left out, it {reason}", out)
        held = torch.empty(data.size, dtype=torch.uint8)
        held.numpy()[:] = data
        try:
            picture = self._decode_jpeg(held)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # The CPU's decoder finds out whether the image is corrupt, and raises if so.
            return self._on_cpu(table, data, camera, str(error).split("\n")[0], out)
        if tuple(picture.shape) != (3, height, width):
            raise ImageError(f"JPEG decoded to {tuple(picture.shape)} but its header says {width}x{height}")
        layout = PixelLayout(height, width, PLANAR, width)
        return resample(picture.reshape(-1), layout, table, out=out)

    def _on_cpu(self, table: UndistortTable, data: np.ndarray, camera: str, why: str, out: Tensor | None) -> Tensor:
        view = view_from_compressed(table, data)
        if camera not in self._told:
            self._told.add(camera)
            self._say(camera, f"its images are decoded on the CPU: {why}")
        sent = self._sent([view.reshape(-1)]).view(view.shape)
        return sent if out is None else out.copy_(sent)

    def _sent(self, parts: list[np.ndarray]) -> Tensor:
        """(bytes,) on the device; the copy runs on the current stream."""
        on_cuda = self.device.type == "cuda"
        held = torch.empty(sum(part.size for part in parts), dtype=torch.uint8, pin_memory=on_cuda)
        np.concatenate(parts, out=held.numpy())
        return held.to(self.device, non_blocking=True)


def _left_out(data: Tensor) -> Tensor:
    raise RuntimeError("nvJPEG was left out when this decoder was made; make it anew")


def jpeg_decoder(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Torchvision's decoder on a device, tried out on a small JPEG.

    Raises:
        ImportError, ValueError: as `DeviceDecoder`.
    """
    import cv2

    if device.type != "cuda":
        raise ValueError(f"device is '{device}'; a DeviceDecoder needs a CUDA device; decode on the CPU without it")
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError as error:
        raise ImportError(
            f"decoding JPEGs on the GPU needs torchvision ({error}); install it, or decode on the CPU"
        ) from None

    def decode(data: Tensor) -> Tensor:
        return decode_jpeg(data, mode=ImageReadMode.RGB, device=device).contiguous()

    sample = cv2.imencode(".jpg", np.full((16, 16, 3), 128, np.uint8))[1].ravel()
    try:
        decode(torch.from_numpy(sample))
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"torchvision does not decode JPEGs on '{device}' ({reason}); install one with CUDA, or decode on the CPU"
        ) from None
    return decode
