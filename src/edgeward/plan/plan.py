"""A plan: which block runs on which device, what crosses which link, and what that comes to.

plan = planner.best()[0]
plan.describe()                          # 'pi[0-6] > box[7-25]'
save_plan(plan, Path("plan.json"))
load_plan(Path("plan.json")) == plan     # True
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeward.errors import PlanError
from edgeward.plan.objective import Objective
from edgeward.profile.file import replace_text

__all__ = ["FORMAT", "Hop", "Plan", "Stage", "load_plan", "save_plan"]

FORMAT = 1
"""Version of the file format."""
MAX_FILE_BYTES = 64 << 20


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(_Value):
    """Blocks first to last (both included) run as one piece on a device; its time in seconds."""

    device: str
    first: int = Field(ge=0)
    last: int = Field(ge=0)
    seconds: float = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.device}[{self.first}-{self.last}]"


class Hop(_Value):
    """One transfer over the link from `source` to `target`."""

    source: str
    target: str
    bytes: int = Field(ge=0)
    seconds: float = Field(ge=0)


class Plan(_Value):
    """Stages in order, the hops between them (the input's first, a returned result's last), and its figures.

    latency: seconds of one inference. bottleneck: seconds between two results when inferences follow each other
    without a gap. energy: joules. bytes: sum over the hops. cost: the figure that `objective` minimises.
    """

    format: int = FORMAT
    model: str
    fingerprint: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    hops: tuple[Hop, ...] = ()
    latency: float = Field(ge=0)
    bottleneck: float = Field(ge=0)
    energy: float = Field(ge=0)
    bytes: int = Field(ge=0)
    cost: float = Field(ge=0)
    objective: Objective = Objective()

    @model_validator(mode="after")
    def _contiguous(self) -> Self:
        if self.format != FORMAT:
            raise ValueError(f"plan format {self.format} is not {FORMAT}; plan again with this version")
        ends = [-1] + [stage.last for stage in self.stages]
        for end, stage in zip(ends, self.stages, strict=False):
            if stage.first != end + 1 or stage.last < stage.first:
                raise ValueError(f"stage {stage} does not follow block {end}; stages are contiguous from block 0")
        return self

    @property
    def throughput(self) -> float:
        """Results per second when every device and link works all the time."""
        return 1 / self.bottleneck if self.bottleneck else math.inf

    @property
    def assignment(self) -> tuple[str, ...]:
        """The device of every block."""
        return tuple(stage.device for stage in self.stages for _ in range(stage.first, stage.last + 1))

    def describe(self) -> str:
        """The stages in one line."""
        return " > ".join(map(str, self.stages))

    def __str__(self) -> str:
        return f"{self.describe()}: {self.latency:.4f} s, {self.bytes} bytes"


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON, wholly or not at all. Raises StoreError when the disk refuses."""
    replace_text(path, plan.model_dump_json(indent=1) + "\n")


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote. Raises PlanError when the file is missing, too large or not a plan."""
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise PlanError(f"{path} has {size} bytes; a plan has at most {MAX_FILE_BYTES}; is it another file?")
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PlanError(f"cannot read plan {path}: {error.strerror}; check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise PlanError(f"{path} is not a plan: {where}: {first['msg']}; plan again to replace it") from error
