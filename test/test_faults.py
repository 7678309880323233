"""The fault campaign: its plan, its judgements by hand-worked numbers, and seven faults injected into the real node."""

import contextlib
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from campaign.faults.__main__ import main
from campaign.faults.catalogue import FAULTS, Run, fault_named, plan
from campaign.faults.judge import Promises
from campaign.faults.lane import lane_runs, make_run
from campaign.faults.report import growth, mended, set_aside_broken, summary, table
from campaign.json_lines import read_lines
from campaign.recordings import load_scene, simulated_recording
from campaign.seen import columns, columns_perhaps_seen, composed, perhaps_seen, voxels_perhaps_seen
from campaign.stage import Stage
from nav_msgs.msg import MapMetaData
from sensor_msgs.msg import CameraInfo
from system import Program, new_domain, program_environment, small_network, wait_until

pytestmark = pytest.mark.system

FORWARD = (-0.5, 0.5, -0.5, 0.5)  # optical frame that looks along x: x right, y down, z forward

SIX = (
    "camera stops",
    "truncated message + K of zeros",
    "stamps of the future",
    "mount not finite",
    "random transitions",
    "checkpoint cut short",
)


def test_seven_faults_are_injected_and_every_promise_holds(town_bag, tmp_path):
    """As a user runs it. Times are judged generously here: a computer that runs tests may be busy."""
    out = tmp_path / "campaign"
    command = [sys.executable, "-m", "campaign.faults", "--out", out, "--only", ",".join(SIX)]
    command += ["--lanes", "1", "--seed", "3", "--bag", town_bag, "--domain", new_domain(), "--wall"]
    command += ["--report-within", "10", "--recover-within", "10"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=program_environment(), timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr + (out / "lane_0.log").read_text()
    records = read_lines(out / "results.jsonl")
    assert [record["broken"] for record in records] == [[]] * 6
    assert done.stdout.splitlines()[-1].endswith(str(out.resolve()))
    text = (out / "report.md").read_text()
    assert "7 faults of 7 kinds in 6 runs" in text and "| camera stops |" in text


def processes_that_name(text: str) -> list[str]:
    """Command lines of the running processes in which a text stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if text in line]


def test_a_campaign_that_is_stopped_while_the_node_loads_leaves_no_process(town_bag, tmp_path):
    out = tmp_path / "campaign"
    command = ["-m", "campaign.faults", "--out", out, "--lanes", "1", "--bag", town_bag, "--domain", new_domain()]
    program = Program(command, None)
    wait_until(lambda: [line for line in processes_that_name(str(out)) if "renderocc_ros.start" in line], 240, "a node")
    program.signal(signal.SIGTERM)
    assert program.wait(90) == 130, program.tail()
    assert processes_that_name(str(out)) == []


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("free", r"free: \d+ of ~/grid"),
        ("volume", r"free: \d+ voxels"),
        ("watchdog", "report: 'camera "),
        ("stamps", "stamps: "),
    ],
)
def test_a_node_that_lies_is_found_out(town_bag, tmp_path, monkeypatch, lie, found):
    """Each promise is broken on purpose in the node; what is outside must notice."""
    broken = broken_by_a_lie(town_bag, tmp_path, monkeypatch, lie, Run(0, ("camera stops",), 1, False))
    assert any(re.match(found, line) for line in broken), broken


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """The campaign's own recording: its vehicle moves as vehicles do, so that a map lasts longer than a frame."""
    return simulated_recording(tmp_path_factory.mktemp("street"))


@pytest.mark.parametrize(
    ("lie", "fault", "seed", "found"),
    [
        ("map free", "camera stops", 5, r"map: \d+ of ~/map/grid"),
        ("map jump", "odometry jumps", 2, r"map: \d+ of ~/map/grid"),
    ],
)
def test_a_node_whose_map_lies_is_found_out(street, tmp_path, monkeypatch, lie, fault, seed, found):
    broken = broken_by_a_lie(street, tmp_path, monkeypatch, lie, Run(0, (fault,), seed, False))
    assert any(re.match(found, line) for line in broken), broken


def broken_by_a_lie(bag, folder, monkeypatch, lie: str, run: Run) -> list[str]:
    """What is found wrong in one run of a node that lies."""
    monkeypatch.setenv("LIE", lie)
    network = small_network(folder / "network.safetensors")
    stage = Stage(folder, load_scene(bag), network, new_domain(), False, usual="lying_node")
    try:
        return make_run(stage, run, Promises(recovery=10.0))["broken"]
    finally:
        stage.close()


def test_a_plan_is_a_function_of_its_seed_and_has_every_fault():
    runs = plan(400, 7)
    assert runs == plan(400, 7) != plan(400, 8)
    alone = [run.faults[0] for run in runs if len(run.faults) == 1]
    assert set(alone) == set(FAULTS)
    most, least = (pick(alone.count(name) for name in FAULTS) for pick in (max, min))
    assert most - least <= 1, "equally often"
    assert {len(run.faults) for run in runs} == {1, 2, 3}


def test_a_run_of_the_report_can_be_made_again_by_its_name_and_seed():
    run = next(run for run in plan(50, 3) if len(run.faults) == 2)
    (again,) = plan(1, run.seed, (" + ".join(run.faults),))
    assert (again.faults, again.seed, again.simulated) == (run.faults, run.seed, run.simulated)


def test_what_an_interrupted_campaign_lacks_is_left_for_its_lanes():
    runs = plan(20, 0)
    left = lane_runs(runs, {0, 2, 4}, 0, 2)
    assert [run.simulated for run in left] == sorted(run.simulated for run in left)
    assert {run.index for run in left} == {6, 8, 10, 12, 14, 16, 18}


def test_combinations_never_hold_a_fault_that_must_be_alone():
    for run in plan(300, 1):
        assert len(run.faults) == 1 or not any(FAULTS[name].alone for name in run.faults)


def test_names_of_faults_can_be_given_on_the_command_line():
    assert not any("," in name or "+" in name for name in FAULTS)
    with pytest.raises(ValueError, match="did you mean 'camera stops'"):
        fault_named("camera stop")


def test_a_list_of_faults_needs_nothing_else(capsys):
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FAULTS)


