"""Settings of a process, files of the folder `config`, and how a process ends."""

import os
import platform
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from renderocc_ros.process import PROFILE_VARIABLES, config_file, prepare_process

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def untouched(monkeypatch):
    """An environment in which neither the user nor this test run has set anything."""
    for variable in (*PROFILE_VARIABLES, "OMP_WAIT_POLICY", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


# ---- files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fastdds.xml", "renderocc.yaml", "renderocc.rviz"])
def test_a_file_is_found_in_the_source_tree(untouched, name):
    assert config_file(name) == ROOT / "config" / name


def installed(prefix: Path, name: str = "only_there.yaml") -> Path:
    path = prefix / "share" / "renderocc_ros" / "config" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    return path


def test_a_file_is_found_in_a_ros_install(untouched, tmp_path):
    path = installed(tmp_path / "workspace")
    prefixes = [str(tmp_path / "underlay"), "", str(tmp_path / "workspace")]  # colon-ended lists hold empty entries
    untouched.setenv("AMENT_PREFIX_PATH", os.pathsep.join(prefixes))
    assert config_file("only_there.yaml") == path


def test_the_first_ros_install_that_has_it_wins_and_the_source_tree_before_all(untouched, tmp_path):
    first, second = (installed(tmp_path / name) for name in ("overlay", "underlay"))
    installed(tmp_path / "third", "fastdds.xml")
    prefixes = [str(tmp_path / name) for name in ("overlay", "underlay", "third")]
    untouched.setenv("AMENT_PREFIX_PATH", os.pathsep.join(prefixes))
    assert config_file("only_there.yaml") == first
    assert config_file("fastdds.xml") == ROOT / "config" / "fastdds.xml"
    first.unlink()
    assert config_file("only_there.yaml") == second


def test_a_file_is_found_in_a_python_environment(untouched, tmp_path):
    path = installed(tmp_path)
    untouched.setattr(sys, "prefix", str(tmp_path))
    assert config_file("only_there.yaml") == path


def test_a_file_that_is_nowhere_is_named_with_the_places_looked_at(untouched, tmp_path):
    untouched.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    expected = rf"config/lost.yaml .*{tmp_path}/share/renderocc_ros.*install it again"
    with pytest.raises(FileNotFoundError, match=expected):
        config_file("lost.yaml")


# ---- settings ---------------------------------------------------------------------------


def test_what_nobody_has_set_is_set_to_files_that_exist(untouched):
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert {os.environ[variable] for variable in PROFILE_VARIABLES} == {str(ROOT / "config" / "fastdds.xml")}


@pytest.mark.parametrize("variable", PROFILE_VARIABLES)
def test_a_profile_of_the_user_stays_and_is_not_joined_by_another(untouched, variable):
    """Fast DDS 2 reads one of the two variables, Fast DDS 3 the other: both must not name different files."""
    untouched.setenv(variable, "/home/user/fast.xml")
    prepare_process()
    assert [os.environ.get(name) for name in PROFILE_VARIABLES if name != variable] == [None]
    assert os.environ[variable] == "/home/user/fast.xml"


def test_a_wait_policy_of_the_user_stays(untouched):
    untouched.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


# ---- Fast DDS ---------------------------------------------------------------------------

NAMESPACE = {"dds": "http://www.eprosima.com"}


def test_the_fast_dds_profile_is_well_formed_and_uses_the_transports_that_it_describes():
    profiles = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot().find("dds:profiles", NAMESPACE)
    described = {item.text for item in profiles.findall(".//dds:transport_descriptor/dds:transport_id", NAMESPACE)}
    used = {item.text for item in profiles.findall(".//dds:userTransports/dds:transport_id", NAMESPACE)}
    assert described == used == {"shared_memory", "udp"}
    assert profiles.find("dds:participant", NAMESPACE).get("is_default_profile") == "true"


def test_the_shared_memory_holds_a_burst_of_six_large_raw_images():
    profiles = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot().find("dds:profiles", NAMESPACE)
    sizes = {name: int(profiles.find(f".//dds:{name}", NAMESPACE).text) for name in ("segment_size", "maxMessageSize")}
    image = 1600 * 900 * 3  # 4.32 MB
    assert sizes["segment_size"] >= 6 * image and image < sizes["maxMessageSize"] <= sizes["segment_size"]


def run_with_profile(profile: Path) -> subprocess.CompletedProcess:
    code = "import rclpy; rclpy.init(); rclpy.create_node('reader').destroy_node(); print('made a node')"
    environment = {**os.environ, **dict.fromkeys(PROFILE_VARIABLES, str(profile))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


def test_fast_dds_takes_the_profile_without_a_complaint(tmp_path):
    done = run_with_profile(ROOT / "config" / "fastdds.xml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "made a node\n", "")
    # That it would complain, and not only leave out what it cannot read, is known from a misspelt element.
    bent = tmp_path / "bent.xml"
    bent.write_text((ROOT / "config" / "fastdds.xml").read_text().replace("segment_size", "segmint_size"))
    assert "loadXMLFile" in run_with_profile(bent).stdout


# ---- the end ---------------------------------------------------------------------------

ENDING = """
import time
from renderocc_ros.process import end_at_first_signal
end_at_first_signal()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("ending", flush=True)
    time.sleep(0.5)
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_a_process_and_a_second_one_does_not_kill_it_on_the_way(number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENDING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "ending\n"
        for other in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(other)
            time.sleep(0.05)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(10) == 0


def test_a_signal_that_comes_while_something_is_loaded_is_heard_afterwards():
    code = """
import os, signal
from renderocc_ros.process import end_at_first_signal, signals_later
end_at_first_signal()
try:
    with signals_later():
        os.kill(os.getpid(), signal.SIGTERM)
        print("loaded", flush=True)
    print("not heard", flush=True)
except KeyboardInterrupt:
    print("ending", flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("loaded\nending\n", "", 0)


def test_threads_share_two_heaps():
    """Each of eight threads allocates while the others wait; malloc_stats names every heap there is."""
    code = """
import ctypes, sys, threading
from renderocc_ros.process import prepare_process
if len(sys.argv) > 1:
    prepare_process()
libc, meeting = ctypes.CDLL(None), threading.Barrier(8)
def work():
    libc.malloc(100_000)
    meeting.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc's heaps")
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    counts = []
    for words in ((), ("prepared",)):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        counts.append(done.stderr.count("Arena "))
    assert counts[1] <= 2 < counts[0]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps so much")
def test_freed_memory_goes_back_to_the_system():
    # Blocks too small for maps of their own, every fiftieth kept: glibc gives nothing back by itself.
    code = "\n".join(
        [
            "import ctypes, re",
            "from pathlib import Path",
            "from renderocc_ros.process import return_free_memory",
            "own = lambda: int(re.search(r'Anonymous:\\s+(\\d+)',"
            " Path('/proc/self/smaps_rollup').read_text())[1]) / 1024",
            "blocks = [ctypes.create_string_buffer(b'x', 65536) for _ in range(3200)]",
            "kept = blocks[::50]; del blocks; before = own()",
            "return_free_memory(); print(before - own())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) > 100, done.stdout
