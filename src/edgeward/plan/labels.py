"""Exact k-best and Pareto plans under side constraints: label setting with dominance.

    for assignment in k_best_labels(problem, top=5):    # [n] device numbers, cheapest first
    for assignment in pareto_labels(problem):           # none of them dominated

A label is a way of running blocks 0 to k: the last device, a key of what it has used, and its figures. One block is
one vectorised extension of all labels. A label is dropped
 * when no completion can keep a cap: a backward pass bounds what is still to come of every measure, or
 * when `top` labels of the same device and key have no figure larger: each of them completes to a plan no worse.
A capped figure so low that the cap cannot be reached any more is raised to that level, so that it no longer sets
labels apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeward.errors import PlanError
from edgeward.plan.costs import Bools, Floats
from edgeward.plan.dominance import undominated
from edgeward.plan.dynamic import Assignment
from edgeward.plan.problem import Measure, Problem

__all__ = ["MAX_LABELS", "TooManyLabelsError", "any_labels", "k_best_labels", "pareto_labels", "quick_labels"]

MAX_LABELS = 1_000_000
"""Most labels kept after one block."""

ROUNDING = 1e-11
"""What a sum of figures may be off, as a share of their size."""

Ints = npt.NDArray[np.int64]


def k_best_labels(problem: Problem, top: int, max_labels: int = MAX_LABELS) -> list[Assignment]:
    """Up to `top` assignments of blocks to devices that keep all constraints, cheapest first.

    Of a pipeline's assignments with equal bottleneck the goal decides. A quick pass that keeps few labels per
    device and key finds plans; the exact one then drops every label that cannot become cheaper than these. Raises
    TooManyLabelsError when more than `max_labels` incomparable ways remain.
    """
    ceiling = np.inf
    if problem.caps or problem.fits or problem.pipeline:
        quick = np.sort(_Search(problem, top, _Effort(width=top)).figures[:, -1])
        ceiling = quick[top - 1] * (1 + 1e-9) if len(quick) >= top else np.inf
    search = _Search(problem, top, _Effort(ceiling=ceiling, max_labels=max_labels))
    order = np.lexsort(search.figures.T)[:top]
    return [search.trace(int(label)) for label in order]


def any_labels(problem: Problem, max_labels: int = MAX_LABELS) -> Assignment | None:
    """Some assignment that keeps all constraints, or None when there is none. Raises as `k_best_labels`.

    A quick pass goes for small capped figures, each in units of its cap; the exact one minimises nothing.
    """
    zero, none = np.zeros_like(problem.costs.start), np.zeros_like(problem.costs.links.latency)
    toward = Measure(zero, zero, none, none)
    exact = replace(problem, goals=(toward,), pipeline=False)
    for cap in problem.caps:
        toward = toward.plus(cap.measure, 1 / max(cap.limit, 1e-9))
    quick = replace(exact, goals=(toward,))
    for attempt, effort in ((quick, _Effort(width=4)), (exact, _Effort(max_labels=max_labels))):
        search = _Search(attempt, 1, effort)
        if len(search.final):
            return search.trace(0)
    return None


def quick_labels(problem: Problem) -> Assignment | None:
    """A good assignment that keeps all constraints, or None when the quick pass finds none."""
    search = _Search(problem, 1, _Effort(width=4))
    return search.trace(int(np.lexsort(search.figures.T)[0])) if len(search.final) else None


def pareto_labels(problem: Problem) -> list[Assignment]:
    """Assignments none of which is dominated in the goals (and, for a pipeline, in its bottleneck).

    Of assignments with equal figures one is returned. Raises PlanError as `k_best_labels`.
    """
    search = _Search(problem, 1, _Effort())
    order = np.lexsort(search.figures.T[::-1])
    keep = undominated(np.zeros(len(order), np.int64), search.figures[order], 1)
    return [search.trace(int(label)) for label in order[keep]]


class TooManyLabelsError(PlanError):
    """Exact search would keep more labels than allowed."""


@dataclass(frozen=True)
class _Effort:
    """width: labels kept per device and key, None for all that matter. ceiling: what a plan may cost at most."""

    width: int | None = None
    ceiling: float = np.inf
    max_labels: int = MAX_LABELS


@dataclass(frozen=True)
class _Labels:
    """L labels. device, key, parent: [L]. figures: [L, c], smaller is better in every column."""

    device: Ints
    key: Ints
    parent: Ints
    figures: Floats

    def __getitem__(self, chosen: Bools | Ints) -> _Labels:
        return _Labels(self.device[chosen], self.key[chosen], self.parent[chosen], self.figures[chosen])


class _Search:
    """One run over a problem.

    Columns of a label's figures: the measures; a pipeline's bottleneck and open stage; weights and largest activations
    on each device of limited memory. Of the result `figures` [P, goals (+ 1)]: the goals, a pipeline's bottleneck.
    """

    def __init__(self, problem: Problem, top: int, effort: _Effort) -> None:
        self.problem, self.top, self.effort = problem, top, effort
        self.count, self.size = problem.allowed.shape
        self.limits = problem.limits
        if not problem.pipeline:
            self.limits[: len(problem.goals)] = effort.ceiling
        self.measures = len(self.limits)
        self.replicas = np.array([device.count for device in problem.costs.devices], np.float64)
        self.bits, self.visits, self.split = self._keys()
        self.least, self.most = self._bounds()
        self.layers: list[tuple[Ints, Ints]] = []
        labels = self._reduce(self._enter(), 0)
        for block in range(1, self.count):
            self.layers.append((labels.device, labels.parent))
            labels = self._reduce(self._extend(block, labels), block)
        self.layers.append((labels.device, labels.parent))
        self.final, self.figures = self._leave(labels)

    def trace(self, label: int) -> Assignment:
        """The devices of the blocks of a complete plan."""
        label = int(self.final[label])
        path = np.empty(self.count, np.int64)
        for block in range(self.count - 1, -1, -1):
            device, parent = self.layers[block]
            path[block], label = device[label], int(parent[label])
        return path

    def _keys(self) -> tuple[Ints, Ints, int]:
        """What a block on a device adds to the key: needs met and visits; and the bit of having used two devices."""
        problem = self.problem
        bits = np.zeros(self.size, np.int64)
        for number, need in enumerate(problem.needs):
            bits |= np.where(need, 1 << number, 0)
        split = len(problem.needs)
        visits = np.zeros(self.size, np.int64)
        if problem.once or problem.spread > 2:
            used = np.flatnonzero(problem.allowed.any(axis=0))
            if split + 1 + len(used) > 62:
                raise PlanError(
                    f"{len(used)} devices are too many to tell which were used (at most {61 - split}); "
                    "leave some out with 'avoid'"
                )
            visits[used] = np.int64(1) << (split + 1 + np.arange(len(used)))
        return bits | visits, visits, 1 << split if problem.spread == 2 else 0

    def _bounds(self) -> tuple[Floats, Floats]:
        """[n, m, R] the least and the most of each measure that can still follow; least is inf at dead ends."""
        least = np.empty((self.count, self.measures, self.size))
        most = np.empty_like(least)
        added, ok = self.problem.leave()
        least[-1], most[-1] = np.where(ok, added, np.inf), np.where(ok, added, -np.inf)
        for block in range(self.count - 1, 0, -1):
            added, ok = self.problem.step(block)
            least[block - 1] = np.where(ok, added + least[block][:, None, :], np.inf).min(axis=2)
            most[block - 1] = np.where(ok, added + most[block][:, None, :], -np.inf).max(axis=2)
        return least, most

    def _enter(self) -> _Labels:
        problem = self.problem
        added, ok = problem.enter()
        device = np.flatnonzero(ok)
        figures = np.zeros((len(device), self.measures + 2 * problem.pipeline + 2 * len(problem.fits)))
        figures[:, : self.measures] = added[:, device].T
        if problem.pipeline:
            figures[:, self.measures] = problem.occupied(0)[problem.costs.source, device]
            figures[:, self.measures + 1] = problem.costs.start[0, device] / self.replicas[device]
        self._fill(figures, device, 0)
        return _Labels(device, self.bits[device], np.full(len(device), -1), figures)

    def _extend(self, block: int, labels: _Labels) -> _Labels:
        """Every label with block `block` on every device that it may run on."""
        problem, measures = self.problem, self.measures
        added, ok = problem.step(block)
        grid = ok[labels.device]
        if problem.once:
            grid &= ((labels.key[:, None] & self.visits) == 0) | (labels.device[:, None] == np.arange(self.size))
        parent, device = np.nonzero(grid)
        before = labels.device[parent]
        left = before != device
        figures = labels.figures[parent]
        figures[:, :measures] += added[:, before, device].T
        if problem.pipeline:
            self._pipe(figures, block, before, device)
        self._fill(figures, device, block)
        key = labels.key[parent] | self.bits[device] | np.where(left, self.split, 0)
        return _Labels(device, key, parent, figures)

    def _pipe(self, figures: Floats, block: int, before: Ints, device: Ints) -> None:
        """A stage that is left, and the hop from it, enter the bottleneck; a new one opens."""
        costs, closed, opened = self.problem.costs, self.measures, self.measures + 1
        left = before != device
        ended = np.maximum(figures[:, opened], self.problem.occupied(block)[before, device])
        figures[:, closed] = np.where(left, np.maximum(figures[:, closed], ended), figures[:, closed])
        begun, more = (part[block, device] / self.replicas[device] for part in (costs.start, costs.inner))
        figures[:, opened] = np.where(left, begun, figures[:, opened] + more)

    def _fill(self, figures: Floats, device: Ints, block: int) -> None:
        """Weights and largest activations on devices of limited memory; one that was left for good is forgotten."""
        column, costs = figures.shape[1] - 2 * len(self.problem.fits), self.problem.costs
        for fit in self.problem.fits:
            here = device == fit.device
            if self.problem.once:
                figures[~here, column : column + 2] = 0.0
            figures[here, column] += costs.parameters[block]
            figures[here, column + 1] = np.maximum(figures[here, column + 1], costs.peak[block])
            column += 2

    def _reduce(self, labels: _Labels, block: int) -> _Labels:
        """The labels that can still complete to one of the plans asked for, in canonical order."""
        problem, figures = self.problem, labels.figures
        least = self.least[block][:, labels.device].T
        possible = ((figures[:, : self.measures] + least <= self.limits) & np.isfinite(least)).all(axis=1)
        column = figures.shape[1] - 2 * len(problem.fits)
        if problem.pipeline:
            possible &= (figures[:, self.measures : self.measures + 2] <= self.effort.ceiling).all(axis=1)
        for fit in problem.fits:
            possible &= figures[:, column] + figures[:, column + 1] <= fit.limit
            column += 2
        labels = labels[possible]
        goals = len(problem.goals)
        if self.measures > goals:
            limit, most = self.limits[goals:, None], self.most[block][goals:, labels.device]
            slack = limit - most - ROUNDING * (np.abs(limit) + np.abs(most))
            capped = labels.figures[:, goals : self.measures]
            np.maximum(capped, slack.T, out=capped)
        first = self.measures if problem.pipeline else 0
        order = np.lexsort((*np.roll(labels.figures.T, -first, axis=0)[::-1], labels.key, labels.device))
        labels = labels[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (labels.device[1:] != labels.device[:-1]) | (labels.key[1:] != labels.key[:-1])
        state = np.cumsum(new) - 1
        if self.effort.width is not None:
            return labels[np.arange(len(state)) - np.flatnonzero(new)[state] < self.effort.width]
        labels = labels[undominated(state, labels.figures, self.top)]
        if len(labels.device) > self.effort.max_labels:
            raise TooManyLabelsError(
                f"after block {block} more than {self.effort.max_labels} ways of running the model are incomparable; "
                "ask for fewer caps or criteria, or leave devices out with 'avoid'"
            )
        return labels

    def _leave(self, labels: _Labels) -> tuple[Ints, Floats]:
        """Which labels of the last layer are complete plans, and their figures."""
        problem, goals = self.problem, len(self.problem.goals)
        added, ok = problem.leave()
        figures = labels.figures[:, : self.measures] + added[:, labels.device].T
        wanted = (1 << len(problem.needs)) - 1
        complete = ok[labels.device] & (figures <= self.limits).all(axis=1) & (labels.key & wanted == wanted)
        if problem.spread == 2:
            complete &= labels.key & self.split > 0
        elif problem.spread > 2:
            complete &= np.bitwise_count(labels.key >> (len(problem.needs) + 1)) >= problem.spread
        figures = figures[:, :goals]
        if problem.pipeline:
            busy = labels.figures[:, self.measures : self.measures + 2].max(axis=1)
            if problem.returns:
                busy = np.maximum(busy, problem.occupied(self.count)[labels.device, problem.costs.source])
            figures = np.column_stack([figures, busy])
        return np.flatnonzero(complete), figures[complete]
