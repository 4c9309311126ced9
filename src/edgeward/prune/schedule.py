"""How many weights are left after each of several pruning steps.

keeps("exponential", 0.01, 2)       # (0.1, 0.01)
"""

from __future__ import annotations

from edgeward.errors import PruneError, nearest

__all__ = ["SCHEDULES", "check_keep", "keeps"]

SCHEDULES = ("exponential", "linear", "one-shot")


def keeps(kind: str, keep: float, steps: int) -> tuple[float, ...]:
    """The share of all weights kept after step 1, 2, ..., down to `keep`.

    "exponential" removes the same share of what is left each time (as SynFlow does: Tanaka et al., arXiv 2006.05467),
    "linear" the same number, "one-shot" everything in one step, whatever `steps` is. Raises PruneError for a share
    outside (0, 1), an unknown schedule or no steps.
    """
    check_keep(keep)
    if kind not in SCHEDULES:
        raise PruneError(f"there is no schedule {kind!r}; {nearest(kind, SCHEDULES)}")
    if not 1 <= steps <= 10_000:
        raise PruneError(f"{steps} pruning steps; choose from 1 to 10000")
    if kind == "one-shot":
        return (keep,)
    if kind == "linear":
        return (*(1 - (1 - keep) * step / steps for step in range(1, steps)), keep)
    return (*(keep ** (step / steps) for step in range(1, steps)), keep)


def check_keep(keep: float) -> None:
    """Raises PruneError for a share of weights kept that is not between 0 and 1."""
    if not 0 < keep < 1:
        raise PruneError(f"the share of weights to keep is {keep}; choose one between 0 and 1, such as 0.1")
