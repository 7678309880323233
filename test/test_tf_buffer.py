"""TransformBuffer against arithmetic of its own (scipy's Rotation and Slerp, 4x4 products) and tf2's written rules."""

from __future__ import annotations

import difflib
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import REALDATA, needs_realdata
from scipy.spatial.transform import Rotation, Slerp

from renderocc_model.rosio.tf_buffer import LONGEST_NAME, TransformBuffer, TransformError

S = 1_000_000_000
UNIT = (0.0, 0.0, 0.0, 1.0)
ORIGIN = (0.0, 0.0, 0.0)


def yaw(degrees: float) -> tuple[float, float, float, float]:
    half = math.radians(degrees) / 2
    return (0.0, 0.0, math.sin(half), math.cos(half))


def moving(*samples, parent="odom", child="base", **settings) -> TransformBuffer:
    """A buffer with samples (stamp in s, x) of one moving frame."""
    buffer = TransformBuffer(**settings)
    for stamp, x in samples:
        assert buffer.set(parent, child, round(stamp * S), (x, 0, 0), UNIT)
    return buffer


def random_rotation(random: np.random.Generator) -> Rotation:
    return Rotation.from_quat(random.normal(size=4))


def refusal(call, *arguments) -> TransformError:
    with pytest.raises(TransformError) as info:
        call(*arguments)
    return info.value


# ------------------------------------------------------------------------------------------------------ worked by hand


def test_a_lookup_takes_points_of_the_source_to_the_target():
    buffer = TransformBuffer()
    buffer.set("base", "cam", 0, (1, 2, 3), yaw(90), static=True)
    # 90 degrees about z turns x into y: (1, 0, 0) of cam is (1, 2, 3) + (0, 1, 0) in base.
    np.testing.assert_allclose(buffer.lookup("base", "cam", 5 * S) @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-15)
    np.testing.assert_allclose(buffer.lookup("cam", "base", 5 * S) @ [1, 3, 3, 1], [1, 0, 0, 1], atol=1e-15)


