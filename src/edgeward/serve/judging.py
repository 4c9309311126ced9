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
from statistics import median
from types import MappingProxyType

import numpy as np

from edgeward.serve.certainty import certain, fitted
from edgeward.serve.fused import heard_from
from edgeward.serve.ladder import Rung
from edgeward.serve.modelconfig import TOGETHER, members_of
from edgeward.serve.sampling import Picture
from edgeward.serve.sizetable import fit_of, size_table, static_iou
from edgeward.units import format_seconds
from edgeward.vision.fusion import fused
from edgeward.vision.metrics.precision import found_objects
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth

__all__ = ["Findings", "Judge", "fused_rung", "worth_fusing"]

WORTH = 1.02
"""Times the accuracy of every model that takes no longer: less is hardly told from chance."""
ADVISED = 2
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

    def rung(self, name: str, found: Findings, seconds: float, load_seconds: float, tensors: Mapping[str, int]) -> Rung:
        """What a ladder says of a model that costs so much and found this. tensors: bytes in memory by tensor."""
        certainty = self._certainty(found.judged)
        shown = [self._shown(boxes, certainty) for boxes in found.judged]
        accuracy = size_table(dict(enumerate(shown)), self.truth, self.edges)
        if found.boxes is not found.judged:
            shown = [self._shown(boxes, certainty) for boxes in found.boxes]
        jitter, fit, held = static_iou(self._pairs(shown)), fit_of(shown, self.truth), sum(tensors.values())
        return Rung(name, accuracy, seconds, load_seconds, held, jitter, certainty, fit)

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
    """What several models, ONE+TWO, find together: they take as long as all of them, and the fusing of their boxes.

    Boxes too faint to have a say in the box that runs them have none here. tensors: bytes in memory of each model, by
    tensor.
    """
    members = [rungs[member] for member in members_of(name)]
    taken: list[float] = []
    floors = heard_from(judge.confidence, [member.certainty for member in members])

    def together(answers: Sequence[Sequence[Detections]]) -> list[Detections]:
        """What is found on each picture, from what each member found on it."""
        made = []
        for each in zip(*answers, strict=True):
            heard = [boxes[boxes.confidence >= floor] for boxes, floor in zip(each, floors, strict=True)]
            began = time.perf_counter()
            made.append(fused([certain(boxes, member.certainty) for boxes, member in zip(heard, members, strict=True)]))
            taken.append(time.perf_counter() - began)
        return made

    parts = [found[member.name] for member in members]
    judged = together([part.judged for part in parts])
    mirrored = any(part.judged is not part.boxes for part in parts)
    both = Findings(judged, together([part.boxes for part in parts]) if mirrored else judged)
    held = {tensor: size for member in members for tensor, size in tensors.get(member.name, {}).items()}
    seconds = sum(member.seconds for member in members) + median(taken)
    return judge.rung(name, both, seconds, sum(member.load_seconds for member in members), held)


def worth_fusing(
    judge: Judge,
    rungs: Mapping[str, Rung],
    found: Mapping[str, Findings],
    listed: Sequence[Rung],
    tensors: Mapping[str, Mapping[str, int]] = NOTHING,
    memory: int | None = None,
) -> tuple[str, ...]:
    """Which two models together would find more than any rung that takes no longer, in words; the best ones.

    rungs: of the models. listed: rungs of several that the ladder has. tensors: bytes of each model, by tensor.
    memory: bytes that a rung may hold; None for any.
    """
    have = [*rungs.values(), *listed]
    known = {frozenset(members_of(rung.name)) for rung in listed}
    pairs = [pair for pair in itertools.combinations(rungs, 2) if frozenset(pair) not in known]
    gains = []
    for pair in pairs:
        rung = fused_rung(TOGETHER.join(pair), judge, rungs, found, tensors)
        if memory is not None and rung.bytes > memory:
            continue
        rival = max((other for other in have if other.seconds <= rung.seconds), key=lambda other: other.mean)
        if rung.mean > WORTH * rival.mean:
            gains.append((rung.mean - rival.mean, rung, rival))
    return tuple(
        f"{rung.name!r} would be better than {rival.name!r}: a mean of {rung.mean:.3f}, not {rival.mean:.3f}, in "
        f"{format_seconds(rung.seconds)} a frame; list it among the ladder's models to have it"
        for _, rung, rival in sorted(gains, key=lambda each: -each[0])[:ADVISED]
    )
