"""Which model each camera gets when one processor serves them all in turn.

    assignment = assign({"gate": gate, "yard": yard}, now, memory=256 << 20)     # a Selector for each camera
    print(assignment.names["gate"], assignment.total, assignment.reason)

An accurate model for one camera makes the boxes of all others older: an answer appears when its own inference ends and
stays until the turn is round. The choice maximises the sum of what is on screen; up to LIMIT combinations are all
tried, beyond that a greedy search changes one or two cameras at a time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.ages import age_means, oldest, own_frame_means
from edgeward.serve.members import member_bytes
from edgeward.serve.modelconfig import members_of
from edgeward.serve.selection import Selector
from edgeward.units import format_bytes

__all__ = ["LIMIT", "Assignment", "assign", "exact", "greedy", "turn"]

LIMIT = 4096
STEPS = 80.0
"""Turns that differ by less than one part in so many are taken for equal."""
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Assignment:
    """names: of the model for each camera. total: sum of average precisions on screen. cycle: seconds of one turn."""

    names: Mapping[str, str]
    total: float
    cycle: float
    reason: str


class _Worth:
    """What each option of a camera is worth on screen.

    at_turn: [options, turns], of turns in which it does not keep up with its frames. at_wait: [options, waits], of
    those in which it does, and begins up to so many seconds after a frame.
    """

    def __init__(self, camera: Selector, options: Sequence[str], turns: FloatArray, waits: FloatArray) -> None:
        self.period, fps = _period(camera), camera.rules.fps
        parts = [camera.ladder.rung(name).turns(camera.latency.seconds[name]) for name in options]
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


class _Problem:
    """The cameras in name order, what each may get, and what combinations are worth.

    A combination is a row of numbers: of each camera's options, the one that it gets. held: what they have, or the
    quickest where a camera has none of its options. steady: a change has to gain the margins of the cameras it changes.
    """

    def __init__(self, cameras: Mapping[str, Selector], now: float, memory: int | None, steady: bool = False) -> None:
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
        having = np.array([camera.active in names for camera, names in pairs])
        active = [camera.active for camera in self.cameras]
        self.held = self.row(a if has else quick for a, has, quick in zip(active, having, self.quickest, strict=True))
        self.prices = np.zeros(len(self.cameras))
        if steady and self.fits(self.held).all():  # who cannot keep what it has pays nothing for the change
            margins = np.array([camera.rules.margin for camera in self.cameras])
            self.prices = np.where(having, margins * self.values(self.held)[0], 0.0)

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
        """Sum of average precisions, less what changes have to gain: [n]; minus infinity for models that do not fit in
        memory together."""
        total = self.values(rows).sum(axis=1) - (rows != self.held) @ self.prices
        return np.where(self.fits(rows), total, -math.inf)

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


def assign(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """The models that are together the most accurate on screen.

    memory: bytes for all models together, None for no limit. A camera whose model has not run for its dwell keeps it,
    and a change has to gain, all cameras together, the margins of those whose models it changes.

    Raises ConfigError without cameras, BudgetError when no combination fits in memory.
    """
    problem = _problem(cameras, now, memory, steady=True)
    best = _exact(problem) if problem.count <= LIMIT else _greedy(problem)
    how = f"the best {'of all' if problem.count <= LIMIT else 'found of'} {problem.count} combinations"
    if problem.prices.any():
        how += ", margins of changes taken off"
    before, after = problem.totals(np.concatenate([problem.held, best]))
    best = problem.held if before >= after else best
    return _assignment(problem, best, how)


def exact(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """The best of all combinations, however many. Raises as `assign` does."""
    problem = _problem(cameras, now, memory)
    return _assignment(problem, _exact(problem), "the best of all combinations")


def greedy(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """A combination that no change of one or two cameras improves. Raises as `assign` does."""
    problem = _problem(cameras, now, memory)
    return _assignment(problem, _greedy(problem), "no change of two cameras improves it")


def _problem(cameras: Mapping[str, Selector], now: float, memory: int | None, steady: bool = False) -> _Problem:
    if not cameras:
        raise ConfigError("no camera to choose a model for; give at least one")
    return _Problem(cameras, now, memory, steady)


def _options(camera: Selector, now: float) -> tuple[str, ...]:
    names = tuple(sorted(rung.name for rung in camera.available(now)))
    return (camera.active,) if camera.active in names and now - camera.since < camera.rules.dwell else names


def _exact(problem: _Problem) -> IntArray:
    rows = problem.every()
    return rows[[problem.totals(rows).argmax()]]


def _greedy(problem: _Problem) -> IntArray:
    """Climbs from what the cameras have, from every model for all of them, and from the fastest of each."""
    starts = [problem.held, problem.row(problem.quickest)] + [
        problem.row(
            name if name in options else quick for options, quick in zip(problem.options, problem.quickest, strict=True)
        )
        for name in sorted({name for options in problem.options for name in options})
    ]
    ends = np.concatenate([_climbed(problem, row) for row in starts])
    return ends[[problem.totals(ends).argmax()]]


def _climbed(problem: _Problem, row: IntArray) -> IntArray:
    total = problem.totals(row)[0]
    while True:
        near = _neighbours(problem, row)
        totals = problem.totals(near)
        best = int(totals.argmax())
        if totals[best] <= total:
            return row
        row, total = near[[best]], totals[best]


def _neighbours(problem: _Problem, row: IntArray) -> IntArray:
    """The combination itself, and all that differ in one or two cameras."""
    found, places = [row], range(len(problem.options))
    for changed in itertools.chain(((place,) for place in places), itertools.combinations(places, 2)):
        grid = np.meshgrid(*(np.arange(len(problem.options[place])) for place in changed), indexing="ij")
        rows = np.repeat(row, grid[0].size, axis=0)
        rows[:, list(changed)] = np.stack([axis.ravel() for axis in grid], axis=1)
        found.append(rows)
    return np.concatenate(found)


def _assignment(problem: _Problem, row: IntArray, how: str) -> Assignment:
    total = float(problem.values(row).sum())
    if problem.totals(row)[0] == -math.inf:
        raise BudgetError(
            f"no combination of models fits in {format_bytes(problem.memory or 0)}; the one found needs "
            f"{format_bytes(int(problem.bytes(row)[0]))}; raise the memory or take models off the ladders"
        )
    cycle = float(_turns(problem.seconds(row), problem.periods)[0])
    reason = f"{how}: {total / len(problem.names):.3f} on average, each camera every {1000 * cycle:.0f} ms"
    names = {name: options[place] for name, options, place in zip(problem.names, problem.options, row[0], strict=True)}
    return Assignment(MappingProxyType(names), total, cycle, reason)
