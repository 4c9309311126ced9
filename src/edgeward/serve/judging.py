"""What models found on pictures, judged by truth: the figures of a ladder's rungs, of several models together, too.

judge = Judge(truth, pictures, edges, confidence=0.3)
found = {"nano": Findings(boxes, boxes), "center": Findings(others, others)}
rungs = {name: judge.rung(name, each, seconds=0.03, load_seconds=0.1, tensors={}) for name, each in found.items()}
both = fused_rung("nano+center", judge, rungs, found)
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from types import MappingProxyType

import numpy as np

from edgeward.serve.certainty import certain, fitted
from edgeward.serve.fused import heard_from
from edgeward.serve.ladder import Rung
from edgeward.serve.modelconfig import IN_TURN, TOGETHER, looks_of, members_of
from edgeward.serve.sampling import Picture
from edgeward.serve.sizetable import fit_of, size_table, static_iou
from edgeward.units import format_seconds
from edgeward.vision.fusion import fused, fused_in_turn
from edgeward.vision.metrics.precision import found_objects
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth

__all__ = ["Findings", "Judge", "fused_rung", "worth_fusing"]

WORTH = 1.02
"""Times the accuracy of every model that takes no longer: less is hardly told from chance."""
ADVISED = 2
"""Pairs of each kind."""
NOTHING: Mapping[str, Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Findings:
    """What a model found on each picture, in shares of the frame.

    judged: what its accuracy is told from; of a reference that stands for the truth what it found on mirrored pictures.
    """

    judged: Sequence[Detections]
    boxes: Sequence[Detections]


@dataclass(frozen=True, eq=False)
class Judge:
    """The truth of pictures, the bounds of size bins, and the least certainty of a box that counts."""

    truth: Truth
    pictures: tuple[Picture, ...]
    edges: tuple[float, ...]
    confidence: float

    def rung(
        self,
        name: str,
        found: Findings,
        seconds: float | tuple[float, ...],
        load_seconds: float,
        tensors: Mapping[str, int],
    ) -> Rung:
        """What a ladder says of a model that costs so much and found this.

        seconds: of models in turn those of each. tensors: bytes in memory by tensor.
        """
        certainty = self._certainty(found.judged)
        shown = [self._shown(boxes, certainty) for boxes in found.judged]
        accuracy = size_table(dict(enumerate(shown)), self.truth, self.edges)
        if found.boxes is not found.judged:
            shown = [self._shown(boxes, certainty) for boxes in found.boxes]
        jitter, fit, held = static_iou(self._pairs(shown)), fit_of(shown, self.truth), sum(tensors.values())
        parts = seconds if isinstance(seconds, tuple) else ()
        mean = fmean(seconds) if isinstance(seconds, tuple) else seconds
        return Rung(name, accuracy, mean, load_seconds, held, jitter, certainty, fit, parts)

    def _certainty(self, boxes: Sequence[Detections]) -> tuple[float, float]:
        """What makes a model's scores probabilities that a box is right."""
        scores, right = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
        for frame, found in enumerate(boxes):
            hit, counted = found_objects(found, self.truth.at(frame))
            scores.append(found.confidence[counted])
            right.append(hit[counted])
        return fitted(np.concatenate(scores), np.concatenate(right))

    def _shown(self, boxes: Detections, certainty: tuple[float, float]) -> Detections:
        """What a box would show of a model's answer."""
        sure = certain(boxes, certainty)
        return sure[sure.confidence >= self.confidence]

    def _pairs(self, shown: Sequence[Detections]) -> list[tuple[Detections, Detections]]:
        """What was found in frames that follow each other."""
        return [
            (shown[place], shown[place + 1])
            for place, (one, two) in enumerate(itertools.pairwise(self.pictures))
            if one.video == two.video and two.index == one.index + 1
        ]


