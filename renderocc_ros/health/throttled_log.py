"""What goes wrong, said once, then once in a while, and kept for the diagnostics."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# A hostile sender can make up names and texts without end; neither memory nor the log may fill with them.
MOST_KEPT = 200  # distinct complaints
MOST_LINES = 50  # written in one period, of whatever complaints
MOST_TEXT = 500  # characters of one complaint
# Measured numbers, not sizes: "800x600" tells one fault from another.
_MEASURED = re.compile(r"(?<![\dx.])\d+(\.\d+)?(?![\dx])")


def plain(text: str, most: int = MOST_TEXT) -> str:
    """The text as one line that says nothing but what it says: what cannot be printed, as line ends and the escapes
    with which terminals are steered, is spelt out; what is longer than `most` characters is cut."""
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass
class Complaint:
    """One thing that is wrong: how often it was seen, and when it was last seen and said."""

    text: str
    count: int
    seen: float
    said: float
    unsaid: int = 0


class Complaints:
    """Says each distinct complaint at once, then at most once a period with the number of repeats between.

    Args:
        say: called with one line of text; usually the logger's warning.
        period: seconds between two lines about the same thing.

    In one period at most `MOST_LINES` lines are written, the last of which says so; complaints are counted and kept for
    the diagnostics all the same. Texts are made `plain`, as parts of them come from the network.

    A complaint is known by its subject, its kind and its text without measured numbers: "3.21 s late" repeats
    "3.18 s late", but "800x600" does not repeat "640x480".
    Thread-safe. Times are steady seconds, given by the caller.
    """

    def __init__(self, say: Callable[[str], None], period: float = 10.0) -> None:
        self._say = say
        self._period = period
        self._lock = threading.Lock()
        self._complaints: dict[tuple[str, str, str], Complaint] = {}
        self._lines: deque[float] = deque()  # when those of the last period were written

    def report(self, subject: str, kind: str, text: str, now: float) -> None:
        subject, kind, text = plain(subject), plain(kind), plain(text)
        key = (subject, kind, _MEASURED.sub("#", text))
        with self._lock:
            known = self._complaints.get(key)
            if known is None:
                if len(self._complaints) >= MOST_KEPT:
                    del self._complaints[min(self._complaints, key=lambda other: self._complaints[other].seen)]
                known = self._complaints[key] = Complaint(text, 0, now, float("-inf"))
            known.text, known.seen = text, now
            known.count += 1
            left = self._lines_left(now)
            if now - known.said < self._period or left <= 0:
                known.unsaid += 1
                return
            within = "" if known.said == float("-inf") else f" in {now - known.said:.0f} s"
            repeats = f" ({known.unsaid} more times{within})" if known.unsaid else ""
            known.said, known.unsaid = now, 0
            self._lines.append(now)
        self._say(
            f"{subject}: {text}{repeats}"
            if left > 1
            else (
                f"{MOST_LINES} lines in {self._period:g} s: others are not written until that is over; see /diagnostics"
            )
        )

    def _lines_left(self, now: float) -> int:
        while self._lines and now - self._lines[0] >= self._period:
            self._lines.popleft()
        return MOST_LINES - len(self._lines)

    def current(self, now: float, within: float) -> list[tuple[str, str, Complaint]]:
        """(subject, kind, complaint) of what was seen in the last `within` seconds, newest first."""
        with self._lock:
            recent = [
                (*key[:2], complaint) for key, complaint in self._complaints.items() if now - complaint.seen <= within
            ]
        return sorted(recent, key=lambda item: -item[2].seen)

    def resolve(self, subject: str, kind: str) -> bool:
        """Forget the complaints of a kind; True if there was one, so that the caller can say that it is over."""
        with self._lock:
            over = [key for key in self._complaints if key[:2] == (subject, kind)]
            for key in over:
                del self._complaints[key]
            return bool(over)

    def clear(self) -> None:
        with self._lock:
            self._complaints.clear()
