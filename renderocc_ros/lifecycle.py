"""What the callbacks of all lifecycle transitions share."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

__all__ = ["transition"]


def transition(callback: Callable) -> Callable:
    """Report the exceptions of a lifecycle callback to its node: rclpy goes to the error state without a word."""

    @functools.wraps(callback)
    def logged(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception as error:
            text = f"{callback.__name__} failed: {type(error).__name__}: {error}"
            self.set_error(text, f"{text}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return logged
