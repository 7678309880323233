"""`renderocc label`: labels lie where the world is, hidden points are none, and the recording stays as it was."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from realdata import REALDATA, needs_realdata
from rosbags.rosbag2 import Reader
from town import FRAMES, HEIGHT, WIDTH, rewritten, stamp_of

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio import cdr
from renderocc_model.rosio.vehicle import Vehicle
from training.label import main
from training.label.clouds import LabelField, LabelledCloud, LidarClouds, null_returns
from training.label.from_clouds import labels_from_clouds
from training.label.from_images import Segmenter, recorded_classes, recorded_depth
from training.label.mapping import ClassMapping, LabelError, load_mapping, mapping_from
from training.label.projection import Occlusion, hidden_points, project_points
from training.recordings.frames import Recording
from training.recordings.label_images import depth_png, semantic_png
from training.recordings.notes import noted_classes
from training.recordings.raw_classes import NO_SURFACE
from training.recordings.stamped_topic import StampedTopic

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),  # TorchScript is what people have
]
ROOT = Path(__file__).resolve().parents[1]
CAR, ROAD = (OCC3D_NUSCENES.id_of(name) for name in ("car", "driveable_surface"))
# 100 px focal length, principal point in the middle of 200x100.
MODEL = CameraModel(200, 100, [[100, 0, 100], [0, 100, 50], [0, 0, 1]], "plumb_bob", ())
HERE = np.eye(4)


def cloud(points, classes=None):
    points = np.asarray(points, float).reshape(-1, 3)
    return LabelledCloud(0, "lidar", points, None if classes is None else np.full(len(points), classes, np.uint8))


def wall(z, x=(-2.0, 2.0), y=(-1.0, 1.0), step=0.1):
    """Points of an upright wall at a depth, as (N, 3) in the optical frame."""
    u, v = np.meshgrid(np.arange(*x, step), np.arange(*y, step))
    return np.stack([u.ravel(), v.ravel(), np.full(u.size, z)], -1)


# ------------------------------------------------------------------------------------------------ projecting, hiding


@needs_realdata
@pytest.mark.parametrize(
    ("name", "camera", "points", "hits", "in_image"),
    # As in test_rig.py: the known counts take 0 <= u < W; this project's image reaches from -0.5 to W - 0.5.
    [("ddad_6cam", "camera_07", 47_230, 10_718, 10_718), ("nuscenes_keyframe", "cam_front", 34_688, 3_067, 3_060)],
)
def test_as_many_lidar_points_fall_into_real_images_as_is_known(name, camera, points, hits, in_image):
    with Recording(REALDATA / name) as recording:
        lidar = LidarClouds(recording, StampedTopic(recording.bag, "/lidar/points"), None)
        stamp, model = recording.stamps[camera][0], recording.models[camera]
        (sweep,) = lidar.around(stamp)
        assert len(sweep.xyz) == points
        seen = project_points(model, lidar.camera_from_cloud(camera, stamp, sweep), sweep.xyz, min_depth=1.0)
    assert ((seen.pixels >= 0) & (seen.pixels < (model.width, model.height))).all(axis=1).sum() == hits
    assert seen.in_image.sum() == in_image


def test_a_point_lands_on_its_pixel_with_its_depth_and_the_nearest_of_a_pixel_counts():
    # (0.5, -0.2) at 10 m: u = 100 + 100 * 0.05 = 105, v = 50 - 2 = 48. At 20 m and 0.3 px beside it: the same pixel.
    points = [[0.5, -0.2, 10.0], [1.06, -0.4, 20.0], [0, 0, 0.5], [np.nan, 0, 5], [0, 0, -3]]
    labels = labels_from_clouds(MODEL, [(HERE, cloud(points, CAR))], OCC3D_NUSCENES, occlusion=None)
    assert np.argwhere(labels.depth).tolist() == [[48, 105]]
    assert labels.depth[48, 105] == 10.0 and labels.semantic[48, 105] == CAR
    assert (labels.semantic != UNLABELLED).sum() == 1


def test_what_shows_between_the_rows_of_a_nearer_surface_is_hidden():
    # Rows 0.3 m apart at 5 m are 6 px apart: without removal the wall behind would show between them.
    u, v = np.meshgrid(np.arange(-1, 1.01, 0.05), np.arange(-0.9, 0.91, 0.3))
    near = np.stack([u.ravel(), v.ravel(), np.full(u.size, 5.0)], -1)
    far = wall(10.0, (-4, 4), (-3.5, 3.5), 0.13)
    points = project_points(MODEL, HERE, np.concatenate([near, far]))
    points = points.kept(points.in_image)
    hidden = hidden_points(MODEL, points)
    is_near = points.index < len(near)
    assert not hidden[is_near].any()
    # The near wall covers u 80..120, v 32..68.
    behind = ~is_near & (np.abs(points.pixels - (100, 50)) < (19, 17)).all(axis=1)
    beside = ~is_near & (np.abs(points.pixels - (100, 50)) > (24, 19)).any(axis=1)
    assert behind.sum() > 100 and hidden[behind].all()
    assert beside.sum() > 500 and not hidden[beside].any()


def test_the_footprint_grows_with_nearness():
    # A gap of 12 px between two rows is 0.6 m at 5 m: closed by half a metre up and down. At 20 m it is 2.4 m: open.
    def middle_is_hidden(z):
        half = 6 * z / 100
        rows = [[x, y, z] for x in np.arange(-z / 20, z / 20, z / 200) for y in (-half, half)]
        return hidden_points(MODEL, project_points(MODEL, HERE, np.array([*rows, [0, 0, 3 * z]])))[-1]

    assert middle_is_hidden(5.0) and not middle_is_hidden(20.0)


def test_ground_and_walls_along_the_view_do_not_hide_themselves():
    x, z = np.meshgrid(np.arange(-6, 6, 0.1), np.arange(2, 40, 0.1))
    ground = np.stack([x.ravel(), np.full(x.size, 1.5), z.ravel()], -1)
    y, z = np.meshgrid(np.arange(-3, 1.5, 0.1), np.arange(4, 40, 0.1))
    side = np.stack([np.full(y.size, 4.0), y.ravel(), z.ravel()], -1)
    model = CameraModel(704, 256, [[550, 0, 352], [0, 550, 128], [0, 0, 1]], "plumb_bob", ())
    for surface in (ground, side):
        points = project_points(model, HERE, surface)
        points = points.kept(points.in_image)
        assert len(points.index) > 5000 and hidden_points(model, points).mean() < 0.002


def test_no_points_are_no_labels():
    labels = labels_from_clouds(MODEL, [(HERE, cloud([], CAR))], OCC3D_NUSCENES)
    assert not labels.depth.any() and (labels.semantic == UNLABELLED).all()


def test_of_further_clouds_what_moves_is_left_out():
    first = (HERE, cloud([[0, 0, 10]], CAR))
    later = cloud([[1, 0, 10], [2, 0, 10]])
    later = LabelledCloud(1, "lidar", later.xyz, np.array([CAR, ROAD], np.uint8))
    labels = labels_from_clouds(MODEL, [first, (HERE, later)], OCC3D_NUSCENES)
    assert {tuple(p): labels.semantic[tuple(p)] for p in np.argwhere(labels.depth)} == {(50, 100): CAR, (50, 120): ROAD}
    # Of sweeps between labelled keyframes no point has a class, so it may have moved.
    unlabelled = LabelledCloud(1, "lidar", later.xyz, np.full(2, UNLABELLED, np.uint8))
    labels = labels_from_clouds(MODEL, [first, (HERE, unlabelled)], OCC3D_NUSCENES)
    assert np.argwhere(labels.depth).tolist() == [[50, 100]]
    # Nobody knows whether an obstacle moves: it comes from the nearest cloud alone. The ground comes from all.
    two = [LabelledCloud(0, "lidar", np.array([[0.0, 0, 10]]), np.array([1], np.uint8))]
    two.append(LabelledCloud(1, "lidar", later.xyz, np.array([1, 0], np.uint8)))
    labels = labels_from_clouds(MODEL, [(HERE, each) for each in two], GROUND_OBSTACLE)
    assert {tuple(p): labels.semantic[tuple(p)] for p in np.argwhere(labels.depth)} == {(50, 100): 1, (50, 120): 0}
    # The same by the classes of the picture, where points have none.
    dense = np.full((100, 200), ROAD, np.uint8)
    dense[:, 95:115] = CAR
    later = (HERE, cloud([[1, 0, 10], [2, 0, 10]]))
    labels = labels_from_clouds(MODEL, [(HERE, cloud([[0, 0, 10]])), later], OCC3D_NUSCENES, dense)
    assert np.argwhere(labels.depth).tolist() == [[50, 100], [50, 120]] and labels.semantic is dense


# ---------------------------------------------------------------------------------------------------------- the town


@pytest.fixture(scope="module")
def labelled(town_bag, tmp_path_factory):
    """The town's own labels left out, labelled anew from its LiDAR; (recording, sidecar, previews, standard output)."""
    folder = tmp_path_factory.mktemp("label")
    own = ("semantic/compressed", "depth/compressed")
    bag = rewritten(town_bag, folder / "drive", drop=lambda topic: topic.endswith(own))
    before = {path: path.read_bytes() for path in bag.rglob("*") if path.is_file()}
    assert main([str(bag), "--preview", str(folder / "look"), "--preview-count", "1"]) == 0
    assert {path: path.read_bytes() for path in bag.rglob("*") if path.is_file()} == before
    return bag, folder / "drive_labels", folder / "look"


