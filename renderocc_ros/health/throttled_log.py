"""A log that repeats itself seldom: each fault is written at once, then at most once in a period, and kept for
/diagnostics."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LogEntry", "ThrottledLog", "printable"]

# A hostile sender can make up names and texts without end. They must fill neither the memory nor the log.
MOST_KEPT = 200  # distinct entries
MOST_LINES = 50  # lines written in one period, whatever they are about
MOST_TEXT = 500  # characters of one entry
# Measured numbers, not sizes: "800x600" tells one fault from another.
_MEASURED = re.compile(r"(?<![\dx.])\d+(\.\d+)?(?![\dx])")


def printable(text: str, most: int = MOST_TEXT) -> str:
    """The text on one line, at most `most` characters of it, with line ends and control characters as escapes.

    Texts that came from the network could otherwise forge log lines or steer the terminal.
    """
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass
class LogEntry:
    """One fault or event.

    Attributes:
        text: as last reported.
        count: how often it was reported.
        seen: steady seconds at which it was last reported.
        written: steady seconds at which it was last written to the log.
        unwritten: reports since then.
    """

    text: str
    count: int
    seen: float
    written: float
    unwritten: int = 0


class ThrottledLog:
    """Writes each distinct entry at once, then at most once in a period, with the number of repeats between.

    Two reports are the same entry if subject, kind and text are equal except for measured numbers: "3.21 s late"
    repeats "3.18 s late", but "800x600" does not repeat "640x480".

    In one period at most `MOST_LINES` lines are written, and the last of them says so. Entries that are not written are
    still counted and kept for /diagnostics. Texts are made `printable`, because parts of them come from the network.

    Thread-safe. Times are steady seconds, given by the caller.

    Args:
        write: called with one line of text; usually the logger's warning.
        period: seconds between two lines about the same entry.
    """

    def __init__(self, write: Callable[[str], None], period: float = 10.0) -> None:
        self._write = write
        self._period = period
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, str], LogEntry] = {}
        self._lines: deque[float] = deque()  # when the lines of the last period were written

    def report(self, subject: str, kind: str, text: str, now: float) -> None:
        """Report a fault or event.

        Args:
            subject: what it is about, e.g. "camera 'front'"; the line begins with it.
            kind: groups entries for `resolve`; it is not written.
            text: what is the matter.
            now: steady seconds.
        """
        subject, kind, text = printable(subject), printable(kind), printable(text)
        key = (subject, kind, _MEASURED.sub("#", text))
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                if len(self._entries) >= MOST_KEPT:
                    del self._entries[min(self._entries, key=lambda other: self._entries[other].seen)]
                entry = self._entries[key] = LogEntry(text, 0, now, float("-inf"))
            entry.text, entry.seen = text, now
            entry.count += 1
            left = self._lines_left(now)
            if now - entry.written < self._period or left <= 0:
                entry.unwritten += 1
                return
            within = "" if entry.written == float("-inf") else f" in {now - entry.written:.0f} s"
            repeats = f" ({entry.unwritten} more times{within})" if entry.unwritten else ""
            entry.written, entry.unwritten = now, 0
            self._lines.append(now)
        if left > 1:
            self._write(f"{subject}: {text}{repeats}")
        else:
            self._write(
                f"{MOST_LINES} lines in {self._period:g} s: others are not written until that is over; see /diagnostics"
            )

    def _lines_left(self, now: float) -> int:
        while self._lines and now - self._lines[0] >= self._period:
            self._lines.popleft()
        return MOST_LINES - len(self._lines)

    def current(self, now: float, within: float) -> list[tuple[str, str, LogEntry]]:
        """(subject, kind, entry) of everything reported in the last `within` seconds, newest first."""
        with self._lock:
            recent = [(*key[:2], entry) for key, entry in self._entries.items() if now - entry.seen <= within]
        return sorted(recent, key=lambda item: -item[2].seen)

    def resolve(self, subject: str, kind: str) -> bool:
        """Forget the entries of a kind. True if there was one, so that the caller can report that the fault is over."""
        with self._lock:
            over = [key for key in self._entries if key[:2] == (subject, kind)]
            for key in over:
                del self._entries[key]
            return bool(over)

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()
