"""The program `renderocc_node`: start ROS, run the node until it ends, and leave the graph."""

from __future__ import annotations

import contextlib
import gc
import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from renderocc_ros.node import RenderOccNode
from renderocc_ros.process import end_at_first_signal, ignore_signals, leave, prepare_process, signals_later
from renderocc_ros.ros_arguments import RosArgumentsError, start_ros

__all__ = ["main"]

USAGE = """usage: renderocc_node [--ros-args -p NAME:=VALUE --params-file FILE ...]

The node `renderocc` turns camera images and TF into occupancy. Without parameters it uses every camera on the graph.
example: renderocc_node --ros-args -p cameras:="[front, left, right]" -p "image_topic:=<camera>/image"
config/renderocc.yaml has all parameters with meaning and range; `ros2 param describe` shows them too."""


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or the shutdown transition.

    Returns:
        Exit status: 0, or 2 if ROS cannot read the arguments.
    """
    words = sys.argv[1:] if args is None else args
    if {"-h", "--help"} & set(words):
        with contextlib.suppress(BrokenPipeError):  # as in `renderocc_node --help | head -1`
            print(USAGE)
        return 0
    prepare_process()
    end_at_first_signal()
    node = executor = None
    try:
        with signals_later():  # an unfinished node could not be taken off the graph
            start_ros(args)
            node = RenderOccNode()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
        spin(node, executor)
    except RosArgumentsError as error:
        print(f"renderocc_node: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        ignore_signals()
        leave_graph(node, executor)
    return 0


def spin(node: RenderOccNode, executor: SingleThreadedExecutor) -> None:
    """Run the callbacks until the node has ended. A callback that fails does not end it."""
    while rclpy.ok() and not node.ended:  # rclpy's spin_until_future_complete keeps a reference for each callback
        try:
            executor.spin_once()
        except Exception as error:  # one callback has failed, perhaps for want of memory; the others continue
            if isinstance(error, ExternalShutdownException):
                raise
            node.report_failure(error)


def leave_graph(node: RenderOccNode | None, executor: SingleThreadedExecutor | None) -> None:
    """Give everything back, so that no other program sees the node any longer, even if the process ends at once."""
    if node is not None:
        node.release()
    if executor is not None:
        executor.shutdown()
    if node is not None:
        node.destroy_node()
    # Objects that a signal has left unfinished refer to the node. They are young: collecting all would take seconds.
    gc.collect(1)
    rclpy.try_shutdown()


if __name__ == "__main__":
    leave(main())
