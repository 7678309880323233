"""A small network and its exported files. They are written once for a test run, because tracing takes seconds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from small_models import small_config

from renderocc_model.export import export_checkpoint
from renderocc_model.export.file import ENDINGS
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from renderocc_model.network.untrained import untrained_checkpoint

FORMS = {"onnx": "onnxruntime", "torch_export": "torch"}  # and the backend that runs each
_FOLDER = TemporaryDirectory(prefix="renderocc_exported_")  # removed when the process ends


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=1)
def small_checkpoint() -> Path:
    """A small version of `tiny` with random weights and threshold 0.3."""
    made = untrained_checkpoint(small_config("tiny"), OCC3D_NUSCENES)
    path = Path(_FOLDER.name) / "small.safetensors"
    save_checkpoint(path, made.network, OCC3D_NUSCENES, 0.3, None, {"by": "test"})
    return path


@lru_cache(maxsize=8)
def exported_file(form: str, name: str = "tiny", *words: str) -> tuple[Checkpoint, Path]:
    """A small version of a preset with changed settings, and its exported file."""
    checkpoint = (
        load_checkpoint(small_checkpoint())
        if name == "tiny" and not words
        else untrained_checkpoint(small_config(name, *words), OCC3D_NUSCENES)
    )
    path = Path(_FOLDER.name) / f"{'_'.join((name, *words))}{ENDINGS[form]}"
    export_checkpoint(checkpoint, path, form, "small.safetensors")
    return checkpoint, path
