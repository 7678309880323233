"""Calls Embree directly, from the library in the package embreex.

The Python interface of embreex is too slow: it copies meshes vertex by vertex, casts rays one by one, and has no
instances, so that moving objects would need a second cast of every ray. Names and numbers are those of Embree 4's
`rtcore.h`.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence

import numpy as np
from embreex import rtcore

from .loops import LANES, NOTHING, ROWS, cast, occluded

__all__ = ["Scene"]

_TRIANGLES, _INSTANCE = 0, 121  # RTCGeometryType
_INDICES, _VERTICES = 0, 1  # RTCBufferType
_UINT3, _FLOAT3, _FLOAT3X4 = 0x5003, 0x9003, 0x9134  # RTCFormat
_COHERENT = 1 << 16  # RTCRayQueryFlags
_ALL_FEATURES = -1

_POINTER, _WORD, _SIZE = ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t
_FUNCTIONS = {  # name: type of the result, types of the arguments
    "rtcNewDevice": (_POINTER, [ctypes.c_char_p]),
    "rtcGetDeviceError": (ctypes.c_int, [_POINTER]),
    "rtcNewScene": (_POINTER, [_POINTER]),
    "rtcCommitScene": (None, [_POINTER]),
    "rtcReleaseScene": (None, [_POINTER]),
    "rtcNewGeometry": (_POINTER, [_POINTER, ctypes.c_int]),
    "rtcSetNewGeometryBuffer": (_POINTER, [_POINTER, ctypes.c_int, _WORD, ctypes.c_int, _SIZE, _SIZE]),
    "rtcSetGeometryInstancedScene": (None, [_POINTER, _POINTER]),
    "rtcSetGeometryTransform": (None, [_POINTER, _WORD, ctypes.c_int, _POINTER]),
    "rtcCommitGeometry": (None, [_POINTER]),
    "rtcAttachGeometry": (_WORD, [_POINTER, _POINTER]),
    "rtcReleaseGeometry": (None, [_POINTER]),
    "rtcIntersect8": (None, [_POINTER] * 4),
    "rtcOccluded8": (None, [_POINTER] * 4),
}


@functools.cache
def _library() -> ctypes.CDLL:
    """The Embree library that embreex has loaded. Its functions are found through the module that is linked to it."""
    library = ctypes.CDLL(rtcore.__file__)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def _device() -> int:
    """One device for all scenes of this process, because making a device takes longer than making a small scene."""
    return _library().rtcNewDevice(None)


@functools.cache
def _address(name: str) -> int:
    return ctypes.cast(getattr(_library(), name), _POINTER).value or 0


class Scene:
    """Triangles that rays can be cast into.

    Args:
        meshes: vertices (V, 3) and faces (F, 3) of each.
        around: a scene whose meshes are also in this one, as an instance that is not built again. Its meshes come first
            in the numbering. It must not contain an instance itself.
    """

    def __init__(self, meshes: Sequence[tuple[np.ndarray, np.ndarray]], around: Scene | None = None) -> None:
        library = _library()
        self._around = around  # kept alive as long as this scene
        self._scene = library.rtcNewScene(_device())
        weakref.finalize(self, library.rtcReleaseScene, self._scene)
        self.count: int = len(meshes) + (around.count if around else 0)
        self._shift = around.count - 1 if around else 0  # the instance is this scene's first geometry
        if around:
            self._attach(self._instance(around))
        for vertices, faces in meshes:
            self._attach(self._triangles(vertices, faces))
        library.rtcCommitScene(self._scene)
        if error := library.rtcGetDeviceError(_device()):
            raise MemoryError(f"Embree could not build a scene of {self.count} meshes: Embree's error {error}")
        memory = np.zeros(ROWS * LANES + LANES, np.int32)
        start = -memory.ctypes.data % (4 * LANES) // 4  # lanes must be aligned
        self._ints = memory[start : start + ROWS * LANES].reshape(ROWS, LANES)
        self._floats = self._ints.view(np.float32)

    def _instance(self, scene: Scene) -> int:
        library = _library()
        geometry = library.rtcNewGeometry(_device(), _INSTANCE)
        here = np.eye(3, 4, dtype=np.float32)
        library.rtcSetGeometryInstancedScene(geometry, scene._scene)
        library.rtcSetGeometryTransform(geometry, 0, _FLOAT3X4, here.ctypes.data)
        return geometry

    def _triangles(self, vertices: np.ndarray, faces: np.ndarray) -> int:
        geometry = _library().rtcNewGeometry(_device(), _TRIANGLES)
        for kind, form, rows in (
            (_VERTICES, _FLOAT3, np.ascontiguousarray(vertices, np.float32)),
            (_INDICES, _UINT3, np.ascontiguousarray(faces, np.int32)),
        ):
            buffer = _library().rtcSetNewGeometryBuffer(geometry, kind, 0, form, 12, len(rows))
            if not buffer:
                raise MemoryError(f"Embree has no room for a mesh of {len(faces)} triangles")
            ctypes.memmove(buffer, rows.ctypes.data, rows.nbytes)
        return geometry

    def _attach(self, geometry: int) -> None:
        library = _library()
        library.rtcCommitGeometry(geometry)
        library.rtcAttachGeometry(self._scene, geometry)
        library.rtcReleaseGeometry(geometry)  # the scene keeps it alive

    def _packet(self, coherent: bool) -> tuple:
        """The arguments of the loops: the scene, the packet's address, and the packet."""
        self._ints[-2, :2] = _COHERENT if coherent else 0, _ALL_FEATURES  # for RTCIntersectArguments: no callbacks
        return np.uint64(self._scene), np.uint64(self._ints.ctypes.data), self._floats, self._ints

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """The first hits of N rays: distance (`NOTHING` or more without a hit), mesh (-1 without), triangle, u and v.

        Args:
            origins, directions: (N, 3) float32; origins (1, 3) if all rays share one.
        """
        count = len(directions)
        found = [np.empty(count, kind) for kind in (np.float32, np.int32, np.int32, np.float32, np.float32)]
        packet = self._packet(len(origins) == 1)
        cast(np.uint64(_address("rtcIntersect8")), *packet, origins, directions, NOTHING, self._shift, *found)
        return tuple(found)

    def nearest(self, origins: np.ndarray, directions: np.ndarray, limit: float) -> np.ndarray:
        """(N,) float32 metres to the first hits; `limit` for a ray without a hit before it."""
        none, nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        distance = np.empty(len(directions), np.float32)
        cast(
            np.uint64(_address("rtcIntersect8")),
            *self._packet(len(origins) == 1),
            origins,
            directions,
            np.float32(limit),
            self._shift,
            distance,
            none,
            none,
            nothing,
            nothing,
        )
        return distance

    def blocked(self, origins: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) bool: a ray from origin (N, 3) in the direction (1, 3) hits something."""
        result = np.empty(len(origins), bool)
        occluded(np.uint64(_address("rtcOccluded8")), *self._packet(True), origins, direction, result)
        return result
