"""The faults of commands: signals, a full or locked disk, no memory, damaged inputs; all drawn from a seed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .disk import Disk
from .process import Interference, family, limit_memory
from .subjects import Subject

__all__ = ["FAULTS", "Injection", "faults_of"]

_START_S = 0.15  # of processor time; before that, no line of this project has run
_TEXT = (".yaml", ".txt", ".json")


@dataclass(frozen=True)
class Injection:
    """One fault, drawn.

    detail: what was drawn, for the record.
    interference: what happens while the command runs.
    damaged: the input file that was changed, relative to `in`.
    """

    detail: str
    interference: Interference | None = None
    damaged: str = ""


@dataclass(frozen=True)
class Reference:
    """A run without faults: its processor time, bytes written, digest of the result and of what must be whole."""

    cpu: float
    bytes: int
    result: str
    finals: dict[str, str]


@dataclass(frozen=True)
class Site:
    """Where a fault is injected."""

    place: Path
    disk: Disk
    subject: Subject
    reference: Reference
    rng: np.random.Generator

    def moment(self) -> float:
        """A moment of the run, seconds of processor time from its start."""
        return _START_S + self.rng.random() * max(self.reference.cpu - _START_S, 0.1)

    def input(self, *suffixes: str) -> Path:
        """One of the files that the command is given."""
        found = sorted({path for pattern in self.subject.inputs for path in (self.place / "in").glob(pattern)})
        found = [path for path in found if path.is_file() and path.suffix in (suffixes or (path.suffix,))]
        return found[self.rng.integers(len(found))]

    def name(self, path: Path) -> str:
        return path.relative_to(self.place / "in").as_posix()


def send(number: int, group: bool) -> Callable[[Site], Injection]:
    """A signal at a random moment, to the command alone, or as a terminal does to all that it has started."""

    def inject(site: Site) -> Injection:
        after = site.moment()

        def act(pid: int, mark: str) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number) if group else os.kill(pid, number)

        return Injection(f"after {after:.2f} of {site.reference.cpu:.2f} CPU seconds", Interference(after, act))

    return inject


def disk_full(site: Site) -> Injection:
    """Room for a part of what the command writes."""
    room = int(site.rng.uniform(0.02, 0.9) * site.reference.bytes)
    site.disk.fill(room)
    return Injection(f"room for {room} of {site.reference.bytes} bytes")


def disk_locked(site: Site) -> Injection:
    """A folder on a read-only file system."""
    site.disk.lock()
    return Injection("read-only")


def out_of_memory(site: Site) -> Injection:
    """From a random moment on, one of the command's processes gets no more than a few megabytes."""
    after, more, which = site.moment(), int(2 ** site.rng.uniform(18, 25)), site.rng.random()

    def act(pid: int, mark: str) -> None:
        running = sorted(family(mark))
        if running:
            limit_memory(running[int(which * len(running))], more)

    when = f"after {after:.2f} of {site.reference.cpu:.2f} CPU seconds"
    return Injection(f"{more >> 10} KiB more {when}", Interference(after, act))


def input_missing(site: Site) -> Injection:
    path = site.input()
    path.unlink()
    return Injection("deleted", damaged=site.name(path))


def input_empty(site: Site) -> Injection:
    path = site.input()
    path.write_bytes(b"")
    return Injection("emptied", damaged=site.name(path))


def input_cut_off(site: Site) -> Injection:
    """The file ends at a random byte."""
    path = site.input()
    size = path.stat().st_size
    length = int(site.rng.integers(size))
    os.truncate(path, length)
    return Injection(f"{length} of {size} bytes", damaged=site.name(path))


def input_changed(site: Site) -> Injection:
    """One to sixteen bytes are changed."""
    path = site.input()
    content = bytearray(path.read_bytes())
    places = site.rng.integers(len(content), size=site.rng.integers(1, 17))
    for place in places:
        content[place] ^= int(site.rng.integers(1, 256))
    path.write_bytes(content)
    return Injection(f"bytes {', '.join(map(str, sorted(places.tolist())))}", damaged=site.name(path))


def input_swapped(site: Site) -> Injection:
    """The file is replaced by another of the command's files, or by random bytes."""
    path, other = site.input(), site.input()
    if other == path or other.suffix == path.suffix:
        content = site.rng.bytes(int(site.rng.integers(1, 65536)))
        path.write_bytes(content)
        return Injection(f"{len(content)} random bytes", damaged=site.name(path))
    shutil.copyfile(other, path)
    return Injection(f"holds {site.name(other)}", damaged=site.name(path))


def line_dropped(site: Site) -> Injection:
    """A line of a text file is missing."""
    path = site.input(*_TEXT)
    lines = path.read_text().splitlines(keepends=True)
    dropped = lines.pop(int(site.rng.integers(len(lines))))
    path.write_text("".join(lines))
    return Injection(f"without {dropped.strip()[:60]!r}", damaged=site.name(path))


FAULTS: dict[str, Callable[[Site], Injection]] = {
    "SIGKILL": send(signal.SIGKILL, group=False),
    "SIGTERM": send(signal.SIGTERM, group=False),
    "SIGINT": send(signal.SIGINT, group=True),
    "disk full": disk_full,
    "read-only disk": disk_locked,
    "out of memory": out_of_memory,
    "input missing": input_missing,
    "input empty": input_empty,
    "input cut off": input_cut_off,
    "input bytes changed": input_changed,
    "input swapped": input_swapped,
    "line dropped": line_dropped,
}
_WRITING = ("disk full", "read-only disk")


def faults_of(subject: Subject) -> list[str]:
    """The faults that a command can meet."""
    writes, text = (
        bool(subject.finals) or subject.name in ("train", "study"),
        any(pattern.endswith(_TEXT) for pattern in subject.inputs),
    )
    return [name for name in FAULTS if (writes or name not in _WRITING) and (text or name != "line dropped")]
