"""The `renderocc` command: a table of subcommands, each imported only when it is asked for.

So `renderocc replay` needs no training code and `renderocc simulate` needs no ROS, and a package that is missing ends
in one line that says what to install.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from renderocc_model.base.machine_errors import machine_error  # before memory can run out

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """One subcommand: `target` is 'module:function', the function takes argv and returns the exit status."""

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "renderocc_ros.commands.demo:main",
        "run the node on a recording; pictures, latency and, with 3D truth, mIoU and RayIoU",
    ),
    "replay": Command(
        "renderocc_ros.commands.replay:main", "play a rosbag2 recording onto its topics, where there is no `ros2 bag`"
    ),
    "doctor": Command(
        "renderocc_ros.commands.doctor:main", "say what of machine, ROS, recording and checkpoint fits together"
    ),
    "bench": Command("renderocc_model.bench:main", "measure the node, the network and the loader on this machine"),
    "simulate": Command("training.simulate:main", "write a recording of a simulated town, with exact truth"),
    "learn": Command("training.learn:main", "from recordings to a network and a report, with one command"),
    "check": Command("training.check:main", "find faults of recordings that would make training fail"),
    "import": Command(
        "training.recordings.importers:main", "turn nuScenes or SemanticKITTI into recordings with their 3D truth"
    ),
    "label": Command("training.label:main", "make 2D depth and class labels of a recording, in a sidecar bag"),
    "truth": Command("training.evaluate.truth:main", "accumulate LiDAR sweeps into 3D truth beside a recording"),
    "prepare": Command("training.data.prepare:main", "turn labelled recordings into tables for training"),
    "train": Command("training.train:main", "train a network on prepared recordings with 2D labels"),
    "eval": Command("training.evaluate.command:main", "evaluate a checkpoint on held-out recordings"),
    "metrics": Command("training.evaluate.metrics:main", "compute mIoU and RayIoU of predicted volumes"),
    "export": Command(
        "renderocc_model.export:main", "write a network for other runtimes: ONNX, torch.export, or INT8 for OpenVINO"
    ),
    "view": Command(
        "training.evaluate.view:main", "write a recording and its volumes for the Rerun viewer, without ROS"
    ),
    "fit": Command("training.study.fit:main", "fit a free field to single frames, to compare losses without a network"),
    "study": Command("training.study:main", "repeat the paper's comparisons on simulated towns, with tables"),
}

FROM_ROS = (
    "source a ROS 2 install (source /opt/ros/jazzy/setup.bash) or use the environment that `make demo` makes (.venv)"
)
FROM_PIP = "python3 -m pip install -r requirements.txt"
FROM_PATH = "take its folder off PYTHONPATH, or put that of this package before it"

# Import name -> what to do where it is missing. Any other name is a fault of this package: the traceback stays.
REMEDIES: dict[str, str] = {
    **dict.fromkeys(
        ("rclpy", "rcl_interfaces", "rosgraph_msgs", "sensor_msgs", "geometry_msgs", "nav_msgs", "visualization_msgs"),
        FROM_ROS,
    ),
    **dict.fromkeys(
        ("diagnostic_msgs", "std_msgs", "std_srvs", "lifecycle_msgs", "tf2_msgs", "builtin_interfaces"), FROM_ROS
    ),
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "numpy", "numba", "ruamel"), FROM_PIP),
    **dict.fromkeys(("cv2",), "python3 -m pip install opencv-python-headless"),
    **dict.fromkeys(
        ("rosbags", "lz4", "tqdm", "filelock", "trimesh", "embreex", "scipy", "triton"), "python3 -m pip install {name}"
    ),
    "rerun": "python3 -m pip install rerun-sdk",
    "backports": "python3 -m pip install backports.zstd",
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "python3 -m pip install -r requirements-export.txt"),
}


# The option that makes a command need less memory.
LESS: dict[str, str] = {
    **dict.fromkeys(("learn", "label", "prepare", "metrics"), "fewer --jobs"),
    "simulate": "fewer --jobs, or smaller images",
    "study": "fewer --jobs",
    "eval": "fewer --rays",
    "check": "fewer --jobs",
    "truth": "fewer --jobs, or a smaller --reach",
    "export": "a machine with more memory",
    "bench": "fewer --frames",
    "view": "fewer --seconds",
}


def usage() -> str:
    """The list of commands, as `renderocc --help` prints it."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: renderocc COMMAND [options]",
        "",
        "Semantic 3D occupancy from cameras, learned from 2D labels.",
        "",
    ]
    lines += [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    lines += ["", "`renderocc COMMAND --help` describes a command's options and shows an example."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments after the program's name; default: those of this process.
    Returns:
        The exit status: the subcommand's own, 2 for a command that does not exist or lacks a package, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return dispatch(arguments)
        finally:
            flush_output()
    except BrokenPipeError:  # `renderocc ... | head` has read enough
        forget_output()
        return 0


def dispatch(arguments: list[str]) -> int:
    """Run what the arguments name, as `main` does."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean `renderocc {nearest[0]}`?" if nearest else f"there are: {', '.join(COMMANDS)}"
        print(f"renderocc: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return run(name, rest)


def flush_output() -> None:
    """Find out now, and not when the interpreter ends, whether anybody still reads what was printed."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def forget_output() -> None:
    """What is still to be printed goes nowhere: the interpreter would report a traceback for it at its end."""
    with contextlib.suppress(OSError, ValueError):  # no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what is half done is cleared away as after Ctrl-C."""


def end_at_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does; commands that handle it themselves replace this handler later."""

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one ends it at once
        raise Terminated

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)


def run(name: str, arguments: list[str]) -> int:
    """Import the subcommand's module and call it; a missing package becomes one line."""
    module, _, function = COMMANDS[name].target.partition(":")
    end_at_sigterm()
    try:
        return int(getattr(importlib.import_module(module), function)(arguments) or 0)
    except ImportError as error:
        if words := out_of_machine(name, error):  # there was no memory to load a library
            print(f"renderocc {name}: {words}", file=sys.stderr)
            return 1
        missing = (error.name or "").partition(".")[0]
        if missing == "training" and (path := foreign_training()):
            print(f"renderocc {name}: the package `training` of {path} hides ours; {FROM_PATH}", file=sys.stderr)
            return 2
        if missing not in REMEDIES:
            raise
        remedy = REMEDIES[missing].format(name=missing)
        print(f"renderocc {name}: {missing} cannot be imported ({error}); {remedy}", file=sys.stderr)
        return 2
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        words = out_of_machine(name, error)
        if not words:
            raise
        print(f"renderocc {name}: {words}", file=sys.stderr)
        return 1


def foreign_training() -> str:
    """The folder of a package `training` that is not ours, where Python finds it first; else empty."""
    package = sys.modules.get("training")
    folders = [Path(folder).resolve() for folder in getattr(package, "__path__", ())]
    ours = Path(__file__).resolve().parent.parent / "training"
    return str(folders[0]) if folders and ours not in folders else ""


def out_of_machine(name: str, error: Exception) -> str:
    """One line for an error of disk or memory that the command itself did not handle; empty for any other error."""
    return machine_error(error, less=LESS.get(name, "a smaller input"))


if __name__ == "__main__":
    sys.exit(main())
