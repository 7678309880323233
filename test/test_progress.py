"""The progress line: means since the last one, rates without pauses, and the time that is left."""

import torch

from training.train import progress
from training.train.progress import Progress


class Clock:
    """A clock that goes on when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_means_rates_and_time_left_by_hand(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    line = Progress(100, 110)
    for loss in (2.0, 4.0):
        clock.now += 3.0
        line.add({"loss": torch.tensor(loss), "depth": torch.tensor(1.0), "rays/labelled": torch.tensor(9)}, rays=30)
    paused = line.pause()
    clock.now += 1000.0  # a validation
    line.resume(paused)
    means, rates = line.take(world_size=2, waited=1.5)
    assert means == {"loss": 3.0, "depth": 1.0, "rays/labelled": 9.0}
    # 6 s for two steps of 30 rays in each of two processes, of which 1.5 s were spent waiting.
    assert rates == {"step_seconds": 3.0, "rays_per_second": 20.0, "waiting_for_samples": 0.25}
    text = line.line(102, means, rates)
    assert text == (
        "step 102/110  0:00:24 to go  loss 3 (depth 1)  3.00 s/step  20 rays/s  "
        "25% waiting for samples: raise run.workers"
    )
    clock.now += 1.0
    line.add({"loss": torch.tensor(1.0)}, rays=30)
    means, rates = line.take(1, 0.0)
    assert means == {"loss": 1.0} and rates["step_seconds"] == 1.0
    assert "0:00:18 to go" in line.line(103, means, rates)  # 7 steps of 0.8 * 3 + 0.2 * 1 = 2.6 s: 18.2 s
