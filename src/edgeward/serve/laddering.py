"""Which model of its ladder each query uses next: the part of a policy that puts models in charge.

    policy = FirstOf(Laddering(), EarliestDeadlineFirst(), LeastRecentlyUsed(), Retry())
    policy.next(state)          # Choose, Load or Evict; None when the models in charge stay

The next model is loaded beside the one in charge, which goes on answering; only when memory is too short for both does
the old one go first. Queries whose choosers estimate precision share the processor: together they get the combination
that is most accurate on screen (see `edgeward.serve.joint`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edgeward.clock import to_seconds
from edgeward.errors import BudgetError
from edgeward.serve.actions import Action, Choose, Evict, Load
from edgeward.serve.choice import Choice
from edgeward.serve.joint import assign
from edgeward.serve.policy import Policy, fits
from edgeward.serve.selection import Selector
from edgeward.serve.state import State, union_bytes

__all__ = ["Laddering"]

TURN_NS = 500_000_000
"""How often a joint choice is made: it weighs all combinations, which takes some milliseconds."""


class Laddering(Policy):
    """Asks the choosers before a frame is taken up. Ask it before the processor gets its next work."""

    def next(self, state: State) -> Action | None:
        if state.processor is not None:
            return None
        selectors = {
            name: query.chooser for name, query in state.queries.items() if isinstance(query.chooser, Selector)
        }
        together = len(selectors) > 1
        ready = together and all(each.last is not None for each in selectors.values())
        if ready and _turn(state) and (action := _together(state, selectors)) is not None:
            return action
        resident = [name for name, model in state.models.items() if model.status == "resident"]
        for name, query in state.queries.items():
            if query.chooser is None or not query.jobs or query.after:
                continue
            if ready and name in selectors and _may_stay(selectors[name], state):
                continue
            choice = query.chooser.choice(to_seconds(state.now_ns), resident)
            if choice.probe and together:
                continue  # a look for one camera would hold up all others
            action = _towards(state, {name: choice.name}, choice)
            if action is not None:
                return action
        return None


def _may_stay(selector: Selector, state: State) -> bool:
    """Whether the model in charge did not fail since the last joint choice."""
    out = selector.out.get(selector.active)
    return out is None or out.until <= to_seconds(state.now_ns)


def _turn(state: State) -> bool:
    """Whether a joint choice is due: no inference began yet in this turn."""
    return state.now_ns // TURN_NS > state.begun_ns // TURN_NS


def _together(state: State, selectors: Mapping[str, Selector]) -> Action | None:
    fixed = [state.models[query.model].spec for query in state.queries.values() if query.chooser is None]
    try:
        found = assign(selectors, to_seconds(state.now_ns), state.budget_bytes - union_bytes(fixed))
    except BudgetError:  # models of different queries may have to take turns in memory
        found = assign(selectors, to_seconds(state.now_ns))
    settled = {name: model for name, model in found.names.items() if not state.queries[name].after}
    return _towards(state, settled, Choice("", found.reason))


def _towards(state: State, models: Mapping[str, str], choice: Choice) -> Action | None:
    """The next step to these models in charge of queries; None when they are, or while one is on its way."""
    changed = {name: model for name, model in models.items() if state.queries[name].model != model or choice.also}
    if not changed:
        return None
    needed = list(dict.fromkeys((*changed.values(), *choice.also)))
    absent = [name for name in needed if state.models[name].status != "resident"]
    answering = any(state.models[state.queries[name].model].status == "resident" for name in changed)
    if absent and answering:
        if not _can_load(state, absent[0]):
            return None
        if fits(state, absent[0]):
            return Load(absent[0], state.models[absent[0]].variant)
        if (victim := _idle(state, needed)) is not None:
            return Evict(victim)
    return Choose(changed, choice.reason, choice.probe, choice.also)


def _can_load(state: State, name: str) -> bool:
    """Whether a model's load could begin now, were there room."""
    model = state.models[name]
    return state.loader is None and model.status == "absent" and model.retry_ns <= state.now_ns


def _idle(state: State, needed: Collection[str]) -> str | None:
    """The model in memory that nobody uses at the moment, the one longest unused."""
    used: Sequence[str] = [name for query in state.queries.values() for name in (query.model, query.after)]
    idle = [
        name
        for name, model in state.models.items()
        if model.status == "resident" and name not in used and name not in needed
    ]
    return min(idle, key=lambda name: (state.models[name].used_ns, name), default=None)