def test_translation_is_linear_and_rotation_constant_speed_between_samples():
    buffer = TransformBuffer()
    buffer.set("odom", "base", 10 * S, (0, 0, 0), yaw(0))
    buffer.set("odom", "base", 12 * S, (4, -2, 8), yaw(120))
    # A quarter of the way: (1, -0.5, 2) and 30 degrees.
    answer = buffer.lookup("odom", "base", 10 * S + S // 2)
    np.testing.assert_allclose(answer[:3, 3], [1, -0.5, 2], atol=1e-15)
    np.testing.assert_allclose(answer[:2, 0], [math.cos(math.pi / 6), math.sin(math.pi / 6)], atol=1e-15)


def test_the_shorter_way_round_is_taken_whatever_the_sign_of_the_quaternion():
    buffer = TransformBuffer()
    buffer.set("odom", "base", 0 * S, ORIGIN, yaw(10))
    buffer.set("odom", "base", 1 * S, ORIGIN, tuple(-value for value in yaw(30)))
    answer = buffer.lookup("odom", "base", S // 2)
    np.testing.assert_allclose(answer[:2, 0], [math.cos(math.radians(20)), math.sin(math.radians(20))], atol=1e-15)


def test_frames_meet_at_their_common_ancestor_even_if_nothing_is_known_above_it_at_that_stamp():
    buffer = moving((1, 0), (2, 1), parent="map", child="odom")
    buffer.set("odom", "left", 0, (1, 0, 0), UNIT, static=True)
    buffer.set("odom", "right", 0, (5, 0, 0), UNIT, static=True)
    # right seen from left: 5 - 1; map from odom is not known at 100 s and not needed.
    np.testing.assert_array_equal(buffer.lookup("left", "right", 100 * S)[:3, 3], [4, 0, 0])
    assert refusal(buffer.lookup, "map", "right", 100 * S).kind == "extrapolation_future"


def test_stamps_keep_their_nanoseconds():
    begin = 1_700_000_000 * S
    buffer = TransformBuffer()
    buffer.set("odom", "base", begin, (0, 0, 0), UNIT)
    buffer.set("odom", "base", begin + 1000, (1, 0, 0), UNIT)
    assert buffer.lookup("odom", "base", begin + 1)[0, 3] == pytest.approx(0.001, abs=1e-15)


def test_the_same_frame_is_the_identity_known_or_not():
    np.testing.assert_array_equal(TransformBuffer().lookup("any", "any", 3), np.eye(4))


def test_a_leading_slash_is_stripped_wherever_it_comes():
    buffer = TransformBuffer()
    buffer.set("/base", "/cam", 0, (1, 0, 0), UNIT, static=True)
    for target, source in (("base", "cam"), ("/base", "cam"), ("base", "/cam")):
        assert buffer.lookup(target, source, 0)[0, 3] == 1
    assert buffer.latest("/base", "/cam") == 0
    assert refusal(buffer.lookup, "//base", "cam", 0).kind == "unknown_frame"  # tf2 strips one


# ------------------------------------------------------------------------------------------------- refusals in a lookup


def test_extrapolation_is_refused_with_the_time_asked_the_edge_the_gap_and_the_frames():
    buffer = moving((10, 0), (12, 1))
    buffer.set("base", "cam", 0, ORIGIN, UNIT, static=True)
    future = refusal(buffer.lookup, "odom", "cam", 12 * S + S // 4)
    assert future.kind == "extrapolation_future" and future.may_come
    assert str(future) == (
        "Lookup would require extrapolation into the future.  Requested time 12.250000000 but the latest data is at "
        "time 12.000000000 (0.25 s earlier) for frame [base] in [odom], when looking up transform from frame [cam] "
        "to frame [odom]"
    )
    past = refusal(buffer.lookup, "cam", "odom", 10 * S - 1)
    assert past.kind == "extrapolation_past" and not past.may_come
    assert "into the past.  Requested time 9.999999999 but the earliest data is at time 10.000000000" in str(past)
    assert "(1e-09 s later)" in str(past)
    for stamp in (10 * S, 12 * S):  # the edges themselves are data
        buffer.lookup("odom", "cam", stamp)


def test_a_single_sample_answers_for_its_own_stamp_only():
    buffer = moving((10, 3))
    assert buffer.lookup("odom", "base", 10 * S)[0, 3] == 3
    later = refusal(buffer.lookup, "odom", "base", 11 * S)
    assert later.kind == "no_data" and later.may_come
    assert "at time 11.000000000, but only time 10.000000000 is in the buffer (1 s away)" in str(later)
    assert "for frame [base] in [odom]" in str(later)
    assert not refusal(buffer.lookup, "odom", "base", 9 * S).may_come


def test_stamp_zero_is_a_time_like_any_other():
    assert refusal(moving((10, 0), (12, 1)).lookup, "odom", "base", 0).kind == "extrapolation_past"
    assert moving((0, 7), (1, 8)).lookup("odom", "base", 0)[0, 3] == 7


def test_unknown_frames_are_named_with_the_nearest_known_one():
    assert "no transform has been received" in str(refusal(TransformBuffer().lookup, "odom", "base", 0))
    buffer = moving((1, 0), (2, 0), child="base_link")
    error = refusal(buffer.lookup, "odom", "base_lnk", S)
    assert error.kind == "unknown_frame" and error.may_come
    assert str(error) == "\"base_lnk\" passed to lookup as source_frame does not exist; did you mean 'base_link'?"
    assert "target_frame does not exist; known frames: base_link, odom" in str(refusal(buffer.lookup, "xyz", "odom", S))
    assert "target_frame of a lookup is empty" in str(refusal(buffer.lookup, "", "odom", S))
    assert refusal(buffer.latest, "odom", "camera_7").kind == "unknown_frame"


def test_the_hint_at_a_known_frame_is_worked_out_while_others_may_use_the_buffer(monkeypatch):
    buffer = moving((1, 0), (2, 0), child="base_link")
    writers = []

    class Watched(difflib.SequenceMatcher):
        def quick_ratio(self):
            writer = threading.Thread(target=buffer.set, args=("odom", "base_link", 3 * S, ORIGIN, UNIT), daemon=True)
            writer.start()
            writer.join(10)
            writers.append(writer.is_alive())
            return super().quick_ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Watched)
    error = refusal(buffer.wait_for, "odom", "base_lnk", S, 0.0)
    assert "did you mean 'base_link'?" in str(error)
    assert writers and not any(writers)  # none still waits for the lock


def test_the_hint_is_made_from_a_bounded_number_of_names_of_similar_length(monkeypatch):
    compared = []

    class Counted(difflib.SequenceMatcher):
        def quick_ratio(self):
            compared.append(self.a)
            return super().quick_ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Counted)
    buffer = TransformBuffer()
    for index in range(3000):
        buffer.set("odom", f"camera_{index}" + "x" * (200 if index % 2 else 0), S, ORIGIN, UNIT)
    assert "did you mean 'camera_" in str(refusal(buffer.lookup, "odom", "camera_9999", S))
    assert 0 < len(compared) <= 300 and max(map(len, compared)) < 20
    compared.clear()
    assert "known frames: camera_0, " in str(refusal(buffer.lookup, "odom", "camera_9999" + "x" * 200, S))
    assert compared == []  # longer than names that people type


def test_a_lookup_of_a_name_as_long_as_a_book_is_refused_without_repeating_or_comparing_it(monkeypatch):
    monkeypatch.delattr(difflib, "SequenceMatcher")
    buffer = moving((1, 0), (2, 0), child="x" * LONGEST_NAME)
    error = refusal(buffer.lookup, "odom", "x" * (LONGEST_NAME + 1), S)
    assert error.kind == "unknown_frame" and not error.may_come
    assert str(error) == "source_frame of a lookup has 1001 characters; expected at most 1000; correct the name"


def test_two_trees_are_named_by_their_roots():
    buffer = moving((1, 0), (2, 0))
    buffer.set("lidar_mount", "lidar", 0, ORIGIN, UNIT, static=True)
    for call in (lambda: buffer.lookup("base", "lidar", S), lambda: buffer.latest("base", "lidar")):
        error = refusal(call)
        assert error.kind == "disconnected" and error.may_come
        assert "'base' ends at 'odom', that of 'lidar' at 'lidar_mount'" in str(error)


@pytest.mark.parametrize("static", [True, False])
def test_a_loop_is_an_error_not_a_hang(static):
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "leaf"), ("root", "alone")):
        buffer.set(parent, child, S, ORIGIN, UNIT, static)
    for target, source in (("alone", "leaf"), ("leaf", "alone"), ("root", "a")):
        for call in (lambda: buffer.lookup(target, source, S), lambda: buffer.latest(target, source)):
            error = refusal(call)
            assert error.kind == "loop" and "contains a loop: " in str(error)
    assert "c -> b -> a -> c" in str(refusal(buffer.lookup, "root", "leaf", S))
    buffer.lookup("c", "leaf", S)  # what does not need the loop still works


