"""Dominance against its definition, and the two solvers against each other where both apply."""

from __future__ import annotations

import numpy as np
import pytest

from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.compiling import World, compile_problem
from edgeward.plan.constraints import Links
from edgeward.plan.costs import Costs
from edgeward.plan.dominance import CHUNK, undominated
from edgeward.plan.dynamic import k_best
from edgeward.plan.labels import k_best_labels
from edgeward.plan.objective import LATENCY
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("top", [1, 3])
def test_kept_are_those_with_fewer_than_k_dominators(columns, top):
    rng = np.random.default_rng(columns)
    groups = np.sort(np.concatenate([np.arange(30), rng.integers(0, 29, 300), np.full(3 * CHUNK, 29)]))
    figures = rng.integers(0, 60, (len(groups), columns)).astype(np.float64)
    order = np.lexsort((*figures.T[::-1], groups))
    figures = figures[order]
    below = (figures[:, None] <= figures[None]).all(axis=2) & (groups[:, None] == groups)
    dominators = np.triu(below, 1).sum(axis=0)
    assert (undominated(groups, figures, top) == (dominators < top)).all()
    assert undominated(groups[:0], figures[:0], top).shape == (0,)


@pytest.mark.parametrize("seed", range(4))
def test_labels_and_dynamic_programming_agree_on_larger_problems(seed):
    rng = np.random.default_rng(seed)
    count, size = 80, 7
    names = [f"d{number}" for number in range(size)]
    profile = Profile(
        model="m",
        fingerprint="f",
        input_bytes=100_000,
        blocks=tuple(BlockCost(name=f"b{k}", output_bytes=int(rng.integers(100, 100_000))) for k in range(count)),
        times={name: DeviceTimes(seconds=tuple(rng.uniform(1e-3, 2e-2, count))) for name in names},
    )
    fleet = Fleet(
        devices=tuple(Device(name=name, tier="edge") for name in names),
        links=tuple(
            Link(between=(a, b), bandwidth=float(rng.uniform(1e7, 1e9)), latency=0.001)
            for a in names
            for b in names
            if a < b
        ),
    )
    problem = compile_problem(World(profile, fleet, Costs.of(profile, fleet, 0.5)), LATENCY, (Links(),))
    one, other = k_best(problem, 20), k_best_labels(problem, 20)
    assert [way.devices.tolist() for way in one] == [way.devices.tolist() for way in other]
    assert len({tuple(way.devices.tolist()) for way in one}) == 20
