"""What the accuracies of a ladder are worth in other scenes than those it was calibrated on.

    selector = Selector.start(elsewhere(ladder), rules)

Which of several detectors comes out best on some pictures is partly luck of these pictures: elsewhere the best one is
rather worse than measured, the worst one rather better. What is measured is therefore drawn towards what single
detectors that take so long find as a rule, the more the less they differ from that rule (an empirical Bayes estimate
after Efron and Morris, "Data analysis using Stein's estimator and its generalizations", JASA, 1975; towards a
regression as in Fay and Herriot, "Estimates of income for small places", JASA, 1979). Models that answer together or in
turn make up for each other: their figures hold better. Who is beaten in everything stays so.

How well boxes fit is taken to be the same for all rungs. It tells how long the ladder's boxes stay right on screen, but
hardly which rung's do so longest: by truth of PETS and TUD the same for all errs by 0.3 to 0.8 of what each one's own
does (`benchmarks/select/aging.py`).
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import numpy.typing as npt

from edgeward.serve.ladder import Ladder, beats
from edgeward.serve.modelconfig import members_of

__all__ = ["elsewhere"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ALONE, FUSED = 0.07, 0.025
"""Standard deviation, in logarithms, by which a rung's accuracy in one scene differs from what others promised, less
what all rungs have in common: of single models, and of several. Measured on thirds of PETS and TUD."""
TIMING = 0.05
"""The same of the seconds that are measured: what differs by less takes equally long."""
LEAST = 0.05
"""Of an accuracy: who finds less of a size does not see it at all."""


def elsewhere(ladder: Ladder) -> Ladder:
    """The ladder with the accuracies to be expected of it in another scene, and one fit of its boxes for all."""
    seconds = np.log([rung.seconds for rung in ladder.rungs])
    alone = np.array([len(members_of(rung.name)) == 1 for rung in ladder.rungs])
    columns = [_drawn(np.array(each), seconds, alone) for each in zip(*(r.accuracy for r in ladder.rungs), strict=True)]
    drawn = np.stack(columns, axis=1)
    best = [[beats(other, rung) for other in ladder.rungs] for rung in ladder.rungs]
    rows = [np.min(drawn[[*np.flatnonzero(better), place]], axis=0) for place, better in enumerate(best)]
    fit = fmean(rung.fit for rung in ladder.rungs)
    rungs = (replace(rung, accuracy=tuple(row.tolist()), fit=fit) for rung, row in zip(ladder.rungs, rows, strict=True))
    return replace(ladder, rungs=tuple(rungs))


def _drawn(figures: FloatArray, seconds: FloatArray, alone: BoolArray) -> FloatArray:
    """The accuracies of all rungs for one size, drawn towards the rule; those that find next to nothing stay.

    seconds: logarithms. alone: which rungs are single models; unless at least two of them find something, the rule is
    that of all rungs.
    """
    finds = figures > LEAST
    if finds.sum() < 2:
        return figures
    ruling = finds & alone if (finds & alone).sum() > 1 else finds
    logs = np.log(np.maximum(figures, LEAST))
    rule = _rule(logs[ruling], seconds[ruling], seconds)
    away, drawn = logs - rule, figures.copy()
    for kind, doubt in ((finds & alone, ALONE), (finds & ~alone, FUSED)):
        if kind.any():
            spread = float(np.mean(away[kind] ** 2))
            kept = spread / (spread + doubt**2)
            drawn[kind] = np.minimum(figures * np.exp((kept - 1) * away), 1.0)[kind]
    return drawn


def _rule(logs: FloatArray, seconds: FloatArray, wanted: FloatArray) -> FloatArray:
    """What models that take so long find as a rule, all in logarithms: a line through `logs` at `seconds`, at `wanted`.

    Few may lie on a slope by chance: the part of it that chance explains is taken off, and the rule never falls.
    """
    away, middle, count = seconds - seconds.mean(), logs.mean(), len(logs)
    square = float(away @ away) + count * TIMING**2
    slope = float(away @ (logs - middle)) / square
    if count < 3 or slope <= 0:
        return np.full(len(wanted), middle)
    residual = float(np.sum((logs - middle - slope * away) ** 2)) / (count - 2)
    chance = max(residual, ALONE**2) / square
    return np.asarray(middle + max(slope - chance / slope, 0.0) * (wanted - seconds.mean()))
