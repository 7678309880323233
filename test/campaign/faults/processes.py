"""Faults of the node's process: signals, and limits of memory and files."""

from __future__ import annotations

import resource
import signal
import time

from system import address_space

from campaign.faults.exhausted import VARIABLE
from campaign.faults.fault import Fault, Injection, node_fault
from campaign.faults.times import clock_only, restart_clock, still

__all__ = ["PROCESS_FAULTS", "limited", "unlimited"]

ENDING = 6.0  # seconds a process may take to end after a signal
NO_MEMORY = "[Mm]emory|bad_alloc|alloc|Errno 12|thread|primitive"  # "could not create a primitive" is oneDNN's


def shut_down(injection: Injection) -> None:
    injection.stage.shut_down()


def restarted(injection: Injection) -> None:
    injection.stage.restart()


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
    """Start a new process and tell it to end while it loads."""
    injection.stage.restart(wait=False)
    time.sleep(injection.random.uniform(0.0, 4.0))
    injection.stage.node.signal(injection.random.choice((signal.SIGINT, signal.SIGTERM)))


def stopped_for_a_while(injection: Injection) -> None:
    injection.stage.node.signal(signal.SIGSTOP)


def goes_on(injection: Injection) -> None:
    injection.stage.node.signal(signal.SIGCONT)


def limited(kind: int, value):
    """Set a resource limit of the running process, from outside, to `value(process id)`."""

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
    """A MiB less than the process has now, so that it gets no more."""
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


def process(name: str, what: str, **more) -> Fault:
    return node_fault(
        name, "process", what, **{"ends_node": True, "alone": True, "stops": True, "end": restarted, **more}
    )


PROCESS_FAULTS = (
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
    ),  # the signal may come before a line of this package has run
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
    node_fault(
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
        "configured again under RLIMIT_AS",
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
)
