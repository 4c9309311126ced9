"""How the variant of a portfolio keeps up with its frames: what a policy needs to change it. Pure.

    after = watched(before, event, after)         # of every event, see `apply`
    better(after.models["people"])                # the next variant up, or None

Trouble is a frame skipped or answered late while the model was in memory. A window is calm when there was none, when
every answer would still have been in time had it taken as much longer as the better variant costs, and when the
processor would have had time to spare.
"""

from __future__ import annotations

from dataclasses import replace

from edgeward.clock import NS
from edgeward.serve.actions import Infer
from edgeward.serve.events import Event, Failed, Inferred, Loaded, Switched
from edgeward.serve.state import ModelState, State, VariantSpec, Watch

__all__ = ["SETTLE_NS", "WINDOW_NS", "better", "watched", "worse"]

WINDOW_NS = 1 * NS
SETTLE_NS = NS // 2
"""After a load or a change, how long skipped frames are not put down to the new variant: they waited for it."""

FAILED_PAUSE_NS = 10 * NS
"""How long a variant that could not be loaded is not tried again."""

BUSY_PERCENT = 90
"""Share of the processor's time that the better variant may need, together with all other work."""


def better(model: ModelState) -> VariantSpec | None:
    """The next more accurate variant."""
    return _beside(model, 1)


def worse(model: ModelState) -> VariantSpec | None:
    """The next cheaper variant."""
    return _beside(model, -1)


def watched(before: State, event: Event, after: State) -> State:
    """`after`, with the watch over every portfolio brought up to date."""
    changed = {
        name: replace(model, watch=_watch(before, event, after, model))
        for name, model in after.models.items()
        if model.spec.variants
    }
    return replace(after, models={**after.models, **changed}) if changed else after


def _watch(before: State, event: Event, after: State, model: ModelState) -> Watch:
    watch, name, now = model.watch, model.spec.name, after.now_ns
    if isinstance(event, Loaded | Switched) and event.model == name:
        return _begun(replace(watch, settled_ns=max(watch.settled_ns, now + SETTLE_NS), calm=0), after)
    if isinstance(event, Failed) and event.model == name:
        pause = FAILED_PAUSE_NS if event.what in ("switch", "load") else 0
        return replace(watch, settled_ns=max(watch.settled_ns, now + pause), calm=0, spoiled=True)
    if model.status == "resident" and _lost(after, name) > _lost(before, name):
        watch = replace(watch, trouble_ns=now, calm=0, spoiled=True)
    return _answered(watch, before, event, after) if isinstance(event, Inferred) and event.model == name else watch


def _answered(watch: Watch, before: State, event: Inferred, after: State) -> Watch:
    """After an answer: would the better variant have given it in time; and the window, when it is over."""
    model, running = after.models[event.model], before.processor
    assert running is not None and isinstance(running.action, Infer)
    took = event.time_ns - running.since_ns
    watch = replace(watch, own_ns=watch.own_ns + took)
    up = better(model)
    if up is None or running.action.variant != model.variant:
        return watch
    cost = model.spec.variant(model.variant).cost
    if event.time_ns + _extra(took, up.cost, cost) > min(job.deadline_ns for job in event.jobs):
        watch = replace(watch, calm=0, spoiled=True)
    span = event.time_ns - watch.window_ns
    if span < WINDOW_NS:
        return watch
    busy = after.busy_ns - watch.window_busy_ns + _extra(watch.own_ns - watch.window_own_ns, up.cost, cost)
    calm = not watch.spoiled and 100 * busy <= BUSY_PERCENT * span
    return _begun(replace(watch, calm=watch.calm + 1 if calm else 0), after)


def _begun(watch: Watch, state: State) -> Watch:
    """A new window."""
    return replace(
        watch, spoiled=False, window_ns=state.now_ns, window_busy_ns=state.busy_ns, window_own_ns=watch.own_ns
    )


def _extra(took_ns: int, up: int, cost: int) -> int:
    """How much longer the better variant would have taken."""
    return took_ns * up // cost - took_ns


def _lost(state: State, model: str) -> int:
    return sum(query.late + query.skipped for query in state.queries.values() if query.spec.model == model)


def _beside(model: ModelState, step: int) -> VariantSpec | None:
    names = [variant.name for variant in model.spec.variants]
    place = names.index(model.variant) + step
    return model.spec.variants[place] if 0 <= place < len(names) else None
