"""The loops of `ops.visibility` for GPUs."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cast_rays", "mark_voxels"]


@triton.jit
def cast_rays(
    density,
    cameras,
    directions,
    owner,
    distances,
    rays,
    limit,
    step,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    LAYERS: tl.constexpr,
    NUMBERS: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Cast RAYS rays in each program, SAMPLES samples of each at a time, until all have ended.

    Z counts the layers, LAYERS of each voxel; lengths are in voxels.
    """
    TOP: tl.constexpr = Z // LAYERS
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    there = ray < rays
    camera = cameras + tl.load(owner + ray, there, 0) * NUMBERS
    a = tl.load(directions + 3 * ray, there, 1.0)
    b = tl.load(directions + 3 * ray + 1, there, 0.0)
    c = tl.load(directions + 3 * ray + 2, there, 0.0)
    px, py, pz = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2)
    dx = tl.load(camera + 3) * a + tl.load(camera + 4) * b + tl.load(camera + 5) * c
    dy = tl.load(camera + 6) * a + tl.load(camera + 7) * b + tl.load(camera + 8) * c
    dz = tl.load(camera + 9) * a + tl.load(camera + 10) * b + tl.load(camera + 11) * c
    # A ray parallel to a pair of faces stays between them or misses: a tiny slope gives the same result without 0 / 0.
    near = tl.zeros([RAYS], tl.float32)
    far = tl.full([RAYS], float("inf"), tl.float32)
    sx = tl.where(tl.abs(dx) < 1e-20, 1e-20, dx)
    near = tl.maximum(near, tl.minimum(-px / sx, (X - px) / sx))
    far = tl.minimum(far, tl.maximum(-px / sx, (X - px) / sx))
    sy = tl.where(tl.abs(dy) < 1e-20, 1e-20, dy)
    near = tl.maximum(near, tl.minimum(-py / sy, (Y - py) / sy))
    far = tl.minimum(far, tl.maximum(-py / sy, (Y - py) / sy))
    sz = tl.where(tl.abs(dz) < 1e-20, 1e-20, dz)
    near = tl.maximum(near, tl.minimum(-pz / sz, (TOP - pz) / sz))
    far = tl.minimum(far, tl.maximum(-pz / sz, (TOP - pz) / sz))
    # A steep ray must not jump over a layer: shorter steps, of which more make the limit.
    finer = tl.maximum(LAYERS * tl.abs(dz), 1.0)
    step, limit = step / finer, limit * finer
    count = tl.where(there & (far > near), tl.ceil((far - near) / step), 0.0).to(tl.int32)

    passed = tl.zeros([RAYS], tl.int32)  # samples up to which the sum is within the limit
    total = tl.zeros([RAYS], tl.float32)
    first = 0
    longest = tl.max(count, 0)
    while first < longest:
        sample = first + tl.arange(0, SAMPLES)[None, :]
        live = (sample < count[:, None]) & (total <= limit)[:, None]
        at = near[:, None] + (sample.to(tl.float32) + 0.5) * step[:, None]
        x = tl.minimum(tl.maximum((px[:, None] + dx[:, None] * at).to(tl.int32), 0), X - 1)
        y = tl.minimum(tl.maximum((py[:, None] + dy[:, None] * at).to(tl.int32), 0), Y - 1)
        z = tl.minimum(tl.maximum(((pz[:, None] + dz[:, None] * at) * LAYERS).to(tl.int32), 0), Z - 1)
        value = tl.load(density + (x * Y + y) * Z + z, live, 0.0).to(tl.float32)
        depth = total[:, None] + tl.cumsum(value, 1)
        passed += tl.sum((live & (depth <= limit[:, None])).to(tl.int32), 1)
        total += tl.sum(value, 1)
        first += SAMPLES
        # Rays that have ended need no more samples; the program ends when all have.
        longest = tl.max(tl.where(total <= limit, count, 0), 0)
    ended = near + passed.to(tl.float32) * step
    tl.store(distances + ray, tl.where(passed < count, ended, float("inf")), there)


