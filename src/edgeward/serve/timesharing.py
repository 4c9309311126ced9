"""Time and space sharing as servers of many models do it, to compare with: models take turns in a fixed order.

    policy = policy_named("rr-mru")

After the schedule of Nexus (Shen et al., SOSP 2019) in the edition that Gemel (NSDI 2023) compares with: who is not in
memory is loaded when its turn comes, while the one before still runs if both fit.
"""

from __future__ import annotations

from typing import Literal

from edgeward.serve.actions import Action, Evict, Infer, Job, Load
from edgeward.serve.policy import Policy, fits, in_memory, loadable, model_of, usable, waiting_jobs
from edgeward.serve.state import State

__all__ = ["TimeSharing"]


class TimeSharing(Policy):
    """Round robin over the models that frames wait for, in the order of their names.

    evict: who makes room, the model that ran last (it is needed last) or the one that ran longest ago.
    """

    def __init__(self, evict: Literal["most recent", "least recent"]) -> None:
        self.evict = evict

    def next(self, state: State) -> Action | None:
        turns = _turns(state)
        if not turns:
            return None
        model = state.models[turns[0]]
        if state.processor is None and usable(model, state):
            return Infer(model.spec.name, _jobs(state, turns[0]), model.variant)
        if state.loader is not None or not loadable(model, state):
            return None
        if fits(state, turns[0]):
            return Load(turns[0], model.variant)
        pick = min if self.evict == "least recent" else max
        victim = pick(
            sorted(in_memory(state)), key=lambda name: (state.models[name].used_ns, name == state.ran), default=None
        )
        # While the most recent one runs, the load waits: to send away another one would be another order.
        running = state.processor.action.model if state.processor else None
        return Evict(victim) if victim not in (None, running) else None


def _turns(state: State) -> list[str]:
    """Models that frames wait for and that could answer, from the one whose turn is next."""
    asked = {model_of(state, job) for job in waiting_jobs(state)}
    names = sorted(name for name in asked if state.models[name].retry_ns <= state.now_ns)
    return [name for name in names if name > state.ran] + [name for name in names if name <= state.ran]


def _jobs(state: State, name: str) -> tuple[Job, ...]:
    """The frames that wait for a model, whoever waits longest first, as many as it takes at once."""
    jobs = [job for job in waiting_jobs(state) if model_of(state, job) == name]
    jobs.sort(key=lambda job: (job.turn_ns - job.deadline_ns + job.arrived_ns, job.query))
    pictures = list(dict.fromkeys((job.camera, job.frame) for job in jobs))[: state.models[name].spec.max_batch]
    return tuple(job for job in jobs if (job.camera, job.frame) in pictures)
