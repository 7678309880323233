"""How a map around the vehicle remembers: the settings of `RollingMap`."""

from __future__ import annotations

from ..base.config import configuration, setting

__all__ = ["FARTHEST", "MapConfig"]

FARTHEST = 1e8  # metres along an axis; UTM coordinates are below 1e7, and voxels are counted without loss


@configuration
class MapConfig:
    """How a map remembers. Log-odds are log(p / (1 - p)) of a voxel being occupied."""

    size: float = setting(
        0.0, "edge of the map along x and y [m]; 0: as far as the network's grid reaches", minimum=0.0, maximum=400.0
    )
    voxel_size: float = setting(
        0.0, "edge of the map's voxels [m]; 0: that of the network's grid", minimum=0.0, maximum=5.0
    )
    scroll: int = setting(
        8, "number of voxels that the vehicle may move before the map follows by as many", minimum=1, maximum=100
    )
    memory: float = setting(
        0.8, "share of its log-odds that a voxel keeps when a frame sees it again", minimum=0.0, maximum=1.0
    )
    gain: float = setting(1.5, "share of the network's log-odds that counts as evidence", minimum=0.01, maximum=10.0)
    hit: float = setting(0.6, "most log-odds that one frame adds to an occupied voxel", minimum=0.01, maximum=10.0)
    miss: float = setting(0.3, "most log-odds that one frame takes from a free voxel", minimum=0.01, maximum=10.0)
    highest: float = setting(2.0, "most log-odds of a voxel: how long walls stay", minimum=0.01, maximum=50.0)
    lowest: float = setting(-2.0, "least log-odds of a voxel: how long free stays free", minimum=-50.0, maximum=-0.01)
    dynamic_highest: float = setting(
        2.0,
        "most log-odds of a voxel whose class moves or may move: how long ghosts stay in view",
        minimum=0.01,
        maximum=50.0,
    )
    dynamic_frames: int = setting(
        6,
        "number of frames that must see such a voxel until it may have dynamic_highest; after fewer its limit is as "
        "much lower, so that what drives past is let go sooner than what is parked",
        minimum=1,
        maximum=16,
    )
    dynamic_decay: float = setting(
        0.8,
        "time after which a voxel whose class moves becomes unknown, unless it is seen occupied again [s]",
        minimum=0.0,
        maximum=3600.0,
    )
