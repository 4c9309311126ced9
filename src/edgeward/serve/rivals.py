"""Other ways to choose a model at run time, to compare with.

    chooser = Thresholds(names=("small", "medium", "large"), least=(0.2, 0.1), width=1920, height=1080)
    name = chooser.choice(now).name

TOD (Lee, Varghese, Woods, Vandierendonck, arXiv 2105.08668) sets thresholds on the median size of boxes, for one device
and load. Chameleon (Jiang et al., SIGCOMM 2018, section 3) profiles all configurations from time to time against the
most accurate one and takes the cheapest that agrees well enough.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from edgeward.errors import ConfigError
from edgeward.serve.choice import Answer, Choice, Chooser, Look
from edgeward.serve.sizes import sizes
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections

__all__ = ["Fixed", "Oracle", "Periodic", "Random", "RoundRobin", "Thresholds", "agreement"]


@dataclass(frozen=True)
class Fixed(Chooser):
    """One model for ever."""

    name: str
    kind: Literal["fixed"] = "fixed"

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        return Choice(self.name, "it is the only one")


@dataclass(frozen=True)
class Thresholds(Chooser):
    """TOD's rule: the smaller the median box, the larger the model; the largest when no box is seen.

    names: smallest model first. least: least median relative size for each but the last, falling. confidence: least
    score of a box that counts. median: of the newest answer, None when it had no box.
    """

    names: tuple[str, ...]
    least: tuple[float, ...]
    width: int
    height: int
    confidence: float = 0.35
    median: float | None = None
    kind: Literal["thresholds"] = "thresholds"

    def __post_init__(self) -> None:
        sound = list(self.least) == sorted(self.least, reverse=True) and all(0 <= each <= 1 for each in self.least)
        if len(self.least) != len(self.names) - 1 or not sound:
            raise ConfigError(
                f"{len(self.names)} models need {len(self.names) - 1} falling thresholds from 1 to 0, not {self.least}"
            )

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        if self.median is None:
            return Choice(self.names[-1], f"{self.names[-1]!r} as no box is seen")
        passed = (name for name, least in zip(self.names, self.least, strict=False) if self.median >= least)
        name = next(passed, self.names[-1])
        return Choice(name, f"{name!r} as the median box has size {self.median:.3g}")

    def looking(self, look: Look) -> Self:
        return replace(self, width=look.width, height=look.height)

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        found = sizes(result.boxes[result.boxes.confidence >= self.confidence], self.width, self.height)
        return replace(self, median=float(np.median(found)) if len(found) else None)


@dataclass(frozen=True)
class Periodic(Chooser):
    """Chameleon's rule: every `period` seconds all models answer one frame; the cheapest that agrees is kept.

    names: cheapest first, the last is the reference. target: least agreement (F1 at an IoU of 0.5). current, compared:
    the model kept and when; answers: of the comparison under way, None when there is none.
    """

    names: tuple[str, ...]
    period: float = 4.0
    target: float = 0.8
    confidence: float = 0.35
    current: str = ""
    compared: float | None = None
    answers: tuple[Answer, ...] | None = None
    kind: Literal["periodic"] = "periodic"

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        if self.compared is None or now - self.compared >= self.period:
            return Choice(self.names[-1], "all models are compared", also=self.names[:-1])
        return Choice(self.current, f"{self.current!r} agreed with {self.names[-1]!r} {now - self.compared:.1f} s ago")

    def taken(self, choice: Choice, now: float) -> Self:
        return replace(self, compared=now, answers=(), current=choice.name) if choice.also else self

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        if self.answers is None:
            return self
        known = replace(self, answers=(*self.answers, result))
        # The reference answers last; a model that failed is not compared.
        return known._compared() if result.rung == self.names[-1] else known

    def _compared(self) -> Self:
        boxes = {each.rung: each.boxes[each.boxes.confidence >= self.confidence] for each in self.answers or ()}
        reference = boxes[self.names[-1]]
        good = (n for n in self.names if n in boxes and agreement(boxes[n], reference) >= self.target)
        return replace(self, current=next(good, self.names[-1]), answers=None)


@dataclass(frozen=True)
class Random(Chooser):
    """Another model every `period` seconds, by lot. The same seed gives the same choices."""

    names: tuple[str, ...]
    seed: int = 0
    period: float = 0.5
    kind: Literal["random"] = "random"

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        lot = random.Random(f"{self.seed}/{int(now / self.period)}")  # noqa: S311 (no secret depends on it)
        name = lot.choice(self.names)
        return Choice(name, f"{name!r} by lot")


@dataclass(frozen=True)
class RoundRobin(Chooser):
    """Each model in turn, `period` seconds long."""

    names: tuple[str, ...]
    period: float = 0.5
    kind: Literal["round-robin"] = "round-robin"

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        name = self.names[int(now / self.period) % len(self.names)]
        return Choice(name, f"it is the turn of {name!r}")


@dataclass(frozen=True)
class Oracle(Chooser):
    """Knows from labels which model is best from each moment on.

    starts: seconds, rising; names: one for each.
    """

    starts: tuple[float, ...]
    names: tuple[str, ...]
    kind: Literal["oracle"] = "oracle"

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        return Choice(self.names[max(bisect_right(self.starts, now) - 1, 0)], "the labels say so")


def agreement(boxes: Detections, reference: Detections, iou: float = 0.5) -> float:
    """F1 of boxes against those of a reference, each other's best overlap from `iou` on; 1 when both have none."""
    if not len(boxes) or not len(reference):
        return float(len(boxes) == len(reference))
    shared = overlap(boxes.xyxy, reference.xyxy, np.zeros(len(reference), np.bool_))
    shared[boxes.class_id[:, None] != reference.class_id] = 0
    partner, rows = shared.argmax(axis=1), np.arange(len(boxes))
    right = (shared[rows, partner] >= iou) & (shared.argmax(axis=0)[partner] == rows)
    return 2 * float(right.sum()) / (len(boxes) + len(reference))
