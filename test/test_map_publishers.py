"""Whole grids and updates of the map's grid: what nav2's static layer makes of them is the grid."""

from __future__ import annotations

import numpy as np

from renderocc_ros.output.map_publishers import GridChanges

UNKNOWN, FREE, WALL = -1, 0, 100
PERIOD = 1.0


def cells(*walls: tuple[int, int]) -> np.ndarray:
    made = np.full((8, 6), FREE, np.int8)
    for wall in walls:
        made[wall] = WALL
    return made


def test_the_first_grid_is_a_whole_one_and_then_the_rectangle_that_has_changed_is_sent():
    changes = GridChanges()
    assert changes.next(cells((1, 1)), (0,), 1, 0.0, PERIOD) is None
    x, y, values = changes.next(cells((1, 1), (3, 2), (5, 4)), (0,), 1, 0.1, PERIOD)
    assert (x, y, values.shape) == (3, 2, (3, 3))
    assert values.tolist() == [[WALL, FREE, FREE], [FREE, FREE, FREE], [FREE, FREE, WALL]]


def test_without_a_change_there_is_nothing_to_send():
    changes = GridChanges()
    changes.next(cells(), (0,), 1, 0.0, PERIOD)
    assert changes.next(cells(), (0,), 1, 0.1, PERIOD)[2].size == 0


def test_a_cell_that_changes_back_is_sent_again():
    changes = GridChanges()
    changes.next(cells(), (0,), 1, 0.0, PERIOD)
    changes.next(cells((3, 2)), (0,), 1, 0.1, PERIOD)
    x, y, values = changes.next(cells(), (0,), 1, 0.2, PERIOD)
    assert (x, y, values.tolist()) == (3, 2, [[FREE]])


def test_a_map_that_has_moved_a_new_listener_and_a_period_ask_for_a_whole_grid():
    changes = GridChanges()
    changes.next(cells(), (0,), 1, 0.0, PERIOD)
    assert changes.next(cells(), (1,), 1, 0.1, PERIOD) is None
    assert changes.next(cells(), (1,), 1, 0.2, PERIOD) is not None
    assert changes.next(cells(), (1,), 2, 0.3, PERIOD) is None
    assert changes.next(cells(), (1,), 1, 0.4, PERIOD) is not None  # one less
    assert changes.next(cells(), (1,), 2, 0.5, PERIOD) is None  # and one more
    assert changes.next(cells(), (1,), 2, 1.4, PERIOD) is not None
    assert changes.next(cells(), (1,), 2, 1.5, PERIOD) is None
    changes.forget()
    assert changes.next(cells(), (1,), 2, 1.6, PERIOD) is None


def test_a_layer_that_reads_the_grid_late_and_loses_updates_has_the_right_cells_after_the_next_one():
    """nav2's static layer applies updates at once, but keeps a whole grid until it next updates its bounds, and then
    writes it over what the updates in between have brought."""
    generator, changes = np.random.default_rng(0), GridChanges()
    wanted, layer, kept, right = cells(), None, None, 0
    for step in range(200):
        wanted = wanted.copy()
        for _ in range(3):
            wanted[generator.integers(8), generator.integers(6)] = generator.choice((UNKNOWN, FREE, WALL))
        sent = changes.next(wanted, (0,), 1, step * 0.1, 2.0)
        late = kept is not None
        if sent is None:
            kept = wanted
        elif layer is not None:
            x, y, values = sent
            layer[x : x + values.shape[0], y : y + values.shape[1]] = values
        if layer is not None and not late and sent is not None:
            assert np.array_equal(layer, wanted)
            right += 1
        if kept is not None and generator.uniform() < 0.5:
            layer, kept = kept.copy(), None
    assert right > 50
