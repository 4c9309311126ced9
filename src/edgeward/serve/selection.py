"""Which model of a ladder is most accurate on screen at this moment, told without labels.

    selector = Selector.start(ladder, Rules(fps=30, width=1920, height=1080))
    choice = selector.choice(now)                        # choice.name, choice.reason, choice.relative
    selector = selector.taken(choice, now)
    selector = selector.observe(Answer(choice.name, captured, boxes), now, seconds)

An accurate model answers late, and what is on screen meanwhile is old. After ROMA (WACV 2023, arXiv 2210.16083): what a
rung finds of the object sizes in view, times what boxes of the age it causes are still worth. Everything is pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import numpy as np

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.choice import Answer, Choice, Chooser
from edgeward.serve.ladder import Ladder, Rung, dominated
from edgeward.serve.latency import Latency
from edgeward.serve.sizes import SizeHistogram, counts, size_bins, sizes
from edgeward.serve.staleness import Motion, Retention, matched
from edgeward.units import format_bytes, format_seconds

__all__ = ["Out", "Rules", "Selector", "frames_on_screen"]

EPSILON = 0.05
"""Frames by which a latency may miss a whole number of frames and still count as that number."""


@dataclass(frozen=True)
class Rules:
    """What is asked of a selector. Times are seconds.

    fps, width, height: of the camera, pixels. margin: by how much better another rung must be before it is taken.
    dwell: how long a rung stays at least. horizon: over how long a switch must pay for the time its load takes.
    probe_share: of the processor's time that looks of the strongest rung may take; 0 for none.
    memory: bytes for one rung, None for no limit. retry: how long a rung that failed is left alone, doubled each time.
    own_frame: whether an answer that is there before the next frame is shown with its own frame.
    confidence: least score of a box that counts. memory_seconds: in which the scene changes.
    debias: whether counts are divided by what the model can see.
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
    debias: bool = True
    motion: Motion = field(default_factory=Motion)

    def __post_init__(self) -> None:
        for name in ("fps", "width", "height", "horizon", "retry", "memory_seconds"):
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
    """A rung that left the ladder: why, when it may come back, and its failures in a row."""

    why: str
    until: float
    failures: int


