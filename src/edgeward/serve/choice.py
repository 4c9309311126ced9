"""What chooses a model at run time: one small interface for ours and its rivals.

    choice = chooser.choice(now)
    chooser = chooser.taken(choice, now)                 # it is acted upon
    chooser = chooser.observe(Answer("small", captured, boxes), now, seconds)

Choosers are frozen values; each method returns the next one. Times are seconds on an injected clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from edgeward.vision.results import Detections

__all__ = ["Answer", "Choice", "Chooser"]


@dataclass(frozen=True, eq=False)
class Answer:
    """The boxes a rung found in the frame that was captured at `captured` seconds."""

    rung: str
    captured: float
    boxes: Detections


@dataclass(frozen=True)
class Choice:
    """Which rung answers the next frame, and why in words.

    relative: expected accuracy on screen of each rung, over that of the rung in charge (empty where none is estimated).
    probe: it only looks once; the rung in charge stays. also: rungs that answer the same frame just to be compared.
    """

    name: str
    reason: str
    relative: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    probe: bool = False
    also: tuple[str, ...] = ()


class Chooser(ABC):
    """Chooses without labels."""

    @abstractmethod
    def choice(self, now: float) -> Choice:
        """What should answer a frame that is taken up now."""

    def taken(self, choice: Choice, now: float) -> Self:
        """After a choice was acted upon."""
        return self

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        """After an answer that took `seconds` of computing was there at `now`."""
        return self
