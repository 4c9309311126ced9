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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from types import MappingProxyType
from typing import Literal, Self

import numpy as np

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.ages import Ages, frames_on_screen
from edgeward.serve.choice import Answer, Choice, Chooser, Look
from edgeward.serve.evidence import LONGEST, Drift, Evidence, expected_area
from edgeward.serve.inturn import LONE, RECENT_SECONDS, between, share_held
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.latency import Latency, alone, among
from edgeward.serve.looks import at_once, candidate, left_after
from edgeward.serve.members import missing_seconds
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.overlooked import Doubt
from edgeward.serve.reasons import instead, over, stays
from edgeward.serve.rules import Out, Rules, fitting, useless
from edgeward.serve.sizes import SizeHistogram, counts, size_bins, sizes
from edgeward.serve.staleness import FloatArray, Retention, matched
from edgeward.units import format_bytes

__all__ = ["Selector"]

TURN_WEIGHT = 0.2
"""Of a new turn in the moving average."""
NEARLY = 0.5
"""Frames by which a span may be missed."""
PACE_CHANGE = 0.1
"""Share by which a camera's frames per second must differ to count as another pace."""


@dataclass(frozen=True)
class Selector(Chooser):
    """What is known of the scene, the load and the rungs.

    active: the rung in charge, "" before the first choice; since: when it was taken, or the first one first answered.
    out: rungs that failed. last: the newest answer; anchor: an earlier one, which motion is told from. turn: seconds
    from one answered frame to the next, mean. credit: what looks may cost, as of the last look and when that was.
    looked: when the newest frame was captured that each model looked at, by itself or as a part of a rung. viewed: when
    the camera began to show what it shows, 0 for its first view. doubts: by rung, whether it is blind here.
    """

    ladder: Ladder
    rules: Rules
    histogram: SizeHistogram
    retention: Retention
    latency: Latency
    evidence: Evidence
    active: str = ""
    since: float = 0.0
    began: float | None = None
    out: Mapping[str, Out] = field(default_factory=dict)
    last: Answer | None = None
    anchor: Answer | None = None
    turn: float = 0.0
    credit: tuple[float, float] = (0.0, 0.0)
    looked: Mapping[str, float] = field(default_factory=dict)
    viewed: float = 0.0
    doubts: Mapping[str, Doubt] = field(default_factory=dict)
    kind: Literal["precision"] = "precision"

    @classmethod
    def start(cls, ladder: Ladder, rules: Rules) -> Self:
        """Before the first frame. Raises BudgetError when no rung fits in memory."""
        if not fitting(ladder, rules):
            least = min(ladder.rungs, key=lambda rung: rung.bytes)
            raise BudgetError(
                f"no model of the ladder fits in {format_bytes(rules.memory or 0)}; the smallest, {least.name!r}, "
                f"needs {format_bytes(least.bytes)}; raise the memory to at least that"
            )
        return cls(
            ladder,
            rules,
            SizeHistogram.unknown(ladder.bins),
            Retention.assumed(ladder.bins, rules.motion, rules.fps),
            Latency.nominal({rung.name: rung.seconds for rung in ladder.rungs}),
            Evidence.none(tuple(rung.name for rung in ladder.rungs), rules.drift or Drift()),
        )

    def observe(self, result: Answer, now: float, seconds: float) -> Self:
        """Learns from an answer that took `seconds` and was there at `now`. Raises ConfigError for an unknown rung."""
        rung, rules = self.ladder.rung(result.rung), self.rules
        if not 0 < seconds < math.inf:
            raise ConfigError(f"{result.rung!r} took {seconds} s; give the measured seconds, over 0")
        area = expected_area(result.boxes.confidence)
        boxes = result.boxes[result.boxes.confidence >= rules.confidence]
        result = replace(result, found=boxes)
        elapsed = result.captured - self.last.captured if self.last else math.inf
        taken = None if result.cold else _on_average(rung, result.part, seconds, result.beside)
        latency = self.latency.observed(rung.name, taken, now, result.beside)
        if elapsed < 0:
            return replace(self, latency=latency)
        answered = {result.part} if result.part else set(members_of(rung.name))
        retention, anchor = self._moved(result)
        visible = rung.accuracy if rules.debias else (1.0,) * self.ladder.bins
        found = counts(sizes(boxes, rules.width, rules.height), self.ladder.edges)
        histogram = self.histogram.seen(found, visible, elapsed / rules.memory_seconds)
        evidence = self.evidence
        if rules.drift is not None:
            expected = float(np.dot(histogram.shares, rung.accuracy))
            if looks_of(rung.name) > 1:  # looks that are long ago or moved far add less to what is found
                apart = between(rung.name, result.part, result.captured, self.looked)
                expected *= float(self.held(rung.name, np.array([apart * rules.fps]))[0])
            first = self.in_new_view and result.captured >= self.viewed
            evidence = evidence.seen(rung.name, area, expected, max(elapsed, LONGEST) if first else elapsed)
        back = {n for n, out in self.out.items() if answered.issuperset(members_of(n)) or n == rung.name}
        return replace(
            self,
            latency=latency,
            histogram=histogram,
            evidence=evidence,
            retention=retention,
            anchor=anchor,
            turn=self.turn + TURN_WEIGHT * (elapsed - self.turn) if self.last else 0.0,
            out={n: out for n, out in self.out.items() if n not in back or (out.blind and not len(boxes))},
            last=result,
            looked={**self.looked, **dict.fromkeys(answered, result.captured)},
            began=now if self.began is None else self.began,
            since=self.since if self.last else now,  # what it begins with has to tell first of load and motion
        )._doubted(result, now)

    def _doubted(self, result: Answer, now: float) -> Self:
        """After an answer: one in charge that sees nothing, where others are sure of something, leaves the ladder."""
        if result.rung in self.others:
            return self._with_doubt(self.doubt.looked(result.rung, _surest(result), result.captured))
        if result.rung != self.active:
            return self
        doubt = self.doubt.answered(len(result.boxes) > 0, result.captured, self.ladder.rung(self.active).mean)
        if not doubt.sure(len(self.others)):
            return self._with_doubt(doubt)
        seers = " and ".join(repr(name) for name in sorted(doubt.against, key=doubt.against.__getitem__)[-2:])
        left = self.failed(self.active, now, f"it sees nothing where {seers} see something")
        out = {**left.out, self.active: replace(left.out[self.active], blind=True)}
        return replace(left, out=out)._with_doubt(Doubt())

    def _with_doubt(self, doubt: Doubt) -> Self:
        return replace(self, doubts={**self.doubts, self.active: doubt})

    @property
    def doubt(self) -> Doubt:
        """What is held against the one in charge."""
        return self.doubts.get(self.active, Doubt())

    @property
    def others(self) -> tuple[str, ...]:
        """Single models that are no part of the one in charge: what it does not see they may."""
        own = members_of(self.active)
        return tuple(
            each.name for each in self.ladder.rungs if len(members_of(each.name)) == 1 and each.name not in own
        )

    def failed(self, name: str, now: float, why: str) -> Self:
        """After a rung could not answer: it leaves the ladder, and is tried again after a while that doubles."""
        failures = self.out[name].failures + 1 if name in self.out else 1
        until = now + self.rules.retry * 2 ** min(failures - 1, 6)
        out = Out(why, until, failures)
        return replace(self, out={**self.out, self.ladder.rung(name).name: out})

    def looking(self, look: Look) -> Self:
        """After the camera's frames changed; cameras are never quite steady, so that small changes of pace are none."""
        steady = abs(look.fps - self.rules.fps) < PACE_CHANGE * self.rules.fps
        fps = self.rules.fps if steady else look.fps
        rules = replace(self.rules, fps=fps, width=look.width, height=look.height, period=look.period)
        if rules == self.rules:
            return self if look.since == self.viewed else replace(self, viewed=look.since)
        retention = self.retention.repaced(fps / self.rules.fps) if fps != self.rules.fps else self.retention
        return replace(self, rules=rules, retention=retention, viewed=look.since)

    def paced(self, name: str, seconds: float, now: float, part: str = "", beside: float = 0.0) -> Self:
        """Learns from what a rung took for another camera."""
        rung = next((rung for rung in self.ladder.rungs if rung.name == name), None)
        if rung is None:
            return self
        taken = _on_average(rung, part, seconds, beside)
        return replace(self, latency=self.latency.observed(name, taken, now, beside))

    def unlooking(self) -> Self:
        """The same without looks of other rungs, for as long as others need the processor more."""
        return replace(self, rules=replace(self.rules, probe_share=0.0)) if self.rules.probe_share else self

    def taken(self, choice: Choice, now: float) -> Self:
        """Notes that a choice was acted upon."""
        began = now if self.began is None else self.began
        if choice.probe and (self.in_new_view or self.doubt.since is not None):
            return replace(self, began=began)  # it costs nothing: what is on screen is of another view, or nothing
        if choice.probe:
            left = left_after(self, self.ladder.rung(choice.name), now, (choice.name,))
            return replace(self, began=began, credit=(left, now))
        if choice.name == self.active:
            return replace(self, began=began)
        changed = replace(self, active=choice.name, since=now, began=began)
        if self.last is None or self.last.rung not in changed.others:
            return changed
        seen = changed.doubt.looked(self.last.rung, _surest(self.last), self.last.captured)
        return changed._with_doubt(seen)

    def precision(self, name: str, cycle: float | None = None, wait: float = 0.0) -> float:
        """Average precision of what is on screen when `name` answers.

        cycle: seconds from one answer to the next, when the processor also works for others; its own latency else.
        """
        turns = self.latency.turns(self.ladder.rung(name))
        shown, cycle = [], cycle or 0.0
        # Each answer of models in turn is on screen until the next one's is there.
        for seconds, following in zip(turns, turns[1:] + turns[:1], strict=True):
            ages = self._ages(seconds, max(cycle, following), wait)
            worth = float(self.precisions(name, ages.frames, max(cycle, fmean(turns), self.rules.period)) @ ages.shares)
            shown.append((max(cycle, following, self.rules.period, 1 / self.rules.fps), worth))
        return sum(span * worth for span, worth in shown) / sum(span for span, _ in shown)

    def precisions(self, name: str, ages: FloatArray, turn: float | None = None) -> FloatArray:
        """Average precision of boxes of `name` that are so many frames old: float64 [n] from [n].

        turn: seconds from one answer to the next, the mean so far when None.
        """
        rung = self.ladder.rung(name)
        worth = np.multiply(self.histogram.shares, rung.accuracy)
        factor = self.evidence.factor(name) if self.rules.drift else 1.0
        apart = max((self.turn if turn is None else turn) * self.rules.fps, 1.0)
        return np.asarray(factor * self.held(name, np.array([apart])) * (worth @ self.retention.kept(ages, rung.fit)))

    def held(self, name: str, apart: FloatArray) -> FloatArray:
        """Share of its precision that a rung keeps when its looks are so many frames apart: float64 [n].

        All, unless in turn. What older looks found is moved to the newest one's frame, which fails for a part of what
        motion would lose; when they are too old to count, what is left is what one model finds.
        """
        rung, looks = self.ladder.rung(name), looks_of(name)
        if looks == 1:
            return np.ones(len(apart))
        worth = np.multiply(self.histogram.shares, rung.accuracy)
        older = np.arange(1, looks)[:, None] * apart
        fresh = float(worth.sum()) or 1.0
        left = worth @ self.retention.kept(older.ravel(), rung.fit) / fresh
        alone = [each.accuracy for each in self.ladder.rungs if each.name in members_of(name)]
        lone = float(np.mean(alone, axis=0) @ self.histogram.shares) / fresh if alone else LONE
        recent = older <= RECENT_SECONDS * self.rules.fps
        return share_held(left.reshape(older.shape), recent, lone)

    def curves(self, names: Sequence[str], ages: FloatArray) -> FloatArray:
        """`precisions` of several rungs at once: float64 [names, ages]."""
        rungs = [self.ladder.rung(name) for name in names]
        kept = self.retention.kept(ages, np.array([rung.fit for rung in rungs])[:, None, None])
        worth = np.multiply(self.histogram.shares, [rung.accuracy for rung in rungs])
        factors = np.array([self.evidence.factor(name) if self.rules.drift else 1.0 for name in names])
        return np.asarray(factors[:, None] * (worth[:, None] @ kept)[:, 0])

    def available(self, now: float) -> list[Rung]:
        """Rungs that may be chosen: those that fit in memory, did not fail lately and are not contradictory.

        When all have failed, the one that may be tried again first.
        """
        possible = fitting(self.ladder, self.rules)
        sound = [rung for rung in possible if rung.name not in self.out or self.out[rung.name].until <= now]
        beaten = useless(tuple(sound))
        sound = [rung for rung in sound if rung.name not in beaten]
        return sound or [min(possible, key=lambda rung: (self.out[rung.name].until, rung.name))]

    def choice(self, now: float, resident: Collection[str] = ()) -> Choice:
        """What should answer a frame that is taken up now.

        resident: rungs in memory, which need no load; of the others the load is charged.
        """
        rungs = {rung.name: rung for rung in self.available(now)}
        values = {name: self.precision(name) for name in sorted(rungs)}
        known = self.active in rungs
        worth = {name: value * self.kept(rungs[name], resident) for name, value in values.items()}
        if not known:
            return self._first(worth, values, resident)
        best = max(worth, key=lambda name: (worth[name], name == self.active))
        relative = MappingProxyType(over(values, values[self.active]))
        if self.last is None:
            return Choice(self.active, f"{self.active!r} has not answered yet", relative)
        if self.in_new_view:
            quick = at_once(self, rungs, resident)
            if quick != self.active:
                return Choice(quick, f"nothing is known of the new view, and {quick!r} answers soon", relative, True)
            return Choice(self.active, f"{self.active!r} answers soon enough in the new view", relative)
        rested = now - self.credit[1] >= self.rules.dwell
        if rested and (look := candidate(self, rungs, values, now, resident)) is not None:
            return Choice(look, f"a look of {look!r} at what {self.active!r} may miss", relative, True)
        gain = worth[best] - (1 + self.rules.margin) * values[self.active]
        if best == self.active or gain <= 0:
            return Choice(self.active, stays(self.active, worth, relative), relative)
        if now - self.since < self.rules.dwell:
            return Choice(self.active, f"{self.active!r} stays until it ran for {self.rules.dwell:g} s", relative)
        seconds = self.latency.seconds[best]
        why = instead(best, self.active, relative[best], self._ages(seconds, 0.0).frames, seconds)
        return Choice(best, why, relative)

    def _first(self, worth: Mapping[str, float], values: Mapping[str, float], resident: Collection[str]) -> Choice:
        """With nothing in charge. Before the first answer load and motion are unknown: who answers first soon tells."""
        why = f"{self.active!r} left the ladder: {self._why(self.active)}; " if self.active else ""
        if self.last is None:
            until = {name: missing_seconds(self.ladder, name, resident) + self.latency.seconds[name] for name in worth}
            best = min(worth, key=lambda name: (until[name], -worth[name]))
            why += f"{best!r} is the quickest to tell how busy the processor and how fast the scene is"
        else:
            best = max(worth, key=worth.__getitem__)
            why += f"{best!r} is expected to be the most accurate on screen"
        return Choice(best, why, MappingProxyType(over(values, values[best])))

    @property
    def in_new_view(self) -> bool:
        """Whether the camera shows another view than that of the newest answer."""
        return self.last is not None and self.last.captured < self.viewed

    def kept(self, rung: Rung, resident: Collection[str]) -> float:
        """Share of the horizon that is left after a switch to this rung."""
        if rung.name == self.active or rung.name in resident:
            return 1.0
        return max(1 - missing_seconds(self.ladder, rung.name, resident) / self.rules.horizon, 0.0)

    def _ages(self, seconds: float, cycle: float, wait: float = 0.0) -> Ages:
        """Ages in frames of the boxes on screen of an answer that takes so many seconds."""
        turn = max(cycle, seconds, self.rules.period)
        if not self.rules.own_frame:
            return Ages.of(seconds, turn, self.rules.fps, wait, self.latency.varies)
        late, frames = (frames_on_screen(each, self.rules.fps) for each in (seconds, turn))
        first = 0 if late == 1 else late
        return Ages.between(first, first + frames - 1)

    def _moved(self, result: Answer) -> tuple[Retention, Answer]:
        """What is known of motion after an answer, and the answer to compare the next ones with."""
        since, rules = self.anchor, self.rules
        if since is None or since.captured < self.viewed <= result.captured:
            return self.retention, result
        if result.captured < self.viewed:  # of a view that is gone, which may be yet another one than the anchor's
            return self.retention, since
        if result.expected is not None and self.last is not None:
            # Boxes that are moved cease to be right by what the forecast misses, not by what the objects move.
            shown = result.expected[result.expected.confidence >= rules.confidence]
            since = replace(self.last, found=shown)
        elapsed = result.captured - since.captured
        if elapsed * rules.fps < (NEARLY if result.expected is not None else self.retention.span - NEARLY):
            return self.retention, since
        bins = size_bins(sizes(since.boxes, rules.width, rules.height), self.ladder.edges)
        before, after = self.ladder.rung(since.rung), self.ladder.rung(result.rung)
        weight = 1 - math.exp(-elapsed / rules.motion_seconds)
        static = (before.static_iou * after.static_iou) ** 0.5
        overlaps = matched(since.boxes, result.boxes, bins)
        return self.retention.observed(overlaps, static, elapsed * rules.fps, weight, before.accuracy), result

    def _why(self, name: str) -> str:
        return self.out[name].why if name in self.out else "another model beats it in everything"


def _surest(answer: Answer) -> float:
    """Probability of the box that is likeliest right, 0 without any."""
    return float(answer.boxes.confidence.max(initial=0.0))


def _on_average(rung: Rung, part: str, seconds: float, beside: float) -> float:
    """Seconds of an answer on average when that of the model `part` took so many beside so many programs."""
    return among(rung.on_average(part, alone(seconds, beside)), beside)
