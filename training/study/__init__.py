"""`renderocc study`: repeat the paper's comparisons on simulated towns, and write the tables of docs/study.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.machine_errors import machine_error

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc study",
        description="Run a study: record and prepare its towns, train every variant with every seed, evaluate on the "
        "test towns, and write the tables. If the study was interrupted, the same command continues it.",
        epilog="example: renderocc study config/study/town_cpu.yaml --out runs/town_cpu --jobs 2",
    )
    made.add_argument("config", type=Path, help="YAML file of the study, such as config/study/town_cpu.yaml")
    made.add_argument("--out", type=Path, required=True, help="folder for towns, training runs and logs")
    made.add_argument(
        "--docs",
        type=Path,
        default=Path("docs"),
        help="folder of study.md, and of study/ with results and pictures (default: docs)",
    )
    made.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="number of processes that run at the same time (default 2)"
    )
    made.add_argument(
        "--threads", type=int, metavar="N", help="threads of each training run (default: number of CPU cores / jobs)"
    )
    made.add_argument("--only", nargs="+", metavar="VARIANT", help="run only these variants (default: all)")
    made.add_argument("--tables", action="store_true", help="run nothing, but write the tables from existing results")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc study`. Exit status 0: everything is done. 1: a run failed. 2: bad input. 130: stopped."""
    arguments = parser().parse_args(argv)
    cpus = len(os.sched_getaffinity(0))
    try:
        if arguments.jobs < 1 or (arguments.threads is not None and arguments.threads < 1):
            raise ValueError(f"--jobs is {arguments.jobs}, --threads {arguments.threads}; expected at least 1")
        from ..train import stopping_on_signals
        from .description import load_study
        from .runner import StudyRunner

        study = load_study(arguments.config)
        threads = arguments.threads or max(cpus // arguments.jobs, 1)
        runner = StudyRunner(study, arguments.out, arguments.docs, arguments.jobs, threads, arguments.only)
        if arguments.tables:
            runner.draw()
            runner.write_document()
            print(f"wrote {runner.document.resolve()}")
            return 0
        with stopping_on_signals() as stopped:
            failures = runner.run(lambda: bool(stopped))
    except (ValueError, OSError) as error:
        print(f"renderocc study: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2
    for failure in failures:
        print(f"renderocc study: {failure}", file=sys.stderr)
    if stopped:
        print(f"stopped; give the same command again to continue: {arguments.out.resolve()}")
        return 130
    print(f"wrote {runner.document.resolve()}")
    return 1 if failures else 0
