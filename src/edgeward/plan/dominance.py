"""Which of many vectors matter: those that fewer than k others of their group are at least as good as.

undominated(groups, figures, 1)      # of each group the Pareto front, of equal vectors the first
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeward.plan.costs import Bools, Floats

__all__ = ["undominated"]

CHUNK = 128
BATCH = 1 << 22

Ints = npt.NDArray[np.int64]


def undominated(groups: Ints, figures: Floats, top: int) -> Bools:
    """[L] whether fewer than `top` vectors of the same group are nowhere larger (of equal ones the earlier count).

    groups: [L] rising from 0 without gaps. figures: [L, c], within a group in lexicographic order, so that a vector
    is dominated only by earlier ones.
    """
    if not len(groups):
        return np.zeros(0, np.bool_)
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(groups)) - starts[groups]
    if figures.shape[1] <= 1:
        return np.asarray(rank < top)
    keep = np.ones(len(groups), np.bool_)
    small = (sizes > top) & (sizes <= CHUNK)
    _padded(np.flatnonzero(small[groups]), groups, rank, figures, top, keep)
    for group in np.flatnonzero(sizes > CHUNK):
        part = slice(starts[group], starts[group] + sizes[group])
        keep[part] = _in_chunks(figures[part], top)
    return keep


def _padded(members: Ints, groups: Ints, rank: Ints, figures: Floats, top: int, keep: Bools) -> None:
    """All of the groups with at most CHUNK vectors, side by side, as many at once as fit a few megabytes."""
    while len(members):
        row = np.cumsum(np.diff(groups[members], prepend=groups[members[0]]) > 0)
        width = int(rank[members].max()) + 1
        now = members[row < max(1, BATCH // width**2)]
        row, members = row[: len(now)], members[len(now) :]
        dense = np.full((figures.shape[1], int(row[-1]) + 1, width), np.inf)
        dense[:, row, rank[now]] = figures[now].T
        keep[now] = _earlier(dense)[row, rank[now]] < top


def _in_chunks(figures: Floats, top: int) -> Bools:
    """One large group; a vector's dominators that were dropped have `top` kept ones that dominate it as well."""
    keep = np.zeros(len(figures), np.bool_)
    for start in range(0, len(figures), CHUNK):
        chunk = figures[start : start + CHUNK]
        before = figures[:start][keep[:start]]
        count = _earlier(chunk.T[:, None, :])[0]
        for part in range(0, len(before), BATCH // CHUNK):
            below = np.ones((len(before[part : part + BATCH // CHUNK]), len(chunk)), np.bool_)
            for column in range(figures.shape[1]):
                below &= before[part : part + BATCH // CHUNK, column, None] <= chunk[:, column]
            count = count + below.sum(axis=0)
        keep[start : start + CHUNK] = count < top
    return keep


def _earlier(dense: Floats) -> Ints:
    """[G, W] how many earlier vectors of the same row dominate each; dense: [c, G, W]."""
    width = dense.shape[2]
    below = np.broadcast_to(np.triu(np.ones((width, width), np.bool_), 1), (dense.shape[1], width, width)).copy()
    for column in dense:
        below &= column[:, :, None] <= column[:, None, :]
    return np.asarray(below.sum(axis=1))
