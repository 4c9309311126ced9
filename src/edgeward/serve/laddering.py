"""Which model of its ladder each query uses next: the part of a policy that puts models in charge.

    policy = FirstOf(Laddering(), EarliestDeadlineFirst(), LeastRecentlyUsed(), Retry())
    policy.next(state)          # Choose, Load or Evict; None when the models in charge stay

The next model is loaded beside the one in charge, which goes on answering; only when memory is too short for both does
the old one go first. Queries whose choosers estimate precision share the processor: together they get the combination
that is most accurate on screen (see `edgeward.serve.joint`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from edgeward.clock import to_seconds
from edgeward.errors import BudgetError
from edgeward.serve.actions import Action, Choose, Evict, Load
from edgeward.serve.choice import Choice
from edgeward.serve.joint import assign
from edgeward.serve.policy import Policy, fits, in_memory
from edgeward.serve.residency import idle
from edgeward.serve.selection import Selector
from edgeward.serve.state import QueryState, State, union_bytes

__all__ = ["Laddering", "chosen_together"]

TURN_NS = 500_000_000
"""How often a joint choice is made: it weighs all combinations, which takes some milliseconds."""
AWAY_NS = 2_000_000_000
"""A camera without a frame for so long takes no part in the joint choice."""


class Laddering(Policy):
    """Asks the choosers before a frame is taken up. Ask it before the processor gets its next work."""

    def next(self, state: State) -> Action | None:
        if state.processor is not None:
            return None
        groups = _groups(state)
        selectors = {name: _selector(state, name) for name in groups}
        together = len(groups) > 1
        if together and _turn(state) and (action := _together(state, selectors, groups)) is not None:
            return action
        shared = _members(groups)
        resident = in_memory(state)
        for name, query in state.queries.items():
            chooser = query.chooser
            if chooser is None or not query.jobs or query.after:
                continue
            if name in shared and _may_stay(_selector(state, name), state):
                continue
            # A look for one camera would hold up all others.
            asked = chooser.unlooking() if together and isinstance(chooser, Selector) else chooser
            choice = asked.choice(to_seconds(state.now_ns), resident)
            action = _towards(state, {name: choice.name}, choice)
            if action is not None:
                return action
        return None


def chosen_together(state: State) -> set[str]:
    """The queries whose models are chosen jointly at the moment."""
    return _members(_groups(state))


def _members(groups: Mapping[str, list[str]]) -> set[str]:
    """All queries, where there are several to be weighed against each other."""
    return {name for names in groups.values() for name in names} if len(groups) > 1 else set()


def _groups(state: State) -> dict[str, list[str]]:
    """Queries that can be weighed against each other; those alike on one camera are one, as one inference serves them.

    By the first query of each group. Whoever has not been answered yet, or has no frames, takes no part.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, query in state.queries.items():
        chooser = query.chooser
        if isinstance(chooser, Selector) and chooser.last is not None and _delivers(state, query):
            found.setdefault((query.spec.camera, query.spec.model), []).append(name)
    return {names[0]: names for names in found.values()}


def _selector(state: State, name: str) -> Selector:
    return cast(Selector, state.queries[name].chooser)


def _delivers(state: State, query: QueryState) -> bool:
    """Whether a query's camera sent a frame of late: others need not wait for one that is away."""
    arrived = state.cameras[query.spec.camera].arrived_ns
    return arrived >= 0 and state.now_ns - arrived <= max(AWAY_NS, 2 * query.spec.period_ns)


def _may_stay(selector: Selector, state: State) -> bool:
    """Whether the model in charge did not fail since the last joint choice."""
    out = selector.out.get(selector.active)
    return out is None or out.until <= to_seconds(state.now_ns)


def _turn(state: State) -> bool:
    """Whether a joint choice is due: no inference began yet in this turn."""
    return state.now_ns // TURN_NS > state.begun_ns // TURN_NS


def _together(state: State, selectors: Mapping[str, Selector], groups: Mapping[str, list[str]]) -> Action | None:
    others = [query for query in state.queries.values() if not isinstance(query.chooser, Selector)]
    fixed = [state.models[query.model].spec for query in others]
    now = to_seconds(state.now_ns)
    try:
        found = assign(selectors, now, state.budget_bytes - union_bytes(fixed), in_memory(state))
    except BudgetError:  # models of different queries may have to take turns in memory
        found = assign(selectors, now, resident=in_memory(state))
    settled = {name: model for first, model in found.names.items() for name in groups[first]}
    settled = {name: model for name, model in settled.items() if not state.queries[name].after}
    changes = [
        f"{model!r} instead of {state.queries[name].model!r} for {name}"
        for name, model in settled.items()
        if state.queries[name].model != model
    ]
    return _towards(state, settled, Choice("", f"{', '.join(changes)}: {found.reason}"))


def _towards(state: State, models: Mapping[str, str], choice: Choice) -> Action | None:
    """The next step to these models in charge of queries; None when they are, or while one is on its way."""
    changed = {name: model for name, model in models.items() if state.queries[name].model != model or choice.also}
    if not changed:
        return None
    needed = list(dict.fromkeys((*changed.values(), *choice.also)))
    if any(state.models[name].spec.bytes > state.budget_bytes for name in needed):
        return None  # it could never be loaded
    absent = [name for name in needed if state.models[name].status != "resident"]
    looks = choice.probe or choice.also
    if looks and (_apart(state, needed) or (absent and any(query.also for query in state.queries.values()))):
        return None  # what a comparison waits for stays in memory until then: two of them could wait for each other
    answering = any(state.models[state.queries[name].model].status == "resident" for name in changed)
    # A comparison waits for whom it needs: loaded beforehand, it might be gone again by the next frame.
    if absent and answering and not (choice.probe and choice.also):
        if not _can_load(state, absent[0]):
            return None
        if fits(state, absent[0]):
            return Load(absent[0], state.models[absent[0]].variant)
        if (victim := _unused(state, needed)) is not None:
            return Evict(victim)
    return Choose(changed, choice.reason, choice.probe, choice.also)


def _can_load(state: State, name: str) -> bool:
    """Whether a model's load could begin now, were there room."""
    model = state.models[name]
    return state.loader is None and model.status == "absent" and model.retry_ns <= state.now_ns


def _apart(state: State, needed: Collection[str]) -> bool:
    """Whether models cannot be in memory together."""
    return union_bytes(state.models[name].spec for name in needed) > state.budget_bytes


def _unused(state: State, needed: Collection[str]) -> str | None:
    """The model in memory that nobody uses at the moment, the one longest unused."""
    used = {name for query in state.queries.values() for name in (query.model, query.after)}
    names = [name for name in idle(state) if name not in used and name not in needed]
    return min(names, key=lambda name: (state.models[name].used_ns, name), default=None)
