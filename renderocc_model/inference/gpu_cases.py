"""Each part of the GPU path against its reference, on small inputs; run by `gpu_check` in a process of its own.

    python -m renderocc_model.inference.gpu_cases DEVICE PARENT PART...

writes a line `begin PART` before each part, and after it `end PART KIND TEXT`, KIND one of KINDS. After the first that
is not sound the process ends: a kernel that failed may have left the device unusable. Inputs are random numbers with a
fixed seed. References run on the CPU in float64 where they can.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..base.worker_processes import serve_parent
from ..field.field import SemanticDensityField
from ..geometry.camera_model import CameraModel
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays
from ..geometry.undistortion import UndistortTable, View
from ..network.untrained import surround_cameras
from ..ops import voxel_pooling
from ..ops.render import render
from ..ops.resample import PLANAR, PixelLayout, resample
from ..ops.termination import return_windows, termination
from ..ops.visibility import ViewFrusta, cast
from .cuda_graph import record_graph
from .device_decoding import jpeg_decoder

__all__ = ["CASES", "KINDS", "Difference", "check_cuda_graph", "check_nvjpeg", "main"]

KINDS = ("sound", "differs", "fails", "no memory")
ROUNDING = 1e-4  # of the largest number; results sum up tens of float32, gradients hundreds
HALF_ROUNDING = 4e-3  # of the largest number; four roundings of float16
BORDERLINE = 0.005  # of the voxels, or windows, that rounding may decide otherwise
JPEG_LEVELS = 3.0  # mean difference of two JPEG decoders, levels; they differ in how they enlarge the colours


class Difference(Exception):
    """A part gives another result than its reference."""


def _require_close(name: str, made: Tensor, expected: Tensor, rounding: float = ROUNDING) -> None:
    made, expected = made.detach().cpu().double(), expected.detach().cpu().double()
    if made.shape != expected.shape:
        raise Difference(f"{name} has shape {tuple(made.shape)}, the reference's {tuple(expected.shape)}")
    largest = max(float(expected.abs().max()), 1e-6)
    worst = float((made - expected).abs().max()) / largest
    if not worst <= rounding:  # also where it is NaN
        raise Difference(f"{name} differs by {worst:.2g} of the reference's largest number; {rounding:g} is rounding")


def _require_mostly_equal(name: str, made: Tensor, expected: Tensor) -> None:
    share = float((made.cpu() != expected.cpu()).double().mean())
    if share > BORDERLINE:
        raise Difference(f"{name}: {share:.1%} differ from the reference; {BORDERLINE:.1%} is rounding")


def _compare(
    device: torch.device,
    inputs: dict[str, Tensor],
    function: Callable[[dict[str, Tensor], torch.device, str], dict[str, Tensor]],
) -> None:
    """Compare results and gradients of `function(inputs, device, backend)`, given float32 inputs."""
    made, slopes = _with_gradients(inputs, device, "triton", torch.float32, function)
    expected, true_slopes = _with_gradients(inputs, torch.device("cpu"), "reference", torch.float64, function)
    for name, value in expected.items():
        _require_close(name, made[name], value)
    for name, value in true_slopes.items():
        _require_close(f"the gradient of {name}", slopes[name], value)


def _with_gradients(inputs, device, backend, dtype, function) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    leaves = {name: value.to(device, dtype).requires_grad_() for name, value in inputs.items()}
    results = function(leaves, device, backend)
    generator = torch.Generator().manual_seed(1)
    total = sum((value * torch.randn(value.shape, generator=generator).to(value)).sum() for value in results.values())
    assert isinstance(total, Tensor)
    return results, dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()))))


def check_voxel_pooling(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand((2, 5, 4, 6), generator=generator)
    context = torch.randn((2, 20, 4, 6), generator=generator).contiguous(memory_format=torch.channels_last)
    index = torch.randint(-1, 11, (2, 5, 4, 6), generator=generator)

    def pooled(inputs: dict[str, Tensor], device: torch.device, backend: str) -> dict[str, Tensor]:
        plan = voxel_pooling.make_plan(index.to(device), 11)
        return {"the sum": voxel_pooling.pool(inputs["depth"], inputs["context"], plan, backend)}

    _compare(device, {"depth": depth, "context": context}, pooled)
    half = {"depth": depth.half(), "context": context.half()}
    with torch.no_grad():
        made = pooled({name: value.to(device) for name, value in half.items()}, device, "triton")
        expected = pooled({name: value.double() for name, value in half.items()}, torch.device("cpu"), "reference")
    _require_close("the sum in float16", made["the sum"], expected["the sum"], HALF_ROUNDING)


def _field_inputs() -> tuple[VoxelGrid, dict[str, Tensor], Rays]:
    """A field of 10 x 8 x 6 voxels with 5 classes, and 40 rays from inside; one misses."""
    grid, generator = VoxelGrid((-2.5, -2.0, -1.5), (2.5, 2.0, 1.5), 0.5), torch.Generator().manual_seed(0)
    inputs = {
        "density": torch.rand(grid.shape, generator=generator) ** 3 * 2,
        "semantics": torch.randn((*grid.shape, 5), generator=generator),
    }
    origins = (torch.rand((40, 3), generator=generator) - 0.5) * 2
    directions = torch.nn.functional.normalize(torch.randn((40, 3), generator=generator), dim=1)
    origins[0], directions[0] = torch.tensor([9.0, 9.0, 9.0]), torch.tensor([1.0, 0.0, 0.0])
    return grid, inputs, Rays(origins, directions)


def check_render(device: torch.device) -> None:
    grid, inputs, rays = _field_inputs()

    def rendered(inputs: dict[str, Tensor], device: torch.device, backend: str) -> dict[str, Tensor]:
        field = SemanticDensityField(grid, inputs["density"], inputs["semantics"])
        moved = rays.to(device, torch.float64 if backend == "reference" else None)
        result = render(field, moved, return_distortion=True, backend=backend)
        assert result.distortion is not None
        return {
            "the distance": result.distance,
            "the semantics": result.semantics,
            "the opacity": result.opacity,
            "the distortion": result.distortion,
        }

    _compare(device, inputs, rendered)


def check_termination(device: torch.device) -> None:
    grid, inputs, rays = _field_inputs()
    distances = torch.rand(40, generator=torch.Generator().manual_seed(2)) * 1.5 + 0.3
    returned = torch.arange(40) % 7 != 3
    windows: dict[str, tuple[Tensor, ...]] = {}
    for where, backend in ((device, "triton"), (torch.device("cpu"), "reference")):
        arguments = (grid, rays.to(where), distances.to(where), returned.to(where))
        straight = return_windows(*arguments, follow=False, backend=backend)
        windows[backend] = (*straight, *return_windows(*arguments, backend=backend))
    for made, expected in zip(windows["triton"][:2], windows["reference"][:2]):
        finite = torch.isfinite(expected)
        _require_mostly_equal("windows that are finite", torch.isfinite(made.cpu()), finite)
        _require_close("windows", made.cpu()[finite], expected[finite])
    # Where a run of voxels ends is decided step by step: a ray on a border may take one step more.
    followed = [(made.cpu(), expected) for made, expected in zip(windows["triton"][2:], windows["reference"][2:])]
    apart = torch.stack([~torch.isclose(made, expected, atol=1e-3) for made, expected in followed]).double().mean()
    if float(apart) > 0.05:
        raise Difference(f"{float(apart):.0%} of the windows that follow a surface differ from the reference")
    starts, ends = windows["reference"][:2]
    semantics = inputs.pop("semantics")

    def depths(inputs: dict[str, Tensor], device: torch.device, backend: str) -> dict[str, Tensor]:
        field = SemanticDensityField(grid, inputs["density"], semantics.to(inputs["density"]))
        moved = rays.to(device, torch.float64 if backend == "reference" else None)
        result = termination(field, moved, starts.to(device), ends.to(device), backend=backend)
        return {"the depth before the window": result.before, "the window's depth": result.window}

    _compare(device, inputs, depths)


def check_visibility(device: torch.device) -> None:
    grid = VoxelGrid((-6.0, -5.0, -1.0), (6.0, 5.0, 3.0), 0.5)  # 24 x 20 x 8
    views, poses = surround_cameras(4, 24, 40)
    draw = np.random.default_rng(0)
    density = torch.from_numpy(np.where(draw.uniform(size=grid.shape) < 0.02, 8.0, 0.01).astype(np.float32))
    masks = [None, draw.uniform(size=(24, 40)) < 0.7, None, None]
    frusta = ViewFrusta(grid, views, masks, torch.device("cpu"), 0.5).at(poses)
    expected = cast(density, frusta, "reference")
    _require_mostly_equal("visible voxels", cast(density.to(device), frusta, "triton"), expected)


def check_resample(device: torch.device) -> None:
    width, height = 44, 32
    K = np.array([[35.0, 0, width / 2 - 0.5], [0, 35.5, height / 2 - 1.0], [0, 0, 1]])
    model = CameraModel(width, height, K, "plumb_bob", (-0.12, 0.03, 0.001, -0.002, 0.0))
    view = View(24, 12, np.array([[17.0, 0, 12.3], [0, 17.0, 6.0], [0, 0, 1]]))
    table = UndistortTable(model, view)
    for encoding, size in ((PLANAR, 1), ("rgb8", 3), ("yuyv", 2), ("nv12", 1), ("bayer_rggb8", 1), ("mono16", 2)):
        layout = PixelLayout(height, width, encoding, width * size)
        data = torch.from_numpy(np.random.default_rng(0).integers(0, 256, layout.size, dtype=np.uint8))
        levels = 1 if encoding == "nv12" else 0
        made = resample(data.to(device), layout, table, backend="triton").cpu().int()
        worst = int((made - resample(data, layout, table, backend="reference").int()).abs().max())
        if worst > levels:
            raise Difference(f"a view of {encoding} differs by {worst} levels from the CPU's; expected {levels}")
        if encoding == "rgb8":
            normal = resample(data.to(device), layout, table, torch.float16, backend="triton")
            expected = resample(data, layout, table, torch.float16, backend="reference")
            _require_close("a normalised view", normal, expected, HALF_ROUNDING)


def check_cuda_graph(device: torch.device, recorder: Callable = record_graph) -> None:
    """Replay a small network, with other numbers than those it was recorded with."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 1))
    layers = layers.to(device).eval()
    first, second = torch.randn(2, 1, 3, 16, 24, device=device)
    with torch.inference_mode():
        held = first.clone()
        replay = recorder(lambda: layers(held), device)
        for numbers in (first, second):
            held.copy_(numbers)
            made = replay().clone()
            _require_close("what is replayed", made, layers(numbers), 2e-3)  # with algorithms in TF32, too


