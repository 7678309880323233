"""The shape of the package: imports go one way, one version everywhere, nothing heavy or left over."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {"renderocc_model": set(), "training": {"renderocc_model"}, "renderocc_ros": {"renderocc_model"}}
PACKAGES = set(ALLOWED)
# The folders of each package from the bottom up: each imports only from those before it; modules beside them, from all.
FOLDERS = {
    "renderocc_model": "base geometry field images rosio ops network export inference bench".split(),
    "renderocc_ros": "health input frame output commands".split(),
    "training": "recordings simulate label data check supervision evaluate train learn study".split(),
}
ROS_MODULES = {
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "tf2_msgs",
    "nav_msgs",
    "visualization_msgs",
    "geometry_msgs",
    "rosbags",
}


def imported_modules(path: Path) -> set[str]:
    """Top-level names imported anywhere in a file, also inside functions; relative imports are the package's own."""
    names = set()
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names.add(statement.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_import_only_what_is_below_them(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        others = (imported_modules(path) & PACKAGES) - {package}
        assert others <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {others}"


def source_of(node: ast.ImportFrom, path: Path) -> str:
    """Full name of the module or package that a file's `from ... import` names."""
    folder = path.relative_to(ROOT).parent.parts
    above = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
    return ".".join(filter(None, (above, node.module)))


def imported_paths(path: Path) -> set[str]:
    """Full names of all that a file imports, and of modules named in strings, as 'package.module:function'."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = source_of(node, path)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"^((?:renderocc_model|renderocc_ros|training)(?:\.\w+)+)(?::\w+)?$", node.value))
    return names


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_folders_import_only_from_those_below_them(package):
    order = FOLDERS[package]
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert rooms == set(order), f"put {rooms ^ set(order)} in their place in FOLDERS"
    for number, room in enumerate(order):
        forbidden = tuple(f"{package}.{above}" for above in order[number + 1 :])
        for path in sorted((ROOT / package / room).rglob("*.py")):
            up = {
                name
                for name in imported_paths(path)
                if f"{name}.".startswith(tuple(f"{above}." for above in forbidden))
            }
            assert not up, f"{path.relative_to(ROOT)} imports {sorted(up)} from above"


def imports_between_modules(package: str) -> dict[str, set[str]]:
    """Each module of a package -> the modules of it that it imports, at once, later or for type checkers alone.

    `from .folder import module` imports that module; `from .folder import name` imports the folder's `__init__`.
    """
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    imports: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imports[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = source_of(node, path)
                names = (f"{source}.{alias.name}" for alias in node.names)
                imports[module] |= {name if name in paths else source for name in names}
    return {module: (others & set(paths)) - {module} for module, others in imports.items()}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_modules_import_each_other_in_a_circle(package):
    left = imports_between_modules(package)
    # A module that imports nothing that is left, or that nothing left imports, is in no circle.
    while free := {m for m, others in left.items() if not others} | (set(left) - set().union(*left.values())):
        left = {module: others - free for module, others in left.items() if module not in free}
    assert not left, f"in a circle, or between two: {left}"


def test_the_model_needs_no_ros_and_only_what_reads_recordings_needs_rosbags():
    for path in sorted((ROOT / "renderocc_model").rglob("*.py")):
        allowed = {"rosbags"} if path.name in ("bags.py", "bounds.py") else set()
        assert imported_modules(path) & ROS_MODULES <= allowed, path


def test_importing_the_model_package_loads_no_torch():
    code = "import sys, renderocc_model, renderocc_model.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_with_nothing_installed_the_model_imports_and_doctor_says_what_is_missing():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import renderocc_model;"
        "from renderocc_model import cli; sys.exit(cli.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)  # no site-packages
    assert done.returncode == 1 and not done.stderr
    for package in ("numpy", "ruamel.yaml", "cv2", "torch", "rclpy"):
        assert f"FAIL  {package}: cannot be imported" in done.stdout


def test_installing_brings_what_is_needed_without_a_network_and_the_rest_as_extras():
    script = "import setuptools; setuptools.setup = lambda **words: print(words); exec(open('setup.py').read())"
    shown = subprocess.run([sys.executable, "-c", f"__file__ = 'setup.py'; {script}"], cwd=ROOT, capture_output=True)
    words = ast.literal_eval(shown.stdout.decode())
    assert [Requirement(line).name for line in words["install_requires"]] == ["numpy", "ruamel.yaml"]
    assert {"torch", "timm", "rosbags"} <= {Requirement(line).name for line in words["extras_require"]["network"]}
    assert {"renderocc_model", "renderocc_ros", "training"} <= set(words["packages"])


def test_the_node_can_be_on_the_graph_before_torch_is_loaded():
    """Also: what prepare_process sets for torch's threads is set before they are made."""
    code = "import sys, renderocc_ros.node; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.system
def test_every_subcommand_exists_and_shows_an_example():
    from renderocc_model.cli import COMMANDS

    def shown(name: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "renderocc_model.cli", name, "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        pages = list(pool.map(shown, COMMANDS))
    for name, done in zip(COMMANDS, pages):
        assert done.returncode == 0, f"renderocc {name} --help: {done.stderr}"
        assert f"renderocc {name} " in done.stdout, f"renderocc {name} --help shows no example:\n{done.stdout}"


def test_one_version_and_one_licence_everywhere():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    setup = (ROOT / "setup.py").read_text()
    assert f'version="{manifest.findtext("version")}"' in setup
    assert manifest.findtext("license") == "Apache-2.0" and 'license="Apache-2.0"' in setup
    assert manifest.findtext("export/build_type") == "ament_python"


def test_every_ros_package_that_is_imported_is_declared():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in manifest if element.tag.endswith("depend")}
    used = set()
    for path in [*sorted((ROOT / "renderocc_ros").rglob("*.py")), *sorted((ROOT / "launch").glob("*.py"))]:
        used |= {
            name
            for name in imported_modules(path)
            if name.endswith("_msgs") or name in ("rclpy", "rcl_interfaces", "launch", "launch_ros", "cv_bridge")
        }
        used |= set(re.findall(r'package="(\w+)"', path.read_text()))  # what the launch file starts
    assert {"rcl_interfaces", "rviz2"} <= used - {"renderocc_ros"} <= declared


def test_launch_and_configuration_are_installed():
    setup = (ROOT / "setup.py").read_text()
    for folder in ("launch/*.launch.py", "config/*.yaml", "config/*.rviz", "config/*.json", "config/rigs/*.yaml"):
        assert f'glob("{folder}")' in setup
        assert list(ROOT.glob(folder)), f"nothing matches {folder}"


def test_every_configuration_file_loads():
    from renderocc_model.geometry.rig import Rig

    for path in sorted((ROOT / "config" / "rigs").glob("*.yaml")):
        assert len(Rig.load(path)) > 0
    assert yaml.safe_load((ROOT / "config" / "renderocc.rviz").read_text())["Visualization Manager"]["Displays"]
