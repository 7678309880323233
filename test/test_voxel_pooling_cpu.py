"""The compiled voxel pooling for CPUs against the float64 reference: results, every gradient, threads and plans."""

from __future__ import annotations

import threading

import pytest
import torch
from poison import poison_new_buffers
from test_voxel_pooling import points
from torch_threads import threads_as_before  # noqa: F401  (for every test here)

from renderocc_model.ops.voxel_pooling import choose, cpu_kernel, cpu_plan, make_plan, place_points, pool
from renderocc_model.ops.voxel_pooling.plan import placed_by_torch, sorted_by_torch

# (views, bins, height, width, channels, cells); a channel more than vectors take, and fewer; one of everything.
SIZES = [
    (2, 5, 3, 4, 6, 11),
    (1, 1, 1, 1, 1, 1),
    (3, 7, 1, 5, 2, 1),
    (1, 2, 5, 3, 9, 400),
    (3, 9, 5, 7, 35, 13),
    (1, 2, 3, 2, 109, 5),
]
# Float32 has 24 bits: one rounding is 6e-8 of a number. A result sums up tens of products.
ROUNDING = 1e-6


@pytest.fixture
def many_threads(monkeypatch):
    """Threads even for the few points of a test."""
    monkeypatch.setattr(cpu_kernel, "NUMBERS_WORTH_A_THREAD", 1)
    monkeypatch.setattr(cpu_plan, "POINTS_WORTH_A_THREAD", 1)


def pooled(depth, context, plan, backend, device="cpu"):
    """The result, and the gradients in depth and context of a random weighting of it."""
    depth, context = (tensor.detach().to(device).requires_grad_() for tensor in (depth, context))
    result = pool(depth, context, plan, backend)
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result.backward(upstream.bfloat16().to(result))
    return result.detach(), depth.grad, context.grad


def assert_agree(depth, context, plan, backend="cpu", device="cpu", slack=1):
    """To within rounding of the largest number, or of 1, as large as inputs are, and of the type in which it leaves.

    The reference is in float64."""
    found = pooled(depth, context, plan, backend, device)
    expected = pooled(depth.double(), context.double(), plan, "reference", device)
    for name, actual, exact, like in zip(("result", "depth", "context"), found, expected, (context, depth, context)):
        assert actual.dtype == like.dtype and actual.shape == exact.shape, name
        rounding = ROUNDING + (0 if like.dtype == torch.float32 else slack * torch.finfo(like.dtype).eps)
        if exact.numel():
            worst = (actual.double() - exact).abs().max().item()
            assert worst <= rounding * max(exact.abs().max().item(), 1.0), (name, worst)


def special_indices(shape):
    """Index and number of cells, by name."""
    number = torch.arange(shape.numel()).view(shape)
    one = torch.full(shape, -1)
    one[-1, -1, -1, -1] = 3
    return {
        "all in one cell": (torch.zeros(shape, dtype=torch.int64), 1),
        "in one of several cells": (torch.where(number % 7 == 0, number % 5, 2), 5),
        "none inside": (torch.full(shape, -1), 4),
        "one inside": (one, 4),
    }


# --- results and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_agrees_with_the_reference_in_every_result_and_gradient(sizes, threads, many_threads, monkeypatch):
    """Buffers come filled with NaN: what nobody writes is seen."""
    poison_new_buffers(monkeypatch)
    torch.set_num_threads(threads)
    depth, context, index = points(*sizes, dtype=torch.float32)
    assert_agree(depth, context, make_plan(index, sizes[-1]))


@pytest.mark.parametrize("name", ["all in one cell", "in one of several cells", "none inside", "one inside"])
def test_cells_of_very_many_or_no_points_agree(name, many_threads, monkeypatch):
    poison_new_buffers(monkeypatch)
    torch.set_num_threads(3)
    depth, context, _ = points(2, 7, 3, 5, 6, 11, dtype=torch.float32)
    index, cells = special_indices(depth.shape)[name]
    assert_agree(depth, context, make_plan(index, cells))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_with_the_reference_of_the_same_numbers(dtype):
    depth, context, index = points(2, 5, 3, 4, 20, 11, dtype=torch.float32)
    assert_agree(depth, context.to(dtype), make_plan(index, 11))
    assert_agree(depth.to(dtype), context.to(dtype), make_plan(index, 11))


