"""How a soak's figures change with time, with confidence intervals."""

from __future__ import annotations

import numpy as np

__all__ = ["longest_life", "soaked_seconds", "summary", "trend"]

WARM_UP = 1 / 3  # of the life: until every kind of fault has come once, buffers and heaps grow
BLOCK_S = 120.0
RESAMPLES = 2000
_RECOVERY = 3  # samples after a fault's end that still belong to it


def trend(times: np.ndarray, values: np.ndarray, seed: int = 0) -> dict | None:
    """Least-squares rise per hour and its 95 % confidence interval by a moving-block bootstrap.

    What is left of the values beside the line is cut into overlapping blocks of two minutes (at most a fifth of the
    time), drawn with replacement, laid end to end on the line, and the line fitted anew, 2000 times: neighbouring
    samples are not independent, within a block they stay as they were (Kuensch 1989).

    Args:
        times: (N,) seconds.
        values: (N,).
    Returns:
        per_hour, low, high, first and last (of the fitted line); None with fewer than 20 values.
    """
    good = np.isfinite(values)
    times, values = np.asarray(times, float)[good], np.asarray(values, float)[good]
    count = len(values)
    if count < 20:
        return None
    centred = times - times.mean()
    spread = float((centred**2).sum())
    slope = float((centred * values).sum() / spread)
    line = values.mean() + slope * centred
    rest = values - line
    step = max((times[-1] - times[0]) / (count - 1), 1e-6)
    length = int(min(max(BLOCK_S / step, 2), count // 5))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, count - length + 1, (RESAMPLES, -(-count // length)))
    drawn = rest[(starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count]]
    slopes = slope + (centred * drawn).sum(axis=1) / spread
    low, high = np.percentile(slopes, (2.5, 97.5))
    return {
        "per_hour": slope * 3600,
        "low": float(low) * 3600,
        "high": float(high) * 3600,
        "first": float(line[0]),
        "last": float(line[-1]),
    }


def column(samples: list[dict], name: str) -> np.ndarray:
    """A figure of all samples, NaN where it is missing."""
    return np.array([np.nan if entry.get(name) is None else entry[name] for entry in samples], float)


def longest_life(samples: list[dict]) -> list[dict]:
    """The samples of the process that lived longest."""
    lives: dict[int, list[dict]] = {}
    for entry in samples:
        lives.setdefault(entry["life"], []).append(entry)
    return max(lives.values(), key=len)


def soaked_seconds(samples: list[dict]) -> float:
    """How long processes were watched, all of them together."""
    spans: dict[int, list[float]] = {}
    for entry in samples:
        spans.setdefault(entry["life"], []).append(entry["t"])
    return sum(max(times) - min(times) for times in spans.values())


def counted(values: np.ndarray) -> int:
    """The total of a counter that starts again from 0 whenever the node is configured."""
    values = np.concatenate([[0.0], values[np.isfinite(values)]])
    steps = np.diff(values)
    return int(np.where(steps >= 0, steps, values[1:]).sum())


def percentiles(values: np.ndarray) -> dict:
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    return {name: float(np.percentile(values, q)) for name, q in (("p50", 50), ("p99", 99), ("most", 100))}


def summary(samples: list[dict], events: list[dict]) -> dict:
    """All figures of a soak, for JSON and the document."""
    life = longest_life(samples)
    times = column(life, "t")
    settled = times - times[0] >= WARM_UP * (times[-1] - times[0])
    memory = "own" if np.isfinite(column(life, "own")).any() else "memory"
    quiet = np.array([not entry["fault"] for entry in life])
    for later in range(1, _RECOVERY + 1):
        quiet[later:] &= np.array([not entry["fault"] for entry in life])[:-later]
    ages = {
        name: percentiles(np.array([age for entry, kept in zip(life, chosen) if kept for age in entry["ages"]]))
        for name, chosen in (("all", np.ones(len(life), bool)), ("without_fault", quiet))
    }
    half = times[settled].mean() if settled.any() else 0.0
    result = {
        "minutes": soaked_seconds(samples) / 60,
        "processes": len({entry["life"] for entry in samples}),
        "minutes_of_longest_life": float(times[-1] - times[0]) / 60,
        "faults": sum("end" in event for event in events),
        "kinds": len({event["fault"] for event in events if "end" in event}),
        "ended": [event for event in events if event.get("ended")],
        "wrong": [event for event in events if event.get("broken") or event.get("unexpected")],
        "memory_kind": memory,
        "load": percentiles(column(life, "load")),
        "age_of_newest_result": ages,
        **{name: counted(column(life, name)) for name in ("published", "skipped", "failed")},
    }
    for name in (memory, "threads", "files", "held", "p50", "p99"):
        values = column(life, name)
        kept = values[settled]
        result[name] = {
            "trend": trend(times[settled], kept),
            "second_half": trend(times[settled & (times > half)], values[settled & (times > half)]),
            **{f"{what}": value for what, value in percentiles(kept).items()},
        }
    return result
