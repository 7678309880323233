"""Voxel traversal: the voxels a ray passes, in order, by hand and against a search over all planes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderocc_model.geometry.grid import VoxelGrid
from training.data.traversal import cell_indices, padded, traverse

GRID = VoxelGrid((-1.0, -1.5, 0.0), (1.5, 1.0, 1.0), 0.5)  # 5 x 5 x 2 voxels


def passed(origins, directions, grid=GRID):
    """Of each ray, its voxels with the distances at which it enters and leaves them; and where it leaves the grid."""
    paths = [[] for _ in origins]
    inside = padded(np.ones(grid.shape, bool))

    def visit(rays, cells, enter, leave):
        for ray, cell, first, last in zip(rays, cells, enter, leave):
            if inside[cell]:
                index = cell_indices(cell, grid.shape)
                paths[ray].append((*map(int, np.unravel_index(index, grid.shape)), first, last))
        return ~inside[cells]

    exits = traverse(grid, np.array(origins, float), np.array(directions, float), visit)
    return paths, exits


def by_search(origin, direction, grid):
    """The same, one ray: cut it at all planes, sort, and ask in which voxel each piece's middle lies."""
    times = [0.0]
    for axis in range(3):
        for plane in range(grid.shape[axis] + 1):
            if direction[axis]:
                time = (grid.lower[axis] + plane * grid.voxel_size - origin[axis]) / direction[axis]
                if time > 0:
                    times.append(time)
    times.sort()
    path = []
    for first, last in zip(times[:-1], times[1:]):
        middle = [o + d * (first + last) / 2 for o, d in zip(origin, direction)]
        voxel = [math.floor((m - low) / grid.voxel_size) for m, low in zip(middle, grid.lower)]
        if last - first > 1e-9 and all(0 <= v < size for v, size in zip(voxel, grid.shape)):
            path.append((*voxel, first, last))
    return path


def alike(path, expected):
    """Equal but for voxels that are only touched."""
    path = [step for step in path if step[4] - step[3] > 1e-9]
    assert [step[:3] for step in path] == [step[:3] for step in expected]
    np.testing.assert_allclose([s[3:] for s in path], [s[3:] for s in expected], atol=1e-9)


def test_a_ray_along_an_axis_passes_a_row_of_voxels():
    """From x = -0.9 along x: 0.4 m to the plane at -0.5, then 0.5 m each, out at 1.5 after 2.4 m."""
    (path,), exits = passed([(-0.9, 0.1, 0.3)], [(1, 0, 0)])
    assert [step[:3] for step in path] == [(x, 3, 0) for x in range(5)]
    np.testing.assert_allclose([step[3:] for step in path], [(0, 0.4), (0.4, 0.9), (0.9, 1.4), (1.4, 1.9), (1.9, 2.4)])
    np.testing.assert_allclose(exits, [2.4])


def test_a_ray_backwards_along_an_axis_passes_them_in_the_other_order():
    (path,), exits = passed([(0.1, 0.9, 0.3)], [(0, -1, 0)])
    assert [step[:3] for step in path] == [(2, y, 0) for y in (4, 3, 2, 1, 0)]
    np.testing.assert_allclose(exits, [2.4])


def test_a_ray_through_corners_passes_from_corner_to_corner():
    """Along the diagonal of x and z: (0, 0), (1, 1) and no length in what lies beside the edge at x = -0.5, z = 0.5."""
    half = math.sqrt(0.5)
    (path,), exits = passed([(-1.0, 0.1, 0.0)], [(half, 0, half)])
    lengths = {step[:3]: step[4] - step[3] for step in path}
    assert lengths[0, 3, 0] == pytest.approx(half) and lengths[1, 3, 1] == pytest.approx(half)
    assert sum(lengths.values()) == pytest.approx(2 * half) == pytest.approx(exits[0])
    # The plane of z is crossed first.
    assert [step[:3] for step in path] == [(0, 3, 0), (0, 3, 1), (1, 3, 1)]


def test_a_ray_on_a_face_passes_the_voxels_that_own_it():
    """y = 0 is the lower face of the voxels 3; x = 0 of the voxels 2."""
    (path,), _ = passed([(0.0, 0.0, 0.25)], [(1, 0, 0)])
    assert [step[:3] for step in path] == [(2, 3, 0), (3, 3, 0), (4, 3, 0)]


