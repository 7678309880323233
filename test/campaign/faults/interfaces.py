"""Faults of the node's interfaces: subscribers, parameters, services, lifecycle."""

from __future__ import annotations

import signal
import time

from std_srvs.srv import Trigger
from system import Program, wait_for

from campaign.faults.fault import Fault, Injection, node_fault
from campaign.faults.files import usual_folder
from campaign.stage import WHOLE_CYCLE
from renderocc_model.base.config import settings_of
from renderocc_ros.parameters import MapParameters

__all__ = ["INTERFACE_FAULTS"]

# ---- subscribers


def slow_subscribers(seconds: float, count: int, stop: bool = False):
    def begin(injection: Injection) -> None:
        command = ["-m", "campaign.faults.slow_subscriber", seconds, *injection.player.scene.cameras]
        injection.state["programs"] = programs = [Program(command, injection.stage.domain) for _ in range(count)]
        for program in programs:
            wait_for(lambda: program.said("listening") or not program.alive, 30.0)
        time.sleep(1.0)  # until the node knows them and has sent them something
        if stop:
            for program in programs:
                program.signal(signal.SIGSTOP)

    return begin


def subscribers_go(injection: Injection) -> None:
    for program in injection.state["programs"]:
        program.kill()


# ---- parameters

GOOD = (
    ("max_markers", (0, 10, 50_000)),
    ("threshold", (0.01, 0.05, 0.5, 0.0)),
    ("rendered_stride", (1, 4, 64)),
    ("grid_ignored_classes", (["terrain"], ["driveable_surface", "other_flat", "sidewalk", "terrain"])),
)
GOOD_FOR_THE_MAP = (
    ("map.memory", (0.0, 0.5, 1.0)),
    ("map.gain", (0.5, 5.0)),
    ("map.hit", (0.1, 5.0)),
    ("map.miss", (0.1, 5.0)),
    ("map.highest", (0.5, 10.0)),
    ("map.lowest", (-0.5, -10.0)),
    ("map.dynamic_highest", (0.5, 10.0)),
    ("map.dynamic_frames", (1, 16)),
    ("map.dynamic_decay", (0.0, 0.1, 5.0)),
    ("map.max_voxels", (0, 10, 100_000)),
    ("map.rate", (0.5, 20.0)),
    ("map.grid_period", (0.0, 10.0)),
)
BAD = (
    ("map.memory", 1.5),
    ("map.lowest", 1.0),
    ("map.size", 20.0),
    ("map.enabled", False),
    ("map.hit", float("nan")),
    ("max_markers", -1),
    ("max_markers", "many"),
    ("threshold", 2.0),
    ("threshold", float("nan")),
    ("grid_min_height", 5.0),
    ("rendered_stride", 0),
    ("base_frame", "other"),
    ("cameras", ["x", "x"]),
    ("checkpoint", "/nowhere"),
    ("max_wait", -1.0),
    ("min_cameras", 99),
    ("diagnostics_period", "soon"),
    ("nonsense", 1),
    ("save_directory", 3),
    ("threshold", [1.0, 2.0]),
)
MAP_DEFAULTS = tuple((f"map.{one.name}", one.default) for one in settings_of(MapParameters))
DEFAULTS = (
    ("max_markers", 50_000),
    ("threshold", 0.0),
    ("rendered_stride", 4),
    ("grid_ignored_classes", ["driveable_surface", "other_flat", "sidewalk", "terrain"]),
)


def good_parameters(injection: Injection) -> None:
    for _ in range(8):
        name, values = injection.random.choice(GOOD)
        accepted, reason = injection.stage.set_parameter(name, injection.random.choice(values))
        if not accepted:
            injection.stage.add_broken(f"parameter {name}: a good value was refused: {reason}")


def map_parameters(injection: Injection) -> None:
    injection.stage.observer.map.decay = None
    for _ in range(12):
        name, values = injection.random.choice(GOOD_FOR_THE_MAP)
        accepted, reason = injection.stage.set_parameter(name, injection.random.choice(values))
        if not accepted:
            injection.stage.add_broken(f"parameter {name}: a good value was refused: {reason}")


