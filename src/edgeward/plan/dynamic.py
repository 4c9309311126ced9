"""The k best plans when costs add up: dynamic programming over (block, device).

    for way in k_best(problem, top=10):    # cheapest first

The recurrence is Scission's exact solver for any devices in any order, with k values per state and back-pointers. Where
a hop has packings to choose, the cheapest for its boundary and devices is part of every best plan with that hop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeward.plan.arrays import Floats, Ints, Way
from edgeward.plan.options import Moves
from edgeward.plan.problem import Problem

__all__ = ["k_best"]


def k_best(problem: Problem, top: int) -> list[Way]:
    """Up to `top` ways, cheapest first, no two on the same devices; fewer when there are no more.

    `problem` has one goal and no side constraints (`Problem.plain`). O(n R (R (P + 1) + top^2)) time.
    """
    count, size = problem.allowed.shape
    added, entered = _cheapest(problem.enter())
    best: Floats = np.full((size, top), np.inf)
    best[:, 0] = added[0]
    origin = np.zeros((count, size, top), np.int32)
    choices = [entered]
    for block in range(1, count):
        added, chosen = _cheapest(problem.step(block))
        best, origin[block] = _advance(best, added.T)
        choices.append(chosen)
    added, chosen = _cheapest(problem.leave())
    choices.append(chosen)
    final = (best + added).ravel()
    order = np.argsort(final, kind="stable")[:top]
    paths = [_trace(origin, int(state)) for state in order if np.isfinite(final[state])]
    return [Way(path, _packings(path, choices)) for path in paths]


def _cheapest(moves: Moves) -> tuple[Floats, Ints | None]:
    """[R, R] the least cost of each hop, inf where there is none, and the packing that has it (None for always 0)."""
    costs: Floats = np.where(moves.ok, moves.added[:, 0], np.inf)
    if len(costs) == 1:
        return costs[0], None
    chosen = costs.argmin(axis=0)
    return np.take_along_axis(costs, chosen[None], axis=0)[0], moves.option[chosen]


def _packings(path: Ints, choices: list[Ints | None]) -> Ints:
    """The packing at every boundary of a path; the source is the only row of the first and column of the last."""
    rows, columns = [0, *path.tolist()], [*path.tolist(), 0]
    ends = zip(choices, rows, columns, strict=True)
    return np.array([0 if chosen is None else chosen[row, column] for chosen, row, column in ends])


def _advance(best: Floats, added: Floats) -> tuple[Floats, Ints]:
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


def _trace(origin: npt.NDArray[np.int32], state: int) -> Ints:
    count, _, top = origin.shape
    path = np.empty(count, np.int64)
    for block in range(count - 1, -1, -1):
        path[block] = state // top
        state = int(origin[block, state // top, state % top])
    return path
