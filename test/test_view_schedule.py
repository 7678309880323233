"""When rendered views are drawn: in the time that is left, in turns, and rarely while frames wait."""

import pytest

from renderocc_ros.output.view_schedule import SHARE, ViewSchedule

CAMERAS = [("front", 1), ("left", 2), ("right", 3)]


def test_while_no_frame_waits_every_view_is_drawn():
    schedule = ViewSchedule()
    for camera, _ in CAMERAS:
        assert schedule.allows(late=False, now=10.0)
        schedule.drawn(camera, 10.0, 11.0)


def test_while_frames_wait_views_take_at_most_their_share_of_the_time():
    """Views of 5 ms, asked for every 10 ms for 10 s: at most 7 % of it, and not much less (waits end at multiples)."""
    schedule, spent = ViewSchedule(), 0.0
    for step in range(1000):
        now = 100.0 + 0.01 * step
        if schedule.allows(late=True, now=now):
            schedule.drawn("front", now, now + 0.005)
            spent += 0.005
    assert 0.8 * SHARE * 10 <= spent <= SHARE * 10 + 0.005


def test_the_cameras_take_turns():
    schedule, drawn = ViewSchedule(), []
    for _ in range(4):
        camera, _ = schedule.in_turn(CAMERAS)[0]  # there is time for one
        schedule.drawn(camera, 0.0, 0.0)
        drawn.append(camera)
    assert drawn == ["front", "left", "right", "front"]


@pytest.mark.parametrize("wanted", [[], CAMERAS[:1], CAMERAS])
def test_every_wanted_view_has_its_turn_once_also_after_its_camera_went(wanted):
    schedule = ViewSchedule()
    schedule.drawn("rear", 0.0, 1.0)
    assert schedule.in_turn(wanted) == wanted
    schedule.drawn("left", 0.0, 1.0)
    assert sorted(schedule.in_turn(wanted)) == sorted(wanted)