def default_map(injection: Injection) -> None:
    for name, value in MAP_DEFAULTS:
        if name in dict(GOOD_FOR_THE_MAP):
            injection.stage.set_parameter(name, value)
    injection.stage.observer.map.decay = dict(MAP_DEFAULTS)["map.dynamic_decay"]


def bad_parameters(injection: Injection) -> None:
    for name, value in injection.random.sample((*BAD, ("use_sim_time", not injection.stage.simulated)), 8):
        accepted, reason = injection.stage.set_parameter(name, value)
        if accepted or not reason:
            how = "accepted" if accepted else "refused without a reason"
            injection.stage.add_broken(f"parameter {name}={value!r}: {how}")


def storm_of_parameters(injection: Injection) -> None:
    for number in range(100):
        injection.stage.set_parameter("max_markers", number)


def default_parameters(injection: Injection) -> None:
    for name, value in DEFAULTS:
        injection.stage.set_parameter(name, value)


# ---- lifecycle

DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE = WHOLE_CYCLE


def transitions(*names: int, times: int = 1):
    def begin(injection: Injection) -> None:
        for _ in range(times):
            for name in names:
                injection.stage.change_state(name)

    return begin


def random_transitions(injection: Injection) -> None:
    """Transitions in any order, also such as the state does not allow."""
    for _ in range(10):
        injection.stage.change_state(injection.random.choice((CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE)))
        if injection.random.random() < 0.3:
            time.sleep(injection.random.uniform(0, 0.4))


def active_again(injection: Injection) -> None:
    injection.stage.make_active()


def called_often(name: str, times: int):
    def begin(injection: Injection) -> None:
        for _ in range(times):
            if injection.stage.call(Trigger, name) is None:
                injection.stage.add_broken(f"~/{name} did not answer")

    return begin


def lifecycle(name: str, what: str, begin, **more) -> Fault:
    return node_fault(name, "lifecycle", what, begin=begin, end=active_again, stops=True, **more)


INTERFACE_FAULTS = (
    node_fault(
        "slow subscriber",
        "subscribers",
        "needs half a second for each message",
        begin=slow_subscribers(0.5, 1),
        end=subscribers_go,
    ),
    node_fault(
        "stopped subscriber",
        "subscribers",
        "SIGSTOP, with reliable subscriptions",
        end=subscribers_go,
        begin=slow_subscribers(0.0, 1, stop=True),
    ),
    node_fault(
        "parameters change",
        "parameters",
        "valid values, while the node runs",
        begin=good_parameters,
        end=default_parameters,
        judge_free=False,
    ),
    node_fault(
        "wrong parameters",
        "parameters",
        "out of range, of another type, contradictory",
        begin=bad_parameters,
        end=default_parameters,
    ),
    node_fault(
        "parameters of the map change",
        "parameters",
        "good values, while running",
        begin=map_parameters,
        end=default_map,
    ),
    node_fault("storm of map resets", "services", "~/map/reset twenty times", begin=called_often("map/reset", 20)),
    node_fault(
        "storm of parameters",
        "parameters",
        "a hundred changes, one after the other",
        begin=storm_of_parameters,
        end=default_parameters,
    ),
    node_fault("storm of resets", "services", "~/reset twenty times", begin=called_often("reset", 20), stops=True),
    node_fault("storm of saves", "services", "~/save ten times", begin=called_often("save", 10), end=usual_folder),
    lifecycle("deactivate and activate", "three times", transitions(DEACTIVATE, ACTIVATE, times=3)),
    lifecycle("deactivated for a while", "then activated", transitions(DEACTIVATE), named="inactive"),
    lifecycle(
        "cleanup and configure",
        "all transitions to unconfigured and back, twice",
        transitions(DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE, times=2),
    ),
    lifecycle("random transitions", "ten, some of which the state does not allow", random_transitions),
)
