"""The predictor: pictures in, occupancy out, without ROS."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realdata import REALDATA, needs_realdata

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED
from renderocc_model.field.threshold import DistanceThreshold
from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from renderocc_model.network.presets import preset
from renderocc_model.network.untrained import untrained_checkpoint

SMALL = ("images.height=64", "images.width=160", "grid.lower=[-8, -8, -1]", "grid.upper=[8, 8, 5.4]")
FREE = OCC3D_NUSCENES.free


def mount(yaw: float) -> np.ndarray:
    """base_from_camera of a level camera 1.5 m up, 0.5 m from the middle, looking along yaw."""
    forward, left = np.array([math.cos(yaw), math.sin(yaw), 0]), np.array([-math.sin(yaw), math.cos(yaw), 0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([-left, (0, 0, -1), forward], axis=1)
    pose[:3, 3] = 0.5 * forward + (0, 0, 1.5)
    return pose


def rig_of(yaws: dict[str, float], width: int = 320, height: int = 160, focal: float = 230.0) -> Rig:
    K = np.array([[focal, 0, 159.5], [0, focal, 79.5], [0, 0, 1]])
    model = CameraModel(width, height, K, "plumb_bob", (0.0,) * 5)
    return Rig(tuple(Camera(name, model, mount(yaw)) for name, yaw in yaws.items()))


RIG = rig_of({"front": 0.0, "left": math.pi / 2, "back": math.pi, "right": -math.pi / 2})


def pictures(rig: Rig = RIG, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    patches = {camera.name: generator.integers(0, 256, (5, 10, 3), dtype=np.uint8) for camera in rig}
    return {camera.name: cv2.resize(patches[camera.name], (camera.model.width, camera.model.height)) for camera in rig}


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return untrained_checkpoint(preset("tiny", SMALL), OCC3D_NUSCENES)


@pytest.fixture(scope="module")
def fusing_checkpoint() -> Checkpoint:
    return untrained_checkpoint(preset("tiny", (*SMALL, "fusion.enabled=true")), OCC3D_NUSCENES)


@pytest.fixture
def predictor(checkpoint) -> Predictor:
    return Predictor(checkpoint, RIG, device="cpu")


# --- what comes out --------------------------------------------------------------------------------------------------


def test_five_lines_give_occupied_free_and_unknown_voxels(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", checkpoint.network, checkpoint.classes, checkpoint.threshold)
    RIG.save(tmp_path / "rig.yaml")
    rig = Rig.load(tmp_path / "rig.yaml")
    predictor = Predictor(tmp_path / "c.safetensors", rig)
    occupancy = predictor(pictures(rig))
    assert occupancy.semantics.shape == predictor.grid.shape == (40, 40, 16)
    assert occupancy.semantics.dtype == np.uint8 and occupancy.confidence.dtype == np.float32
    assert occupancy.occupied.any() and (occupancy.semantics == FREE).any() and occupancy.unknown.any()
    assert 0 < occupancy.confidence.min() and occupancy.confidence.max() <= 1


def test_labels_follow_from_the_field_the_threshold_and_visibility(predictor):
    occupancy = predictor(pictures())
    density, logits = occupancy.field.density.double().numpy(), occupancy.field.semantics.numpy()
    assert np.allclose(occupancy.confidence, 1 - np.exp(-density * 0.4), atol=1e-6)
    likely = np.asarray(OCC3D_NUSCENES.occupied_ids)[logits.argmax(-1)]
    dense = occupancy.confidence > predictor.threshold
    assert np.array_equal(occupancy.semantics, np.where(~occupancy.visible, UNLABELLED, np.where(dense, likely, FREE)))
    assert (dense & ~occupancy.visible).any()  # supposed, but hidden: unknown, though the confidence tells


def test_channels_mean_the_ids_that_are_not_free():
    # SemanticKITTI's free class is 0, so that channel 0 is class 1.
    config = preset("tiny", (*SMALL, "class_count=19"))
    predictor = Predictor.untrained(config, RIG, device="cpu", classes=SEMANTIC_KITTI)
    occupancy = predictor(pictures())
    x, y, z = np.nonzero(occupancy.occupied)
    likely = occupancy.field.semantics.numpy()[x, y, z].argmax(-1)
    assert len(x) and np.array_equal(occupancy.semantics[x, y, z], 1 + likely)
    with pytest.raises(ValueError, match="class_count is 17"):
        Predictor.untrained("tiny", classes=SEMANTIC_KITTI)


def test_where_no_camera_looks_is_unknown_and_never_free(predictor):
    occupancy = predictor({"front": pictures()["front"]})
    behind = predictor.grid.centres()[..., 0] < 0.5  # the front camera stands at x = 0.5
    assert occupancy.unknown[behind].all() and not occupancy.visible[behind].any()
    assert (occupancy.semantics[~behind] == FREE).any()


def test_order_of_the_cameras_does_not_matter(predictor):
    images = pictures()
    one, other = predictor(images), predictor(dict(reversed(images.items())))
    assert np.allclose(one.confidence, other.confidence, atol=1e-4)
    assert (one.semantics == other.semantics).mean() > 0.999


def test_results_keep_their_values_while_later_frames_are_predicted(predictor):
    first = predictor(pictures(seed=0))
    kept = first.semantics.copy(), first.confidence.copy(), first.field.density.clone()
    second = predictor(pictures(seed=1))
    assert not np.array_equal(first.confidence, second.confidence)
    assert np.array_equal(first.semantics, kept[0]) and np.array_equal(first.confidence, kept[1])
    assert torch.equal(first.field.density, kept[2])


def test_cameras_may_come_and_go(predictor):
    images = pictures()
    whole = predictor(images)
    for names in (["left"], ["front", "back"], ["right", "left", "front"]):
        assert predictor({name: images[name] for name in names}).visible.sum() < whole.visible.sum()
    assert np.array_equal(predictor(images).semantics, whole.semantics)


def test_cameras_are_where_the_poses_of_the_frame_say(predictor):
    views, tables, poses = predictor.prepare({"front": pictures()["front"]})
    turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # a quarter turn to the left
    turned = predictor.predict(views, tables, turn @ poses)
    assert turned.visible.any() and (predictor.grid.centres()[turned.visible][:, 1] > 0.5).all()


def test_a_threshold_over_the_distance_is_read_from_the_checkpoint_and_used(tmp_path):
    """At the middle of each voxel's column: grid from -8 m on, voxels of 0.4 m."""
    checkpoint = untrained_checkpoint(preset("tiny", SMALL), OCC3D_NUSCENES)
    curve = DistanceThreshold((0.0, 5.0, 8.0), (0.9, 0.3, 0.1), 0.25)
    save_checkpoint(tmp_path / "c.safetensors", checkpoint.network, checkpoint.classes, curve)
    predictor = Predictor(tmp_path / "c.safetensors", RIG, device="cpu")
    assert predictor.threshold == predictor.stored_threshold == curve
    occupancy, grid = predictor(pictures()), predictor.grid
    x, y = (grid.lower[axis] + (np.arange(grid.shape[axis]) + 0.5) * grid.voxel_size for axis in (0, 1))
    limit = curve.at(np.hypot(x[:, None], y))[..., None]
    dense = occupancy.confidence > limit
    assert np.array_equal(occupancy.occupied, dense & occupancy.visible)
    predictor.threshold = 0.25
    assert not np.array_equal(predictor(pictures()).occupied, occupancy.occupied)
    predictor.threshold = predictor.stored_threshold
    assert np.array_equal(predictor(pictures()).occupied, occupancy.occupied)


