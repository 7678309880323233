"""Many recordings with one command: found, shared out over processes or Ray, each worked on once, failures named."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_bag import Plan, write_bag

from renderocc_model.cli import main as renderocc
from training.data.prepare import main as prepare
from training.recordings.many import lease as lease_module
from training.recordings.many.find import find_recordings, label_bags
from training.recordings.many.lease import WorkedOnElsewhere, lease
from training.recordings.many.share import conclude, share_out
from training.recordings.many.task import DONE, FAILED, Task, Workers

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[1]
MANY = int(os.environ.get("RENDEROCC_MANY_BAGS", "6"))  # 200 was run once, see docs/preparing.md


def recording(path: Path, *files: str) -> Path:
    """A folder that looks like a recording."""
    path.mkdir(parents=True)
    for name in files or ("metadata.yaml", f"{path.name}_0.mcap"):
        (path / name).touch()
    return path


@pytest.fixture
def drives(tmp_path, monkeypatch):
    """drives/{a, b, b_labels, .c.partial, old/d, notes.txt}, seen from the folder that holds it."""
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a", "old/d", ".c.partial"):
        recording(Path("drives") / name)
    recording(Path("drives/b_labels"), "metadata.yaml", "labels.yaml", "b_labels.mcap")
    Path("drives/notes.txt").touch()
    return Path("drives")


# ------------------------------------------------------------------------------------------------- finding recordings


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["drives"], ["a", "b", "old/d"]),
        (["drives/b"], ["b"]),
        (["drives/old", "drives/a"], ["old/d", "a"]),  # in the order of the words
        (["drives/**"], ["a", "b", "old/d"]),
        (["drives/[ab]"], ["a", "b"]),
        (["drives/old/*/*.mcap", "drives/a"], ["a"]),  # a file of a recording is no recording
        (["drives/b", "drives/b_labels", "drives/a"], ["b", "a"]),  # as the shell writes drives/*
        (["drives/b_labels"], ["b_labels"]),
        (["drives/nowhere"], ["nowhere"]),  # the command names it
        (["drives/notes.txt"], ["notes.txt"]),
    ],
)
def test_words_name_recordings_folders_of_them_and_globs(drives, words, found):
    if words[0].startswith("drives/old/*/"):
        with pytest.raises(ValueError, match=r"drives/old/\*/\*.mcap: matches no recording"):
            find_recordings(words)
        words = words[1:]
    assert find_recordings(words) == [drives / name for name in found]


def test_a_list_names_one_recording_a_line_with_comments(drives):
    Path("list.txt").write_text("# Monday\ndrives/b  # rain\n\n   drives/old\ndrives/[a]\n")
    assert find_recordings(["@list.txt"]) == [drives / "b", drives / "old/d", drives / "a"]


def test_a_list_of_thousands_is_read_and_a_bare_file_is_a_recording(drives):
    Path("many").mkdir()
    for number in range(3000):
        Path(f"many/{number:04}.mcap").touch()
    Path("list.txt").write_text("\n".join(f"many/{number:04}.mcap" for number in range(3000)))
    assert len(find_recordings(["@list.txt"])) == 3000
    assert len(find_recordings(["many/*.mcap"])) == 3000


def test_a_link_to_a_folder_above_does_not_lead_around_for_ever(drives):
    (drives / "old" / "up").symlink_to(drives.resolve())
    assert find_recordings(["drives"]) == [drives / "a", drives / "b", drives / "old/d"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "drives/a\ndrives/x\n",
            r"list.txt: names recordings that do not exist: drives/x \(line 2\); correct the list",
        ),
        ("drives/z*\n", "list.txt, line 1: drives/z.*: matches no recording"),
        ("# nothing\n", "@list.txt: names no recording"),
        (None, "list.txt: the list of recordings cannot be read: .*No such file"),
        (b"\xff\xfe", "list.txt: the list of recordings cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_its_line(drives, content, said):
    if content is not None:
        Path("list.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=said):
        find_recordings(["@list.txt"])


def test_the_same_recording_twice_is_refused_also_by_a_link_and_by_its_file(drives):
    Path("today").symlink_to("drives/b")
    with pytest.raises(ValueError, match="the same recording twice: drives/b and today are both /.*/drives/b; name it"):
        find_recordings(["drives", "today"])
    with pytest.raises(ValueError, match="the same recording twice: drives/a and drives/../drives/a are both"):
        find_recordings(["drives/a", "drives/../drives/a"])
    with pytest.raises(ValueError, match="the same recording twice: drives/a and drives/a/a_0.mcap"):
        find_recordings(["drives/a", "drives/a/a_0.mcap"])


def test_label_bags_are_given_one_by_one_or_as_a_folder_of_them(drives):
    a, b = drives / "a", drives / "b"
    labels = Path("labels")
    recording(labels / "a_labels"), recording(labels / "b_labels")
    assert label_bags([a, b], []) == [None, None]
    assert label_bags([a, b], [labels]) == [labels / "a_labels", labels / "b_labels"]
    assert label_bags([b], [labels / "b_labels"]) == [labels / "b_labels"]
    with pytest.raises(ValueError, match="--labels labels: holds no d_labels; make them with `renderocc label --out`"):
        label_bags([a, drives / "old/d"], [labels])
    with pytest.raises(ValueError, match="--labels names 1 sidecars for 2 recordings"):
        label_bags([a, b], [labels / "b_labels"])


# --------------------------------------------------------------------------------------------- sharing out, in general


def work(name: str, out: Path) -> str:
    """What `share_out` shares out here."""
    print(f"working on {name}")
    if name == "bad":
        raise ValueError("bad: it is damaged")
    if name == "odd":
        raise KeyError("odd")
    until = time.monotonic() + 20
    while name == "deadly" and not (out / "killed").exists() and time.monotonic() < until:
        time.sleep(0.01)  # the pool ends all its processes with this one: "killed" has its first try before
    if name == "deadly" or (name == "killed" and not (out / "killed").exists()):
        (out / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (out / "done").open("a") as done:
        done.write(f"{name}\n")
    return name.upper()


def tasks_of(names: list[str], out: Path) -> list[Task]:
    return [Task(Path(name), (name, out)) for name in names]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_that_fails_stops_no_other_and_the_summary_names_it(tmp_path, capsys, jobs):
    names = ["one", "bad", "two", "odd", "three"]
    outcomes = share_out(work, tasks_of(names, tmp_path), Workers(jobs))
    assert [outcome.state for outcome in outcomes] == [DONE, FAILED, DONE, FAILED, DONE]
    assert [outcome.result for outcome in outcomes] == ["ONE", None, "TWO", None, "THREE"]
    assert "Traceback" in outcomes[3].warned and "Traceback" not in outcomes[1].warned
    assert sorted((tmp_path / "done").read_text().split()) == ["one", "three", "two"]
    capsys.readouterr()
    assert conclude("label", outcomes, "labelled") == 2
    said = capsys.readouterr()
    assert said.out == "labelled 3 of 5 recordings\n"
    assert said.err == "renderocc label: bad: it is damaged\nrenderocc label: odd: KeyError: 'odd'\n"


def test_an_unexpected_error_of_a_single_recording_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError):
        share_out(work, tasks_of(["odd"], tmp_path), Workers(2))


@pytest.mark.slow
def test_the_work_of_a_process_that_is_killed_is_done_again_and_one_that_kills_each_is_named(tmp_path):
    names = ["one", "killed", "two", "deadly", "three", "four"]
    outcomes = share_out(work, tasks_of(names, tmp_path), Workers(2))
    assert [outcome.state for outcome in outcomes] == [DONE, DONE, DONE, FAILED, DONE, DONE]
    assert "deadly: the process that worked on it died" in outcomes[3].error
    assert {*names} - {"deadly"} == {*(tmp_path / "done").read_text().split()}
    assert outcomes[1].printed == "working on killed\n"


# ------------------------------------------------------------------------------------------------------------- leases

HOLDER = """
import os, sys
from pathlib import Path
from training.recordings.many import lease
lease._DURATION_S = 1.5
with lease.lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    os._exit(0)  # as if it was killed: the file stays
"""


def holder(file: Path) -> subprocess.Popen:
    """A process that holds a lease, and dies with it after a line on its stdin."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], cwd=ROOT, text=True, **pipes)
    assert started.stdout.readline() == "held\n"
    return started


