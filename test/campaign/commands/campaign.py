"""The campaign: every command against its faults, one run after the other or a few at a time, as JSON lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from campaign.json_lines import append, read_lines

from .disk import Disk, pages
from .injections import FAULTS, Reference, Site, faults_of
from .material import make_material
from .process import run_command
from .subjects import SUBJECTS, Subject, tree_digest
from .verdict import STOPPED, all_made, leftovers, met, wholeness

__all__ = ["Campaign"]

_LIMIT_S = 600.0  # for a command that hangs


class Campaign:
    """Runs of commands under faults, drawn from a seed, in a folder; a run with a result is not made again.

    Args:
        out: folder for material, undisturbed runs and results.jsonl.
        seed: of everything that is drawn; run `number` depends on (seed, number) alone.
        say: gets lines of progress.
    """

    def __init__(self, out: Path, seed: int = 0, say: Callable[[str], None] = print) -> None:
        self.out, self.seed, self.say = out.resolve(), seed, say
        self.results = self.out / "results.jsonl"
        self._references: dict[str, Reference] = {}

    def plan(self, runs: int, commands: Sequence[str] = (), faults: Sequence[str] = ()) -> list[tuple[int, str, str]]:
        """(number, command, fault) of the runs: every pair once, weighted, then again, in a seeded order."""
        pairs = [
            (name, fault)
            for name, subject in SUBJECTS.items()
            for fault in faults_of(subject)
            for _ in range(subject.weight)
        ]
        chosen: list[tuple[str, str]] = []
        rng = np.random.default_rng(self.seed)
        while len(chosen) < runs:
            chosen += [pairs[index] for index in rng.permutation(len(pairs))]
        numbered = [(number, *pair) for number, pair in enumerate(chosen[:runs])]
        return [
            (number, name, fault)
            for number, name, fault in numbered
            if (not commands or name in commands) and (not faults or fault in faults)
        ]

    def run(self, plan: Sequence[tuple[int, str, str]], at_once: int = 1) -> Iterator[dict]:
        """Make the runs of a plan that have no result yet. Yields the results as they come."""
        done = {result["run"] for result in self.read()}
        left = [entry for entry in plan if entry[0] not in done]
        if not left:
            return
        material = make_material(self.out / "material", self.say)
        for name in dict.fromkeys(name for _, name, _ in left):
            self._reference(SUBJECTS[name], material)
        pool = ThreadPoolExecutor(at_once)
        try:
            for result in pool.map(lambda entry: self._one(material, *entry), left):
                append(self.results, result)
                yield result
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, the runs under way come to their end

    def read(self) -> list[dict]:
        """The results there are."""
        return [result for result in read_lines(self.results) if result["seed"] == self.seed]

    def _reference(self, subject: Subject, material: Path) -> None:
        """Run a command without faults, or read what an earlier such run gave."""
        kept = self.out / "references" / f"{subject.name}.json"
        if not kept.exists():
            self.say(f"running {subject.name} twice, undisturbed")
            results = []
            for _ in range(2):  # the second run, with warm caches, is the one whose time counts
                place = self._place(subject, material, f"reference_{subject.name}")
                out = place / "out"
                ended = run_command((subject.name, *subject.arguments), place, place / "log.txt", _LIMIT_S)
                if ended.status or ended.left_running:
                    text = ended.text[-2000:]
                    raise RuntimeError(f"{subject.name} failed without any fault ({ended.status}): {text}")
                results.append(subject.result(out, ended.text))
            if results[0] != results[1]:
                raise RuntimeError(f"{subject.name} came to two results without any fault; see {place}")
            finals = {name: tree_digest(name)(out) for name in subject.finals}
            content = {
                "cpu": ended.cpu,
                "bytes": pages(out),
                "result": results[0],
                "finals": finals,
            }
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(content))
            shutil.rmtree(place)
        self._references[subject.name] = Reference(**json.loads(kept.read_text()))

    def _place(self, subject: Subject, material: Path, name: str) -> Path:
        """A folder with a copy of the command's material and an empty `out`."""
        place = self.out / "runs" / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "out").mkdir(parents=True)
        for part in subject.material:
            source, target = material / part, place / "in" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        if subject.name == "prepare":  # two recordings, so that there are two processes
            shutil.copytree(material / "town", place / "in" / "again")
        return place

    def _one(self, material: Path, number: int, name: str, fault: str) -> dict:
        subject, reference = SUBJECTS[name], self._references[name]
        place = self._place(subject, material, f"{number:04d}")
        out, words = place / "out", (name, *subject.arguments)
        with Disk(out) as disk:
            site = Site(place, disk, subject, reference, np.random.default_rng([self.seed, number]))
            injection = FAULTS[fault](site)
            ended = run_command(words, place, place / "log.txt", _LIMIT_S, injection.interference)
            disk.make_room()
            changed = ended.status == 0 and self._result(subject, out, ended.text) != reference.result
            word, wrong = met(fault, injection, ended, subject, changed)
            finished = fault in STOPPED and ended.status and all_made(out, subject, reference)
            if finished or injection.interference is not None and not ended.interfered and not wrong:
                word = "too late"
            stopped_early = (
                changed and fault in STOPPED
            )  # training saves, ends with status 0, and goes on when given again
            if ended.status and not finished or stopped_early:
                wrong += wholeness(out, subject, reference)
                wrong += self._again(subject, place, words, material, injection.damaged)
        if not wrong:
            shutil.rmtree(place)
        return {
            "run": number,
            "seed": self.seed,
            "command": name,
            "fault": fault,
            "detail": injection.detail,
            "damaged": injection.damaged,
            "status": ended.status,
            "seconds": round(ended.seconds, 2),
            "met": word,
            "said": ended.last_line[:400],
            "wrong": wrong,
        }

    def _again(self, subject: Subject, place: Path, words: Sequence[str], material: Path, damaged: str) -> list[str]:
        """Run the same command again without the fault: it must come to the same result and leave nothing half-done."""
        if damaged:
            first, rest = Path(damaged).parts[0], Path(*Path(damaged).parts[1:])
            shutil.copyfile(material / ("town" if first == "again" else first) / rest, place / "in" / damaged)
        ended = run_command(words, place, place / "again.txt", _LIMIT_S)
        if ended.status or ended.timed_out:
            return [f"the same command ended with {ended.status}: {ended.last_line[:200]}"]
        wrong = []
        if self._result(subject, place / "out", ended.text) != self._references[subject.name].result:
            wrong.append("the same command came to another result")
        if left := leftovers(place / "out"):
            wrong.append(f"left {', '.join(left)}")
        return wrong

    @staticmethod
    def _result(subject: Subject, out: Path, text: str) -> str:
        try:
            return subject.result(out, text)
        except (OSError, ValueError, KeyError):
            return "none"