def test_lower_threshold_never_frees_a_voxel(predictor):
    before = predictor(pictures())
    predictor.threshold = 0.05
    after = predictor(pictures())
    assert (after.occupied | ~before.occupied).all() and after.occupied.sum() > before.occupied.sum()
    assert predictor.stored_threshold == 0.3
    for wrong in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="threshold is"):
            predictor.threshold = wrong


def test_stricter_transmittance_leaves_more_unknown(checkpoint):
    loose = Predictor(checkpoint, RIG, "cpu", minimum_transmittance=0.1)(pictures())
    strict = Predictor(checkpoint, RIG, "cpu", minimum_transmittance=0.9)(pictures())
    assert (loose.visible | ~strict.visible).all() and loose.visible.sum() > strict.visible.sum()


# --- random weights --------------------------------------------------------------------------------------------------


def test_untrained_networks_are_a_function_of_their_seed():
    config = preset("tiny", SMALL)
    state = torch.random.get_rng_state()
    weights = [untrained_checkpoint(config, OCC3D_NUSCENES, seed).network.state_dict() for seed in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers change
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_untrained_output_has_something_of_everything(seed):
    occupancy = Predictor.untrained(preset("tiny", SMALL), RIG, seed, device="cpu")(pictures())
    supposed = (occupancy.confidence > 0.3).mean()
    assert 0.002 < supposed < 0.5
    assert occupancy.occupied.sum() >= 20 and len(np.unique(occupancy.semantics[occupancy.occupied])) >= 5


# --- the previous frame ----------------------------------------------------------------------------------------------


def pose_at(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


@pytest.fixture
def motions(fusing_checkpoint, monkeypatch):
    """A predictor that joins the previous frame, and the motion the network was given with each frame (None: none)."""
    predictor, seen = Predictor(fusing_checkpoint, RIG, device="cpu"), []

    before, moved = predictor._history.before, []

    def moved_volume(*arguments):
        moved.append(before(*arguments))
        return moved[-1]

    def note(_, arguments):
        seen.append(None if arguments[1] is None else moved[-1].base_from_volume[0].numpy())

    monkeypatch.setattr(predictor._history, "before", moved_volume)

    handle = predictor._network._network.fusion.register_forward_pre_hook(note)
    yield predictor, seen
    handle.remove()


def test_previous_frame_is_moved_by_the_ego_motion(motions):
    predictor, seen = motions
    # From (5, 2), heading along odom's y, one metre forward and a quarter turn to the left.
    predictor(pictures(), pose_at(5, 2, math.pi / 2))
    predictor(pictures(), pose_at(5, 3, math.pi))
    assert seen[0] is None
    # Now heading along odom's -x: where the vehicle was lies to its left, and what was ahead is now to its right.
    assert seen[1] @ [0, 0, 0, 1] == pytest.approx([0, 1, 0, 1], abs=1e-12)
    assert seen[1] @ [10, 0, 0, 1] == pytest.approx([0, -9, 0, 1], abs=1e-12)


def test_previous_frame_changes_the_result_and_reset_forgets_it(motions):
    predictor, seen = motions
    fresh = predictor(pictures(), pose_at(0))
    joined = predictor(pictures(), pose_at(0.5))
    predictor.reset()
    again = predictor(pictures(), pose_at(0.5))
    assert not np.allclose(joined.confidence, fresh.confidence, atol=1e-3)
    assert np.array_equal(again.confidence, fresh.confidence) and seen[2] is None


def test_previous_frame_is_dropped_when_a_pose_is_missing(motions):
    predictor, seen = motions
    for odom in (pose_at(0), None, pose_at(1), pose_at(2), pose_at(3)):
        predictor(pictures(), odom)
    # The third frame has no volume whose pose was known; the fourth has.
    assert [motion is None for motion in seen] == [True, True, True, False, False]
    assert seen[4][:3, 3].tolist() == pytest.approx([-1, 0, 0])  # from the frame before, not from the first


def test_failed_frame_leaves_the_previous_frame_alone(motions):
    predictor, seen = motions
    predictor(pictures(), pose_at(0))
    with pytest.raises(ValueError, match="odom_from_base"):
        predictor(pictures(), pose_at(math.nan))
    predictor(pictures(), pose_at(1))
    assert seen[1][:3, 3].tolist() == pytest.approx([-1, 0, 0])


def test_model_without_fusion_ignores_the_vehicles_pose(predictor):
    first = predictor(pictures(), pose_at(0))
    assert np.array_equal(predictor(pictures(), pose_at(3)).confidence, first.confidence)


def test_warm_up_leaves_nothing_behind(motions):
    predictor, seen = motions
    predictor.warm_up(cameras=3)
    predictor(pictures(), pose_at(0))
    assert seen == [None, None]


@pytest.mark.parametrize(
    "images, said",
    [
        ("front.jpg", r"images are a str; give a dict, .* any of the cameras front, left, back, right"),
        ([np.zeros((2, 2, 3), np.uint8)], "images are a list"),
        ({"front": "front.jpg"}, "camera 'front': image is a str; expected an array, uint8 RGB"),
        ({"front": [[1, 2], [3, 4]]}, "camera 'front': image is a list"),
        ({"front": None}, "camera 'front': image is a NoneType"),
        ({}, "there is no picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(predictor, images, said):
    with pytest.raises(ValueError, match=said):
        predictor(images)


# --- devices and precision -------------------------------------------------------------------------------------------


def test_bfloat16_agrees_with_float32_on_most_voxels(checkpoint):
    exact = Predictor(checkpoint, RIG, "cpu", "float32")(pictures())
    half = Predictor(checkpoint, RIG, "cpu", "bfloat16")(pictures())
    assert half.field.density.dtype == torch.float32
    assert np.abs(half.confidence - exact.confidence).mean() < 0.05
    assert not np.array_equal(half.confidence, exact.confidence)


def test_the_automatic_precision_is_what_the_cpu_has_instructions_for(checkpoint):
    flags = Path("/proc/cpuinfo").read_text().split()
    fast = {"avx512_bf16", "amx_bf16"} & set(flags)
    assert Predictor(checkpoint, device="cpu").precision == ("bfloat16" if fast else "float32")


def test_devices_and_precisions_that_do_not_exist_are_refused(checkpoint):
    with pytest.raises(ValueError, match="float16 needs CUDA"):
        Predictor(checkpoint, device="cpu", precision="float16")
    with pytest.raises(ValueError, match="precision is 'half'"):
        Predictor(checkpoint, device="cpu", precision="half")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            Predictor(checkpoint, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(checkpoint):
    exact = Predictor(checkpoint, RIG, "cpu", "float32")(pictures())
    for precision, share in (("float32", 0.99), ("float16", 0.9)):
        found = Predictor(checkpoint, RIG, "cuda", precision)(pictures())
        assert (found.semantics == exact.semantics).mean() > share


# --- rigs and refusals -----------------------------------------------------------------------------------------------


def test_rig_unlike_the_trained_one_is_warned_about(checkpoint):
    trained = Checkpoint(checkpoint.network, checkpoint.classes, 0.3, RIG.summary(), {})
    assert Predictor(trained, RIG, "cpu").warnings == []
    other = rig_of({"front": 0.0, "left": math.pi / 2, "back": math.pi}, focal=150.0)
    warnings = Predictor(trained, other, "cpu").warnings
    assert warnings[0] == "trained with 4 cameras, running with 3"
    # atan(160 / 150) * 2 = 94 degrees, atan(160 / 230) * 2 = 70 degrees
    assert "camera 'front': field of view 94 degrees, trained 70" in warnings
    assert Predictor(checkpoint, other, "cpu").warnings == []  # nothing is known of its training


def test_models_alone_can_be_compared_before_mounts_are_known(checkpoint):
    predictor = Predictor(Checkpoint(checkpoint.network, checkpoint.classes, 0.3, RIG.summary(), {}), device="cpu")
    assert predictor.compare_rig({camera.name: camera.model for camera in RIG}) == []
    small = CameraModel(160, 80, np.array([[115.0, 0, 79.5], [0, 115.0, 39.5], [0, 0, 1]]), "plumb_bob", (0.0,) * 5)
    models = {"front": small, "left": RIG["left"].model, "back": RIG["back"].model, "roof": RIG["right"].model}
    assert predictor.compare_rig(models) == ["camera 'front': image 160x80, trained 320x160"]


def test_bad_pictures_are_named(predictor, checkpoint):
    images = pictures()
    with pytest.raises(ValueError, match="camera 'front'.*64x64"):
        predictor({**images, "front": np.zeros((64, 64, 3), np.uint8)})
    with pytest.raises(ValueError, match="camera 'roof' is not in the rig"):
        predictor({"roof": images["front"]})
    with pytest.raises(ValueError, match="at least one of front, left, back, right"):
        predictor({})
    with pytest.raises(ValueError, match="has no rig"):
        Predictor(checkpoint, device="cpu")(images)


def test_bad_arguments_of_predict_are_named(predictor):
    views, tables, poses = predictor.prepare(pictures())
    with pytest.raises(ValueError, match=r"expected uint8 \(3, 64, 160, 3\)"):
        predictor.predict(views, tables[:3], poses)
    with pytest.raises(ValueError, match="float32"):
        predictor.predict(views.astype(np.float32), tables, poses)
    with pytest.raises(ValueError, match="base_from_camera"):
        predictor.predict(views, tables, poses[:2])
    with pytest.raises(ValueError, match="base_from_camera"):
        predictor.predict(views, tables, poses * math.nan)
    with pytest.raises(ValueError, match="at least one camera"):
        predictor.predict(views[:0], [], poses[:0])


def test_output_that_is_not_a_number_is_an_error_and_not_free_space(checkpoint):
    network = untrained_checkpoint(checkpoint.config, OCC3D_NUSCENES).network
    with torch.no_grad():
        network.heads.density[-1].bias.fill_(math.nan)
    predictor = Predictor(Checkpoint(network, OCC3D_NUSCENES, 0.3, None, {}), RIG, "cpu")
    with pytest.raises(ValueError, match="output cannot be used.*nan"):
        predictor(pictures())


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere.safetensors"):
        Predictor(tmp_path / "nowhere.safetensors")


@needs_realdata
@pytest.mark.parametrize("recording", ["ddad_6cam", "fisheye_4cam"])
def test_real_rigs_are_served(recording, checkpoint):
    from rosbags.highlevel import AnyReader

    rig = Rig.load(Path(__file__).parents[1] / "config" / "rigs" / f"{recording}.yaml")
    images = {}
    with AnyReader([REALDATA / recording]) as reader:
        for connection, _, raw in reader.messages():
            name = next((name for name in rig.names if f"/{name}/" in connection.topic), None)
            if name not in images and connection.msgtype == "sensor_msgs/msg/CompressedImage" and name:
                data = np.asarray(reader.deserialize(raw, connection.msgtype).data)
                images[name] = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    assert set(images) == set(rig.names)
    occupancy = Predictor(checkpoint, rig, "cpu")(images)
    assert occupancy.occupied.any() and (occupancy.semantics == FREE).any() and occupancy.unknown.any()
