"""Seconds that pass as fast as a simulated clock."""

import pytest

from renderocc_ros.input.playback_clock import PlaybackClock

SECOND = 1_000_000_000


class Clocks:
    def __init__(self, start_ns: int = 100 * SECOND) -> None:
        self.steady, self.simulated = 7.0, start_ns
        self.clock = PlaybackClock(lambda: self.simulated, lambda: self.steady)
        self.start = self.clock.now()

    def run(self, seconds: float, rate: float, step: float = 0.01) -> float:
        """Let both clocks run; seconds that `now` gained."""
        before = self.clock.now()
        for _ in range(round(seconds / step)):
            self.steady += step
            self.simulated += round(step * rate * SECOND)
            self.clock.now()
        return self.clock.now() - before


@pytest.mark.parametrize("rate", [0.25, 1.0, 10.0])
def test_it_runs_as_fast_as_the_simulated_clock(rate):
    assert Clocks().run(2.0, rate) == pytest.approx(2.0 * rate)


def test_when_the_simulated_clock_stops_the_computers_takes_over_after_half_a_second():
    clocks = Clocks()
    clocks.run(1.0, 1.0)
    # 3 s of standstill, of which the first 0.5 s do not count (to a step of 0.01 s).
    assert clocks.run(3.0, 0.0) == pytest.approx(2.5, abs=0.02)


def test_a_jump_back_is_no_time_at_all():
    clocks = Clocks()
    clocks.run(1.0, 1.0)
    clocks.simulated -= 50 * SECOND
    before = clocks.clock.now()
    assert before - clocks.start == pytest.approx(1.0)
    assert clocks.run(1.0, 1.0) == pytest.approx(1.0)


def test_the_first_reading_of_a_clock_that_starts_is_no_jump():
    clocks = Clocks(start_ns=0)
    clocks.simulated = 1_700_000_000 * SECOND
    assert clocks.clock.now() - clocks.start < 1.0
