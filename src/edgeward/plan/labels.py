"""Exact k-best and Pareto plans under side constraints: label setting with dominance.

    for way in k_best_labels(problem, top=5):    # cheapest first
    for way in pareto_labels(problem):           # none of them dominated

A label is a way of running blocks 0 to k, see `edgeward.plan.search`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeward.plan.arrays import Way
from edgeward.plan.dominance import undominated
from edgeward.plan.problem import Measure, Problem
from edgeward.plan.search import MAX_LABELS, Effort, Search, TooManyLabelsError

__all__ = ["MAX_LABELS", "TooManyLabelsError", "any_labels", "k_best_labels", "pareto_labels", "quick_labels"]


def k_best_labels(problem: Problem, top: int, max_labels: int = MAX_LABELS) -> list[Way]:
    """Up to `top` ways that keep all constraints, cheapest first, no two on the same devices.

    Of a pipeline's ways with equal bottleneck the goal decides. A quick pass that keeps few labels per device and key
    finds plans; the exact one then drops every label that cannot become cheaper than these. Raises TooManyLabelsError
    when more than `max_labels` incomparable ways remain.
    """
    ceiling = np.inf
    if problem.caps or problem.fits or problem.pipeline:
        quick = Search(problem, top, Effort(width=4 * top if problem.packed else top))
        if len(chosen := quick.ranked(top)) == top:
            ceiling = float(np.sort(quick.figures[chosen, -1])[-1]) * (1 + 1e-9)
    search = Search(problem, top, Effort(ceiling=ceiling, max_labels=max_labels))
    return [search.trace(label) for label in search.ranked(top)]


def any_labels(problem: Problem, max_labels: int = MAX_LABELS) -> Way | None:
    """Some way that keeps all constraints, or None when there is none. Raises as `k_best_labels`.

    A quick pass goes for small capped figures, each in units of its cap; the exact one minimises nothing.
    """
    toward = Measure.nothing(problem.costs)
    exact = replace(problem, goals=(toward,), pipeline=False)
    for cap in problem.caps:
        toward = toward.plus(cap.measure, 1 / max(cap.limit, 1e-9))
    quick = replace(exact, goals=(toward,))
    for attempt, effort in ((quick, Effort(width=4)), (exact, Effort(max_labels=max_labels))):
        search = Search(attempt, 1, effort)
        if len(search.figures):
            return search.trace(0)
    return None


def quick_labels(problem: Problem) -> Way | None:
    """A good way that keeps all constraints, or None when the quick pass finds none."""
    search = Search(problem, 1, Effort(width=4))
    return next((search.trace(label) for label in search.ranked(1)), None)


def pareto_labels(problem: Problem) -> list[Way]:
    """Ways none of which is dominated in the goals (and, for a pipeline, in its bottleneck).

    Of ways with equal figures one is returned. Raises PlanError as `k_best_labels`.
    """
    search = Search(problem, 1, Effort())
    order = np.lexsort(search.figures.T[::-1])
    keep = undominated(np.zeros(len(order), np.int64), search.figures[order], 1)
    return [search.trace(int(label)) for label in order[keep]]
