"""The smallest part of a policy, and what parts ask of the state.

    policy = FirstOf(EarliestDeadlineFirst(), LeastRecentlyUsed())
    action = policy.next(state)

See `edgeward.serve.policies` for those that a box can name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable

from edgeward.serve.actions import Action, Job
from edgeward.serve.state import ModelState, State, union_bytes

__all__ = [
    "FirstOf",
    "Policy",
    "deadlines_by_model",
    "fits",
    "in_memory",
    "loadable",
    "model_of",
    "room",
    "usable",
    "waiting_jobs",
    "wanted",
]


class Policy(ABC):
    """Decides the next action."""

    @abstractmethod
    def next(self, state: State) -> Action | None:
        """The action to begin now, or None when there is nothing to do."""


class FirstOf(Policy):
    """Asks each policy in turn and takes the first answer."""

    def __init__(self, *policies: Policy) -> None:
        self.policies = policies

    def next(self, state: State) -> Action | None:
        for policy in self.policies:
            action = policy.next(state)
            if action is not None:
                return action
        return None


def waiting_jobs(state: State) -> Iterable[Job]:
    """All jobs that wait."""
    return (job for query in state.queries.values() for job in query.jobs)


def model_of(state: State, job: Job) -> str:
    """The model in charge of a job's query."""
    return state.queries[job.query].model


def usable(model: ModelState, state: State) -> bool:
    """Whether a model can answer now."""
    return model.status == "resident" and model.retry_ns <= state.now_ns


def in_memory(state: State) -> dict[str, ModelState]:
    """The models that are loaded, by name."""
    return {name: model for name, model in state.models.items() if model.status == "resident"}


def loadable(model: ModelState, state: State) -> bool:
    """Whether a model is out of memory and did not fail a moment ago."""
    return model.status == "absent" and model.retry_ns <= state.now_ns


def wanted(name: str, state: State) -> bool:
    """Whether a query may use a model."""
    return any(name in query.spec.models for query in state.queries.values())


def room(state: State, name: str, without: Collection[str] = ()) -> int:
    """Bytes that would be left with a model beside all that are in memory but for some; below 0: it does not fit."""
    held = [model.spec for key, model in state.models.items() if model.status != "absent" and key not in without]
    return state.budget_bytes - union_bytes([*held, state.models[name].spec])


def fits(state: State, name: str) -> bool:
    """Whether there is room for a model beside those in memory."""
    return room(state, name) >= 0


def deadlines_by_model(state: State) -> dict[str, int]:
    """The earliest waiting deadline of each model that has waiting jobs."""
    earliest: dict[str, int] = {}
    for job in waiting_jobs(state):
        model = model_of(state, job)
        earliest[model] = min(job.turn_ns, earliest.get(model, job.turn_ns))
    return earliest
