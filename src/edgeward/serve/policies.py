"""What to do next, as pure functions of the state.

    policy = policy_named("edf")
    action = policy.next(state)          # Infer, Load, Evict, Wait, or None: nothing until something happens

A policy is one small method; policies compose by "the first that has something to do". The processor
runs one inference at a time, the loader one load; both work at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from edgeward.errors import ConfigError, nearest
from edgeward.serve.actions import Action, Evict, Infer, Job, Load, Switch, Wait
from edgeward.serve.batching import expected_ns, taking_turns
from edgeward.serve.laddering import Laddering
from edgeward.serve.policy import (
    FirstOf,
    Policy,
    deadlines_by_model,
    model_of,
    usable,
    waiting_jobs,
)
from edgeward.serve.residency import Clearing, LeastMissing, LeastRecentlyUsed, Residency, StaticResidency, idle
from edgeward.serve.state import ModelState, State, union_bytes
from edgeward.serve.timesharing import TimeSharing
from edgeward.serve.turns import costliest
from edgeward.serve.watch import better, worse

__all__ = [
    "POLICIES",
    "EarliestDeadlineFirst",
    "LoadSwitching",
    "OldestFirst",
    "Retry",
    "policy_named",
]


class EarliestDeadlineFirst(Policy):
    """Answers the job whose deadline comes first, of those whose model is in memory.

    A frame that took the place of an older one takes over its turn, so that no camera waits for ever. When all that
    wait have ladders, and none is overdue, the order is that which costs least accuracy (see `edgeward.serve.turns`).
    Jobs of other cameras for the same model join the batch while the batch is still expected to
    end before the earliest deadline in it; where models take turns in memory, as many as serve the worst off best
    (see `edgeward.serve.batching`). EDF: Liu and Layland, JACM 1973, section 7.
    """

    def next(self, state: State) -> Action | None:
        if state.processor is not None:
            return None
        ready = [job for job in waiting_jobs(state) if usable(state.models[model_of(state, job)], state)]
        if not ready:
            return None
        first = self.first(state, ready)
        model = state.models[model_of(state, first)]
        others = (
            job
            for job in ready
            if job is not first and model_of(state, job) == model.spec.name and not state.queries[job.query].also
        )
        same = [first, *sorted(others, key=self.urgency)]
        also = state.queries[first.query].also
        jobs = (first,) if also else _batch(same, model, state)
        return Infer(model.spec.name, jobs, model.variant, also)

    def first(self, state: State, ready: Sequence[Job]) -> Job:
        """The job that is answered next, of those that can be."""
        return costliest(state, ready) or min(ready, key=self.urgency)

    def urgency(self, job: Job) -> tuple[int, int, str]:
        """Sort key: what comes first is answered first; ties are broken so that the order is total."""
        return (job.turn_ns, job.arrived_ns, job.query)


class OldestFirst(EarliestDeadlineFirst):
    """Answers in the order of arrival: the baseline that knows no deadlines."""

    def first(self, state: State, ready: Sequence[Job]) -> Job:
        return min(ready, key=self.urgency)

    def urgency(self, job: Job) -> tuple[int, int, str]:
        return (job.turn_ns - job.deadline_ns + job.arrived_ns, 0, job.query)


class LoadSwitching(Policy):
    """Of a portfolio, a cheaper variant as soon as frames are skipped or late, a better one after `calm` calm windows.

    A calm window is one in which the better variant would have met every deadline too (see `edgeward.serve.watch`).
    The new variant is loaded beside the old one; where memory is too short for both, the old one goes first. Ask it
    before the processor gets its next work, or an overloaded model would never be free to go.
    """

    def __init__(self, calm: int = 3) -> None:
        self.calm = calm

    def next(self, state: State) -> Action | None:
        if state.loader is not None:
            return None
        changes = ((name, self._target(model, state)) for name, model in state.models.items() if model.spec.variants)
        return next((action for name, to in changes if to and (action := _change(state, name, to))), None)

    def _target(self, model: ModelState, state: State) -> str | None:
        watch, found = model.watch, None
        if watch.calm >= self.calm:
            found = better(model)
        elif not watch.calm and watch.trouble_ns > watch.settled_ns:
            found = worse(model)
        return found.name if found is not None and model.retry_ns <= state.now_ns >= watch.settled_ns else None


def _change(state: State, name: str, to: str) -> Action | None:
    """The next step towards a variant, None when there is no room for it or its turn has not come."""
    model = state.models[name]
    target = replace(model.spec, tensors=model.spec.variant(to).tensors)
    others = [other.spec for key, other in state.models.items() if key != name and other.status != "absent"]
    if union_bytes([*others, target]) > state.budget_bytes:
        return None
    if model.status == "absent":
        return Load(name, to) if name in deadlines_by_model(state) else None
    if union_bytes([*others, model.spec, target]) <= state.budget_bytes:
        return Switch(name, to)
    return Evict(name) if name in idle(state) else None


class Retry(Policy):
    """Wakes the box when a model that failed may be tried again."""

    def next(self, state: State) -> Action | None:
        if state.waiting is not None:
            return None
        times = [model.retry_ns for model in state.models.values() if model.retry_ns > state.now_ns]
        return Wait(min(times)) if times else None


def _batch(jobs: Sequence[Job], model: ModelState, state: State) -> tuple[Job, ...]:
    """Of `jobs`, most urgent first, those that run together now."""
    if len({(job.camera, job.frame) for job in jobs}) == 1:
        return tuple(jobs)
    if (limit := taking_turns(state, model.spec.name)) is not None:
        pictures = list(dict.fromkeys((job.camera, job.frame) for job in jobs))[:limit]
        return tuple(job for job in jobs if (job.camera, job.frame) in pictures)
    return _in_time(jobs, model, state.now_ns)


def _in_time(jobs: Sequence[Job], model: ModelState, now_ns: int) -> tuple[Job, ...]:
    """As many of `jobs`, most urgent first, as run together before the earliest of their deadlines."""
    taken = [jobs[0]]
    pictures = {(jobs[0].camera, jobs[0].frame)}
    end_by = jobs[0].deadline_ns
    for job in jobs[1:]:
        grown = pictures | {(job.camera, job.frame)}
        if len(grown) > len(pictures):
            expected = expected_ns(model, len(grown))
            if (
                len(grown) > model.spec.max_batch
                or expected is None
                or now_ns + expected > min(end_by, job.deadline_ns)
            ):
                continue
        pictures = grown
        end_by = min(end_by, job.deadline_ns)
        taken.append(job)
    return tuple(taken)


def _served(first: Policy, residency: Residency) -> Policy:
    """Variants and ladders, then the processor's next work, then memory."""
    return FirstOf(LoadSwitching(), Laddering(), Clearing(residency), first, residency, Retry())


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "edf": _served(EarliestDeadlineFirst(), LeastMissing()),
        "edf-lru": _served(EarliestDeadlineFirst(), LeastRecentlyUsed()),
        "edf-static": FirstOf(EarliestDeadlineFirst(), StaticResidency(), Retry()),
        "rr-lru": FirstOf(LoadSwitching(), Laddering(), TimeSharing("least recent"), Retry()),
        "rr-mru": FirstOf(LoadSwitching(), Laddering(), TimeSharing("most recent"), Retry()),
        "fifo-lru": _served(OldestFirst(), LeastRecentlyUsed()),
    }
)
"""The policies that can be named in a box file and given to `edgeward replay --policy`."""


def policy_named(name: str) -> Policy:
    """The policy called `name`; ConfigError names the nearest when there is none."""
    if name not in POLICIES:
        raise ConfigError(f"no policy {name!r}; {nearest(name, POLICIES)}")
    return POLICIES[name]