@dataclass(frozen=True)
class Selector(Chooser):
    """What is known of the scene, the load and the rungs.

    active: the rung in charge, "" before the first choice; since: when it was taken. switches: changes so far.
    out: rungs that failed. last: the newest answer.
    """

    ladder: Ladder
    rules: Rules
    histogram: SizeHistogram
    retention: Retention
    latency: Latency
    active: str = ""
    since: float = 0.0
    began: float | None = None
    switches: int = 0
    out: Mapping[str, Out] = field(default_factory=lambda: MappingProxyType({}))
    last: Answer | None = None

    @classmethod
    def start(cls, ladder: Ladder, rules: Rules) -> Self:
        """Before the first frame. Raises BudgetError when no rung fits in memory."""
        if not _fitting(ladder, rules):
            least = min(ladder.rungs, key=lambda rung: rung.bytes)
            raise BudgetError(
                f"no model of the ladder fits in {format_bytes(rules.memory or 0)}; the smallest, {least.name!r}, "
                f"needs {format_bytes(least.bytes)}; raise the memory to at least that"
            )
        return cls(
            ladder,
            rules,
            SizeHistogram.unknown(ladder.bins),
            Retention.assumed(ladder.bins, rules.motion),
            Latency.nominal({rung.name: rung.seconds for rung in ladder.rungs}),
        )

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        """Learns from an answer that took `seconds` and was there at `now`. Raises ConfigError for an unknown rung."""
        rung, rules = self.ladder.rung(result.rung), self.rules
        if not 0 < seconds < math.inf:
            raise ConfigError(f"{result.rung!r} took {seconds} s; give the measured seconds, over 0")
        boxes = result.boxes[result.boxes.confidence >= rules.confidence]
        result = replace(result, boxes=boxes)
        elapsed = result.captured - self.last.captured if self.last else math.inf
        if elapsed < 0:
            return replace(self, latency=self.latency.observed(rung.name, seconds, now))
        weight = 1 - math.exp(-elapsed / rules.memory_seconds)
        visible = rung.accuracy if rules.debias else (1.0,) * self.ladder.bins
        found = counts(sizes(boxes, rules.width, rules.height), self.ladder.edges)
        return replace(
            self,
            latency=self.latency.observed(rung.name, seconds, now),
            histogram=self.histogram.seen(found, visible, elapsed / rules.memory_seconds),
            retention=self._retention(result, elapsed, weight),
            out=MappingProxyType({name: out for name, out in self.out.items() if name != rung.name}),
            last=result,
            began=now if self.began is None else self.began,
        )

    def failed(self, name: str, now: float, why: str) -> Self:
        """After a rung could not answer: it leaves the ladder, and is tried again after a while that doubles."""
        failures = self.out[name].failures + 1 if name in self.out else 1
        until = now + self.rules.retry * 2 ** min(failures - 1, 6)
        out = Out(why, until, failures)
        return replace(self, out=MappingProxyType({**self.out, self.ladder.rung(name).name: out}))

    def taken(self, choice: Choice, now: float) -> Self:
        """Notes that a choice was acted upon."""
        began = now if self.began is None else self.began
        if choice.probe or choice.name == self.active:
            return replace(self, began=began)
        return replace(self, active=choice.name, since=now, began=began, switches=self.switches + (self.active != ""))

    def precision(self, name: str, cycle: float | None = None) -> float:
        """Average precision of what is on screen when `name` answers.

        cycle: seconds from one answer to the next, when the processor also works for others; its own latency else.
        """
        rung = self.ladder.rung(name)
        first, last = self._ages(name, cycle)
        worth = np.multiply(self.histogram.shares, rung.accuracy)
        return float(worth @ self.retention.mean(first, last))

    def available(self, now: float) -> list[Rung]:
        """Rungs that may be chosen: those that fit in memory, did not fail lately and are not contradictory.

        When all have failed, the one that may be tried again first.
        """
        fitting = _fitting(self.ladder, self.rules)
        sound = [rung for rung in fitting if rung.name not in self.out or self.out[rung.name].until <= now]
        useless = dominated(sound)
        sound = [rung for rung in sound if rung.name not in useless]
        return sound or [min(fitting, key=lambda rung: (self.out[rung.name].until, rung.name))]

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        """What should answer a frame that is taken up now.

        resident: rungs in memory, which need no load; of the others the load is charged.
        """
        rungs = {rung.name: rung for rung in self.available(now)}
        values = {name: self.precision(name) for name in sorted(rungs)}
        strongest = max(rungs.values(), key=lambda rung: (rung.mean, rung.name))
        known = self.active in rungs
        worth = {name: value * self._kept(rungs[name], resident) for name, value in values.items()}
        best = max(worth, key=lambda name: (worth[name], name == self.active))
        relative = MappingProxyType(_over(values, values[self.active] if known else values[best]))
        if not known:
            why = f"{self.active!r} left the ladder: {self._why(self.active)}; " if self.active else ""
            return Choice(best, why + f"{best!r} is expected to be the most accurate on screen", relative)
        if self._probe_due(strongest, now, resident):
            return Choice(
                strongest.name, f"a look of {strongest.name!r} at what {self.active!r} may miss", relative, True
            )
        gain = worth[best] - (1 + self.rules.margin) * values[self.active]
        if best == self.active or gain <= 0:
            return Choice(self.active, self._stays(worth, relative), relative)
        if now - self.since < self.rules.dwell:
            return Choice(self.active, f"{self.active!r} stays until it ran for {self.rules.dwell:g} s", relative)
        return Choice(best, self._explained(best, relative[best]), relative)

    def _kept(self, rung: Rung, resident: Collection[str]) -> float:
        """Share of the horizon that is left after a switch to this rung."""
        if rung.name == self.active or rung.name in resident:
            return 1.0
        return max(1 - rung.load_seconds / self.rules.horizon, 0.0)

    def _probe_due(self, strongest: Rung, now: float, resident: Collection[str]) -> bool:
        """Whether a look of the strongest, with the loads it causes, is within its share of the time since its last."""
        if strongest.name == self.active or not self.rules.probe_share:
            return False
        cost = self.latency.seconds[strongest.name]
        if strongest.name not in resident:
            cost += strongest.load_seconds
            active, memory = self.ladder.rung(self.active), self.rules.memory
            if memory is not None and active.bytes + strongest.bytes > memory:
                cost += active.load_seconds  # it has to make room, and to come back
        looked = self.latency.ran.get(strongest.name, now if self.began is None else self.began)
        return (now - looked) * self.rules.probe_share >= cost

    def _ages(self, name: str, cycle: float | None) -> tuple[int, int]:
        """Ages in frames, first and last, of the boxes on screen."""
        seconds = self.latency.seconds[name]
        late, frames = (frames_on_screen(each, self.rules.fps) for each in (seconds, max(cycle or seconds, seconds)))
        first = 0 if late == 1 and self.rules.own_frame else late
        return first, first + frames - 1

    def _retention(self, result: Answer, elapsed: float, weight: float) -> Retention:
        if self.last is None or elapsed <= 0:
            return self.retention
        before = self.last.boxes
        bins = size_bins(sizes(before, self.rules.width, self.rules.height), self.ladder.edges)
        overlaps = matched(before, result.boxes, bins)
        static = self.ladder.rung(self.last.rung).static_iou * self.ladder.rung(result.rung).static_iou
        return self.retention.observed(
            overlaps, static**0.5, elapsed * self.rules.fps, weight, self.ladder.rung(self.last.rung).accuracy
        )

    def _why(self, name: str) -> str:
        return self.out[name].why if name in self.out else "another model beats it in everything"

    def _stays(self, worth: Mapping[str, float], relative: Mapping[str, float]) -> str:
        others = [name for name in worth if name != self.active]
        if not others:
            return f"{self.active!r} is the only model that can run"
        rival = max(others, key=lambda name: worth[name])
        return f"{self.active!r} stays: {rival!r} would reach {100 * relative[rival]:.0f} % of its accuracy on screen"

    def _explained(self, name: str, relative: float) -> str:
        first, last = self._ages(name, None)
        return (
            f"{name!r} instead of {self.active!r}: {100 * (relative - 1):.0f} % more accurate on screen for the object "
            f"sizes in view, though its boxes are {first} to {last} frames old "
            f"({format_seconds(self.latency.seconds[name])} each)"
        )


def frames_on_screen(seconds: float, fps: float) -> int:
    """How many frames pass while a model works: at least 1; a latency of whole frames is not rounded up."""
    return max(1, math.ceil(seconds * fps - EPSILON))


def _fitting(ladder: Ladder, rules: Rules) -> list[Rung]:
    return [rung for rung in ladder.rungs if rules.memory is None or rung.bytes <= rules.memory]


def _over(values: Mapping[str, float], reference: float) -> dict[str, float]:
    """Each value over the reference; 1 where both are nothing."""
    return {
        name: value / reference if reference > 0 else (1.0 if value == reference else math.inf)
        for name, value in values.items()
    }
