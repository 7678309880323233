"""The command: `make fuzz`, or `python -m fuzz` in test/."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .table import NAMES, find

HERE = Path(__file__).resolve().parent
SLICE = 120.0  # seconds of one process: memory that libFuzzer's corpus takes is given back, new code is found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Fuzz every parser of bytes from outside, one process at a time. Counts, kept inputs and findings "
        "lie in OUT and add up over runs; OUT/fuzz.json is the report. With atheris (pip install -r "
        "requirements-fuzz.txt) inputs are guided by coverage.",
        epilog="example: make fuzz FUZZ='--minutes 10 --target tf,cdr_image'",
    )
    made.add_argument("--out", type=Path, default=Path("fuzz_output"), help="default: %(default)s")
    made.add_argument("--target", help=f"only these, with commas between; there are {', '.join(NAMES)}")
    made.add_argument("--runs", type=int, help="executions of each target in all, earlier ones in OUT counted")
    made.add_argument("--minutes", type=float, help="stop after so long (default: 1 minute for each target)")
    made.add_argument("--seed", type=int, default=1, help="of the changes (default: %(default)s)")
    made.add_argument("--plain", action="store_true", help="without atheris, even where it is installed")
    made.add_argument("--lines", action="store_true", help="only count the lines that the kept inputs reach")
    made.add_argument("--replay", type=Path, metavar="FILE", help="run one target (--target) on one file, and say what")
    return made


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 without findings, 1 with, 2 for a wrong argument."""
    arguments = parser().parse_args(argv)
    names = arguments.target.split(",") if arguments.target else list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"fuzz: there is no target '{unknown[0]}'; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if arguments.replay:
        return replay(names[0], arguments.replay)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stop in (signal.SIGTERM, signal.SIGINT):  # also in the background, where shells have the latter ignored
        signal.signal(stop, signal.default_int_handler)
    report = Report(arguments.out)
    if not arguments.lines:
        try:
            fuzz(report, names, arguments)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
    else:
        count_lines(report, names)
    report.write()
    print(report.table())
    print(f"wrote {report.path}")
    return 1 if any(entry["findings"] for entry in report.targets.values()) else 0


class Report:
    """What all runs in a folder have done so far."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / "fuzz.json"
        content = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.targets: dict[str, dict] = content.get("targets", {})

    def of(self, name: str) -> dict:
        return self.targets.setdefault(name, {"executions": 0, "seconds": 0.0, "findings": {}, "kept": 0})

    def add(self, name: str, count: dict) -> None:
        """Add what one process did."""
        entry = self.of(name)
        entry["executions"] += count["executions"]
        entry["seconds"] = round(entry["seconds"] + count["seconds"], 1)
        for key, found in count["findings"].items():
            known = entry["findings"].setdefault(key, {"count": 0})
            known.update(count=known["count"] + found["count"], kind=found["kind"], input=found.get("input"))
            known["text"] = found["text"][-1500:]
        entry["kept"] = sum(1 for _ in (self.out / "corpus" / name).glob("*"))

    def write(self) -> None:
        total = sum(entry["executions"] for entry in self.targets.values())
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps({"executions": total, "targets": self.targets}, indent=1, sort_keys=True) + "\n")
        partial.replace(self.path)

    def table(self) -> str:
        rows = [f"{'target':22}{'executions':>12}{'kept':>6}{'findings':>10}"]
        for name, entry in sorted(self.targets.items()):
            rows.append(f"{name:22}{entry['executions']:12,}{entry['kept']:6}{len(entry['findings']):10}")
            rows += [f"    {key} ({found['count']}x): {found['input']}" for key, found in entry["findings"].items()]
        total = sum(entry["executions"] for entry in self.targets.values())
        return "\n".join([*rows, f"{'all':22}{total:12,}"])


def fuzz(report: Report, names: list[str], arguments: argparse.Namespace) -> None:
    """Give every target its share, a slice at a time, the least often run first."""
    if not arguments.plain and importlib.util.find_spec("atheris") is None:
        print("fuzz: no atheris, so inputs are not guided by coverage; pip install -r requirements-fuzz.txt")
    minutes = arguments.minutes if arguments.minutes else (1e9 if arguments.runs else len(names))
    end = time.monotonic() + 60 * minutes
    seeds = random.Random(f"{arguments.seed} {sum(entry['executions'] for entry in report.targets.values())}")
    spent = dict.fromkeys(names, 0.0)
    while True:
        wanted = [n for n in names if not arguments.runs or report.of(n)["executions"] < arguments.runs]
        left = end - time.monotonic()
        if not wanted or left < 1:
            return
        name = min(wanted, key=lambda n: spent[n])
        runs = (arguments.runs or 1 << 40) - report.of(name)["executions"]
        seconds = min(SLICE, left, 60 * minutes / len(names) if arguments.minutes else SLICE)
        begin = time.monotonic()
        run_child(report, name, runs, seconds, seeds.randrange(1, 1 << 31), arguments.plain)
        spent[name] += time.monotonic() - begin
        report.write()
        entry = report.of(name)
        total = sum(one["executions"] for one in report.targets.values())
        told = f"{entry['executions']:,} executions, {len(entry['findings'])} findings"
        print(f"{name}: {told}; all {total:,}", flush=True)


def run_child(report: Report, name: str, runs: int, seconds: float, seed: int, plain: bool) -> None:
    """One target in a process; one that ends by itself, or does not end, is a finding."""
    count_file = report.out / f"{name}.count.json"
    count_file.unlink(missing_ok=True)
    memory = Path("/dev/shm")
    command = [sys.executable, "-m", "fuzz.child", name, str(report.out.resolve()), "--runs", str(runs)]
    command += ["--seconds", str(seconds), "--seed", str(seed)] + (["--plain"] if plain else [])
    with (
        tempfile.TemporaryDirectory(prefix="fuzz_", dir=memory if memory.is_dir() else None) as folder,
        (report.out / f"{name}.log").open("wb") as log,
    ):
        environment = {**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"}
        child = subprocess.Popen(command, cwd=HERE.parent, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = child.wait(seconds + 600)
            why = f"ended with status {code}" if code else ""
        except subprocess.TimeoutExpired:
            why = "did not end"
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait()
    count = {"executions": 0, "seconds": 0, "findings": {}}
    if count_file.is_file():
        count = json.loads(count_file.read_text())
    if why:
        text = (report.out / f"{name}.log").read_text(errors="replace")[-1500:]
        shutil.copy(report.out / f"{name}.log", report.out / f"{name}.died.log")
        count["findings"][f"the process {why}"] = {"count": 1, "kind": "died", "text": text}
    count_file.unlink(missing_ok=True)
    report.add(name, count)


def count_lines(report: Report, names: list[str]) -> None:
    from .lines import reached_lines

    sys.path.insert(0, str(HERE.parents[1]))
    for name in names:
        inputs = [path.read_bytes() for path in sorted((report.out / "corpus" / name).glob("*"))]
        if inputs:
            report.of(name)["lines"] = reached_lines(find(name), inputs)
            print(f"{name}: {report.of(name)['lines']}", flush=True)


def replay(name: str, path: Path) -> int:
    from .target import examine

    sys.path.insert(0, str(HERE.parents[1]))
    finding = examine(find(name), path.read_bytes(), weigh=False) or examine(find(name), path.read_bytes(), weigh=True)
    print(finding.text if finding else f"{path}: read, or refused as it should be")
    return 1 if finding else 0


if __name__ == "__main__":
    sys.exit(main())
