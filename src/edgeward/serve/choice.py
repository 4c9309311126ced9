"""What chooses a model at run time: one small interface for ours and its rivals.

    choice = chooser.choice(now)
    chooser = chooser.taken(choice, now)                 # it is acted upon
    chooser = chooser.observe(Answer("small", captured, boxes), now, seconds)

Choosers are frozen values; each method returns the next one. Times are seconds on an injected clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import PlainSerializer, PlainValidator

from edgeward.vision.results import Detections, Result, result_from_json

__all__ = ["Answer", "Choice", "Chooser", "Look"]


def _found(value: Any) -> Result:
    return value if isinstance(value, Result) else result_from_json(value)


def _boxes(value: Any) -> Detections:
    return value if isinstance(value, Detections) else Detections.from_json(value)


Found = Annotated[Result, PlainValidator(_found), PlainSerializer(lambda result: result.to_json())]
Boxes = Annotated[Detections, PlainValidator(_boxes), PlainSerializer(Detections.to_json)]
"""Results that are values of the log, too."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a rung found in the frame that was captured at `captured` seconds.

    expected: where the boxes of the answer before are shown by then, when they are moved. cold: whether it is the
    rung's first since it was loaded, which takes longer than the next. part: of models in turn, the one that looked.
    beside: how many programs worked on the same processor (see `edgeward.serve.latency`).
    """

    rung: str
    captured: float
    found: Found
    expected: Boxes | None = None
    cold: bool = False
    part: str = ""
    beside: float = 0.0

    @property
    def boxes(self) -> Detections:
        """What a detector found."""
        assert isinstance(self.found, Detections), "only detectors are on a ladder"
        return self.found


@dataclass(frozen=True)
class Look:
    """What a camera's frames are like: how many a second, their size in pixels.

    period: seconds from one frame that is asked for to the next, 0 when all are. since: when the camera began to show
    what it shows (see `edgeward.vision.views`), 0 for its first view.
    """

    fps: float
    width: int
    height: int
    period: float = 0.0
    since: float = 0.0


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
    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        """What should answer a frame that is taken up now. resident: rungs in memory, which need no load."""

    def looking(self, look: Look) -> Self:
        """After the camera's frames changed in pace or size."""
        return self

    def taken(self, choice: Choice, now: float) -> Self:
        """After a choice was acted upon."""
        return self

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        """After an answer that took `seconds` of computing was there at `now`."""
        return self

    def paced(self, name: str, seconds: float, now: float, part: str = "", beside: float = 0.0) -> Self:
        """After `name` took `seconds` for somebody else's frame, until `now`; part, beside: as of `Answer`."""
        return self

    def unseen(self, name: str, seconds: float, now: float, part: str = "", beside: float = 0.0) -> Self:
        """After an answer whose content is not known, as in a replay that went another way."""
        return self.paced(name, seconds, now, part, beside)

    def failed(self, name: str, now: float, why: str) -> Self:
        """After a rung could not answer."""
        return self
