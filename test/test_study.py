"""The study: what it refuses, what its tables say, and that it survives being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_models import small_config

from renderocc_model.base.config import to_mapping
from training.data.prepare.tables import list_tables
from training.study import main, results
from training.study.description import PARTS, Run, TownData, Towns, load_study
from training.study.jobs import Job, run_jobs
from training.study.results import FIGURES, Results, Spread, spread, write_source
from training.study.runner import StudyRunner
from training.study.section import NOT_RUN, render_table
from training.study.towns import TownFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path for path in (ROOT / "config" / "study").glob("*.yaml") if "comparison:" in path.read_text())
STEPS = 3


@pytest.fixture
def files(tmp_path):
    """A study of two variants and one seed, on a network a thousandth of its size; the path of its YAML."""
    # The truth has voxels of 0.4 m: 16 x 16 x 8 of them.
    model = to_mapping(
        small_config("tiny", "grid.lower=[-3.2, -3.2, -1]", "grid.upper=[3.2, 3.2, 2.2]", "grid.voxel_size=0.4")
    )
    run = {"workers": 0, "log_every": 1, "save_every": 1, "validate_every": 0, "picture_every": 0, "tensorboard": False}
    train = {"model": model, "sample": {"rays": 200}, "optimiser": {"warm_up": 1}, "steps": STEPS, "run": run}
    row = {"variant": "plain", "label": "plain rays", "paper": "19.28"}
    comparison = {
        "variants": [
            {"name": "plain", "about": "the frame's own rays", "settings": ["sample.auxiliary_offsets=[]"]},
            {"name": "full", "about": "all of it"},
        ],
        "tables": [{"title": "What helps", "rows": [row, {"variant": "full", "label": "all"}], "relative_to": "full"}],
        "main": "plain",
    }
    towns = {part: {"seeds": [number], "frames": 3} for number, part in enumerate(PARTS)}
    study = {
        "name": "micro",
        "title": "A micro study",
        "seeds": [4],
        "train": "train.yaml",
        "comparison": "variants.yaml",
        "data": {**towns, "width": 352, "height": 128, "pixels_per_image": 100},
    }
    for name, content in (("train", train), ("variants", comparison), ("study", study)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "study.yaml"


def changed(path, change):
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def result(study, run, miou, **figures):
    """What a run might have come to."""
    values = {**dict.fromkeys(FIGURES, 0.5), "miou": miou, **figures}
    return {
        "figures": values,
        "baselines": {},
        "training_seconds": 60.0,
        "device": "a CPU",
        "threads": 1,
        "tested_on": {"frames": 3},
        "source": {"commit": "abc", "torch": "2"},
        "made_with": study.identity(run),
    }


# --- what is refused


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_test_town_that_is_used_for_anything_else_is_refused(files, part, capsys):
    changed(files, lambda study: study["data"][part].update(seeds=[7, 2]))  # 2 is the test town
    assert main([str(files), "--out", str(files.parent / "out")]) == 2
    text = capsys.readouterr().err
    assert "town 2" in text and part in text and "test" in text
    assert not (files.parent / "out").exists()


def test_a_town_named_twice_is_refused():
    with pytest.raises(ValueError, match="town 1 of training.seeds is twice"):
        TownData(Towns((1, 1)), Towns((2,)), Towns((3,)))


def test_the_studies_in_the_box_share_no_town_between_learning_and_testing():
    learned, tested = set(), set()
    for path in STUDIES:
        data = load_study(path).config.data
        learned |= {*data.training.seeds, *data.validation.seeds}
        tested |= set(data.test.seeds)
    assert len(STUDIES) == 4 and not learned & tested


def test_a_variant_with_an_unknown_setting_is_named(files):
    changed(files.parent / "variants.yaml", lambda content: content["variants"][1].update(settings=["sample.raies=3"]))
    with pytest.raises(ValueError, match="variant 'full'.*sample.rays"):
        load_study(files)


def test_a_table_of_a_variant_that_does_not_exist_is_refused(files):
    changed(files.parent / "variants.yaml", lambda content: content["tables"][0].update(relative_to="fulll"))
    with pytest.raises(ValueError, match="names variant 'fulll'; there are plain, full"):
        load_study(files)


def test_a_result_from_before_a_setting_existed_is_one_with_its_default(files, tmp_path):
    study = load_study(files)
    run = next(study.runs())
    older = result(study, run, 0.2)
    del older["made_with"]["training"]["accumulate"], older["made_with"]["training"]["optimiser"]["clip"]
    path = tmp_path / f"{run.name}.json"
    path.write_text(json.dumps(older))
    assert Results(tmp_path, study).read(run)["figures"]["miou"] == 0.2
    changed(files.parent / "train.yaml", lambda content: content.update(accumulate=2))
    with pytest.raises(ValueError, match=r"was made with training.accumulate=1, now it is 2"):
        Results(tmp_path, load_study(files)).read(run)


def test_results_of_other_settings_are_not_mixed_in(files, tmp_path):
    study = load_study(files)
    run = next(study.runs())
    path = tmp_path / f"{run.name}.json"
    path.write_text(json.dumps(result(study, run, 0.2)))
    assert Results(tmp_path, study).read(run)["figures"]["miou"] == 0.2
    changed(files.parent / "train.yaml", lambda content: content.update(steps=9))
    with pytest.raises(ValueError, match=r"plain_4.json: was made with training.steps=3, now it is 9"):
        Results(tmp_path, load_study(files)).read(run)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not the result of a run"):
        Results(tmp_path, study).read(run)


def test_towns_of_another_description_are_not_mixed_in(tmp_path):
    TownFolder(tmp_path, TownData(Towns((1,)), Towns((2,)), Towns((3,))))
    with pytest.raises(ValueError, match="has towns of another description"):
        TownFolder(tmp_path, TownData(Towns((1,)), Towns((2,)), Towns((3,)), width=352))


def test_a_result_with_other_labels_is_not_mixed_in(files, tmp_path):
    study = load_study(files)
    run = next(study.runs())
    (tmp_path / f"{run.name}.json").write_text(json.dumps(result(study, run, 0.2)))
    changed(files.parent / "variants.yaml", lambda content: content["variants"][0].update(labels="motion"))
    with pytest.raises(ValueError, match="plain_4.json: was made with labels=None, now it is motion"):
        Results(tmp_path, load_study(files)).all()


def test_towns_that_were_recorded_without_a_lidar_are_not_labelled_from_it(tmp_path):
    data = TownData(Towns((1,)), Towns((2,)), Towns((3,)))
    TownFolder(tmp_path, data, ("exact", "motion"))
    TownFolder(tmp_path, data)  # depth from motion needs no other recordings
    with pytest.raises(ValueError, match="has towns of another description"):
        TownFolder(tmp_path, data, ("lidar",))


# --- what the variants mean


def test_the_variants_switch_what_their_names_say():
    study = load_study(ROOT / "config" / "study" / "town_cpu.yaml")
    configs = {variant.name: study.train_config(Run(variant, 1)) for variant in study.comparison.variants}
    full = configs["full"]
    assert (full.sample.auxiliary_offsets, full.sample.balance_gain) == ((-3, -2, -1, 1, 2, 3), 0.005)
    assert (full.sample.static_weight, full.sample.dynamic_weight) == (0.3, 0.0)
    for count in (0, 2, 4, 6):
        sample = configs[f"frames_{count}"].sample
        assert len(sample.auxiliary_offsets) == count and sample.balance_gain == 0
        # Every ray is as likely as any other: also what moves in other frames.
        assert count == 0 or sample.static_weight == sample.dynamic_weight == 1
    semantics = to_mapping(configs["semantics"])
    assert semantics["supervision"].pop("use_depth") is False
    depth = to_mapping(configs["frames_0"])
    assert depth["supervision"].pop("use_depth") is True
    assert semantics == depth
    for name, labels in (("full", "off"), ("labels_3d", "only"), ("labels_2d_3d", "with")):
        assert configs[name].supervision.labels_3d == labels
    for name, mode in (("full", "render"), ("query", "query"), ("both", "both")):
        assert configs[name].supervision.mode == mode
    for name in ("frames_0", "frames_6"):
        points, rendered = (to_mapping(configs[each]) for each in (f"query_{name}", name))
        assert points["supervision"].pop("mode") == "query" and rendered["supervision"].pop("mode") == "render"
        assert points == rendered
    assert all(config.seed == 1 and config.steps == full.steps for config in configs.values())


def test_the_rows_of_depth_differ_in_their_labels_and_in_whether_distances_are_used():
    study = load_study(ROOT / "config" / "study" / "depth_cpu.yaml")
    variants = {variant.name: variant for variant in study.comparison.variants}
    assert study.labels() == ("lidar", "motion")
    assert [variants[name].labels for name in ("none", "motion", "lidar")] == ["lidar", "motion", "lidar"]
    none, motion, lidar = (
        to_mapping(study.train_config(Run(variants[name], 0))) for name in ("none", "motion", "lidar")
    )
    assert motion == lidar and lidar["supervision"]["mode"] == "render"
    assert none["supervision"].pop("use_depth") is False and lidar["supervision"].pop("use_depth") is True
    assert none == lidar
    for ending, mode, loss in (("termination", "render", "termination"), ("volume", "query+voxels", "silog")):
        motion, lidar = (variants[f"{labels}_{ending}"] for labels in ("motion", "lidar"))
        assert (motion.labels, lidar.labels) == ("motion", "lidar") and motion.settings == lidar.settings
        supervision = study.train_config(Run(motion, 0)).supervision
        assert (supervision.mode, supervision.depth_loss) == (mode, loss)


def test_seeds_come_in_turn_so_that_an_early_end_leaves_something_of_every_variant():
    study = load_study(ROOT / "config" / "study" / "town_cpu.yaml")
    count = len(study.comparison.variants)
    assert {run.seed for run in list(study.runs())[:count]} == {study.config.seeds[0]}


def test_what_records_and_prepares_is_understood_by_those_commands(tmp_path):
    from training.data.prepare import parser as prepare
    from training.simulate import parser as simulate

    data = TownData(Towns((11, 12), 5), Towns((2,), 4), Towns((3,), 6), 176, 64, 2.0, 50)
    folder = TownFolder(tmp_path, data)
    (folder.recordings / "town_2").mkdir()
    (folder.recordings / ".town_3.99.partial").mkdir()  # of a process that was killed
    jobs = folder.missing()
    assert [job.name for job in jobs] == ["town_11", "town_12", "town_3"]
    assert not (folder.recordings / ".town_3.99.partial").exists()
    asked = simulate().parse_args(jobs[2].commands[0][2:])
    assert (asked.seed, asked.frames, asked.width, asked.height, asked.rate) == (3, 6, 176, 64, 2.0)
    asked = prepare().parse_args(folder.prepare(2).commands[0][2:])
    assert len(asked.bags) == 4 and asked.pixels_per_image == 50 and asked.out == folder.tables()
    assert not asked.labels and asked_without_lidar(jobs) == {True} and not folder.unlabelled()


def asked_without_lidar(jobs):
    from training.simulate import parser as simulate

    return {simulate().parse_args(job.commands[0][2:]).no_lidar for job in jobs}


def test_labels_are_made_of_all_towns_but_those_of_the_test_and_each_once(tmp_path):
    from training.data.prepare import parser as prepare
    from training.label import parser as label

    folder = TownFolder(tmp_path, TownData(Towns((11, 12)), Towns((2,)), Towns((3,))), ("exact", "motion", "lidar"))
    assert asked_without_lidar(folder.missing()) == {False}
    motion = tmp_path / "labels_motion"
    (motion / "town_12").mkdir(parents=True)  # labelled before
    jobs = folder.unlabelled()
    assert [job.name for job in jobs] == ["town_11_motion", "town_2_motion", *(f"town_{n}_lidar" for n in (11, 12, 2))]
    asked = label().parse_args(jobs[0].commands[0][2:])
    assert (asked.bags, asked.out) == ([str(folder.recordings / "town_11")], motion / "town_11")
    assert (asked.depth_from, asked.semantic_topic) == ("motion", "/{camera}/semantic")
    asked = label().parse_args(jobs[2].commands[0][2:])
    assert (asked.depth_from, asked.semantic_topic) == ("recording", None)
    exact, moved, _ = (prepare().parse_args(command[2:]) for command in folder.prepare(1).commands)
    assert len(exact.bags) == 4 and not exact.labels
    assert [Path(bag).name for bag in moved.bags] == ["town_11", "town_12", "town_2"]
    assert moved.labels == [motion / name for name in ("town_11", "town_12", "town_2")]
    assert moved.out == folder.tables("motion") != exact.out


def test_a_run_learns_from_the_tables_of_its_own_labels(files, town_bag, tmp_path):
    changed(files.parent / "variants.yaml", lambda content: content["variants"][0].update(labels="lidar"))
    study, out = load_study(files), tmp_path / "out"
    for number in range(3):
        shutil.copytree(town_bag, out / "towns" / "recordings" / f"town_{number}")
    towns = TownFolder(out / "towns", study.config.data, study.labels())
    runner = StudyRunner(study, out, tmp_path / "docs", 1, 1)
    with (tmp_path / "lock").open("w") as lock:
        assert runner._make_towns(towns, lambda: False, lock.fileno()) == []
    assert list_tables(towns.tables()) == ["town_0", "town_1", "town_2"]
    assert list_tables(towns.tables("lidar")) == ["town_0", "town_1"]
    plain, full = (runner._job(run, towns).commands for run in study.runs())
    assert f"data.prepared={towns.tables('lidar')}" in plain[0] and f"data.prepared={towns.tables()}" in full[0]
    assert str(towns.tables()) in plain[1] and str(towns.tables("lidar")) not in plain[1]  # compared with exact labels


# --- tables


def test_the_spread_is_the_sample_standard_deviation():
    # 1, 2, 6: mean 3, squares of deviations 4 + 1 + 9 = 14, 14 / 2 = 7.
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, 7**0.5, 3)
    assert spread([2.0]) == Spread(2.0, None, 1)
    assert spread([]) is None


def test_a_table_says_which_cells_were_not_run_and_how_many_were(files):
    changed(files, lambda study: study.update(seeds=[4, 5]))
    study = load_study(files)
    full = study.comparison.variants[1]
    results = {
        "full_4": result(study, Run(full, 4), 0.10, abs_rel=None),
        "full_5": result(study, Run(full, 5), 0.20, abs_rel=0.25),
    }
    heading, _, plain, full = render_table(study.comparison.tables[0], study, results).splitlines()
    heading, plain, full = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (heading, plain, full))
    assert len(heading) == len(plain) == len(full)
    assert plain[:3] == ["plain rays", "19.28", NOT_RUN] and plain[heading.index("runs")] == "0 of 2"
    assert set(plain[2:12]) == {NOT_RUN}
    # 10 % and 20 %: mean 15, deviation sqrt(2 * 25) = 7.07.
    assert full[:3] == ["all", "–", "15.00 ± 7.07"] and full[heading.index("runs")] == "2 of 2"
    assert full[heading.index("AbsRel")] == "0.250"  # of the one run that has it
    assert full[-2:] == ["100.0", "100.0"] and plain[-1] == NOT_RUN


# --- jobs


def test_a_job_that_fails_is_reported_and_the_others_go_on(tmp_path):
    bad = ("renderocc_model.cli", "no_such_command")
    good = ("renderocc_model.cli", "--help")
    done = []
    failures = run_jobs(
        [Job("bad", (bad, good)), Job("good", (good, good))], 1, 1, tmp_path, lambda job: done.append(job.name)
    )
    assert done == ["good"]
    assert len(failures) == 1 and "bad failed (2)" in failures[0] and "no_such_command" in failures[0]
    assert (tmp_path / "good.txt").read_text().count("usage: renderocc") == 2


def test_a_run_keeps_the_source_it_was_begun_with(files, tmp_path, monkeypatch):
    study = load_study(files)
    run, run_folder = next(iter(study.runs())), tmp_path / "run"
    monkeypatch.setattr(results, "source_version", lambda: {"commit": "first"})
    write_source(run_folder)
    monkeypatch.setattr(results, "source_version", lambda: {"commit": "second"})
    write_source(run_folder)  # it goes on
    (run_folder / "metrics.jsonl").write_text("")
    counts = {"rays": 1, "returns": 1}
    figures = {**dict.fromkeys(FIGURES, 0.5), "counts": counts, "iou": {}}
    evaluation = {
        "volumes": figures,
        "rays": figures,
        "threshold": 0.5,
        "recordings": [],
        "frames": 1,
        "baselines": {},
        "precision": "float32",
    }
    kept = Results(tmp_path / "kept", study)
    kept.write(run, run_folder, evaluation, 1)
    assert kept.read(run)["source"] == {"commit": "first"}


# --- all of it


def alive(text):
    """Processes whose command line has this text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(line)
    return found


