"""Findings of `renderocc doctor` and `renderocc check`: one line each, with a remedy where something is wrong."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

__all__ = ["Fault", "Faults", "Finding", "Findings", "kind_of_fault"]


def kind_of_fault(text: str) -> str:
    """A text without its numbers and bytes, which differ where the same fault is found again.

    >>> kind_of_fault("image 3 begins with 49 49 2a 00")
    'image # begins with #'
    """
    return re.sub(r"\b[0-9a-f]{2}( [0-9a-f]{2})+\b|\d+(\.\d+)?", "#", text)


@dataclass
class Fault:
    """A fault, of which only the first example is kept.

    Attributes:
        text: the first example.
        where: where it was found first: a time, or a file.
        count: how often it was found.
    """

    text: str
    where: str
    count: int = 1

    def with_count(self, what: str) -> str:
        """The text, with the number of the other examples; `what` names one of them, as 'message'."""
        more = self.count - 1
        return f"{self.text} (and {more} more such {what}{'s' if more > 1 else ''})" if more else self.text


class Faults:
    """Faults of many messages or files: each kind is kept once, with its first example and its count.

    Attributes:
        kinds: {(subject, `kind_of_fault`): Fault}, in the order in which they were found.
    """

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], Fault] = {}

    def add(self, subject: str, text: str, where: str, kind: str | None = None) -> None:
        """Note a fault of `subject`, a topic or anything else that is named; `kind` if its text does not tell it."""
        known = self.kinds.setdefault((subject, kind_of_fault(text) if kind is None else kind), Fault(text, where, 0))
        known.count += 1


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: 'ok', 'note' (there was nothing to look at), 'warn' (it works, but worse than it could) or 'FAIL' (it
            cannot work).
        subject: what it is about.
        text: what was found.
        remedy: what to do.
        topic: of a recording, where the fault is on one.
        time: of the recording, for people, where the fault has one.
    """

    level: str
    subject: str
    text: str
    remedy: str = ""
    topic: str = ""
    time: str = ""

    def line(self) -> str:
        where = " at ".join(part for part in (self.topic, self.time) if part)
        text = f"{where}: {self.text}" if where else self.text
        return f"{self.level:<4}  {self.subject}: {text}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass
class Findings:
    """Findings in the order they were made."""

    items: list[Finding] = field(default_factory=list)

    def ok(self, subject: str, text: str) -> None:
        self.items.append(Finding("ok", subject, text))

    def note(self, subject: str, text: str) -> None:
        self.items.append(Finding("note", subject, text))

    def warn(self, subject: str, text: str, remedy: str = "", topic: str = "", time: str = "") -> None:
        self.items.append(Finding("warn", subject, text, remedy, topic, time))

    def fail(self, subject: str, text: str, remedy: str = "", topic: str = "", time: str = "") -> None:
        self.items.append(Finding("FAIL", subject, text, remedy, topic, time))

    @property
    def could_run(self) -> bool:
        """Nothing was found that makes it impossible."""
        return all(item.level != "FAIL" for item in self.items)

    def as_dict(self) -> dict:
        """JSON-ready: could_run and the findings."""
        return {"could_run": self.could_run, "findings": [asdict(item) for item in self.items]}
