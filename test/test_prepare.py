"""`renderocc prepare`: tables that say what the recording says, whatever happens while they are written."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_bag
from rosbags.rosbag2 import StoragePlugin, Writer
from tiny_bag import FRAME_NS, HEIGHT, RIG, START_NS, WIDTH, Plan, write_bag

from renderocc_model.base.config import settings_of
from training.data import prepare
from training.data.prepare import PrepareConfig, main, prepare_recording, shard
from training.data.prepare.tables import Tables, TablesError, list_tables
from training.recordings import frames

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    folder = write_bag(tmp_path_factory.mktemp("prepare") / "drive", Plan(frames=12))
    (folder / "occupancy").mkdir()
    for frame in range(12):
        semantics = np.full((2, 2, 2), frame, np.uint8)
        file = folder / "occupancy" / f"{START_NS + frame * FRAME_NS}.npz"
        np.savez_compressed(file, semantics=semantics, mask_camera=np.ones_like(semantics))
    return folder


@pytest.fixture(scope="module")
def prepared(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables")
    return prepare_recording(bag, None, out, PrepareConfig())


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_pixel_says_where_what_and_how_far(prepared):
    """One labelled pixel by hand: Euclidean distance is z-depth times |d| / d_z of the distorted pixel's direction."""
    tables = Tables(prepared)
    semantic, depth = tiny_bag.sparse_labels(3, "wide")
    first, last = tables.starts[3, 1, 11], tables.starts[3, 1, 12]
    columns, rows = tables.pixels[first:last].T
    assert (semantic[rows, columns] == 11).all() and last - first == (semantic == 11).sum()
    directions = RIG["wide"].model.unproject(np.stack([columns, rows], 1).astype(float))
    z_depths = np.rint(depth[rows, columns] * 1000) / 1000
    np.testing.assert_allclose(tables.distances[first:last], z_depths / directions[:, 2], rtol=1e-6)


def test_every_labelled_pixel_is_there_once(prepared):
    tables = Tables(prepared)
    labelled = [tiny_bag.sparse_labels(frame, camera)[0] for frame in range(12) for camera in ("front", "wide")]
    assert len(tables.pixels) == sum(int((semantic != 255).sum()) for semantic in labelled)
    np.testing.assert_array_equal(
        tables.class_counts, np.bincount(np.concatenate(labelled).ravel(), minlength=256)[:18]
    )
    assert (np.diff(tables.starts.reshape(-1)) >= 0).all() and tables.starts[0, 0, 0] == 0


def test_images_poses_and_truth_are_the_recordings(prepared):
    tables = Tables(prepared)
    data, raw = tables.image(5, 0)
    assert raw is None and bytes(data[:2]) == b"\xff\xd8"  # JPEG, as recorded
    np.testing.assert_allclose(tables.odom_from_base[5], tiny_bag.odom_from_base(START_NS + 5 * FRAME_NS), atol=1e-9)
    np.testing.assert_allclose(tables.base_from_camera[5, 0], RIG["front"].base_from_camera, atol=1e-9)
    assert (tables.truth_arrays(5)["semantics"] == 5).all()
    assert [camera.model for camera in tables.cameras] == [camera.model for camera in RIG]


def test_a_second_run_changes_nothing(bag, prepared):
    before = contents(prepared.parent)
    prepare_recording(bag, None, prepared.parent, PrepareConfig())
    assert contents(prepared.parent) == before


def test_ways_of_preparing_are_not_mixed(bag, prepared):
    with pytest.raises(TablesError, match=r"drive: was prepared differently \(config.max_time_diff was 0.1 and is"):
        prepare_recording(bag, None, prepared.parent, PrepareConfig(max_time_diff=0.2))


