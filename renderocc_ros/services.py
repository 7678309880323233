"""The services of a configured node: ~/reset, ~/map/reset and ~/save."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.service import Service
from std_srvs.srv import Trigger

from renderocc_ros.frame.configured import ConfiguredNode
from renderocc_ros.output.saving import SaveFolder

__all__ = ["Services"]


class Services:
    """The services from `offer` to `destroy`.

    Args:
        node: on which they are offered.
        save_folder: the folder that ~/save may write to.
        configured: gives the parts of the node as they are now; parameters can be set while it runs.
    """

    def __init__(self, node: Node, save_folder: SaveFolder, configured: Callable[[], ConfiguredNode]) -> None:
        self._node, self._save_folder, self._configured = node, save_folder, configured
        self._offered: list[Service] = []

    def offer(self) -> None:
        """Create the services. If this fails, `destroy` still gives back those that there are."""
        callbacks = {"~/reset": self._reset, "~/save": self._save, "~/map/reset": self._reset_map}
        for name, callback in callbacks.items():
            self._offered.append(self._node.create_service(Trigger, name, callback))

    def destroy(self) -> None:
        for service in self._offered:
            self._node.destroy_service(service)
        self._offered = []

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        parts = self._configured()
        parts.intake.start_afresh("reset", "asked by ~/reset")
        parts.worker.withhold()
        parts.vehicle_map.clear()
        response.success, response.message = True, "queues, /tf, earlier frames and the map are cleared"
        return response

    def _reset_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._configured().vehicle_map.clear()
        response.success, response.message = True, "the map is cleared; it begins anew with the next frame"
        return response

    def _save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        parts = self._configured()
        frame, config = parts.worker.last_frame, parts.config
        if frame is None or frame.occupancy is None:
            response.success, response.message = False, "there is no volume yet; nothing was written"
            return response
        try:
            snapshot = parts.vehicle_map.snapshot()
            paths = self._save_folder.save(frame, config, None if snapshot is None else snapshot.volume)
        except OSError as error:
            folder = config.save_directory
            response.success, response.message = False, f"nothing was saved to {folder}: {error}; set 'save_directory'"
            return response
        response.success, response.message = True, " ".join(map(str, paths))
        return response
