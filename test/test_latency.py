"""Stage times: percentiles over a window."""

import pytest

from renderocc_ros.health.latency import StageTimes


def test_percentiles_over_the_window():
    times = StageTimes(window=101)
    for value in range(1000):
        times.add("network", value / 1000)
    # The last 101 values are 0.899 ... 0.999: the median is the 51st, 0.949; p99 the 100th, 0.998.
    p50, p99, count = times.percentiles()["network"]
    assert (p50, p99, count) == (pytest.approx(0.949), pytest.approx(0.998), 101)


def test_a_body_that_raises_is_not_counted():
    times = StageTimes()
    with pytest.raises(RuntimeError), times.measure("decode"):
        raise RuntimeError
    assert times.percentiles() == {}
    with times.measure("decode"):
        pass
    assert times.percentiles()["decode"][2] == 1


def test_after_a_clear_no_stage_is_known():
    times = StageTimes()
    times.add("network", 0.1)
    times.clear()
    assert times.percentiles() == {}
