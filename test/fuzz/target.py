"""What is fuzzed and how one input is judged: refused in the documented way, or read, in bounded time and memory."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .mutate import mutate_bytes

__all__ = ["Finding", "Target", "examine"]

SLOWEST = 1.0  # seconds of processor time for one input
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        name: as it is called on the command line.
        run: reads one input and asserts what the parser promises of it.
        seeds: makes valid inputs, from which all others are made.
        refusals: exceptions that its documentation names; any other is a finding.
        modules: what it exercises, for the coverage of lines.
        mutate: how inputs are changed, besides libFuzzer's own ways.
        memory: bytes that reading may take, beside 64 for each byte of the input.
        largest: bytes of the largest input.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...]
    modules: tuple[str, ...]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes
    memory: int = 4 << 20
    largest: int = 4096


@dataclass(frozen=True)
class Finding:
    """Something that must not happen; `key` is equal for equal causes."""

    key: str
    kind: str
    text: str


def examine(target: Target, data: bytes, weigh: bool = False) -> Finding | None:
    """Run a target on one input.

    Args:
        weigh: also measure the memory that was taken; ten times slower.
    Returns:
        None where the input was read or refused as documented.
    """
    if weigh:
        tracemalloc.start()
    begin = time.perf_counter()
    finding = None
    try:
        target.run(data)
    except target.refusals as refusal:
        if not str(refusal).strip():
            finding = _finding("silent", refusal)
    except Exception as error:
        finding = _finding("crash", error)
    took = time.perf_counter() - begin
    peak = 0
    if weigh:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if finding is None and took > SLOWEST and not weigh:
        took = _processor_time(target, data)  # other processes do not count
        if took > SLOWEST:
            finding = Finding(f"slow in {target.name}", "slow", f"{took:.1f} s of processor time")
    if finding is None and peak > target.memory + 64 * len(data):
        finding = Finding(f"memory in {target.name}", "memory", f"{peak} bytes taken for {len(data)}")
    return finding


def _processor_time(target: Target, data: bytes) -> float:
    begin = time.process_time()
    with contextlib.suppress(*target.refusals):
        target.run(data)
    return time.process_time() - begin


def _finding(kind: str, error: Exception) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(_ROOT)) and "/.venv/" not in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
    text = "".join(traceback.format_exception(error))[-3000:].replace(str(_ROOT) + "/", "")
    return Finding(f"{type(error).__name__} in {place}", kind, text)


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()[:16]
