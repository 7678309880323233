"""The simulation's inner loops, compiled by Numba when they are first called, and cached on disk.

Embree casts eight rays at a time. The loops get the address of its function as an argument, because code that is cached
on disk must not contain addresses. The lanes of a packet lie side by side as in Embree's RTCRayHit8.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from renderocc_model.base.compiling import compiler

__all__ = ["LANES", "NOTHING", "ROWS", "cast", "interpolate", "merge", "occluded", "read_noise", "spread"]

LANES = 8
NOTHING = np.float32(1e30)  # metres: the length of rays
_ORIGIN, _NEAR, _DIRECTION, _TIME, _FAR, _MASK = 0, 3, 4, 7, 8, 9
_U, _V, _FACE, _GEOMETRY, _INSTANCE = 15, 16, 17, 18, 19
_VALID, _ARGUMENTS = 22, 23
ROWS = 25  # rows of eight numbers of 4 bytes

compiled = compiler(nogil=False)  # threads share one packet, so only one of them may trace at a time


@intrinsic
def _call(typing, function, valid, scene, rays, arguments):
    """Call rtcIntersect8 or rtcOccluded8. All arguments are addresses."""

    def build(context, builder, signature, values):
        address = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [address] * 4)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 5), build


@compiled
def _load(floats, ints, origins, directions, begin, count, limit):
    """Put up to eight rays into a packet; lanes after the last ray are inactive."""
    step = 0 if len(origins) == 1 else 1
    turn = 0 if len(directions) == 1 else 1
    for lane in range(LANES):
        ray = min(begin + lane, count - 1)
        ints[_VALID, lane] = -1 if begin + lane < count else 0
        for axis in range(3):
            floats[_ORIGIN + axis, lane] = origins[ray * step, axis]
            floats[_DIRECTION + axis, lane] = directions[ray * turn, axis]
        floats[_NEAR, lane], floats[_TIME, lane], floats[_FAR, lane] = 0.0, 0.0, limit
        ints[_MASK, lane], ints[_GEOMETRY, lane], ints[_INSTANCE, lane] = -1, -1, -1


@compiled
def cast(function, scene, address, floats, ints, origins, directions, limit, shift, distance, part, face, u, v):
    """First hits of N rays.

    Args:
        function, scene, address: addresses of rtcIntersect8, the scene and the packet.
        floats, ints: the packet, (ROWS, LANES), as float32 and as int32.
        origins, directions: (N, 3) float32, or (1, 3) if all rays share one.
        limit: metres.
        shift: added to the numbers of meshes outside the instance.
        distance: (N,) float32, receives the distance; `limit` without a hit.
        part, face, u, v: (N,), receive mesh (-1 without a hit), triangle and barycentric coordinates. Arrays of length
            0 are not filled.
    """
    count = len(distance)
    for begin in range(0, count, LANES):
        _load(floats, ints, origins, directions, begin, count, limit)
        _call(function, address + _VALID * 32, scene, address, address + _ARGUMENTS * 32)
        for lane in range(min(LANES, count - begin)):
            ray = begin + lane
            distance[ray] = floats[_FAR, lane]
            if len(part):
                geometry = ints[_GEOMETRY, lane]
                part[ray] = geometry if geometry < 0 or ints[_INSTANCE, lane] >= 0 else geometry + shift
                face[ray], u[ray], v[ray] = ints[_FACE, lane], floats[_U, lane], floats[_V, lane]


@compiled
def occluded(function, scene, address, floats, ints, origins, directions, result):
    """Whether each of N rays hits anything, written to (N,) bool; the other arguments as `cast`, with rtcOccluded8."""
    count = len(result)
    for begin in range(0, count, LANES):
        _load(floats, ints, origins, directions, begin, count, NOTHING)
        _call(function, address + _VALID * 32, scene, address, address + _ARGUMENTS * 32)
        for lane in range(min(LANES, count - begin)):
            result[begin + lane] = floats[_FAR, lane] < 0


@compiled
def interpolate(number, part, face, u, v, faces, normals, texture, directions, normal_out, texture_out):
    """Normals and texture coordinates where rays hit one mesh.

    Args:
        number: number of the mesh. Rays that hit other meshes are not changed.
        part, face, u, v: (N,) as `cast` fills them.
        faces, normals, texture: of the mesh.
        directions: (N, 3); normals are flipped to face the ray.
        normal_out, texture_out: (3, N) float32, receive the results. The third texture coordinate is constant over a
            triangle.
    """
    for ray in range(len(part)):
        if part[ray] != number:
            continue
        a, b, c = faces[face[ray], 0], faces[face[ray], 1], faces[face[ray], 2]
        wb, wc = u[ray], v[ray]
        wa = np.float32(1) - wb - wc
        x = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
        y = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
        z = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
        scale = np.float32(1) / max(np.float32(math.sqrt(x * x + y * y + z * z)), np.float32(1e-12))
        if x * directions[ray, 0] + y * directions[ray, 1] + z * directions[ray, 2] > 0:
            scale = -scale
        normal_out[0, ray], normal_out[1, ray], normal_out[2, ray] = x * scale, y * scale, z * scale
        for axis in range(2):
            texture_out[axis, ray] = wa * texture[a, axis] + wb * texture[b, axis] + wc * texture[c, axis]
        texture_out[2, ray] = texture[a, 2]


@compiled
def read_noise(tiles, starts, size, s, t, frequency, footprint, result):
    """The loop of `noise.noise`: bilinear interpolation in the pyramid level that fits each footprint; (N,) float32."""
    for k in range(len(result)):
        level, scale, ratio = 0, frequency, footprint[k] * frequency
        while ratio >= 2 and level < len(starts) - 1:
            level, scale, ratio = level + 1, scale * np.float32(0.5), ratio * np.float32(0.5)
        x, y = s[k] * scale - np.float32(0.5), t[k] * scale - np.float32(0.5)
        left, top = np.float32(math.floor(x)), np.float32(math.floor(y))
        fx, fy = x - left, y - top
        width = size >> level
        mask = width - 1
        x0, y0 = int(left) & mask, int(top) & mask
        row0, row1 = starts[level] + y0 * width, starts[level] + ((y0 + 1) & mask) * width
        x1 = (x0 + 1) & mask
        upper = tiles[row0 + x0] * (1 - fx) + tiles[row0 + x1] * fx
        lower = tiles[row1 + x0] * (1 - fx) + tiles[row1 + x1] * fx
        result[k] = upper * (1 - fy) + lower * fy


@compiled
def spread(corners, pieces, shares, points, areas, owner):
    """The loop of `surface_samples.sample_surface`: points on triangles whose edges are divided into equal pieces.

    Args:
        corners: (T, 3, 3) float32.
        pieces: (T,) int64, pieces of each edge.
        shares: (T, 3) float32, areas of the triangles.
        points, areas, owner: (N, 3) and (N, 3) float32, (N,) int64, receive the points, their areas and their
            triangles. There are (pieces + 1) (pieces + 2) / 2 points on a triangle.
    """
    k = 0
    for row in range(len(pieces)):
        count = pieces[row]
        for i in range(count + 1):
            for j in range(count + 1 - i):
                wa, wb = np.float32(i) / np.float32(count), np.float32(j) / np.float32(count)
                wc = np.float32(count - i - j) / np.float32(count)
                # A triangle has count^2 small ones. Each gives a third to each corner: six meet inside, three at an
                # edge, one at a corner.
                edges = (i == 0) + (j == 0) + (i + j == count)
                share = (2.0 if edges == 0 else 1.0 if edges == 1 else 1 / 3) / (count * count)
                for axis in range(3):
                    points[k, axis] = (
                        wa * corners[row, 0, axis] + wb * corners[row, 1, axis] + wc * corners[row, 2, axis]
                    )
                    areas[k, axis] = shares[row, axis] * share
                owner[k] = row
                k += 1


@compiled
def merge(order, begins, points, areas, merged_points, merged_areas):
    """Means of points, weighted by the lengths of their areas, and sums of areas, written to (M, 3) float32.

    Args:
        order: (N,) numbers of the points, group by group.
        begins: (M + 1,) the start of each group in `order`, and N.
        points, areas: (N, 3) float32.
    """
    for group in range(len(begins) - 1):
        x = y = z = a = b = c = total = 0.0
        for k in order[begins[group] : begins[group + 1]]:
            u, v, w = float(areas[k, 0]), float(areas[k, 1]), float(areas[k, 2])
            weight = max(math.sqrt(u * u + v * v + w * w), 1e-9)  # a triangle without area still has a position
            x, y, z = x + weight * points[k, 0], y + weight * points[k, 1], z + weight * points[k, 2]
            a, b, c, total = a + u, b + v, c + w, total + weight
        merged_points[group, 0], merged_points[group, 1], merged_points[group, 2] = x / total, y / total, z / total
        merged_areas[group, 0], merged_areas[group, 1], merged_areas[group, 2] = a, b, c
