"""The drift guard: a model that was merged, pruned or retrained answers while it agrees with its original.

    guard = Guard("cars", "cars-original", target=0.9, share=0.02)
    choice = guard.choice(now, resident=("cars", "cars-original"))      # now and then both answer one frame
    guard = guard.taken(choice, now)

A chooser like those of ladders, but without calibration and labels: it knows nothing but how far the two agree. When
that is beyond doubt less than asked (see `edgeward.serve.shift`), the original answers from then on; it is compared
with the other as before, and gives way when they agree again, also beyond doubt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from edgeward.serve.choice import Answer, Choice, Chooser
from edgeward.serve.rivals import agreement
from edgeward.serve.rules import Out
from edgeward.serve.shift import Shift
from edgeward.vision.results import Classification, Detections, Embedding, Result

__all__ = ["Guard", "agreed"]

FIRST_SECONDS = 1.0
"""From the first answer to the first comparison."""
RETRY_SECONDS = 10.0
"""How long a model that failed is left alone, doubled each time, at most 32 times as long."""
LATELY = 20
"""Comparisons over which the agreement that is told is averaged."""


@dataclass(frozen=True)
class Guard(Chooser):
    """See the module. Times are seconds.

    target: least mean agreement. share: of the time that comparisons may take. confidence: least score of a box that
    counts.

    shift: what is known of the agreement, sought below the target while the model is in charge, above it otherwise.
    lately: a moving mean, None before the first comparison; missed: comparisons in a row that failed.
    why: in words, why the original is in charge. active: who was put there last.
    asked: who answers the frame on which both are compared since `looked`, "" when none is; heard: what the other said.
    due: when the next comparison is, None before the first answer. out: who failed.
    """

    model: str
    original: str
    target: float = 0.9
    share: float = 0.02
    confidence: float = 0.3
    shift: Shift | None = None
    compared: int = 0
    lately: float | None = None
    missed: int = 0
    why: str = ""
    active: str = ""
    asked: str = ""
    looked: float = 0.0
    heard: Answer | None = None
    due: float | None = None
    out: Mapping[str, Out] = field(default_factory=dict)
    kind: Literal["guard"] = "guard"

    @property
    def trusted(self) -> str:
        """The one that should be in charge."""
        return self.original if self.why else self.model

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        best = self.trusted
        other = self._other(best)
        if self._failing(other, now):
            return Choice(best, self._words())
        if self._failing(best, now):
            return Choice(other, f"{best!r} failed: {self.out[best].why}")
        if self.due is None or now < self.due or self.active != best or best not in resident:
            return Choice(best, self._words())
        # One that is not in memory answers the frame itself: it is loaded as any model that a frame waits for.
        first, second = (best, other) if other in resident else (other, best)
        return Choice(first, self._words(), probe=True, also=(second,))

    def taken(self, choice: Choice, now: float) -> Self:
        if choice.also:
            return replace(self, asked=choice.name, looked=now, heard=None)
        return replace(self, active=choice.name)

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        known = self if self.due is not None else replace(self, due=now + FIRST_SECONDS)
        if result.rung in known.out:
            known = replace(known, out={name: out for name, out in known.out.items() if name != result.rung})
        if not known.asked:
            return known
        if result.rung != known.asked:
            cost = seconds if known.asked == known.trusted else now - known.looked  # a load makes others wait
            return replace(known, heard=result, due=known.looked + cost / known.share)
        if known.heard is None:
            pause = FIRST_SECONDS * 2 ** min(known.missed, 6)
            return replace(known, asked="", missed=known.missed + 1, due=now + pause)
        score = agreed(known.heard.found, result.found, known.confidence)
        ended = replace(known, asked="", heard=None, missed=0)
        return ended if score is None else ended._scored(score)

    def unseen(self, name: str, seconds: float, now: float, part: str = "", beside: float = 0.0) -> Self:
        known = self if self.due is not None else replace(self, due=now + FIRST_SECONDS)
        if not known.asked:
            return known
        due = known.looked + max(now - known.looked, seconds) / known.share
        return replace(known, asked="", heard=None, due=due)

    def failed(self, name: str, now: float, why: str) -> Self:
        before = self.out[name].failures if name in self.out else 0
        out = Out(why, now + RETRY_SECONDS * 2 ** min(before, 5), before + 1)
        return replace(self, out={**self.out, name: out}, asked="", heard=None)

    def _scored(self, score: float) -> Self:
        """After a comparison."""
        shift = (self.shift or Shift.sought("below", self.target)).after(score)
        before = score if self.lately is None else self.lately
        lately = before + (score - before) / min(self.compared + 1, LATELY)
        known = replace(self, shift=shift, compared=self.compared + 1, lately=lately)
        if not shift.certain:
            return known
        if self.why:
            return replace(known, why="", shift=Shift.sought("below", self.target))
        told = (
            f"{self.model!r} agreed with {self.original!r} to {shift.mean:.2f} in the last {shift.scores} comparisons"
        )
        why = f"{told}; {self.target:g} is asked for"
        return replace(known, why=why, lately=None, shift=Shift.sought("above", self.target))

    def _words(self) -> str:
        missed = f"; the last {self.missed} comparisons failed" if self.missed else ""
        if self.why:
            since = "" if self.lately is None else f", since then to {self.lately:.2f}"
            return f"{self.why}{since}{missed}"
        if self.lately is None:
            return f"{self.model!r} was not compared with {self.original!r} yet{missed}"
        agrees = f"{self.model!r} agrees with {self.original!r} to {self.lately:.2f} of late"
        return f"{agrees}, after {self.compared} comparisons{missed}"

    def _other(self, name: str) -> str:
        return self.model if name == self.original else self.original

    def _failing(self, name: str, now: float) -> bool:
        return name in self.out and now < self.out[name].until


def agreed(one: Result, other: Result, confidence: float) -> float | None:
    """How far two answers to one picture agree, 0 to 1; None when neither says anything.

    Boxes of at least `confidence`: F1 at an overlap (IoU) of 0.5. Classes: whether the first is the same. Embeddings:
    their cosine, 0 when it is negative. 0 for answers of different kinds.
    """
    match one, other:
        case Detections(), Detections():
            mine, its = (each[each.confidence >= confidence] for each in (one, other))
            return agreement(mine, its) if len(mine) or len(its) else None
        case Classification(), Classification():
            first, second = one.class_id[:1].tolist(), other.class_id[:1].tolist()
            return float(first == second) if first or second else None
        case Embedding(), Embedding() if one.vector.shape == other.vector.shape:
            scale = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
            return float(np.clip(np.dot(one.vector, other.vector) / scale, 0, 1)) if scale else None
        case _:
            return 0.0
