"""The GPU path compared with its references before it is used: what cannot be relied on is left out.

    for finding in leave_out_unsound(device):
        print(finding.sentence)

Each Triton kernel, the CUDA graph and nvJPEG compute small inputs in a process of its own (`gpu_cases`). What differs
from its reference, raises, ends the process or does not end is left out (`ops.left_out`): the reference does its work,
more slowly. Verdicts are kept in a JSON file for this device, driver, torch, Triton, torchvision and source text. Those
of parts that did not end, found no memory or could not be checked are not kept: a busy machine may be the cause. The
next check tries them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from ..base.files import replacing
from ..ops.left_out import GPU_PARTS, leave_out

__all__ = ["Finding", "cache_file", "check", "identity_of", "leave_out_unsound"]

START_LIMIT, PART_LIMIT = 120.0, 60.0  # seconds: to load PyTorch, and for a part, with compiling its kernels
END_LIMIT = 2.0  # seconds for a process to end
MOST_HANGS = 2  # after so many parts that did not end, the others are not waited for
COMMAND = (sys.executable, "-m", "renderocc_model.inference.gpu_cases")
_REMEMBERED = ("sound", "differs", "fails")
_FORMAT = 1


@dataclass(frozen=True)
class Finding:
    """What was found of one part.

    Attributes:
        part: its name in `ops.left_out.GPU_PARTS`.
        kind: "sound", "differs", "fails", "no memory", "hangs" or "unchecked".
        text: what differs or fails, one line; empty for "sound".
        remembered: whether it is of an earlier check.
    """

    part: str
    kind: str
    text: str = ""
    remembered: bool = False

    @property
    def reason(self) -> str:
        """A verb and what follows: of a part that is left out."""
        said = {
            "differs": "differs from its reference",
            "fails": "fails",
            "no memory": "found no memory",
            "hangs": "did not end",
            "unchecked": "could not be checked",
        }
        return f"{said.get(self.kind, 'is sound')}{f' ({self.text})' if self.text else ''}"

    @property
    def sentence(self) -> str:
        what, instead = GPU_PARTS[self.part]
        if self.kind == "sound":
            return f"{self.part}: as its reference"
        return f"{self.part} is left out, it {self.reason}: {instead} does the work of {what}, more slowly"


def leave_out_unsound(
    device: torch.device,
    parts: Sequence[str] = tuple(GPU_PARTS),
    anew: bool = False,
    cache: Path | None = None,
    command: Sequence[str] = COMMAND,
    limit: float = PART_LIMIT,
) -> list[Finding]:
    """Check the parts of the GPU path, and leave out in this process those that are not sound.

    To be called before the first frame. Arguments and result as of `check`.
    """
    findings = check(device, parts, anew, cache, command, limit)
    for finding in findings:
        if finding.kind != "sound":
            leave_out(finding.part, finding.reason)
    return findings


def check(
    device: torch.device,
    parts: Sequence[str] = tuple(GPU_PARTS),
    anew: bool = False,
    cache: Path | None = None,
    command: Sequence[str] = COMMAND,
    limit: float = PART_LIMIT,
) -> list[Finding]:
    """Compare the parts of the GPU path with their references.

    Args:
        device: a CUDA device.
        parts: names in GPU_PARTS.
        anew: check also what is remembered.
        cache: file of the verdicts; default: `cache_file()`. One that is damaged, or cannot be written, does no harm.
        command: starts the process that checks; a device, this process's id and the parts are added to it.
        limit: seconds for a part.
    Returns:
        one finding for each part, in their order.
    """
    path = cache_file() if cache is None else cache
    identity = identity_of(device)
    known = {} if anew else _read(path).get(identity, {})
    found = {part: Finding(part, *known[part], remembered=True) for part in parts if part in known}
    new = _run([part for part in parts if part not in found], device, command, limit)
    _remember(path, identity, [finding for finding in new if finding.kind in _REMEMBERED])
    found.update({finding.part: finding for finding in new})
    return [found[part] for part in parts]


def cache_file() -> Path:
    """`renderocc/gpu_check.json` in $XDG_CACHE_HOME, or in ~/.cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return folder / "renderocc" / "gpu_check.json"


