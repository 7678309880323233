"""Carries out a plan: runs the single commands one after the other, and remembers what is done."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from renderocc_model.base.config import to_mapping
from renderocc_model.base.files import replacing
from renderocc_model.base.plain_yaml import yaml_text
from renderocc_model.rosio.parameter_file import NODE_NAME, vehicle_of_file
from renderocc_model.rosio.vehicle import Vehicle
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recordings
from training.evaluate.command import main as evaluate
from training.evaluate.truth import main as truth
from training.label import main as label
from training.train import main as train
from training.train.run_data import split

from .plan import BagPlan, Plan
from .report import write_report

__all__ = ["carry_out"]

_EVALUATED = 32  # frames, spread evenly


def carry_out(plan: Plan, jobs: int) -> int:
    """Do what is not done yet.

    Args:
        plan: what to do.
        jobs: number of processes and threads for labels and tables.
    Returns:
        0, or the exit status of the step that failed; 143 if training was stopped by SIGTERM.
    Raises:
        ValueError: the folder has results of another plan.
    """
    _begin(plan)
    steps: list[tuple[str, Callable[[], int]]] = []
    for bag in plan.bags:
        steps.append((f"check {bag.name}", partial(_check, plan, bag)))
    for bag in plan.bags:
        if bag.options is not None:
            steps.append((f"label {bag.name}", partial(_label, plan, bag, jobs)))
    for bag in plan.bags:
        if bag.truth is not None:
            steps.append((f"truth {bag.name}", partial(_truth, plan, bag)))
    steps += [
        ("prepare", partial(_prepare, plan, jobs)),
        ("train", partial(_train, plan)),
        ("eval", partial(_evaluate, plan)),
        ("report", partial(_report, plan)),
    ]
    for number, (name, step) in enumerate(steps, 1):
        title = f"[{number}/{len(steps)}] {name}"
        done = plan.out / "done" / name.replace(" ", "_")
        if done.exists():
            print(f"{title}: done already", flush=True)
            continue
        print(title, flush=True)
        status = step()
        if status:
            print(f"renderocc learn: {name} did not finish; run the same command to continue", file=sys.stderr)
            return status
        done.touch()
    print(f"wrote {plan.out / 'report.html'}")
    return 0


def _begin(plan: Plan) -> None:
    """Make the folders, and write plan.json, vehicle.yaml and train.yaml.

    Raises:
        ValueError: the folder has a plan already, and it is another one.
    """
    path = plan.out / "plan.json"
    wanted = json.loads(json.dumps(plan.as_dict()))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read ({error}); name another folder with --out") from None
        differing = _difference(found, wanted)
        if differing:
            raise ValueError(
                f"{plan.out}: has results of other recordings or options; they differ in {differing}. Give the "
                "options that it was begun with, or name another folder with --out"
            )
    for name in ("check", "labels", "done"):
        (plan.out / name).mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(wanted, indent=2))
    _write(plan.out / "train.yaml", yaml_text(plan.settings))
    if plan.vehicle != Vehicle():
        of_vehicle = {
            f"/**/{NODE_NAME}": {"ros__parameters": _changed(to_mapping(plan.vehicle), to_mapping(Vehicle()))}
        }
        _write(plan.out / "vehicle.yaml", yaml_text(of_vehicle))
        if vehicle_of_file(plan.out / "vehicle.yaml") != plan.vehicle:
            raise ValueError(
                f"{plan.out / 'vehicle.yaml'}: does not describe this vehicle; give it with --params alone"
            )


def _changed(values: dict, usual: dict) -> dict:
    """The entries that differ from the usual ones, at any depth."""
    changed = {}
    for name, value in values.items():
        if value != usual.get(name):
            inner = usual.get(name)
            changed[name] = _changed(value, inner) if isinstance(value, dict) and isinstance(inner, dict) else value
    return changed


def _difference(found: object, wanted: object, name: str = "") -> str:
    """Name and values of the first difference; empty if there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*found, *wanted]):
            if text := _difference(found.get(key), wanted.get(key), f"{name}.{key}" if name else key):
                return text
        return ""
    return "" if found == wanted else f"{name} (was {_short(found)}, now {_short(wanted)})"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _vehicle_words(plan: Plan) -> list[str]:
    return [] if plan.vehicle == Vehicle() else ["--params", str(plan.out / "vehicle.yaml")]


def _check(plan: Plan, bag: BagPlan) -> int:
    words = [str(bag.bag), *_vehicle_words(plan)]
    if bag.options is not None:
        words.append("--no-labels")
    elif bag.truth_classes:
        words += ["--truth-classes", bag.truth_classes]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            return check(words)
    finally:
        print(text.getvalue(), end="", flush=True)
        _write(plan.out / "check" / f"{bag.name}.txt", text.getvalue())


def _label(plan: Plan, bag: BagPlan, jobs: int) -> int:
    if (plan.out / "labels" / bag.name).exists():  # it appears when it is complete
        return 0
    words = [str(bag.bag), "--out", str(bag.sidecar), *(bag.options or ()), "--jobs", str(jobs)]
    return label([*words, *_vehicle_words(plan)])


def _truth(plan: Plan, bag: BagPlan) -> int:
    words = [str(bag.bag), "--out", str(plan.out / "truth" / bag.name), *(bag.truth or ())]
    return truth([*words, *_vehicle_words(plan)])


def _prepare(plan: Plan, jobs: int) -> int:
    tables = plan.out / "tables"
    tables.mkdir(exist_ok=True)
    made = {bag.name: "" if bag.truth is None else str(plan.out / "truth") for bag in plan.bags}
    tasks = [
        (
            bag.bag,
            bag.sidecar,
            tables,
            PrepareConfig(truth=made[bag.name], truth_classes=bag.truth_classes, vehicle=plan.vehicle),
        )
        for bag in plan.bags
    ]
    failures = prepare_recordings(tasks, min(jobs, len(tasks)))
    for text in failures:
        print(f"renderocc learn: {text}", file=sys.stderr)
    return 2 if failures else 0


def _train(plan: Plan) -> int:
    words = ["--config", str(plan.out / "train.yaml"), "--out", str(plan.out / "run"), *plan.overrides]
    status = train(words)
    stopped = not (plan.out / "run" / "checkpoint.safetensors").exists()  # after SIGTERM the status is 0
    return 143 if status == 0 and stopped else status


def _evaluate(plan: Plan) -> int:
    learned, held_out = split(plan.config.data, plan.out / "tables")
    words = ["--checkpoint", str(plan.out / "run" / "checkpoint.safetensors"), "--data", str(plan.out / "tables")]
    words += ["--limit", str(_EVALUATED), "--out", str(plan.out / "eval"), "--device", plan.config.run.device]
    return evaluate([*words, "--recordings", *(held_out or learned)])


def _report(plan: Plan) -> int:
    learned, held_out = split(plan.config.data, plan.out / "tables")
    write_report(plan, learned, held_out)
    return 0
