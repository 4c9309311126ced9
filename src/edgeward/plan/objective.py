"""What a plan is judged by.

Objective("latency", return_result=True)      # the answer is needed where the input arose
Objective("throughput")                       # the slowest stage or link decides
Objective("latency", quantile=0.9)            # block times as bad as one in ten runs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgeward.errors import PlanError, nearest

__all__ = ["LATENCY", "Kind", "Objective"]

Kind = Literal["latency", "throughput", "energy", "bytes"]


@dataclass(frozen=True)
class Objective:
    """What to minimise: seconds of one inference, seconds between two results, joules, or bytes on links.

    return_result: whether the last block's output goes back to the fleet's source. quantile: which block times are
    used, 0.1 to 0.9. input_bytes, output_bytes: bytes that really travel for the input and for a returned result
    (an encoded image, a label), where they differ from the profile's.

    Raises PlanError for values outside these ranges.
    """

    kind: Kind = "latency"
    return_result: bool = False
    quantile: float = 0.5
    input_bytes: int | None = None
    output_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise PlanError(f"objective {self.kind!r} is not known; {nearest(str(self.kind), get_args(Kind))}")
        if not 0.1 <= self.quantile <= 0.9:
            raise PlanError(f"quantile {self.quantile} is outside what profiles hold; choose one from 0.1 to 0.9")
        for name in ("input_bytes", "output_bytes"):
            if (getattr(self, name) or 0) < 0:
                raise PlanError(f"{name} {getattr(self, name)} is negative; give at least 0, or None for the profile's")


LATENCY = Objective()
"""The default: seconds of one inference at median block times, nothing returned."""
