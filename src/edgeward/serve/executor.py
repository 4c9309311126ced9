"""The loop on the wall clock: take an event, apply it, begin what the policy asks for.

    executor = Executor(state, policy, clock, hands)
    executor.observers.append(log.append)
    executor.post(FrameArrived(0, "street", 0, 0))    # from any thread
    executor.run(until=stopped.is_set)

Only the thread in `run` touches the state. Every event is stamped when the loop takes it, with
times that strictly increase: a log of them replays to the same decisions.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from edgeward.clock import Clock, to_seconds
from edgeward.serve.actions import Choose, Evict, Infer, Load, Switch, Wait
from edgeward.serve.apply import apply
from edgeward.serve.events import Decided, Event, Evicted, Waited
from edgeward.serve.policy import Policy
from edgeward.serve.state import State

__all__ = ["Executor", "Hands", "Observer"]

Observer = Callable[[Event, State], None]
"""Told of every event together with the state after it; must be quick."""

LONGEST_NAP = 0.25
"""Seconds after which the loop looks whether it should stop, when nothing happens."""


class Hands(Protocol):
    """What carries out decisions. `infer`, `load` and `switch` begin and return; their outcome is posted later."""

    def infer(self, number: int, action: Infer) -> None:
        """Begin an inference."""

    def load(self, number: int, action: Load) -> None:
        """Begin a load."""

    def switch(self, number: int, action: Switch) -> None:
        """Begin to change a model's variant."""

    def evict(self, action: Evict) -> None:
        """Free a model's memory before returning."""


class Executor:
    """Drives the loop. `state` may be read from any thread: it is replaced, never changed."""

    def __init__(self, state: State, policy: Policy, clock: Clock, hands: Hands) -> None:
        self.state = state
        self.observers: list[Observer] = []
        self._policy = policy
        self._clock = clock
        self._hands = hands
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._untold: list[tuple[Event, State]] = []

    def post(self, event: Event) -> None:
        """Hand in an event, from any thread; its time is set when the loop takes it."""
        self._inbox.put(event)

    def run(self, until: Callable[[], bool]) -> None:
        """Handle events until `until()`; it is asked after every event and at least four times a second."""
        self._decide()
        while not until():
            event = self._next_event()
            if event is not None:
                self._take(event)
                self._decide()

    @property
    def idle(self) -> bool:
        """Whether nothing runs, nothing waits to run and no event is left to handle."""
        state = self.state
        busy = state.processor is not None or state.loader is not None
        return not busy and self._inbox.empty() and not any(query.jobs for query in state.queries.values())

    def _next_event(self) -> Event | None:
        waiting = self.state.waiting
        nap = LONGEST_NAP
        if waiting is not None:
            nap = min(nap, max(to_seconds(waiting.until_ns - self._clock.now_ns()), 0.0))
        try:
            return self._inbox.get(timeout=nap) if nap > 0 else self._inbox.get_nowait()
        except queue.Empty:
            if waiting is not None and self._clock.now_ns() >= waiting.until_ns:
                return Waited(0, self.state.decisions - 1)
            return None

    def _take(self, event: Event) -> None:
        stamped = replace(event, time_ns=max(self._clock.now_ns(), self.state.now_ns + 1))
        self._note(stamped)

    def _note(self, event: Event) -> None:
        self.state = apply(self.state, event)
        self._untold.append((event, self.state))

    def _decide(self) -> None:
        """Begin all that the policy asks for, then tell the observers: the processor does not wait for the log."""
        self._begin_all()
        untold, self._untold = self._untold, []
        for event, state in untold:
            for observe in self.observers:
                observe(event, state)

    def _begin_all(self) -> None:
        while (action := self._policy.next(self.state)) is not None:
            number = self.state.decisions
            self._note(Decided(self.state.now_ns, number, action))
            match action:
                case Infer():
                    self._hands.infer(number, action)
                case Load():
                    self._hands.load(number, action)
                case Switch():
                    self._hands.switch(number, action)
                case Evict():
                    self._hands.evict(action)
                    self._take(Evicted(0, number, action.model))
                case Choose() | Wait():
                    pass
