"""A map around a moving vehicle that remembers what its frames have shown: a volume fixed to the odometry frame.

    vehicle_map = RollingMap(predictor.classes, predictor.grid)
    for images, odom_from_base, stamp_ns in drive:
        vehicle_map.add(predictor(images), odom_from_base, stamp_ns)
    vehicle_map.volume().save_ply("map.ply")

The mathematics is in `ops.mapping`.
"""

from __future__ import annotations

import numpy as np

from ..field.classes import UNLABELLED, ClassTable
from ..field.occupancy import Occupancy, OccupiedVoxels
from ..geometry.grid import VoxelGrid
from ..geometry.transforms import invert
from ..ops import mapping
from ..rosio.motion import MotionLimits, jumps_of
from .map_config import FARTHEST, MapConfig

__all__ = ["RollingMap"]

_SPARE_LAYERS = 1  # above and below, so that the map does not scroll with every small change of height
_NS_PER_MS = 1_000_000
_POSES = 4  # the last of them show how the vehicle moves
_EPOCH_MS = 2**30  # milliseconds, 12 days; a longer drive begins its map anew


class RollingMap:
    """Adds frames to a map that follows the vehicle by whole voxels, with axes parallel to those of the odometry frame.

    Static classes stay until they are seen free. Classes that move are forgotten after `dynamic_decay`. Classes that
    may move stay as static ones do, up to the limit of those that move, so that what left is soon free. What no frame
    has seen is unknown, and what has scrolled out of the map is forgotten. After a jump of the odometry the map begins
    anew; frames without a camera change nothing in what this camera has shown. Used by one thread at a time.

    Args:
        classes: the frames' class table.
        grid: the frames' grid, which gives the map's size where the configuration does not.
        config: how it remembers; may be replaced later, except for size, voxel_size and scroll.
        frame: name of the odometry frame.
        limits: how the vehicle can move; between poses that break them the odometry has jumped.
        backend: implementation of `ops.mapping`.
    Attributes:
        shape: number of voxels along (x, y, z): the size asked for, a margin of `scroll` on each side, and one more
            layer above and below.
        voxel_size: edge of a voxel, metres.
        frames: number of frames since the map began.
    """

    def __init__(
        self,
        classes: ClassTable,
        grid: VoxelGrid,
        config: MapConfig = MapConfig(),
        frame: str = "odom",
        limits: MotionLimits = MotionLimits(),
        backend: str = "auto",
    ) -> None:
        self.classes, self.config, self.frame, self._backend = classes, config, frame, backend
        self.voxel_size = config.voxel_size or grid.voxel_size
        self._margin = np.array([config.scroll, config.scroll, _SPARE_LAYERS])
        # The vehicle is the map's middle along x and y, as it may turn; the grid's middle is that of the height.
        reach = config.size / 2 or max(abs(number) for number in (*grid.lower[:2], *grid.upper[:2]))
        self._lowest, self._middle = grid.lower[2], (grid.lower[2] + grid.upper[2]) / 2
        self._shift = np.zeros(3)  # metres, where voxel (0, 0, 0) of all lies in odom
        span = np.array([2 * reach, 2 * reach, grid.upper[2] - grid.lower[2]])
        voxels = np.ceil(span / self.voxel_size - 1e-6).astype(int) + 2 * self._margin
        x, y, z = (int(count) for count in voxels)
        self.shape = x, y, z
        self._state = mapping.MapState.empty(self.shape, len(classes.occupied_ids))
        self._roles = mapping.ClassRoles.of(classes)
        self._corner: np.ndarray | None = None  # (3,) int64, number of the map's first voxel, counted from `_shift`
        self._limits = limits
        self._stamps: list[int] = []
        self._poses: list[np.ndarray] = []
        self._began_ns = 0
        self.frames = 0

    @property
    def grid(self) -> VoxelGrid | None:
        """Where the map is now, in the odometry frame; None before the first frame."""
        if self._corner is None:
            return None
        lower = self._corner * self.voxel_size + self._shift
        upper = (self._corner + self.shape) * self.voxel_size + self._shift
        return VoxelGrid(tuple(lower.tolist()), tuple(upper.tolist()), self.voxel_size, self.frame)

    def clear(self) -> None:
        """Forget everything."""
        self._state.log_odds[:] = 0
        self._corner, self.frames = None, 0
        self._stamps, self._poses = [], []

    def add(self, occupancy: Occupancy, odom_from_base: np.ndarray, stamp_ns: int) -> str:
        """Add a frame.

        Args:
            occupancy: what the frame shows, in the vehicle's frame. If it has a threshold, confidence is weighed;
                otherwise occupied and free count as `hit` and `miss`.
            odom_from_base: (4, 4) pose of the vehicle at the frame's stamp.
            stamp_ns: the frame's stamp, nanoseconds.
        Returns:
            Why the map was cleared before the frame was added: a jump of the odometry or of time; empty if it was not.
        Raises:
            ValueError: the pose is no finite (4, 4) or further than `FARTHEST` away, or the classes are not those of
                the map.
        """
        odom_from_base = np.asarray(odom_from_base, np.float64)
        if odom_from_base.shape != (4, 4) or not np.isfinite(odom_from_base).all():
            raise ValueError("odom_from_base is no finite 4x4 transform; add only frames whose pose is known")
        if np.abs(odom_from_base[:3, 3]).max() > FARTHEST:
            raise ValueError(f"odom_from_base is more than {FARTHEST:g} m from the origin; the odometry is wrong")
        if occupancy.classes.names != self.classes.names:
            raise ValueError(f"the frame has the classes {occupancy.classes.names}, the map {self.classes.names}")
        if jump := self._jump(odom_from_base, stamp_ns):
            self.clear()
        self._stamps, self._poses = [*self._stamps, stamp_ns][-_POSES:], [*self._poses, odom_from_base][-_POSES:]
        if self._corner is None:
            self._began_ns = stamp_ns
        self._follow(odom_from_base[:3, 3])
        self._fuse(occupancy, odom_from_base, (stamp_ns - self._began_ns) // _NS_PER_MS)
        self.frames += 1
        return jump

    def volume(self) -> Occupancy | None:
        """A copy of the map in the odometry frame; None before the first frame.

        `confidence` is 1 / (1 + exp(-log-odds)), 0.5 where nothing is known; `visible` says where something is.
        """
        if self.grid is None:
            return None
        semantics, log_odds = mapping.read_out(self._state, self.classes.free, self._backend)
        return _occupancy(self.grid, self.classes, semantics, log_odds, self._backend)

    def view(self, grid: VoxelGrid, odom_from_base: np.ndarray) -> Occupancy:
        """The map as the voxels of a vehicle's grid see it: for comparison with a frame, or for planning around it.

        Args:
            grid: a grid in the vehicle's frame.
            odom_from_base: (4, 4) pose of the vehicle.
        """
        values = np.zeros(grid.shape, np.float32)
        semantics = np.full(grid.shape, UNLABELLED, np.uint8)
        if self._corner is not None:
            own, log_odds = mapping.read_out(self._state, self.classes.free, self._backend)
            frame_from_map = np.vstack([self._frame_from_map(grid, odom_from_base), [0.0, 0.0, 0.0, 1.0]])
            map_from_frame = np.linalg.inv(frame_from_map)[:3]
            values, places = mapping.sample(log_odds, map_from_frame, grid.shape, self._backend)
            semantics = np.where(values < 0, np.uint8(self.classes.free), semantics)
            semantics = np.where(values > 0, own.reshape(-1)[places], semantics)
        return _occupancy(grid, self.classes, semantics, values, self._backend)

    def _jump(self, odom_from_base: np.ndarray, stamp_ns: int) -> str:
        """Why this pose does not go on from those before it; empty if it does."""
        if not self._stamps:
            return ""
        if stamp_ns < self._stamps[-1]:
            return f"time goes back by {(self._stamps[-1] - stamp_ns) / 1e9:.1f} s"
        if (stamp_ns - self._began_ns) // _NS_PER_MS > _EPOCH_MS:
            return f"it is {_EPOCH_MS / 86_400_000:.0f} days old"
        stamps, poses = np.array([*self._stamps, stamp_ns]), np.stack([*self._poses, odom_from_base])
        found = [jump for jump in jumps_of(stamps, poses, self._limits) if jump.after_ns == stamp_ns]
        return f"the vehicle's pose: {found[0]}" if found else ""

    def _follow(self, position: np.ndarray) -> None:
        """Scroll by whole voxels, on the axes on which the vehicle is further from the middle than the margin."""
        if self._corner is None:
            # The layers lie where those of the first frame do: on a level road, none falls between two of them.
            self._shift[2] = (position[2] + self._lowest) % self.voxel_size
        middle = np.array([position[0], position[1], position[2] + self._middle]) - self._shift
        wanted = middle / self.voxel_size - np.array(self.shape) / 2
        if self._corner is None:
            self._corner = np.round(wanted).astype(np.int64)
        for axis, count in enumerate(self.shape):
            old = int(self._corner[axis])
            if abs(wanted[axis] - old) <= self._margin[axis]:
                continue
            new = int(np.round(wanted[axis]))
            if abs(new - old) >= count:
                self._state.log_odds[:] = 0
            else:  # the places of what falls out take what comes in
                gone = np.arange(old, new) if new > old else np.arange(new + count, old + count)
                np.moveaxis(self._state.log_odds, axis, 0)[gone % count] = 0
            self._corner[axis] = new
        self._state.start[:] = self._corner % np.array(self.shape)

    def _fuse(self, occupancy: Occupancy, odom_from_base: np.ndarray, now: int) -> None:
        config, threshold = self.config, occupancy.threshold
        if threshold is not None:
            threshold = np.log(threshold[..., 0]) - np.log1p(-threshold[..., 0])
        confidence = occupancy.semantics.astype(np.float32) if threshold is None else occupancy.confidence
        evidence = mapping.weigh(
            occupancy.semantics,
            confidence,
            threshold,
            self.classes.free,
            config.gain,
            config.hit,
            config.miss,
            self._backend,
        )
        mapping.fuse(
            self._state,
            evidence,
            occupancy.semantics,
            self._frame_from_map(occupancy.grid, odom_from_base),
            now,
            mapping.FusionLimits(
                config.lowest, config.highest, config.dynamic_highest, config.memory, config.dynamic_frames
            ),
            self._roles,
            self._backend,
        )
        mapping.expire(self._state, self._roles.dynamic, now - round(1e3 * config.dynamic_decay), self._backend)

    def _frame_from_map(self, grid: VoxelGrid, odom_from_base: np.ndarray) -> np.ndarray:
        """(3, 4): from the number of a voxel of the map to the place of its centre in a vehicle's grid, counted in
        that grid's voxels from the centre of its first one."""
        assert self._corner is not None
        base_from_odom = invert(odom_from_base)
        centre = (self._corner + 0.5) * self.voxel_size + self._shift
        first = base_from_odom[:3, :3] @ centre + base_from_odom[:3, 3]
        made = np.empty((3, 4))
        made[:, :3] = base_from_odom[:3, :3] * (self.voxel_size / grid.voxel_size)
        made[:, 3] = (first - grid.lower) / grid.voxel_size - 0.5
        return made


def _occupancy(
    grid: VoxelGrid, classes: ClassTable, semantics: np.ndarray, log_odds: np.ndarray, backend: str
) -> Occupancy:
    """A volume whose confidence is made when it is asked for."""
    index, surface = mapping.occupied_voxels(log_odds, backend)

    def probability(values: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-values))).astype(np.float32)

    voxels = OccupiedVoxels(index, semantics.reshape(-1)[index], probability(log_odds.reshape(-1)[index]), surface)
    return Occupancy.predicted(
        grid, classes, voxels, lambda: log_odds != 0, lambda: probability(log_odds), lambda: None
    )
