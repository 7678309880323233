"""The README says what is so: its parameter table, its commands, its Python lines."""

import os
import re
from pathlib import Path

from renderocc_model.base.config import settings_of
from renderocc_ros.parameters import RUNTIME_PARAMETERS, NodeConfig

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TABLE = re.compile(r"(<!-- parameters: [^>]* -->\n).*?(<!-- /parameters -->)", re.DOTALL)


def parameter_table() -> str:
    """The README's table of the node's parameters, from the dataclass."""
    lines = ["", "| parameter | default | what |", "|---|---|---|"]
    for setting in settings_of(NodeConfig):
        default = f"`{setting.default}`" if setting.default not in ("", ()) else "empty"
        if isinstance(setting.default, tuple) and setting.default:
            default = "`" + ", ".join(setting.default) + "`"
        elif isinstance(setting.default, bool):
            default = f"`{str(setting.default).lower()}`"
        choices = " (" + ", ".join(setting.choices) + ")" if setting.choices else ""
        live = "; can change while running" if setting.name in RUNTIME_PARAMETERS else ""
        lines.append(f"| `{setting.name}` | {default} | {setting.help}{choices}{live} |")
    return "\n".join(lines) + "\n\n"


def test_the_parameter_table_is_that_of_the_dataclass():
    """Run with RENDEROCC_UPDATE_README=1 to write it anew."""
    text = README.read_text()
    if os.environ.get("RENDEROCC_UPDATE_README"):
        README.write_text(TABLE.sub(lambda match: match[1] + parameter_table() + match[2], text))
        text = README.read_text()
    assert TABLE.search(text)[0].split("-->\n", 1)[1].rsplit("<!--", 1)[0] == parameter_table()


def test_the_commands_in_the_readme_exist():
    from renderocc_model.cli import COMMANDS

    named = set(re.findall(r"\| `renderocc ([\w-]+)", README.read_text()))
    assert named <= set(COMMANDS)
    assert set(COMMANDS) <= named, "a command is missing from the README's table"


def test_the_readme_names_only_files_that_exist():
    for name in re.findall(
        r"`?((?:config|docs|launch|renderocc_ros|training)/[\w./-]+\.(?:yaml|png|jpg|md|py|rviz))", README.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_python_lines_of_the_readme_run(monkeypatch, tmp_path):
    import numpy as np

    from renderocc_model.field.classes import OCC3D_NUSCENES
    from renderocc_model.geometry.rig import Rig
    from renderocc_model.network import packaged
    from renderocc_model.network.checkpoint import save_checkpoint
    from renderocc_model.network.presets import preset
    from renderocc_model.network.untrained import untrained_checkpoint

    if packaged.packaged_checkpoint("tiny") is None:  # a source tree without the weights: any will do
        network = untrained_checkpoint(preset("tiny"), OCC3D_NUSCENES).network
        save_checkpoint(tmp_path / "tiny.safetensors", network, OCC3D_NUSCENES, 0.5)
        monkeypatch.setattr(packaged, "FOLDER", tmp_path)

    block = re.search(r"The network is an ordinary Python object.*:\n\n((?:    .*\n)+)", README.read_text())[1]
    lines = [line[4:] for line in block.splitlines()]
    rig = Rig.load(ROOT / "config" / "rigs" / "town_6cam.yaml")
    images = {camera.name: np.zeros((camera.model.height, camera.model.width, 3), np.uint8) for camera in rig}
    scope = {"images": images}
    previous = os.getcwd()
    os.chdir(ROOT)
    try:
        exec("\n".join(lines), scope)
    finally:
        os.chdir(previous)
    assert scope["occupancy"].semantics.shape == (100, 100, 16)
