"""Runs a study: makes its missing towns, training runs, tables and pictures."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from renderocc_model.base.document import write_section

from ..train.progress import clock
from .description import Run, Study
from .jobs import RENDEROCC, Job, run_jobs
from .results import Results, write_source
from .section import relative_path, render_part
from .towns import TownFolder

__all__ = ["StudyRunner"]

_LOCK_PATIENCE_S = 150.0  # runs of a study that was killed save their state before they end
_VIEWS, _COLUMNS = 2, 5  # number of frames that are drawn with camera views, and from above

Stop = Callable[[], bool]


class StudyRunner:
    """Runs a study.

    Args:
        study: the study.
        out: folder for towns, runs and logs.
        docs: folder of study.md and study/.
        jobs: number of processes at the same time.
        threads: number of threads of each process.
        only: names of the variants to run; None runs all.
    Attributes:
        document: path of study.md.
    Raises:
        ValueError: there are results with other settings, or `only` names a variant that does not exist.
    """

    def __init__(
        self, study: Study, out: Path, docs: Path, jobs: int, threads: int, only: Sequence[str] | None = None
    ) -> None:
        self.study, self.out, self.jobs, self.threads = study, out.resolve(), jobs, threads
        name = study.config.name
        self.document = docs / "study.md"
        self.results = Results(docs / "study" / "results" / name, study)
        self._pictures = {
            **{
                docs / "study" / f"{name}_views_{number}.jpg": "Test frame: image, labels, rendered classes and "
                "distances, and the volume from above"
                for number in range(_VIEWS)
            },
            docs / "study" / f"{name}_above.jpg": "Volumes of test frames from above: truth and variants",
        }
        known = [variant.name for variant in study.comparison.variants]
        unknown = [name for name in only or () if name not in known]
        if unknown:
            raise ValueError(f"--only names '{unknown[0]}'; the variants are {', '.join(known)}")
        self._chosen = [run for run in study.runs() if only is None or run.variant.name in only]
        self.results.all()  # refuses results with other settings before anything is run

    def run(self, stop: Stop) -> list[str]:
        """Make everything that is missing.

        Args:
            stop: called again and again. When it returns true, runs save their state and end.
        Returns:
            an error text for each job that failed.
        Raises:
            ValueError: another study is running in the folder, or the folder has other towns.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with _locked(self.out / "lock", stop) as lock:
            missing = [run for run in self._chosen if self.results.read(run) is None]
            failures = []
            if missing:
                towns = TownFolder(self.out / "towns", self.study.config.data, self.study.labels())
                failures = self._make_towns(towns, stop, lock)
                if not failures and not stop():
                    failures = self._train(missing, towns, stop, lock)
            self.draw()
            self.write_document()
            return failures

    def write_document(self) -> None:
        """Write the study's section of the document from the existing results and pictures."""
        pictures = {relative_path(path, self.document): text for path, text in self._pictures.items() if path.exists()}
        write_section(
            self.document,
            f"study {self.study.config.name}",
            render_part(self.study, self.results.all(), pictures),
            note="written by renderocc study",
        )

    def _make_towns(self, towns: TownFolder, stop: Stop, lock: int) -> list[str]:
        for what, missing in (("recording", towns.missing), ("labelling", towns.unlabelled)):
            failures = self._counted(what, missing(), stop, lock)
            if failures or stop():
                return failures
        return run_jobs([towns.prepare(self.jobs)], 1, 1, self.out / "logs", stop=stop, keep_open=(lock,))

    def _counted(self, what: str, jobs: Sequence[Job], stop: Stop, lock: int) -> list[str]:
        """Run a job for each of some towns, and count them."""
        logs = self.out / "logs"
        if jobs:
            print(f"{what} {len(jobs)} towns, {self.jobs} at a time; logs in {logs}", flush=True)
        countdown = Countdown(len(jobs), "town", "towns")
        return run_jobs(
            jobs, self.jobs, 1, logs, lambda job: print(countdown.line(job.name), flush=True), stop, (lock,)
        )

    def _train(self, runs: Sequence[Run], towns: TownFolder, stop: Stop, lock: int) -> list[str]:
        logs = self.out / "logs"
        by_name = {run.name: run for run in runs}
        countdown = Countdown(len(runs), "run", "runs")
        problems: list[str] = []
        print(f"{len(runs)} training runs, {self.jobs} at a time; logs in {logs}", flush=True)

        def note(job: Job) -> None:
            write_source(self._folder(by_name[job.name]))

        def keep(job: Job) -> None:
            run = by_name[job.name]
            try:
                evaluation = json.loads((self._folder(run) / "evaluation.json").read_text())
                self.results.write(run, self._folder(run), evaluation, self.threads)
                self.write_document()
            except (ValueError, KeyError) as error:
                problems.append(f"{run.name}: {error}")
                return
            volumes = evaluation["volumes"]
            text = f"mIoU {100 * volumes['miou']:.2f} %, RayIoU {100 * volumes['rayiou']:.2f} %"
            print(countdown.line(f"{run.name}: {text}"), flush=True)

        jobs = [self._job(run, towns) for run in runs]
        return run_jobs(jobs, self.jobs, self.threads, logs, keep, stop, (lock,), note) + problems

    def _folder(self, run: Run) -> Path:
        return self.out / "runs" / run.name

    def _job(self, run: Run, towns: TownFolder) -> Job:
        """A job that trains and then evaluates on the test towns. One of the runs also evaluates the baselines."""
        folder, data = self._folder(run), self.study.config.data
        config = self.study.train_config(run)
        train = (
            RENDEROCC,
            "train",
            "--config",
            str(self.study.train),
            "--out",
            str(folder),
            *self.study.words(run),
            f"data.prepared={towns.tables(run.variant.labels)}",
            f"run.threads={self.threads}",
        )
        evaluate = (
            RENDEROCC,
            "eval",
            "--checkpoint",
            str(folder / "checkpoint.safetensors"),
            "--data",
            str(towns.tables()),
            "--recordings",
            *data.recordings("test"),
            "--device",
            config.run.device,
            "--json",
            str(folder / "evaluation.json"),
        )
        if (run.variant.name, run.seed) == (self.study.comparison.main, self.study.config.seeds[0]):
            evaluate += (
                "--baselines",
                "--training-data",
                str(towns.tables()),
                "--training-recordings",
                *data.recordings("training"),
            )
        return Job(run.name, (train, evaluate))

    def draw(self) -> None:
        """Draw the pictures that are missing or older than the networks of the first seed, if all of these exist."""
        comparison, seed = self.study.comparison, self.study.config.seeds[0]
        names = list(dict.fromkeys((comparison.main, *comparison.drawn)))
        runs = {run.variant.name: run for run in self.study.runs() if run.seed == seed and run.variant.name in names}
        networks = {name: self._folder(runs[name]) / "checkpoint.safetensors" for name in names}
        tables, recordings = self.out / "towns" / "tables", self.study.config.data.recordings("test")
        needed = all(self.results.read(runs[name]) and networks[name].exists() for name in names) and tables.is_dir()
        if not needed:
            return
        newest = max(network.stat().st_mtime_ns for network in networks.values())
        if all(path.exists() and path.stat().st_mtime_ns >= newest for path in self._pictures):
            return
        from .illustrations import draw_birds_eyes, draw_views, write_jpeg

        *views, above = self._pictures
        drawn = draw_views(networks[comparison.main], tables, recordings, len(views))
        for path, picture in zip(views, drawn):
            write_jpeg(path, picture)
        write_jpeg(above, draw_birds_eyes(networks, tables, recordings, _COLUMNS))


class Countdown:
    """Counts what is done, and estimates the time that is left."""

    def __init__(self, count: int, one: str, many: str) -> None:
        self.count, self.words, self.done, self.start = count, (one, many), 0, time.monotonic()

    def line(self, text: str) -> str:
        """Count one more, and return the line to print."""
        self.done += 1
        left = clock((time.monotonic() - self.start) / self.done * (self.count - self.done))
        return f"[{self.done} of {self.count} {self.words[self.count != 1]}, {left} to go] {text}"


@contextmanager
def _locked(path: Path, stop: Stop) -> Iterator[int]:
    """Hold a folder's lock. Processes that are started meanwhile inherit it. Gives the lock's file descriptor.

    Raises:
        ValueError: another study, or a process that it started, has the lock.
    """
    with path.open("a") as file:
        until, said = time.monotonic() + _LOCK_PATIENCE_S, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until or stop():
                    raise ValueError(
                        f"{path.parent}: a study is running in this folder; wait, stop it, or name another --out"
                    ) from None
                if not said:
                    print(f"waiting for processes that still run in {path.parent}", flush=True)
                    said = True
                time.sleep(0.2)
        yield file.fileno()
