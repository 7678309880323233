"""The Triton resampler against the path of CPUs, byte for byte. Run by `test_resample`, in a process of its own: Triton
decides when it is imported whether its kernels are interpreted, as they are without a GPU."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable, View
from renderocc_model.images.encodings import ENCODINGS
from renderocc_model.ops.resample import PLANAR, PixelLayout, resample, triton_kernel

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
WIDTH, HEIGHT = 88, 64
BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono16": 2, "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Use few, large programs, because the interpreter is slow per program."""
    torch.set_num_threads(1)
    if DEVICE == "cpu":
        monkeypatch.setattr(triton_kernel, "BLOCK", 4096)


def table_of(factor: int, width: int = WIDTH, height: int = HEIGHT, shift: float = 0.0) -> UndistortTable:
    """A distorted lens, and a view past the image's left edge with pixels about `factor` image pixels wide."""
    K = np.array([[70.0, 0, width / 2 - 0.5], [0, 71.0, height / 2 - 2.0], [0, 0, 1]])
    model = CameraModel(width, height, K, "plumb_bob", (-0.12, 0.03, 0.001, -0.002, 0.0))
    columns, rows = width // factor + 3, height // (factor + 1)
    focal = 70.0 / factor / 1.02
    view = View(columns, rows, np.array([[focal, 0, columns / 2 + 0.3 + shift], [0, focal, rows / 2], [0, 0, 1]]))
    table = UndistortTable(model, view)
    assert table.factor == factor
    return table


def picture(layout: PixelLayout, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, layout.size, dtype=np.uint8))


def both(data: torch.Tensor, layout: PixelLayout, table: UndistortTable, dtype=torch.uint8) -> tuple:
    """The views of the reference and of the kernel. The kernel writes into a buffer that holds other values."""
    expected = resample(data, layout, table, dtype, backend="reference")
    out = torch.full_like(expected, 77 if dtype == torch.uint8 else float("nan")).to(DEVICE)
    made = resample(data.to(DEVICE), layout, table, out=out, backend="triton")
    assert made is out
    return expected, made.cpu()


def layout_of(encoding: str, padding: int = 0, rows: tuple | None = None, **fields) -> PixelLayout:
    step = WIDTH * BYTES.get(encoding, 1) + padding
    return PixelLayout(HEIGHT, WIDTH, encoding, step, rows=rows, **fields)


@pytest.mark.parametrize(
    ("encoding", "factor"),
    [(name, 2) for name in (*ENCODINGS, PLANAR)]
    + [(name, 1) for name in ("rgb8", "mono16", "yuyv", "nv12", "bayer_gbrg8")]  # the others differ only in offsets
    + [(name, 4) for name in ("mono8", "nv12", "bayer_rggb8", "uyvy")]
    + [("mono8", 8)],
)
def test_views_of_noise_are_those_of_the_cpu_byte_for_byte(encoding, factor):
    layout, table = layout_of(encoding, padding=0 if encoding == PLANAR else 5), table_of(factor)
    expected, made = both(picture(layout), layout, table)
    difference = (expected.int() - made.int()).abs()
    # Reduced nv12 is converted by real numbers: where one is half-way between two levels, the last bit decides.
    assert difference.max() <= (1 if encoding == "nv12" and factor > 1 else 0)
    assert (difference > 0).float().mean() < 0.05


def test_two_byte_numbers_are_read_in_either_order():
    for big in (False, True):
        layout = layout_of("mono16", padding=1, is_bigendian=big)
        expected, made = both(picture(layout), layout, table_of(2))
        assert torch.equal(expected, made)


@pytest.mark.parametrize("encoding", ["bgr8", "nv12", "bayer_grbg8", "yuyv"])
def test_rows_that_the_view_does_not_show_need_not_be_there(encoding):
    table = table_of(2)
    rows = table.region[0]
    assert 0 < rows.start and rows.stop < HEIGHT
    layout = layout_of(encoding, rows=(rows.start, rows.stop + rows.stop % 2))
    expected, made = both(picture(layout), layout, table)
    assert torch.equal(expected, made) or encoding == "nv12" and (expected.int() - made.int()).abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_normalised_views_are_channels_last_and_right_to_the_last_bits(dtype):
    layout, table = layout_of("rgb8"), table_of(2)
    expected, made = both(picture(layout), layout, table, dtype)
    assert made.shape == (3, table.view.height, table.view.width) and made.stride(0) == 1
    # Values to 2.7: two roundings to 11 bits, and of float32 in another order.
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 2e-3)


def test_a_view_goes_into_its_place_in_a_batch_of_any_layout():
    layout, table = layout_of("rgb8"), table_of(2)
    data, shape = picture(layout), (3, table.view.height, table.view.width)
    for strides in (torch.contiguous_format, torch.channels_last):
        batch = torch.full((2, *shape), float("nan"), device=DEVICE).contiguous(memory_format=strides)
        resample(data.to(DEVICE), layout, table, out=batch[1], backend="triton")
        torch.testing.assert_close(batch[1].cpu(), resample(data, layout, table, torch.float32), rtol=0, atol=2e-6)
        assert batch[0].isnan().all()


def test_pixels_that_no_camera_sees_are_grey():
    table = table_of(2, shift=12.0)
    assert 0.1 < (~table.valid).mean() < 0.9
    layout = layout_of("rgb8")
    expected, made = both(picture(layout), layout, table)
    assert torch.equal(expected, made)


@pytest.mark.parametrize("size", [(16, 2), (2, 16), (4, 4), (18, 22)])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "yuyv", "nv12"])
def test_pictures_of_a_few_pixels_and_views_of_one(encoding, size):
    height, width = size
    K = np.array([[9.0, 0, width / 2 - 0.5], [0, 9.0, height / 2 - 0.5], [0, 0, 1]])
    table = UndistortTable(CameraModel(width, height, K, "plumb_bob", (0.0,) * 5), View(1, 1, np.diag([9.0, 9.0, 1.0])))
    layout = PixelLayout(height, width, encoding, width * BYTES.get(encoding, 1))
    expected, made = both(picture(layout), layout, table)
    assert torch.equal(expected, made)
