"""Faults around the node: subscribers, parameters, lifecycle, signals, memory, files."""

from __future__ import annotations

import resource
import shutil
import signal
import time

from std_srvs.srv import Trigger
from system import Program, address_space, small_network, wait_for

from campaign.faults.exhausted import VARIABLE
from campaign.faults.fault import Fault, Injection
from campaign.faults.times import clock_only, restart_clock, still
from campaign.stage import WHOLE_CYCLE

__all__ = ["SYSTEM_FAULTS"]

# ---- subscribers


def slow_subscribers(seconds: float, count: int, stop: bool = False):
    def begin(injection: Injection) -> None:
        command = ["-m", "campaign.faults.slow_subscriber", seconds, *injection.player.scene.cameras]
        injection.state["programs"] = programs = [Program(command, injection.stage.domain) for _ in range(count)]
        for program in programs:
            wait_for(lambda: program.said("listening") or not program.alive, 30.0)
        time.sleep(1.0)  # until they are known and have something in their queues
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
BAD = (
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
    """Any order, also those that the state does not allow."""
    for _ in range(10):
        injection.stage.change_state(injection.random.choice((CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE)))
        if injection.random.random() < 0.3:
            time.sleep(injection.random.uniform(0, 0.4))


def shut_down(injection: Injection) -> None:
    injection.stage.shut_down()


def active_again(injection: Injection) -> None:
    injection.stage.make_active()


def restarted(injection: Injection) -> None:
    injection.stage.restart()


def called_often(name: str, times: int):
    def begin(injection: Injection) -> None:
        for _ in range(times):
            if injection.stage.call(Trigger, name) is None:
                injection.stage.add_broken(f"~/{name} did not answer")

    return begin


# ---- the process


def signalled(*numbers: int, pause: float = 0.0):
    def begin(injection: Injection) -> None:
        time.sleep(injection.random.uniform(0.0, 0.5))
        for number in numbers:
            injection.stage.node.signal(number)
            time.sleep(pause)

    return begin


def killed(injection: Injection) -> None:
    time.sleep(injection.random.uniform(0.0, 0.5))
    injection.stage.node.signal(signal.SIGKILL)


def signalled_at_the_start(injection: Injection) -> None:
    """A new process, told to end while it loads."""
    injection.stage.restart(wait=False)
    time.sleep(injection.random.uniform(0.0, 4.0))
    injection.stage.node.signal(injection.random.choice((signal.SIGINT, signal.SIGTERM)))


def stopped_for_a_while(injection: Injection) -> None:
    injection.stage.node.signal(signal.SIGSTOP)


def goes_on(injection: Injection) -> None:
    injection.stage.node.signal(signal.SIGCONT)


def limited(kind: int, value):
    """A limit on the running process, from outside. `value` is a function of the process's id."""

    def begin(injection: Injection) -> None:
        pid = injection.stage.node.pid
        injection.state["limits"] = resource.prlimit(pid, kind)
        resource.prlimit(pid, kind, (value(pid), injection.state["limits"][1]))

    return begin


def unlimited(kind: int):
    def end(injection: Injection) -> None:
        if injection.stage.node.alive:
            resource.prlimit(injection.stage.node.pid, kind, injection.state["limits"])
            injection.stage.make_active()

    return end


def less_than_it_has(pid: int) -> int:
    """A MiB less than the process has now: nothing more can be had."""
    return address_space(pid) - 2**20


def configured_without_memory(injection: Injection) -> None:
    limited(resource.RLIMIT_AS, less_than_it_has)(injection)
    injection.stage.cycle()


def exhausted_device(injection: Injection) -> None:
    stage = injection.stage
    file = stage.folder / f"exhausted_{stage.domain}"
    injection.state["file"] = file
    stage.restart(module="campaign.faults.exhausted", environment={VARIABLE: str(file)})
    file.touch()


def device_has_memory(injection: Injection) -> None:
    injection.state["file"].unlink(missing_ok=True)
    injection.stage.make_active()


# ---- files


def save_in_vain(injection: Injection) -> None:
    stage, before = injection.stage, set(injection.stage.saved.rglob("*"))
    answer = stage.save()
    if answer is None or answer.success or not answer.message:
        stage.add_broken(f"~/save with no room answered {answer and (answer.success, answer.message)}")
    left = [path.name for path in set(stage.saved.rglob("*")) - before if path.is_file()]
    if left:
        stage.add_broken(f"~/save said that nothing was saved but left {', '.join(sorted(left))}")


def full_disk(injection: Injection) -> None:
    """No file can grow beyond a few KiB, as on a disk without room."""
    limited(resource.RLIMIT_FSIZE, lambda pid: injection.random.choice((0, 100, 4096)))(injection)
    save_in_vain(injection)


def folder_is_a_file(injection: Injection) -> None:
    path = injection.stage.saved / "file"
    path.write_text("not a folder")
    injection.stage.set_parameter("save_directory", str(path / "below"))
    save_in_vain(injection)


def usual_folder(injection: Injection) -> None:
    injection.stage.set_parameter("save_directory", str(injection.stage.saved))
    (injection.stage.saved / "file").unlink(missing_ok=True)
    for path in injection.stage.saved.glob("*.*"):
        path.unlink()


OTHER_GRID, OTHER_CELLS = ("grid.lower=[-12, -12, -1]", "grid.upper=[12, 12, 4]"), 24 * 24


def checkpoint_becomes(bend):
    """The checkpoint's file is bent and the node configured anew: it must refuse it and say why."""

    def begin(injection: Injection) -> None:
        stage = injection.stage
        injection.state["good"] = stage.checkpoint.read_bytes()
        stage.change_state(DEACTIVATE)
        stage.change_state(CLEANUP)
        bend(injection, stage.checkpoint, injection.state["good"])
        if stage.change_state(CONFIGURE):
            stage.add_broken("a broken checkpoint was accepted")

    return begin


def gone(injection: Injection, path, good: bytes) -> None:
    path.unlink()


def cut_short(injection: Injection, path, good: bytes) -> None:
    path.write_bytes(good[: injection.random.randrange(0, len(good))])


def random_content(injection: Injection, path, good: bytes) -> None:
    path.write_bytes(injection.random.randbytes(len(good) // 4))


def header_of_terabytes(injection: Injection, path, good: bytes) -> None:
    path.write_bytes((2**43).to_bytes(8, "little") + good[8:])


def good_checkpoint(injection: Injection) -> None:
    path = injection.stage.checkpoint
    temporary = path.with_suffix(".new")
    temporary.write_bytes(injection.state["good"])
    temporary.replace(path)
    injection.stage.make_active()


def another_network(injection: Injection) -> None:
    """A network of another grid takes the file's place, and the node is configured anew."""
    stage = injection.stage
    other = small_network(stage.folder / f"other_{stage.domain}.safetensors", OTHER_GRID)
    injection.state["good"] = stage.checkpoint.read_bytes()
    shutil.copyfile(other, stage.checkpoint)
    since = time.monotonic()
    stage.cycle()
    outputs = stage.observer.outputs
    if not wait_for(lambda: any(o.at > since and o.cells == OTHER_CELLS for o in list(outputs)), 5.0):
        stage.add_broken(f"no ~/grid of {OTHER_CELLS} cells came from the network of another grid")


def first_network(injection: Injection) -> None:
    good_checkpoint(injection)
    injection.stage.cycle()


def replaced_while_running(injection: Injection) -> None:
    """Truncated in place, then deleted, while the node works with what it has loaded."""
    path = injection.stage.checkpoint
    injection.state["good"] = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(100)
    if injection.random.random() < 0.5:
        path.unlink()


def node(name: str, group: str, what: str, **more) -> Fault:
    return Fault(name, group, what, **{"strikes": "node", "line": "node", **more})


def lifecycle(name: str, what: str, begin, **more) -> Fault:
    return node(name, "lifecycle", what, begin=begin, end=active_again, stops=True, **more)


def process(name: str, what: str, **more) -> Fault:
    return node(name, "process", what, **{"ends_node": True, "alone": True, "stops": True, "end": restarted, **more})


def checkpoint(name: str, what: str, bend) -> Fault:
    return node(
        name,
        "files",
        what,
        begin=checkpoint_becomes(bend),
        end=good_checkpoint,
        stops=True,
        alone=True,
        named="checkpoint|safetensors",
    )


ENDING = 6.0  # seconds a process may take to end after a signal
NO_MEMORY = "[Mm]emory|bad_alloc|alloc|Errno 12|thread|primitive"  # the last is what oneDNN could not create
SYSTEM_FAULTS = (
    node(
        "slow subscriber",
        "subscribers",
        "takes half a second over each message",
        begin=slow_subscribers(0.5, 1),
        end=subscribers_go,
    ),
    node(
        "stopped subscriber",
        "subscribers",
        "SIGSTOP, with reliable subscriptions",
        end=subscribers_go,
        begin=slow_subscribers(0.0, 1, stop=True),
    ),
    node(
        "parameters change",
        "parameters",
        "good values, while running",
        begin=good_parameters,
        end=default_parameters,
        judge_free=False,
    ),
    node(
        "wrong parameters",
        "parameters",
        "out of range, of another type, contradictory",
        begin=bad_parameters,
        end=default_parameters,
    ),
    node("storm of parameters", "parameters", "a hundred in a row", begin=storm_of_parameters, end=default_parameters),
    node("storm of resets", "services", "~/reset twenty times", begin=called_often("reset", 20), stops=True),
    node("storm of saves", "services", "~/save ten times", begin=called_often("save", 10), end=usual_folder),
    lifecycle("deactivate and activate", "three times", transitions(DEACTIVATE, ACTIVATE, times=3)),
    lifecycle("deactivated for a while", "then activated", transitions(DEACTIVATE), named="inactive"),
    lifecycle(
        "cleanup and configure",
        "the whole circle, twice",
        transitions(DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE, times=2),
    ),
    lifecycle("random transitions", "ten, also such as the state does not allow", random_transitions),
    process(
        "shutdown transition",
        "the lifecycle's last state, in which the process ends",
        begin=shut_down,
        ends_within=ENDING,
    ),
    process("SIGINT", "at a random moment, then a new process", begin=signalled(signal.SIGINT), ends_within=ENDING),
    process("SIGTERM", "at a random moment", begin=signalled(signal.SIGTERM), ends_within=ENDING),
    process(
        "SIGINT twice",
        "as from `ros2 launch`",
        begin=signalled(signal.SIGINT, signal.SIGINT, pause=0.05),
        ends_within=ENDING,
    ),
    process("SIGKILL", "at a random moment", begin=killed, exits=".", ends_within=ENDING),
    process(
        "signal while loading",
        "SIGINT or SIGTERM in the first seconds",
        begin=signalled_at_the_start,
        ends_within=ENDING,
        exits="^$|KeyboardInterrupt",
        errors="Traceback",
    ),  # at first Python runs none of ours
    process(
        "clock never starts",
        "use_sim_time is true, and a new process hears no /clock",
        change=clock_only(still),
        begin=restarted,
        end=restart_clock,
        named="nothing is published on /clock",
        level=2,
        clock="sim",
        ends_node=False,
    ),
    node(
        "stalled", "process", "SIGSTOP, later SIGCONT", begin=stopped_for_a_while, end=goes_on, stops=True, alone=True
    ),
    process(
        "no address space",
        "RLIMIT_AS below what it has",
        end=unlimited(resource.RLIMIT_AS),
        begin=limited(resource.RLIMIT_AS, less_than_it_has),
        exits=NO_MEMORY,
        errors=NO_MEMORY,
    ),
    process(
        "no address space to configure",
        "configured anew under RLIMIT_AS",
        end=unlimited(resource.RLIMIT_AS),
        begin=configured_without_memory,
        exits=NO_MEMORY,
        errors=NO_MEMORY,
    ),
    process(
        "no file descriptors",
        "RLIMIT_NOFILE of 8",
        begin=limited(resource.RLIMIT_NOFILE, lambda pid: 8),
        end=unlimited(resource.RLIMIT_NOFILE),
        exits="files|Errno 24",
        errors="files|Errno 24",
    ),
    process(
        "device out of memory",
        "torch.OutOfMemoryError from every frame",
        begin=exhausted_device,
        end=device_has_memory,
        named="out of memory",
        line="node",
        ends_node=False,
        errors="out of memory",
    ),
    node("full disk", "files", "~/save while no file can grow", begin=full_disk, end=unlimited(resource.RLIMIT_FSIZE)),
    node("save folder is a file", "files", "~/save to where it cannot", begin=folder_is_a_file, end=usual_folder),
    checkpoint("checkpoint deleted", "then configured anew", gone),
    checkpoint("checkpoint cut short", "at a random byte, then configured anew", cut_short),
    checkpoint("checkpoint of noise", "then configured anew", random_content),
    checkpoint("checkpoint of terabytes", "its header claims 8 TiB", header_of_terabytes),
    node(
        "checkpoint changes while in use",
        "files",
        "truncated in place or deleted",
        begin=replaced_while_running,
        end=good_checkpoint,
        alone=True,
    ),
    node(
        "checkpoint replaced",
        "files",
        "by a network of another grid, then configured anew",
        begin=another_network,
        end=first_network,
        alone=True,
        stops=True,
    ),
)
