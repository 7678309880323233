"""`make faults`: inject faults of cameras, time, TF, processes and files into the real node, and judge what it does.

Small cameras of the simulated town, or of a recording, are published on real topics. Faults are injected one at a time,
and two or three at once. A subscriber outside the node checks that the node lives or ended for a reason, that its
stamps are those of images and never go back, that nothing is free that no camera saw, that the right camera is named in
time, that outputs return in time, and that nothing grows. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

from system import Program, small_network

from campaign.faults.catalogue import FAULTS, Run, plan
from campaign.faults.judge import Promises
from campaign.faults.report import finished, mended, set_aside_broken, summary, table
from campaign.json_lines import read_lines
from campaign.options import campaign_parser, on_own_domain
from campaign.recordings import load_scene, simulated_recording
from renderocc_model.base.document import write_section

__all__ = ["main"]

EXAMPLE = """examples:
  make faults                                                     500 runs, about an hour on two cores
  make faults FAULTS='--out again --only "K of zeros" --seed 17'  one run of the report, as it was
  make faults FAULTS='--minutes 5 --out short'                    what can be done in five minutes
  make faults FAULTS=--list                                       what there is"""
DOMAIN = 60
LOOK = 2.0  # seconds between two looks at how far the lanes are
SAY = 15.0  # seconds between two lines of progress
ENDING = 30.0  # seconds a lane may take to end its node


def parser() -> argparse.ArgumentParser:
    made = campaign_parser("faults", __doc__, EXAMPLE)
    made.add_argument("--runs", type=int, help="number of runs (default 500; with --only one of each)")
    made.add_argument("--minutes", type=float, help="begin no new run after so long; the same command goes on")
    made.add_argument("--seed", type=int, default=0, help="of all choices (default 0); that of a run in the report")
    made.add_argument("--lanes", type=int, default=2, help="nodes at the same time (default 2)")
    made.add_argument("--only", default="", help="these faults, separated by commas; a combination joined by '+'")
    made.add_argument("--again", action="store_true", help="make the runs of --out in which an invariant broke again")
    made.add_argument("--list", action="store_true", help="name all faults and end")
    made.add_argument("--wall", action="store_true", help="without /clock, but for faults that need it")
    made.add_argument("--bag", type=Path, help="recording to show (default: a street of the simulated town)")
    made.add_argument("--checkpoint", type=Path, help="network (default: a small one with random weights)")
    made.add_argument("--domain", type=int, default=DOMAIN, help=f"ROS domain of the first lane (default {DOMAIN})")
    made.add_argument("--report-within", type=float, help="seconds in which a fault must be named (default: promised)")
    made.add_argument("--recover-within", type=float, help="seconds in which outputs must return (default: promised)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run or go on with a campaign; 1 if an invariant broke, 2 if it could not be run."""
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.list:
        for name, fault in FAULTS.items():
            print(f"{fault.group:<16} {name:<32} {fault.what}")
        return 0
    only = tuple(name.strip() for name in arguments.only.split(",") if name.strip())
    count = arguments.runs if arguments.runs is not None else len(only) or 500
    if count < 1 or arguments.lanes < 1:
        made.error("--runs and --lanes must be at least 1")
    try:
        runs = plan(count, arguments.seed, only, arguments.wall)
    except ValueError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    return on_own_domain("faults", arguments, lambda out: inject_faults(out, arguments, runs))


def inject_faults(out: Path, arguments: argparse.Namespace, runs: list[Run]) -> int:
    """Prepare, run the lanes, and sum up what is there then."""
    settings = prepare(out, arguments, runs)
    if arguments.again:
        set_aside_broken(out)
    status = run_lanes(settings, out, arguments.minutes)
    return max(status, conclude(out, settings, arguments.docs))


