"""`renderocc train`: train a network on prepared recordings with 2D labels."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from renderocc_model.base.machine_errors import machine_error

if TYPE_CHECKING:
    from .config import TrainConfig

__all__ = ["main", "remedy"]

_LESS_MEMORY = (
    "accumulate=2 or more where batch is above 1, fewer sample.rays, model.backbone.recompute=true, "
    "precision=bfloat16, or fewer run.workers where it is the host's memory"
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc train",
        description="Train a network on prepared recordings with 2D labels. If a run was interrupted, the same command "
        "continues it. Under torchrun, all processes train one network together.",
        epilog="example: renderocc train --config config/train_tiny.yaml --out runs/first data.prepared=tables; on 8 "
        "GPUs: torchrun --nproc-per-node 8 -m training.train --config config/train_base.yaml --out runs/base ...",
    )
    made.add_argument(
        "--config", type=Path, help="YAML file of settings, such as config/train_tiny.yaml or config/train_base.yaml"
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the run")
    made.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="try everything in four steps: training, validation, drawing and saving, in OUT/fast_dev_run",
    )
    made.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings that override the YAML file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc train`. Exit status 0: at the end, or after SIGTERM. 130: after Ctrl-C. 1: failed. 2: bad input."""
    arguments = parser().parse_intermixed_args(argv)
    out: Path = arguments.out
    # Let waiting threads sleep. By default they spin, and then a step takes many times as long when loading processes
    # need the same cores. This is read when torch is loaded, so torch is imported after this line.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from .config import fast_dev_run, load_train_config

    try:
        config = load_train_config(arguments.config, arguments.settings)
        if arguments.fast_dev_run:
            config, out = fast_dev_run(config), out / "fast_dev_run"
        return _run(config, out, arguments.fast_dev_run)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        text, status = remedy(error, out)
        if not text:
            raise
        print(f"renderocc train: {text}", file=sys.stderr)
        return status


def _run(config: TrainConfig, out: Path, anew: bool) -> int:
    import torch

    from .distributed import started_processes
    from .loop import train
    from .run_data import open_data, prepare_missing
    from .run_folder import RunFolder

    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    tables = Path(config.data.prepared) if config.data.prepared else out / "tables"
    if not config.data.prepared and not config.data.bags:
        raise ValueError("no recordings: give data.prepared=DIR (of `renderocc prepare`) or data.bags=[BAG,...]")
    with started_processes(config.run.device) as processes:
        if processes.first:
            if anew:
                shutil.rmtree(out, ignore_errors=True)
            if config.data.bags:
                prepare_missing(config.data, tables)
        processes.wait()
        data = open_data(config, tables)
        folder = RunFolder(out, config, data.identity())
        with stopping_on_signals() as stopped:
            checkpoint = train(config, data, folder, processes, lambda: bool(stopped))
        if processes.first:
            if checkpoint is None:
                print(f"stopped; give the same command again to continue: {out.resolve()}")
            else:
                print(f"wrote {checkpoint.resolve()}")
        return 130 if checkpoint is None and signal.SIGINT in stopped else 0


@contextmanager
def stopping_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending the process. A second signal ends it."""
    stopped: list[int] = []

    def stop(number: int, frame) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)
        print("stopping after this step; press Ctrl-C again to stop immediately", file=sys.stderr)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remedy(error: Exception, out: Path) -> tuple[str, int]:
    """The text about an error that ended training, and the exit status. The text is empty for a bug of this program."""
    from .learner import Diverged

    kept = f"the last saved state and weights are kept in {out}"
    text = str(error).strip()
    if isinstance(error, Diverged):
        return f"{text}; {kept}", 1
    if "DataLoader worker" in text and "shared memory" in text:
        return f"loading processes have no shared memory left; try fewer run.workers, or a larger /dev/shm; {kept}", 1
    if "DataLoader worker" in text and "Killed" in text:
        error = MemoryError(text)  # the system kills a process when memory runs out
    machine = machine_error(error, out, _LESS_MEMORY)
    if machine:
        return f"{machine}; {kept}", 1
    if isinstance(error, OSError):
        return f"{error.filename or out}: {error.strerror or text or type(error).__name__}; {kept}", 1
    if isinstance(error, ValueError):
        return text, 2
    return "", 1