def test_a_lease_is_held_by_one_and_taken_over_at_once_from_one_that_died_here(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "_DURATION_S", 1.5)
    file = tmp_path / "held.lease"
    other = holder(file)
    for patient in (False, True):  # it lives: its file changes
        with pytest.raises(WorkedOnElsewhere, match=f"held.lease: held by process {other.pid} on "):
            with lease(file, patient):
                pytest.fail("two hold it")
    other.communicate("\n")
    assert file.exists()
    with lease(file):
        assert f"pid={os.getpid()}\n" in file.read_text()
    assert not file.exists()


def test_a_lease_from_a_machine_that_died_is_taken_over_by_the_patient_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "_DURATION_S", 1.5)
    file = tmp_path / "held.lease"
    holder(file).communicate("\n")
    file.write_text(re.sub("^host=.*$", "host=faraway", file.read_text(), flags=re.M))
    with pytest.raises(WorkedOnElsewhere, match="on faraway"), lease(file):
        pytest.fail("it may live")
    start = time.monotonic()
    with lease(file, patient=True):
        assert time.monotonic() - start >= 1.4


# ------------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """MANY small recordings in a folder, each different."""
    folder = tmp_path_factory.mktemp("many") / "drives"
    kinds = [write_bag(folder.parent / f"kind{frames}", Plan(frames=frames)) for frames in (2, 3, 4)]
    for number in range(MANY):
        shutil.copytree(kinds[number % 3], folder / f"drive_{number:03}")
    broken = folder / "drive_001"
    file = next(broken.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[:-2000])
    return folder


