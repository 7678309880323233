"""Which earlier frame a frame is joined to."""

import numpy as np
import pytest
import torch

from renderocc_model.inference.frame_history import FrameHistory
from renderocc_model.network.fusion import KeptFrame


def pose(x: float) -> np.ndarray:
    made = np.eye(4)
    made[0, 3] = x
    return made


def frame(number: float) -> KeptFrame:
    return KeptFrame.current(torch.full((1, 1, 2, 2), number))


def driven(history: FrameHistory, times) -> FrameHistory:
    """One metre a second along x, with frames that hold their times."""
    for seconds in times:
        history.add(frame(seconds), pose(seconds), seconds)
    return history


def found(history: FrameHistory, seconds: float) -> float | None:
    before = history.before(pose(seconds), seconds)
    return None if before is None else before.volume.flatten()[0].item()


def test_at_a_high_rate_the_volume_of_about_an_interval_ago_is_joined_and_few_are_kept():
    history = FrameHistory(0.5)
    for number in range(200):
        seconds = 100 + number / 20
        if number >= 10:
            assert abs(seconds - found(history, seconds) - 0.5) < 0.13
        driven(history, [seconds])
        assert len(history) <= 6


def test_at_a_low_rate_it_is_the_frame_before():
    history = driven(FrameHistory(0.5), [10.0, 10.7])
    assert found(history, 11.4) == pytest.approx(10.7)


def test_the_volume_is_moved_by_the_ego_motion_since_its_frame():
    history = driven(FrameHistory(0.5), [10.0, 10.1, 10.25, 10.5])
    before = history.before(pose(10.8), 10.8)
    assert before.volume.flatten()[0].item() == 10.25  # 0.55 s ago
    # What was at x = 0 then lies 0.55 m behind now.
    assert before.base_from_volume[0, :3, 3].tolist() == pytest.approx([-0.55, 0, 0])


def test_the_second_frame_joins_the_first_however_near():
    assert found(driven(FrameHistory(0.5), [10.0]), 10.03) == 10.0


def test_what_is_too_old_or_not_earlier_is_not_joined():
    history = driven(FrameHistory(0.5), [10.0])
    assert found(history, 11.5) == 10.0
    assert found(history, 11.6) is None and found(history, 10.0) is None and found(history, 9.9) is None


def test_a_step_back_in_time_forgets_what_was_before():
    history = driven(FrameHistory(0.5), [10.0, 10.5, 3.0])
    assert len(history) == 1 and found(history, 3.5) == 3.0


def test_without_times_frames_are_an_interval_apart():
    history = FrameHistory(0.5)
    assert history.next_seconds == 0.0
    driven(history, [history.next_seconds])
    assert history.next_seconds == 0.5
    history.clear()
    assert len(history) == 0 and history.next_seconds == 0.0