# ------------------------------------------------------------------------------------------------------ refusals in set


@pytest.mark.parametrize(
    "parent, child, translation, quaternion, reason",
    [
        ("a", "a", ORIGIN, UNIT, "TF_SELF_TRANSFORM"),
        ("/a", "a", ORIGIN, UNIT, "TF_SELF_TRANSFORM"),
        ("", "a", ORIGIN, UNIT, "TF_NO_FRAME_ID"),
        ("a", "", ORIGIN, UNIT, "TF_NO_CHILD_FRAME_ID"),
        ("a", "/", ORIGIN, UNIT, "TF_NO_CHILD_FRAME_ID"),
        ("a", "b", (0, math.nan, 0), UNIT, "TF_NAN_INPUT"),
        ("a", "b", (0, math.inf, 0), UNIT, "TF_NAN_INPUT"),
        ("a", "b", ORIGIN, (0, 0, math.nan, 1), "TF_NAN_INPUT"),
        ("a", "b", ORIGIN, (0, 0, -math.inf, 1), "TF_NAN_INPUT"),
        ("a", "b", ORIGIN, (0, 0, 0, 0), "TF_DENORMALIZED_QUATERNION"),
        ("a", "b", ORIGIN, (1e-160, 0, 0, 0), "TF_DENORMALIZED_QUATERNION"),  # its square is no number any more
    ],
)
def test_transforms_that_tf2_refuses_are_refused_with_its_reason_and_change_nothing(
    parent, child, translation, quaternion, reason
):
    buffer = moving((1, 0), (2, 1), parent="a", child="b")
    error = refusal(buffer.set, parent, child, 3 * S, translation, quaternion)
    assert error.kind == "invalid" and reason in str(error)
    assert f"'{child.lstrip('/')}'" in str(error)
    assert buffer.frames()["b"].newest_ns == 2 * S and set(buffer.frames()) == {"b"}


