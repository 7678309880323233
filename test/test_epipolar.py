"""Similarity along epipolar lines: what it is, and that all implementations agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderocc_model.ops.epipolar import choose, epipolar_similarity

BACKENDS = ("reference", "cpu")
DEPTHS = torch.tensor([0.5, 1.0, 2.0, 4.0, 9.0])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def earlier_features(seed: int, images=3, views=2, **sizes) -> torch.Tensor:
    return features(seed, images * views, **sizes).unflatten(0, (images, views))


def features(seed: int, images=3, channels=6, height=5, width=7, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(images, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def motions(seed: int, images=3, views=2) -> torch.Tensor:
    """Cameras that turn a little and move: places within the images, beside them, and behind the earlier cameras."""
    noise = torch.randn(images, views, 3, 4, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor([[0.05, 0.05, 0.5, 4.0], [0.05, 0.05, 0.5, 2.0], [0.01, 0.01, 0.1, 1.0]])
    return torch.eye(3, 4) + noise * scale


def by_hand(queries, keys, earlier_pixels, depths, groups):
    """The definition, in loops over everything, float64."""
    queries, keys, earlier_pixels = (part.double().numpy() for part in (queries, keys, earlier_pixels))
    images, channels, height, width = queries.shape
    result = np.zeros((images, groups + 1, len(depths), height, width))
    for image, number, v, u in np.ndindex(images, len(depths), height, width):
        depth = float(depths[number])
        for maps, pixels in zip(keys[image], earlier_pixels[image]):
            a, b, c = pixels @ (u * depth, v * depth, depth, 1)
            if c <= 0.05 or not (-0.5 <= a / c <= width - 0.5 and -0.5 <= b / c <= height - 0.5):
                continue
            x, y = np.clip(a / c, 0, width - 1), np.clip(b / c, 0, height - 1)
            left, top = int(x), int(y)
            right, below = min(left + 1, width - 1), min(top + 1, height - 1)
            key = (1 - (y - top)) * ((1 - (x - left)) * maps[:, top, left] + (x - left) * maps[:, top, right])
            key += (y - top) * ((1 - (x - left)) * maps[:, below, left] + (x - left) * maps[:, below, right])
            products = (queries[image, :, v, u] * key).reshape(groups, -1).sum(axis=1)
            result[image, :, number, v, u] = *products, 1
            break
    return torch.from_numpy(result)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_definition(backend, groups):
    given = features(0), earlier_features(1), motions(2)
    found = epipolar_similarity(*given, DEPTHS, groups, backend)
    expected = by_hand(*given, DEPTHS, groups)
    assert 0.1 < expected[:, -1].mean() < 0.9  # some places are seen, others not
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 4), (3, 1)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_maps_of_a_single_row_or_column(backend, height, width):
    sizes = {"height": height, "width": width}
    queries, keys = features(0, **sizes), earlier_features(1, views=1, **sizes)
    pixels = torch.eye(3, 4).repeat(3, 1, 1, 1)
    pixels[:, 0, 0, 3] = torch.tensor([0.0, 0.3, -0.2])
    found = epipolar_similarity(queries, keys, pixels, DEPTHS, 2, backend)
    torch.testing.assert_close(found.double(), by_hand(queries, keys, pixels, DEPTHS, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_motion_every_depth_shows_the_pixel_itself(backend):
    maps = torch.nn.functional.normalize(features(3), dim=1)
    found = epipolar_similarity(maps, maps[:, None], torch.eye(3, 4).repeat(3, 1, 1, 1), DEPTHS, 1, backend)
    torch.testing.assert_close(found, torch.ones_like(found))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shifted_image_is_found_at_the_depth_that_shifts_it_so(backend):
    # Moved by 4 along x: at depth 2 a pixel was two pixels further right.
    maps = torch.nn.functional.normalize(features(4, channels=32, height=6, width=20), dim=1)
    pixels = torch.eye(3, 4).repeat(3, 1, 1, 1)
    pixels[..., 0, 3] = 4.0
    found = epipolar_similarity(maps, maps.roll(2, dims=3)[:, None], pixels, DEPTHS, 1, backend)
    inner = found[:, 0, :, :, 2:16]
    assert (inner.argmax(dim=1) == DEPTHS.tolist().index(2.0)).all()
    torch.testing.assert_close(inner[:, 2], torch.ones_like(inner[:, 2]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_camera_without_an_earlier_image_and_numbers_that_are_none_give_zeros(backend):
    pixels = motions(2)
    pixels[1] = 0
    found = epipolar_similarity(features(0), earlier_features(1), pixels, DEPTHS, 2, backend)
    assert not found[1].any() and found[0].any() and found[2].any()
    pixels[0] = float("nan")
    assert not epipolar_similarity(features(0), earlier_features(1), pixels, DEPTHS, 2, backend)[0].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_images_or_earlier_images_there_are_zeros(backend):
    nothing = epipolar_similarity(features(0)[:0], earlier_features(1)[:0], motions(2)[:0], DEPTHS, 2, backend)
    assert nothing.shape == (0, 3, 5, 5, 7)
    given = features(0), earlier_features(1)[:, :0], motions(2)[:, :0]
    assert not epipolar_similarity(*given, DEPTHS, 2, backend).any()


def test_autocast_moves_no_place():
    given = features(0), earlier_features(1), motions(2)
    exact = epipolar_similarity(*given, DEPTHS, 2, "reference")
    with torch.autocast("cpu", torch.bfloat16):
        rough = epipolar_similarity(*given, DEPTHS, 2, "reference")
    assert torch.equal(rough[:, -1], exact[:, -1])
    torch.testing.assert_close(rough, exact, atol=0.2, rtol=0.05)


def test_keys_that_need_no_gradient_get_none_and_change_that_of_queries_not():
    queries, keys, pixels = features(0).requires_grad_(), earlier_features(1), motions(2)
    found = []
    for needed in (False, True):
        result = epipolar_similarity(queries, keys.requires_grad_(needed), pixels, DEPTHS, 2, "cpu")
        found.append(torch.autograd.grad(result.square().sum(), queries)[0])
    assert torch.equal(*found)


def test_gradients_are_those_of_the_definition():
    queries = features(0, 2, 4, 3, 4, torch.float64).requires_grad_()
    keys = features(1, 4, 4, 3, 4, torch.float64).unflatten(0, (2, 2)).requires_grad_()
    pixels = motions(5, 2)
    assert torch.autograd.gradcheck(
        lambda q, k: epipolar_similarity(q, k, pixels, DEPTHS, 2, "reference"), (queries, keys)
    )
    found = []
    for backend in BACKENDS:
        given = [part.detach().float().requires_grad_() for part in (queries, keys)]
        result = epipolar_similarity(*given, pixels, DEPTHS, 2, backend)
        upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(6))
        found.append(torch.autograd.grad((result * upstream).sum(), given))
    for one, other in zip(*found):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_number_of_threads_changes_no_byte():
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        queries = features(0, 3, 64, 12, 20).requires_grad_()
        keys = features(1, 6, 64, 12, 20).unflatten(0, (3, 2)).requires_grad_()
        depths = torch.linspace(0.5, 20, 48)
        result = epipolar_similarity(queries, keys, motions(2), depths, 4, "cpu")
        results.append((result.detach(), *torch.autograd.grad(result.square().sum(), (queries, keys))))
    assert all(torch.equal(one, other) for one, other in zip(*results))


def test_half_precision_is_compared_in_float32_and_given_back_in_its_type():
    given = features(0), earlier_features(1), motions(2)
    exact = epipolar_similarity(*given, DEPTHS, 2, "cpu")
    rough = epipolar_similarity(given[0].bfloat16(), given[1].bfloat16(), given[2], DEPTHS, 2)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.05)


def test_auto_takes_the_loops_where_they_can_work():
    assert choose(features(0), "auto") == "cpu" and choose(features(0).double(), "auto") == "reference"
    with pytest.raises(ValueError, match="float64; use backend='reference'"):
        choose(features(0).double(), "cpu")
    with pytest.raises(ValueError, match="no loops"):
        choose(features(0), "triton")


def test_what_does_not_fit_is_refused():
    good = [features(0), earlier_features(1), motions(2), DEPTHS, 2]
    for place, wrong, said in (
        (1, earlier_features(1)[:, :, :4], r"and \(M, V, C, h, w\)"),
        (1, features(1), r"and \(M, V, C, h, w\)"),
        (4, 4, "C a multiple of 4"),
        (2, motions(2)[:2], r"expected \(3, 2, 3, 4\)"),
        (3, DEPTHS[None], r"and \(D,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            epipolar_similarity(*good[:place], wrong, *good[place + 1 :])
