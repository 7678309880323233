"""Frames in fixed memory give what frames one by one give: here without a recorder, on CUDA devices as a graph."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from test_predictor import RIG, SMALL, pictures, pose_at

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.threshold import DistanceThreshold
from renderocc_model.inference.cuda_graph import record_graph
from renderocc_model.inference.fixed_frames import FixedFrames
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.presets import preset
from renderocc_model.network.untrained import untrained_checkpoint

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
ARRAYS = ("semantics", "confidence", "visible")


class Replaying:
    """A recorder that does what a graph does, on any device: the same work again, into the same memory."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, function):
        self.recordings += 1
        record, prediction = function()

        def replay():
            self.replays += 1
            again, predicted = function()
            record.copy_(again)
            prediction.density.copy_(predicted.density)
            prediction.voxels.copy_(predicted.voxels)
            for part, new in zip(prediction.kept, predicted.kept, strict=True):
                part.copy_(new)
            return record, prediction

        return replay


@pytest.fixture(scope="module")
def checkpoint():
    torch.set_num_threads(1)
    return untrained_checkpoint(preset("tiny", SMALL), OCC3D_NUSCENES)


def both(checkpoint, device: str, precision: str = "float32") -> tuple[Predictor, Predictor, Replaying]:
    """One that computes frame by frame, one in fixed memory, and the latter's recorder."""
    plain, fixed = (Predictor(checkpoint, RIG, device, precision) for _ in range(2))
    plain._recorder = None
    replaying = Replaying()
    fixed._recorder = replaying if device == "cpu" else partial(record_graph, device=fixed.device)
    return plain, fixed, replaying


def assert_same(found, expected, exact: bool = True) -> None:
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.array_equal(one, other) if exact else np.isclose(one, other, atol=1e-3).mean() > 0.999, name
    assert np.array_equal(found.surface(), expected.surface()) or not exact
    for one, other in zip(found.surface_points(), expected.surface_points()):
        assert not exact or np.array_equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_frames_in_fixed_memory_are_those_one_by_one(checkpoint, device):
    plain, fixed, replaying = both(checkpoint, device)
    for seed in range(4):
        assert_same(fixed(pictures(seed=seed)), plain(pictures(seed=seed)), device == "cpu")
    if device == "cpu":
        assert (replaying.recordings, replaying.replays) == (1, 3)  # the first frame is not worth a recording


@pytest.mark.parametrize("device", DEVICES)
def test_results_stay_while_later_frames_use_the_same_memory(checkpoint, device):
    _, fixed, _ = both(checkpoint, device)
    kept = [fixed(pictures(seed=seed)) for seed in range(4)]  # nothing of them is looked at before the last is there
    plain, _, _ = both(checkpoint, device)
    for seed, found in enumerate(kept):
        expected = plain(pictures(seed=seed))
        assert_same(found, expected, device == "cpu")
        assert torch.allclose(found.field.semantics, expected.field.semantics, atol=1e-2)


@pytest.mark.parametrize("device", DEVICES)
def test_poses_and_thresholds_may_change_between_replays(checkpoint, device):
    plain, fixed, replaying = both(checkpoint, device)
    views, tables, poses = plain.prepare(pictures())
    for turn in range(4):
        yaw = pose_at(0.3 * turn, 0.1, 0.2 * turn)
        plain.threshold = fixed.threshold = (0.3, 0.6, DistanceThreshold((0.0, 6.0), (0.2, 0.7), 0.4), 0.4)[turn]
        assert_same(
            fixed.predict(views, tables, yaw @ poses), plain.predict(views, tables, yaw @ poses), device == "cpu"
        )
    assert replaying.recordings <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_other_cameras_are_recorded_anew_and_the_first_ones_are_not(checkpoint, device):
    plain, fixed, replaying = both(checkpoint, device)
    images = pictures()
    some = {name: images[name] for name in ("left", "back")}
    for given in (images, images, some, some, images, some):
        assert_same(fixed(given), plain(given), device == "cpu")
    assert device != "cpu" or (replaying.recordings, replaying.replays) == (2, 4)


def test_memory_of_few_sets_of_cameras_is_kept(checkpoint):
    _, fixed, replaying = both(checkpoint, "cpu")
    images = pictures()
    sets = [{name: images[name]} for name in images]  # four of them, each used twice
    for given in (*sets, *sets):
        fixed(given)
    kept = [cameras.frames for cameras in fixed._camera_sets._sets.values() if cameras.frames is not None]
    assert replaying.recordings == 4 and len(kept) == 3


