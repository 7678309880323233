"""The times of a cloud's points: which field has them, and in what unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renderocc_model.rosio import cdr

__all__ = ["PointTimes", "find_point_times"]

# Names of the field, in small letters and without '_'; the unit may follow the name.
_NAMES = (
    *("time", "t", "timestamp", "stamp", "ts", "offsettime", "timeoffset", "reltime", "relativetime", "timerel"),
    *("pointtime", "pointtimeoffset", "pointtimestamp", "dt", "deltat", "deltatime"),
)
_WITH_UNIT = ("offset", "firing", "rel", "laser")  # names of a time only if a unit follows
_UNITS = {"s": 1e9, "sec": 1e9, "ms": 1e6, "msec": 1e6, "us": 1e3, "usec": 1e3, "ns": 1.0, "nsec": 1.0}  # nanoseconds
_UNIT_NAMES = {1e9: "s", 1e6: "ms", 1e3: "us", 1.0: "ns"}
_SHORTEST, _LONGEST = 1e-3, 1.0  # seconds from the first point of a scan to the last
_LONGER = 1.5  # times the time between two clouds, at most
_FARTHEST = 1.1  # seconds between a point and the cloud's stamp
_TAILS = (0.2, 99.8)  # percentiles between which a scan is measured: some drivers leave single points without a time
_AS_INTEGER = 1e-100  # 64-bit integers in a field that says float64 look like numbers below this


@dataclass(frozen=True)
class PointTimes:
    """Where the times of a topic's points are.

    Attributes:
        field: name of the field.
        unit_ns: nanoseconds in one unit of its values.
        absolute: whether they count from the epoch of the stamps, not from the cloud's stamp.
        duration: seconds from the first point of a scan to the last.
        middle: seconds from a cloud's stamp to the middle of its scan.
    """

    field: str
    unit_ns: float
    absolute: bool
    duration: float = 0.0
    middle: float = 0.0

    def __str__(self) -> str:
        since = "absolute" if self.absolute else "after the stamp"
        return f"field '{self.field}' ({_UNIT_NAMES[self.unit_ns]}, {since}), scans of {self.duration * 1e3:.0f} ms"

    def offsets(self, message: cdr.PointCloudMessage) -> np.ndarray:
        """Seconds from the cloud's stamp to each of its points, (N,) float64; NaN for a point without a time.

        Raises:
            MessageError: the cloud has no such field.
        """
        seconds = self._seconds(_values(message, self.field), message.stamp_ns)
        return np.where(np.abs(seconds) <= _FARTHEST, seconds, np.nan)

    def _seconds(self, values: np.ndarray, stamp_ns: int) -> np.ndarray:
        if self.absolute:
            if values.dtype == np.uint64:
                return (values.astype(np.int64) - round(stamp_ns / self.unit_ns)) * (self.unit_ns * 1e-9)
            return (values - stamp_ns / self.unit_ns) * (self.unit_ns * 1e-9)
        return values * (self.unit_ns * 1e-9)


def find_point_times(
    clouds: Sequence[cdr.PointCloudMessage], period: float | None = None
) -> tuple[PointTimes | None, str]:
    """The times of a topic's points, judged by some of its clouds.

    A scan takes 1 ms to 1 s, and not much longer than the time between two clouds. Only one unit fits that. Whether the
    values count from the stamp or from its epoch, the stamps tell.

    Args:
        clouds: some clouds of the topic.
        period: seconds between two clouds; None if it is not known.
    Returns:
        The times, or None; and why there are none.
    """
    clouds = [cloud for cloud in clouds if len(cloud)]
    if not clouds:
        return None, "its clouds are empty"
    there = [field.name for field in clouds[0].fields]
    named = [(name, unit) for name in there if (unit := _unit_of_name(name)) is not None]
    if not named:
        return None, f"its clouds have no field with the time of each point, only {', '.join(there)}"
    reasons = []
    for name, unit in named:
        found, reason = _of_field(clouds, name, unit or None, period)
        if found is not None:
            return found, ""
        reasons.append(reason)
    return None, "; ".join(reasons)


def _unit_of_name(name: str) -> float | None:
    """The unit in nanoseconds that a field's name tells; 0: it names a time without a unit; None: it names no time."""
    plain = name.lower().replace("_", "")
    if plain in _NAMES:
        return 0.0
    for ending, unit in _UNITS.items():
        base = plain.removesuffix(ending)
        if base != plain and base in (*_NAMES, *_WITH_UNIT):
            return unit
    return None


def _values(message: cdr.PointCloudMessage, field: str) -> np.ndarray:
    """A field's values (N,), float64; or uint64, for integers that the field calls float64 (PointField has no such)."""
    values = message.column(field)
    if values.ndim > 1:
        raise cdr.MessageError(f"PointCloud2: field '{field}' has {values.shape[1]} values a point; expected one")
    if values.dtype == np.float64 and values.size:
        largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
        if 0 < largest < _AS_INTEGER:
            return values.view(np.uint64)
    return values.astype(np.float64)


def _of_field(
    clouds: Sequence[cdr.PointCloudMessage], name: str, unit: float | None, period: float | None
) -> tuple[PointTimes | None, str]:
    spans = []  # first value, last value and stamp of each cloud
    for cloud in clouds:
        values = _values(cloud, name)
        with np.errstate(invalid="ignore"):
            real = np.isfinite(values) & np.isfinite(xyz := cloud.xyz()).all(axis=1) & (xyz != 0).any(axis=1)
        if real.any():
            # Integers of 64 bits have more digits than float64: their last ones do not matter here.
            low, high = np.percentile(values[real].astype(np.float64), _TAILS)
            spans.append((float(low), float(high), cloud.stamp_ns))
    if not spans:
        return None, f"no point has a value in its field '{name}'"
    longest = max(high - low for low, high, _ in spans)
    if longest <= 0:
        return None, f"its field '{name}' has one value for all points of a cloud"
    most = _LONGEST if period is None else min(_LONGEST, max(_LONGER * period, _SHORTEST))
    units = [unit] if unit else [each for each in _UNIT_NAMES if _SHORTEST <= longest * each * 1e-9 < most]
    if not units:
        return None, f"its field '{name}' spans {longest:g} in a cloud, which is no scan in s, ms, us or ns"
    for absolute in (False, True):
        times = PointTimes(name, units[0], absolute)
        reach = np.array([[times._seconds(np.array(end), stamp) for end in span] for *span, stamp in spans])
        if np.abs(reach).max() <= _FARTHEST:
            middle = float(np.median(reach.mean(axis=1)))
            return PointTimes(name, units[0], absolute, longest * units[0] * 1e-9, middle), ""
    apart = float(np.abs(reach).min())
    return None, (
        f"the times in its field '{name}' are {apart:.3g} s away from the stamps of its clouds, as if the LiDAR had "
        "another clock"
    )
