"""What a policy can ask of the box.

Infer(model="people", jobs=(job,))
Load(model="people")
Switch(model="people", variant="people-0.25x")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

__all__ = ["Action", "Evict", "Infer", "Job", "Load", "Switch", "Wait"]


@dataclass(frozen=True, slots=True)
class Job:
    """One frame that one query wants answered. Times are nanoseconds on the box's clock."""

    query: str
    camera: str
    frame: int
    arrived_ns: int
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Infer:
    """Run `model` once for all of `jobs`; jobs of one frame share its input.

    variant: of a portfolio, the active one.
    """

    model: str
    jobs: tuple[Job, ...]
    variant: str = ""
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
class Evict:
    """Let go of `model`'s memory."""

    model: str
    kind: Literal["evict"] = "evict"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until `until_ns`, unless something happens before."""

    until_ns: int
    kind: Literal["wait"] = "wait"


Action = Annotated[Infer | Load | Switch | Evict | Wait, Field(discriminator="kind")]
