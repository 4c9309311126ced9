"""Which variant to run: the Pareto front, the best one for the moment, and when a change is worth its cost.

    front = pareto(portfolio.variants, "pi")
    rules = Rules("pi", deadline=0.05, memory=64 << 20)
    best = choose(front, rules, slowdown=1.3)             # None when no variant meets the deadline
    selection = Selection(active=front[0].name)
    selection = selection.next(front, rules, slowdown=1.3)   # once per window; `selection.active` is what should run

All of it is pure. The slow-down factor is what one inference takes now / what the profile says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from edgeward.errors import BudgetError, PruneError, nearest
from edgeward.profile.variant import Variant
from edgeward.units import format_bytes

__all__ = ["Rules", "Selection", "choose", "pareto"]


@dataclass(frozen=True)
class Rules:
    """What is asked of a variant, and what a change costs.

    deadline: seconds. memory: bytes, None for no limit. windows: how many windows in a row a better variant must have
    met the deadline before it is taken; window: seconds of one. switch: measured seconds of one change.
    """

    device: str
    deadline: float
    memory: int | None = None
    windows: int = 3
    window: float = 1.0
    switch: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (("deadline", self.deadline, 0), ("window", self.window, 0)):
            if not value > least:
                raise PruneError(f"{name} is {value} s; it must be more than {least}")
        if self.windows < 1:
            raise PruneError(
                f"windows is {self.windows}; at least one window must pass before a better variant is taken"
            )
        if not self.switch >= 0:
            raise PruneError(f"a change takes {self.switch} s; give the measured seconds, at least 0")

    def fits(self, variant: Variant) -> bool:
        """Whether it fits in memory."""
        return self.memory is None or variant.memory <= self.memory

    def met(self, variant: Variant, slowdown: float) -> bool:
        """Whether nine of ten inferences meet the deadline when everything is `slowdown` times slower than profiled."""
        return variant.on(self.device).high * slowdown <= self.deadline


def pareto(variants: Sequence[Variant], device: str) -> tuple[Variant, ...]:
    """The variants that no other one beats in accuracy, median latency on `device` and memory, fastest first.

    Of several with equal figures the first stays. Raises PruneError when one was not scored, ModelError when one was
    not measured on the device.
    """
    ordered = sorted(enumerate(variants), key=lambda item: (*_figures(item[1], device), item[0]))
    front: list[Variant] = []
    for _, variant in ordered:
        # Whatever beats it is as fast or faster and comes before it in this order.
        figures = _figures(variant, device)
        if not any(all(a <= b for a, b in zip(_figures(other, device), figures, strict=True)) for other in front):
            front.append(variant)
    return tuple(front)


def choose(variants: Sequence[Variant], rules: Rules, slowdown: float = 1.0) -> Variant | None:
    """The most accurate variant that fits and meets the deadline; the faster of equals; None when none meets it.

    Raises BudgetError when none fits in memory, naming the smallest.
    """
    _check_slowdown(slowdown)
    return max(
        (variant for variant in _fitting(variants, rules) if rules.met(variant, slowdown)),
        key=lambda variant: (accuracy(variant), -variant.on(rules.device).median),
        default=None,
    )


@dataclass(frozen=True)
class Selection:
    """Which variant runs, and what has been seen of the others.

    streaks: windows in a row in which each would have met the deadline. switches, spent: changes so far, their seconds.
    """

    active: str
    streaks: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    switches: int = 0
    spent: float = 0.0

    def next(self, variants: Sequence[Variant], rules: Rules, slowdown: float) -> Selection:
        """The selection after a window in which everything was `slowdown` times slower than profiled.

        A variant that misses the deadline, or no longer fits, is left at once: for the best that meets it, else for the
        fastest that fits. A more accurate one is taken when it has met the deadline `rules.windows` windows in a row,
        and when the accuracy it will have gained over as many windows again exceeds what is lost while the change is
        made: requests of `rules.switch` seconds, charged at the accuracy of the active one.
        """
        _check_slowdown(slowdown)
        fitting = _fitting(variants, rules)
        known = {variant.name: variant for variant in variants}
        if self.active not in known:
            raise PruneError(f"no variant {self.active!r} to go on from; {nearest(self.active, known)}")
        active = known[self.active]
        streaks = {each.name: self.streaks.get(each.name, 0) + 1 for each in fitting if rules.met(each, slowdown)}
        seen = replace(self, streaks=MappingProxyType(streaks))
        if not (rules.met(active, slowdown) and rules.fits(active)):
            fastest = min(fitting, key=lambda variant: variant.on(rules.device).median)
            return seen._to(choose(fitting, rules, slowdown) or fastest, rules)
        proven = [variant for variant in fitting if streaks.get(variant.name, 0) >= rules.windows]
        best = max(proven, key=accuracy, default=active)
        gain = (accuracy(best) - accuracy(active)) * rules.windows * rules.window
        return seen._to(best, rules) if gain > rules.switch * accuracy(active) else seen

    def _to(self, variant: Variant, rules: Rules) -> Selection:
        if variant.name == self.active:
            return self
        return replace(self, active=variant.name, switches=self.switches + 1, spent=self.spent + rules.switch)


def accuracy(variant: Variant) -> float:
    """Its accuracy in [0, 1]. Raises PruneError when it was not measured."""
    if variant.accuracy is None:
        raise PruneError(f"variant {variant.name!r} has no accuracy; score it on data before choosing by it")
    return variant.accuracy.value


def _figures(variant: Variant, device: str) -> tuple[float, float, float]:
    """Less is better in each; the order of keys makes equals of one figure fall behind what beats them."""
    return variant.on(device).median, -accuracy(variant), variant.memory


def _fitting(variants: Sequence[Variant], rules: Rules) -> list[Variant]:
    fitting = [variant for variant in variants if rules.fits(variant)]
    if not fitting:
        if not variants or rules.memory is None:
            raise PruneError("no variants to choose from; give at least one")
        least = min(variants, key=lambda variant: variant.memory)
        raise BudgetError(
            f"no variant fits in {format_bytes(rules.memory)}; the smallest, {least.name!r}, needs "
            f"{format_bytes(least.memory)}; raise the memory to at least that"
        )
    return fitting


def _check_slowdown(slowdown: float) -> None:
    if not 0 < slowdown < float("inf"):
        raise PruneError(f"slow-down factor {slowdown} is not a positive number; 1 is as fast as profiled")
