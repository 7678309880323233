"""The `renderocc` command: what it lists, what it imports, and what it says where something is missing."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from renderocc_model import cli


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert name in text and command.help in text


def test_no_command_prints_the_list_and_fails(capsys):
    assert cli.main([]) == 2
    assert "usage: renderocc" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys):
    assert cli.main(["relpay"]) == 2
    assert "did you mean `renderocc replay`?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists_and_its_help_has_an_example(name, capsys):
    module, function = cli.COMMANDS[name].target.split(":")
    assert importlib.util.find_spec(module) is not None
    assert callable(getattr(importlib.import_module(module), function))
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text and f"renderocc {name}" in text


def test_listing_the_commands_imports_none_of_them():
    code = (
        "import sys; from renderocc_model import cli; cli.main(['--help']);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'rclpy', 'rosbags', 'training', 'renderocc_ros')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_a_missing_package_is_one_line_that_says_what_to_do(monkeypatch, capsys):
    def needs_rclpy(argv):
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setitem(cli.COMMANDS, "replay", cli.Command("renderocc_ros.commands.replay:main", ""))
    monkeypatch.setattr("renderocc_ros.commands.replay.main", needs_rclpy)
    assert cli.main(["replay", "bag"]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "rclpy" in text and "setup.bash" in text


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch):
    def broken(argv):
        raise ModuleNotFoundError("No module named 'renderocc_model.gird'", name="renderocc_model.gird")

    monkeypatch.setattr("renderocc_ros.commands.replay.main", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["replay", "bag"])


def test_another_package_of_the_name_training_is_named(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    code = (
        f"import sys; sys.path[:0] = {[str(tmp_path), str(Path(cli.__file__).parents[1])]};"
        "from renderocc_model import cli; sys.exit(cli.main(['check', 'bag']))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)  # no site-packages
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/training hides ours" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "renderocc_model.cli", "--help"],
        ["-m", "renderocc_model.cli", "simulate", "--help"],
        ["-m", "renderocc_model.cli", "nonsense"],
        ["-m", "renderocc_ros.start", "--help"],
    ],
)
def test_a_reader_that_closes_the_pipe_is_no_error(command):
    """As `renderocc --help | head -1`: the pipe has no reader before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run([sys.executable, *command], stdout=output, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr, done.stderr
    assert done.returncode == (2 if "nonsense" in command else 0)