def test_bfloat16_is_rounded_as_pytorch_rounds():
    """To the nearest, ties to even, also over the end of the range; what is no number stays none."""
    values = torch.tensor([1.0, 1.00390625, 1.01171875, -1.00390626, 3.4e38, 1e-40, float("inf"), float("nan"), -0.0])
    context = torch.ones(1, 1, 1, len(values), dtype=torch.bfloat16)  # each pixel's depth is what its cell holds
    index = torch.arange(len(values)).view(1, 1, 1, -1)
    result = pool(values.view(1, 1, 1, -1), context, make_plan(index, len(values)), "cpu")[:, 0]
    expected = (values + 0.0).bfloat16()
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(7).view(torch.int16), expected.nan_to_num(7).view(torch.int16))


def test_any_order_in_memory_gives_the_same_bytes():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    plan = make_plan(index, 11)
    both = torch.cat([depth, context], dim=1).contiguous(memory_format=torch.channels_last)
    others = [
        (depth.contiguous(memory_format=torch.channels_last), context.contiguous(memory_format=torch.channels_last)),
        (both[:, :5], both[:, 5:]),
        (depth.transpose(2, 3).contiguous().transpose(2, 3), context.transpose(2, 3).contiguous().transpose(2, 3)),
    ]
    expected = pooled(depth, context, plan, "cpu")
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(expected, pooled(*other, plan, "cpu")))
    assert torch.equal(plan.start, make_plan(index.flip(3).contiguous().flip(3), 11).start)


def test_without_gradients_the_result_is_the_same_and_has_no_graph():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    expected = pooled(depth, context, make_plan(index, 11), "cpu")[0]
    with torch.no_grad():
        result = pool(depth.requires_grad_(), context, make_plan(index, 11))
    assert torch.equal(result, expected) and result.grad_fn is None
    with torch.inference_mode():
        plan = make_plan(index, 11)
        assert torch.equal(pool(depth, context, plan), expected)
    pool(depth, context, plan).sum().backward()  # a plan may be used again in training


def test_gradients_have_no_gradients_and_say_so():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    result = pool(depth.requires_grad_(), context.requires_grad_(), make_plan(index, 11), "cpu")
    (gradient,) = torch.autograd.grad(result.square().sum(), depth, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# --- threads ---------------------------------------------------------------------------------------------------------


def test_results_gradients_and_plans_do_not_depend_on_the_number_of_threads(many_threads):
    depth, context, index = points(3, 9, 5, 7, 35, 13, dtype=torch.float32)
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        plan = make_plan(index, 13)
        kept = int(plan.start[-1])
        results.append((*pooled(depth, context, plan, "cpu"), plan.start, plan.point[:kept], plan.pixel[:kept]))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other))


