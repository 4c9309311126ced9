"""Which of many vectors matter: those that fewer than k others of their group are at least as good as.

undominated(groups, figures, 1)               # of each group the Pareto front, of equal vectors the first
undominated(groups, figures, 5, kinds)        # all vectors of a kind count as one
"""

from __future__ import annotations

import numpy as np

from edgeward.plan.arrays import Bools, Floats, Ints

__all__ = ["undominated"]

CHUNK = 128
BATCH = 1 << 22


def undominated(groups: Ints, figures: Floats, top: int, kinds: Ints | None = None) -> Bools:
    """[L] whether fewer than `top` vectors of the same group are nowhere larger (of equal ones the earlier count).

    groups: [L] rising from 0 without gaps. figures: [L, c], within a group in lexicographic order, so that a vector
    is dominated only by earlier ones. kinds: [L] of dominators of one kind one counts, and a vector that another of its
    own kind dominates is not kept. Kept dominators suffice to count: each dropped vector has `top` of them.
    """
    if not len(groups):
        return np.zeros(0, np.bool_)
    if kinds is None or top == 1:
        return _fewer(groups, figures, top, None)
    # Without the first pass a vector could be counted against itself, through one of its own kind that it dominates
    # a dominator of.
    order = np.lexsort((np.arange(len(groups)), kinds, groups))
    new = (np.diff(groups[order], prepend=-1) != 0) | (np.diff(kinds[order], prepend=-1) != 0)
    keep = np.empty(len(groups), np.bool_)
    keep[order] = _fewer(np.cumsum(new) - 1, figures[order], 1, None)
    keep[keep] = _fewer(groups[keep], figures[keep], top, kinds[keep])
    return keep


def _fewer(groups: Ints, figures: Floats, top: int, kinds: Ints | None) -> Bools:
    """`undominated` where no vector dominates one of its own kind."""
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(groups)) - starts[groups]
    if figures.shape[1] <= 1 and kinds is None:
        return np.asarray(rank < top)
    keep = np.ones(len(groups), np.bool_)
    small = (sizes > top) & (sizes <= CHUNK)
    members = np.flatnonzero(small[groups])
    while len(members):
        row = np.cumsum(np.diff(groups[members], prepend=groups[members[0]]) > 0)
        width = int(rank[members].max()) + 1
        now = members[row < max(1, BATCH // width**2)]
        row, members = row[: len(now)], members[len(now) :]
        dense = np.full((figures.shape[1], int(row[-1]) + 1, width), np.inf)
        dense[:, row, rank[now]] = figures[now].T
        named = None
        if kinds is not None:
            named = np.full(dense.shape[1:], -1)
            named[row, rank[now]] = kinds[now]
        keep[now] = _earlier(dense, named)[row, rank[now]] < top
    for group in np.flatnonzero(sizes > CHUNK):
        part = slice(starts[group], starts[group] + sizes[group])
        keep[part] = _in_chunks(figures[part], top, None if kinds is None else kinds[part])
    return keep


def _in_chunks(figures: Floats, top: int, kinds: Ints | None) -> Bools:
    """One large group; a vector's dominators that were dropped have `top` kept ones that dominate it as well."""
    keep = np.zeros(len(figures), np.bool_)
    for start in range(0, len(figures), CHUNK):
        chunk = figures[start : start + CHUNK]
        before = figures[:start][keep[:start]]
        if kinds is not None:
            named = np.concatenate([kinds[:start][keep[:start]], kinds[start : start + CHUNK]])
            below = np.concatenate([_below(before, chunk), _below(chunk, chunk) & _triangle(len(chunk))])
            count = _distinct(below[None], named[None])[0]
        else:
            count = _earlier(chunk.T[:, None, :], None)[0]
            for part in range(0, len(before), BATCH // CHUNK):
                count = count + _below(before[part : part + BATCH // CHUNK], chunk).sum(axis=0)
        keep[start : start + CHUNK] = count < top
    return keep


def _below(one: Floats, other: Floats) -> Bools:
    """[A, B] which of one [A, c] are nowhere larger than which of the other [B, c]."""
    below = np.ones((len(one), len(other)), np.bool_)
    for column in range(one.shape[1]):
        below &= one[:, column, None] <= other[:, column]
    return below


def _triangle(width: int) -> Bools:
    return np.triu(np.ones((width, width), np.bool_), 1)


def _earlier(dense: Floats, kinds: Ints | None) -> Ints:
    """[G, W] how many earlier vectors, or kinds of them, of the same row dominate each; dense: [c, G, W]."""
    below = np.broadcast_to(_triangle(dense.shape[2]), (*dense.shape[1:], dense.shape[2])).copy()
    for column in dense:
        below &= column[:, :, None] <= column[:, None, :]
    return np.asarray(below.sum(axis=1)) if kinds is None else _distinct(below, kinds)


def _distinct(below: Bools, kinds: Ints) -> Ints:
    """[G, V] how many kinds [G, W] there are among the W that are below each of V; below: [G, W, V]."""
    count, width, wide = below.shape
    row = np.repeat(np.arange(count), width)
    order = np.lexsort((kinds.ravel(), row))
    kind = kinds.ravel()[order]
    new = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(kind, prepend=-2) != 0))
    some = np.logical_or.reduceat(below.reshape(-1, wide)[order], new, axis=0)
    first = np.searchsorted(row[new], np.arange(count))
    return np.asarray(np.add.reduceat(some.astype(np.int64), first, axis=0))
