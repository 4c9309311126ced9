"""Why a selector chose what it chose, in words for the log and the page.

print(instead("large", "small", relative=1.1, ages=np.array([2.0, 3.0]), seconds=0.06))
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgeward.serve.ages import FloatArray
from edgeward.units import format_seconds

__all__ = ["instead", "over", "stays"]


def stays(active: str, worth: Mapping[str, float], relative: Mapping[str, float]) -> str:
    """Why the rung in charge goes on. worth: of all that may run; relative: their precision over that of `active`."""
    others = [name for name in worth if name != active]
    if not others:
        return f"{active!r} is the only model that can run"
    rival = max(others, key=lambda name: worth[name])
    return f"{active!r} stays: {rival!r} would reach {100 * relative[rival]:.0f} % of its accuracy on screen"


def instead(name: str, active: str, relative: float, ages: FloatArray, seconds: float) -> str:
    """Why another rung takes over. relative: its precision over that of `active`; ages: of its boxes, in frames."""
    gain = f"{100 * (relative - 1):.0f} % more accurate" if math.isfinite(relative) else "the only one of use"
    least, most = round(ages.min()), round(ages.max())
    frames = f"{least} to {most} frames" if least < most else f"{most} frame{'s' * (most != 1)}"
    return (
        f"{name!r} instead of {active!r}: {gain} on screen for the object sizes in view, with boxes "
        f"{frames} old ({format_seconds(seconds)} each)"
    )


def over(values: Mapping[str, float], reference: float) -> dict[str, float]:
    """Each value over the reference; 1 where both are nothing."""
    return {
        name: value / reference if reference > 0 else (1.0 if value == reference else math.inf)
        for name, value in values.items()
    }