def identity_of(device: torch.device) -> str:
    """What verdicts depend on: device, driver, versions of the packages and the text of our own sources."""
    if device.type == "cuda":
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        what = f"{name}, {capability[0]}.{capability[1]}, {_driver()}"
    else:
        what = str(device)
    versions = ", ".join(f"{package} {_version(package)}" for package in ("torch", "triton", "torchvision"))
    folder, digest = Path(__file__).resolve().parent, hashlib.sha256()
    for source in sorted([*folder.parent.glob("ops/**/*.py"), *folder.glob("*.py")]):
        digest.update(source.read_bytes())
    return f"{what}, {versions}, CUDA {torch.version.cuda}, sources {digest.hexdigest()[:16]}"


def _driver() -> str:
    try:
        return " ".join(Path("/proc/driver/nvidia/version").read_text().split("\n")[0].split())
    except OSError:
        version = getattr(torch._C, "_cuda_getDriverVersion", None)
        return f"driver {version() if version else 'unknown'}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _run(parts: list[str], device: torch.device, command: Sequence[str], limit: float) -> list[Finding]:
    """Findings of the parts, in order; a process that stopped after one part is followed by one for the rest."""
    findings: list[Finding] = []
    while len(findings) < len(parts):
        if sum(finding.kind == "hangs" for finding in findings) == MOST_HANGS:
            text = f"{MOST_HANGS} others did not end"
            return [*findings, *(Finding(part, "unchecked", text) for part in parts[len(findings) :])]
        findings += _run_once(parts[len(findings) :], device, command, limit)
    return findings


def _run_once(parts: list[str], device: torch.device, command: Sequence[str], limit: float) -> list[Finding]:
    """Findings of at least the first part; of all, if the process does not even begin."""

    def unchecked(text: str) -> list[Finding]:
        return [*findings, *(Finding(part, "unchecked", text) for part in parts[len(findings) :])]

    findings: list[Finding] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    arguments = [*command, str(device), str(os.getpid()), *parts]
    try:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
    except OSError as error:
        return unchecked(f"the process that checks cannot be started: {error}")
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    readers = [
        threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True),
        threading.Thread(target=_keep_last, args=(child.stderr, said), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        begun = False
        until = time.monotonic() + START_LIMIT
        while len(findings) < len(parts):
            part = parts[len(findings)]
            try:
                line = lines.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                if begun:
                    return [*findings, Finding(part, "hangs", f"within {limit:g} s")]
                return unchecked(f"the process did not begin within {START_LIMIT:g} s")
            if line is None:
                status = child.wait(END_LIMIT)
                if findings and not begun:
                    return findings  # it stopped after a part that was not sound
                readers[1].join(END_LIMIT)
                if not begun:
                    return unchecked(_end_of(status, said))
                # SIGKILL comes from the system that is out of memory.
                kind = "no memory" if status == -signal.SIGKILL else "fails"
                return [*findings, Finding(part, kind, _end_of(status, said))]
            words = line.rstrip("\n").split(" ", 3)
            if words[:2] == ["begin", part]:
                begun, until = True, time.monotonic() + limit
            elif words[:2] == ["end", part] and len(words) > 2:
                findings.append(Finding(part, words[2].replace("_", " "), words[3].strip() if len(words) > 3 else ""))
                begun, until = False, time.monotonic() + START_LIMIT
        return findings
    finally:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps it
            child.wait(END_LIMIT)
        for reader in readers:
            reader.join(END_LIMIT)


def _pass_on(stream, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _keep_last(stream, said: list[str]) -> None:
    for line in stream:
        if line.strip():
            said[:] = [line.strip()]


def _end_of(status: int, said: list[str]) -> str:
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"the process ended with {how}{': ' + said[-1][:200] if said else ''}"


def _read(path: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """identity -> part -> (kind, text); empty if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            return {}
        verdicts = {}
        for identity, parts in content["verdicts"].items():
            verdicts[identity] = {part: (str(kind), str(text)) for part, (kind, text) in parts.items()}
            if any(kind not in _REMEMBERED for kind, _ in verdicts[identity].values()):
                return {}
        return verdicts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(path: Path, identity: str, findings: list[Finding]) -> None:
    """Add verdicts to the file, written whole; if that is not possible, the next start checks again."""
    if not findings:
        return
    verdicts = _read(path)
    verdicts.setdefault(identity, {}).update({item.part: (item.kind, item.text) for item in findings})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, "verdicts": verdicts}, indent=1) + "\n")
    except OSError:
        pass