def test_a_study_that_is_killed_goes_on_and_says_what_it_found(files, town_bag, tmp_path, capsys):
    out, docs = tmp_path / "out", tmp_path / "docs"
    for number in range(3):  # three drives that are there already
        shutil.copytree(town_bag, out / "towns" / "recordings" / f"town_{number}")
    command = [str(files), "--out", str(out), "--docs", str(docs), "--jobs", "1", "--threads", "1", "--only", "plain"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    study = subprocess.Popen(
        [sys.executable, "-m", "renderocc_model.cli", "study", *command], stdout=subprocess.DEVNULL, env=environment
    )
    state = out / "runs" / "plain_4" / "state.pt"
    until = time.monotonic() + 240
    while not state.exists() and study.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    study.send_signal(signal.SIGKILL)
    study.wait()
    assert state.exists() and not (docs / "study.md").exists()

    assert main(command) == 0  # waits for the training run, which ends with its parent
    assert not alive(str(out))
    log = (out / "logs" / "plain_4.txt").read_text()
    assert log.count("renderocc_model.cli train") == 2  # begun, and gone on with
    results = {path.stem: json.loads(path.read_text()) for path in (docs / "study/results/micro").glob("*.json")}
    assert list(results) == ["plain_4"]
    found = results["plain_4"]
    assert all(0 <= found["figures"][name] <= 1 for name in ("miou", "rayiou", "delta_1", "miou_2d"))
    assert found["steps"] == STEPS and found["training_seconds"] > 0
    assert found["tested_on"]["recordings"] == ["town_2"] and found["tested_on"]["frames"] == 3
    assert sorted(found["baselines"]) == ["flat_ground", "most_frequent"]
    text = (docs / "study.md").read_text()
    assert "1 of 2 (2 variants" in text
    plain, full = (line for line in text.splitlines() if line.startswith(("| plain rays", "| all")))
    assert plain.count(NOT_RUN) == 2 and full.count(NOT_RUN) == 12  # of plain: what compares it with full
    pictures = sorted(path.name for path in (docs / "study").glob("*.jpg"))
    assert pictures == ["micro_above.jpg", "micro_views_0.jpg", "micro_views_1.jpg"]
    assert all(f"study/{name}" in text and (docs / "study" / name).stat().st_size < 150_000 for name in pictures)

    assert found["source"] == json.loads((out / "runs" / "plain_4" / "source.json").read_text())

    # Pictures that are missing, or older than the network they show, are drawn again, with --tables too.
    above, network = docs / "study" / "micro_above.jpg", out / "runs" / "plain_4" / "checkpoint.safetensors"
    before = above.read_bytes()
    above.unlink()
    assert main([*command[:5], "--tables"]) == 0 and above.read_bytes() == before
    above.write_bytes(b"of another network")
    os.utime(above, ns=(0, network.stat().st_mtime_ns - 1))
    assert main([*command[:5], "--tables"]) == 0 and above.read_bytes() == before

    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    shutil.rmtree(out / "towns")  # of no use any more
    assert main(command) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    assert (docs / "study.md").read_text() == text

    assert main([*command[:5], "--tables"]) == 0 and (docs / "study.md").read_text() == text


@pytest.mark.parametrize("name", ["town_cpu", "town_gpu", "depth_cpu"])
def test_the_document_is_that_of_the_results_beside_it(tmp_path, name):
    """And these are of the settings in config/study: others are refused."""
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs" / "study", docs / "study")
    shutil.copyfile(ROOT / "docs" / "study.md", docs / "study.md")
    study = ROOT / "config" / "study" / f"{name}.yaml"
    assert main([str(study), "--out", str(tmp_path / "out"), "--docs", str(docs), "--tables"]) == 0
    assert (docs / "study.md").read_text() == (ROOT / "docs" / "study.md").read_text()
