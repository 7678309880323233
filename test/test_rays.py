"""Rays: checks, selection, concatenation, the rays of a camera, and depth against distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderocc_model.geometry.rays import Rays, camera_ray_shape, camera_rays, depth_from_distance, distance_from_depth
from renderocc_model.geometry.undistortion import View

VIEW = View(8, 6, np.array([[4.0, 0, 3.5], [0, 4.0, 2.0], [0, 0, 1]]))
LEVEL_FORWARD = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0.2], [0, -1, 0, 1.6], [0, 0, 0, 1]])  # optical z along base x


def labelled(count: int) -> Rays:
    directions = torch.zeros(count, 3)
    directions[:, 0] = 1
    index = torch.arange(count)
    return Rays(torch.zeros(count, 3), directions, index.float(), index + 100, index * 0.5, index % 3 - 1)


def test_rays_are_counted_and_chosen_with_their_labels():
    rays = labelled(6)
    assert len(rays) == 6 and len(rays[2:4]) == 2 and len(rays[:0]) == 0
    for index in (torch.tensor([4, 1]), np.array([4, 1]), [4, 1]):
        assert rays[index].classes.tolist() == [104, 101]
    chosen = rays[rays.distances > 3.5]
    assert chosen.weights.tolist() == [2.0, 2.5] and chosen.frame_offsets.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"rays\[3:4\]"):
        rays[3]


def test_concatenation_keeps_order_and_refuses_columns_that_only_some_parts_have():
    joined = Rays.concatenate([labelled(2), labelled(0), labelled(3)])
    assert joined.classes.tolist() == [100, 101, 100, 101, 102]
    bare = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    assert Rays.concatenate([bare, bare]).distances is None
    with pytest.raises(ValueError, match="distances is given in 1 of 2 parts"):
        Rays.concatenate([bare, labelled(1)])
    with pytest.raises(ValueError, match="at least one"):
        Rays.concatenate([])


def test_moving_to_another_type_leaves_integer_columns_alone():
    moved = labelled(3).to(dtype=torch.float64)
    assert moved.origins.dtype == moved.distances.dtype == torch.float64
    assert moved.classes.dtype == torch.int64
    assert labelled(3).to("meta").origins.device.type == "meta"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"origins": torch.zeros(3)}, r"\(R, 3\)"),
        ({"directions": torch.zeros(3, 3)}, "direction of ray 0 has length 0"),
        ({"directions": torch.tensor([[1.0, 0, 0], [3.0, 4.0, 0.0]])}, "direction of ray 1 has length 5"),
        ({"directions": torch.tensor([[1.0, 0, 0], [math.nan, 0, 0]])}, "direction of ray 1 has length nan"),
        ({"origins": torch.tensor([[0.0, 0, 0], [0, math.inf, 0]])}, "origin of ray 1"),
        ({"origins": torch.zeros(2, 3, dtype=torch.int64)}, "int64"),
        ({"origins": torch.zeros(2, 3, dtype=torch.float64)}, "one float type"),
        ({"origins": torch.zeros(2, 3, device="meta")}, "meta"),
        ({"distances": torch.zeros(3)}, r"distances has shape \(3,\); expected \(2,\)"),
        ({"classes": torch.zeros(2)}, "classes is torch.float32; expected integers"),
        ({"weights": torch.zeros(2, dtype=torch.int64)}, "weights is torch.int64; expected floating point"),
        ({"frame_offsets": torch.zeros(2, dtype=torch.int64, device="meta")}, "frame_offsets is on meta"),
    ],
)
def test_what_does_not_fit_is_named(columns, said):
    good = {"origins": torch.zeros(2, 3), "directions": torch.tensor([[1.0, 0, 0], [0, 0, -1.0]])}
    if columns.get("directions", good["directions"]).shape[0] == 3:
        good["origins"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=said):
        Rays(**{**good, **columns})


def test_camera_rays_start_at_the_camera_and_pass_through_pixel_centres():
    rays = camera_rays(VIEW, LEVEL_FORWARD)
    assert camera_ray_shape(VIEW) == (6, 8) and len(rays) == 48
    assert torch.allclose(rays.origins, torch.tensor([1.5, 0.2, 1.6]).expand(48, 3))
    assert torch.allclose(rays.directions.norm(dim=1), torch.ones(48), atol=1e-6)
    # Pixel (column 7, row 2): 3.5 px right of the centre and level, at focal length 4 px: base (4, -3.5, 0) / 5.315.
    assert rays.directions[2 * 8 + 7].tolist() == pytest.approx([4 / 28.25**0.5, -3.5 / 28.25**0.5, 0], abs=1e-6)


@pytest.mark.parametrize(("stride", "shape", "first"), [(2, (3, 4), 0), (3, (2, 3), 1), (4, (2, 2), 1), (5, (1, 2), 2)])
def test_strided_camera_rays_stand_in_the_middle_of_their_pixels(stride, shape, first):
    # (stride - 1) // 2 pixels from the corner: for 3, pixels 1, 4, 7 of 0..7.
    assert camera_ray_shape(VIEW, stride) == shape
    whole = camera_rays(VIEW, LEVEL_FORWARD).directions.view(6, 8, 3)
    strided = camera_rays(VIEW, LEVEL_FORWARD, stride).directions.view(*shape, 3)
    assert torch.equal(strided, whole[first::stride, first::stride])


def test_camera_rays_refuse_what_is_no_pose_or_stride():
    with pytest.raises(ValueError, match="stride is 0"):
        camera_rays(VIEW, LEVEL_FORWARD, 0)
    with pytest.raises(ValueError, match="base_from_camera"):
        camera_rays(VIEW, LEVEL_FORWARD[:3])
    with pytest.raises(ValueError, match="base_from_camera"):
        camera_rays(VIEW, LEVEL_FORWARD * math.nan)


def test_distance_is_depth_times_length_over_z():
    # A 3-4-12 direction is 13 long: 24 m of z-depth are 26 m of distance. At 45 degrees it is the square root of 2.
    directions = np.array([[3.0, 4.0, 12.0], [1.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    distances = distance_from_depth(np.array([24.0, 5.0, 7.0]), directions)
    assert distances.tolist() == pytest.approx([26.0, 5 * math.sqrt(2), 7.0])
    assert depth_from_distance(distances, directions).tolist() == pytest.approx([24.0, 5.0, 7.0])
    tensor = distance_from_depth(torch.tensor([24.0]), torch.tensor([[3.0, 4.0, 12.0]]))
    assert tensor.item() == pytest.approx(26.0)


def test_points_at_a_depth_lie_at_their_distance_along_the_camera_rays():
    # A wall 10 m in front of the camera: every pixel has z-depth 10, and its ray must end at base x = 11.5.
    rays = camera_rays(VIEW, LEVEL_FORWARD)
    distances = distance_from_depth(np.full((6, 8), 10.0), VIEW.directions()).ravel()
    ends = rays.origins + rays.directions * torch.from_numpy(distances)[:, None]
    assert ends[:, 0].tolist() == pytest.approx([11.5] * 48, abs=1e-5)
