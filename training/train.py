"""`renderocc train`: learn a network from prepared recordings with 2D labels."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .train_config import fast_dev_run, load_train_config

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc train",
        description="Train a network on prepared recordings with 2D labels. A run that was interrupted goes on when "
        "the same command is given again. Under torchrun, all its processes train one network.",
        epilog="example: renderocc train --config config/train_tiny.yaml --out runs/first data.prepared=tables",
    )
    made.add_argument("--config", type=Path, help="YAML of settings (config/train_tiny.yaml, config/train_base.yaml)")
    made.add_argument("--out", type=Path, required=True, help="folder of the run")
    made.add_argument("--fast-dev-run", action="store_true", help="four steps through everything, in OUT/fast_dev_run")
    made.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings that differ from the YAML")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc train`: 0 at the end or after SIGTERM, 130 after Ctrl-C, 1 where training failed, 2 on bad input."""
    arguments = parser().parse_intermixed_args(argv)
    from .distributed import started_processes
    from .loop import Diverged, train
    from .run_folder import RunFolder

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, frame: stopped.append(which))
    out = arguments.out
    try:
        config = load_train_config(arguments.config, arguments.settings)
        if arguments.fast_dev_run:
            config, out = fast_dev_run(config), out / "fast_dev_run"
        with started_processes(config.run.device) as processes:
            folder = RunFolder(out, config)
            if processes.first:
                folder.start()
            done = train(config, folder, processes, lambda: bool(stopped))
    except Diverged as error:
        print(f"renderocc train: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"renderocc train: {error}", file=sys.stderr)
        return 2
    if not done:
        print(f"stopped; the same command goes on from there: {out.resolve()}")
        return 130 if stopped and stopped[0] == signal.SIGINT else 0
    print(f"wrote {out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
