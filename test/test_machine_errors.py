"""What is said when the machine gives out: one line with the place and the remedy."""

import errno
import sqlite3
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from renderocc_model import cli
from renderocc_model.base.machine_errors import machine_error

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[1]


def raised(action) -> Exception:
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


def test_a_full_disk_is_named_with_the_place_and_the_remedy():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert machine_error(error, "out/town") == "out/town: the disk is full; make room and give the same command again"
    error = OSError(errno.ENOSPC, "No space left on device", "out/town/town.mcap")
    assert machine_error(error, "out/town").startswith("out/town/town.mcap: the disk is full")
    assert "the disk is full" in machine_error(sqlite3.OperationalError("database or disk is full"), "bag")


def test_a_locked_disk_and_missing_permission_are_named():
    assert "x: lies on a disk that is read-only" in machine_error(OSError(errno.EROFS, "Read-only file system", "x"))
    assert "x: Permission denied; change" in machine_error(OSError(errno.EACCES, "Permission denied", "x"))


@pytest.mark.parametrize(
    "action",
    [
        lambda: np.empty(1 << 50, np.uint8),
        lambda: torch.empty(1 << 50, dtype=torch.uint8),
        lambda: cv2.resize(np.zeros((30000, 30000), np.uint8), (2_000_000_000, 30000)),
    ],
)
def test_every_library_s_way_to_run_out_of_memory_is_understood(action):
    words = machine_error(raised(action), less="fewer --jobs")
    assert words.startswith("out of memory (") and "try fewer --jobs" in words


def test_a_library_that_there_was_no_memory_to_load_is_not_called_missing():
    # There is room for Python, not for LLVM's 130 MB; llvmlite itself says that its library may not be there.
    code = "\n".join(
        [
            "import resource",
            "from pathlib import Path",
            "from renderocc_model.base.machine_errors import machine_error",
            "has = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()",
            "resource.setrlimit(resource.RLIMIT_AS, (has + (60 << 20),) * 2)",
            "try:",
            "    import llvmlite.binding",
            "except OSError as error:",
            "    print(machine_error(error, less='fewer --rays'))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("out of memory (") and "try fewer --rays" in done.stdout, done.stderr


def test_other_errors_are_not_the_machine_s():
    assert not machine_error(ValueError("focal length is negative")) and not machine_error(KeyError("x"))


def test_a_command_that_runs_out_of_memory_is_one_line_with_the_setting_to_change(monkeypatch, capsys):
    def main(argv):
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr("training.label.main", main)
    assert cli.main(["label", "bag"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "renderocc label: out of memory" in text and "fewer --jobs" in text
