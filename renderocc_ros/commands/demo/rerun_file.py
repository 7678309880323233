"""The demo for the Rerun viewer: `renderocc view` in a process of its own, as anyone would call it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

__all__ = ["write_rerun"]

REMEDY = "python3 -m pip install rerun-sdk"


def write_rerun(recording: Path, truth: Path, params: Path, out: Path) -> str:
    """Write inputs and outputs for the Rerun viewer; a file of an earlier run is removed.

    Args:
        recording: with the node's outputs, as `write_recording` made it.
        truth: recording whose folder has the 3D truth, if there is any.
        params: the node's parameter file.
        out: the file to write.
    Returns:
        What to tell the user, one line: what was written, or why nothing.
    """
    out.unlink(missing_ok=True)
    if importlib.util.find_spec("rerun") is None:
        return f"wrote no {out.name} for the Rerun viewer, which is not installed: {REMEDY}"
    if not (recording / "metadata.yaml").exists():
        return f"wrote no {out.name} for the Rerun viewer: there is no recording of inputs and outputs"
    options = ["--truth", str(truth), "--params", str(params), "--out", str(out), "--seconds", "0"]
    command = [sys.executable, "-m", "renderocc_model.cli", "view", str(recording), *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"wrote no {out.name} for the Rerun viewer: {reason}"
    return done.stdout.strip().splitlines()[-1]
