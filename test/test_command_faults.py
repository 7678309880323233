"""Commands that are hurt: the short form of `make command-faults`, and how its verdicts are found."""

import json
import resource
import sys

import numpy as np
import pytest
from campaign.commands.campaign import Campaign
from campaign.commands.disk import Disk
from campaign.commands.injections import FAULTS, Injection, Reference, faults_of
from campaign.commands.process import Ended, run_command
from campaign.commands.report import table, update_document
from campaign.commands.subjects import SUBJECTS, tree_digest
from campaign.commands.verdict import all_made, leftovers, met, wholeness

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A campaign's folder whose material is written by hand: volumes for `metrics`."""
    out = tmp_path_factory.mktemp("campaign")
    rng = np.random.default_rng(0)
    for kind in ("predictions", "truth"):
        folder = out / "material" / "volumes" / kind / "town"
        folder.mkdir(parents=True)
        for frame in range(2):
            semantics = np.where(rng.random((16, 16, 8)) < 0.7, 17, 11).astype(np.uint8)
            np.savez(folder / f"{frame}.npz", semantics=semantics, mask_camera=np.ones_like(semantics))
    (out / "material" / "volumes" / "origins.json").write_text(json.dumps({f"town/{k}": [[0, 0, 1]] for k in (0, 1)}))
    return out


def test_metrics_meets_its_faults(volumes, monkeypatch):
    """The real command in its own process: killed, without room, with a truncated input; each time mended by itself."""
    monkeypatch.setattr("campaign.commands.campaign.make_material", lambda folder, say: folder)
    campaign = Campaign(volumes, 3, say=lambda line: None)
    plan = [(0, "metrics", "SIGKILL"), (1, "metrics", "disk full"), (2, "metrics", "input cut off")]
    results = list(campaign.run(plan))
    assert [result["wrong"] for result in results] == [[], [], []], results
    assert results[2]["met"] == "refused" and results[2]["damaged"].startswith("volumes/")
    assert list(campaign.run(plan)) == []  # what is done is not done again
    assert campaign.read() == results


def test_a_campaign_is_a_function_of_its_seed(tmp_path):
    plans = [Campaign(tmp_path, seed).plan(200) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {(name, fault) for _, name, fault in plans[0]} <= {
        (name, fault) for name, subject in SUBJECTS.items() for fault in faults_of(subject)
    }
    everything = Campaign(tmp_path, 1).plan(400)
    assert {name for _, name, _ in everything} == set(SUBJECTS) and {fault for *_, fault in everything} == set(FAULTS)
    assert Campaign(tmp_path, 1).plan(50) == plans[0][:50]  # a longer campaign goes on from a shorter one


def test_a_traceback_a_leftover_process_and_silence_are_wrong():
    subject, injection = SUBJECTS["label"], Injection("", damaged="town/town.mcap")
    good = Ended(2, 1.0, "renderocc label: in/town/town.mcap: the file is cut off, its end is missing")
    assert met("input cut off", injection, good, subject, False) == ("refused", [])
    for ended, wrong in (
        (Ended(1, 1.0, "Traceback (most recent call last):\n town.mcap"), "printed a traceback"),
        (Ended(2, 1.0, "renderocc label: bad input"), "did not name town.mcap"),
        (Ended(2, 1.0, "town.mcap", left_running=1), "left 1 processes running"),
        (Ended(-11, 1.0, "town.mcap"), "ended by signal 11"),
        (Ended(-9, 600.0, "town.mcap", timed_out=True), "did not end"),
    ):
        assert any(wrong in text for text in met("input cut off", injection, ended, subject, False)[1]), wrong
    silent = met("input cut off", injection, Ended(0, 1.0, "wrote out/labels"), subject, True)
    assert silent[1] == ["went on with another result and said nothing"]
    assert met("disk full", Injection(""), Ended(2, 1.0, "no"), subject, False)[1] == [
        "did not say that the disk is full"
    ]
    assert met("SIGTERM", Injection(""), Ended(143, 1.0, ""), subject, False) == ("stopped", [])
    assert met("SIGINT", Injection(""), Ended(1, 1.0, ""), subject, False)[1] == ["ended with 1 after SIGINT"]


def test_half_written_files_are_seen_unless_they_are_hidden(tmp_path):
    subject, reference = SUBJECTS["metrics"], Reference(1.0, 100, "", {"scores.json": "of the whole one"})
    (tmp_path / ".scores.json.x.part").write_text('{"mi')
    assert wholeness(tmp_path, subject, reference) == [] and leftovers(tmp_path) == [".scores.json.x.part"]
    (tmp_path / "scores.json").write_text('{"mi')
    assert wholeness(tmp_path, subject, reference) == [
        "scores.json is there and differs",
        "scores.json is half written",
    ]
    np.savez(tmp_path / "a.npz", a=np.zeros(9))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-9])
    assert "b.npz is half written" in wholeness(tmp_path, subject, reference)


def test_a_signal_that_comes_when_all_is_made_is_told_from_one_that_stops_the_work(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.mcap").write_bytes(b"whole")
    reference = Reference(1.0, 100, "", {"labels": tree_digest("labels")(tmp_path)})
    assert all_made(tmp_path, SUBJECTS["label"], reference)
    (tmp_path / "labels" / "labels.mcap").write_bytes(b"who")
    assert not all_made(tmp_path, SUBJECTS["label"], reference)


def test_a_full_and_a_locked_disk_are_given_back(tmp_path):
    with Disk(tmp_path / "disk") as disk:
        disk.fill(20_000)
        with pytest.raises(OSError, match="No space|too large"):
            (tmp_path / "disk" / "a").write_bytes(bytes(100_000))
        disk.make_room()
        (tmp_path / "disk" / "b").write_bytes(bytes(100_000))
        disk.lock()
        if disk.own:
            with pytest.raises(OSError, match="Read-only"):
                (tmp_path / "disk" / "c").write_bytes(b"c")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, sys.maxsize)


def test_a_command_that_hangs_is_ended_and_said_so(tmp_path):
    ended = run_command(("replay", "--help"), tmp_path, tmp_path / "log", 60.0)
    assert ended.status == 0 and "example" in ended.text and not ended.timed_out


def test_the_table_counts_and_names_what_is_open(tmp_path):
    good = {
        "run": 0,
        "seed": 0,
        "command": "label",
        "fault": "SIGKILL",
        "detail": "",
        "damaged": "",
        "status": -9,
        "seconds": 2.0,
        "met": "stopped",
        "said": "",
        "wrong": [],
    }
    bad = {**good, "run": 1, "command": "eval", "seconds": 4.0, "wrong": ["left 1 processes running"]}
    # Two runs of two commands, both stopped, median of 2 and 4 s is 3 s, one wrong.
    assert "| SIGKILL | 2 | 2 | 0 | 2 | 0 | 0 | 0 | 0 | 3.0, 4.0 | 1 |" in table([good, bad])
    document = tmp_path / "reliability.md"
    document.write_text("# Reliability\n\nbefore\n")
    for _ in range(2):
        update_document(document, [good, bad], 0)
    text = document.read_text()
    assert text.count("| SIGKILL |") == 1 and "before" in text
    assert "- run 1, eval, SIGKILL (): left 1 processes running" in text
