"""What a query's ladder looks like at the moment, for the page and the API.

print(ladder_report(state.queries["street"], state, clock.now_ns()).why)
"""

from __future__ import annotations

import math

from edgeward.clock import to_seconds
from edgeward.serve.laddering import chosen_together
from edgeward.serve.policy import in_memory
from edgeward.serve.report import LadderReport, RungReport
from edgeward.serve.rules import fitting
from edgeward.serve.selection import Selector
from edgeward.serve.state import QueryState, State

__all__ = ["UNCHANGED", "ladder_report"]

UNCHANGED = "no combination of models for all cameras was enough better so far"


def ladder_report(query: QueryState, state: State, now_ns: int) -> LadderReport | None:
    """The models that a query chooses from, None for a query without a ladder."""
    chooser, now = query.chooser, to_seconds(now_ns)
    if chooser is None:
        return None
    choice = chooser.choice(now, in_memory(state))
    # Of a joint choice a query's own chooser knows nothing: alone, it might take another model.
    together = query.spec.name in chosen_together(state)
    why = (query.why or UNCHANGED) if together else choice.reason
    return LadderReport(
        name=query.spec.model,
        rule=chooser.kind,
        why=why,
        switches=query.switches,
        rungs=tuple(
            RungReport(
                model=name,
                relative=_finite(choice.relative.get(name)),
                seconds=chooser.latency.seconds.get(name) if isinstance(chooser, Selector) else None,
                out=_out(chooser, name, now) if isinstance(chooser, Selector) else state.models[name].error,
            )
            for name in query.spec.ladder
        ),
        beside=chooser.latency.beside if isinstance(chooser, Selector) else None,
    )


def _finite(value: float | None) -> float | None:
    """None for a ratio to nothing."""
    return value if value is not None and math.isfinite(value) else None


def _out(chooser: Selector, name: str, now: float) -> str:
    """Why a model may not be chosen."""
    if name in chooser.out and chooser.out[name].until > now:
        return chooser.out[name].why
    if chooser.ladder.rung(name) not in fitting(chooser.ladder, chooser.rules):
        return "it does not fit in memory"
    known = any(rung.name == name for rung in chooser.available(now))
    return "" if known else "another model is better in everything"
