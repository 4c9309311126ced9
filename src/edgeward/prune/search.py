"""The largest network of a family that meets its goals: bisection over how much goes, on measured figures.

    found = search(candidate, goals, dense, seconds)
    found.module, found.figures, found.seconds["pi"]

`candidate(share)` makes the network without that share; the more goes, the smaller every figure. Only this search
decides; how candidates are made and latencies measured is given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.cutting import Removed
from edgeward.prune.figures import Figures, figures_of
from edgeward.prune.goal import Goal, format_figure

__all__ = ["Candidate", "Search", "Tried", "search"]

Candidate = Callable[[float], Removed]
Seconds = Callable[[nn.Module, str], float]
"""Seconds of one inference of a network on the device of that name."""


@dataclass(frozen=True)
class Tried:
    """A network of the search: the share that went, what is counted of it, and its measured seconds by device."""

    share: float
    removed: Removed
    figures: Figures
    seconds: Mapping[str, float] = field(default_factory=dict)

    def value(self, goal: Goal) -> float:
        """The figure that a goal limits."""
        return self.seconds[goal.device] if goal.metric == "latency" else self.figures[goal.metric]


@dataclass(frozen=True)
class Search:
    """How to look. most: the largest share that may go. steps: halvings. close: stop at so much below a limit."""

    most: float = 0.99
    steps: int = 12
    close: float = 0.02
    progress: Callable[[int, int, str], object] = lambda done, total, text: None


def search(
    candidate: Candidate, goals: Sequence[Goal], dense: tuple[nn.Module, Tensor], seconds: Seconds, options: Search
) -> Tried:
    """The least pruned network that meets all goals. dense: the network and one example.

    Raises PruneError, with the best that was reached and the layers that hold it up, when none does.
    """
    model, example = dense
    devices = {goal.device for goal in goals if goal.metric == "latency"}
    whole = Tried(
        0.0,
        candidate(0.0),
        figures_of(model, example),
        {device: seconds(model, device) for device in devices},
    )
    looking = _Looking(candidate, goals, example, seconds, whole)
    if looking.meets(whole):
        return whole
    options.progress(0, options.steps, f"as small as can be: {options.most:.0%} of the channels gone")
    least = looking.at(options.most)
    if not looking.meets(least):
        raise PruneError(looking.why(least))
    low, high, best = 0.0, options.most, least
    for step in range(options.steps):
        middle = (low + high) / 2
        options.progress(step + 1, options.steps, f"{middle:.1%} of the channels gone: {looking.said(best)}")
        tried = looking.at(middle)
        if looking.meets(tried):
            high, best = middle, tried
            if looking.room(tried) < options.close:
                break
        else:
            low = middle
    return best


@dataclass
class _Looking:
    """Candidates tried so far, each distinct one measured once."""

    candidate: Candidate
    goals: Sequence[Goal]
    example: Tensor
    seconds: Seconds
    whole: Tried
    known: dict[str, Tried] = field(default_factory=dict)

    def at(self, share: float) -> Tried:
        removed = self.candidate(share)
        key = str(sorted(removed.edits.kept.items()))
        if key not in self.known:
            tried = Tried(share, removed, figures_of(removed.module, self.example))
            counted = [goal for goal in self.goals if goal.metric != "latency"]
            # What is counted costs nothing: where that fails already, nothing is timed.
            if all(goal.met(tried.value(goal), self.whole.value(goal)) for goal in counted):
                times = {name: self.seconds(removed.module, name) for name in self.whole.seconds}
                tried = Tried(share, removed, tried.figures, times)
            self.known[key] = tried
        return self.known[key]

    def meets(self, tried: Tried) -> bool:
        if len(tried.seconds) < len(self.whole.seconds):
            return False
        return all(goal.met(tried.value(goal), self.whole.value(goal)) for goal in self.goals)

    def room(self, tried: Tried) -> float:
        """By how much of its limit the tightest figure stays below it."""
        return min(1 - tried.value(goal) / goal.limit(self.whole.value(goal)) for goal in self.goals)

    def said(self, tried: Tried) -> str:
        return ", ".join(f"{goal.metric} {format_figure(goal.metric, tried.value(goal))}" for goal in self.goals)

    def why(self, least: Tried) -> str:
        """What the smallest network reaches, and where the rest of it lies."""
        parts: list[str] = []
        failing = self.goals[0]
        for goal in self.goals:
            if goal.metric == "latency" and goal.device not in least.seconds:
                continue
            value, limit = least.value(goal), goal.limit(self.whole.value(goal))
            if value > limit:
                failing = failing if parts else goal
                parts.append(
                    f"{goal} cannot be met: the smallest network that this method makes reaches "
                    f"{format_figure(goal.metric, value)} of {format_figure(goal.metric, limit)}"
                )
        if failing.metric == "memory":
            share = least.figures.size / max(least.figures.memory, 1)
            return f"{'; '.join(parts)}; {share:.0%} of it are weights, the rest activations; raise the target"
        working = failing.metric in ("latency", "macs")
        weighed = [(macs if working else count, name) for name, count, macs in least.figures.blocks]
        total = sum(weight for weight, _ in weighed) or 1
        layers = ", ".join(f"{name} ({weight / total:.0%})" for weight, name in sorted(weighed, reverse=True)[:3])
        what = "multiply-accumulates" if working else "parameters"
        return f"{'; '.join(parts)}; most of its {what} lie in {layers}; raise the target or take a smaller network"
