"""One lane of a campaign: one node at a time, on which runs are made one after the other and judged.

    python -m campaign.faults.lane PLAN.json LANE UNTIL

Results are appended to the campaign's results.jsonl, one line each as it ends; a lane that is started again goes on.
After UNTIL (seconds of the monotonic clock) it begins no new run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from std_srvs.srv import Trigger
from system import Program, wait_for

from campaign.faults.catalogue import Run, fault_named
from campaign.faults.fault import Injection
from campaign.faults.judge import Promises, already_named, judge, judge_saved, must_be_named, named_at, stalled
from campaign.json_lines import append, read_lines
from campaign.observer import queues
from campaign.stage import Stage, StageError

__all__ = ["lane_runs", "main", "make_run"]

AGAIN = 2  # times a run is made again when the machine stalled during it
GONE_WITHIN = 1.0  # seconds after the end of its process in which the node leaves the graph
LONGEST_MAP = 2.5  # seconds to wait for the map after its reset while the faults are on; with some there is none
LONGEST_WAIT = 12.0  # seconds to wait for outputs after the faults


def injections_of(stage: Stage, run: Run) -> list[Injection]:
    """The faults of a run, each with a camera of its own where it strikes one."""
    draw = random.Random(f"cameras {run.seed}")
    order = list(stage.scene.cameras)
    draw.shuffle(order)
    injections = []
    for name in run.faults:
        fault = fault_named(name)
        camera = ""
        if fault.strikes_anchor:
            camera = stage.scene.cameras[0]
            order = [other for other in order if other != camera] + [camera]
        elif fault.strikes_any:
            camera = order.pop(0)
        injections.append(Injection(fault, stage, camera, random.Random(f"{name} {run.seed}")))
    return injections


def make_run(stage: Stage, run: Run, promises: Promises) -> dict:
    """Inject the faults, wait until they are named, end them, wait for outputs, and judge.

    Returns:
        the record of the run, for JSON.
    """
    restarted = stage.settle()
    stage.broken.clear()
    injections = injections_of(stage, run)
    stage.observer.judge_free = all(injection.fault.judge_free for injection in injections)
    wait_for(lambda: not any(already_named(stage, injection) for injection in injections), 7.0)
    record = {"index": run.index, "faults": list(run.faults), "seed": run.seed, "simulated": run.simulated}
    record["cameras"] = [injection.camera for injection in injections]
    reset_map(stage)  # what an earlier fault has put into the map is not of this run
    record["before"] = vars(stage.node.holdings()) if stage.node.holdings() else None
    stage.player.reset_lateness()
    began, old, draw = time.monotonic(), stage.node, random.Random(f"length {run.seed}")
    for injection in injections:
        stage.player.changes.append(injection.change)
        injection.begin()
    injected, node = time.monotonic(), stage.node
    least = max(draw.uniform(*injection.fault.seconds) for injection in injections)
    wait_for(lambda: time.monotonic() - injected >= least, least + 1)
    wait_for(
        lambda: all(named_at(stage, injection) for injection in must_be_named(injections)), promises.report - least + 1
    )
    if not any(injection.fault.stops or injection.fault.ends_node for injection in injections):
        since = reset_map(stage)  # from now on, what a camera that is struck had shown before is not in it
        # The first may be of a frame that was under way, and is not judged.
        wait_for(lambda: sum(o.topic == "map" and o.at > since for o in list(stage.observer.outputs)) > 1, LONGEST_MAP)
    ending = time.monotonic()
    patience = max(injection.fault.ends_within for injection in injections)
    record["saved_judged"] = judge_saved(stage, injections)
    exit_status = node.wait(max(0.0, patience - (ending - injected))) if patience else node.process.poll()
    if patience and exit_status is None:
        stage.add_broken(f"exit: the node did not end within {patience:g} s of the signal")
    if exit_status == 0:
        expect_gone(stage, node)
    record["last_line"] = node.lines[-1:] if exit_status is not None else []
    record["exit_after"] = round(time.monotonic() - injected, 2) if patience else None
    for injection in reversed(injections):
        stage.player.changes.remove(injection.change)
        injection.end()
    record.update(began=began, injected=injected, ending=ending, ended=time.monotonic(), exit=exit_status)
    record["new_process"] = stage.node is not old
    wait_for(lambda: stage.all_cameras_used(record["ended"]) or not stage.node.alive, LONGEST_WAIT)
    time.sleep(0.05)
    after = stage.node.holdings()
    record["after"] = {**vars(after), "images": queues(stage.observer.reports[-1][1])[0]} if after else None
    record["node"] = stage.node.pid
    record["restarted_before"] = restarted
    record["load"] = round(os.getloadavg()[0], 2)
    record["late"] = round(stage.player.lateness, 3)
    judge(stage, injections, record, promises, {old, node, stage.node})
    return record


def reset_map(stage: Stage) -> float:
    """Call ~/map/reset; when it had answered, steady seconds."""
    called = time.monotonic()
    stage.call(Trigger, "map/reset")
    answered = time.monotonic()
    stage.observer.map.begin(called, answered)
    return answered


def expect_gone(stage: Stage, node: Program) -> None:
    """A process that ended with status 0 is no longer on the graph, and nothing of it is in /dev/shm."""
    if not wait_for(lambda: not stage.observer.sees_node, GONE_WITHIN):
        stage.add_broken(f"exit: the node is on the graph {GONE_WITHIN:g} s after its end")
    if not wait_for(lambda: not node.segments.left, GONE_WITHIN):
        stage.add_broken(f"exit: left in /dev/shm: {', '.join(sorted(node.segments.remove()))}")


def lane_runs(runs: list[Run], done: set[int], lane: int, lanes: int) -> list[Run]:
    """The runs that are left for a lane: those without /clock first; in each half, faults of the process come last.

    So one process lives through as many faults as can be, and shows whether it grows.
    """
    left = [run for run in runs if run.index % lanes == lane and run.index not in done]

    def place(run: Run) -> tuple[bool, bool, int]:
        return run.simulated, any(fault_named(name).group == "process" for name in run.faults), run.index

    return sorted(left, key=place)


def main(argv: list[str]) -> int:
    from renderocc_ros.process import prepare_process

    settings = json.loads(Path(argv[0]).read_text())
    lane, until = int(argv[1]), float(argv[2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the node's process is ended with this one
    out, domain = Path(settings["out"]), settings["domain"] + lane
    os.environ.update(ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    prepare_process()
    from campaign.faults.report import finished
    from campaign.recordings import load_scene

    results, failures = out / "results.jsonl", out / "failures.jsonl"
    runs = [Run(run["index"], tuple(run["faults"]), run["seed"], run["simulated"]) for run in settings["runs"]]
    left = lane_runs(runs, finished(read_lines(results)), lane, settings["lanes"])
    promises = Promises(**settings["promises"])
    scene, stage = load_scene(Path(settings["bag"])), None
    try:
        for run in left:
            if time.monotonic() >= until:
                break
            if stage is None or stage.simulated != run.simulated:
                if stage is not None:
                    stage.close()
                stage = Stage(out, scene, Path(settings["network"]), domain, run.simulated)
            for attempt in range(1 + AGAIN):
                try:
                    record = make_run(stage, run, promises)
                except StageError as error:
                    append(failures, {"index": run.index, "faults": run.faults, "seed": run.seed, "error": str(error)})
                    raise
                record.update(lane=lane, attempt=attempt)
                if not (record["broken"] and stalled(record)):
                    break
            append(results, record)
    finally:
        if stage is not None:
            stage.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
