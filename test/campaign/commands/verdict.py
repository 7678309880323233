"""Whether a command reacted to a fault as it should: what it said, what it left, and that it can go on."""

from __future__ import annotations

import io
import json
import signal
import zipfile
from pathlib import Path

import cv2
import numpy as np
import yaml

from .injections import Injection, Reference
from .process import Ended
from .subjects import Subject, tree_digest

__all__ = ["STOPPED", "all_made", "leftovers", "met", "wholeness"]

STOPPED = {  # exit statuses after a signal; replay's way to end is a signal, and training saves and ends by itself
    "SIGKILL": (-9,),
    "SIGTERM": (-15, 143, 0),
    "SIGINT": (130, -2, 0),  # -2: while a library had replaced Python's handler
}
_PERHAPS_WHOLE = ("input bytes changed", "line dropped")  # the changed input can still be valid


def met(fault: str, injection: Injection, ended: Ended, subject: Subject, changed: bool) -> tuple[str, list[str]]:
    """How a command reacted to a fault, in a word, and what was wrong.

    Args:
        changed: it ended well with another result than without the fault.
    """
    wrong = []
    if ended.timed_out:
        wrong.append("did not end")
    if ended.left_running:
        wrong.append(f"left {ended.left_running} processes running")
    if "Traceback (most recent call last)" in ended.text:
        wrong.append("printed a traceback")
    if fault in STOPPED and not ended.timed_out:
        if ended.status not in (*STOPPED[fault], 0):
            wrong.append(f"ended with {ended.status} after {fault}")
        return ("not affected" if ended.status == 0 else "stopped"), wrong
    if fault == "out of memory" and ended.status == -signal.SIGABRT and "terminate called" in ended.text:
        return "crashed", wrong  # the middleware ends the process where it gets no thread
    if ended.status < 0:
        return "crashed", [*wrong, f"ended by signal {-ended.status}"]
    if ended.status == 0:
        if changed and fault not in _PERHAPS_WHOLE:
            wrong.append("went on with another result and said nothing")
        return ("taken as data" if changed else "not affected"), wrong
    return "refused", wrong + _said(fault, injection, ended)


def _said(fault: str, injection: Injection, ended: Ended) -> list[str]:
    """What is missing in the last message."""
    text, wrong = ended.text, []
    if ended.status not in (1, 2):
        wrong.append(f"ended with {ended.status}")
    if fault == "disk full" and "disk is full" not in text:
        wrong.append("did not say that the disk is full")
    if fault == "out of memory" and "memory" not in text.lower():  # native libraries have words of their own
        wrong.append("did not say that memory ran out")
    if fault == "read-only disk" and "out/" not in text:
        wrong.append("did not name the place it cannot write to")
    if injection.damaged:
        path = Path(injection.damaged)
        # A part, such as a recording's storage file, may be named by the whole.
        if not any(name in text for name in (path.name, path.stem, f"in/{path.parts[0]}")):
            wrong.append(f"did not name {path.name}")
    return wrong


def wholeness(out: Path, subject: Subject, reference: Reference) -> list[str]:
    """Files that have their final names but are not whole."""
    wrong = []
    for name in subject.finals:
        if (out / name).exists() and tree_digest(name)(out) != reference.finals[name]:
            wrong.append(f"{name} is there and differs")
    for path in sorted(out.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and not hidden and not _readable(path):
            wrong.append(f"{path.relative_to(out)} is half written")
    return wrong


def all_made(out: Path, subject: Subject, reference: Reference) -> bool:
    """Whether all that a command makes is there and whole, so that a signal came too late."""
    return bool(subject.finals) and all(
        (out / name).exists() and tree_digest(name)(out) == reference.finals[name] for name in subject.finals
    )


def leftovers(out: Path) -> list[str]:
    """Hidden files and folders, which belong to unfinished work."""
    return sorted(path.relative_to(out).as_posix() for path in out.rglob(".*"))


def _readable(path: Path) -> bool:
    """Whether a file is complete and of the kind that its name says."""
    content = path.read_bytes()
    try:
        if path.suffix in (".json",):
            json.loads(content)
        elif path.suffix == ".yaml":
            return yaml.safe_load(content) is not None
        elif path.suffix in (".npz", ".pt", ".pt2"):
            return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
        elif path.suffix == ".npy":
            np.load(io.BytesIO(content))
        elif path.suffix in (".jpg", ".png"):
            ends = b"\xff\xd9" if path.suffix == ".jpg" else b"IEND\xaeB`\x82"
            return content.endswith(ends) and cv2.imdecode(np.frombuffer(content, np.uint8), 1) is not None
        elif path.suffix == ".mcap":
            return content.endswith(b"\x89MCAP0\r\n")
        elif path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return 8 + length + max(ends) == len(content)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, yaml.YAMLError):
        return False
    return True
