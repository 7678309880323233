"""A slot for one item between a thread that produces and a thread that consumes: a newer item replaces an older one."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Holds the newest item until it is taken, and returns what it replaces. Safe for any threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._closed = False

    def put(self, item: Item) -> Item | None:
        """Leave an item.

        Returns:
            The item that it replaced, or None; the item itself if the mailbox is closed.
        Raises:
            ValueError: the item is None.
        """
        if item is None:
            raise ValueError("None cannot be put into a mailbox: it stands for 'nothing' in take()")
        with self._changed:
            if self._closed:
                return item
            before, self._item = self._item, item
            self._changed.notify()
            return before

    def take(self, timeout: float | None = None) -> Item | None:
        """Wait for an item and take it.

        Args:
            timeout: most seconds to wait; 0 does not wait, None waits until an item comes or the mailbox is closed.
        Returns:
            The item; None after the timeout, or when the mailbox is closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._item is None and not self._closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item, self._item = self._item, None
            return item

    @property
    def waiting(self) -> bool:
        """Whether there is an item."""
        return self._item is not None

    def clear(self) -> Item | None:
        """Empty the slot, for instance when the clock has jumped. Returns what was in it."""
        with self._changed:
            item, self._item = self._item, None
            return item

    def open(self) -> None:
        """Accept items again after `close`."""
        with self._changed:
            self._closed = False

    def close(self) -> Item | None:
        """Refuse items from now on, and wake whoever waits in `take`. Returns what was in the slot."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            item, self._item = self._item, None
            return item
