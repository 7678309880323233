"""All faults, and the plan of a campaign: which faults it injects in which run, drawn from a seed."""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass

from campaign.faults.cameras import CAMERA_FAULTS
from campaign.faults.fault import Fault
from campaign.faults.files import FILE_FAULTS
from campaign.faults.interfaces import INTERFACE_FAULTS
from campaign.faults.processes import PROCESS_FAULTS
from campaign.faults.times import TIME_FAULTS
from campaign.faults.transforms import TF_FAULTS

__all__ = ["FAULTS", "Run", "fault_named", "plan"]

_ALL = (*CAMERA_FAULTS, *TIME_FAULTS, *TF_FAULTS, *INTERFACE_FAULTS, *PROCESS_FAULTS, *FILE_FAULTS)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
COMBINED = 0.3  # share of the runs in which two or three faults are on at once


@dataclass(frozen=True)
class Run:
    """One run of a campaign: the faults by name, the seed of all its random choices, whether it uses /clock."""

    index: int
    faults: tuple[str, ...]
    seed: int
    simulated: bool

    @property
    def name(self) -> str:
        return " + ".join(self.faults)


def fault_named(name: str) -> Fault:
    """Raises:
    ValueError: there is no such fault; the text names the nearest."""
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else "`make faults FAULTS=--list` names all"
        raise ValueError(f"there is no fault {name!r}; {hint}")
    return FAULTS[name]


def plan(count: int, seed: int, only: tuple[str, ...] = (), wall: bool = False) -> list[Run]:
    """Draw the runs of a campaign: every fault alone equally often, and combinations of faults between them.

    The same arguments give the same runs.

    Args:
        only: names of faults, or of combinations joined by '+', to be injected in turn in place of all.
        wall: no /clock, but for faults that need it.
    Raises:
        ValueError: a name that is not known, or a combination that cannot be.
    """
    runs: list[Run] = []
    chosen = [tuple(part.strip() for part in name.split("+")) for name in only]
    waiting: list[tuple[str, ...]] = []
    for index in range(count):
        own = seed + index
        draw = random.Random(f"plan {seed} {index}")
        if chosen:
            names = chosen[index % len(chosen)]
        elif draw.random() < COMBINED:
            names = combination(draw)
        else:
            if not waiting:
                waiting = [(name,) for name in FAULTS]
                draw.shuffle(waiting)
            names = waiting.pop()
        runs.append(Run(index, names, own, uses_clock(names, own, wall)))
    return runs


def uses_clock(names: tuple[str, ...], seed: int, wall: bool) -> bool:
    """Whether a run uses /clock: what its faults need decides, else its seed."""
    clocks = {fault_named(name).clock for name in names} - {"any"}
    if len(clocks) > 1:
        raise ValueError(f"{' + '.join(names)}: one needs /clock and one must not have it")
    if clocks:
        return clocks == {"sim"}
    return not wall and random.Random(f"clock {seed}").random() < 0.5


def combination(draw: random.Random) -> tuple[str, ...]:
    """Draw two or three faults that can be told apart: at most one of them strikes more than one camera."""
    cameras = [name for name, fault in FAULTS.items() if not fault.alone and fault.strikes_any]
    others = [name for name, fault in FAULTS.items() if not fault.alone and not fault.strikes_any]
    count = draw.choice((2, 2, 3))
    first = draw.sample(others, 1) if draw.random() < 0.6 else []
    return (*first, *draw.sample(cameras, count - len(first)))