@pytest.mark.parametrize("length", [0.995, 0.7, 2.0, 1e-6, 1e6])
def test_a_quaternion_of_any_length_is_normalised_as_tf2_does(length):
    buffer = TransformBuffer()
    buffer.set("a", "b", 0, (1, 2, 3), (0, 0, length, 0), static=True)
    # Half a turn about z, and the translation not scaled.
    expected = [[-1, 0, 0, 1], [0, -1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(buffer.lookup("a", "b", 0), expected, atol=1e-15)


# ------------------------------------------------------------------------------------------------------------- history


def test_history_is_bounded_in_time_counted_from_the_newest_sample():
    buffer = moving(*((second, second) for second in range(100)), history=10)
    info = buffer.frames()["base"]
    # Before 99 s came in, everything older than 98 - 10 s was dropped: 88..99 are left (tf2 prunes before it inserts).
    assert (info.oldest_ns, info.newest_ns, info.samples) == (88 * S, 99 * S, 12)


def test_history_is_bounded_in_number_and_the_oldest_go_first():
    buffer = moving(*((second / 1000, second) for second in range(1000)), max_samples=50)
    info = buffer.frames()["base"]
    assert (info.samples, info.oldest_ns, info.newest_ns) == (50, 950_000_000, 999_000_000)


def test_samples_out_of_order_are_sorted_in():
    buffer = moving((1, 10), (4, 40), (2, 20), (3, 30))
    assert buffer.lookup("odom", "base", 5 * S // 2)[0, 3] == 25
    assert buffer.lookup("odom", "base", 3 * S)[0, 3] == 30


def test_what_is_older_than_the_history_is_ignored_and_counted():
    buffer = moving((100, 0), (101, 1), history=10)
    assert not buffer.set("odom", "base", 91 * S - 1, (9, 9, 9), UNIT)
    assert buffer.set("odom", "base", 91 * S, (5, 0, 0), UNIT)  # exactly the history old is kept, as in tf2
    assert buffer.ignored_old == 1 and buffer.frames()["base"].oldest_ns == 91 * S


def test_exact_repetitions_are_kept_once_and_the_last_of_two_values_of_one_stamp_answers():
    buffer = moving((1, 0), (2, 1), (2, 1), (2, 1), (3, 2))
    assert buffer.frames()["base"].samples == 3
    buffer.set("odom", "base", 2 * S, (7, 0, 0), UNIT)
    assert buffer.lookup("odom", "base", 2 * S)[0, 3] == 7
    # As in tf2 the earlier holds up to the stamp, the later from it on: (0 + 1) / 2 before, (7 + 2) / 2 after.
    assert buffer.lookup("odom", "base", 3 * S // 2)[0, 3] == 0.5
    assert buffer.lookup("odom", "base", 5 * S // 2)[0, 3] == 4.5


def test_static_transforms_hold_at_all_times_and_the_last_one_counts():
    buffer = TransformBuffer()
    buffer.set("base", "cam", 50 * S, (1, 0, 0), UNIT, static=True)
    assert [buffer.lookup("base", "cam", stamp)[0, 3] for stamp in (-S, 0, 10**6 * S)] == [1, 1, 1]
    buffer.set("base", "cam", 10 * S, (2, 0, 0), UNIT, static=True)
    assert buffer.lookup("base", "cam", 0)[0, 3] == 2


def test_remembered_static_answers_follow_every_change():
    buffer = TransformBuffer()
    buffer.set("base", "mount", 0, (1, 0, 0), UNIT, static=True)
    buffer.set("mount", "cam", 0, (0, 1, 0), UNIT, static=True)
    answer = buffer.lookup("base", "cam", 0)
    answer[:] = 0  # the caller's own
    np.testing.assert_array_equal(buffer.lookup("base", "cam", 0)[:3, 3], [1, 1, 0])
    buffer.set("base", "mount", 0, (3, 0, 0), UNIT, static=True)
    np.testing.assert_array_equal(buffer.lookup("base", "cam", 0)[:3, 3], [3, 1, 0])
    buffer.set("other", "mount", 0, (3, 0, 0), UNIT, static=True)  # same numbers, another parent
    assert refusal(buffer.lookup, "base", "cam", 0).kind == "disconnected"
    buffer.set("base", "mount", 0, (4, 0, 0), UNIT, static=True)
    buffer.lookup("base", "cam", 0)
    buffer.set("base", "mount", 5 * S, (9, 0, 0), UNIT, static=False)  # now it moves
    assert refusal(buffer.lookup, "base", "cam", 0).kind == "no_data"
    assert buffer.lookup("base", "cam", 5 * S)[0, 3] == 9


def test_clear_keeps_what_is_static():
    buffer = moving((1, 0), (2, 1))
    buffer.set("base", "cam", 0, (1, 0, 0), UNIT, static=True)
    buffer.clear()
    assert set(buffer.frames()) == {"cam"}
    assert buffer.lookup("base", "cam", 0)[0, 3] == 1
    error = refusal(buffer.lookup, "odom", "cam", S)
    assert error.kind == "unknown_frame" and error.may_come
    assert str(error).endswith("target_frame does not exist; known frames: base, cam")
    assert buffer.set("odom", "base", S // 2, (5, 0, 0), UNIT)  # an earlier time is welcome again
    assert buffer.lookup("odom", "cam", S // 2)[0, 3] == 6


def test_after_a_jump_back_the_transforms_of_the_new_pass_can_be_kept():
    buffer = moving((100, 0), (101, 1), (102, 2))
    assert buffer.set("odom", "base", 95 * S, (5, 0, 0), UNIT)
    buffer.clear(newer_than_ns=96 * S)
    assert buffer.frames()["base"][2:] == (1, 95 * S, 95 * S)


def test_the_number_of_frames_is_bounded():
    buffer = TransformBuffer(max_frames=3)
    buffer.set("a", "b", 0, ORIGIN, UNIT)
    buffer.set("a", "c", 0, ORIGIN, UNIT)
    error = refusal(buffer.set, "a", "d", 0, ORIGIN, UNIT)
    assert error.kind == "invalid" and "3 frames are known, and no more are kept; stop the publisher" in str(error)
    assert buffer.set("c", "b", S, ORIGIN, UNIT)
    with pytest.raises(ValueError, match="expected a positive time"):
        TransformBuffer(history=0)


def test_after_a_flood_of_names_clear_makes_room_for_true_frames_and_keeps_static_ones():
    buffer = TransformBuffer(max_frames=5)
    buffer.set("base", "front", 0, (1, 0, 0), UNIT, static=True)
    for name in ("made_up_1", "made_up_2"):
        buffer.set("odom", name, S, ORIGIN, UNIT)
    assert buffer.full
    error = refusal(buffer.set, "base", "left", 0, ORIGIN, UNIT, True)
    assert "5 frames are known" in str(error) and "~/reset" in str(error) and "max_frames" not in str(error)
    buffer.clear()
    assert not buffer.full
    assert buffer.set("base", "left", 0, (0, 3, 0), UNIT, static=True)
    np.testing.assert_array_equal(buffer.lookup("front", "left", 0)[:3, 3], [-1, 3, 0])


def test_a_clear_from_a_time_on_keeps_the_names_of_what_is_kept_and_no_others():
    buffer = TransformBuffer(max_frames=5)
    buffer.set("map", "odom", S, ORIGIN, UNIT)
    buffer.set("odom", "base", S, (4, 0, 0), UNIT)
    buffer.set("odom", "late", 9 * S, ORIGIN, UNIT)
    buffer.clear(newer_than_ns=2 * S)
    assert buffer.lookup("map", "base", S)[0, 3] == 4
    assert refusal(buffer.lookup, "map", "late", S).kind == "unknown_frame"


# ----------------------------------------------------------------------------------------------- parents and conflicts


def test_a_child_given_to_a_new_parent_stays_with_the_old_one_until_then():
    buffer = TransformBuffer()
    buffer.set("world", "hand", 0, (10, 0, 0), UNIT, static=True)
    buffer.set("world", "cup", 1 * S, (1, 0, 0), UNIT)
    buffer.set("world", "cup", 2 * S, (3, 0, 0), UNIT)
    buffer.set("hand", "cup", 4 * S, (0, 0, 0), UNIT)
    buffer.set("hand", "cup", 5 * S, (0, 2, 0), UNIT)
    np.testing.assert_array_equal(buffer.lookup("world", "cup", 3 * S // 2)[:3, 3], [2, 0, 0])
    np.testing.assert_array_equal(buffer.lookup("world", "cup", 3 * S)[:3, 3], [3, 0, 0])  # held, not mixed
    np.testing.assert_array_equal(buffer.lookup("world", "cup", 4 * S)[:3, 3], [10, 0, 0])
    np.testing.assert_array_equal(buffer.lookup("world", "cup", 9 * S // 2)[:3, 3], [10, 1, 0])
    assert buffer.conflicts == []  # one change is no conflict


def test_two_parents_by_turns_are_reported_as_a_conflict():
    buffer = TransformBuffer()
    for step in range(6):
        buffer.set(("odom", "map")[step % 2], "base", step * S, ORIGIN, UNIT)
    (conflict,) = buffer.conflicts
    assert conflict.child == "base" and conflict.claims == ("under 'odom'", "under 'map'") and conflict.switches == 5
    assert str(conflict).startswith("frame 'base' is published under 'odom' and under 'map' by turns (5 switches)")
    buffer.clear()
    assert buffer.conflicts == []


def test_static_and_moving_by_turns_are_reported_as_a_conflict():
    buffer = TransformBuffer()
    for step in range(4):
        buffer.set("base", "cam", step * S, ORIGIN, UNIT, static=step % 2 == 0)
    (conflict,) = buffer.conflicts
    assert conflict.claims == ("under 'base' (static)", "under 'base'")


# ------------------------------------------------------------------------------------------------- latest, and waiting


def test_latest_is_the_oldest_of_the_newest_stamps_below_the_common_ancestor():
    buffer = moving((1, 0), (9, 0), parent="map", child="odom")
    for stamp in (1, 5):
        buffer.set("odom", "base", stamp * S, ORIGIN, UNIT)
    for stamp in (1, 7):
        buffer.set("odom", "robot2", stamp * S, ORIGIN, UNIT)
    buffer.set("base", "cam", 0, ORIGIN, UNIT, static=True)
    assert buffer.latest("odom", "cam") == 5 * S
    assert buffer.latest("cam", "odom") == 5 * S
    assert buffer.latest("map", "robot2") == 7 * S
    assert buffer.latest("cam", "robot2") == 5 * S  # map from odom does not matter
    assert buffer.latest("base", "cam") == 0  # static
    assert buffer.latest("odom", "odom") == 9 * S and buffer.latest("cam", "cam") == 0
    buffer.lookup("odom", "cam", buffer.latest("odom", "cam"))


def test_waiting_ends_as_soon_as_the_transform_is_there():
    buffer = moving((1, 0), (2, 1))
    arrivals = threading.Timer(0.05, lambda: buffer.set("odom", "base", 4 * S, (3, 0, 0), UNIT))
    arrivals.start()
    begin = time.monotonic()
    answer = buffer.wait_for("odom", "base", 3 * S, timeout=20)
    assert time.monotonic() - begin < 10
    arrivals.join()
    assert answer[0, 3] == 2


def test_waiting_ends_with_the_reason_and_never_waits_for_the_past():
    buffer = moving((1, 0), (2, 1))
    begin = time.monotonic()
    assert refusal(buffer.wait_for, "odom", "base", S // 2, 20).kind == "extrapolation_past"
    assert time.monotonic() - begin < 10
    assert refusal(buffer.wait_for, "odom", "base", 3 * S, 0.02).kind == "extrapolation_future"
    assert refusal(buffer.wait_for, "odom", "cam", 3 * S, 0.0).kind == "unknown_frame"


def test_threads_may_write_and_read_together():
    buffer = moving((0, 0), (1, 1))
    errors = []

    def write(offset):
        for step in range(1500):
            stamp = S + step * 1_000_000 + offset
            buffer.set("odom", "base", stamp, (stamp / S, 0, 0), UNIT)

    def read():
        for _ in range(1500):
            latest = buffer.latest("odom", "base")
            x = buffer.lookup("odom", "base", latest)[0, 3]
            if abs(x - latest / S) > 1e-9:
                errors.append((latest, x))

    threads = [threading.Thread(target=write, args=(offset,)) for offset in (0, 300)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --------------------------------------------------------------------------------------------- independent arithmetic


class SlowBuffer:
    """The rules once more, with nothing in common with the code under test: lists, scipy rotations, 4x4 products."""

    def __init__(self):
        self.samples = {}
        self.static = {}

    def set(self, parent, child, stamp, translation, quaternion, static):
        if static:
            self.static[child] = (parent, translation, quaternion)
        else:
            self.samples.setdefault(child, []).append((stamp, parent, translation, quaternion))

    def link(self, child, stamp):
        """(parent, 4x4), None for a root, or the kind of the refusal."""
        if child in self.static:
            parent, translation, quaternion = self.static[child]
            return parent, self.matrix(translation, Rotation.from_quat(quaternion))
        samples = sorted(self.samples.get(child, []), key=lambda sample: sample[0])
        if not samples:
            return None
        for when, parent, translation, quaternion in samples:
            if when == stamp:
                return parent, self.matrix(translation, Rotation.from_quat(quaternion))
        if len(samples) == 1:
            return "no_data"
        if stamp < samples[0][0]:
            return "extrapolation_past"
        if stamp > samples[-1][0]:
            return "extrapolation_future"
        before = [sample for sample in samples if sample[0] < stamp][-1]
        after = [sample for sample in samples if sample[0] > stamp][0]
        if before[1] != after[1]:
            return before[1], self.matrix(before[2], Rotation.from_quat(before[3]))
        share = (stamp - before[0]) / (after[0] - before[0])
        rotation = Slerp([0, 1], Rotation.from_quat([before[3], after[3]]))(share)
        return before[1], self.matrix((1 - share) * np.array(before[2]) + share * np.array(after[2]), rotation)

    @staticmethod
    def matrix(translation, rotation):
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = rotation.as_matrix(), translation
        return result

    def chain(self, frame, stamp):
        """[(ancestor, ancestor_from_frame)] from the frame itself up, and why it ends early."""
        found = [(frame, np.eye(4))]
        while True:
            link = self.link(found[-1][0], stamp)
            if link is None or isinstance(link, str):
                return found, link
            found.append((link[0], link[1] @ found[-1][1]))

    def lookup(self, target, source, stamp):
        """4x4, or the kind of the refusal."""
        ups, gap = self.chain(source, stamp)
        downs, nearer_gap = self.chain(target, stamp)
        for ancestor, from_target in downs:
            for other, from_source in ups:
                if other == ancestor:
                    return np.linalg.inv(from_target) @ from_source
        return nearer_gap or gap or "disconnected"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_forests_are_answered_as_by_independent_arithmetic(seed):
    random = np.random.default_rng(seed)
    names = [f"f{index}" for index in range(random.integers(3, 9))]
    buffer, slow = TransformBuffer(history=1000.0), SlowBuffer()
    messages = []
    for index, child in enumerate(names[1:], start=1):
        if random.random() < 0.1:
            continue  # the root of another tree
        static = bool(random.random() < 0.4)
        usual = names[random.integers(index)]
        for _ in range(1 if static else random.integers(1, 6)):
            parent = names[random.integers(index)] if random.random() < 0.2 else usual
            stamp = 0 if static else int(random.integers(0, 10 * S))
            quaternion = random_rotation(random).as_quat() if random.random() < 0.8 else np.array([0, 0, 0, 1.0])
            messages.append((parent, child, stamp, tuple(random.normal(size=3) * 10), tuple(quaternion), static))
    for index in random.permutation(len(messages)):
        assert buffer.set(*messages[index])
        slow.set(*messages[index])
    known = {name for message in messages for name in message[:2]}
    stamps = [int(stamp) for stamp in random.integers(-S, 11 * S, 12)] + [message[2] for message in messages]
    for stamp in stamps:
        target, source = (names[index] for index in random.integers(len(names), size=2))
        expected = slow.lookup(target, source, stamp)
        if not (target == source or {target, source} <= known):
            expected = "unknown_frame"
        if isinstance(expected, str):
            assert refusal(buffer.lookup, target, source, stamp).kind == expected
        else:
            np.testing.assert_allclose(buffer.lookup(target, source, stamp), expected, atol=1e-9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.floats(-12, 0))
def test_interpolation_equals_scipys_slerp_from_the_smallest_turns_to_half_ones(seed, exponent):
    random = np.random.default_rng(seed)
    first = random_rotation(random)
    axis = random.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * math.pi * 0.999 * 10**exponent)
    second = first * turn
    share = random.random()
    buffer = TransformBuffer()
    buffer.set("a", "b", 0, ORIGIN, first.as_quat())
    buffer.set("a", "b", S, ORIGIN, second.as_quat() * random.choice([-1, 1]))
    stamp = round(share * S)
    expected = Slerp([0, 1], Rotation.concatenate([first, second]))(stamp / S).as_matrix()
    np.testing.assert_allclose(buffer.lookup("a", "b", stamp)[:3, :3], expected, atol=1e-10)


@needs_realdata
def test_cameras_of_the_recorded_keyframe_are_placed_as_its_poses_say():
    from rosbags.highlevel import AnyReader

    from renderocc_model.rosio import cdr

    buffer, poses, mounts, stamps = TransformBuffer(), {}, {}, {}
    with AnyReader([REALDATA / "nuscenes_keyframe"]) as reader:
        for connection, _, raw in reader.messages():
            if connection.msgtype == "tf2_msgs/msg/TFMessage":
                for transform in cdr.read_tf(bytes(raw)):
                    buffer.set(*transform[1:3], transform[0], *transform[3:], static=connection.topic == "/tf_static")
                    matrix = SlowBuffer.matrix(transform.translation, Rotation.from_quat(transform.quaternion))
                    if connection.topic == "/tf":
                        poses[transform.stamp_ns] = matrix
                    elif transform.parent == "base_link":
                        mounts[transform.child] = matrix
            elif connection.topic.endswith("/image_raw/compressed"):
                stamp, frame = cdr.read_header(bytes(raw))
                stamps[frame] = stamp
    anchor = stamps[next(frame for frame in stamps if "cam_front" in frame)]
    shifts = []
    for frame, stamp in stamps.items():
        placed = buffer.lookup("base_link", "odom", anchor) @ buffer.lookup("odom", frame, stamp)
        expected = np.linalg.inv(poses[anchor]) @ poses[stamp] @ mounts[frame]
        np.testing.assert_allclose(placed, expected, atol=1e-6)
        shifts.append(np.linalg.norm(placed[:3, 3] - mounts[frame][:3, 3]))
    assert len(shifts) == 6 and max(shifts) > 0.05 and min(shifts) == pytest.approx(0, abs=1e-9)


def test_frames_made_up_without_end_take_bounded_memory_and_nobody_elses_history():
    buffer = moving((1, 0), (3, 2), max_total=1000, max_frames=300)
    for frame in range(300):
        for stamp in range(1000, 1100):
            try:
                buffer.set("odom", f"made_up_{frame}", stamp, (0, 0, 0), (0, 0, 0, 1))
            except TransformError as error:
                assert error.kind == "invalid"
    # 1000, and of each frame that came later no more than two; names are odom, base and 298 others
    assert sum(info.samples for info in buffer.frames().values()) <= 1000 + 2 * 298
    assert len(buffer.frames()) == 299 and buffer.full
    np.testing.assert_allclose(buffer.lookup("odom", "base", 2 * S)[0, 3], 1.0)
    buffer.set("odom", "base", 5 * S, (4, 0, 0), (0, 0, 0, 1))  # the newest is always taken
    np.testing.assert_allclose(buffer.lookup("odom", "base", 4 * S)[0, 3], 3.0)
    buffer.clear()
    assert not buffer.full


def test_a_frame_name_as_long_as_a_book_is_refused_without_repeating_it():
    error = refusal(TransformBuffer().set, "odom", "x" * 100_000, 1, (0, 0, 0), (0, 0, 0, 1))
    assert error.kind == "invalid" and "100000 characters" in str(error) and len(str(error)) < 300


def test_a_static_frame_that_is_published_again_elsewhere_is_a_conflict():
    buffer = TransformBuffer()
    for x in (1.0, 1.0, 1.0005):  # the same, and the same but for rounding
        buffer.set("base", "cam", 0, (x, 0, 0), UNIT, static=True)
    assert buffer.conflicts == []
    buffer.set("base", "cam", 7 * S, (1.3, 0, 0.4), yaw(2), static=True)
    (conflict,) = buffer.conflicts
    # From (1.0005, 0, 0): 0.2995 along x and 0.4 up are 0.4997 m.
    assert (conflict.child, conflict.stamp_ns) == ("cam", 7 * S)
    assert "frame 'cam' is published on /tf_static again with other values, 0.500 m and 2.00 degrees" in str(conflict)
    np.testing.assert_allclose(buffer.lookup("base", "cam", 0)[:3, 3], (1.3, 0, 0.4))  # as in tf2
