"""Voxel pooling against a loop over every frustum point."""

from __future__ import annotations

import pytest
import torch

from renderocc_model.ops.voxel_pooling import voxel_pooling


def loop(depth, context, voxel_index, voxel_count):
    """The definition, one point after the other."""
    pooled = torch.zeros(voxel_count, context.shape[1], dtype=context.dtype)
    for n in range(depth.shape[0]):
        for d in range(depth.shape[1]):
            for h in range(depth.shape[2]):
                for w in range(depth.shape[3]):
                    cell = int(voxel_index[n, d, h, w])
                    if cell >= 0:
                        pooled[cell] = pooled[cell] + depth[n, d, h, w] * context[n, :, h, w]
    return pooled


def points(views, bins, height, width, channels, cells, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(views, bins, height, width, generator=generator, dtype=dtype)
    context = torch.randn(views, channels, height, width, generator=generator, dtype=dtype)
    index = torch.randint(-1, cells, (views, bins, height, width), generator=generator)
    return depth, context, index


def test_two_points_in_one_cell_add_up():
    depth = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)  # one pixel, two bins
    context = torch.tensor([2.0, -4.0]).view(1, 2, 1, 1)
    index = torch.tensor([1, 1]).view(1, 2, 1, 1)
    # (0.25 + 0.75) * [2, -4] in cell 1; nothing in cells 0 and 2.
    assert voxel_pooling(depth, context, index, 3).tolist() == [[0, 0], [2, -4], [0, 0]]
    index = torch.tensor([2, -1]).view(1, 2, 1, 1)
    # Only the first bin counts: 0.25 * [2, -4] in cell 2.
    assert voxel_pooling(depth, context, index, 3).tolist() == [[0, 0], [0, 0], [0.5, -1]]


@pytest.mark.parametrize("sizes", [(2, 5, 3, 4, 6, 11), (1, 1, 1, 1, 1, 1), (3, 7, 1, 5, 2, 1), (1, 2, 5, 3, 9, 400)])
def test_it_equals_the_loop(sizes):
    depth, context, index = points(*sizes)
    torch.testing.assert_close(voxel_pooling(depth, context, index, sizes[-1]), loop(depth, context, index, sizes[-1]))


@pytest.mark.parametrize("sizes", [(0, 5, 3, 4, 6, 11), (2, 0, 3, 4, 6, 11), (2, 5, 0, 4, 6, 11), (2, 5, 3, 4, 0, 11)])
def test_empty_sizes_give_zeros_and_zero_gradients(sizes):
    depth, context, index = (tensor.requires_grad_(tensor.is_floating_point()) for tensor in points(*sizes))
    pooled = voxel_pooling(depth, context, index, sizes[-1])
    assert pooled.shape == (11, sizes[4]) and not pooled.any()
    pooled.sum().backward()
    assert depth.grad.shape == depth.shape and context.grad.shape == context.shape


def test_no_cells_or_no_point_inside_give_zeros_too():
    depth, context, index = points(2, 5, 3, 4, 6, 11)
    assert voxel_pooling(depth, context, torch.full_like(index, -1), 0).shape == (0, 6)
    context.requires_grad_()
    pooled = voxel_pooling(depth, context, torch.full_like(index, -1), 4)
    assert pooled.shape == (4, 6) and not pooled.any()
    pooled.sum().backward()
    assert not context.grad.any()


def test_gradients_are_those_of_finite_differences():
    depth, context, index = points(2, 3, 2, 3, 4, 7)
    depth.requires_grad_()
    context.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, c: voxel_pooling(d, c, index, 7), (depth, context))


def test_the_same_input_gives_the_same_bits():
    depth, context, index = points(3, 16, 8, 12, 16, 50, dtype=torch.float32)
    first = voxel_pooling(depth, context, index, 50)
    assert all(torch.equal(first, voxel_pooling(depth, context, index, 50)) for _ in range(5))


def test_the_memory_format_does_not_matter():
    depth, context, index = points(3, 4, 8, 12, 16, 50, dtype=torch.float32)
    other = voxel_pooling(depth, context.to(memory_format=torch.channels_last), index, 50)
    assert torch.equal(voxel_pooling(depth, context, index, 50), other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single_precision(dtype):
    # 4096 ones in one cell: a float16 sum would stop at 2048, where 1 is lost in rounding; bfloat16 already at 256.
    depth = torch.ones(1, 64, 8, 8)
    context = torch.ones(1, 1, 8, 8, dtype=dtype)
    pooled = voxel_pooling(depth, context, torch.zeros(1, 64, 8, 8, dtype=torch.int64), 1)
    assert pooled.dtype == dtype and pooled.item() == 4096


def test_autocast_does_not_change_it():
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = voxel_pooling(depth, context, index, 11)
    assert torch.equal(pooled, voxel_pooling(depth, context, index, 11))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": torch.ones(2, 5, 3)}, "expected \\(N, D, H, W\\)"),
        ({"context": torch.ones(2, 6, 4, 3)}, "N, H and W must agree"),
        ({"voxel_index": torch.zeros(2, 5, 3, 4, dtype=torch.int32)}, "expected \\(N, D, H, W\\) int64"),
        ({"voxel_index": torch.zeros(2, 4, 3, 4, dtype=torch.int64)}, "plan's points are \\(2, 4, 3, 4\\); expected"),
        ({"voxel_count": -1}, "zero or more"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, reason):
    depth, context, index = points(2, 5, 3, 4, 6, 11, dtype=torch.float32)
    arguments = {"depth": depth, "context": context, "voxel_index": index, "voxel_count": 11, **change}
    with pytest.raises(ValueError, match=reason):
        voxel_pooling(**arguments)