def test_more_occupied_voxels_than_there_is_room_for_are_all_found(checkpoint, monkeypatch):
    plain, fixed, _ = both(checkpoint, "cpu")
    monkeypatch.setattr("renderocc_model.inference.predictor.FixedFrames", partial(FixedFrames, capacity=10))
    for seed in range(2):
        found = fixed(pictures(seed=seed))
    assert found.occupied.sum() > 10
    assert_same(found, plain(pictures(seed=1)))


def test_output_that_is_not_a_number_is_an_error_in_fixed_memory_too(checkpoint):
    _, fixed, replaying = both(checkpoint, "cpu")
    for _ in range(2):
        fixed(pictures())
    fixed._network._network.heads.density[-1].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="output cannot be used"):
        fixed(pictures())
    assert replaying.replays == 2


def test_what_cannot_be_recorded_is_said_once_and_computed_one_by_one(checkpoint):
    plain, fixed, _ = both(checkpoint, "cpu")
    calls = []

    def refuse(function):
        calls.append(function)
        raise RuntimeError("operation not permitted when stream is capturing")

    fixed._recorder = refuse
    fixed(pictures())
    with pytest.warns(RuntimeWarning, match="cannot be recorded as a CUDA graph.*not permitted"):
        found = fixed(pictures())
    assert_same(found, plain(pictures()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fixed(pictures())
    assert len(calls) == 1


def test_a_device_without_memory_is_the_callers_to_handle(checkpoint):
    _, fixed, _ = both(checkpoint, "cpu")

    def refuse(function):
        raise torch.OutOfMemoryError("CUDA out of memory")

    fixed._recorder = refuse
    fixed(pictures())
    with pytest.raises(torch.OutOfMemoryError):
        fixed(pictures())


def test_on_a_cpu_nothing_is_recorded():
    assert Predictor.untrained(preset("tiny", SMALL), device="cpu")._recorder is None  # there is nothing to gain


@pytest.mark.parametrize(
    "more",
    [(), ("fusion.frames=3",), ("fusion.stereo.channels=8", "lift.subpixels=2", "heads.density_layers=2")],
)
@pytest.mark.parametrize("device", DEVICES)
def test_frames_that_are_joined_are_those_one_by_one(device, more):
    joining = untrained_checkpoint(preset("tiny", (*SMALL, "fusion.enabled=true", *more)), OCC3D_NUSCENES)
    plain, fixed, replaying = both(joining, device)
    confidences = []
    poses = [pose_at(0), pose_at(0.3), pose_at(0.6), None, pose_at(0.9), pose_at(1.2)]
    for number, pose in enumerate(poses):
        expected = plain(pictures(seed=number % 2), pose, 10 + 0.4 * number)
        assert_same(fixed(pictures(seed=number % 2), pose, 10 + 0.4 * number), expected, device == "cpu")
        confidences.append(expected.confidence)
    assert device != "cpu" or (replaying.recordings, replaying.replays) == (1, 5)
    # The third is the first's pictures with an earlier frame; the fifth is after one without a pose.
    assert not np.allclose(confidences[2], confidences[0], atol=1e-3)
    assert np.array_equal(confidences[4], confidences[0])


def test_pictures_written_into_the_buffer_or_given_as_tensors_are_the_same(checkpoint):
    plain, fixed, _ = both(checkpoint, "cpu")
    views, tables, poses = plain.prepare(pictures())
    expected = plain.predict(views, tables, poses)
    for _ in range(3):
        buffer = fixed.view_buffer(tables)
        assert buffer.shape == views.shape and buffer.dtype == np.uint8
        buffer[:] = views
        assert_same(fixed.predict(buffer, tables, poses), expected)
    assert_same(plain.predict(torch.from_numpy(views), tables, poses), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_half_precision_graphs_agree_with_float32(checkpoint):
    exact = Predictor(checkpoint, RIG, "cpu", "float32")
    half = Predictor(checkpoint, RIG, "cuda", "float16")
    assert half._recorder is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            found, expected = half(pictures(seed=seed)), exact(pictures(seed=seed))
            assert (found.semantics == expected.semantics).mean() > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_replayed_frame_waits_for_the_device_once(checkpoint):
    fixed = Predictor(checkpoint, RIG, "cuda")
    views, tables, poses = fixed.prepare(pictures())
    for _ in range(2):
        fixed.predict(views, tables, poses)
    torch.cuda.set_sync_debug_mode("error")  # of what PyTorch does by itself; streams may be waited for
    try:
        fixed.predict(views, tables, poses)
    finally:
        torch.cuda.set_sync_debug_mode("default")
