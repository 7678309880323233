"""Faults of files: what ~/save writes, and the checkpoint."""

from __future__ import annotations

import resource
import shutil
import time

from system import small_network, wait_for

from campaign.faults.fault import Fault, Injection, node_fault
from campaign.faults.processes import limited, unlimited
from campaign.stage import WHOLE_CYCLE

__all__ = ["FILE_FAULTS", "usual_folder"]

DEACTIVATE, CLEANUP, CONFIGURE, _ = WHOLE_CYCLE


def save_in_vain(injection: Injection) -> None:
    stage, before = injection.stage, set(injection.stage.saved.rglob("*"))
    answer = stage.save()
    if answer is None or answer.success or not answer.message:
        stage.add_broken(f"~/save with no room answered {answer and (answer.success, answer.message)}")
    left = [path.name for path in set(stage.saved.rglob("*")) - before if path.is_file()]
    if left:
        stage.add_broken(f"~/save said that nothing was saved but left {', '.join(sorted(left))}")


def full_disk(injection: Injection) -> None:
    """Let no file grow beyond a few KiB, as on a full disk."""
    limited(resource.RLIMIT_FSIZE, lambda pid: injection.random.choice((0, 100, 4096)))(injection)
    save_in_vain(injection)


def folder_is_a_file(injection: Injection) -> None:
    path = injection.stage.saved / "file"
    path.write_text("not a folder")
    injection.stage.set_parameter("save_directory", str(path / "below"))
    save_in_vain(injection)


def usual_folder(injection: Injection) -> None:
    injection.stage.set_parameter("save_directory", str(injection.stage.saved))
    (injection.stage.saved / "file").unlink(missing_ok=True)
    for path in injection.stage.saved.glob("*.*"):
        path.unlink()


OTHER_GRID, OTHER_CELLS = ("grid.lower=[-12, -12, -1]", "grid.upper=[12, 12, 4]"), 24 * 24


def checkpoint_becomes(bend):
    """Damage the checkpoint's file by `bend`, and configure the node again: it must refuse the file and say why."""

    def begin(injection: Injection) -> None:
        stage = injection.stage
        injection.state["good"] = stage.checkpoint.read_bytes()
        stage.change_state(DEACTIVATE)
        stage.change_state(CLEANUP)
        bend(injection, stage.checkpoint, injection.state["good"])
        if stage.change_state(CONFIGURE):
            stage.add_broken("a broken checkpoint was accepted")

    return begin


def gone(injection: Injection, path, good: bytes) -> None:
    path.unlink()


def cut_short(injection: Injection, path, good: bytes) -> None:
    path.write_bytes(good[: injection.random.randrange(0, len(good))])


def random_content(injection: Injection, path, good: bytes) -> None:
    path.write_bytes(injection.random.randbytes(len(good) // 4))


def header_of_terabytes(injection: Injection, path, good: bytes) -> None:
    path.write_bytes((2**43).to_bytes(8, "little") + good[8:])


def good_checkpoint(injection: Injection) -> None:
    path = injection.stage.checkpoint
    temporary = path.with_suffix(".new")
    temporary.write_bytes(injection.state["good"])
    temporary.replace(path)
    injection.stage.make_active()


def another_network(injection: Injection) -> None:
    """Replace the file by a network of another grid, and configure the node again."""
    stage = injection.stage
    other = small_network(stage.folder / f"other_{stage.domain}.safetensors", OTHER_GRID)
    injection.state["good"] = stage.checkpoint.read_bytes()
    shutil.copyfile(other, stage.checkpoint)
    since = time.monotonic()
    stage.cycle()
    outputs = stage.observer.outputs
    if not wait_for(lambda: any(o.at > since and o.cells == OTHER_CELLS for o in list(outputs)), 5.0):
        stage.add_broken(f"no ~/grid of {OTHER_CELLS} cells came from the network of another grid")


def first_network(injection: Injection) -> None:
    good_checkpoint(injection)
    injection.stage.cycle()


def replaced_while_running(injection: Injection) -> None:
    """Truncate the file, then perhaps delete it, while the node works with the network that it has loaded."""
    path = injection.stage.checkpoint
    injection.state["good"] = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(100)
    if injection.random.random() < 0.5:
        path.unlink()


def checkpoint(name: str, what: str, bend) -> Fault:
    return node_fault(
        name,
        "files",
        what,
        begin=checkpoint_becomes(bend),
        end=good_checkpoint,
        stops=True,
        alone=True,
        named="checkpoint|safetensors",
    )


FILE_FAULTS = (
    node_fault(
        "full disk",
        "files",
        "~/save while no file can become larger",
        begin=full_disk,
        end=unlimited(resource.RLIMIT_FSIZE),
    ),
    node_fault(
        "save folder is a file",
        "files",
        "~/save to a path that cannot be a folder",
        begin=folder_is_a_file,
        end=usual_folder,
    ),
    checkpoint("checkpoint deleted", "then the node is configured again", gone),
    checkpoint("checkpoint cut short", "at a random byte; then the node is configured again", cut_short),
    checkpoint("checkpoint of noise", "then the node is configured again", random_content),
    checkpoint("checkpoint of terabytes", "its header declares 8 TiB", header_of_terabytes),
    node_fault(
        "checkpoint changes while in use",
        "files",
        "truncated in place or deleted",
        begin=replaced_while_running,
        end=good_checkpoint,
        alone=True,
    ),
    node_fault(
        "checkpoint replaced",
        "files",
        "by a network of another grid; then the node is configured again",
        begin=another_network,
        end=first_network,
        alone=True,
        stops=True,
    ),
)