def test_a_ray_that_starts_on_a_face_and_goes_down_begins_in_the_voxel_that_owns_its_origin():
    (path,), _ = passed([(0.0, 0.1, 0.25)], [(-1, 0, 0)])
    assert [step[:3] for step in path] == [(2, 3, 0), (1, 3, 0), (0, 3, 0)]
    assert path[0][3:] == (0, 0) and path[1][3] == 0


def test_rays_from_outside_enter_through_the_face():
    rays = [
        ((-3, 0.1, 0.3), (1, 0, 0)),
        ((3, 0.1, 0.3), (-1, 0, 0)),
        ((-3, 0.1, 0.3), (-1, 0, 0)),
        ((0.1, 5, 0.3), (1, 0, 0)),
        ((1.5, 0.1, 0.3), (-1, 0, 0)),
        ((1.5, 0.1, 0.3), (1, 0, 0)),
        ((0.1, 1.0, 0.3), (1, 0, 0)),
    ]
    paths, exits = passed(*zip(*rays))
    assert [step[:3] for step in paths[0]] == [(x, 3, 0) for x in range(5)] and paths[0][0][3] == 2
    assert [step[:3] for step in paths[1]] == [(x, 3, 0) for x in (4, 3, 2, 1, 0)]
    assert paths[2] == [] and paths[3] == []
    # On the upper face, which belongs to no voxel: inwards there are voxels, outwards and along it there are none.
    assert [step[:3] for step in paths[4]] == [(x, 3, 0) for x in (4, 3, 2, 1, 0)]
    assert paths[5] == [] and paths[6] == []
    np.testing.assert_allclose(exits, [4.5, 4, 0, 0, 2.5, 0, 0])


def test_a_ray_that_is_done_is_let_go():
    seen = []

    def visit(rays, cells, enter, leave):
        seen.extend((ray, cell) for ray, cell in zip(rays.tolist(), cells.tolist()) if cell)
        return rays == 0

    exits = traverse(GRID, np.tile([[-0.9, 0.1, 0.3]], (3, 1)), np.tile([[1.0, 0, 0]], (3, 1)), visit)
    assert sum(ray == 0 for ray, _ in seen) == 1 and sum(ray == 1 for ray, _ in seen) == 5
    np.testing.assert_allclose(exits, 2.4)  # also of the ray that was done before


def test_more_rays_than_step_together_are_each_walked():
    rng = np.random.default_rng(0)
    origins = np.tile([[0.1, 0.1, 0.3]], (40_000, 1))
    directions = rng.normal(size=(40_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    first = np.full(40_000, -1)

    def visit(rays, cells, enter, leave):
        first[rays[enter == 0]] = cells[enter == 0]
        return np.zeros(len(rays), bool)

    traverse(GRID, origins, directions, visit)
    assert (cell_indices(first, GRID.shape) == np.ravel_multi_index((2, 3, 0), GRID.shape)).all()


def test_what_is_no_ray_is_refused():
    with pytest.raises(ValueError, match="origins have shape"):
        traverse(GRID, np.zeros((2, 3)), np.zeros((3, 3)), None)
    with pytest.raises(ValueError, match="not finite"):
        traverse(GRID, np.full((1, 3), np.nan), np.ones((1, 3)), None)


coordinate = st.one_of(
    st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]), st.floats(-2.5, 2.5).map(lambda value: round(value, 3))
)
component = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1, 1).map(lambda value: round(value, 2)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.tuples(coordinate, coordinate, coordinate), st.tuples(component, component, component)),
        min_size=1,
        max_size=8,
    )
)
def test_paths_are_those_of_a_search_over_all_planes(rays):
    """Corners, edges, faces and axes included; a ray that runs within a face of the grid itself is tested above."""
    faces = (-1.0, -1.5, 0.0, 1.0, 1.5)
    rays = [(o, d) for o, d in rays if any(d) and not any(not a and b in faces for a, b in zip(d, o))]
    directions = [np.array(d) / np.linalg.norm(d) for _, d in rays]
    paths, _ = passed([o for o, _ in rays] or np.zeros((0, 3)), directions or np.zeros((0, 3)))
    for path, (origin, _), direction in zip(paths, rays, directions):
        alike(path, by_search(origin, direction, GRID))
