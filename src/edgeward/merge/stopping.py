"""When joint training looks again, when it is done, and when it gives a model up: pure decisions.

    loss_weight(0.9, 0.45)                                       # 1.682
    next_fraction({"a": 0.02}, {"a": 0.1})                       # 0.2 of an epoch until the next validation
    hopeless(((0.0, 0.3), (2.0, 0.31), (3.0, 0.32)), 0.9, 5)     # True

After Padmanabhan et al., "Gemel", NSDI 2023 (weights of tasks, early success, early failure).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

__all__ = ["FIRST_LIFT", "LEAST_FRACTION", "gap", "hopeless", "loss_weight", "next_fraction"]

FIRST_LIFT = 0.1
LEAST_FRACTION = 0.1
"""Of an epoch: validating more often would cost more than it saves."""

_HEAVIEST = 10.0
_PATIENCE = 2.0


def loss_weight(target: float, accuracy: float) -> float:
    """How heavily a model's loss counts: (target / accuracy) ** 0.75, at most 10."""
    return _HEAVIEST if accuracy <= 0 else float(min((target / accuracy) ** 0.75, _HEAVIEST))


def gap(target: float, accuracy: float) -> float:
    """What is missing to the target, as a share of it; 0 or less when it is met."""
    return 1 - accuracy / target


def next_fraction(gaps: Mapping[str, float], lifts: Mapping[str, float]) -> float:
    """The share of an epoch to train before the next validation: until the first unmet model may meet its target.

    gaps: of the unmet models, above 0. lifts: by how much each improved, as a share of its target, since the last
    validation (`FIRST_LIFT` before there is one); one that did not improve asks for a whole epoch.
    """
    wanted = [gaps[name] / lifts[name] if lifts[name] > 0 else 1.0 for name in gaps]
    return min(max(min(wanted, default=1.0), LEAST_FRACTION), 1.0)


def hopeless(course: Sequence[tuple[float, float]], target: float, epochs: float) -> bool:
    """Whether a model will not get there: its improvement, carried on to the last epoch, twice in a row falls short.

    course: (epochs trained, accuracy) at each validation, in order. Not before two epochs.
    """
    misses = 0
    for (before, low), (now, high) in pairwise(course):
        reached = high + (high - low) / (now - before) * (epochs - now)
        misses = misses + 1 if now >= _PATIENCE and reached < target else 0
    return misses >= 2
