"""Files of `~/save`, only inside the folder that the node was started with.

Anybody who reaches the node's parameter services can change `save_directory`. Only the person who starts the node
decides which part of the disk it may write to.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from renderocc_model.field.occupancy import Occupancy
from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.parameters import NodeConfig


class SaveFolder:
    """The folder given at the start. Later, `save_directory` can only be this folder or a folder inside it.

    Args:
        start: the parameter when the node started; `~` and environment variables are expanded.
    """

    def __init__(self, start: str) -> None:
        self._start = start
        try:
            self.root = _path(start)
        except OSError:  # the first ~/save reports it
            self.root = None

    def check(self, wanted: str) -> None:
        """Raises ValueError, with a text for whoever sets the parameter, if a new value is outside the folder."""
        if wanted == self._start:
            return
        # The answer of ~/save would reveal the content of an environment variable to anybody who sets parameters.
        if "$" in wanted or not self._contains(wanted):
            raise ValueError(
                f"save_directory is {wanted[:200]!r}; while the node runs it can only become a folder in "
                f"{self._start!r}, with which the node was started; start it with the folder that you want"
            )

    def save(self, frame: Frame, config: NodeConfig, vehicle_map: Occupancy | None = None) -> list[Path]:
        """Write a frame's volume as <stamp>.npz and <stamp>.ply, and the map, if there is one, as <stamp>_map.npz and
        <stamp>_map.ply: all of them or none. Make the folder if necessary.

        Raises:
            OSError: it cannot be written, or a link in the folder leads outside.
        """
        folder = _path(config.save_directory)
        if self.root is None or not folder.is_relative_to(self.root):
            raise OSError(f"it leads out of {self._start}, with which the node was started")
        folder.mkdir(parents=True, exist_ok=True)
        volumes = {f"{frame.stamp_ns}": frame.occupancy}
        if vehicle_map is not None:
            volumes[f"{frame.stamp_ns}_map"] = vehicle_map
        paths = [folder / f"{name}.{kind}" for name in volumes for kind in ("npz", "ply")]
        new = [path for path in paths if not os.path.lexists(path)]  # files of an earlier ~/save stay
        try:
            for name, volume in volumes.items():
                volume.save_npz(folder / f"{name}.npz")
                volume.save_ply(folder / f"{name}.ply")
        except BaseException:
            for path in new:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        return paths

    def _contains(self, wanted: str) -> bool:
        try:
            return self.root is not None and _path(wanted).is_relative_to(self.root)
        except OSError:
            return False


def _path(save_directory: str) -> Path:
    try:
        return NodeConfig(save_directory=save_directory).save_path()
    except (RuntimeError, ValueError) as error:  # a loop of links, a user who does not exist
        raise OSError(f"no path on this computer ({error})") from None
