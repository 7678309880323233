"""From a published dataset to training rays, as a user goes: import, label, check, prepare, and a sample."""

import re

import numpy as np
import pytest
from realdata import REALDATA, needs_realdata
from scipy.spatial import cKDTree
from test_import_nuscenes import clouds, real_keyframe
from test_import_semantickitti import write_sequence

from renderocc_model.cli import main
from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.geometry.transforms import transform_points
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare.tables import Tables
from training.recordings.frames import Recording

pytestmark = [needs_realdata, pytest.mark.realdata]
DRIVEABLE, VEGETATION, EGO = 24, 30, 31  # of lidarseg


def chain(capsys, kind: str, root, tmp_path, name: str) -> tuple:
    """Run the four commands with no more arguments than they need; (recording, dataset, what `check` said)."""
    bag = tmp_path / "recordings" / name
    for command in (
        ["import", kind, root, "--out", bag.parent],
        ["label", bag, "--preview", tmp_path / "look"],
        ["check", bag],
        ["prepare", bag, "--out", tmp_path / "tables", "--jobs", "1"],
    ):
        assert main([str(part) for part in command]) == 0, capsys.readouterr()
        out = capsys.readouterr().out
        if command[0] == "check":
            said = out
        else:
            assert re.search(r"^wrote .*$", out.splitlines()[-1]), out
    dataset = RayDataset(tmp_path / "tables", SampleConfig(64, 128, rays=1_000_000, truth=True))
    return bag, dataset, said


def ends_of(rays) -> np.ndarray:
    return (rays.origins + rays.directions * rays.distances[:, None]).numpy()


def all_end_at_a_return_of_their_class(bag, rays) -> None:
    """A return's z-depth is kept to a millimetre and its place in the image moves to a pixel's middle.

    That is at most 0.7072 pixels, half a pixel's diagonal; a pixel is z / f metres wide, and z less than the distance.
    """
    (cloud,) = clouds(bag)
    with Recording(bag) as recording:
        assert recording.frames()[0].stamp_ns == cloud[0]
        base_from_lidar = recording.transforms.lookup("base_link", cloud[1], cloud[0])
        pixel = max(1 / model.K[0, 0] for model in recording.models.values())
    points = transform_points(base_from_lidar, cloud[3].astype(float))
    ends, classes = ends_of(rays), rays.classes.numpy()
    for name in np.unique(classes):
        away = cKDTree(points[cloud[4] == name]).query(ends[classes == name])[0]
        assert (away < 0.7072 * pixel * rays.distances[classes == name].numpy() + 0.002).all(), name


def test_a_nuscenes_keyframe_becomes_rays_that_end_at_its_lidar_returns(tmp_path, capsys):
    """Real images, poses and points; classes by height, as lidarseg is not at hand; what is near is the vehicle."""

    def lidarseg(points):
        raw = np.where(points[:, 2] < 0.3, DRIVEABLE, VEGETATION)
        return np.where(np.linalg.norm(points[:, :2], axis=1) < 3, EGO, raw).astype(np.uint8)

    root = real_keyframe(tmp_path / "nuscenes", lidarseg).write()
    bag, dataset, said = chain(capsys, "nuscenes", root, tmp_path, "scene-0001")
    assert "0 failures" in said and "100.0% of these have a class" in said
    sample = dataset.sample(0, 0)
    assert sample.current.present.all() and sample.truth["semantics"].shape == (200, 200, 16)
    road, plants = (OCC3D_NUSCENES.id_of(name) for name in ("driveable_surface", "vegetation"))
    rays = sample.rays
    assert set(np.unique(rays.classes)) == {road, plants} and len(rays) > 15_000
    assert (clouds(bag)[0][4] == 254).sum() > 1000  # returns from the vehicle itself; no ray is of them
    all_end_at_a_return_of_their_class(bag, rays)
    assert len(list((tmp_path / "look").glob("*.jpg"))) == 6


def test_a_semantic_kitti_scan_becomes_rays_of_its_own_classes(tmp_path, capsys):
    """A real scan with its labels before grey pictures; nobody says which class table it is, the import knows."""
    scan = (REALDATA / "semantickitti_scan" / "000000.bin").read_bytes()
    labels = (REALDATA / "semantickitti_scan" / "000000.label").read_bytes()
    write_sequence(tmp_path / "kitti" / "dataset" / "sequences" / "00", 1, scan, labels)
    bag, dataset, said = chain(capsys, "semantickitti", tmp_path / "kitti", tmp_path, "00")
    assert "0 failures" in said and "road" in said
    sample = dataset.sample(0, 0)
    assert dataset.classes == SEMANTIC_KITTI and sample.truth["semantics"].shape == (256, 256, 32)
    rays = sample.rays
    # The scan's unlabelled returns (0, 52, 99) are rays of known distance and no class.
    assert (rays.classes == 255).any() and len(np.unique(rays.classes)) > 8 and len(rays) > 20_000
    all_end_at_a_return_of_their_class(bag, rays)
    # The Velodyne stands 1.73 m above the road.
    road = rays.classes == SEMANTIC_KITTI.id_of("road")
    assert np.median(ends_of(rays)[road, 2]) == pytest.approx(-1.73, abs=0.1)


def test_a_recording_with_a_lidar_and_no_classes_becomes_rays_of_depth_alone(tmp_path, capsys):
    """DDAD: nothing says what a point is. Three frames, 10,718 points in camera_07 of the first before hiding."""
    bag, sidecar = REALDATA / "ddad_6cam", tmp_path / "labels"
    assert main(["label", str(bag), "--out", str(sidecar)]) == 0
    assert main(["check", str(bag), "--labels", str(sidecar)]) == 0
    said = capsys.readouterr().out
    assert "warn  classes: no pixel of the labels" in said and "training learns only depth" in said
    assert main(["prepare", str(bag), "--labels", str(sidecar), "--out", str(tmp_path / "t"), "--jobs", "1"]) == 0
    assert "none with a class: training learns only depth" in capsys.readouterr().out
    dataset = RayDataset(tmp_path / "t", SampleConfig(64, 128, rays=20_000, auxiliary_offsets=(1, 2)))
    rays = dataset.sample(0, 0).rays
    assert len(dataset) == 3 and (rays.classes == 255).all() and (rays.distances > 0).all()
    assert set(rays.frame_offsets.tolist()) == {0, 1, 2}
    tables = Tables(tmp_path / "t" / "ddad_6cam")
    camera = dataset.camera_names.index("camera_07")
    assert 0.8 * 10_718 < tables.starts[0, camera, -1] - tables.starts[0, camera, 0] < 10_718
