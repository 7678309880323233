"""The soak and the load test: their statistics by hand, their files, and a short run of the real node."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from campaign.json_lines import append, read_lines
from campaign.load.__main__ import size_of
from campaign.load.source import calibration, with_stamp
from campaign.load.table import bounded, load_table
from campaign.observer import Status, queues
from campaign.soak.document import conclude
from campaign.soak.plot import Curve, Panel, draw
from campaign.soak.samples import shares
from campaign.soak.statistics import counted, longest_life, soaked_seconds, trend
from system import program_environment

pytestmark = pytest.mark.system


def test_a_leak_is_found_with_its_confidence():
    """Two MiB an hour in noise that remembers: the truth lies within, and zero does not."""
    rng = np.random.default_rng(0)
    times = np.arange(3600.0)
    noise = np.zeros(3600)
    for index in range(1, 3600):
        noise[index] = 0.9 * noise[index - 1] + rng.normal(0, 0.02)
    found = trend(times, 500 + 2.0 * times / 3600 + noise)
    assert found["low"] < 2.0 < found["high"] and found["low"] > 0
    assert found["last"] - found["first"] == pytest.approx(found["per_hour"], rel=0.01)  # of just one hour


def test_confidence_covers_the_truth_as_often_as_it_says():
    """No leak, noise with a memory of some ten seconds: at 95 %, of 60 tries 50 or more cover zero (99.9 %)."""
    covered = 0
    times = np.arange(1200.0)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = np.convolve(rng.normal(size=1230), np.exp(-np.arange(31) / 10.0), "valid")
        found = trend(times, noise, seed)
        covered += found["low"] <= 0 <= found["high"]
    assert covered >= 50


def test_too_few_samples_have_no_trend_and_gaps_are_left_out():
    assert trend(np.arange(10.0), np.ones(10)) is None
    values = np.where(np.arange(100) % 7 == 0, np.nan, 3.0)
    assert trend(np.arange(100.0), values)["per_hour"] == pytest.approx(0.0, abs=1e-9)


def test_the_process_that_lived_longest_is_judged():
    samples = [{"life": 0, "t": t} for t in range(3)] + [{"life": 1, "t": t} for t in range(5)]
    assert [entry["life"] for entry in longest_life(samples)] == [1] * 5
    assert soaked_seconds(samples) == 2 + 4  # from the first sample to the last, of each process


def test_counters_that_begin_anew_are_added_up():
    assert counted(np.array([1.0, 5, np.nan, 7, 2, 3])) == 7 + 3  # to 7, then from 0 to 3


def test_queues_are_what_was_received_and_neither_matched_nor_dropped():
    values = {"received": "10", "matched": "6", "dropped, late": "1", "dropped, duplicate": "2", "rate": "5 Hz"}
    lines = {"camera a": Status(0, "ok", values), "camera b": Status(0, "ok", values), "tf": Status(0, "ok", {})}
    assert queues(lines) == (2, 6)  # 10 - 6 - 3 = 1 each; 3 dropped each


def test_a_process_s_own_memory_grows_with_what_it_takes():
    script = "import sys; x = b'x' * (64 << 20) if len(sys.argv) > 1 else 0; print('x', flush=True); sys.stdin.read()"
    found = []
    for words in ((), ("more",)):
        with subprocess.Popen(
            [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            found.append(shares(process.pid)["own"])
            process.stdin.close()
    assert found[1] - found[0] == pytest.approx(64, abs=4)


def test_samples_survive_a_kill_and_become_a_picture_and_a_section(tmp_path):
    rng = np.random.default_rng(1)
    for second in range(200):
        append(
            tmp_path / "samples.jsonl",
            {
                "life": 0,
                "t": float(second),
                "fault": "camera stops" if 50 <= second < 55 else "",
                "memory": 900.0,
                "pss": 600.0,
                "own": 400 + rng.normal(),
                "threads": 20,
                "files": 23,
                "held": 0,
                "dropped": 0,
                "p50": 200.0,
                "p99": 300.0,
                "published": 5 * second,
                "skipped": 2,
                "withheld": 0,
                "failed": 0,
                "ages": [0.3, 0.4],
            },
        )
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"life": 0, "t": 20')  # killed while it wrote
    append(
        tmp_path / "events.jsonl",
        {"life": 0, "t": 50.0, "end": 55.0, "fault": "camera stops", "camera": "a", "broken": [], "unexpected": []},
    )
    document = tmp_path / "reliability.md"
    assert conclude(tmp_path, document) == 0
    found = json.loads((tmp_path / "reliability" / "soak.json").read_text())
    assert found["faults"] == 1 and found["published"] == 995 and found["own"]["trend"]["low"] < 0
    assert found["age_of_newest_result"]["all"]["p50"] == pytest.approx(0.35)
    image = cv2.imread(str(tmp_path / "reliability" / "soak.jpg"))
    assert image is not None and image.shape[1] == 1100
    text = document.read_text()
    assert "(reliability/soak.jpg)" in text and "memory (its own, heap and stacks), MiB" in text


def test_a_plot_shows_its_curves_in_their_colours():
    times = np.arange(100.0)
    image = draw([Panel("one", (Curve("a", times, 0 * times + 1), Curve("b", times, 0 * times + 3)))], [(20.0, 40.0)])
    column = image[30:, 300].astype(int)  # below the title
    low, high = (np.abs(column - colour).max(axis=1).argmin() for colour in ((176, 100, 30), (40, 80, 200)))
    assert high < low  # 3 lies above 1


# --- load


def test_a_stamp_is_put_into_ready_made_bytes():
    from renderocc_model.rosio import cdr_reader, cdr_writer

    message = cdr_writer.write_image(0, "front", np.zeros((2, 3, 3), np.uint8), "rgb8")
    read = cdr_reader.read_image(with_stamp(bytes(message), 1_700_000_000_123_456_789))
    assert read.stamp_ns == 1_700_000_000_123_456_789 and (read.height, read.width) == (2, 3)


def test_a_calibration_keeps_its_lens_at_another_size():
    from sensor_msgs.msg import CameraInfo

    info = CameraInfo(width=100, height=50, k=[80.0, 0.0, 49.5, 0.0, 80.0, 24.5, 0.0, 0.0, 1.0])
    made = calibration(info, 200, 100)
    # Twice as many pixels: f doubles, and the middle (49.5 of 0..99) stays the middle (99.5 of 0..199).
    assert list(made.k) == [160.0, 0.0, 99.5, 0.0, 160.0, 49.5, 0.0, 0.0, 1.0]


def test_sizes_are_read_and_nonsense_is_refused():
    assert size_of("1936x1216") == (1936, 1216)
    for text in ("1936", "8x8", "ax1"):
        with pytest.raises(ValueError, match="expected WIDTHxHEIGHT"):
            size_of(text)


def test_the_table_shows_the_highest_rate_kept_and_the_first_that_was_not():
    def row(rate, age, sent=None):
        return {
            "transport": "raw",
            "width": 704,
            "height": 256,
            "rate": rate,
            "sent_rate": sent or rate,
            "received_rate": rate,
            "output_rate": 4.0,
            "age_p50": age / 2,
            "age_p99": age,
            "age_most": age,
            "skipped": 7,
            "dropped": {"superseded": 42},
            "node_cores": 1.5,
            "source_cores": 0.2,
            "bytes_of_a_frame": 3_000_000,
        }

    rows = [row(5.0, 0.4), row(10.0, 0.5), row(20.0, 1.4), row(30.0, 2.0)]
    assert [bounded(each, 1.0) for each in rows] == [True, True, False, False]
    assert not bounded(row(30.0, 0.4, sent=20.0), 1.0)  # the source did not keep up: nothing is known of the node
    lines = load_table(rows, 1.0).splitlines()[2:]
    assert [re.match(r"\| 704x256 raw \| (\d+) \|", line)[1] for line in lines] == ["10", "20"]
    assert "10.0 (30)" in lines[0] and "superseded 42" in lines[0] and lines[0].endswith("| yes |")


# --- the real node


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("campaign.soak", "--minutes", "0.15", "--pause", "1"), "1 process, "),
        (("campaign.load", "--sizes", "96x64", "--rates", "5", "--seconds", "2", "--transports", "raw"), "96x64 raw"),
    ],
)
def test_a_short_run_of_the_real_node_ends_with_its_figures(words, wanted, tmp_path, town_bag):
    command = [sys.executable, "-m", *words, "--out", str(tmp_path), "--bag", str(town_bag)]
    done = subprocess.run(
        [*command, "--checkpoint", "small"], env=program_environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a frame failed, as beside a busy machine it may
    assert wanted in done.stdout and f"wrote {tmp_path}" in done.stdout
    assert read_lines(tmp_path / ("samples.jsonl" if words[0] == "campaign.soak" else "results.jsonl"))
