"""Whose frame goes first when several cameras with ladders wait: that of the order that costs least accuracy. Pure.

    job = costliest(state, jobs)

What is on screen matters when a camera's next frame comes. An answer that is there by then anyway can wait; one that
would miss it costs the difference between its boxes and those that are on screen instead. Whole orders are weighed: of
several answers that can wait each, all may miss their frames when they are put off together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgeward.clock import NS
from edgeward.serve.actions import Job
from edgeward.serve.inturn import whose_turn
from edgeward.serve.modelconfig import members_of
from edgeward.serve.selection import Selector
from edgeward.serve.state import State

__all__ = ["costliest"]

MOST = 8
"""Jobs of which all orders are weighed."""


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits: the seconds it takes; for how long it can wait before it misses the next, second, ... of its
    camera's coming frames, rising; and what the accuracy on screen has lost by then."""

    job: Job
    seconds: float
    slack: Sequence[float]
    losses: Sequence[float]

    def lost(self, delay: float) -> float:
        """Accuracy times seconds lost by waiting that long."""
        missed = bisect_left(self.slack, delay)
        return self.losses[missed - 1] if missed else 0.0


def costliest(state: State, jobs: Sequence[Job]) -> Job | None:
    """The job that should go first, None when that is not to be told: fewer than two estimate, or one is overdue.

    It is the first of the order that loses least, of all orders in which the frames that wait may be answered. Of more
    than MOST, those whose turn comes first are weighed.
    """
    if min((job.turn_ns for job in jobs), default=0) <= state.now_ns:
        return None
    known = [job for job in jobs if _estimates(state, job)]
    if len(known) < 2 or len(known) < len(jobs):
        return None
    known = sorted(known, key=lambda job: (job.turn_ns, job.query))[:MOST]
    waiting = [_waiting(state, job, math.fsum(_seconds(state, each) for each in known)) for job in known]
    return waiting[_first(waiting)].job


def _first(waiting: Sequence[_Waiting]) -> int:
    """Place of the first in the best of all orders; of equals the earlier (dynamic programming over subsets; Held and
    Karp, 1962: what those that are left lose depends on who went before them, not in which order)."""
    places = range(len(waiting))
    every = (1 << len(waiting)) - 1
    busy, least = [0.0] * (every + 1), [0.0] * (every + 1)
    for done in range(1, every + 1):
        last = done.bit_length() - 1
        busy[done] = busy[done ^ (1 << last)] + waiting[last].seconds
    for done in range(every - 1, 0, -1):
        least[done] = min(
            waiting[place].lost(busy[done]) + least[done | 1 << place] for place in places if not done >> place & 1
        )
    return min(places, key=lambda place: least[1 << place])


def _estimates(state: State, job: Job) -> bool:
    query = state.queries[job.query]
    return isinstance(query.chooser, Selector) and query.chooser.last is not None and query.answered_arrival_ns >= 0


def _selector(state: State, job: Job) -> Selector:
    return cast(Selector, state.queries[job.query].chooser)


def _seconds(state: State, job: Job) -> float:
    """Of models in turn those of the one whose turn it is: with their mean, a frame might wait too long."""
    name, selector = state.queries[job.query].model, _selector(state, job)
    seconds = selector.latency.turns(selector.ladder.rung(name))
    return seconds[members_of(name).index(whose_turn(name, selector.looked))] if len(seconds) > 1 else seconds[0]


def _waiting(state: State, job: Job, horizon: float) -> _Waiting:
    """What waiting for up to `horizon` seconds would cost a frame."""
    query, selector = state.queries[job.query], _selector(state, job)
    seconds, fps = _seconds(state, job), selector.rules.fps
    since = (state.now_ns - job.arrived_ns) / NS
    coming = np.arange(1, max(math.ceil((since + seconds + horizon) * fps), 1) + 1, dtype=np.float64)
    behind = (job.arrived_ns - query.answered_arrival_ns) / NS * fps
    new, old = np.split(selector.precisions(query.model, np.concatenate([coming, coming + behind])), 2)
    slack = coming / fps - since - seconds
    # Every camera counts alike, whatever its frames a second: a frame stands for the time to the next.
    met = slack >= 0
    return _Waiting(job, seconds, slack[met].tolist(), np.cumsum((new - old)[met] / fps).tolist())
