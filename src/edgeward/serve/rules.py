"""What is asked of the choice of a model at run time.

rules = Rules(fps=30, width=1920, height=1080, margin=0.05)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

from edgeward.errors import ConfigError
from edgeward.serve.evidence import Drift
from edgeward.serve.ladder import Ladder, Rung, dominated
from edgeward.serve.staleness import Motion

__all__ = ["Out", "Rules", "fitting", "useless"]


@dataclass(frozen=True)
class Rules:
    """What is asked of a selector. Times are seconds.

    fps, width, height: of the camera, pixels. margin: by how much better another rung must be before it is taken.
    dwell: how long a rung stays at least. horizon: over how long a switch must pay for the time its load takes.
    probe_share: of the accuracy on screen that looks of other rungs may cost; 0 for none.
    memory: bytes for one rung, None for no limit. retry: how long a rung that failed is left alone, doubled each time.
    own_frame: whether an answer that is there before the next frame is shown with its own frame.
    confidence: least score of a box that counts. memory_seconds: in which the scene changes.
    debias: whether counts are divided by what the model can see. period: seconds from one frame that is asked for to
    the next, 0 when all are. motion_seconds: in which the pace of motion changes. drift: how far models may differ from
    their tables in a scene; None to believe the tables.
    """

    fps: float
    width: int
    height: int
    margin: float = 0.03
    dwell: float = 0.3
    horizon: float = 2.0
    probe_share: float = 0.02
    memory: int | None = None
    retry: float = 10.0
    own_frame: bool = True
    confidence: float = 0.35
    memory_seconds: float = 0.3
    motion_seconds: float = 0.3
    debias: bool = True
    period: float = 0.0
    motion: Motion = field(default_factory=Motion)
    drift: Drift | None = field(default_factory=Drift)

    def __post_init__(self) -> None:
        for name in ("fps", "width", "height", "horizon", "retry", "memory_seconds", "motion_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a number over 0")
        for name in ("margin", "dwell"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a number of at least 0")
        for name in ("probe_share", "confidence"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class Out:
    """A rung that left the ladder: why, when it may come back, and its failures in a row.

    blind: whether it answers, but sees nothing where others do.
    """

    why: str
    until: float
    failures: int
    blind: bool = False


def fitting(ladder: Ladder, rules: Rules) -> list[Rung]:
    """The rungs that fit in memory."""
    return [rung for rung in ladder.rungs if rules.memory is None or rung.bytes <= rules.memory]


@functools.lru_cache(maxsize=64)
def useless(rungs: tuple[Rung, ...]) -> frozenset[str]:
    """Names of the rungs that can never be the best choice (see `edgeward.serve.ladder.dominated`)."""
    return frozenset(dominated(rungs))
