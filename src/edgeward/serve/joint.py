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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.selection import Selector, frames_on_screen
from edgeward.units import format_bytes

__all__ = ["LIMIT", "Assignment", "assign", "exact", "greedy"]

LIMIT = 4096
Names = tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """names: of the model for each camera. total: sum of average precisions on screen. cycle: seconds of one turn."""

    names: Mapping[str, str]
    total: float
    cycle: float
    reason: str


class _Problem:
    """The cameras in name order, what each may get, and what a combination is worth."""

    def __init__(self, cameras: Mapping[str, Selector], now: float, memory: int | None) -> None:
        self.cameras = [cameras[name] for name in sorted(cameras)]
        self.options = [_options(camera, now) for camera in self.cameras]
        self.memory = memory
        self._value = functools.cache(self._precision)

    def total(self, names: Names) -> float:
        """Sum of average precisions; minus infinity when the models do not fit in memory together."""
        if self.memory is not None and self.bytes(names) > self.memory:
            return -math.inf
        cycle = self.cycle(names)
        return math.fsum(
            self._value(index, name, frames_on_screen(cycle, self.cameras[index].rules.fps))
            for index, name in enumerate(names)
        )

    def cycle(self, names: Names) -> float:
        """Seconds until every camera was served once."""
        return math.fsum(camera.latency.seconds[name] for camera, name in zip(self.cameras, names, strict=True))

    def bytes(self, names: Names) -> int:
        """Bytes of the models together, one that several cameras use once."""
        pairs = zip(self.cameras, names, strict=True)
        return sum({name: camera.ladder.rung(name).bytes for camera, name in pairs}.values())

    def _precision(self, index: int, name: str, frames: int) -> float:
        """Worked out once for each number of frames that a turn takes."""
        camera = self.cameras[index]
        return camera.precision(name, frames / camera.rules.fps)


def assign(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """The models that are together the most accurate on screen.

    memory: bytes for all models together, None for no limit. A camera whose model has not run for its dwell keeps it,
    and all keep theirs unless the gain exceeds the largest margin of their rules.

    Raises ConfigError without cameras, BudgetError when no combination fits in memory.
    """
    problem = _problem(cameras, now, memory)
    count = math.prod(len(options) for options in problem.options)
    best = _exact(problem) if count <= LIMIT else _greedy(problem)
    held = tuple(camera.active for camera in problem.cameras)
    how = f"the best of all {count} combinations" if count <= LIMIT else f"the best found of {count} combinations"
    if all(name in options for name, options in zip(held, problem.options, strict=True)):
        margin = max(camera.rules.margin for camera in problem.cameras)
        if problem.total(best) <= (1 + margin) * problem.total(held):
            best, how = held, f"no other combination is {100 * margin:g} % better"
    return _assignment(problem, cameras, best, how)


def exact(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """The best of all combinations, however many. Raises as `assign` does."""
    problem = _problem(cameras, now, memory)
    return _assignment(problem, cameras, _exact(problem), "the best of all combinations")


def greedy(cameras: Mapping[str, Selector], now: float, memory: int | None = None) -> Assignment:
    """A combination that no change of one or two cameras improves. Raises as `assign` does."""
    problem = _problem(cameras, now, memory)
    return _assignment(problem, cameras, _greedy(problem), "no change of two cameras improves it")


def _problem(cameras: Mapping[str, Selector], now: float, memory: int | None) -> _Problem:
    if not cameras:
        raise ConfigError("no camera to choose a model for; give at least one")
    return _Problem(cameras, now, memory)


def _options(camera: Selector, now: float) -> Names:
    names = tuple(sorted(rung.name for rung in camera.available(now)))
    return (camera.active,) if camera.active in names and now - camera.since < camera.rules.dwell else names


def _exact(problem: _Problem) -> Names:
    return max(itertools.product(*problem.options), key=problem.total)


def _greedy(problem: _Problem) -> Names:
    """Climbs from every model for all cameras, and from the fastest of each."""
    fastest = tuple(
        min(options, key=lambda name: camera.latency.seconds[name])
        for camera, options in zip(problem.cameras, problem.options, strict=True)
    )
    every = sorted({name for options in problem.options for name in options})
    starts = {
        tuple(name if name in options else quick for options, quick in zip(problem.options, fastest, strict=True))
        for name in every
    }
    return max((_climbed(problem, start) for start in sorted({fastest, *starts})), key=problem.total)


def _climbed(problem: _Problem, names: Names) -> Names:
    total = problem.total(names)
    while True:
        better = max(_neighbours(problem, names), key=problem.total, default=names)
        if problem.total(better) <= total:
            return names
        names, total = better, problem.total(better)


def _neighbours(problem: _Problem, names: Names) -> Iterable[Names]:
    """All that differ in one camera, and in two."""
    places = range(len(names))
    for changed in itertools.chain(((place,) for place in places), itertools.combinations(places, 2)):
        for others in itertools.product(*(problem.options[place] for place in changed)):
            moved = dict(zip(changed, others, strict=True))
            yield tuple(moved.get(place, name) for place, name in enumerate(names))


def _assignment(problem: _Problem, cameras: Mapping[str, Selector], names: Names, how: str) -> Assignment:
    total = problem.total(names)
    if total == -math.inf:
        raise BudgetError(
            f"no combination of models fits in {format_bytes(problem.memory or 0)}; the one found needs "
            f"{format_bytes(problem.bytes(names))}; raise the memory or take models off the ladders"
        )
    cycle = problem.cycle(names)
    reason = f"{how}: {total / len(names):.3f} on average, each camera every {1000 * cycle:.0f} ms"
    return Assignment(MappingProxyType(dict(zip(sorted(cameras), names, strict=True))), total, cycle, reason)
