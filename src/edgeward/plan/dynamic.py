"""The k best plans when costs add up: dynamic programming over (block, device).

    for assignment in k_best(problem, top=10):    # [n] device numbers, cheapest first

The recurrence is Scission's exact solver for any devices in any order, with k values per state and back-pointers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeward.plan.costs import Floats
from edgeward.plan.problem import Problem

__all__ = ["Assignment", "k_best"]

Assignment = npt.NDArray[np.int64]


def k_best(problem: Problem, top: int) -> list[Assignment]:
    """Up to `top` assignments of blocks to devices, cheapest first; fewer when there are no more.

    `problem` has one goal and no side constraints (`Problem.plain`). O(n R (R + top^2)) time.
    """
    count, size = problem.allowed.shape
    costs, may = problem.enter()
    best: Floats = np.full((size, top), np.inf)
    best[:, 0] = np.where(may, costs[0], np.inf)
    origin = np.zeros((count, size, top), np.int32)
    for block in range(1, count):
        added, ok = problem.step(block)
        best, origin[block] = _advance(best, np.where(ok, added[0], np.inf).T)
    costs, may = problem.leave()
    final = (best + np.where(may, costs[0], np.inf)[:, None]).ravel()
    order = np.argsort(final, kind="stable")[:top]
    return [_trace(origin, int(state)) for state in order if np.isfinite(final[state])]


def _advance(best: Floats, added: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The `top` cheapest ways into each device, unsorted, and from where (device * top + rank).

    best: [R, top] before the block. added: [R, R], from column to row. Only the `top` devices whose best value is
    smallest can be the origin of one of the `top` cheapest ways.
    """
    size, top = best.shape
    width = min(top, size)
    lowest = added + best.min(axis=1)
    rows = np.arange(size)[:, None]
    origins = np.argpartition(lowest, width - 1, axis=1)[:, :width]
    ways = (best[origins] + added[rows, origins][:, :, None]).reshape(size, width * top)
    chosen = np.argpartition(ways, top - 1, axis=1)[:, :top]
    return ways[rows, chosen], origins[rows, chosen // top] * top + chosen % top


def _trace(origin: npt.NDArray[np.int32], state: int) -> Assignment:
    count, _, top = origin.shape
    path = np.empty(count, np.int64)
    for block in range(count - 1, -1, -1):
        path[block] = state // top
        state = int(origin[block, state // top, state % top])
    return path
