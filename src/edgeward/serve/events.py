"""Everything that happens in a box, as values. The log is a list of these, the state a fold over them.

    line = EVENT.dump_json(FrameArrived(time_ns=10, camera="street", frame=0, content=0))
    event = EVENT.validate_json(line)

Every `time_ns` is the moment at which the loop took note, on the box's clock; within one box they
strictly increase. `number` counts decisions: it ties an outcome to the decision that caused it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from edgeward.serve.actions import Action, Job

__all__ = [
    "EVENT",
    "CameraChanged",
    "Decided",
    "Event",
    "Evicted",
    "Failed",
    "FrameArrived",
    "Inferred",
    "Loaded",
    "Second",
    "Switched",
    "Waited",
]


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """A camera delivered a frame; `content` is its place in the recording (see `Frame.content_index`).

    width, height: of the picture, pixels; 0 when unknown. view: see `Frame.view`.
    """

    time_ns: int
    camera: str
    frame: int
    content: int
    width: int = 0
    height: int = 0
    view: int = 0
    kind: Literal["frame"] = "frame"


@dataclass(frozen=True, slots=True)
class CameraChanged:
    """A camera's status changed."""

    time_ns: int
    camera: str
    status: Literal["connecting", "live", "retrying", "ended"]
    detail: str = ""
    kind: Literal["camera"] = "camera"


@dataclass(frozen=True, slots=True)
class Decided:
    """The policy chose an action and it was begun."""

    time_ns: int
    number: int
    action: Action
    kind: Literal["decided"] = "decided"


@dataclass(frozen=True, slots=True)
class Second:
    """What another model said of the same pictures (see `Infer.also`), and the nanoseconds it took.

    whole, part, worked_ns: as of `Inferred`.
    """

    model: str
    took_ns: int
    results: tuple[dict[str, Any], ...] = ()
    whole: bool = True
    part: str = ""
    worked_ns: int = 0


@dataclass(frozen=True, slots=True)
class Inferred:
    """Jobs were answered. `results` holds one result per job, in the JSON form of its kind; `also` what others said.

    expected: of queries that forecast, where the boxes of the answer before were shown at the frame's time.
    found: of queries that remember, what the model found by itself; the result holds what was found before, too.
    whole: False when another model had done a part of the work before, so that it took less than it does alone.
    part: of models in turn, the one that looked. worked_ns: nanoseconds of what the model took in which it did
    not wait for others to leave it the processor; 0 when not known.
    """

    time_ns: int
    number: int
    model: str
    jobs: tuple[Job, ...]
    results: tuple[dict[str, Any], ...] = ()
    also: tuple[Second, ...] = ()
    expected: tuple[dict[str, Any] | None, ...] = ()
    found: tuple[dict[str, Any] | None, ...] = ()
    whole: bool = True
    part: str = ""
    worked_ns: int = 0
    kind: Literal["inferred"] = "inferred"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model is in memory."""

    time_ns: int
    number: int
    model: str
    kind: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True)
class Switched:
    """A model answers with another variant; the one before is out of memory."""

    time_ns: int
    number: int
    model: str
    variant: str
    kind: Literal["switched"] = "switched"


@dataclass(frozen=True, slots=True)
class Evicted:
    """A model's memory is free."""

    time_ns: int
    number: int
    model: str
    kind: Literal["evicted"] = "evicted"


@dataclass(frozen=True, slots=True)
class Failed:
    """An action on a model went wrong. part: of one made of several, the one to blame, where that is known."""

    time_ns: int
    number: int
    model: str
    what: Literal["infer", "load", "switch"]
    error: str
    part: str = ""
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Waited:
    """The time of a `Wait` came."""

    time_ns: int
    number: int
    kind: Literal["waited"] = "waited"


Event = Annotated[
    FrameArrived | CameraChanged | Decided | Inferred | Loaded | Switched | Evicted | Failed | Waited,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""Validates and writes events as JSON."""
