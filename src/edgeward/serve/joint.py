"""Which model each camera gets when one processor serves them all in turn.

    assignment = assign({"gate": gate, "yard": yard}, now, memory=256 << 20)     # a Selector for each camera
    print(assignment.names["gate"], assignment.total, assignment.reason)

The choice maximises the sum of what is on screen (see `edgeward.serve.combinations`); up to LIMIT combinations are all
tried, beyond that a greedy search changes one or two cameras at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edgeward.errors import BudgetError
from edgeward.serve.combinations import Combinations, IntArray
from edgeward.serve.selection import Selector
from edgeward.units import format_bytes

__all__ = ["LIMIT", "Assignment", "assign", "exact", "greedy"]

LIMIT = 4096


@dataclass(frozen=True)
class Assignment:
    """names: of the model for each camera. total: sum of average precisions on screen. cycle: seconds of one turn."""

    names: Mapping[str, str]
    total: float
    cycle: float
    reason: str


def assign(
    cameras: Mapping[str, Selector], now: float, memory: int | None = None, resident: Collection[str] | None = None
) -> Assignment:
    """The models that are together the most accurate on screen.

    memory: bytes for all models together, None for no limit. resident: models in memory, which need no load; None:
    loads cost nothing. A camera whose model has not run for its dwell keeps it, and a change has to gain, all cameras
    together, the margins of those whose models it changes and what their loads take.

    Raises ConfigError without cameras, BudgetError when no combination fits in memory.
    """
    problem = Combinations(cameras, now, memory)
    charged = problem.charge(resident)
    best = _exact(problem) if problem.count <= LIMIT else _greedy(problem)
    how = f"the best {'of all' if problem.count <= LIMIT else 'found of'} {problem.count} combinations"
    if charged:
        how += ", less what changes cost"
    before, after = problem.totals(np.concatenate([problem.held, best]))
    best = problem.held if before >= after else best
    return _assignment(problem, best, how)


def exact(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """The best of all combinations, however many. Raises as `assign` does."""
    problem = Combinations(cameras, now, memory)
    return _assignment(problem, _exact(problem), "the best of all combinations")


def greedy(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """A combination that no change of one or two cameras improves. Raises as `assign` does."""
    problem = Combinations(cameras, now, memory)
    return _assignment(problem, _greedy(problem), "no change of two cameras improves it")


def _exact(problem: Combinations) -> IntArray:
    rows = problem.every()
    return rows[[problem.totals(rows).argmax()]]


def _greedy(problem: Combinations) -> IntArray:
    """Climbs from what the cameras have, from every model for all of them, and from the fastest of each."""
    starts = [problem.held, problem.row(problem.quickest)] + [
        problem.row(
            name if name in options else quick for options, quick in zip(problem.options, problem.quickest, strict=True)
        )
        for name in sorted({name for options in problem.options for name in options})
    ]
    ends = np.concatenate([_climbed(problem, row) for row in starts])
    return ends[[problem.totals(ends).argmax()]]


def _climbed(problem: Combinations, row: IntArray) -> IntArray:
    total = problem.totals(row)[0]
    while True:
        near = _neighbours(problem, row)
        totals = problem.totals(near)
        best = int(totals.argmax())
        if totals[best] <= total:
            return row
        row, total = near[[best]], totals[best]


def _neighbours(problem: Combinations, row: IntArray) -> IntArray:
    """The combination itself, and all that differ in one or two cameras."""
    found, places = [row], range(len(problem.options))
    for changed in itertools.chain(((place,) for place in places), itertools.combinations(places, 2)):
        grid = np.meshgrid(*(np.arange(len(problem.options[place])) for place in changed), indexing="ij")
        rows = np.repeat(row, grid[0].size, axis=0)
        rows[:, list(changed)] = np.stack([axis.ravel() for axis in grid], axis=1)
        found.append(rows)
    return np.concatenate(found)


def _assignment(problem: Combinations, row: IntArray, how: str) -> Assignment:
    total = float(problem.values(row).sum())
    if problem.totals(row)[0] == -math.inf:
        raise BudgetError(
            f"no combination of models fits in {format_bytes(problem.memory or 0)}; the one found needs "
            f"{format_bytes(int(problem.bytes(row)[0]))}; raise the memory or take models off the ladders"
        )
    cycle = problem.turn(row)
    reason = f"{how}: {total / len(problem.names):.3f} on average, each camera every {1000 * cycle:.0f} ms"
    names = {name: options[place] for name, options, place in zip(problem.names, problem.options, row[0], strict=True)}
    return Assignment(MappingProxyType(names), total, cycle, reason)
