"""`renderocc doctor`: what of this machine, a recording, a checkpoint and a parameter file fits together.

The checks of the machine are here; those of a recording in `bag`, of checkpoint and parameters in
`files`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.findings import Findings

__all__ = ["check_machine", "examine", "main"]

# Import name -> what to install; without any of these the node does not start.
_PYTHON_PACKAGES = {
    "numpy": "numpy",
    "ruamel.yaml": "ruamel.yaml",
    "cv2": "opencv-python-headless",
    "safetensors": "safetensors",
    "timm": "timm",
}
_MESSAGE_PACKAGES = (
    "builtin_interfaces",
    "std_msgs",
    "std_srvs",
    "geometry_msgs",
    "sensor_msgs",
    "nav_msgs",
    "visualization_msgs",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rosgraph_msgs",
    "tf2_msgs",
)
_SOURCE = (
    "source a ROS 2 install (source /opt/ros/jazzy/setup.bash), or use the environment that `make demo` makes (.venv)"
)
_DISCOVERY_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_MEMORY_WANTED, _DISK_WANTED, _SHARED_WANTED = 2 << 30, 1 << 30, 64 << 20


def examine(
    bag: Path | None = None,
    checkpoint: Path | None = None,
    params: Path | None = None,
    seconds: float = 60.0,
    options: argparse.Namespace | None = None,
    gpu: bool = False,
) -> Findings:
    """Run the checks.

    Args:
        bag: a rosbag2 recording the node is meant to run on.
        checkpoint: the network it is meant to use; default: the one that `params` names, else the package's own.
        params: a ROS parameter file for the node.
        options: options of the command that describe the vehicle and count before `params`.
        seconds: how much of the recording, from its start, is looked at message by message.
        gpu: compare the kernels of the GPU with their references.
    """
    findings = Findings()
    check_machine(findings)
    if any(item.level == "FAIL" and item.subject in ("numpy", "ruamel.yaml", "cv2") for item in findings.items):
        return findings  # without these nothing can be read
    if gpu:
        from renderocc_ros.commands.doctor.gpu import check_gpu

        check_gpu(findings)
    from renderocc_ros.commands.doctor.bag import check_bag
    from renderocc_ros.commands.doctor.files import check_checkpoint, check_params, check_rig

    config = check_params(findings, params)
    if options is not None and _can_describe():
        from renderocc_model.rosio.vehicle_options import with_options

        try:
            config = with_options(config, options)
        except ValueError as error:
            findings.fail("options", str(error))
    trained_rig = check_checkpoint(findings, checkpoint, config)
    if bag is not None:
        check_rig(findings, trained_rig, check_bag(findings, bag, config, seconds))
    return findings


def check_machine(findings: Findings) -> None:
    """Python, its packages, the GPU, ROS and how nodes find each other, memory and disk."""
    version = ".".join(map(str, sys.version_info[:3]))
    findings.ok("python", f"{version} at {sys.executable}")
    for name, package in _PYTHON_PACKAGES.items():
        module = _import(findings, name, f"python3 -m pip install {package}")
        if module is not None:
            findings.ok(name, str(getattr(module, "__version__", "installed")))
    _check_torch(findings)
    _check_ros(findings)
    _check_network(findings)
    _check_cv_bridge(findings)
    _check_room(findings)


def _import(findings: Findings, name: str, remedy: str):
    """The module; None, after a finding that says why, if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a binary that does not fit raises anything: OSError, AttributeError, RuntimeError
        text = " ".join(str(error).split())[:200]
        findings.fail(name, f"cannot be imported ({type(error).__name__}: {text})", remedy)
        return None


def _check_torch(findings: Findings) -> None:
    torch = _import(findings, "torch", "python3 -m pip install torch torchvision")
    if torch is None:
        return
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        findings.ok(
            "torch", f"{torch.__version__}, {built}; no GPU is usable here, the node runs on {os.cpu_count()} CPU cores"
        )
        if shutil.which("nvidia-smi"):
            findings.warn(
                "cuda", "nvidia-smi is here but torch sees no GPU", "check the driver, or install a CUDA build of torch"
            )
        return
    device = torch.cuda.get_device_properties(0)
    findings.ok("torch", f"{torch.__version__}, {device.name} with {device.total_memory / 2**30:.0f} GiB")
    try:
        torch.ones(8, device="cuda").sum().item()
    except RuntimeError as error:
        text = " ".join(str(error).split())[:160]
        findings.fail(
            "cuda",
            f"the GPU cannot be used ({text})",
            "install a torch built for this GPU, or set the parameter device: cpu",
        )


def _check_ros(findings: Findings) -> None:
    rclpy = _import(findings, "rclpy", _SOURCE)
    if rclpy is None:
        return
    try:
        middleware = rclpy.get_rmw_implementation_identifier()
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        findings.fail(
            "rmw", f"no middleware can be loaded ({text})", "unset RMW_IMPLEMENTATION, or install the one it names"
        )
    else:
        findings.ok("ros", f"{os.environ.get('ROS_DISTRO') or 'from PyPI'}, {middleware}")
    missing = []
    for name in _MESSAGE_PACKAGES:
        try:
            importlib.import_module(f"{name}.msg" if name != "std_srvs" else "std_srvs.srv")
        except Exception:
            missing.append(name)
    if missing:
        packages = " ".join(f"ros-$ROS_DISTRO-{name.replace('_', '-')}" for name in missing)
        findings.fail(
            "messages", f"{', '.join(missing)} cannot be imported", f"sudo apt install {packages}, or {_SOURCE}"
        )
    else:
        findings.ok("messages", f"{len(_MESSAGE_PACKAGES)} packages")