@triton.jit
def mark_voxels(
    cameras,
    distances,
    masks,
    visible,
    count,
    bias,
    nearest,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    CAMERAS: tl.constexpr,
    NUMBERS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mark BLOCK voxels in each program, for all cameras. ROWS, COLUMNS: size of the masks."""
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = voxel < count
    z = voxel % Z
    y = (voxel // Z) % Y
    x = voxel // (Z * Y)
    seen = tl.zeros([BLOCK], tl.int32)
    for n in range(CAMERAS):
        camera = cameras + n * NUMBERS
        dx = x.to(tl.float32) + 0.5 - tl.load(camera)
        dy = y.to(tl.float32) + 0.5 - tl.load(camera + 1)
        dz = z.to(tl.float32) + 0.5 - tl.load(camera + 2)
        m0, m1, m2 = tl.load(camera + 12), tl.load(camera + 13), tl.load(camera + 14)
        m3, m4, m5 = tl.load(camera + 15), tl.load(camera + 16), tl.load(camera + 17)
        m6, m7, m8 = tl.load(camera + 18), tl.load(camera + 19), tl.load(camera + 20)
        width, height = tl.load(camera + 21), tl.load(camera + 22)
        stride, columns = tl.load(camera + 23), tl.load(camera + 25).to(tl.int32)
        rows, first = tl.load(camera + 24).to(tl.int32), tl.load(camera + 26).to(tl.int32)
        # Homogeneous pixel of the centre; in the view: inside the pyramid's faces, and not behind the camera.
        u = m0 * dx + m1 * dy + m2 * dz
        v = m3 * dx + m4 * dy + m5 * dz
        w = m6 * dx + m7 * dy + m8 * dz
        inside = there & (w >= nearest) & (u + 0.5 * w >= 0) & ((width - 0.5) * w - u >= 0)
        inside = inside & (v + 0.5 * w >= 0) & ((height - 0.5) * w - v >= 0) & (seen == 0)
        if MASKED:
            mask = tl.load(camera + 27).to(tl.int32)
            scale = 1 / tl.maximum(w, nearest)
            column = tl.minimum(tl.maximum(u * scale + 0.5, 0.0), width - 1).to(tl.int32)
            row = tl.minimum(tl.maximum(v * scale + 0.5, 0.0), height - 1).to(tl.int32)
            place = (tl.maximum(mask, 0) * ROWS + row) * COLUMNS + column
            valid = tl.load(masks + place, inside, 1).to(tl.int32)
            inside = inside & (tl.where(mask >= 0, valid, 1) != 0)
        nx = dx - tl.minimum(tl.maximum(dx, -0.5), 0.5)
        ny = dy - tl.minimum(tl.maximum(dy, -0.5), 0.5)
        nz = dz - tl.minimum(tl.maximum(dz, -0.5), 0.5)
        away = m6 * nx + m7 * ny + m8 * nz
        scale = 1 / (tl.maximum(away, nearest) * stride)
        column = (m0 * nx + m1 * ny + m2 * nz + 0.5 * away) * scale
        row = (m3 * nx + m4 * ny + m5 * nz + 0.5 * away) * scale
        column = tl.minimum(tl.maximum(column, 0.0), (columns - 2).to(tl.float32)).to(tl.int32)
        row = tl.minimum(tl.maximum(row, 0.0), (rows - 2).to(tl.float32)).to(tl.int32)
        ray = distances + first + row * columns + column
        upper = tl.maximum(tl.load(ray, inside, 0.0), tl.load(ray + 1, inside, 0.0))
        lower = tl.maximum(tl.load(ray + columns, inside, 0.0), tl.load(ray + columns + 1, inside, 0.0))
        reach = tl.maximum(upper, lower) + bias
        seen = tl.where(inside & (nx * nx + ny * ny + nz * nz <= reach * reach), 1, seen)
    tl.store(visible + voxel, seen.to(tl.int8), there)
