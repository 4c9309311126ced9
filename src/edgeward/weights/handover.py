"""Replacing something that many threads use, without stopping them.

serving = Handover(session)
with serving.using() as session:      # from any thread
    session.run(...)
old = serving.replace(better)         # who comes from now on gets `better`
old.drained().close()                 # when the last of those who had the old one is done
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Handover", "Held"]

T = TypeVar("T")


class Held(Generic[T]):
    """A thing and how many use it now."""

    def __init__(self, thing: T, changed: threading.Condition) -> None:
        self.thing = thing
        self.users = 0
        self._changed = changed

    def drained(self) -> T:
        """The thing, when nobody uses it any more. Waits: never call it while using the thing on the same thread."""
        with self._changed:
            self._changed.wait_for(lambda: self.users == 0)
        return self.thing


class Handover(Generic[T]):
    """Gives every user the newest thing, and keeps it theirs until they are done with it."""

    def __init__(self, thing: T) -> None:
        self._changed = threading.Condition()
        self._held = Held(thing, self._changed)

    @contextmanager
    def using(self) -> Iterator[T]:
        """The thing of this moment, for as long as the block lasts, whatever replaces it meanwhile."""
        with self._changed:
            held = self._held
            held.users += 1
        try:
            yield held.thing
        finally:
            with self._changed:
                held.users -= 1
                if not held.users:
                    self._changed.notify_all()

    def replace(self, thing: T) -> Held[T]:
        """Put `thing` in its place, at once; the old one, which may still be in use."""
        with self._changed:
            old, self._held = self._held, Held(thing, self._changed)
        return old
