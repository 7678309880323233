"""The volume of an earlier frame lands where the vehicle's motion puts it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.network.fusion import KeptFrame, VolumeFusion, placed

GRID = VoxelGrid((-4.0, -3.0, -1.0), (4.0, 3.0, 1.0), 0.5)  # 16 x 12 x 4, not symmetric in z's count


def features(axes, batch=1, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *GRID.shape[:axes], generator=generator)


def translation(x=0.0, y=0.0, z=0.0):
    motion = np.eye(4)
    motion[:3, 3] = [x, y, z]
    return torch.tensor(motion)


def turn(angle):
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return torch.tensor(motion)


@pytest.mark.parametrize("axes", [2, 3])
def test_standing_still_changes_nothing(axes):
    previous = features(axes)
    warped, mask = placed(KeptFrame.current(previous), GRID)[:2]
    # grid_sample rounds its coordinates to single precision: a millionth of a voxel here.
    torch.testing.assert_close(warped, previous, atol=1e-5, rtol=0)
    assert mask.all()


@pytest.mark.parametrize("axes", [2, 3])
def test_driving_one_voxel_forward_shifts_the_volume_one_voxel_back(axes):
    previous = features(axes)
    # The vehicle drove 0.5 m along x: what was at x is now at x - 0.5, so current[i] = previous[i + 1].
    warped, mask = placed(KeptFrame.current(previous).moved(translation(x=-0.5)), GRID)[:2]
    torch.testing.assert_close(warped[:, :, :-1], previous[:, :, 1:], atol=1e-5, rtol=0)
    assert mask[:, :, :-1].all() and not mask[:, :, -1].any()
    assert not warped[:, :, -1].any()


@pytest.mark.parametrize(("motion", "axis", "step"), [((0, 1.0, 0), 3, 2), ((0, 0, 0.5), 4, 1)])
def test_the_other_axes_shift_too(motion, axis, step):
    previous = features(3)
    warped, mask = placed(KeptFrame.current(previous).moved(translation(*motion)), GRID)[:2]
    # What was at y is now at y + 1.0 m (2 voxels): current[j] = previous[j - 2]; likewise one voxel in z.
    count = previous.shape[axis]
    torch.testing.assert_close(
        warped.narrow(axis, step, count - step), previous.narrow(axis, 0, count - step), atol=1e-5, rtol=0
    )
    assert not mask.narrow(axis, 0, step).any() and mask.narrow(axis, step, count - step).all()


def test_half_a_voxel_is_the_mean_of_two_neighbours():
    previous = features(2)
    warped, mask = placed(KeptFrame.current(previous).moved(translation(x=-0.25)), GRID)[:2]
    torch.testing.assert_close(warped[:, :, :-1], (previous[:, :, 1:] + previous[:, :, :-1]) / 2, atol=1e-5, rtol=0)
    assert mask.all()  # the last centre moved onto the previous grid's face, which still belongs to it
    torch.testing.assert_close(warped[:, :, -1], previous[:, :, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_quarter_turn_turns_the_volume(axes):
    grid = VoxelGrid((-3.0, -3.0, -1.0), (3.0, 3.0, 1.0), 0.5)
    previous = torch.randn(1, 2, *grid.shape[:axes])
    # current_base_from_previous_base turns x to y: what was at (x, y) is now at (-y, x).
    warped, mask = placed(KeptFrame.current(previous).moved(turn(np.pi / 2)), grid)[:2]
    # Now at (x', y') is what was at (y', -x'): current[i, j] = previous[j, n - 1 - i].
    expected = previous.transpose(2, 3).flip(2)
    torch.testing.assert_close(warped, expected, atol=1e-5, rtol=0)
    assert mask.all()


def test_any_motion_samples_the_field_it_should():
    # A field linear in space is reproduced exactly by linear interpolation, whatever the motion.
    slope = torch.tensor([0.3, -0.7, 0.5])
    centres = torch.tensor(GRID.centres())
    previous = (centres @ slope)[None, None]
    motion = (turn(0.3) @ translation(0.7, -0.2, 0.1)).clone()
    motion[:3, :3] = motion[:3, :3] @ torch.tensor(  # a little pitch, orthogonal to single precision
        [[np.cos(0.05), 0, np.sin(0.05)], [0, 1, 0], [-np.sin(0.05), 0, np.cos(0.05)]]
    )
    warped, mask = placed(KeptFrame.current(previous).moved(motion), GRID)[:2]
    then = torch.linalg.inv(motion)
    before = centres.double() @ then[:3, :3].T + then[:3, 3]
    lower, upper = torch.tensor(GRID.lower), torch.tensor(GRID.upper)
    inner = ((before > lower + 0.25) & (before < upper - 0.25)).all(dim=-1)  # between the outermost centres
    assert inner.sum() > 300
    torch.testing.assert_close(warped[0, 0][inner], (before @ slope.double())[inner].float(), atol=1e-5, rtol=0)
    inside = ((before > lower) & (before < upper)).all(dim=-1)
    assert torch.equal(mask[0, 0].bool(), inside)


def test_two_motions_compose():
    volume = KeptFrame.current(features(2))
    once = volume.moved(turn(0.2) @ translation(1.0))
    twice = volume.moved(translation(1.0)).moved(turn(0.2))
    torch.testing.assert_close(once.base_from_volume, twice.base_from_volume)


def test_a_frame_without_a_predecessor_is_masked_even_if_its_features_are_nan():
    previous = features(2, batch=2)
    previous[1] = float("nan")
    volume = KeptFrame.current(previous).moved(torch.eye(4, dtype=torch.float64), valid=torch.tensor([True, False]))
    warped, mask = placed(volume, GRID)[:2]
    assert mask[0].all() and not mask[1].any() and not warped[1].any()


@pytest.mark.parametrize("axes", [2, 3])
def test_fusion_without_a_previous_frame_equals_fusion_with_an_invalid_one(axes):
    torch.manual_seed(1)
    fusion = VolumeFusion(axes, 3).eval()
    fusion.change.reset_parameters()
    current, previous = features(axes), features(axes)
    nothing = KeptFrame.current(previous).moved(torch.eye(4, dtype=torch.float64), valid=torch.tensor([False]))
    assert torch.equal(fusion(current, None), fusion(current, placed(nothing, GRID)))
    assert not torch.equal(fusion(current, None), fusion(current, placed(KeptFrame.current(previous), GRID)))
    assert fusion(current, None).shape == current.shape


@pytest.mark.parametrize("axes", [2, 3])
def test_fusion_begins_without_effect_and_learns(axes):
    fusion = VolumeFusion(axes, 3)
    current = features(axes)
    joined = fusion(current, placed(KeptFrame.current(features(axes) + 1), GRID))
    assert torch.equal(joined, current)
    joined.square().sum().backward()
    assert fusion.change.weight.grad.abs().max() > 0


def test_gradients_reach_the_previous_features():
    previous = features(2).requires_grad_()
    placed(KeptFrame.current(previous).moved(translation(x=0.3)), GRID).volume.sum().backward()
    assert previous.grad.abs().sum() > 0


def test_half_precision_volumes_are_placed_as_exactly():
    previous = features(2)
    warped = placed(KeptFrame.current(previous.half()).moved(translation(x=-0.5)), GRID).volume
    assert warped.dtype == torch.float16
    torch.testing.assert_close(warped[:, :, :-1], previous[:, :, 1:].half(), atol=2e-3, rtol=0)


def test_a_volume_of_another_shape_is_refused():
    fusion = VolumeFusion(2, 3)
    with pytest.raises(ValueError, match="forget the previous frame"):
        fusion(features(2), placed(KeptFrame.current(features(2, batch=2)), GRID))
