"""The private names of rclpy that the node uses where rclpy offers nothing public, and what is lost without them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CHANGE_STATE", "describe_missing", "missing_names", "parameter_overrides", "release_state_machine"]

CHANGE_STATE = "_LifecycleNodeMixin__change_state"
PARAMETER_OVERRIDES = "_parameter_overrides"
STATE_MACHINE = "_state_machine"
# What happens where a name is gone.
USES = {
    CHANGE_STATE: "a transition that the state does not have fails without an answer",
    PARAMETER_OVERRIDES: "unknown parameters are not named, and some qos_overrides are ignored",
    STATE_MACHINE: "other programs may see the node for 20 s after its end",
}


def missing_names(node: object) -> list[str]:
    """The names in `USES` that neither the node itself nor a class of rclpy has. Names that our own class adds do not
    count: an override of a method that rclpy does not call has no effect."""
    of_rclpy = [cls for cls in type(node).__mro__ if cls.__module__.split(".")[0] == "rclpy"]
    return [name for name in USES if name not in vars(node) and not any(name in vars(cls) for cls in of_rclpy)]


def describe_missing(names: list[str]) -> str:
    """One line: which names are gone, what this means, and what to do."""
    effects = "; ".join(f"without {name}, {USES[name]}" for name in names)
    return (
        f"this release of rclpy lacks private names that the node uses: {effects}. "
        "Use the rclpy of ROS 2 Jazzy, or report it to the maintainers of renderocc_ros"
    )


def parameter_overrides(node: object) -> Mapping:
    """{name: parameter} of the values that the node was started with; empty where rclpy does not tell."""
    return getattr(node, PARAMETER_OVERRIDES, {})


def release_state_machine(node: object) -> None:
    """Take a destroyed lifecycle node off the graph.

    rclpy's `destroy_node` leaves it there for as long as its state machine lives. If the process ends then, other
    programs see the node for another 20 s, and its shared memory stays.
    """
    machine = getattr(node, STATE_MACHINE, None)
    if machine is not None:
        machine.destroy_when_not_in_use()
