"""Whose frame goes first when several cameras with ladders wait: the one whose waiting would cost most accuracy. Pure.

    job = costliest(state, jobs)

What is on screen matters when a camera's next frame comes. An answer that is there by then anyway can wait; one that
would miss it costs the difference between its boxes and those that are on screen instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from edgeward.clock import NS
from edgeward.serve.actions import Job
from edgeward.serve.selection import Selector
from edgeward.serve.state import State

__all__ = ["costliest"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Waiting:
    """A frame that waits: until when, seconds from now, each of the camera's coming frames can be met if nothing goes
    before it, and what the accuracy on screen loses for each that is not; seconds it takes."""

    job: Job
    seconds: float
    slack: FloatArray
    losses: FloatArray

    def lost(self, delay: float) -> float:
        """Accuracy times seconds lost by waiting that long."""
        return float(self.losses[(self.slack >= 0) & (self.slack < delay)].sum())


def costliest(state: State, jobs: Sequence[Job]) -> Job | None:
    """The job that should go first, None when that is not to be told: fewer than two estimate, or one is overdue.

    Each in turn is taken as the first: the others lose by waiting for it, and it by waiting for one of them.
    """
    if min((job.turn_ns for job in jobs), default=0) <= state.now_ns:
        return None
    known = [job for job in jobs if _estimates(state, job)]
    if len(known) < 2 or len(known) < len(jobs):
        return None
    longest = max(_selector(state, job).latency.seconds[state.queries[job.query].model] for job in known)
    waiting = [_waiting(state, job, longest) for job in known]
    mean = math.fsum(each.seconds for each in waiting) / len(waiting)

    def value(first: _Waiting) -> tuple[float, int, str]:
        others = math.fsum(each.lost(first.seconds) for each in waiting if each is not first)
        return (first.lost(mean) - others, -first.job.turn_ns, first.job.query)

    return max(waiting, key=value).job


def _estimates(state: State, job: Job) -> bool:
    query = state.queries[job.query]
    return isinstance(query.chooser, Selector) and query.chooser.last is not None and query.answered_arrival_ns >= 0


def _selector(state: State, job: Job) -> Selector:
    return cast(Selector, state.queries[job.query].chooser)


def _waiting(state: State, job: Job, horizon: float) -> _Waiting:
    """What waiting for up to `horizon` seconds would cost a frame."""
    query, selector = state.queries[job.query], _selector(state, job)
    seconds, fps = selector.latency.seconds[query.model], selector.rules.fps
    since = (state.now_ns - job.arrived_ns) / NS
    coming = np.arange(1, max(math.ceil((since + seconds + horizon) * fps), 1) + 1, dtype=np.float64)
    behind = (job.arrived_ns - query.answered_arrival_ns) / NS * fps
    new, old = np.split(selector.precisions(query.model, np.concatenate([coming, coming + behind])), 2)
    # Every camera counts alike, whatever its frames a second: a frame stands for the time to the next.
    return _Waiting(job, seconds, coming / fps - since - seconds, (new - old) / fps)