@pytest.fixture(scope="module")
def alone(bags):
    """The tables of the recordings, prepared in this process."""
    out = bags.parent / "alone"
    assert prepare([str(bags), "--out", str(out), "--jobs", "1"]) == 2  # one is broken
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_a_worker(out: Path, killed: list[int], over: threading.Event) -> None:
    """Kill the process that the first lease names."""
    while not over.is_set() and not killed:
        for file in out.glob(".*.lease"):
            try:
                pid = int(re.search(r"^pid=(\d+)$", file.read_text(), re.M)[1])
                os.kill(pid, signal.SIGKILL)
            except (OSError, TypeError):  # it is done already
                continue
            killed.append(pid)
            break
        time.sleep(0.001)


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["processes", "ray"])
def test_workers_give_the_same_bytes_name_the_broken_one_and_do_a_killed_ones_work_again(
    bags, alone, tmp_path, workers
):
    if workers == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")
    out, killed, over = tmp_path / "tables", [], threading.Event()
    watch = threading.Thread(target=kill_a_worker, args=(out, killed, over))
    watch.start()
    command = [sys.executable, "-m", "renderocc_model.cli", "prepare", str(bags), "--out", str(out), "--jobs", "2"]
    start = os.times()
    done = subprocess.run(
        [*command, *(["--ray", "local"] if workers == "ray" else [])], cwd=ROOT, capture_output=True, text=True
    )
    over.set()
    watch.join()
    print(f"{MANY} recordings, {workers}: {os.times().elapsed - start.elapsed:.0f} s")
    assert killed, done.stderr
    assert done.returncode == 2, done.stderr
    assert f"prepared {MANY - 1} of {MANY} recordings" in done.stdout
    named = [line for line in done.stderr.splitlines() if line.startswith("renderocc prepare: ")]
    assert len(named) == 1 and "drive_001" in named[0] and "the file is cut off" in named[0]
    assert contents(out) == alone


