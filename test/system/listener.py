"""An ordinary ROS program in this process: typed subscriptions and service calls."""

from __future__ import annotations

import atexit
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile

from .waiting import PATIENCE

__all__ = ["Listener"]


class Listener:
    """A ROS node on a domain, spun by a thread.

    Args:
        domain: ROS domain.
        name: of the ROS node.
    Attributes:
        node: the rclpy node; publishers can be made of it, too.
        messages: {topic: messages that have come}, of the topics that `listen` was called for.
    """

    def __init__(self, domain: int, name: str = "listener") -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self.context, start_parameter_services=False)
        self.messages: dict[str, list] = defaultdict(list)
        self._clients: dict = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._closed = False
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.close)  # where a fixture has failed

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except AttributeError:  # rclpy's executor, shut down in the middle of a turn
            if not self._closed:
                raise

    def listen(self, message_type, topic: str, qos: QoSProfile | int = 50, callback: Callable | None = None) -> list:
        """Subscribe; the returned list grows as messages arrive, or `callback` gets each."""
        messages = self.messages[topic]
        self.node.create_subscription(message_type, topic, callback or messages.append, qos)
        return messages

    def ask(self, service_type, name: str, request=None, timeout: float = 20.0, alive: Callable = lambda: True):
        """The answer of a service; None if none came in time, or when `alive()` was no longer true."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        client = self._clients[name]
        end = time.monotonic() + timeout * PATIENCE
        while not client.wait_for_service(0.2):
            if time.monotonic() > end or not alive():
                return None
        future = client.call_async(request if request is not None else service_type.Request())
        while not future.done():
            if time.monotonic() > end or not alive():
                client.remove_pending_request(future)
                return None
            time.sleep(0.01)
        return future.result()

    def call(self, service_type, name: str, request=None, timeout: float = 60.0):
        """The answer of a service; fails when none comes in time."""
        answer = self.ask(service_type, name, request, timeout)
        assert answer is not None, f"no answer of {name} within {timeout:g} s"
        return answer

    def forget_clients(self) -> None:
        """Destroy the clients of services whose process has ended."""
        for client in self._clients.values():
            self.node.destroy_client(client)
        self._clients = {}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()
