"""The operators of a map that remembers: numbers worked out by hand, and the compiled loops against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from renderocc_model.field.classes import GROUND_OBSTACLE
from renderocc_model.field.classes import OCC3D_NUSCENES as CLASSES
from renderocc_model.ops import mapping
from renderocc_model.ops.mapping import ClassRoles, FusionLimits, MapState

pytestmark = pytest.mark.slow  # the loops are compiled

BACKENDS = ("reference", "cpu")
FREE, UNKNOWN, CAR, WALL, ROAD = CLASSES.free, 255, 4, 15, 11
ROLES = ClassRoles.of(CLASSES)
LIMITS = FusionLimits(-2.0, 4.0, 1.5)
SAME = np.eye(4)[:3]  # the map's voxels are the frame's
EVERY = pytest.mark.parametrize("backend", BACKENDS)


def row(*states: int) -> np.ndarray:
    """A frame of voxels in a row along x, (N, 1, 1)."""
    return np.array(states, np.uint8).reshape(-1, 1, 1)


def empty(*shape: int) -> MapState:
    return MapState.empty(shape, len(CLASSES.occupied_ids))


def add(state: MapState, semantics: np.ndarray, evidence, backend: str, now=0, limits=LIMITS, matrix=SAME) -> None:
    values = np.array(evidence, np.float32).reshape(semantics.shape)
    mapping.fuse(state, values, semantics, matrix, now, limits, ROLES, backend)


@EVERY
def test_evidence_is_the_log_odds_beyond_the_threshold_within_its_limits(backend):
    semantics = row(WALL, WALL, FREE, FREE, UNKNOWN)
    confidence = row(0, 0, 0, 0, 0).astype(np.float32)
    confidence[:, 0, 0] = 0.75, 0.999, 0.4, 0.001, 0.9
    threshold = np.zeros((5, 1), np.float32)  # one half everywhere
    found = mapping.weigh(semantics, confidence, threshold, FREE, 0.5, 2.0, 1.0, backend)
    # log(0.75 / 0.25) = log 3, log(0.4 / 0.6) = -log 1.5, each times 0.5; log 999 and -log 999 are beyond the limits
    assert found.ravel() == pytest.approx([0.5 * math.log(3), 2.0, -0.5 * math.log(1.5), -1.0, 0.0])


@EVERY
def test_evidence_has_the_sign_of_the_frames_verdict_even_at_the_threshold(backend):
    semantics, confidence = row(WALL, FREE), np.full((2, 1, 1), 0.5, np.float32)
    found = mapping.weigh(semantics, confidence, np.zeros((2, 1), np.float32), FREE, 1.0, 2.0, 1.0, backend)
    assert found[0, 0, 0] > 0 > found[1, 0, 0]


@EVERY
def test_without_a_threshold_each_verdict_counts_in_full(backend):
    semantics = row(WALL, FREE, UNKNOWN)
    found = mapping.weigh(semantics, np.full((3, 1, 1), 0.5, np.float32), None, FREE, 1.0, 2.0, 1.0, backend)
    assert found.ravel().tolist() == [2.0, -1.0, 0.0]


@EVERY
def test_frames_add_up_and_stop_at_the_limits(backend):
    state = empty(3, 1, 1)
    for _ in range(2):
        add(state, row(WALL, FREE, UNKNOWN), [1.5, -0.75, 0.0], backend)
    assert state.log_odds.ravel().tolist() == [3.0, -1.5, 0.0]
    add(state, row(WALL, FREE, UNKNOWN), [1.5, -0.75, 0.0], backend)
    assert state.log_odds.ravel().tolist() == [4.0, -2.0, 0.0]


@EVERY
def test_a_voxel_that_is_seen_again_keeps_a_share_of_what_it_was(backend):
    state, limits = empty(2, 1, 1), FusionLimits(-2.0, 4.0, 4.0, memory=0.5)
    add(state, row(WALL, WALL), [2.0, 2.0], backend, limits=limits)
    add(state, row(WALL, UNKNOWN), [1.0, 0.0], backend, limits=limits)
    assert state.log_odds.ravel().tolist() == [2.0, 2.0]  # 0.5 * 2 + 1, and untouched


@EVERY
def test_what_moves_has_a_limit_of_its_own(backend):
    state = empty(2, 1, 1)
    for _ in range(3):
        add(state, row(CAR, WALL), [1.0, 1.0], backend)
    assert state.log_odds.ravel().tolist() == [1.5, 3.0]


@EVERY
def test_what_moves_reaches_its_limit_only_when_so_many_frames_have_seen_it(backend):
    state, limits = empty(2, 1, 1), FusionLimits(-2.0, 4.0, 3.0, dynamic_frames=4)
    found = []
    for evidence in (2.0, 2.0, -1.0, 2.0, 2.0, 2.0):
        semantics = row(CAR, WALL) if evidence > 0 else row(FREE, FREE)
        add(state, semantics, [evidence, evidence], backend, limits=limits)
        found.append(state.log_odds.ravel().tolist())
    # The car may have 3 / 4 for each frame that has seen it. A frame that sees it free takes its 1 and no vote.
    assert found == [[0.75, 2.0], [1.5, 4.0], [0.5, 3.0], [2.25, 4.0], [3.0, 4.0], [3.0, 4.0]]


@EVERY
def test_what_drives_past_is_free_after_fewer_frames_than_what_has_stood(backend):
    limits = FusionLimits(-2.0, 4.0, 2.0, dynamic_frames=8)
    needed = []
    for seen in (2, 8):
        state = empty(1, 1, 1)
        for _ in range(seen):
            add(state, row(CAR), [1.0], backend, limits=limits)
        for count in range(1, 9):
            add(state, row(FREE), [-0.375], backend, limits=limits)
            if state.log_odds[0, 0, 0] < 0:
                needed.append(count)
                break
    # 2 frames leave 2 x 2 / 8 = 0.5, of which 0.375 twice leave nothing; 8 leave 2, of which 5 times leave 0.125.
    assert needed == [2, 6]


@EVERY
def test_what_may_move_has_the_limit_of_what_moves_and_is_not_forgotten(backend):
    roles, (ground, obstacle) = ClassRoles.of(GROUND_OBSTACLE), GROUND_OBSTACLE.occupied_ids
    state = MapState.empty((2, 1, 1), 2)
    for _ in range(3):
        ones = np.ones((2, 1, 1), np.float32)
        mapping.fuse(state, ones, row(obstacle, ground), SAME, 0, LIMITS, roles, backend)
    assert state.log_odds.ravel().tolist() == [1.5, 3.0]
    mapping.expire(state, roles.dynamic, 1000, backend)
    assert state.log_odds.ravel().tolist() == [1.5, 3.0]


@EVERY
def test_unknown_changes_nothing(backend):
    state = empty(2, 1, 1)
    add(state, row(WALL, FREE), [1.0, -1.0], backend)
    before = state.log_odds.copy(), state.votes.copy(), state.labels.copy()
    add(state, row(UNKNOWN, UNKNOWN), [0.0, 0.0], backend)
    for old, new in zip(before, (state.log_odds, state.votes, state.labels)):
        assert np.array_equal(old, new)


@EVERY
def test_the_class_is_that_of_most_frames_and_a_tie_changes_nothing(backend):
    state, labels = empty(1, 1, 1), []
    for seen in (WALL, CAR, CAR, WALL, WALL):
        add(state, row(seen), [0.5], backend)
        labels.append(int(state.labels[0, 0, 0]))
    assert labels == [WALL, WALL, CAR, CAR, WALL]


@EVERY
def test_votes_begin_anew_when_a_free_voxel_becomes_occupied(backend):
    state = empty(1, 1, 1)
    for _ in range(5):
        add(state, row(WALL), [0.5], backend)
    for _ in range(5):
        add(state, row(FREE), [-1.0], backend)
    add(state, row(CAR), [3.0], backend)
    assert state.log_odds[0, 0, 0] == 1.0 and state.labels[0, 0, 0] == CAR
    assert state.votes[0, 0, 0].sum() == 1


@EVERY
def test_votes_are_halved_before_they_are_too_many(backend):
    state, limits = empty(1, 1, 1), FusionLimits(-2.0, 4.0, 1.5, votes=4)
    for seen in (CAR, WALL, WALL, WALL, WALL):
        add(state, row(seen), [0.5], backend, limits=limits)
    assert state.votes[0, 0, 0, ROLES.channels[WALL]] == 2 and state.votes[0, 0, 0, ROLES.channels[CAR]] == 0


@EVERY
def test_evidence_is_interpolated_between_the_voxels_that_are_seen(backend):
    state, matrix = empty(3, 1, 1), SAME.copy()
    matrix[0, 3] = 0.25  # the map's centres lie a quarter of a voxel further
    add(state, row(WALL, FREE, UNKNOWN), [1.0, -1.0, 0.0], backend, matrix=matrix)
    # 0.75 * 1 - 0.25 * 1; -1 alone, as its other neighbour is not seen; the third lies in a voxel that is not seen.
    assert state.log_odds.ravel().tolist() == [0.5, -1.0, 0.0]
    assert state.labels[0, 0, 0] == WALL


@EVERY
def test_outside_the_frame_the_map_stays_as_it_is(backend):
    state, matrix = empty(4, 1, 1), SAME.copy()
    matrix[0, 3] = -2  # the frame's first voxel is the map's third
    add(state, row(WALL), [1.0], backend, matrix=matrix)
    assert state.log_odds.ravel().tolist() == [0.0, 0.0, 1.0, 0.0]


@EVERY
def test_a_quarter_turn_puts_what_is_ahead_to_the_left(backend):
    state = empty(3, 3, 1)
    frame = np.full((3, 3, 1), UNKNOWN, np.uint8)
    frame[2, 1, 0] = WALL  # ahead of the vehicle, which stands in the middle
    # The vehicle has turned left by 90 degrees: map (x, y) is seen at frame (y, 2 - x).
    matrix = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 2], [0, 0, 1, 0]])
    add(state, frame, np.where(frame == WALL, 1.0, 0.0), backend, matrix=matrix)
    assert np.argwhere(state.log_odds > 0).tolist() == [[1, 2, 0]]


@EVERY
def test_the_ring_is_read_from_its_start(backend):
    state = empty(3, 1, 1)
    state.start[:] = 2, 0, 0
    add(state, row(WALL, FREE, UNKNOWN), [1.0, -1.0, 0.0], backend)
    assert state.log_odds.ravel().tolist() == [-1.0, 0.0, 1.0]  # the first voxel lies at 2, the second at 0
    semantics, values = mapping.read_out(state, FREE, backend)
    assert semantics.ravel().tolist() == [WALL, FREE, UNKNOWN] and values.ravel().tolist() == [1.0, -1.0, 0.0]


@EVERY
def test_only_what_moves_and_is_not_seen_for_long_becomes_unknown(backend):
    state = empty(4, 1, 1)
    add(state, row(CAR, WALL, FREE, UNKNOWN), [1.0, 1.0, -1.0, 0.0], backend, now=100)
    add(state, row(UNKNOWN, UNKNOWN, UNKNOWN, CAR), [0.0, 0.0, 0.0, 1.0], backend, now=600)
    mapping.expire(state, ROLES.dynamic, 100, backend)
    assert state.log_odds.ravel().tolist() == [1.0, 1.0, -1.0, 1.0]
    mapping.expire(state, ROLES.dynamic, 101, backend)
    assert state.log_odds.ravel().tolist() == [0.0, 1.0, -1.0, 1.0]


@EVERY
def test_surface_voxels_are_those_with_an_open_face(backend):
    values = np.full((3, 3, 3), 1.0, np.float32)
    values[0, 0, 0] = -1.0
    index, surface = mapping.occupied_voxels(values, backend)
    assert index.tolist() == list(range(1, 27))
    assert index[~surface].tolist() == [13]  # the middle one alone


@EVERY
def test_another_grid_reads_between_the_maps_voxels(backend):
    values = np.array([2.0, -1.0, 0.0], np.float32).reshape(3, 1, 1)
    matrix = SAME.copy()
    matrix[0, 3] = 0.25
    found, places = mapping.sample(values, matrix, (4, 1, 1), backend)
    assert found.ravel().tolist() == [0.75 * 2 - 0.25, -1.0, 0.0, 0.0]
    assert places[0, 0, 0] == 0


@pytest.mark.parametrize("shape", [(17, 13, 5), (1, 1, 1), (4, 9, 1)])
@pytest.mark.parametrize("frame_shape", [(12, 11, 6), (1, 1, 1)])
def test_the_compiled_loops_do_what_the_reference_does(shape, frame_shape):
    generator = np.random.default_rng(5)
    states = {backend: empty(*shape) for backend in BACKENDS}
    for now in range(12):
        semantics = generator.choice(np.array([WALL, CAR, ROAD, FREE, UNKNOWN], np.uint8), frame_shape)
        confidence = generator.uniform(size=frame_shape).astype(np.float32)
        threshold = generator.normal(size=frame_shape[:2]).astype(np.float32)
        yaw, pitch = generator.uniform(-3, 3), generator.uniform(-0.1, 0.1)
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
        turn = turn @ [[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]]
        middle, other = (np.array(one) / 2 - 0.5 for one in (frame_shape, shape))
        shift = middle - turn @ other + generator.uniform(-1, 1, 3)
        matrix = np.column_stack([turn, shift])
        start = generator.integers(0, shape)
        for backend, state in states.items():
            state.start[:] = start
            evidence = mapping.weigh(semantics, confidence, threshold, FREE, 1.0, 2.0, 1.0, backend)
            mapping.fuse(state, evidence, semantics, matrix, now, LIMITS, ROLES, backend)
            mapping.expire(state, ROLES.dynamic, now - 3, backend)
    ours, reference = states["cpu"], states["reference"]
    assert np.allclose(ours.log_odds, reference.log_odds, atol=1e-4)
    known = reference.log_odds > 0
    for name in ("labels", "seen", "votes"):
        assert np.array_equal(getattr(ours, name)[known], getattr(reference, name)[known]), name
    outputs = {backend: mapping.read_out(state, FREE, backend) for backend, state in states.items()}
    assert np.array_equal(outputs["cpu"][0], outputs["reference"][0])
    for one, two in zip(*(mapping.occupied_voxels(outputs["reference"][1], backend) for backend in BACKENDS)):
        assert np.array_equal(one, two)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 0, 1]]))[:3]
    read = {b: mapping.sample(outputs["reference"][1], inverse, frame_shape, b) for b in BACKENDS}
    assert np.allclose(read["cpu"][0], read["reference"][0], atol=1e-4)
    assert np.array_equal(read["cpu"][1][read["cpu"][0] > 0], read["reference"][1][read["reference"][0] > 0])


def test_a_backend_for_other_devices_is_refused():
    with pytest.raises(ValueError, match="a map is on the CPU"):
        mapping.expire(empty(1, 1, 1), ROLES.dynamic, 0, "triton")


def test_arrays_that_do_not_fit_are_refused():
    semantics = row(WALL, FREE)
    with pytest.raises(ValueError, match="expected"):
        mapping.weigh(semantics, np.zeros((1, 1, 1), np.float32), None, FREE, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="expected"):
        add(empty(2, 1, 1), semantics, [1.0, -1.0], "cpu", matrix=np.eye(4))
