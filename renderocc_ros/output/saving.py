"""Where `~/save` may write: the folder that the node was started with, and nothing else.

Whoever can reach the node's parameter services can change `save_directory`. Only the one who starts the node says which
part of the disk is meant.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.parameters import NodeConfig


class SaveFolder:
    """The folder given at the start; afterwards `save_directory` can only be it or a folder in it.

    Args:
        start: the parameter as it was when the node started; `~` and environment variables are expanded.
    """

    def __init__(self, start: str) -> None:
        self._start = start
        try:
            self.root = _path(start)
        except OSError:  # said by the first ~/save
            self.root = None

    def check(self, wanted: str) -> None:
        """Raises ValueError, for the one who asks for it, if a new value leads out of the folder."""
        if wanted == self._start:
            return
        # What a variable holds is not the business of who sets parameters; the answer of ~/save would tell it.
        if "$" in wanted or not self._contains(wanted):
            raise ValueError(
                f"save_directory is {wanted[:200]!r}; while the node runs it can only become a folder in "
                f"{self._start!r}, with which the node was started; start it with the folder that is meant"
            )

    def save(self, frame: Frame, config: NodeConfig) -> list[Path]:
        """Write a frame's volume as <stamp>.npz and .ply, both whole or neither; the folder is made if need be.

        Raises:
            OSError: it cannot be written, or the folder has come to lead elsewhere, by a link.
        """
        folder = _path(config.save_directory)
        if self.root is None or not folder.is_relative_to(self.root):
            raise OSError(f"it leads out of {self._start}, with which the node was started")
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{frame.stamp_ns}.npz", folder / f"{frame.stamp_ns}.ply"]
        new = [path for path in paths if not os.path.lexists(path)]  # what an earlier ~/save wrote stays
        try:
            frame.occupancy.save_npz(paths[0])
            frame.occupancy.save_ply(paths[1])
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
