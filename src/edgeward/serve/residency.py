"""Which models are in memory: the part of a policy that loads and evicts.

    policy = FirstOf(EarliestDeadlineFirst(), LeastMissing(), Retry())
    policy.next(state)          # Load, Evict, or None: who waits can run, or nothing can be done for it

The loader does one load at a time, beside the processor's inferences. The strategy is a small method on `Residency`;
`LeastRecentlyUsed` and `StaticResidency` are there to compare with.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from edgeward.serve.actions import Action, Evict, Infer, Load
from edgeward.serve.policy import (
    Policy,
    deadlines_by_model,
    fits,
    in_memory,
    loadable,
    model_of,
    room,
    usable,
    waiting_jobs,
    wanted,
)
from edgeward.serve.state import ModelState, State

__all__ = ["Clearing", "LeastMissing", "LeastRecentlyUsed", "Residency", "StaticResidency", "idle"]

_NEVER_NS = 1 << 62


class Residency(Policy):
    """Loads models that frames wait for, evicting others where memory is short.

    Models nobody waits for are loaded once, at the start, into memory that is free anyway.
    keeps: whether evicted models leave in memory what the next one shares.
    """

    keeps = False

    def next(self, state: State) -> Action | None:
        if state.loader is not None:
            return None
        deadlines = deadlines_by_model(state)
        absent = sorted(name for name, model in state.models.items() if loadable(model, state) and wanted(name, state))
        asked = self.order(state, [name for name in absent if name in deadlines], deadlines)
        unused = [name for name in absent if not state.models[name].loads and name not in deadlines]
        for name in (*asked, *unused):
            if fits(state, name):
                return Load(name, state.models[name].variant)
            victims = self.victims(state, name, deadlines) if name in deadlines else []
            if victims and room(state, name, without=victims) >= 0:
                return self.evict(state, victims[0], name)
        return None

    def evict(self, state: State, victim: str, name: str) -> Evict:
        """Let go of `victim` so that `name` can come."""
        # What a portfolio will hold is not told by its name.
        keep = self.keeps and not state.models[name].spec.variants
        return Evict(victim, name if keep else "")

    def order(self, state: State, names: Sequence[str], deadlines: Mapping[str, int]) -> list[str]:
        """Models that frames wait for, in the order in which they should be loaded."""
        return sorted(names, key=lambda name: (deadlines[name], name))

    @abstractmethod
    def victims(self, state: State, name: str, deadlines: Mapping[str, int]) -> list[str]:
        """All that may go so that `name` can come, first to go first."""


class LeastRecentlyUsed(Residency):
    """The model of the most urgent frame comes; the one that was used longest ago goes.

    But never one that runs, nor one whose own waiting frame is more urgent.
    """

    def victims(self, state: State, name: str, deadlines: Mapping[str, int]) -> list[str]:
        candidates = [
            other
            for other, model in idle(state).items()
            if not (other in deadlines and deadlines[other] <= deadlines[name] and usable(model, state))
        ]
        return sorted(candidates, key=lambda other: (state.models[other].used_ns, other))


class LeastMissing(Residency):
    """The model comes whose frames have waited long for how little of it is missing; what it shares with others stays.

    Frames that wait cost accuracy in proportion to their age, and loads cost time in proportion to the bytes that are
    missing: the order is that of age squared over cost, which is how a queue of unlike jobs keeps its mean age low
    (Kadota et al., IEEE/ACM ToN 2018, section V, for links). Models that share layers thus come one after the other.

    The model goes whose next frame is furthest away (Belady 1966, with the cameras' periods as the future): whoever
    waits for its turn would miss it, one that was just served will not.
    """

    keeps = True

    def order(self, state: State, names: Sequence[str], deadlines: Mapping[str, int]) -> list[str]:
        return sorted(names, key=lambda name: (-_worth(state, name), deadlines[name], name))

    def victims(self, state: State, name: str, deadlines: Mapping[str, int]) -> list[str]:
        worth = _worth(state, name)
        candidates = [
            other
            for other, model in idle(state).items()
            if not (other in deadlines and usable(model, state) and _worth(state, other) >= worth)
        ]

        def first(other: str) -> tuple[bool, bool, int, str]:
            enough = room(state, name, without=(other,)) >= 0
            return (not enough, other in deadlines, -_next_use_ns(state, other), other)

        return sorted(candidates, key=first)


class Clearing(Policy):
    """Evicts for an overdue model that needs the room of one whose frames wait now.

    Ask it before the processor gets its next work: a model that always has a frame waiting would never be free to go.
    """

    def __init__(self, residency: Residency) -> None:
        self.residency = residency

    def next(self, state: State) -> Action | None:
        if state.processor is not None or state.loader is not None:
            return None
        deadlines = deadlines_by_model(state)
        overdue = [
            name for name, due in deadlines.items() if due <= state.now_ns and loadable(state.models[name], state)
        ]
        for name in self.residency.order(state, overdue, deadlines)[:1]:
            victims = self.residency.victims(state, name, deadlines)
            free = [other for other in victims if other not in deadlines]
            if room(state, name, without=free) < 0 <= room(state, name, without=victims):
                return self.residency.evict(state, victims[0], name)
        return None


class StaticResidency(Policy):
    """Loads models in name order while they fit and never evicts: the baseline without swapping."""

    def next(self, state: State) -> Action | None:
        if state.loader is not None:
            return None
        asked = {query.model for query in state.queries.values()}
        names = sorted(name for name, model in state.models.items() if loadable(model, state) and name in asked)
        return next((Load(name, state.models[name].variant) for name in names if fits(state, name)), None)


def idle(state: State) -> dict[str, ModelState]:
    """The models in memory that do not run and are not to be compared on the next frame, by name."""
    compared = {name for query in state.queries.values() for name in query.also}
    action = state.processor.action if state.processor else None
    compared |= {action.model, *action.also} if isinstance(action, Infer) else set()
    return {name: model for name, model in in_memory(state).items() if name not in compared}


def _worth(state: State, name: str) -> float:
    """How long frames have waited for a model, in their deadlines, squared, over the seconds that it would take."""
    waited = (
        (state.now_ns - job.turn_ns + state.queries[job.query].spec.deadline_ns)
        / state.queries[job.query].spec.deadline_ns
        for job in waiting_jobs(state)
        if model_of(state, job) == name
    )
    return sum(max(each, 0.0) ** 2 for each in waited) / max(_cost_ns(state, name), 1)


def _cost_ns(state: State, name: str) -> float:
    """Nanoseconds of loading what is missing of a model and of one inference."""
    model = state.models[name]
    there = {digest for other in state.models.values() if other.status != "absent" for digest in other.spec.tensors}
    missing = sum(
        size for digest, size in model.spec.tensors.items() if digest not in there and digest not in state.kept
    )
    return missing * state.ns_per_byte + min(model.infer_ns.values(), default=0)


def _next_use_ns(state: State, name: str) -> int:
    """When the next frame for a model is expected; of a camera that fell silent, after as long again."""
    coming = []
    for query in state.queries.values():
        if query.model == name:
            camera = state.cameras[query.spec.camera]
            due = max(query.next_due_ns, camera.arrived_ns + camera.period_ns)
            coming.append(due if due >= state.now_ns else 2 * state.now_ns - camera.arrived_ns)
    return min(coming, default=_NEVER_NS)