def test_several_threads_can_pool_at_once(many_threads):
    torch.set_num_threads(2)
    depth, context, index = points(3, 9, 5, 7, 35, 13, dtype=torch.float32)
    plan = make_plan(index, 13)
    expected, found = pooled(depth, context, plan, "cpu"), []
    threads = [
        threading.Thread(target=lambda: found.extend(pooled(depth, context, plan, "cpu") for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and all(torch.equal(*pair) for one in found for pair in zip(expected, one))


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_a_plan_by_counting_is_that_by_sorting_for_several_frames_too(threads, many_threads):
    torch.set_num_threads(threads)
    *_, index = points(6, 5, 3, 4, 6, 11)
    for frames in (1, 2, 3):
        plan = make_plan(index, 11, frames)
        cell, start, point, pixel = sorted_by_torch(index, 11, frames)
        kept = int(start[-1])
        assert plan.cells == 11 * frames and kept == int((index >= 0).sum())
        assert torch.equal(plan.cell.flatten(), cell) and torch.equal(plan.start, start)
        assert torch.equal(plan.point[:kept], point[:kept]) and torch.equal(plan.pixel[:kept], pixel[:kept])


def test_points_of_a_plan_are_counted_by_hand():
    index = torch.tensor([[[[1, -1, 0]], [[1, 1, 2]]], [[[-1, 0, 0]], [[2, -1, -1]]]])  # (2, 2, 1, 3)
    plan = make_plan(index, 4)
    assert plan.start.tolist() == [0, 3, 6, 8, 8]
    assert plan.point[:8].tolist() == [2, 7, 8, 0, 3, 4, 5, 9]
    assert plan.pixel[:8].tolist() == [2, 4, 5, 0, 0, 1, 2, 3]
    plan = make_plan(index, 4, frames=2)  # the second view is that of a second frame: cells 4 to 7
    assert plan.start.tolist() == [0, 1, 4, 5, 5, 7, 7, 8, 8]
    assert plan.cell[1].flatten().tolist() == [-1, 4, 4, 6, -1, -1]


def test_pieces_beyond_the_first_of_each_cell_are_listed():
    # 10 points in cell 1, 4 in cell 2, 5 in cell 4; pieces of 4: two more of cell 1, none of cell 2, one of cell 4.
    index = torch.tensor([1] * 10 + [2] * 4 + [4] * 5 + [-1]).view(1, 1, 4, 5)
    plan = make_plan(index, 5)
    object.__setattr__(plan, "piece", 4)
    before, cell = plan.further
    assert before.tolist() == [0, 0, 2, 2, 2, 3]
    assert cell.tolist() == [1, 1, 4, 5, 5]  # 20 points are at most five pieces


@pytest.mark.parametrize("threads", [1, 3])
def test_points_fall_into_the_same_cells_as_by_pytorch(threads, many_threads):
    """Also those on faces between cells, of rays along them, and what is far away or no number."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(3, 3, 17, 19, generator=generator) * 3
    start = torch.tensor([[6.0, 5.0, 2.0], [6.3, 5.2, 2.7], [0.0, 0.0, 0.0]])
    step[0, :, :9] = (step[0, :, :9] * 4).round() / 4
    start[2], step[1, 0, 3] = -1e8, float("nan")
    depths = torch.linspace(0.25, 2, 8)
    index = place_points(start, step, depths, (13, 11, 5))
    assert torch.equal(index, placed_by_torch(start, step, depths, (13, 11, 5)))
    assert (index[:2] >= 0).sum() > 300 and (index[2] == -1).all() and (index[1, :, 3] == -1).all()
    x, y, z = ((start[:, a, None, None, None] + step[:, a, None] * depths.view(1, -1, 1, 1)).floor() for a in range(3))
    inside = (x >= 0) & (x < 13) & (y >= 0) & (y < 11) & (z >= 0) & (z < 5)
    assert torch.equal(index, torch.where(inside, (x * 11 + y) * 5 + z, -1.0).long())


def test_numbers_that_are_no_cells_are_refused():
    *_, index = points(2, 5, 3, 4, 6, 11)
    for wrong in (11, -2, 2**40):
        index[1, 2, 0, 3] = wrong
        with pytest.raises(ValueError, match=f"voxel_index holds {wrong}; expected cells 0 to 10, or -1 for none"):
            make_plan(index, 11)
    with pytest.raises(ValueError, match="3 views cannot be those of 2 frames"):
        make_plan(torch.zeros(3, 1, 1, 1, dtype=torch.int64), 1, frames=2)
    with pytest.raises(ValueError, match="1 points and 4294967296 cells; at most 2147483647"):
        make_plan(torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2**32)


def test_a_plan_takes_over_only_one_of_as_many_points_and_cells():
    *_, index = points(2, 5, 3, 4, 6, 11)
    plan = make_plan(index, 11)
    with pytest.raises(ValueError, match="cannot take over one of .* and 12 cells"):
        plan.copy_(make_plan(index, 12))


def test_what_the_loops_cannot_do_is_refused_when_they_are_asked_for():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    plan = make_plan(index, 11)
    with pytest.raises(ValueError, match="'cpu' sums in float32, and depth or context is float64; use backend='refer"):
        pool(depth.double(), context, plan, "cpu")
    with pytest.raises(ValueError, match="backend is 'fast'; expected one of 'auto', 'reference', 'cpu', 'triton'"):
        pool(depth, context, plan, "fast")
    with pytest.raises(ValueError, match="'cpu' works on the CPU, and the context is on meta"):
        choose(depth.to("meta"), context.to("meta"), "cpu")
    with pytest.raises(ValueError, match="bring them to one device"):
        pool(depth, context.to("meta"), plan)
    with pytest.raises(ValueError, match="make the plan of the same views"):
        pool(depth[:1], context[:1], plan)