def agreement(truth_bag, bag, sidecar):
    """Share of labelled pixels whose depth and class are those of the ray-traced truth, and how many there are."""
    deep = right = total = 0
    with Recording(truth_bag) as truth, Recording(bag, sidecar) as made:
        for camera in made.cameras:
            for stamp in made.stamps[camera]:
                assert made.has_labels(camera, stamp)
                depth, true_depth = made.depth(camera, stamp), truth.depth(camera, stamp)
                both = (depth > 0) & (true_depth > 0)
                deep += (np.abs(depth - true_depth)[both] < 0.5 + 0.1 * true_depth[both]).sum()
                right += (made.semantic(camera, stamp) == truth.semantic(camera, stamp))[both].sum()
                total += both.sum()
    return deep / total, right / total, total


def test_labels_from_the_towns_lidar_are_those_of_its_cameras(labelled, town_bag):
    bag, sidecar, _ = labelled
    deep, right, total = agreement(town_bag, bag, sidecar)
    assert total > 18 * 400 and deep > 0.95 and right > 0.95
    assert noted_classes(sidecar) == OCC3D_NUSCENES


def test_removing_hidden_points_and_more_sweeps_pay(town_bag, labelled, tmp_path):
    _, sidecar, _ = labelled
    assert main([str(town_bag), "--out", str(tmp_path / "kept"), "--keep-hidden", "--jobs", "1"]) == 0
    assert main([str(town_bag), "--out", str(tmp_path / "three"), "--sweeps", "3", "--storage", "sqlite3"]) == 0
    deep, _, total = agreement(town_bag, town_bag, sidecar)
    kept_deep, _, kept_total = agreement(town_bag, town_bag, tmp_path / "kept")
    three_deep, _, three_total = agreement(town_bag, town_bag, tmp_path / "three")
    assert 1 - deep < 0.6 * (1 - kept_deep) and kept_total * 0.85 < total < kept_total
    assert three_total > 1.7 * total and three_deep > 0.95