def prepare(out: Path, arguments: argparse.Namespace, runs: list[Run]) -> Path:
    """Recording, network and plan in the output folder; the path of the plan.

    Raises:
        ValueError: the folder holds another campaign, or the recording cannot be shown.
    """

    out.mkdir(parents=True, exist_ok=True)
    print("preparing the recording and the network", flush=True)
    bag = arguments.bag.resolve() if arguments.bag else simulated_recording(out)
    load_scene(bag)
    network = arguments.checkpoint.resolve() if arguments.checkpoint else small_network(out / "network.safetensors")
    if not network.exists():
        raise ValueError(f"{network} is not there; name a .safetensors checkpoint")
    given = {"report": arguments.report_within, "recovery": arguments.recover_within}
    promises = Promises(**{name: value for name, value in given.items() if value is not None})
    settings = {
        "out": str(out),
        "bag": str(bag),
        "network": str(network),
        "domain": arguments.domain,
        "lanes": arguments.lanes,
        "promises": vars(promises),
        "runs": [vars(run) for run in runs],
    }
    path = out / "plan.json"
    text = json.dumps(settings)
    if path.exists() and json.loads(path.read_text())["runs"] != json.loads(text)["runs"]:
        raise ValueError(f"{out} holds a campaign of other runs; name another folder, or give its --runs and --seed")
    path.write_text(text)
    return path


def run_lanes(plan_file: Path, out: Path, minutes: float | None) -> int:
    """Start the lanes, start again one that ends early, and say how far they are. 0 if all came to their end.

    Args:
        minutes: after which a lane begins no new run; None: when all are made.
    """
    settings = json.loads(plan_file.read_text())
    results, total, began = out / "results.jsonl", len(settings["runs"]), time.monotonic()
    until = began + 60 * (math.inf if minutes is None else minutes)
    before = len(finished(read_lines(results)))

    def start(lane: int) -> Program:
        command = ["-m", "campaign.faults.lane", plan_file, lane, until]
        return Program(command, None, log=out / f"lane_{lane}.log", own_session=True)

    lanes = {lane: start(lane) for lane in range(settings["lanes"])}
    failures, said = dict.fromkeys(lanes, 0), began - SAY
    try:
        while lanes:
            time.sleep(LOOK)
            for lane, program in list(lanes.items()):
                status = program.wait(0.0)
                if status == 0:
                    del lanes[lane]
                elif status is not None:
                    failures[lane] += 1
                    print(f"lane {lane} ended with status {status}: {program.tail(1)}", flush=True)
                    program.kill_session()  # its node, too
                    if failures[lane] > 3:
                        return 2
                    lanes[lane] = start(lane)
            if time.monotonic() - said >= SAY or not lanes:
                said = time.monotonic()
                print(progress(read_lines(results), total, before, said - began), flush=True)
    finally:
        for program in lanes.values():
            program.signal(signal.SIGTERM)
        for program in lanes.values():  # each ends its node first
            program.wait(ENDING)
            program.kill_session()
    return 0


def progress(records: list[dict], total: int, before: int, elapsed: float) -> str:
    """How many runs are made, and for how long the others will take at the rate of this process's runs."""
    done, broken = len(finished(records)), sum(bool(record["broken"]) for record in records)
    left = f", {(total - done) * elapsed / (done - before) / 60:.0f} minutes left" if done > before else ""
    return f"{done} of {total} runs, {broken} with a broken invariant{left}"


def conclude(out: Path, plan_file: Path, document: Path | None) -> int:
    """Summary, table and exit status."""

    records = read_lines(out / "results.jsonl")
    if not records:
        print("faults: no run came to its end; see the logs of the lanes", file=sys.stderr)
        return 2
    result = summary(records)
    result["mended"] = mended(records, read_lines(out / "earlier.jsonl"))
    text = table(result)
    figures = json.dumps(result, indent=1)
    (out / "faults.json").write_text(figures)
    (out / "report.md").write_text(text + "\n")
    if document is not None:
        write_section(document, "faults", text, "### Faults injected")
        folder = document.with_suffix("")
        folder.mkdir(exist_ok=True)
        (folder / "faults.json").write_text(figures)
    for record in records:
        for line in record["broken"]:
            print(f"{' + '.join(record['faults'])} (--seed {record['seed']}): {line}")
    grown = [line for life in result["growth"] for line in life["broken"]]
    print("\n".join(grown + [f"{result['broken_runs']} of {result['runs']} runs with a broken invariant"]))
    print(f"results, logs and the report: {out}")
    return 1 if result["broken_runs"] or grown else 0


if __name__ == "__main__":
    sys.exit(main())
