"""One target in a process of its own: `python -m fuzz.child TARGET OUT`, started by `python -m fuzz`.

With atheris, libFuzzer guides the inputs by the branches of our modules and keeps those that reach new ones; without
it, kept inputs are changed at random. Either way each execution is counted here, and a finding is noted and passed
over, so that one does not hide the next.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import cv2

from .table import find

WEIGHED = 1024  # one execution in so many is measured for memory
_NOTED_EVERY = 2.0  # seconds between two writings of the counts
_ROOM = 1 << 30  # bytes of address space beyond those in use when fuzzing begins


class Session:
    """Counts, findings and limits of one process."""

    def __init__(self, target, out: Path, runs: int, seconds: float) -> None:
        self.target, self.runs = target, runs
        self.path = out / f"{target.name}.count.json"
        self.crashes = out / "findings" / target.name
        self.executions, self.begin, self.noted = 0, time.monotonic(), 0.0
        self.deadline = self.begin + seconds
        self.findings: dict[str, dict] = {}

    def one(self, data: bytes) -> None:
        """Judge one input; ends the process when the time or the number is used up."""
        from .target import digest, examine

        self.executions += 1
        finding = examine(self.target, data, self.executions % WEIGHED == 0)
        if finding is not None:
            known = self.findings.setdefault(
                finding.key, {"kind": finding.kind, "text": finding.text, "count": 0, "bytes": len(data) + 1}
            )
            known["count"] += 1
            if len(data) < known["bytes"]:  # the smallest of each is kept
                self.crashes.mkdir(parents=True, exist_ok=True)
                if "input" in known:
                    (self.crashes / known["input"]).unlink(missing_ok=True)
                known.update(bytes=len(data), input=digest(data), text=finding.text)
                (self.crashes / known["input"]).write_bytes(data)
        if self.executions % 64 == 0 or finding is not None or self.executions >= self.runs:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        done = now > self.deadline or self.executions >= self.runs
        if done or now - self.noted > _NOTED_EVERY:
            self.noted = now
            self.note()
        if done:
            sys.stdout.flush()
            os._exit(0)  # libFuzzer's own end would count its corpus again

    def note(self) -> None:
        content = {"executions": self.executions, "seconds": time.monotonic() - self.begin, "findings": self.findings}
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(content))
        partial.replace(self.path)


def limit_memory() -> None:
    """Refuse address space beyond what is in use now and a gigabyte: a header that claims more becomes an error."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.child")
    parser.add_argument("target")
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the sources themselves, to be instrumented
    atheris = None if arguments.plain else _atheris()
    if atheris:
        with atheris.instrument_imports(include=["renderocc_model", "training"]):
            target = find(arguments.target)
    else:
        target = find(arguments.target)
    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    corpus = arguments.out / "corpus" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    from .target import digest, examine

    for data in target.seeds():
        (corpus / digest(data)).write_bytes(data)
        examine(target, data)  # imports and caches, before memory is limited
    session = Session(target, arguments.out, arguments.runs, arguments.seconds)
    limit_memory()
    (_guided if atheris else _unguided)(session, corpus, arguments.seed, atheris)
    return 0


def _atheris():
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def _guided(session: Session, corpus: Path, seed: int, atheris) -> None:
    target, rng = session.target, random.Random(seed)

    def mutate(data: bytes, largest: int, _: int) -> bytes:
        if rng.random() < 0.5:
            return atheris.Mutate(data, largest)
        return target.mutate(bytes(data), rng)[:largest]

    options = [f"-max_len={target.largest}", f"-seed={seed}", "-timeout=60", "-rss_limit_mb=0", "-print_final_stats=1"]
    options.append(f"-artifact_prefix={session.crashes}/")
    session.crashes.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, str(corpus)], session.one, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


def _unguided(session: Session, corpus: Path, seed: int, _: object) -> None:
    rng = random.Random(seed)
    pool = [path.read_bytes() for path in sorted(corpus.iterdir())]
    while True:
        data = rng.choice(pool)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = session.target.mutate(data, rng)[: session.target.largest]
        session.one(data)


if __name__ == "__main__":
    sys.exit(main())