def test_the_sidecar_has_the_images_stamps_and_frames(labelled):
    bag, sidecar, look = labelled
    with Reader(sidecar) as reader:
        messages = [(c.topic, cdr.read_compressed_image(raw)) for c, _, raw in reader.messages()]
    assert len(messages) == 2 * 6 * FRAMES
    for topic, message in messages:
        assert message.frame_id == topic.split("/")[1] + "_optical"
        image = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
        assert image.shape == (HEIGHT, WIDTH) and image.dtype == (np.uint16 if "/depth" in topic else np.uint8)
        assert message.format.startswith("16UC1; png" if "/depth" in topic else "mono8; png")
    pictures = sorted(look.glob("*.jpg"))
    assert len(pictures) == 6 and cv2.imread(str(pictures[0])).shape == (2 * HEIGHT, WIDTH, 3)


def test_it_ends_with_a_table_and_the_path(town_bag, tmp_path, capsys):
    out = tmp_path / "labels"
    assert main([str(town_bag), "--out", str(out), "--cameras", "cam_front"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"wrote {out}" and lines[1].split()[:2] == ["cam_front", f"{FRAMES}/{FRAMES}"]
    assert any(line.startswith("driveable_surface") and line.endswith("%") for line in lines)


def test_pixels_of_the_vehicle_itself_get_no_labels(town_bag, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    arguments = [str(town_bag), "--cameras", "cam_front", "--masks", str(masks), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2 and "has no <camera>.png of cam_front" in capsys.readouterr().err
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[100:] = 255
    cv2.imwrite(str(masks / "cam_front.png"), mask[:, :-1])
    assert main(arguments) == 2 and "is 351x128 but the camera is 352x128" in capsys.readouterr().err
    cv2.imwrite(str(masks / "cam_front.png"), mask)
    assert main(arguments) == 0
    with Recording(town_bag, tmp_path / "out", Vehicle(cameras=("cam_front",))) as made:
        stamp = made.stamps["cam_front"][0]
        semantic, depth = made.semantic("cam_front", stamp), made.depth("cam_front", stamp)
    assert (semantic[100:] == UNLABELLED).all() and not depth[100:].any()
    assert (semantic[:100] != UNLABELLED).any() and depth[:100].any()


def test_images_without_a_cloud_are_left_out_and_counted(town_bag, tmp_path, capsys):
    clouds = []

    def first_only(topic, when, data):
        if topic == "/lidar/points":
            clouds.append(when)
            return [(topic, when, data)] if len(clouds) == 1 else []
        return [(topic, when, data)]

    bag = rewritten(town_bag, tmp_path / "drive", first_only)
    assert main([str(bag)]) == 0
    out = capsys.readouterr().out
    assert (
        f"{6 * (FRAMES - 1)} images without labels, first cam_" in out
        and "no cloud on /lidar/points within 0.1 s" in out
    )
    with Recording(bag, tmp_path / "drive_labels") as recording:
        assert sum(recording.has_labels("cam_front", stamp) for stamp in recording.stamps["cam_front"]) == 1


def test_where_nothing_can_be_labelled_nothing_is_left(town_bag, tmp_path, capsys):
    bag = rewritten(town_bag, tmp_path / "drive", drop=lambda topic: topic == "/tf")
    # The front camera fires with the LiDAR: between equal stamps nothing moves, and its labels need no ego pose.
    assert main([str(bag), "--cameras", "cam_back", "cam_back_left"]) == 2
    error = capsys.readouterr().err
    assert "no image could be labelled" in error and "no ego pose on /tf" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive"]
    bag = rewritten(town_bag, tmp_path / "blind", drop=lambda topic: topic == "/lidar/points")
    assert main([str(bag)]) == 2
    assert "no PointCloud2 topic for depth; record the LiDAR" in capsys.readouterr().err


def test_a_damaged_cloud_is_named_with_its_topic_and_time(town_bag, tmp_path, capsys):
    for index, name in enumerate(("first", "second")):
        seen = []

        def cut(topic, when, data, index=index, seen=seen):
            if topic == "/lidar/points":
                seen.append(when)
                data = data[:-500] if len(seen) == index + 1 else data
            return [(topic, when, data)]

        bag = rewritten(town_bag, tmp_path / name, cut, truth=False)
        assert main([str(bag)]) == 2
        error = capsys.readouterr().err
        assert f"{bag}: /lidar/points at 1700000000.{5 * index}00 s" in error and "it was cut short" in error
        assert not (tmp_path / f"{name}_labels").exists()


def test_a_full_disk_leaves_nothing_behind(town_bag, tmp_path):
    """Files of this process may not grow beyond 30 kB, which fails as a full disk does."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))"
    code = f"{limit}; from training.label import main; import sys; sys.exit(main(sys.argv[1:]))"
    out = tmp_path / "out" / "labels"
    command = [sys.executable, "-c", code, str(town_bag), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{bag}/labels"], "is inside the recording"),
        (["--preview", "{bag}/look"], "is inside the recording"),
        (["--out", "{bag}"], "exists; name another folder"),
        (["--lidar", "/front/points"], "no sensor_msgs/msg/PointCloud2 on /front/points; there are /lidar/points"),
        (["--label-field", "class"], "has no field 'class'; it has x, y, z, intensity, label"),
        (["--label-field", "intensity"], "/lidar/points at .*name the field of class ids"),
        (["--semantic-topic", "/labels"], "write {camera} in place of the camera's name"),
        (["--semantic-topic", "/{camera}/seg"], "has images on /{camera}/seg; correct"),
        (["--mapping", "nowhere.yaml"], "there is no such file; the built-in mappings are lidarseg"),
        (["--classes", "cityscapes"], "there is no class table 'cityscapes'"),
        (["--sweeps", "0"], "--sweeps is 0; expected at least 1"),
        (["--cameras", "nose"], "camera 'nose': no images on /nose/image_raw"),
    ],
)
def test_wrong_arguments_are_named_and_leave_nothing(town_bag, tmp_path, capsys, arguments, message):
    given = [str(town_bag), *(["--out", str(tmp_path / "out")] if "--out" not in arguments else [])]
    before = sorted(town_bag.iterdir())
    assert main(given + [word.replace("{bag}", str(town_bag)) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("renderocc label: ") or "\nrenderocc label: " in error
    assert message in error or re.search(message.replace("{", r"\{").replace("}", r"\}"), error), error
    assert not any(tmp_path.iterdir()) and sorted(town_bag.iterdir()) == before


# ----------------------------------------------------------------------------------------------------- other sources


def test_depth_and_label_images_become_labels_pixel_for_pixel(town_bag, tmp_path):
    """The town's own labels, under other names, ids and encodings: compressedDepth, and colours.

    What the mapping calls no surface (here: sidewalks) has neither class nor depth.
    """
    palette = OCC3D_NUSCENES.palette()

    def renamed(topic, when, data):
        if topic == "/cam_front/depth/compressed":
            message = cdr.read_compressed_image(data)
            png = struct.pack("<iff", 0, 0, 0) + message.data.tobytes()
            new = cdr.write_compressed_image(message.stamp_ns, "f", "16UC1; compressedDepth png", png)
            return [("/cam_front/range/compressedDepth", when, new)]
        if topic == "/cam_front/semantic/compressed":
            message = cdr.read_compressed_image(data)
            ids = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
            colours = np.where((ids == UNLABELLED)[..., None], np.uint8(1), palette[ids])
            return [("/cam_front/colours", when, cdr.write_image(message.stamp_ns, "f", colours, "rgb8"))]
        return [(topic, when, data)]

    types = {
        "/cam_front/range/compressedDepth": "sensor_msgs/msg/CompressedImage",
        "/cam_front/colours": "sensor_msgs/msg/Image",
    }
    bag = rewritten(town_bag, tmp_path / "drive", renamed, truth=False, types=types)
    colours = {",".join(map(str, colour)): name for name, colour in zip(OCC3D_NUSCENES.names, OCC3D_NUSCENES.colours)}
    colours = {colour: "no surface" if name == "sidewalk" else name for colour, name in colours.items()}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({"colours": colours, "others": "unlabelled"}))
    arguments = ["--depth-topic", "{camera}/range", "--semantic-topic", "/{camera}/colours", "--cameras", "cam_front"]
    assert main([str(bag), *arguments, "--mapping", str(tmp_path / "map.yaml")]) == 0
    with (
        Recording(town_bag) as truth,
        Recording(bag, tmp_path / "drive_labels", Vehicle(cameras=("cam_front",))) as made,
    ):
        for stamp in truth.stamps["cam_front"]:
            semantic, depth = truth.semantic("cam_front", stamp), truth.depth("cam_front", stamp)
            sidewalk = semantic == OCC3D_NUSCENES.id_of("sidewalk")
            assert sidewalk.any() and (made.semantic("cam_front", stamp) == np.where(sidewalk, 255, semantic)).all()
            assert (made.depth("cam_front", stamp) == np.where(sidewalk, 0, depth)).all()


def test_compressed_inverse_depth_is_decoded():
    # depth = 100 / (value - 1): 6 -> 20 m, 101 -> 1 m, 0 -> none.
    png = cv2.imencode(".png", np.array([[6, 101, 0]], np.uint16))[1].tobytes()
    raw = cdr.write_compressed_image(0, "f", "32FC1; compressedDepth png", struct.pack("<iff", 0, 100, 1) + png)
    assert recorded_depth(cdr.read_compressed_image(raw), 1, 3).tolist() == [[20.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match="label image is 3x1 but the camera is 4x1"):
        recorded_depth(cdr.read_compressed_image(raw), 1, 4)
    metres = cdr.read_image(cdr.write_image(0, "f", np.array([[2.5, np.nan]], np.float32), "32FC1"))
    assert recorded_depth(metres, 1, 2).tolist() == [[2.5, 0.0]]


def test_depth_beyond_what_sixteen_bits_hold_is_none():
    image = cv2.imdecode(np.frombuffer(depth_png(np.array([[0, 1.2341, 65.534, 65.54, 300]])), np.uint8), -1)
    assert image.tolist() == [[0, 1234, 65534, 0, 0]]
    assert cv2.imdecode(np.frombuffer(semantic_png(np.array([[3, 255]], np.uint8)), np.uint8), -1).tolist() == [
        [3, 255]
    ]


def test_label_files_name_the_classes_of_each_point(town_bag, tmp_path, capsys):
    """The town's labels as SemanticKITTI writes them: uint32, class in the lower half and instance above."""
    folder = tmp_path / "labels"
    folder.mkdir()
    raw_of = {CAR: 10, ROAD: 40}
    with Reader(town_bag) as reader:
        sweeps = [raw for c, _, raw in reader.messages() if c.topic == "/lidar/points"]
    for sweep in sweeps:
        label = cdr.read_point_cloud(sweep).column("label")
        raw = np.select([label == CAR, label == ROAD], [raw_of[CAR], raw_of[ROAD]], 50).astype("<u4")
        (raw | 7 << 16).tofile(folder / f"{stamp_of(sweep)}.label")
    assert main([str(town_bag), "--out", str(tmp_path / "out"), "--label-files", str(folder)]) == 0
    assert noted_classes(tmp_path / "out") == SEMANTIC_KITTI
    kitti = [SEMANTIC_KITTI.id_of(name) for name in ("car", "road", "building")]
    with Recording(town_bag, tmp_path / "out") as made, Recording(town_bag) as truth:
        stamp = made.stamps["cam_front"][0]
        ids, own = made.semantic("cam_front", stamp), truth.semantic("cam_front", stamp)
    there = ids != UNLABELLED
    assert (np.select([own == CAR, own == ROAD], kitti[:2], kitti[2])[there] == ids[there]).mean() > 0.95

    file = sorted(folder.iterdir())[1]
    file.write_bytes(file.read_bytes()[:-4])
    assert main([str(town_bag), "--out", str(tmp_path / "cut"), "--label-files", str(folder)]) == 2
    assert f"{file}: " in (error := capsys.readouterr().err) and "give the label files of these clouds" in error
    file.unlink()
    assert main([str(town_bag), "--out", str(tmp_path / "cut"), "--label-files", str(folder)]) == 2
    assert f"{FRAMES - 1} label files for {FRAMES} clouds" in capsys.readouterr().err
    assert not (tmp_path / "cut").exists()


@needs_realdata
def test_a_real_semantic_kitti_scan_has_only_ids_that_are_known():
    (file,) = sorted((REALDATA / "semantickitti_scan").glob("*.label"))
    raw = np.fromfile(file, "<u4")
    ids = load_mapping("semantic_kitti").of_ids(raw & 0xFFFF)
    assert len(ids) == 123_389 and set(np.unique(ids)) <= {*range(1, 20), NO_SURFACE, UNLABELLED}


def test_an_id_that_no_mapping_lists_is_an_error_with_its_number():
    with pytest.raises(LabelError, match=r"ids 18 \(1x\), 40 \(2x\) are not in the class table; list them"):
        ClassMapping.identity(OCC3D_NUSCENES).of_ids(np.array([3, 40, 18, 40, 255]))
    with pytest.raises(LabelError, match="ids reach from -1"):
        ClassMapping.identity(OCC3D_NUSCENES).of_ids(np.array([-1]))
    colours = mapping_from({"colours": {"#010203": "car"}}, "m.yaml")
    with pytest.raises(LabelError, match=r"colours #ffffff \(1x\) are not in m.yaml"):
        colours.of_colours(np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8))
    with pytest.raises(LabelError, match="lists no colours"):
        mapping_from({"ids": {1: "car"}}, "m.yaml").of_colours(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": {1: "car"}}, "m.yaml: unknown entry 'id'; expected classes, ids"),
        ({"ids": {1: "lorry"}}, "m.yaml: classes: there is no class 'lorry'; the table has others, barrier"),
        ({"ids": {"x": "car"}}, "m.yaml: id 'x': expected a whole number"),
        ({"colours": {"1,2": "car"}}, "m.yaml: colour '1,2': expected"),
        ({"ids": [1, 2]}, "m.yaml: ids is a list; expected"),
        ({"others": "car"}, "m.yaml: neither ids nor colours"),
        ({"classes": "coco", "ids": {1: "car"}}, "m.yaml: classes: there is no class table 'coco'"),
    ],
)
def test_a_wrong_mapping_file_is_named_with_its_entry(document, message):
    with pytest.raises(LabelError) as error:
        mapping_from(document, "m.yaml")
    assert message in str(error.value)


def test_label_images_of_another_kind_are_refused():
    jpeg = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    identity = ClassMapping.identity(OCC3D_NUSCENES)
    with pytest.raises(ValueError, match="a JPEG, which changes ids"):
        recorded_classes(cdr.read_compressed_image(cdr.write_compressed_image(0, "f", "jpeg", jpeg)), 4, 4, identity)
    raw = cdr.read_image(cdr.write_image(0, "f", np.full((4, 4), 2, np.uint8), "mono8"))
    assert (recorded_classes(raw, 4, 4, identity) == 2).all()
    with pytest.raises(ValueError, match="label image is 4x4 but the camera is 5x4"):
        recorded_classes(raw, 4, 5, identity)
    with pytest.raises(ValueError, match="encoded as '32FC1'"):
        recorded_classes(raw._replace(encoding="32FC1"), 4, 4, identity)


# ---------------------------------------------------------------------------------------------------- networks


def field(number, value):
    """One protobuf field: an int as varint, else its bytes with their length."""

    def varint(n):
        out = bytearray()
        while n > 127:
            out.append(n & 127 | 128)
            n >>= 7
        return bytes(out + bytes([n]))

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_network(weights):
    """An ONNX model, y = Conv1x1(x), written as onnx.proto says: weights (classes, 3)."""
    count = len(weights)
    dims = b"".join(field(1, n) for n in (count, 3, 1, 1))
    tensor = dims + field(2, 1) + field(8, "w") + field(9, np.asarray(weights, "<f4").tobytes())
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Conv")

    def value(name):
        return field(1, name) + field(
            2, field(1, field(1, 1) + field(2, b"".join(field(1, field(2, n)) for n in "nchw")))
        )

    graph = field(1, node) + field(2, "g") + field(5, tensor) + field(11, value("x")) + field(12, value("y"))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


# Scores: the red channel, the blue channel. Source class 0 is red, 1 is blue.
RED_OR_BLUE = [[1, 0, 0], [0, 0, 1]]
DESCRIPTION = {"mean": [0, 0, 0], "std": [1, 1, 1], "ids": {0: "car", 1: "driveable_surface"}}


def saved_network(tmp_path, kind, **description):
    path = tmp_path / f"net.{kind}"
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        path.write_bytes(onnx_network(RED_OR_BLUE))
    else:
        import torch

        layer = torch.nn.Conv2d(3, 2, 1, bias=False)
        layer.weight.data = torch.tensor(RED_OR_BLUE, dtype=torch.float32)[:, :, None, None]
        torch.jit.trace(layer, torch.zeros(1, 3, 4, 4)).save(str(path))
    path.with_suffix(".yaml").write_text(yaml.safe_dump({**DESCRIPTION, **description}))
    return path


@pytest.mark.parametrize("kind", ["onnx", "ts"])
@pytest.mark.parametrize("options", [{}, {"size": [4, 8]}])
def test_a_network_labels_an_image_at_its_own_size(tmp_path, kind, options):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16, 0], image[:, 16:, 2] = 200, 150
    classes = Segmenter(saved_network(tmp_path, kind, **options))(image)
    assert classes.shape == (16, 32) and classes.dtype == np.uint8
    assert (classes[:, :16] == CAR).all() and (classes[:, 16:] == ROAD).all()
    flipped = Segmenter(saved_network(tmp_path, kind, channels="bgr", **options))(image)
    assert (flipped[:, :16] == ROAD).all()


def test_a_network_labels_a_recording_with_depth_from_its_lidar(town_bag, tmp_path):
    network = saved_network(tmp_path, "ts", size=[32, 88])
    out = tmp_path / "out"
    assert main([str(town_bag), "--out", str(out), "--network", str(network), "--cameras", "cam_front"]) == 0
    with Recording(town_bag, out, Vehicle(cameras=("cam_front",))) as made:
        stamp = made.stamps["cam_front"][0]
        semantic, depth = made.semantic("cam_front", stamp), made.depth("cam_front", stamp)
    assert set(np.unique(semantic)) <= {CAR, ROAD} and 200 < (depth > 0).sum() < depth.size / 4


def test_a_network_that_does_not_fit_is_named(tmp_path):
    path = saved_network(tmp_path, "ts", ids={0: "car"})
    with pytest.raises(LabelError, match=r"net.ts: ids 1 \(\d+x\) are not in .*net.yaml"):
        Segmenter(path)(np.full((4, 4, 3), (0, 0, 9), np.uint8))
    saved_network(tmp_path, "ts", std=[0, 1, 1])
    with pytest.raises(LabelError, match=r"net.yaml: std is \[0, 1, 1\]; expected 3 numbers"):
        Segmenter(path)
    saved_network(tmp_path, "ts")
    path.write_bytes(b"not a network")
    with pytest.raises(LabelError, match="net.ts: not a TorchScript network"):
        Segmenter(path)
    with pytest.raises(ValueError, match="other.yaml: cannot be read"):
        Segmenter(tmp_path / "other.onnx")


def test_a_field_of_floats_is_read_as_ids_if_they_are_whole():
    mapping = ClassMapping.identity(OCC3D_NUSCENES)
    assert mapping.of_ids(np.array([4.0, 255.0], np.float32)).tolist() == [4, 255]
    assert LabelField("label", mapping).name == "label" and Occlusion().height > 0


def test_beams_without_a_return_are_no_points():
    random = np.random.default_rng(0)
    points = random.uniform(-40, 40, (1000, 3))
    points[:300, 0] = 12.0  # a wall: one coordinate alone is the same
    points[300:310] = 5.0, 1.0, 0.5  # ten returns of one place, as of several echoes
    assert not null_returns(points).any()
    for null in ((0.0, 0.0, 0.0), (-0.0, 1e-9, 0.0), (0.8, 0.0, 2.0)):  # the last as moved into the vehicle's frame
        given = points.copy()
        given[::4] = null
        assert null_returns(given).tolist() == [index % 4 == 0 for index in range(1000)]
    points[5] = 0.0
    assert np.flatnonzero(null_returns(points)).tolist() == [5]
    assert null_returns(np.empty((0, 3))).shape == (0,)


def test_depth_that_is_packed_by_rvl_is_named():
    message = cdr.read_compressed_image(cdr.write_compressed_image(0, "f", "16UC1; compressedDepth rvl", bytes(40)))
    with pytest.raises(ValueError, match="is RVL, which is not read; set the publisher's"):
        recorded_depth(message, 2, 2)
