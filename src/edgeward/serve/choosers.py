"""Everything that can choose a model of a ladder, as one value that the log holds.

    chooser = chooser_for(config.ladders[0], ladder, memory=64 << 20)
    state = State.start([QuerySpec("street", ..., ladder=chooser_models)], models, budget)

The rules that a box file names: "precision" is ours (`edgeward.serve.selection`), the others are rivals of
`edgeward.serve.rivals`. A model's guard (`edgeward.serve.guard`) chooses between it and its original.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.elsewhere import elsewhere
from edgeward.serve.guard import Guard
from edgeward.serve.ladder import Ladder
from edgeward.serve.modelconfig import LadderConfig
from edgeward.serve.rivals import Fixed, Oracle, Periodic, Random, RoundRobin, Thresholds
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.units import format_bytes

__all__ = ["AnyChooser", "chooser_for"]

AnyChooser = Annotated[
    Selector | Guard | Fixed | Thresholds | Periodic | Random | RoundRobin | Oracle, Field(discriminator="kind")
]

FPS, WIDTH, HEIGHT = 30.0, 640, 480
"""Of a camera that has not delivered a frame yet."""


def chooser_for(config: LadderConfig, ladder: Ladder, memory: int) -> AnyChooser:
    """What chooses of a ladder by the rule that its entry names, before the first frame.

    memory: bytes of model weights that may be held at once. Raises BudgetError when no model fits in them, ConfigError
    when options do not belong together.
    """
    names = tuple(rung.name for rung in sorted(ladder.rungs, key=lambda rung: (rung.seconds, rung.name)))
    large = max(ladder.rungs, key=lambda rung: rung.bytes)
    if config.rule != "precision" and large.bytes > memory:
        raise BudgetError(
            f"rule {config.rule!r} uses every model, but {large.name!r} needs {format_bytes(large.bytes)} of "
            f"{format_bytes(memory)}; raise budget.memory to at least that, or take it off the ladder"
        )
    match config.rule:
        case "thresholds":
            if config.thresholds is None:
                raise ConfigError(
                    f"rule 'thresholds' needs 'thresholds', {len(names) - 1} falling relative "
                    f"sizes that part {', '.join(names)}"
                )
            return Thresholds(names, config.thresholds, WIDTH, HEIGHT)
        case "periodic":
            return Periodic(names, config.period, config.agreement)
        case "random":
            return Random(names, config.seed)
        case "round-robin":
            return RoundRobin(names)
        case _:
            rules = Rules(
                FPS,
                WIDTH,
                HEIGHT,
                margin=config.margin,
                dwell=config.dwell,
                probe_share=config.probe_share,
                memory=memory,
                own_frame=False,
            )
            return Selector.start(elsewhere(ladder), rules)
