"""`renderocc label --classes-from ground` on the town, against its exact classes, and what follows from its table."""

import json

import numpy as np
import pytest

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES
from renderocc_model.field.conversion import converted_ids
from renderocc_model.rosio.vehicle import Vehicle
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import Tables
from training.evaluate.metrics import main as metrics
from training.label import ground_clouds, main
from training.recordings.frames import Recording
from training.recordings.notes import noted_classes

pytestmark = pytest.mark.slow
CAMERAS = ("--cameras", "cam_front", "cam_back_left")
TO_TWO = converted_ids(OCC3D_NUSCENES, GROUND_OBSTACLE)
GROUND, OBSTACLE = 0, 1


@pytest.fixture(scope="module")
def sidecars(town_bag, tmp_path_factory):
    """Sidecars with classes from the ground: of the LiDAR by Patchwork++ and by a plane, and of depth images."""
    folder = tmp_path_factory.mktemp("ground")
    made = {
        "plane": ("--ground-method", "plane"),
        "images": ("--depth-topic", "/{camera}/depth"),
    }
    if ground_clouds.have_patchwork():
        made["patchwork"] = ()
    for name, options in made.items():
        words = [str(town_bag), "--classes-from", "ground", "--out", str(folder / name), *CAMERAS, *options]
        assert main(words) == 0
    return folder


def compared(town_bag, sidecar):
    """Class of the sidecar, exact class of the two, and depth, of all pixels of the sidecar that have a class."""
    rows = []
    with Recording(town_bag) as exact, Recording(town_bag, sidecar) as labels:
        for camera in CAMERAS[1:]:
            for stamp_ns in exact.stamps[camera]:
                depth, got = labels.depth(camera, stamp_ns), labels.semantic(camera, stamp_ns)
                wanted = TO_TWO[exact.semantic(camera, stamp_ns)]
                both = (got != 255) & (wanted != 255)
                rows.append(np.stack([got[both], wanted[both], depth[both]]))
    return np.concatenate(rows, axis=1)


# Least share of right labels: of ground and obstacles nearer than 15 m, and farther. Of the LiDAR's, some are at edges
# where the camera sees another surface than it. The grass beside this road rises above the plane of the road.
LEAST = {
    "patchwork": ((0.97, 0.95), (0.93, 0.93)),
    "plane": ((0.85, 0.95), (0.45, 0.95)),
    "images": ((0.97, 0.94), (0.75, 0.93)),
}


@pytest.mark.parametrize("method", LEAST)
def test_ground_and_obstacles_agree_with_the_exact_classes(town_bag, sidecars, method):
    if method == "patchwork":
        pytest.importorskip("pypatchworkpp")
    got, wanted, depth = compared(town_bag, sidecars / method)
    assert set(np.unique(got)) == {GROUND, OBSTACLE}
    for part, least in zip((depth < 15, depth >= 15), LEAST[method]):
        for which in (GROUND, OBSTACLE):
            of_class = part & (wanted == which)
            assert np.count_nonzero(of_class) > 500
            assert (got[of_class] == which).mean() > least[which], (which, least)


def test_the_sidecar_says_what_its_ids_mean_and_where_the_ground_is(sidecars):
    assert noted_classes(sidecars / "plane") == GROUND_OBSTACLE
    note = (sidecars / "plane" / "labels.yaml").read_text()
    assert "ground and obstacle by plane" in note and "base_link is 0.0" in note
    assert "by the plane of the road" in (sidecars / "images" / "labels.yaml").read_text()


@pytest.mark.parametrize(
    "options, fault",
    [
        (["--classes", "occ3d_nuscenes"], "--classes-from ground gives the classes of ground_obstacle, not of occ3d"),
        (["--ground-sweeps", "0"], "--ground-sweeps is 0; expected at least 1"),
        (["--mapping", "cityscapes"], "--mapping was given, but no ids to map"),
        (
            ["--depth-topic", "/{camera}/depth", "--ground-method", "patchwork"],
            "patchwork is for the clouds of a LiDAR",
        ),
    ],
)
def test_what_does_not_go_together_is_named(town_bag, tmp_path, capsys, options, fault):
    assert main([str(town_bag), "--classes-from", "ground", "--out", str(tmp_path / "out"), *options]) == 2
    assert fault in capsys.readouterr().err


def test_a_missing_library_is_one_line_that_says_what_to_install(town_bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ground_clouds, "have_patchwork", lambda: False)
    assert main([str(town_bag), "--classes-from", "ground", "--out", str(tmp_path / "out")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("renderocc label: --")]
    assert errors == [
        "renderocc label: --classes-from ground needs Patchwork++ for clouds: pip install pypatchworkpp; or give "
        "--ground-method plane"
    ]


def test_truth_of_another_table_is_converted_when_its_table_is_named(town_bag, sidecars, tmp_path):
    vehicle = Vehicle(cameras=CAMERAS[1:])
    with pytest.raises(ValueError, match="class ids .* are not in the table of 3 classes.*with --truth-classes"):
        prepare_recording(town_bag, sidecars / "plane", tmp_path / "wrong", PrepareConfig(vehicle=vehicle))
    config = PrepareConfig(truth_classes="occ3d_nuscenes", vehicle=vehicle)
    tables = Tables(prepare_recording(town_bag, sidecars / "plane", tmp_path / "tables", config))
    assert tables.classes == GROUND_OBSTACLE
    stamp_ns = int(tables.stamps[0])
    whole = np.load(town_bag / "occupancy" / f"{stamp_ns}.npz")
    arrays = tables.truth_arrays(0)
    # driveable_surface, other_flat, sidewalk and terrain are 11 to 14
    is_ground = (whole["semantics"] >= 11) & (whole["semantics"] <= 14)
    assert np.array_equal(arrays["semantics"] == GROUND, is_ground)
    assert np.array_equal(arrays["semantics"] == GROUND_OBSTACLE.free, whole["semantics"] == OCC3D_NUSCENES.free)
    assert np.array_equal(arrays["mask_camera"], whole["mask_camera"])


def test_metrics_compares_volumes_of_two_classes_with_truth_of_eighteen(town_bag, tmp_path):
    file = sorted((town_bag / "occupancy").glob("*.npz"))[0]
    whole = np.load(file)
    for name in ("predicted", "truth"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "truth" / "0.npz", semantics=whole["semantics"], mask_camera=whole["mask_camera"])
    np.savez(tmp_path / "predicted" / "0.npz", semantics=TO_TWO[whole["semantics"]])
    words = [str(tmp_path / "predicted"), str(tmp_path / "truth"), "--classes", "ground_obstacle"]
    words += ["--truth-classes", "occ3d_nuscenes", "--flat-ground", "--rayiou", "--json", str(tmp_path / "out.json")]
    assert metrics(words) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["miou"] == 1 and set(result["iou"]) >= {"ground", "obstacle"}
    assert 0.1 < result["baselines"]["flat_ground"]["iou"]["ground"] < 1
    assert result["baselines"]["flat_ground"]["iou"]["obstacle"] == 0
