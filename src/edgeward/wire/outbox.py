"""A thread that sends, so that nobody who hands something over waits for a thin link.

    outbox = Outbox(lambda order: send(connection, order), failed=lambda order, error: ...)
    outbox.put(order)
    outbox.close()

What is put is sent in order. Whoever puts bounds how much is under way.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Outbox"]

T = TypeVar("T")


class Outbox(Generic[T]):
    """Calls `deliver` for each item in a thread of its own; what it raises is handed to `failed` with the item."""

    def __init__(self, deliver: Callable[[T], None], failed: Callable[[T, Exception], None], name: str = "") -> None:
        self._deliver, self._failed = deliver, failed
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"outbox-{name}", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Have an item sent after those before it."""
        self._items.put(item)

    def close(self, patience: float = 1.0) -> None:
        """Send what is left, for at most `patience` seconds."""
        self._items.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(patience)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                self._deliver(item)
            except Exception as error:  # one item that cannot be sent does not end the sending of others
                self._failed(item, error)
