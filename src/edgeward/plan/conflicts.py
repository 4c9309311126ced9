"""Why there is no plan: a smallest set of rules that cannot hold together.

describe_conflict(world, objective, rules)
# "no plan of 'vgg19' on fleet '3g' keeps 'use cloud' and 'avoid cloud' together: drop 'use cloud'; or ..."
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np

from edgeward.plan.arrays import Way
from edgeward.plan.compiling import World, compile_problem
from edgeward.plan.constraints import ByteCap, Drop, Links, Memory, Private, Rule, TimeCap
from edgeward.plan.dynamic import k_best
from edgeward.plan.labels import TooManyLabelsError, any_labels, k_best_labels, quick_labels
from edgeward.plan.objective import Objective
from edgeward.plan.problem import Measure, Problem
from edgeward.units import format_bytes

__all__ = ["MAX_LABELS", "describe_conflict", "smallest_conflict"]

MAX_LABELS = 2_000
"""Most labels kept to tell whether rules conflict."""


def smallest_conflict(world: World, objective: Objective, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """A smallest set of the rules that no plan keeps; empty when a plan keeps all of them.

    One irreducible set is found by leaving rules out one by one; then all smaller sets are tried by size. A set for
    which this cannot be told within MAX_LABELS incomparable ways is taken to have a plan.
    """

    def possible(chosen: Sequence[Rule]) -> bool:
        return _keeps(compile_problem(world, objective, chosen))

    core = list(dict.fromkeys(rules))
    if possible(core):
        return ()
    for rule in tuple(core):
        rest = [one for one in core if one is not rule]
        if not possible(rest):
            core = rest
    for size in range(len(core)):
        for chosen in combinations(dict.fromkeys(rules), size):
            if not possible(chosen):
                return chosen
    return tuple(core)


def _keeps(problem: Problem) -> bool:
    """Whether some plan keeps the rules, or none was ruled out within MAX_LABELS."""
    try:
        return any_labels(problem, MAX_LABELS) is not None
    except TooManyLabelsError:
        return True


def describe_conflict(world: World, objective: Objective, rules: Sequence[Rule]) -> str:
    """One line that names a smallest conflicting set and what would resolve it."""
    core = smallest_conflict(world, objective, rules)
    names = [f"'{rule}'" for rule in core]
    together = f"{', '.join(names[:-1])} and {names[-1]} together" if len(names) > 1 else "".join(names)
    remedy = "; or ".join(_way_out(world, replace(objective, kind="latency"), core, rule) for rule in core)
    return f"no plan of {world.profile.model!r} on fleet {world.fleet.name!r} keeps {together}: {remedy}"


def _solve(problem: Problem) -> Way | None:
    """The best plan, or some good one when the best takes too long to find."""
    try:
        return next(iter(k_best(problem, 1) if problem.plain else k_best_labels(problem, 1, MAX_LABELS)), None)
    except TooManyLabelsError:
        return quick_labels(problem)


def _way_out(world: World, objective: Objective, core: Sequence[Rule], rule: Rule) -> str:
    """What to change about one rule so that the others of the set can be kept."""
    rest = [one for one in core if one != rule]
    free = compile_problem(world, objective, rest)
    match rule:
        case TimeCap(share=None) | ByteCap():
            cap = compile_problem(world, objective, [rule]).caps[0].measure
            if (found := _solve(replace(free, goals=(cap,)))) is not None:
                least = _total(free, cap, found)
                milliseconds = math.ceil(1e6 * least) / 1e3
                enough = f"{math.ceil(least)} B" if isinstance(rule, ByteCap) else f"{milliseconds:.12g} ms"
                return f"raise '{rule}' to {enough}"
        case TimeCap():
            return f"allow {rule.where} a larger share"
        case Links():
            absent = (~world.costs.links.exists).astype(np.float64)
            fewest = replace(Measure.nothing(world.costs), fixed=absent)
            if (found := _solve(replace(free, goals=(fewest,)))) is not None:
                return f"add a link {', '.join(_missing(free, found))}"
        case Drop():
            loss = replace(Measure.nothing(world.costs), loss=1.0)
            known = compile_problem(world, objective, [*rest, Drop(math.inf)])
            if (found := _solve(replace(known, goals=(loss,)))) is not None:
                points = math.ceil(1e6 * _total(known, loss, found) - 1e-6) / 1e4
                return f"allow 'accuracy drop at most {points:.12g} %'"
            return "measure what packings lose, or allow 'any accuracy'"
        case Memory():
            return f"give {rule.device} more memory than {format_bytes(world.fleet.device(rule.device).memory or 0)}"
        case Private():
            return f"add a device to zone {rule.zone}, or allow that its raw data leaves"
    return f"drop '{rule}'"


def _hops(problem: Problem, way: Way) -> Iterator[tuple[int, int, int]]:
    """Boundary, source and target of every hop of a way."""
    source = problem.costs.source
    path = [source, *way.devices.tolist(), *([source] if problem.returns else [])]
    yield from ((k, a, b) for k, (a, b) in enumerate(pairwise(path)) if a != b)


def _total(problem: Problem, measure: Measure, way: Way) -> float:
    """The sum of a measure along a way."""
    options, total, before = problem.costs.options, 0.0, -1
    for k, a, b in _hops(problem, way):
        at = int(way.packings[k]), k
        total += float(measure.fixed[a, b] + measure.rate[a, b] * problem.moved[at])
        total += float(measure.work[a] * options.pack[at][a] + measure.work[b] * options.unpack[at][b])
        total += measure.loss * float(np.nan_to_num(options.drop[at]))
    for block, device in enumerate(way.devices.tolist()):
        total += float((measure.inner if device == before else measure.start)[block, device])
        before = device
    return total


def _missing(problem: Problem, way: Way) -> list[str]:
    """The hops of a way for which there is no link."""
    devices, exists = problem.costs.devices, problem.costs.links.exists
    ways = dict.fromkeys((a, b) for _, a, b in _hops(problem, way) if not exists[a, b])
    return [f"{devices[a].name}->{devices[b].name}" for a, b in ways]
