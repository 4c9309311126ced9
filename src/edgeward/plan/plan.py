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
from edgeward.profile.packing import IDENTITY

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
    """One transfer over the link from `source` to `target`.

    bytes: what crosses, packed. seconds: of the link alone. pack, unpack: seconds of the two devices. drop: loss of
    accuracy as a share of 1, None where it was not measured.
    """

    source: str
    target: str
    bytes: int = Field(ge=0)
    seconds: float = Field(ge=0)
    packing: str = IDENTITY
    pack: float = Field(default=0.0, ge=0)
    unpack: float = Field(default=0.0, ge=0)
    drop: float | None = Field(default=0.0, ge=0)

    @property
    def latency(self) -> float:
        """Seconds to pack, send and unpack."""
        return self.pack + self.seconds + self.unpack

    def __str__(self) -> str:
        return f"{self.source}->{self.target}" + (f" as {self.packing}" if self.packing != IDENTITY else "")


class Plan(_Value):
    """Stages in order, the hops between them (the input's first, a returned result's last), and its figures.

    latency: seconds of one inference. bottleneck: seconds between two results when inferences follow each other
    without a gap. energy: joules. bytes: sum over the hops. cost: the figure that `objective` minimises. drop: sum of
    what each hop alone loses, a first-order bound that has to be measured again before the plan is deployed; None where
    a hop's was not measured.
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
    drop: float | None = Field(default=0.0, ge=0)
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

    @property
    def packings(self) -> tuple[str, ...]:
        """How the tensors of every hop are packed."""
        return tuple(hop.packing for hop in self.hops)

    @property
    def steps(self) -> tuple[Stage | Hop, ...]:
        """Stages and hops in the order in which they happen."""
        hops = list(self.hops)
        found: list[Stage | Hop] = [hops.pop(0)] if hops and hops[0].source != self.stages[0].device else []
        for stage in self.stages:
            found += [stage, *hops[:1]]
            del hops[:1]
        return tuple(found)

    def describe(self) -> str:
        """The stages in one line, and between them the packings other than "identity"."""
        shown = (one for one in self.steps if isinstance(one, Stage) or one.packing != IDENTITY)
        return " > ".join(str(one) if isinstance(one, Stage) else one.packing for one in shown)

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
