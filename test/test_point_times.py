"""Times of points: found under their usual names, in their usual units, and refused where they cannot be times."""

import numpy as np
import pytest

from renderocc_model.rosio.cdr import PointCloudMessage, PointField
from training.recordings.point_times import find_point_times

STAMP = 1_700_000_000_123_456_789
PERIOD = 100_000_000
CODES = {np.dtype(kind): code for code, kind in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"), 1)}


def cloud(name: str, values: np.ndarray, stamp_ns: int = STAMP, kind: str | None = None) -> PointCloudMessage:
    """A cloud of points at (5, i, 0) with one more field; `kind` is what the field says that its values are."""
    values = np.asarray(values)
    layout = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), (name, values.dtype)])
    rows = np.zeros(len(values), layout)
    rows["x"], rows["y"], rows[name] = 5, np.arange(len(values)), values
    fields = [PointField(axis, 4 * index, 7, 1) for index, axis in enumerate("xyz")]
    fields.append(PointField(name, 12, CODES[np.dtype(kind or values.dtype)], 1))
    data = np.frombuffer(rows.tobytes(), np.uint8)
    step = layout.itemsize
    return PointCloudMessage(
        stamp_ns, "lidar", 1, len(values), tuple(fields), False, step, step * len(values), data, True
    )


def clouds(name: str, values_of, kind: str | None = None) -> list[PointCloudMessage]:
    """Three clouds, 0.1 s apart; values_of(stamp) gives the field of each."""
    stamps = [STAMP + index * PERIOD for index in range(3)]
    return [cloud(name, values_of(stamp), stamp, kind) for stamp in stamps]


TURN = np.linspace(0, 0.0999, 1000)  # seconds after the stamp


@pytest.mark.parametrize(
    "name, kind, unit",
    [
        ("time", "f4", 1e0),  # Velodyne
        ("t", "u4", 1e-9),  # Ouster
        ("offset_time", "u4", 1e-9),  # Livox
        ("time_stamp", "u4", 1e-9),  # Nebula
        ("timestamp", "f4", 1e-3),
        ("time_offset_us", "i4", 1e-6),
        ("t_us", "u4", 1e-6),
        ("rel_time_ms", "f4", 1e-3),
        ("ts", "f8", 1e0),
    ],
)
def test_times_after_the_stamp_are_found_by_name_and_span(name, kind, unit):
    made = clouds(name, lambda stamp: (TURN / unit).astype(kind))
    times, why = find_point_times(made, 0.1)
    assert why == "" and times.field == name and not times.absolute
    assert times.unit_ns == pytest.approx(unit * 1e9)
    assert times.duration == pytest.approx(0.0999, rel=0.01) and times.middle == pytest.approx(0.05, abs=1e-3)
    np.testing.assert_allclose(times.offsets(made[1]), TURN, atol=1.1e-6)


@pytest.mark.parametrize("unit", [1e0, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("name", ["timestamp", "point_time", "timeStamp"])
def test_absolute_times_are_told_from_relative_ones(name, unit):
    # Hesai and RoboSense: seconds; Livox PointCloud2: nanoseconds. float64 has 2.4e-7 s of 1.7e9 s.
    made = clouds(name, lambda stamp: (stamp * 1e-9 + TURN) / unit)
    times, why = find_point_times(made, 0.1)
    assert why == "" and times.absolute and times.unit_ns == pytest.approx(unit * 1e9)
    np.testing.assert_allclose(times.offsets(made[2]), TURN, atol=1e-6)


def test_64_bit_integers_in_a_field_that_says_float64_are_read():
    # sensor_msgs/PointField has no 64-bit integers; drivers put them into a field of the same size.
    made = clouds("timestamp", lambda stamp: (stamp + TURN * 1e9).astype(np.uint64), kind="f8")
    times, why = find_point_times(made, 0.1)
    assert why == "" and times.absolute and times.unit_ns == 1.0
    np.testing.assert_allclose(times.offsets(made[0]), TURN, atol=1e-6)


def test_a_stamp_at_the_end_of_the_scan_gives_times_before_it():
    times, _ = find_point_times(clouds("time", lambda stamp: (TURN - 0.1).astype("f4")), 0.1)
    assert times.unit_ns == 1e9 and times.middle == pytest.approx(-0.05, abs=1e-3)


def test_a_simulation_whose_clock_starts_at_zero_has_absolute_times_too():
    made = [cloud("time", stamp * 1e-9 + TURN, stamp) for stamp in (0, 5 * 10**9, 60 * 10**9)]
    times, why = find_point_times(made, 0.1)
    assert why == "" and times.absolute and times.unit_ns == 1e9


def test_one_cloud_is_enough_and_clouds_that_come_seldom_too():
    made = clouds("t", lambda stamp: (TURN * 1e9).astype("u4"))
    for few, period in ((made[:1], None), (made, 1.0), (made, 5.0)):
        assert find_point_times(few, period)[0].unit_ns == 1.0


def test_single_points_without_a_time_do_not_count():
    def values(stamp):
        seconds = stamp * 1e-9 + TURN
        seconds[500] = 0.0
        return seconds

    made = clouds("timestamp", values)
    times, _ = find_point_times(made, 0.1)
    offsets = times.offsets(made[0])
    assert np.isnan(offsets[500]) and np.isfinite(np.delete(offsets, 500)).all()


@pytest.mark.parametrize(
    "name, values_of, said",
    [
        ("intensity", lambda stamp: TURN, "no field with the time of each point, only x, y, z, intensity"),
        ("time", lambda stamp: np.zeros(1000, "f4"), "'time' has one value for all points"),
        ("time", lambda stamp: TURN * 0.005, "'time' spans 0.0004"),  # a flash of half a millisecond: nothing to deskew
        ("t", lambda stamp: stamp * 1e-9 - 37.0 + TURN, "'t' are 36.9 s away from the stamps"),  # TAI beside UTC
        ("t", lambda stamp: 4000.0 + TURN, "another clock"),  # seconds since the LiDAR was switched on
        ("time", lambda stamp: np.full(1000, np.nan), "no point has a value in its field 'time'"),
    ],
)
def test_what_cannot_be_times_is_not_used_and_the_reason_is_given(name, values_of, said):
    times, why = find_point_times(clouds(name, values_of), 0.1)
    assert times is None and said in why


def test_a_second_field_is_used_if_the_first_is_empty():
    first = clouds("time", lambda stamp: np.zeros(1000, "u4"))
    made = []
    for message in first:
        wide = message.data.reshape(1000, -1)
        data = np.concatenate([wide, (TURN * 1e9).astype("<u4").view(np.uint8).reshape(1000, 4)], axis=1)
        fields = (*message.fields, PointField("offset_time", 16, 6, 1))
        made.append(PointCloudMessage(*message[:4], fields, False, 20, 20_000, data.ravel(), True))
    assert find_point_times(made, 0.1)[0].field == "offset_time"


def test_empty_clouds_have_no_times():
    assert find_point_times([cloud("t", np.zeros(0, "u4"))]) == (None, "its clouds are empty")