def check_nvjpeg(device: torch.device, decode: Callable[[Tensor], Tensor] | None = None) -> None:
    """Decode a smooth picture with noise in both usual forms of colour."""
    import cv2

    decode = decode or jpeg_decoder(device)
    rows, columns = np.mgrid[:48, :80]
    picture = np.stack([3 * columns, 255 - 5 * rows, 2 * rows + columns], axis=2).clip(0, 255)
    picture = (picture + np.random.default_rng(0).integers(-8, 9, picture.shape)).clip(0, 255).astype(np.uint8)
    samplings = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    for name, sampling in zip(("4:2:0", "4:4:4"), samplings):
        options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        data = cv2.imencode(".jpg", picture, options)[1].ravel()
        expected = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1].astype(np.int32)
        made = decode(torch.from_numpy(data)).cpu().numpy().transpose(1, 2, 0).astype(np.int32)
        if made.shape != expected.shape:
            raise Difference(f"a JPEG has shape {made.shape} and the CPU's {expected.shape}")
        apart = float(np.abs(made - expected).mean())
        if apart > JPEG_LEVELS:
            raise Difference(f"a JPEG {name} differs by {apart:.1f} levels on average from the CPU's")


# Keys as in `ops.left_out.GPU_PARTS`.
CASES: dict[str, Callable[[torch.device], None]] = {
    "voxel_pooling": check_voxel_pooling,
    "visibility": check_visibility,
    "render": check_render,
    "termination": check_termination,
    "resample": check_resample,
    "cuda_graph": check_cuda_graph,
    "nvjpeg": check_nvjpeg,
}


def verdict_on(part: str, device: torch.device) -> tuple[str, str]:
    """The kind, one of KINDS, and what was found, one line."""
    try:
        CASES[part](device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Difference as error:
        return "differs", str(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return "no memory", " ".join(str(error).split())[:200]
    except Exception as error:  # whatever a compiler, a driver or a library raises
        return "fails", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "sound", ""


def main(argv: Sequence[str]) -> int:
    """Check the parts that are named; exit status 0."""
    serve_parent(int(argv[1]))
    device = torch.device(argv[0])
    torch.set_num_threads(1)
    for part in argv[2:]:
        print(f"begin {part}", flush=True)
        kind, text = verdict_on(part, device)
        print(f"end {part} {kind.replace(' ', '_')} {text}", flush=True)
        if kind != "sound":
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
