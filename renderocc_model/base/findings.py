"""Findings of `renderocc doctor` and `renderocc check`: one line each, with a remedy where something is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

__all__ = ["Finding", "Findings"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: 'ok', 'warn' (it works, but worse than it could) or 'FAIL' (it cannot work).
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