def fused_rung(
    name: str,
    judge: Judge,
    rungs: Mapping[str, Rung],
    found: Mapping[str, Findings],
    tensors: Mapping[str, Mapping[str, int]] = NOTHING,
) -> Rung:
    """What several models find together, ONE+TWO, or in turn, ONE~TWO.

    Together they take as long as all of them, in turn as long as one of them on average, and the fusing of their boxes.
    In turn they find the same, but a part of it is older when it is shown (see `edgeward.serve.selection`).
    Boxes too faint to have a say in the box that runs them have none here. tensors: bytes in memory of each model, by
    tensor.
    """
    members = [rungs[member] for member in members_of(name)]
    taken: list[float] = []
    turns = looks_of(name)
    floors = heard_from(judge.confidence, [member.certainty for member in members])

    def together(answers: Sequence[Sequence[Detections]]) -> list[Detections]:
        """What is found on each picture, from what each member found on it."""
        made: list[Detections] = []
        for each in zip(*answers, strict=True):
            heard = [boxes[boxes.confidence >= floor] for boxes, floor in zip(each, floors, strict=True)]
            began = time.perf_counter()
            sure = [certain(boxes, member.certainty) for boxes, member in zip(heard, members, strict=True)]
            newest = len(made) % turns
            made.append(fused(sure) if turns == 1 else fused_in_turn([*sure[newest:], *sure[:newest]]))
            taken.append(time.perf_counter() - began)
        return made

    parts = [found[member.name] for member in members]
    judged = together([part.judged for part in parts])
    mirrored = any(part.judged is not part.boxes for part in parts)
    both = Findings(judged, together([part.boxes for part in parts]) if mirrored else judged)
    held = {tensor: size for member in members for tensor, size in tensors.get(member.name, {}).items()}
    loads, fusing = sum(member.load_seconds for member in members), median(taken)
    together_seconds = sum(member.seconds for member in members) + fusing
    in_turn = tuple(member.seconds + fusing for member in members)
    return judge.rung(name, both, in_turn if turns > 1 else together_seconds, loads, held)


def worth_fusing(
    judge: Judge,
    rungs: Mapping[str, Rung],
    found: Mapping[str, Findings],
    listed: Sequence[Rung],
    tensors: Mapping[str, Mapping[str, int]] = NOTHING,
    memory: int | None = None,
) -> tuple[str, ...]:
    """Which two models together or in turn would find more than any rung that takes no longer, in words; the best.

    rungs: of the models. listed: rungs of several that the ladder has. tensors: bytes of each model, by tensor.
    memory: bytes that a rung may hold; None for any.
    """
    known = {(looks_of(rung.name), frozenset(members_of(rung.name))) for rung in listed}
    said: list[str] = []
    for mark, condition in ((TOGETHER, ""), (IN_TURN, ", as long as objects move little from one frame to the next")):
        names = [mark.join(pair) for pair in itertools.combinations(rungs, 2)]
        unknown = [name for name in names if (looks_of(name), frozenset(members_of(name))) not in known]
        made = [fused_rung(name, judge, rungs, found, tensors) for name in unknown]
        fitting = [rung for rung in made if memory is None or rung.bytes <= memory]
        said += [
            f"{rung.name!r} would be better than {rival.name!r}: a mean of {rung.mean:.3f}, not {rival.mean:.3f}, in "
            f"{format_seconds(rung.seconds)} a frame{condition}; list it among the ladder's models to have it"
            for rung, rival in _worth([*rungs.values(), *listed], fitting)
        ]
    return tuple(said)


def _worth(have: Sequence[Rung], offered: Sequence[Rung]) -> list[tuple[Rung, Rung]]:
    """Of the rungs on offer the best ones, one after another, each with the best that takes no longer."""
    found: list[tuple[Rung, Rung]] = []
    while len(found) < ADVISED:
        with_found = [*have, *(rung for rung, _ in found)]
        rivals = [
            (rung, max((each for each in with_found if each.seconds <= rung.seconds), key=lambda each: each.mean))
            for rung in offered
        ]
        better = [(rung, rival) for rung, rival in rivals if rung.mean > WORTH * rival.mean]
        if not better:
            break
        found.append(max(better, key=lambda each: (each[0].mean - each[1].mean, -each[0].seconds)))
    return found