def _check_network(findings: Findings) -> None:
    """How nodes of this shell discover others: settings that keep two terminals from seeing each other."""
    domain = os.environ.get("ROS_DOMAIN_ID", "")
    if domain and not (domain.isdigit() and 0 <= int(domain) <= 232):
        findings.fail("ROS_DOMAIN_ID", f"is {domain!r}", "export a number from 0 to 101")
    elif domain and int(domain) > 101:
        findings.warn(
            "ROS_DOMAIN_ID", f"is {domain}: above 101 its ports overlap those that Linux hands out", "use 0 to 101"
        )
    else:
        findings.ok("ROS_DOMAIN_ID", f"{domain or '0 (not set)'}; nodes with another one are not seen")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if reach and reach not in _DISCOVERY_RANGES:
        findings.warn(
            "ROS_AUTOMATIC_DISCOVERY_RANGE",
            f"is {reach!r}, which ROS ignores",
            f"use one of {', '.join(_DISCOVERY_RANGES)}",
        )
    elif reach == "OFF":
        findings.warn("ROS_AUTOMATIC_DISCOVERY_RANGE", "is OFF: no node finds another", "set LOCALHOST or SUBNET")
    elif reach == "LOCALHOST" or os.environ.get("ROS_LOCALHOST_ONLY") == "1":
        findings.ok("discovery", "this machine only: cameras and RViz on other machines are not seen")


def _check_cv_bridge(findings: Findings) -> None:
    """cv_bridge built for NumPy 1 may take the process down under NumPy 2: tried in a process of its own.

    It can be imported even then, and hides why it does not work until it is used.
    """
    if importlib.util.find_spec("cv_bridge") is None:
        return
    command = [sys.executable, "-c", "import cv_bridge; cv_bridge.CvBridge().encoding_to_cvtype2('bgr8')"]
    try:
        works = subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        works = False
    if works:
        findings.ok("cv_bridge", "works with this NumPy")
    else:
        text = (
            "does not work with this NumPy; the node does without it, except for image encodings outside its own table"
        )
        findings.warn("cv_bridge", text, "python3 -m pip install 'numpy<2' if you need them")


def _check_room(findings: Findings) -> None:
    available = _available_memory()
    if available is not None and available < _MEMORY_WANTED:
        findings.warn(
            "memory", f"{available / 2**30:.1f} GiB available", "close other programs; the node wants about 2 GiB"
        )
    elif available is not None:
        findings.ok("memory", f"{available / 2**30:.1f} GiB available")
    home = Path.home() if Path.home().exists() else Path("/")
    free = shutil.disk_usage(home).free
    if free < _DISK_WANTED:
        findings.warn("disk", f"{free / 2**30:.2f} GiB free at {home}", "logs and ~/save go there: make room")
    else:
        findings.ok("disk", f"{free / 2**30:.0f} GiB free at {home}")
    shared = Path("/dev/shm")
    if shared.exists() and shutil.disk_usage(shared).free < _SHARED_WANTED:
        text = f"{shutil.disk_usage(shared).free / 2**20:.0f} MiB free in /dev/shm: images between processes may stall"
        findings.warn("shared memory", text, "start the container with --shm-size=1g or --ipc=host")


def _available_memory() -> int | None:
    """Bytes that a new process can have; None if the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc doctor",
        description="Say what of machine, ROS, recording, checkpoint and parameters fits together; one line each.",
        epilog="example: renderocc doctor --bag recordings/drive_01 --params vehicle.yaml",
    )
    made.add_argument("--bag", type=Path, help="recording that the node is to run on")
    made.add_argument("--checkpoint", type=Path, help="network that the node is to use")
    made.add_argument(
        "--seconds", type=float, default=60.0, help="check the first SECONDS of the recording (default 60)"
    )
    made.add_argument(
        "--gpu", action="store_true", help="compare the kernels of the GPU, CUDA graph and nvJPEG with their references"
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of lines")
    if _can_describe():
        from renderocc_model.rosio.vehicle_options import add_vehicle_options

        add_vehicle_options(made)
    else:
        made.add_argument("--params", type=Path, help="ROS parameter file of the node")
    return made


def _can_describe() -> bool:
    """Whether the packages are there that the vehicle's description needs; the doctor runs without them, too."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "ruamel", "cv2"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `renderocc doctor`. Exit status: 0 if the node can run, 1 if it cannot."""
    arguments = parser().parse_args(argv)
    findings = examine(
        arguments.bag, arguments.checkpoint, arguments.params, arguments.seconds, arguments, arguments.gpu
    )
    if arguments.json:
        print(json.dumps(findings.as_dict(), indent=2))
    else:
        for item in findings.items:
            print(item.line())
        failures = sum(item.level == "FAIL" for item in findings.items)
        warnings = sum(item.level == "warn" for item in findings.items)
        verdict = "the node could run" if findings.could_run else "the node could not run"
        print(f"{verdict}: {failures} failures, {warnings} warnings")
    return 0 if findings.could_run else 1
