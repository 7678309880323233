"""The progress line: step, time left, loss and speed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

__all__ = ["Progress", "clock"]

_WORTH_SAYING = 0.1  # share of time spent waiting for samples; a larger share is printed


def clock(seconds: float) -> str:
    """A time as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Progress:
    """Collects the figures of the steps between two progress lines, and the time that they took.

    Args:
        step: number of steps that were done before this process began.
        steps: number of steps of the whole run.
    """

    def __init__(self, step: int, steps: int) -> None:
        self.steps = steps
        self._seconds_per_step: float | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = self._rays = 0
        self._start = time.monotonic()

    def add(self, values: dict[str, Tensor], rays: int) -> None:
        """Add one step's values, which are numbers on any device, and its number of rays."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        self._count += 1
        self._rays += rays

    def pause(self) -> float:
        """Stop the clock, for work other than training. Give the result to `resume`."""
        return time.monotonic()

    def resume(self, paused: float) -> None:
        """Start the clock again. The time since `paused` does not count."""
        self._start += time.monotonic() - paused

    def take(self, world_size: int, waited: float) -> tuple[dict[str, float], dict[str, float]]:
        """Means of the values since the last call, and rates. Then collecting begins again.

        Args:
            world_size: number of processes; each has the same number of rays.
            waited: seconds that steps waited for samples.
        """
        seconds = max(time.monotonic() - self._start, 1e-9)
        means = {}
        if self._sums:
            # Stacked, so that the GPU is waited for once.
            stacked = torch.stack([value.double().reshape(()) for value in self._sums.values()])
            means = dict(zip(self._sums, (stacked / self._count).tolist()))
        per_step = seconds / max(self._count, 1)
        old = self._seconds_per_step
        self._seconds_per_step = per_step if old is None else 0.8 * old + 0.2 * per_step
        rates = {
            "step_seconds": per_step,
            "rays_per_second": self._rays * world_size / seconds,
            "waiting_for_samples": waited / seconds,
        }
        self._sums, self._count, self._rays, self._start = {}, 0, 0, time.monotonic()
        return means, rates

    def line(self, step: int, means: dict[str, float], rates: dict[str, float]) -> str:
        """The progress line of a step."""
        left = clock((self.steps - step) * (self._seconds_per_step or 0))
        kept = {name: value for name, value in means.items() if "/" not in name and name != "gradient_norm"}
        terms = ", ".join(f"{name} {value:.3g}" for name, value in kept.items() if name != "loss")
        waiting = rates["waiting_for_samples"]
        slow = f"  {waiting:.0%} waiting for samples: raise run.workers" if waiting > _WORTH_SAYING else ""
        return (
            f"step {step}/{self.steps}  {left} to go  "
            f"loss {means['loss']:.4g} ({terms})  {rates['step_seconds']:.2f} s/step  "
            f"{rates['rays_per_second']:,.0f} rays/s{slow}"
        )