def test_what_is_worked_on_elsewhere_is_left_alone_and_the_status_says_so(bags, alone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease_module, "_DURATION_S", 1.5)
    out = tmp_path / "tables"
    other = holder(out / ".drive_002.lease")
    words = [str(bags / "drive_000"), str(bags / "drive_002"), "--out", str(out), "--jobs", "1"]
    assert prepare(words) == 3
    said = capsys.readouterr()
    assert "prepared 1 of 2 recordings" in said.out
    assert re.search(f"drive_002: another process is working on it .*process {other.pid} on .*; left alone", said.err)
    assert not (out / "drive_002").exists()
    other.communicate("\n")
    assert prepare(words) == 0  # its work is taken over, and the other one is not prepared again
    assert contents(out) == {name: data for name, data in alone.items() if re.match("drive_00[02]|directions", name)}


@pytest.mark.slow
def test_labels_and_checks_of_several_recordings(bags, tmp_path, capsys):
    given = [str(bags / f"drive_00{number}") for number in (0, 1, 2)]
    topics = ["--depth-topic", "/{camera}/depth", "--semantic-topic", "/{camera}/semantic"]
    label = ["label", *given, *topics, "--out", str(tmp_path / "labels"), "--jobs", "1"]
    assert renderocc([*label, "--preview", str(tmp_path / "look")]) == 2
    said = capsys.readouterr()
    assert "labelled 2 of 3 recordings" in said.out
    assert said.err.splitlines()[-1].startswith("renderocc label: ") and "drive_001" in said.err.splitlines()[-1]
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"drive_000_labels", "drive_002_labels"}
    assert {path.name for path in (tmp_path / "look").iterdir()} == {"drive_000", "drive_002"}
    before = contents(tmp_path / "labels")
    assert renderocc(label) == 2
    assert f"{tmp_path / 'labels' / 'drive_000_labels'} is complete already" in capsys.readouterr().out
    assert contents(tmp_path / "labels") == before
    assert renderocc(["check", *given, "--samples", "1", "--jobs", "1"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"{given[1]}: cannot be read",
        "2 of 3 recordings have no fault that would make training fail",
    ]
    sound = [given[0], given[2]]
    labels = ["--labels", str(tmp_path / "labels")]
    assert renderocc(["prepare", *sound, *labels, "--out", str(tmp_path / "tables"), "--jobs", "1"]) == 0


@pytest.mark.slow
def test_truth_of_several_recordings_goes_beside_each(town_bag, tmp_path, capsys):
    for name in ("one", "two"):
        shutil.copytree(town_bag, tmp_path / name, ignore=shutil.ignore_patterns("occupancy"))
    words = ["truth", str(tmp_path / "one"), str(tmp_path / "two"), "--rate", "0.2", "--reach", "5", "--jobs", "1"]
    assert renderocc(words) == 0
    one, two = (contents(tmp_path / name / "occupancy") for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) >= 2
    assert "made the truth of 2 of 2 recordings" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "label", "truth", "prepare"])
def test_every_command_refuses_a_list_that_names_a_missing_recording(drives, capsys, command):
    Path("list.txt").write_text("drives/a\ndrives/x\n")
    assert renderocc([command, "@list.txt", *(["--out", "out"] if command != "check" else [])]) == 2
    said = "list.txt: names recordings that do not exist: drives/x (line 2); correct the list"
    assert f"renderocc {command}: {said}" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["label", "truth", "prepare"])
def test_recordings_of_one_name_are_not_written_to_one_folder(drives, capsys, command):
    recording(Path("drives/old/a"))
    assert renderocc([command, "drives", "--out", "out"]) == 2
    said = "several recordings are called a: drives/a and drives/old/a would be written to out/a"
    assert said in capsys.readouterr().err


def test_a_missing_ray_and_an_address_that_nothing_listens_at_are_named(drives, capsys, monkeypatch):
    words = ["prepare", "drives", "--out", "out", "--ray"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ray", None)
        assert renderocc([*words, "local"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("renderocc prepare: --ray needs Ray (")
        assert said.endswith("; python3 -m pip install -r requirements-ray.txt\n") and said.count("\n") == 1
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")
    for address, why in (
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "refused"),
        ("x", "expected HOST:PORT"),
    ):
        assert renderocc([*words, address]) == 2
        said = capsys.readouterr().err
        assert f"renderocc prepare: --ray {address}: no Ray cluster can be reached there: " in said
        assert why in said and "ray start --head" in said
