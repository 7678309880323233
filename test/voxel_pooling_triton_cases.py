"""Voxel pooling in Triton against the float64 reference: results and every gradient. Run by
`test_voxel_pooling_triton`, in a process of its own: see `render_triton_cases`.

All buffers are filled with NaN or large integers first, so every test notices elements that a kernel does not write.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from poison import poison_new_buffers
from test_voxel_pooling import points
from test_voxel_pooling_cpu import SIZES, assert_agree, pooled, special_indices

from renderocc_model.ops.voxel_pooling import make_plan, pool, triton_kernel
from renderocc_model.ops.voxel_pooling.plan import sorted_by_torch
from renderocc_model.ops.voxel_pooling.triton_kernel import Launch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
MANY = Launch(cells=64, points=4)  # many cells in one program, because the interpreter is slow per program
# The interpreter cuts bfloat16 off instead of rounding it.
BFLOAT16 = 2 if DEVICE == "cpu" else 1


@pytest.fixture(autouse=True)
def unwritten_buffers_are_poisoned(monkeypatch):
    torch.set_num_threads(1)
    poison_new_buffers(monkeypatch)
    monkeypatch.setattr(triton_kernel, "LAUNCH", MANY if DEVICE == "cpu" else Launch())


def plan_of(index, cells, piece=8):
    """A plan, made on the CPU as on a GPU, with pieces so small that many cells have several."""
    index = index.to(DEVICE)
    _, start, point, pixel = sorted_by_torch(index, cells, 1)
    return replace(make_plan(index, cells), start=start, point=point, pixel=pixel, piece=piece)


@pytest.mark.parametrize("sizes", [*SIZES[:4], (1, 5, 2, 3, 35, 13)], ids=str)
def test_agrees_with_the_reference_in_every_result_and_gradient(sizes):
    depth, context, index = points(*sizes, dtype=torch.float32)
    assert_agree(depth, context, plan_of(index, sizes[-1]), "triton", DEVICE)


@pytest.mark.parametrize(
    "launch",
    [Launch(), Launch(cells=1, points=2, channels=16, numbers=64), Launch(cells=2, points=1, warps=2)],
    ids=str,
)
def test_however_the_work_is_cut_it_agrees(launch, monkeypatch):
    """As on a GPU; channels in several blocks; several warps; bins in several tiles."""
    monkeypatch.setattr(triton_kernel, "LAUNCH", launch)
    depth, context, index = points(1, 5, 3, 4, 20, 11, dtype=torch.float32)
    assert_agree(depth, context, plan_of(index, 11, piece=3), "triton", DEVICE)


@pytest.mark.parametrize("name", ["all in one cell", "in one of several cells", "none inside", "one inside"])
def test_cells_of_very_many_or_no_points_agree(name):
    depth, context, _ = points(2, 7, 3, 5, 6, 11, dtype=torch.float32)
    index, cells = special_indices(depth.shape)[name]
    assert_agree(depth, context, plan_of(index, cells), "triton", DEVICE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_with_the_reference_of_the_same_numbers(dtype):
    depth, context, index = points(2, 5, 3, 4, 20, 11, dtype=torch.float32)
    slack = BFLOAT16 if dtype == torch.bfloat16 else 1
    assert_agree(depth, context.to(dtype), plan_of(index, 11), "triton", DEVICE, slack)
    assert_agree(depth.to(dtype), context.to(dtype), plan_of(index, 11), "triton", DEVICE, slack)


def test_context_is_read_in_place_where_channels_lie_last_also_beside_others():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    both = torch.cat([depth, context], dim=1).contiguous(memory_format=torch.channels_last)
    part = both[:, depth.shape[1] :]
    rows, stride = triton_kernel._rows(part)
    assert rows.data_ptr() == part.data_ptr() and stride == 11  # 5 bins and 6 channels
    assert_agree(depth, part, plan_of(index, 11), "triton", DEVICE)
    depth = depth.transpose(2, 3).contiguous().transpose(2, 3)
    assert_agree(depth, context, plan_of(index, 11), "triton", DEVICE)


def test_a_plan_can_be_taken_over_by_another_as_a_captured_graph_wants_it():
    depth, context, index = (tensor.to(DEVICE) for tensor in points(2, 5, 3, 4, 6, 11, dtype=torch.float32))
    plan, other = plan_of(index, 11), plan_of(index.flip(0), 11)
    plan.tensors()
    expected = pool(depth, context, other, backend="triton")
    addresses = [tensor.data_ptr() for tensor in plan.tensors()]
    assert not torch.equal(pool(depth, context, plan, backend="triton"), expected)
    plan.copy_(other)
    assert addresses == [tensor.data_ptr() for tensor in plan.tensors()]
    assert torch.equal(pool(depth, context, plan, backend="triton"), expected)


def test_the_same_input_gives_the_same_bytes_with_gradients_and_without():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    plan = plan_of(index, 11)
    one, other = (pooled(depth, context, plan, "triton", DEVICE) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, other))
    with torch.inference_mode():
        assert torch.equal(pool(depth.to(DEVICE), context.to(DEVICE), plan, "triton"), one[0])


@pytest.mark.parametrize(
    ("channels", "most", "block"), [(32, 64, 32), (64, 64, 64), (80, 64, 32), (96, 64, 32), (100, 64, 16), (3, 64, 16)]
)
def test_channels_are_cut_so_that_few_lanes_are_idle(channels, most, block):
    assert triton_kernel._block(channels, most) == block
