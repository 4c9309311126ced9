"""What combinations of models for several cameras are worth, when one processor serves them all in turn.

    combinations = Combinations(selectors, now, memory=256 << 20)
    totals = combinations.totals(combinations.every())          # of each: the sum of what is on screen

An accurate model for one camera makes the boxes of all others older: an answer appears when its own inference ends and
stays until the turn is round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.serve.ages import age_means, oldest, own_frame_means
from edgeward.serve.members import member_bytes
from edgeward.serve.modelconfig import members_of
from edgeward.serve.selection import Selector

__all__ = ["STEPS", "Combinations", "IntArray", "turn"]

STEPS = 80.0
"""Turns that differ by less than one part in so many are taken for equal."""
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class Combinations:
    """The cameras in name order, what each may get, and what combinations are worth.

    A combination is a row of numbers: of each camera's options, the one that it gets. held: what they have, or the
    quickest where a camera has none of its options. Raises ConfigError without cameras.
    """

    def __init__(self, cameras: Mapping[str, Selector], now: float, memory: int | None) -> None:
        if not cameras:
            raise ConfigError("no camera to choose a model for; give at least one")
        self.names = sorted(cameras)
        self.cameras = [cameras[name] for name in self.names]
        self.options = [_options(camera, now) for camera in self.cameras]
        self.memory = memory
        pairs = list(zip(self.cameras, self.options, strict=True))
        self._seconds = [np.array([camera.latency.seconds[name] for name in names]) for camera, names in pairs]
        self.periods = np.array([_period(camera) for camera in self.cameras])
        known = {name: camera.ladder.rung(name) for camera, names in pairs for name in names}
        sizes = member_bytes(known.values())
        self._models = list(sizes)
        self._bytes = np.array(list(sizes.values()), np.float64)
        self._members = [
            np.array([[each in members_of(name) for each in sizes] for name in names]) for _, names in pairs
        ]
        # All other turns lie between those with everybody's fastest model and with everybody's slowest.
        ends = np.array([[each.min() for each in self._seconds], [each.max() for each in self._seconds]])
        first, last = _steps(_turns(ends, self.periods))
        self._steps = np.arange(first - 1, last + 2)
        # How long others hold the processor up is the seconds of one of their models.
        waits = np.unique(np.concatenate([[0.0], *self._seconds]))
        self._ranks = [np.searchsorted(waits, each) for each in self._seconds]
        turns = np.exp(self._steps / STEPS)
        self._worths = [_Worth(camera, names, turns, waits) for camera, names in pairs]
        self.quickest = [names[int(each.argmin())] for (_, names), each in zip(pairs, self._seconds, strict=True)]
        self._having = [camera.active in names for camera, names in pairs]
        self.held = self.row(
            camera.active if has else quick
            for camera, has, quick in zip(self.cameras, self._having, self.quickest, strict=True)
        )
        self._prices = np.zeros(len(self.cameras))
        self._kept = [np.ones(len(names)) for names in self.options]

    def charge(self, resident: Collection[str] | None) -> bool:
        """From now on changes cost: their cameras' margins, and loads of models that are not resident, unless None.

        Not those of a camera that has nothing, nor margins when what all have does not fit in memory any more. False
        when nothing costs.
        """
        if self.fits(self.held).all():
            margins = np.array([camera.rules.margin for camera in self.cameras])
            self._prices = np.where(self._having, margins * self.values(self.held)[0], 0.0)
        for place, (camera, names) in enumerate(zip(self.cameras, self.options, strict=True)):
            if resident is not None and self._having[place]:
                self._kept[place] = np.array([camera.kept(camera.ladder.rung(name), resident) for name in names])
        return bool(self._prices.any()) or any((each < 1).any() for each in self._kept)

    @property
    def count(self) -> int:
        """How many combinations there are."""
        return math.prod(len(options) for options in self.options)

    def every(self) -> IntArray:
        """All combinations: [n, cameras]."""
        grid = np.meshgrid(*(np.arange(len(options)) for options in self.options), indexing="ij")
        return np.stack([axis.ravel() for axis in grid], axis=1)

    def seconds(self, rows: IntArray) -> FloatArray:
        """Of each camera's answer: [n, cameras]."""
        return np.stack([each[rows[:, place]] for place, each in enumerate(self._seconds)], axis=1)

    def bytes(self, rows: IntArray) -> FloatArray:
        """Of the models together, one that several cameras use once: [n]."""
        used = np.zeros((len(rows), len(self._models)), np.bool_)
        for place, members in enumerate(self._members):
            used |= members[rows[:, place]]
        return np.asarray(used @ self._bytes)

    def totals(self, rows: IntArray) -> FloatArray:
        """Sum of average precisions, less what changes cost: [n]; minus infinity for models that do not fit in memory
        together."""
        kept = np.stack([each[rows[:, place]] for place, each in enumerate(self._kept)], axis=1)
        total = (self.values(rows) * kept).sum(axis=1) - (rows != self.held) @ self._prices
        return np.where(self.fits(rows), total, -math.inf)

    def turn(self, row: IntArray) -> float:
        """Seconds of one turn of the processor under the combination: see `turn`."""
        return float(_turns(self.seconds(row), self.periods)[0])

    def fits(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Whether the models fit in memory together: [n]."""
        return np.asarray(self.bytes(rows) <= (math.inf if self.memory is None else self.memory))

    def values(self, rows: IntArray) -> FloatArray:
        """Average precision on the screen of each camera: [n, cameras]."""
        steps = _steps(_turns(self.seconds(rows), self.periods))
        turns, column = np.exp(steps / STEPS), steps - self._steps[0]
        ranks = [each[rows[:, place]] for place, each in enumerate(self._ranks)]
        values = np.empty(rows.shape)
        for place, worth in enumerate(self._worths):
            option, keeps = rows[:, place], turns <= worth.period
            found = worth.at_turn[option, column]
            if keeps.any():
                # How long others hold the processor up matters to those that keep up with their frames only.
                longest = functools.reduce(np.maximum, ranks[:place] + ranks[place + 1 :], np.zeros_like(option))
                found = np.where(keeps, worth.at_wait[option, longest], found)
            values[:, place] = found
        return values

    def row(self, names: Iterable[str]) -> IntArray:
        """The combination of these models as one row."""
        return np.array([[options.index(name) for name, options in zip(names, self.options, strict=True)]])


class _Worth:
    """What each option of a camera is worth on screen.

    at_turn: [options, turns], of turns in which it does not keep up with its frames. at_wait: [options, waits], of
    those in which it does, and begins up to so many seconds after a frame.
    """

    def __init__(self, camera: Selector, options: Sequence[str], turns: FloatArray, waits: FloatArray) -> None:
        self.period, fps = _period(camera), camera.rules.fps
        parts = [camera.latency.turns(camera.ladder.rung(name)) for name in options]
        seconds = np.array([each for part in parts for each in part])
        following = np.array([each for part in parts for each in part[1:] + part[:1]])
        spans = np.maximum(np.concatenate([turns, np.zeros(len(waits))]), self.period)
        begins = np.concatenate([np.zeros(len(turns)), waits])
        shown = np.maximum(spans, following[:, None])
        late, span, wait = ((each * fps).ravel() for each in np.broadcast_arrays(seconds[:, None], shown, begins[None]))
        curves = camera.curves(options, np.arange(oldest(late, span, wait, camera.latency.varies) + 1.0))
        which = np.repeat(np.arange(len(options)), [len(part) * len(spans) for part in parts])
        if camera.rules.own_frame:
            found = own_frame_means(curves, which, late, span)
        else:
            found = age_means(curves, which, late, span, wait, camera.latency.varies)
        # Each answer of models in turn is on screen until the next one's is there.
        first = np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]])
        weight = np.maximum(shown, 1 / fps)
        means = np.add.reduceat(weight * found.reshape(shown.shape), first) / np.add.reduceat(weight, first)
        apart = np.maximum(np.maximum(spans, np.array([fmean(part) for part in parts])[:, None]) * fps, 1.0)
        means *= np.array([camera.held(name, each) for name, each in zip(options, apart, strict=True)])
        self.at_turn, self.at_wait = np.split(means, [len(turns)], axis=1)


def turn(seconds: Sequence[float], periods: Sequence[float]) -> float:
    """Seconds after which each camera is served again by a processor that always serves the one waiting longest.

    seconds: of one answer of each camera. periods: between its frames; who has no new frame is passed over, so that the
    others come round sooner. The shares of time that all take, seconds over the longer of period and turn, make 1; when
    they make less the processor keeps up with all, and the turn is the longest answer.
    """
    return float(_turns(np.array([seconds]), np.array(periods))[0])


def _turns(seconds: FloatArray, periods: FloatArray) -> FloatArray:
    """`turn` of many combinations: [n] from seconds [n, cameras] and periods [cameras]."""
    busy, left = seconds.sum(axis=1), np.ones(len(seconds))
    found = np.full(len(seconds), np.nan)
    for place in np.argsort(-periods, kind="stable"):
        # Who has frames seldom keeps up if anyone does: the others share what it leaves.
        full = np.isnan(found) & (busy > left * periods[place])
        found[full] = busy[full] / left[full]
        left, busy = left - seconds[:, place] / periods[place], busy - seconds[:, place]
    return np.asarray(np.fmax(found, seconds.max(axis=1)))


def _steps(turns: FloatArray) -> IntArray:
    """Turns on a scale of their logarithms, so that many combinations have turns in common."""
    return np.round(np.log(turns) * STEPS).astype(np.intp)


def _period(camera: Selector) -> float:
    """Seconds between the frames of a camera that are asked for."""
    return max(1 / camera.rules.fps, camera.rules.period)


def _options(camera: Selector, now: float) -> tuple[str, ...]:
    names = tuple(sorted(rung.name for rung in camera.available(now)))
    return (camera.active,) if camera.active in names and now - camera.since < camera.rules.dwell else names
