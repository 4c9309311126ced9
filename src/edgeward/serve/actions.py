"""What a policy can ask of the box.

Infer(model="people", jobs=(job,))
Load(model="people")
Switch(model="people", variant="people-0.25x")
Choose(models={"street": "fast"}, reason="objects are large")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

__all__ = ["Action", "Choose", "Evict", "Infer", "Job", "Load", "Switch", "Wait"]


@dataclass(frozen=True, slots=True)
class Job:
    """One frame that one query wants answered. Times are nanoseconds on the box's clock.

    turn_ns: its deadline, or that of the first of the frames that it took the place of: where it stands in the queue.
    """

    query: str
    camera: str
    frame: int
    arrived_ns: int
    deadline_ns: int
    turn_ns: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "turn_ns", self.turn_ns or self.deadline_ns)


@dataclass(frozen=True, slots=True)
class Infer:
    """Run `model` once for all of `jobs`; jobs of one frame share its input.

    variant: of a portfolio, the active one. also: models that look at the same pictures, only to be compared.
    """

    model: str
    jobs: tuple[Job, ...]
    variant: str = ""
    also: tuple[str, ...] = ()
    kind: Literal["infer"] = "infer"

    @property
    def batch(self) -> int:
        """How many pictures go through the model."""
        return len({(job.camera, job.frame) for job in self.jobs})


@dataclass(frozen=True, slots=True)
class Load:
    """Bring `model` into memory; of a portfolio, the named variant."""

    model: str
    variant: str = ""
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class Switch:
    """Make another variant the one with which a model in memory answers."""

    model: str
    variant: str
    kind: Literal["switch"] = "switch"


@dataclass(frozen=True, slots=True)
class Choose:
    """Put other models of their ladders in charge of queries, and say why in words.

    models: by query. probe: for one answer only. also: models that answer the same frame, only to be compared.
    """

    models: Mapping[str, str]
    reason: str
    probe: bool = False
    also: tuple[str, ...] = ()
    kind: Literal["choose"] = "choose"


@dataclass(frozen=True, slots=True)
class Evict:
    """Let go of `model`'s memory, but for the tensors that `keep_for`, the next to be loaded, shares with it."""

    model: str
    keep_for: str = ""
    kind: Literal["evict"] = "evict"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until `until_ns`, unless something happens before."""

    until_ns: int
    kind: Literal["wait"] = "wait"


Action = Annotated[Infer | Load | Switch | Choose | Evict | Wait, Field(discriminator="kind")]
