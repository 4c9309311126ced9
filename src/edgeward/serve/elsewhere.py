"""What the accuracies of a ladder are worth in other scenes than those it was calibrated on.

    selector = Selector.start(elsewhere(ladder), rules)

Which of several detectors comes out best on some pictures is partly luck of these pictures: elsewhere the best one is
rather worse than measured, the worst one rather better. What is measured is therefore drawn towards the mean, the more
the less rungs differ (an empirical Bayes estimate after Efron and Morris, "Data analysis using Stein's estimator and
its generalizations", JASA, 1975). Models that answer together, ONE+TWO, make up for each other, so that their figures
hold better.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, pvariance

from edgeward.serve.ladder import Ladder
from edgeward.serve.modelconfig import TOGETHER

__all__ = ["elsewhere"]

ALONE, FUSED = 0.07, 0.025
"""Standard deviation, in logarithms, by which a rung's accuracy in one scene differs from what others promised, less
what all rungs have in common: of single models, and of two together. Measured on thirds of PETS and TUD."""
LEAST = 0.01


def elsewhere(ladder: Ladder) -> Ladder:
    """The ladder with the accuracies to be expected of it in another scene."""
    logs = {rung.name: math.log(max(rung.mean, LEAST)) for rung in ladder.rungs}
    middle, spread = fmean(logs.values()), pvariance(logs.values())
    if not spread:
        return ladder
    rungs = []
    for rung in ladder.rungs:
        doubt = FUSED if TOGETHER in rung.name else ALONE
        factor = math.exp((middle - logs[rung.name]) * doubt**2 / (spread + doubt**2))
        rungs.append(replace(rung, accuracy=tuple(min(figure * factor, 1.0) for figure in rung.accuracy)))
    return replace(ladder, rungs=tuple(rungs))
