"""What the accuracies of a ladder are worth in other scenes than those it was calibrated on.

    selector = Selector.start(elsewhere(ladder), rules)

Which of several detectors comes out best on some pictures is partly luck of these pictures: elsewhere the best one is
rather worse than measured, the worst one rather better. What is measured is therefore drawn towards what detectors that
take so long find as a rule, the more the less rungs differ from that rule (an empirical Bayes estimate after Efron and
Morris, "Data analysis using Stein's estimator and its generalizations", JASA, 1975; with a regression as in Fay and
Herriot, "Estimates of income for small places", JASA, 1979). Models that answer together or in turn make up for each
other: their figures hold better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeward.serve.ladder import Ladder
from edgeward.serve.modelconfig import members_of

__all__ = ["elsewhere"]

FloatArray = npt.NDArray[np.float64]
ALONE, FUSED = 0.07, 0.025
"""Standard deviation, in logarithms, by which a rung's accuracy in one scene differs from what others promised, less
what all rungs have in common: of single models, and of several. Measured on thirds of PETS and TUD."""
LEAST = 0.05
"""Of an accuracy: who finds less of a size does not see it at all."""


def elsewhere(ladder: Ladder) -> Ladder:
    """The ladder with the accuracies to be expected of it in another scene."""
    columns = [_drawn(figures, ladder) for figures in zip(*(rung.accuracy for rung in ladder.rungs), strict=True)]
    rows = zip(*columns, strict=True)
    return replace(
        ladder, rungs=tuple(replace(rung, accuracy=row) for rung, row in zip(ladder.rungs, rows, strict=True))
    )


def _drawn(figures: Sequence[float], ladder: Ladder) -> list[float]:
    """The accuracies of all rungs for one size, drawn towards the rule; those that find next to nothing stay."""
    finds = np.array(figures) > LEAST
    if finds.sum() < 2:
        return list(figures)
    logs = np.log(np.array(figures)[finds])
    rule = _rule(np.log([rung.seconds for rung in ladder.rungs])[finds], logs)
    spread = float(np.mean((logs - rule) ** 2))
    several = np.array([len(members_of(rung.name)) > 1 for rung in ladder.rungs])[finds]
    doubt = np.where(several, FUSED, ALONE)
    found = np.array(figures)
    found[finds] = np.minimum(np.exp(rule + spread / (spread + doubt**2) * (logs - rule)), 1.0)
    return [float(each) for each in found]


def _rule(seconds: FloatArray, logs: FloatArray) -> FloatArray:
    """What models that take so long find as a rule: a line through all, both axes in logarithms.

    Few rungs may lie on a slope by chance: it counts by how far it exceeds its own standard error, and never falls.
    """
    middle, away = logs.mean(), seconds - seconds.mean()
    square = float(away @ away)
    if len(logs) < 3 or not square:
        return np.full(len(logs), middle)
    slope = max(float(away @ logs) / square, 0.0)
    error = float(np.sum((logs - middle - slope * away) ** 2)) / (len(logs) - 2) / square
    return np.asarray(middle + (max(slope - error / slope, 0.0) if slope else 0.0) * away)
