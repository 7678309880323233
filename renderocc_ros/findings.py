"""What the doctor finds: one line each, with a remedy where something is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

__all__ = ["Finding", "Findings"]


@dataclass(frozen=True)
class Finding:
    """One finding; `level` is 'ok', 'warn' (the node runs, but not as one would wish) or 'FAIL' (it cannot)."""

    level: str
    subject: str
    text: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.level:<4}  {self.subject}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass
class Findings:
    """Findings in the order they were made."""

    items: list[Finding] = field(default_factory=list)

    def ok(self, subject: str, text: str) -> None:
        self.items.append(Finding("ok", subject, text))

    def warn(self, subject: str, text: str, remedy: str = "") -> None:
        self.items.append(Finding("warn", subject, text, remedy))

    def fail(self, subject: str, text: str, remedy: str = "") -> None:
        self.items.append(Finding("FAIL", subject, text, remedy))

    @property
    def could_run(self) -> bool:
        """Nothing was found that keeps the node from running."""
        return all(item.level != "FAIL" for item in self.items)

    def as_dict(self) -> dict:
        """JSON-ready: could_run and the findings."""
        return {"could_run": self.could_run, "findings": [asdict(item) for item in self.items]}
