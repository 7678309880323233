"""The loops of `ops.visibility` for CPUs, compiled by Numba when they are first called; kept on disk where possible."""

from __future__ import annotations

import math

import numpy as np

from ...base.compiling import compiler

__all__ = ["cast_rays", "mark_voxels"]

_HALF, _ZERO, _ONE = np.float32(0.5), np.float32(0), np.float32(1)

compiled = compiler(fastmath=("contract", "nsz"))


@compiled
def cast_rays(density, layers, cameras, directions, owner, first, last, limit, step, distances):
    """Write for rays first..last-1 the distance at which the sum of the densities at their samples exceeds `limit`.

    Density is (X, Y, Z * layers); distances are in voxels.
    """
    X, Y, Z = density.shape
    flat, per_voxel = density.reshape(-1), np.float32(layers)
    sizes = (np.float32(X), np.float32(Y), np.float32(Z) / per_voxel)
    for ray in range(first, last):
        camera = cameras[owner[ray]]
        near, far = _ZERO, np.float32(math.inf)
        a, b, c = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        direction = (
            camera[3] * a + camera[4] * b + camera[5] * c,
            camera[6] * a + camera[7] * b + camera[8] * c,
            camera[9] * a + camera[10] * b + camera[11] * c,
        )
        misses = False
        for axis in range(3):
            size = sizes[axis]
            place, along = camera[axis], direction[axis]
            if along == _ZERO:
                misses = misses or place <= _ZERO or place >= size
                continue
            low, high = -place / along, (size - place) / along
            near, far = max(near, min(low, high)), min(far, max(low, high))
        distances[ray] = math.inf
        if misses or not far > near:
            continue
        # A steep ray must not jump over a layer: shorter steps, of which more make the limit.
        finer = max(_ONE, per_voxel * abs(direction[2]))
        depth, stride, most = _ZERO, step / finer, limit * finer
        for sample in range(int(math.ceil((far - near) / stride))):
            at = near + (np.float32(sample) + _HALF) * stride
            x = min(max(int(camera[0] + direction[0] * at), 0), X - 1)
            y = min(max(int(camera[1] + direction[1] * at), 0), Y - 1)
            z = min(max(int((camera[2] + direction[2] * at) * per_voxel), 0), Z - 1)
            depth += flat[(x * Y + y) * Z + z]
            if depth > most:
                distances[ray] = near + np.float32(sample) * stride
                break


@compiled
def mark_voxels(cameras, distances, masks, first, last, bias, nearest, visible):
    """Write for voxels with x in first..last-1 whether a camera sees them."""
    _, Y, Z = visible.shape
    visible[first:last] = False
    for x in range(first, last):
        for y in range(Y):
            for n in range(len(cameras)):
                _mark_column(cameras[n], distances, masks, x, y, Z, bias, nearest, visible)


@compiled
def _mark_column(camera, distances, masks, x, y, Z, bias, nearest, visible):
    dx, dy = np.float32(x) + _HALF - camera[0], np.float32(y) + _HALF - camera[1]
    width, height, rows, columns = camera[21], camera[22], int(camera[24]), int(camera[25])
    # Homogeneous pixel (u, v, w) of a point: a part from (x, y), and another for each unit of z.
    u, v, w = camera[12] * dx + camera[13] * dy, camera[15] * dx + camera[16] * dy, camera[18] * dx + camera[19] * dy
    uz, vz, wz = camera[14], camera[17], camera[20]
    # In the view: on the inner side of the pyramid's four faces, and not behind the camera.
    low, high = -math.inf, math.inf
    for face in range(5):
        if face == 0:
            f, fz = u + _HALF * w, uz + _HALF * wz
        elif face == 1:
            f, fz = (width - _HALF) * w - u, (width - _HALF) * wz - uz
        elif face == 2:
            f, fz = v + _HALF * w, vz + _HALF * wz
        elif face == 3:
            f, fz = (height - _HALF) * w - v, (height - _HALF) * wz - vz
        else:
            f, fz = w - nearest, wz
        if fz == _ZERO:
            if f < _ZERO:
                return
        elif fz > _ZERO:
            low = max(low, -f / fz)
        else:
            high = min(high, -f / fz)
    # Clamped before rounding: an almost upright face is crossed at a height that would overflow an integer.
    bottom = math.ceil(min(max(low + camera[2] - _HALF, _ZERO), np.float32(Z)))
    top = math.floor(max(min(high + camera[2] - _HALF, np.float32(Z - 1)), -_ONE))
    if bottom > top:
        return
    nx, ny = dx - min(max(dx, -_HALF), _HALF), dy - min(max(dy, -_HALF), _HALF)
    un, vn = camera[12] * nx + camera[13] * ny, camera[15] * nx + camera[16] * ny
    wn, flat = camera[18] * nx + camera[19] * ny, nx * nx + ny * ny
    for z in range(int(bottom), int(top) + 1):
        if visible[x, y, z]:
            continue
        dz = np.float32(z) + _HALF - camera[2]
        if camera[27] >= _ZERO:
            scale = _ONE / max(w + wz * dz, nearest)
            column = int(min(max((u + uz * dz) * scale + _HALF, _ZERO), width - _ONE))
            row = int(min(max((v + vz * dz) * scale + _HALF, _ZERO), height - _ONE))
            if masks[int(camera[27]), row, column] == 0:
                continue
        nz = dz - min(max(dz, -_HALF), _HALF)
        away = wn + wz * nz
        scale = _ONE / (max(away, nearest) * camera[23])
        column = int(min(max((un + uz * nz + _HALF * away) * scale, _ZERO), np.float32(columns - 2)))
        row = int(min(max((vn + vz * nz + _HALF * away) * scale, _ZERO), np.float32(rows - 2)))
        ray = int(camera[26]) + row * columns + column
        reach = (
            max(max(distances[ray], distances[ray + 1]), max(distances[ray + columns], distances[ray + columns + 1]))
            + bias
        )
        visible[x, y, z] = flat + nz * nz <= reach * reach