def test_another_version_is_not_read(prepared, tmp_path):
    copy = tmp_path / "drive"
    shutil.copytree(prepared, copy)
    header = json.loads((copy / "header.json").read_text())
    (copy / "header.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(TablesError, match="header.json: has version 99, but this program reads 2; remove"):
        Tables(copy)


def test_a_copy_that_is_incomplete_is_found(prepared, tmp_path):
    copy = tmp_path / "drive"
    shutil.copytree(prepared, copy)
    with (copy / "distances.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(TablesError, match="distances.bin: has 100 bytes"):
        Tables(copy)


@pytest.mark.slow
def test_killed_twenty_times_the_bytes_are_those_of_an_uninterrupted_run(bag, prepared, tmp_path):
    """Each run goes on from what the last kill left; a run that was done before its kill begins anew."""
    out = tmp_path / "out"
    program = f"""
import os, sys, time
from pathlib import Path
from renderocc_model.base.config import settings_of
from training.data import prepare
class Announced(prepare.ShardWriter):
    def __init__(self, *arguments):
        print(os.getpid(), flush=True)
        super().__init__(*arguments)
prepare.ShardWriter = Announced
for line in sys.stdin:  # forks have everything imported
    if os.fork() == 0:
        prepare.prepare_recording(Path({str(bag)!r}), None, Path({str(out)!r}), prepare.PrepareConfig())
        os._exit(0)
    sys.stdin.readline()  # not reaped before, so that a kill cannot hit another process of the same number
    os.wait()
    print("over", flush=True)
"""
    rng, uninterrupted = random.Random(8), contents(prepared)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:

        def run(seconds: float | None) -> None:
            worker.stdin.write("\n")
            worker.stdin.flush()
            pid = int(worker.stdout.readline())
            if seconds is not None:
                time.sleep(seconds)
                os.kill(pid, signal.SIGKILL)
            worker.stdin.write("\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "over\n"

        for _ in range(20):
            run(rng.uniform(0, 0.06))  # from the moment it begins to write
            if (out / "drive").exists():
                assert contents(out / "drive").items() >= uninterrupted.items()
                shutil.rmtree(out)
        run(None)
    assert contents(out) == contents(prepared.parent)


@pytest.mark.parametrize("cut", [1, 40, 3000])
def test_a_journal_that_was_cut_off_costs_only_its_last_frames(bag, prepared, tmp_path, monkeypatch, cut):
    class Stop(Exception):
        pass

    def stop_at(done, total):
        if done == 7:
            raise Stop

    with pytest.raises(Stop):
        prepare_recording(bag, None, tmp_path, PrepareConfig(), stop_at)
    journal = tmp_path / ".drive.partial" / "journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with pytest.raises(TablesError, match="has no recording that is prepared to the end; run the same"):
        list_tables(tmp_path)
    assert contents(prepare_recording(bag, None, tmp_path, PrepareConfig())) == contents(prepared)


def test_a_kill_right_after_the_renaming_leaves_nothing_behind(bag, prepared, tmp_path):
    shutil.copytree(prepared.parent, tmp_path / "out")
    for leftover in ("plan.json", "journal"):
        (tmp_path / "out" / "drive" / leftover).write_text("as before the renaming")
    prepare_recording(bag, None, tmp_path / "out", PrepareConfig())
    assert contents(tmp_path / "out") == contents(prepared.parent)


def test_a_full_disk_is_named_and_work_goes_on_afterwards(bag, prepared, tmp_path, capsys):
    """A limit on the size of files stands in for the disk's; the data files pass it in the middle of the recording."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # all frames have 60 kB of pixels
    try:
        assert main([str(bag), "--out", str(tmp_path), "--jobs", "1"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = capsys.readouterr().err
    assert f"{tmp_path}: the disk is full; make room" in text and "what was written is kept" in text
    assert not (tmp_path / "drive").exists() and (tmp_path / ".drive.partial" / "journal").stat().st_size > 0
    assert main([str(bag), "--out", str(tmp_path), "--jobs", "1"]) == 0
    assert contents(tmp_path) == contents(prepared.parent)


def test_two_processes_do_not_prepare_one_recording(bag, tmp_path):
    with shard.ShardWriter(tmp_path, "drive", {}):
        with pytest.raises(TablesError, match="another process is preparing this recording"):
            prepare_recording(bag, None, tmp_path, PrepareConfig())


@pytest.mark.slow
def test_several_recordings_in_several_processes_give_the_same_bytes(bag, prepared, tmp_path):
    other = write_bag(tmp_path / "other", Plan(frames=2))
    out = tmp_path / "out"
    assert main([str(bag), str(other), "--out", str(out), "--jobs", "2"]) == 0
    assert list_tables(out) == ["drive", "other"]
    assert contents(out / "drive") == contents(prepared)


def test_pixels_without_depth_are_kept_only_when_asked_for(tmp_path):
    def labels(frame, camera):
        semantic, depth = tiny_bag.sparse_labels(frame, camera)
        return semantic, np.where(np.arange(WIDTH) < 32, depth, 0)

    bag = write_bag(tmp_path / "bag", Plan(frames=1, labels=labels))
    known = sum((tiny_bag.sparse_labels(0, camera)[0] != 255).sum() for camera in ("front", "wide"))
    without = Tables(prepare_recording(bag, None, tmp_path / "a", PrepareConfig()))
    kept = Tables(prepare_recording(bag, None, tmp_path / "b", PrepareConfig(without_depth=True)))
    assert 0 < len(without.pixels) < known == len(kept.pixels)
    assert (without.pixels[:, 0] < 32).all() and (kept.distances[kept.pixels[:, 0] >= 32] == 0).all()


def test_recordings_without_any_depth_can_be_prepared_for_classes_alone(tmp_path):
    labels = lambda frame, camera: (tiny_bag.sparse_labels(frame, camera)[0], None)
    bag = write_bag(tmp_path / "bag", Plan(frames=1, labels=labels))
    tables = Tables(prepare_recording(bag, None, tmp_path / "b", PrepareConfig(without_depth=True)))
    assert len(tables.pixels) > 100 and not tables.distances.any()
    with pytest.raises(ValueError, match="has labels on /<camera>/depth at its stamp;.* classes alone .--without"):
        prepare_recording(bag, None, tmp_path / "a", PrepareConfig())


def test_pixels_without_a_class_are_kept_behind_those_with_one(tmp_path):
    """A third of the columns have lost their class: their distances stay, in the last group of their image."""

    def labels(frame, camera):
        semantic, depth = tiny_bag.sparse_labels(frame, camera)
        return np.where(np.arange(WIDTH) < WIDTH // 3, 255, semantic).astype(np.uint8), depth

    tables = Tables(
        prepare_recording(write_bag(tmp_path / "bag", Plan(2, labels)), None, tmp_path / "t", PrepareConfig())
    )
    for frame in range(2):
        for index, camera in enumerate(("front", "wide")):
            _, depth = tiny_bag.sparse_labels(frame, camera)
            first, middle, last = tables.starts[frame, index, [0, -2, -1]]
            assert last - first == (depth > 0).sum() and last - middle == (depth[:, : WIDTH // 3] > 0).sum()
            assert (tables.pixels[first:middle, 0] >= WIDTH // 3).all()
            assert (tables.pixels[middle:last, 0] < WIDTH // 3).all() and (tables.distances[first:last] > 0).all()
    assert tables.unlabelled_count + tables.class_counts.sum() == len(tables.pixels)


@pytest.mark.parametrize("semantic", [np.full((HEIGHT, WIDTH), 255, np.uint8), None], ids=["empty", "no topic"])
def test_recordings_without_any_class_can_be_prepared_for_depth_alone(tmp_path, capsys, semantic):
    plan = Plan(frames=1, labels=lambda frame, camera: (semantic, tiny_bag.sparse_labels(frame, camera)[1]))
    bag = write_bag(tmp_path / "bag", plan)
    assert main([str(bag), "--out", str(tmp_path / "t"), "--jobs", "1"]) == 0
    tables = Tables(tmp_path / "t" / "bag")
    assert len(tables.pixels) == tables.unlabelled_count > 500 and not tables.class_counts.any()
    assert "labelled pixels, none with a class: training learns only depth" in capsys.readouterr().out


def test_dense_labels_can_be_thinned_out_evenly_and_always_alike(tmp_path):
    """Of 3072 labelled pixels an image, 600 stay: 19.5% of each class, to within chance (4 sigma of a draw of 600)."""
    ids = np.where(np.arange(WIDTH) < WIDTH // 4, 4, 11) * np.ones((HEIGHT, 1), int)  # a quarter cars
    plan = Plan(frames=2, labels=lambda *_: (ids.astype(np.uint8), np.full((HEIGHT, WIDTH), 9.0)))
    bag, config = write_bag(tmp_path / "bag", plan), PrepareConfig(pixels_per_image=600)
    tables = Tables(prepare_recording(bag, None, tmp_path / "a", config))
    sizes = np.diff(tables.starts, axis=2)
    assert (sizes.sum(axis=2) == 600).all() and (np.abs(sizes[..., 4] - 150) < 4 * np.sqrt(600 * 0.25 * 0.75)).all()
    chosen = [set(map(tuple, tables.pixels[one[0] : one[-1]].tolist())) for one in tables.starts.reshape(4, -1)]
    assert all(len(pixels) == 600 for pixels in chosen) and chosen[0] != chosen[2]
    assert contents(prepare_recording(bag, None, tmp_path / "b", config)) == contents(tables.folder)
    everything = Tables(prepare_recording(bag, None, tmp_path / "c", PrepareConfig(pixels_per_image=WIDTH * HEIGHT)))
    assert len(everything.pixels) == 4 * WIDTH * HEIGHT


def refused(bag: Path, out: Path, capsys, *options: str) -> str:
    """What the command says when it refuses; nothing that looks whole is left."""
    assert main([str(bag), "--out", str(out), "--jobs", "1", *options]) == 2
    with pytest.raises(TablesError):
        list_tables(out)
    return capsys.readouterr().err


def test_ids_outside_of_the_table_are_named(tmp_path, capsys):
    strange = (np.full((HEIGHT, WIDTH), 40, np.uint8), np.ones((HEIGHT, WIDTH)))
    bag = write_bag(tmp_path / "ids", Plan(frames=1, labels=lambda *_: strange))
    text = refused(bag, tmp_path / "out", capsys)
    assert "ids: /front/semantic/compressed at 1700000000.000 s" in text and "class id 40 is not in the table" in text


def test_images_of_another_size_are_named(tmp_path, capsys):
    bag = write_bag(tmp_path / "size", Plan(frames=1, images=lambda *_: np.zeros((32, 32, 3), np.uint8)))
    assert "/front/image_raw/compressed at 1700000000.000 s" in (text := refused(bag, tmp_path / "out", capsys))
    assert "image is 32x32 but camera_info says 64x48" in text


def test_labels_of_another_size_are_named(tmp_path, capsys):
    small = (np.zeros((24, 32), np.uint8), np.ones((24, 32)))
    bag = write_bag(tmp_path / "small", Plan(frames=1, labels=lambda *_: small))
    assert "label image is 32x24 but the camera is 64x48" in refused(bag, tmp_path / "out", capsys)


def test_frames_without_pose_are_named_and_left_out_when_asked_for(tmp_path, capsys):
    poses = list(range(START_NS + FRAME_NS - 100_000_000, START_NS + 4 * FRAME_NS, 20_000_000))
    bag = write_bag(tmp_path / "late", Plan(poses=poses))
    text = refused(bag, tmp_path / "out", capsys)
    assert "no ego pose on /tf at 1700000000.000 s" in text and "--skip-unposed" in text
    assert main([str(bag), "--out", str(tmp_path / "out"), "--jobs", "1", "--skip-unposed"]) == 0
    assert len(Tables(tmp_path / "out" / "late")) == 3


def test_a_recording_without_labels_is_named(tmp_path, capsys):
    bag = write_bag(tmp_path / "bare", Plan(frames=1, labels=lambda *_: None))
    assert "bare: no image of front, wide has labels" in refused(bag, tmp_path / "out", capsys)


def test_missing_camera_info_is_named(tmp_path, capsys, monkeypatch):
    bag = write_bag(tmp_path / "info", Plan(frames=1))
    found = frames.find_cameras

    def without_info(bag, wanted):  # as if /wide/camera_info had not been recorded
        bag.topics.pop("/wide/camera_info")
        return found(bag, wanted)

    monkeypatch.setattr(frames, "find_cameras", without_info)
    text = refused(bag, tmp_path / "out", capsys)
    assert "info: /wide/camera_info missing" in text and "--cameras front" in text
    assert main([str(bag), "--out", str(tmp_path / "out"), "--jobs", "1", "--cameras", "front"]) == 0


def test_recordings_that_cannot_be_read_are_named(bag, tmp_path, capsys):
    assert "nowhere: there is no such file" in refused(tmp_path / "nowhere", tmp_path / "out", capsys)
    copy = tmp_path / "cut"
    shutil.copytree(bag, copy)
    file = copy / "drive.mcap"
    file.write_bytes(file.read_bytes()[:-2000])
    assert "drive.mcap: the file is cut off" in refused(copy, tmp_path / "out", capsys)
    (copy / "metadata.yaml").unlink()
    assert "no metadata.yaml" in refused(copy, tmp_path / "out", capsys)
    with Writer(tmp_path / "empty", version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    assert "empty: the recording holds no messages" in refused(tmp_path / "empty", tmp_path / "out", capsys)


def test_recordings_of_one_name_and_sidecars_of_another_number_are_refused(bag, tmp_path, capsys):
    other = tmp_path / "copies" / "drive"
    shutil.copytree(bag, other)
    assert main([str(bag), str(other), "--out", str(tmp_path / "out")]) == 2
    assert f"several recordings are called drive: {bag} and {other} would be written to" in capsys.readouterr().err
    assert main([str(bag), "--labels", "a", "b", "--out", str(tmp_path)]) == 2
    assert "--labels names 2 sidecars for 1 recordings" in capsys.readouterr().err


def test_every_setting_is_an_option_with_the_same_words():
    text = " ".join(prepare.parser().format_help().split())
    for setting in settings_of(PrepareConfig):
        option = setting.name.rpartition(".")[2].replace("_", "-")  # of a nested class, its own name
        assert f"--{option} " in text and setting.help in text, setting.name