def test_an_unknown_fault_ends_with_status_2_and_the_nearest_name(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--only", "K of zeroes"]) == 2
    assert "did you mean 'K of zeros'" in capsys.readouterr().err


def grid_of(cells: int) -> MapMetaData:
    """A square of cells of 1 m around the origin."""
    info = MapMetaData(resolution=1.0, width=cells, height=cells)
    info.origin.position.x = info.origin.position.y = -cells / 2
    return info


def ninety_degrees() -> CameraInfo:
    """x/z and y/z from -1 to 1: a focal length of half the width of 100 pixels."""
    info = CameraInfo(width=100, height=100, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [50.0, 0.0, 49.5, 0.0, 50.0, 49.5, 0.0, 0.0, 1.0]
    return info


def test_a_camera_can_have_seen_what_lies_in_its_pyramid_and_a_cell_more():
    seen = perhaps_seen(ninety_degrees(), (0.0, 0.0, 1.0), FORWARD, grid_of(20), 0.3, 2.0)  # [y, x]
    y, x = np.mgrid[-9.5:10, -9.5:10]
    assert seen[(x > 2) & (np.abs(y) < x)].all()
    # Half a cell beyond a cell's edge on each side and 2 x 5 % of x: |y| - 1 > 1.1 (x + 1) is seen by no means.
    assert not seen[(np.abs(y) - 1 > 1.1 * (x + 1)) & (x > -1)].any()
    assert not seen[x < -1.5].any(), "behind it"


def test_columns_of_a_map_are_judged_as_cells_are_from_wherever_the_vehicle_stood():
    """A vehicle at (30, -20) of odom that has turned left by 90 degrees: its camera looks along y."""
    s = math.sqrt(0.5)
    translation, quaternion = composed(((30.0, -20.0, 0.0), (0.0, 0.0, s, s)), ((1.0, 0.0, 1.0), FORWARD))
    assert np.allclose(translation, (30.0, -19.0, 1.0))
    info = grid_of(20)
    expected = perhaps_seen(ninety_degrees(), (1.0, 0.0, 1.0), FORWARD, info, 0.3, 2.0)  # [y, x] of the vehicle
    y, x = np.mgrid[-9.5:10, -9.5:10]
    places = np.column_stack([30.0 - y.ravel(), -20.0 + x.ravel()])
    found = columns_perhaps_seen(ninety_degrees(), translation, quaternion, columns(places, 1.0, 0.3, 2.0))
    assert (found == expected.ravel()).mean() > 0.995  # a point on a border may fall to either side


def test_a_cell_next_to_the_camera_but_above_its_pyramid_was_not_seen():
    """A camera that looks straight up: the band from 0.3 to 2 m and a voxel more lies behind it at 4 m height."""
    up = (0.0, 0.0, 0.0, 1.0)  # the optical frame's z is base_link's
    assert not perhaps_seen(ninety_degrees(), (0.0, 0.0, 4.0), up, grid_of(8), 0.3, 2.0).any()
    assert perhaps_seen(ninety_degrees(), (0.0, 0.0, 0.0), up, grid_of(8), 0.3, 2.0)[4, 4]


def test_a_voxel_can_have_been_seen_in_the_pyramid_and_half_a_voxel_around_it():
    seen = voxels_perhaps_seen(ninety_degrees(), (0.0, 0.0, 0.0), FORWARD, (-8, -8, -8), 1.0, (16, 16, 16))
    x, y, z = np.mgrid[-7.5:8, -7.5:8, -7.5:8]
    assert seen[(x > 1) & (np.abs(y) < x) & (np.abs(z) < x)].all()
    assert not seen[(x > -1) & (np.maximum(np.abs(y), np.abs(z)) - 1 > 1.1 * (x + 1))].any()
    assert not seen[x < -1.5].any(), "behind it"


def record(index: int, memory: float, **changes) -> dict:
    held = {"memory": memory, "threads": 19, "files": 23, "cpu": 1.0, "images": 0}
    return {
        "index": index,
        "faults": ["camera stops"],
        "seed": index,
        "simulated": False,
        "node": 1,
        "after": held,
        "report": [1.0 + index / 100],
        "recovery": 0.2,
        "exit": None,
        "broken": [],
        "grids": 10,
        "maps": 9,
        "moving": 50,
        "free_judged": True,
        "saved_judged": True,
        "attempt": 0,
        "load": 1.0,
        **changes,
    }


def test_memory_that_rises_with_every_run_is_a_leak_and_noise_is_not():
    leaking = [record(index, 800 + 0.5 * index) for index in range(40)]
    (life,) = growth(leaking)
    assert life["memory"]["per_run"] == pytest.approx(0.5) and len(life["broken"]) == 1
    noisy = [record(index, 800 + (index % 3)) for index in range(40)]
    assert growth(noisy)[0]["broken"] == []
    warm = [record(index, 800 + min(index, 15)) for index in range(40)]
    assert growth(warm)[0]["broken"] == [], "what the first runs load is no leak"


def test_the_table_has_median_and_worst_and_the_seed_to_repeat_a_failure():
    records = [record(0, 800.0), record(1, 800.0), record(2, 800.0, broken=["recovery: too late"])]
    text = table(summary(records))
    assert "| camera stops | sends nothing for a while, then continues | 3 + 0 | 1.01, 1.02 | 0.20, 0.20 |" in text
    assert "`--only 'camera stops' --seed 2`" in text


def test_a_line_that_was_cut_off_is_made_again(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"index": 0}) + "\n" + '{"index": 1, "fau')
    assert [entry["index"] for entry in read_lines(path)] == [0]


def test_broken_runs_are_made_again_and_what_was_mended_is_told(tmp_path):
    records = [record(0, 800.0), record(1, 800.0, broken=["recovery: too late"])]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in records))
    set_aside_broken(tmp_path)
    left, earlier = (read_lines(tmp_path / name) for name in ("results.jsonl", "earlier.jsonl"))
    assert [entry["index"] for entry in left] == [0] and mended(left, earlier) == []
    again = [*left, record(1, 800.0)]
    assert mended(again, earlier) == [{"only": "camera stops", "seed": 1, "broken": ["recovery: too late"]}]
    text = table({**summary(again), "mended": mended(again, earlier)})
    assert "- `--only 'camera stops' --seed 1`: recovery: too late" in text
