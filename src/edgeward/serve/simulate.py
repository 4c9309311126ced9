"""The box on a virtual clock: the same state, the same policies, costs that were measured before.

    run = simulate(part.state, outside(part.events), policy_named("fifo-lru"), RecordedCosts(part.events))
    print(run.state.queries["people"].in_time)

Nothing is computed here but time: an action ends when its charged cost has passed.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from edgeward.clock import VirtualClock
from edgeward.serve.actions import Action, Choose, Evict, Infer, Load, Switch, Wait
from edgeward.serve.apply import apply
from edgeward.serve.events import (
    CameraChanged,
    Decided,
    Event,
    Evicted,
    Failed,
    FrameArrived,
    Inferred,
    Loaded,
    Switched,
    Waited,
)
from edgeward.serve.inturn import Turns
from edgeward.serve.policy import Policy
from edgeward.serve.state import State

__all__ = ["Costs", "MedianCosts", "RecordedCosts", "Simulated", "outcomes", "outside", "simulate", "under_way"]

Outcome = Inferred | Loaded | Switched | Evicted | Failed | Waited


class Costs(ABC):
    """Says what an action leads to and when."""

    @abstractmethod
    def outcome(self, decided: Decided) -> Outcome | None:
        """The event that ends the action, or None when nothing does within the recording."""


class MedianCosts(Costs):
    """Charges each action the median of what actions like it took in a recording.

    Like it: the same kind, model and batch size; an unseen batch size is charged in proportion to
    the nearest seen one, an unseen model what the slowest seen one took. Of models in turn: the one whose turn it is;
    it remembers turns, so that one object is for one simulation.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        samples: dict[tuple[str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._turns = Turns()
        for decided, outcome in pairs(events):
            if not isinstance(outcome, Failed | Waited):
                part = outcome.part if isinstance(outcome, Inferred) else ""
                kind, model, batch = _likeness(decided.action, part)
                samples[kind, model][batch].append(outcome.time_ns - decided.time_ns)
                if isinstance(outcome, Inferred) and outcome.worked_ns and not outcome.also:
                    samples["worked", model][batch].append(outcome.worked_ns)
        self._medians = {
            key: {batch: round(median(times)) for batch, times in by_batch.items()} for key, by_batch in samples.items()
        }

    def outcome(self, decided: Decided) -> Outcome | None:
        action = decided.action
        if isinstance(action, Wait):
            return Waited(max(action.until_ns, decided.time_ns), decided.number)
        part = ""
        if isinstance(action, Infer):
            queries = {job.query for job in action.jobs}
            due = self._turns.due(action.model, queries)
            part = due if due != action.model else ""
            self.looked(action, (due,))
            for second in action.also:
                self.looked(action, (self._turns.due(second, queries),))
        kind, model, batch = _likeness(action, part)
        took_ns = self._charge(kind, model, batch)
        ended = ending(decided, decided.time_ns + took_ns)
        if not isinstance(ended, Inferred):
            return ended
        worked_ns = 0 if isinstance(action, Infer) and action.also else self._charge("worked", model, batch)
        return replace(ended, part=part, worked_ns=min(worked_ns, took_ns))

    def looked(self, action: Infer, models: Iterable[str]) -> None:
        """Notes which models, of those in turn or by themselves, looked at the frames, one after another."""
        for model in models:
            self._turns.looked(model, {job.query for job in action.jobs})

    def _charge(self, kind: str, model: str, batch: int) -> int:
        seen = self._medians.get((kind, model))
        if not seen:
            others = [max(costs.values()) for (other, _), costs in self._medians.items() if other == kind]
            return max(others, default=0)
        near = min(seen, key=lambda size: (abs(size - batch), size))
        return seen[near] * batch // near


class RecordedCosts(Costs):
    """Replays the very outcomes of a recording while decisions agree with it, medians after that.

    state: where the recording begins; what was under way in it ends as recorded, too.
    """

    def __init__(self, state: State, events: Sequence[Event]) -> None:
        whole = (*under_way(state), *events)
        self._recorded = {decided.number: (decided, outcome) for decided, outcome in pairs(whole)}
        self._decided = {event.number: event.action for event in whole if isinstance(event, Decided)}
        self._medians = MedianCosts(whole)

    def outcome(self, decided: Decided) -> Outcome | None:
        if self._decided.get(decided.number) != decided.action:
            return self._medians.outcome(decided)
        recorded = self._recorded.get(decided.number)
        if recorded is None:
            return None  # cut short by another event, or still under way when the recording ended
        before, outcome = recorded
        if isinstance(outcome, Inferred) and isinstance(before.action, Infer):
            seconds = [second.part or second.model for second in outcome.also]
            self._medians.looked(before.action, [outcome.part or outcome.model, *seconds])
        return replace(outcome, time_ns=decided.time_ns + (outcome.time_ns - before.time_ns))


@dataclass(frozen=True)
class Simulated:
    """What a simulated run came to: the last state and every event, in order."""

    state: State
    events: tuple[Event, ...]

    @property
    def decisions(self) -> list[Decided]:
        """The actions begun, with their times."""
        return [event for event in self.events if isinstance(event, Decided)]


def simulate(
    state: State, arrivals: Iterable[Event], policy: Policy, costs: Costs, until_ns: int | None = None
) -> Simulated:
    """Run `policy` from `state` on `arrivals` (events from outside, in order of time).

    Ends when arrivals are over and all begun work is done, or after `until_ns` on the virtual clock.
    """
    run = _Run(state, policy, costs)
    for order, event in enumerate(arrivals):
        run.await_event(event, origin=0, order=order)
    for decided in under_way(state):
        run.await_outcome(decided)
    run.decide()
    while run.pending:
        time_ns, _, _, event = heapq.heappop(run.pending)
        if until_ns is not None and time_ns > until_ns:
            break
        if run.still_means(event):
            run.take(event)
            run.decide()
    return Simulated(run.state, tuple(run.events))


class _Run:
    """The moving parts of one simulation."""

    def __init__(self, state: State, policy: Policy, costs: Costs) -> None:
        self.state = state
        self.events: list[Event] = []
        # Ties: what came from outside first, then in the order it was begun.
        self.pending: list[tuple[int, int, int, Event]] = []
        self._policy = policy
        self._costs = costs
        self._clock = VirtualClock(state.now_ns)

    def await_event(self, event: Event, origin: int, order: int) -> None:
        heapq.heappush(self.pending, (max(event.time_ns, self._clock.now_ns()), origin, order, event))

    def await_outcome(self, decided: Decided) -> None:
        outcome = self._costs.outcome(decided)
        if outcome is not None:
            self.await_event(outcome, origin=1, order=decided.number)

    def still_means(self, event: Event) -> bool:
        """Whether an event still concerns anybody: the time of a wait does not once another decision came."""
        if isinstance(event, Waited):
            return self.state.waiting is not None and self.state.decisions - 1 == event.number
        return True

    def take(self, event: Event) -> None:
        # What comes during an eviction is noted after it.
        self._clock.advance_to(max(event.time_ns, self._clock.now_ns()))
        self._note(replace(event, time_ns=self._clock.now_ns()))

    def decide(self) -> None:
        while (action := self._policy.next(self.state)) is not None:
            decided = Decided(self._clock.now_ns(), self.state.decisions, action)
            self._note(decided)
            if isinstance(action, Choose):
                continue
            if not isinstance(action, Evict):
                self.await_outcome(decided)
            elif (evicted := self._costs.outcome(decided)) is not None:
                # Evicting is immediate in the box too: nothing can come between.
                self.take(evicted)

    def _note(self, event: Event) -> None:
        self.state = apply(self.state, event)
        self.events.append(event)


def outside(events: Iterable[Event]) -> list[Event]:
    """The events that no decision caused: frames and changes of cameras."""
    return [event for event in events if isinstance(event, FrameArrived | CameraChanged)]


def outcomes(events: Iterable[Event]) -> dict[int, Outcome]:
    """The event that ended each numbered decision."""
    return {event.number: event for event in events if isinstance(event, Outcome)}


def pairs(events: Iterable[Event]) -> list[tuple[Decided, Outcome]]:
    """Decisions with their outcomes; unfinished ones are left out."""
    events = list(events)
    ended = outcomes(events)
    return [(event, ended[event.number]) for event in events if isinstance(event, Decided) and event.number in ended]


def ending(decided: Decided, time_ns: int) -> Outcome:
    """The event with which an action succeeds at `time_ns`."""
    match decided.action:
        case Infer(model=model, jobs=jobs):
            return Inferred(time_ns, decided.number, model, jobs)
        case Load(model=model):
            return Loaded(time_ns, decided.number, model)
        case Switch(model=model, variant=variant):
            return Switched(time_ns, decided.number, model, variant)
        case Evict(model=model):
            return Evicted(time_ns, decided.number, model)
        case Choose():
            raise TypeError(f"nothing ends {decided.action!r}")
        case Wait():
            return Waited(time_ns, decided.number)


def under_way(state: State) -> list[Decided]:
    """The decisions whose outcome `state` still waits for."""
    begun = [Decided(run.since_ns, run.number, run.action) for run in (state.processor, state.loader) if run]
    if state.waiting is not None:
        # A wait is always the newest decision; its outcome is timed from the state's own moment.
        begun.append(Decided(state.now_ns, state.decisions - 1, state.waiting))
    return begun


def _likeness(action: Action, part: str = "") -> tuple[str, str, int]:
    """part: of models in turn, the one that looked."""
    match action:
        case Infer(model=model, variant=variant):
            like = part or (f"{model}/{variant}" if variant else model)
            return "infer", "+".join((like, *action.also)), action.batch
        case Switch(model=model):
            return "switch", model, 1
        case Load(model=model) | Evict(model=model):
            return action.kind, model, 1
        case Choose() | Wait():
            return action.kind, "", 1
