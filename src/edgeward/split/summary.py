"""What a run came to: results, rates, and every step predicted beside measured.

tally = Tally()
for result in deployment.stream(inputs):
    tally.add(result)
tally.summary(source="pi").rate
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeward.plan.plan import Plan
from edgeward.split.timing import Step, StepFigures, figures

if TYPE_CHECKING:
    from edgeward.split.deployment import Result

__all__ = ["PlanRun", "Summary", "Tally"]

_KEPT = 1000


@dataclass(frozen=True)
class PlanRun:
    """The results that came under one plan, and the medians of its steps."""

    plan: Plan
    count: int
    steps: tuple[StepFigures, ...]


@dataclass(frozen=True)
class Summary:
    """count: results. seconds: from the first request to the last result. latency: median seconds of a request.

    again: results that needed more than one attempt.
    """

    count: int
    seconds: float
    latency: float
    again: int
    plans: tuple[PlanRun, ...]

    @property
    def rate(self) -> float:
        """Results per second."""
        return self.count / self.seconds if self.seconds else 0.0

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        plans = [
            {"plan": each.plan.describe(), "count": each.count, "steps": [asdict(step) for step in each.steps]}
            for each in self.plans
        ]
        own = {"count": self.count, "seconds": self.seconds, "rate": self.rate, "latency": self.latency}
        return {**own, "again": self.again, "plans": plans}


class Tally:
    """Adds results up in bounded memory: of each plan the steps of the last results are kept."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds = 0.0
        self._latencies: list[float] = []
        self._count = self._again = 0
        self._runs: dict[str, tuple[Plan, int, list[Sequence[Step]]]] = {}

    def add(self, result: Result) -> None:
        """Count one result."""
        self._seconds = time.monotonic() - self._began
        self._count += 1
        self._again += result.attempts > 1
        self._latencies = [*self._latencies[-_KEPT:], result.seconds]
        plan, count, steps = self._runs.get(result.plan.describe(), (result.plan, 0, []))
        self._runs[result.plan.describe()] = (plan, count + 1, [*steps[-_KEPT:], result.steps])

    def summary(self, source: str) -> Summary:
        """What it came to so far."""
        runs = tuple(PlanRun(plan, count, figures(plan, source, steps)) for plan, count, steps in self._runs.values())
        latency = median(self._latencies) if self._latencies else 0.0
        return Summary(self._count, self._seconds, latency, self._again, runs)
