"""The commands under test: what they are given, what they write, and how two results are compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUBJECTS", "Subject"]

# Provenance: when something was written, and the digest of what it was made from.
_ORIGIN = re.compile(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00|"digest": "[0-9a-f]+"')


@dataclass(frozen=True)
class Subject:
    """A command under test.

    Attributes:
        name: of the command.
        arguments: after the name; run in a folder with the material in `in` and an empty `out`.
        inputs: glob patterns, under `in`, of the files that are damaged.
        finals: under `out`: what may only be there when it is whole, each the same as in an undisturbed run.
        result: the result of the command, from `out` and what it printed: a digest of what it wrote.
        material: names of the parts of the material that it is given.
        weight: how often it is taken, relative to others; long ones less.
    """

    name: str
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    finals: tuple[str, ...]
    result: Callable[[Path, str], str]
    material: tuple[str, ...]
    weight: int = 2


def tree_digest(*names: str) -> Callable[[Path, str], str]:
    """Digest of the names and bytes of all files, hidden ones too, of some folders or files."""

    def digest(out: Path, text: str = "") -> str:
        found = hashlib.sha256()
        for name in names:
            top = out / name
            files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
            for path in files:
                found.update(f"{path.relative_to(out)}\n".encode())
                found.update(_ORIGIN.sub(b"", path.read_bytes()))
        return found.hexdigest()[:16]

    return digest


def weights_digest(name: str) -> Callable[[Path, str], str]:
    """Digest of a .safetensors file's tensors: the header, which says when it was made, is left out."""

    def digest(out: Path, text: str = "") -> str:
        content = (out / name).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        text = json.dumps(header, sort_keys=True).encode()
        return hashlib.sha256(text + content[8 + length :]).hexdigest()[:16]

    return digest


def figures_digest(name: str) -> Callable[[Path, str], str]:
    """Digest of the figures in the results of a study: times and places are left out."""

    def digest(out: Path, text: str = "") -> str:
        figures = [json.loads(path.read_text())["figures"] for path in sorted((out / name).glob("*.json"))]
        return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()[:16]

    return digest


def said(pattern: str) -> Callable[[Path, str], str]:
    """Of a command that only prints: the parts of its output that match."""
    return lambda out, text: " ".join(re.findall(pattern, text))


_BAG = ("town/town.mcap", "town/metadata.yaml")
_LABELS = ("labels/labels.mcap", "labels/metadata.yaml", "labels/labels.yaml")
_TABLES = ("tables/town/*", "tables/directions/*")

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "simulate",
            ("out/town", "--seed", "3", "--frames", "2", "--rig", "in/rig.yaml", "--jobs", "2"),
            ("rig.yaml",),
            ("town",),
            tree_digest("town"),
            ("rig.yaml",),
        ),
        Subject(
            "import",
            ("semantickitti", "in/kitti", "--out", "out/recordings"),
            ("kitti/sequences/08/**/*",),
            ("recordings/08",),
            tree_digest("recordings"),
            ("kitti",),
            weight=3,
        ),
        Subject(
            "label",
            ("in/town", "--out", "out/labels", "--preview", "out/look", "--jobs", "2"),
            _BAG,
            ("labels",),
            tree_digest("labels"),
            ("town",),
            weight=3,
        ),
        Subject(
            "check",
            ("in/town", "--labels", "in/labels"),
            (*_BAG, *_LABELS),
            (),
            said(r"\d+ failures, \d+ warnings"),
            ("town", "labels"),
        ),
        Subject(
            "prepare",
            ("in/town", "in/again", "--labels", "in/labels", "in/labels", "--out", "out/tables", "--jobs", "2"),
            (*_BAG, *_LABELS),
            ("tables/town", "tables/again"),
            tree_digest("tables"),
            ("town", "labels"),
            weight=3,
        ),
        Subject(
            "train",
            ("--config", "in/train.yaml", "--out", "out/run", "data.prepared=in/tables"),
            ("train.yaml", *_TABLES),
            (),
            weights_digest("run/checkpoint.safetensors"),
            ("train.yaml", "tables"),
            weight=3,
        ),
        Subject(
            "eval",
            (
                "--checkpoint",
                "in/run/checkpoint.safetensors",
                "--data",
                "in/tables",
                "--json",
                "out/figures.json",
                "--predictions",
                "out/volumes",
                "--out",
                "out/report",
                "--calibrate",
                "out/new.safetensors",
            ),
            ("run/checkpoint.safetensors", *_TABLES),
            ("figures.json", "report/evaluation.json"),
            tree_digest("figures.json", "volumes", "report"),
            ("run/checkpoint.safetensors", "tables"),
        ),
        Subject(
            "export",
            ("--checkpoint", "in/run/checkpoint.safetensors", "--format", "onnx", "--out", "out/network.onnx"),
            ("run/checkpoint.safetensors",),
            ("network.onnx",),
            tree_digest("network.onnx"),
            ("run/checkpoint.safetensors",),
            weight=1,
        ),
        Subject(
            "metrics",
            (
                "in/volumes/predictions",
                "in/volumes/truth",
                "--rayiou",
                "--origins",
                "in/volumes/origins.json",
                "--grid",
                "-3.2",
                "-3.2",
                "-1",
                "3.2",
                "3.2",
                "2.2",
                "0.4",
                "--json",
                "out/scores.json",
            ),
            ("volumes/predictions/**/*.npz", "volumes/truth/**/*.npz", "volumes/origins.json"),
            ("scores.json",),
            tree_digest("scores.json"),
            ("volumes",),
        ),
        Subject(
            "study",
            ("in/study.yaml", "--out", "out/study", "--docs", "out/docs", "--jobs", "2", "--threads", "1"),
            ("study.yaml", "study_train.yaml", "variants.yaml"),
            (),
            figures_digest("docs/study/results/micro"),
            ("study.yaml", "study_train.yaml", "variants.yaml"),
            weight=1,
        ),
        Subject(
            "replay",
            ("in/town", "--wait-for", "0.2", "--rate", "0.5"),
            _BAG,
            (),
            said(r"played \d+ messages"),
            ("town",),
        ),
    )
}
