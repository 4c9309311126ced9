"""What the accuracies of a ladder are worth in other scenes than those it was calibrated on.

    selector = Selector.start(elsewhere(ladder), rules)

Which of several detectors comes out best on some pictures is partly luck of these pictures: elsewhere the best one is
rather worse than measured, the worst one rather better. What is measured is therefore drawn towards the mean, the more
the less rungs differ (an empirical Bayes estimate after Efron and Morris, "Data analysis using Stein's estimator and
its generalizations", JASA, 1975). Models that answer together or in turn make up for each other: their
figures hold better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, pvariance

from edgeward.serve.ladder import Ladder
from edgeward.serve.modelconfig import members_of

__all__ = ["elsewhere"]

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
    """The accuracies of all rungs for one size, drawn towards their mean; those that find next to nothing stay."""
    logs = [math.log(figure) for figure in figures if figure > LEAST]
    if len(logs) < 2 or not (spread := pvariance(logs)):
        return list(figures)
    middle, found = fmean(logs), []
    for figure, rung in zip(figures, ladder.rungs, strict=True):
        doubt = FUSED if len(members_of(rung.name)) > 1 else ALONE
        kept = spread / (spread + doubt**2)
        drawn = math.exp(middle + kept * (math.log(figure) - middle)) if figure > LEAST else figure
        found.append(min(drawn, 1.0))
    return found
