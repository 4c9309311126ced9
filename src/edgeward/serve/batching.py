"""How many frames a model takes at a visit when models take turns in memory. Pure.

    batch_sizes((Turn(40_000_000, ((1, 5), (2, 9)), 60.0), Turn(40_000_000, ((1, 5),), 30.0)))      # (2, 1)

A cycle of turns is as long as all loads and all inferences in it. A larger batch serves more of a model's own frames
in each cycle and makes the cycle longer for all others: the sizes are those that serve the worst off best, then the
second worst, and so on (max-min fairness; after the batch vector of Gemel's scheduler, NSDI 2023).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeward.clock import NS
from edgeward.serve.state import ModelState, State, union_bytes

__all__ = ["Turn", "batch_sizes", "expected_ns", "served", "taking_turns"]

EXHAUSTIVE = 64
"""Vectors up to which all are compared; beyond that only the worst off is sure to be served best."""


@dataclass(frozen=True)
class Turn:
    """A model's visit: nanoseconds of its load, of an inference by batch size (rising), frames that come a second."""

    load_ns: int
    infer_ns: tuple[tuple[int, int], ...]
    rate: float


def batch_sizes(turns: Sequence[Turn]) -> tuple[int, ...]:
    """Each model's batch size, of those that it has costs for; the smaller one where it makes no difference."""
    sizes = [[size for size, _ in turn.infer_ns] for turn in turns]
    if math.prod(len(each) for each in sizes) <= EXHAUSTIVE:
        vectors = itertools.product(*sizes)
        return max(vectors, key=lambda batches: (sorted(served(turns, batches)), [-size for size in batches]))
    # The worst off cannot be served better than by the smallest batches that keep up with it: one vector for each
    # frame rate per batch that somebody could be the worst at.
    paces = {size / turn.rate for turn in turns if turn.rate > 0 for size, _ in turn.infer_ns}
    slowest = (
        tuple(
            next((size for size in each if turn.rate <= 0 or size / turn.rate >= pace), each[-1])
            for each, turn in zip(sizes, turns, strict=True)
        )
        for pace in sorted(paces)
    )
    smallest = tuple(each[0] for each in sizes)
    return max(slowest, key=lambda batches: sorted(served(turns, batches)), default=smallest)


def served(turns: Sequence[Turn], batches: Sequence[int]) -> tuple[float, ...]:
    """Share of each model's frames that a cycle with these batches answers, 1 at most."""
    cycle = math.fsum(turn.load_ns + dict(turn.infer_ns)[size] for turn, size in zip(turns, batches, strict=True)) / NS
    return tuple(
        min(size / (turn.rate * cycle), 1.0) if turn.rate * cycle > 0 else 1.0
        for turn, size in zip(turns, batches, strict=True)
    )


def taking_turns(state: State, name: str) -> int | None:
    """How many pictures a model should take now, None when all models in charge fit into memory together."""
    charged = {query.model for query in state.queries.values()}
    models = {key: model for key, model in state.models.items() if key in charged}
    if name not in models or union_bytes(model.spec for model in models.values()) <= state.budget_bytes:
        return None
    turns = {key: turn for key, model in models.items() if (turn := _turn(state, model)) is not None}
    return dict(zip(turns, batch_sizes(list(turns.values())), strict=True)).get(name)


def expected_ns(model: ModelState, batch: int) -> int | None:
    """Estimated cost of a batch: as measured, else in proportion to the nearest smaller measured one."""
    if batch in model.infer_ns:
        return model.infer_ns[batch]
    smaller = [size for size in model.infer_ns if size < batch]
    return model.infer_ns[max(smaller)] * batch // max(smaller) if smaller else None


def _turn(state: State, model: ModelState) -> Turn | None:
    """None when nothing was measured yet. A larger batch is never taken to cost less than a smaller one."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= model.spec.max_batch]
    costs = [(size, cost) for size in sizes if (cost := expected_ns(model, size)) is not None]
    if not costs:
        return None
    rising = itertools.accumulate((cost for _, cost in costs), max)
    rate = 0.0
    for query in state.queries.values():
        if query.model == model.spec.name:
            period_ns = max(query.spec.period_ns, state.cameras[query.spec.camera].period_ns)
            rate += NS / period_ns if period_ns else 0.0
    return Turn(model.load_ns, tuple((size, cost) for (size, _), cost in zip(costs, rising, strict=True)), rate)
