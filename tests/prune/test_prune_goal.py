"""Targets as people write them, and the search that meets them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.errors import PruneError
from edgeward.prune.cutting import Removed
from edgeward.prune.figures import figures_of
from edgeward.prune.goal import METRICS, Goal, parse_goal
from edgeward.prune.latency import TWIN, Timing, measure, speedup_of
from edgeward.prune.search import Search, search
from edgeward.zoo.pruned import Edits


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("latency<=12ms@pi", Goal("latency", 0.012, device="pi")),
        ("latency <= 0.5x @ edge-1", Goal("latency", 0.5, True, "edge-1")),
        ("params<=0.1x", Goal("params", 0.1, True)),
        ("params<=0.27M", Goal("params", 270_000)),
        ("memory<=4MiB", Goal("memory", 4 << 20)),
        ("size=1.5 MB", Goal("size", 1_500_000)),
        ("macs<200M", Goal("macs", 2e8)),
    ],
)
def test_targets(text, goal):
    assert parse_goal(text) == goal
    assert parse_goal(str(goal)).metric == goal.metric


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faster", "write it like"),
        ("latncy<=3ms", "did you mean 'latency'"),
        ("params<=1x", "between 0 and 1"),
        ("params<=1.5x", "between 0 and 1"),
        ("params<=0", "above 0"),
        ("params<=0x", "between 0 and 1"),
        ("latency<=12", "has no unit; write 12ms or 12s"),
        ("latency<=soon", "not a duration"),
        ("memory<=big", "not a size"),
        ("params<=many", "not a count"),
        ("params<=0.5x@pi", "leave out @pi"),
    ],
)
def test_mistakes_say_what_is_allowed(text, words):
    with pytest.raises(PruneError, match=words):
        parse_goal(text)


def wide(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 3), nn.Flatten())


EXAMPLE = torch.zeros(1, 3, 8, 8)


def candidate(share):
    width = max(1, round(64 * (1 - share)))
    return Removed(wide(width), Edits(kept={"0": tuple(range(width))}))


@given(st.sampled_from(["params", "macs", "size", "memory"]), st.floats(0.1, 0.95))
@settings(max_examples=8, deadline=None)
def test_the_largest_network_within_the_limit_is_found(metric, share):
    goal = Goal(metric, share, True)
    dense = figures_of(wide(64), EXAMPLE)
    found = search(candidate, [goal], (wide(64), EXAMPLE), lambda one, site: 0.0, Search(close=0.0, steps=10))
    assert found.figures[metric] <= share * dense[metric]
    wider = wide(len(found.removed.edits.kept["0"]) + 1)
    assert figures_of(wider, EXAMPLE)[metric] > share * dense[metric]


def test_latencies_are_asked_only_where_what_is_counted_fits():
    asked = []

    def seconds(module, site):
        width = module[0].out_channels
        asked.append(width)
        return width / 64

    goals = [parse_goal("params<=0.5x"), parse_goal("latency<=0.25x@pi")]
    found = search(candidate, goals, (wide(64), EXAMPLE), seconds, Search())
    assert found.seconds["pi"] <= 0.25
    assert found.removed.module[0].out_channels in (15, 16)
    assert max(asked[1:]) <= 32
    assert len(asked) == len(set(asked))  # none twice


def test_what_cannot_be_met_says_how_far_it_got_and_what_is_in_the_way():
    with pytest.raises(
        PruneError, match=r"params<=1 cannot be met: .* reaches 48 of 1; most of its parameters lie in 1"
    ):
        search(candidate, [Goal("params", 1)], (wide(64), EXAMPLE), lambda one, site: 0.0, Search())


def test_a_network_that_fits_as_it_is_stays():
    found = search(candidate, [Goal("params", 1e9)], (wide(64), EXAMPLE), lambda one, site: 0.0, Search())
    assert found.share == 0


def test_figures_are_those_of_the_layers():
    figures = figures_of(wide(4), EXAMPLE)
    assert figures.parameters == 3 * 4 * 9 + 4 + 4 * 2 * 9 + 2
    assert figures.macs == 36 * 3 * 4 * 9 + 16 * 4 * 2 * 9
    assert figures.size == 4 * figures.parameters
    assert figures.memory > figures.size
    assert set(METRICS) == {"latency", "params", "macs", "size", "memory"}


def test_a_speed_up_within_the_noise_is_not_stated():
    before = tuple(1.0 + 0.01 * (index % 3) for index in range(30))
    twin = before[1:] + before[:1]
    timing = Timing({"dense": before, "small": tuple(one / 2 for one in before), "same": twin, TWIN: twin})
    assert timing.speedup("dense", "small").certain
    assert timing.speedup("dense", "small").ratio == pytest.approx(2)
    assert not timing.speedup("dense", "same").certain
    assert "no speed-up beyond the noise" in str(timing.speedup("dense", "same"))
    assert timing.figure("small").median == pytest.approx(0.505)


@given(st.lists(st.floats(0.5, 2), min_size=5, max_size=30), st.floats(0.2, 5))
@settings(max_examples=30, deadline=None)
def test_a_ratio_lies_within_its_interval_and_turns_with_its_sides(values, factor):
    there = speedup_of(values, [one / factor for one in values])
    assert there.low <= there.ratio <= there.high
    assert there.ratio == pytest.approx(factor)
    assert speedup_of([one / factor for one in values], values).ratio == pytest.approx(1 / factor)


def test_networks_are_timed_beside_the_first_ones_twin():
    from edgeward.graph.onnx import export_module

    networks = {"wide": export_module(wide(64), EXAMPLE), "narrow": export_module(wide(4), EXAMPLE)}
    timing = measure(networks, (2, 3, 8, 8), rounds=5)  # the batch dimension is free
    assert set(timing.seconds) == {"wide", "narrow", TWIN}
    assert all(len(values) == 5 for values in timing.seconds.values())


def test_what_is_no_network_cannot_be_timed():
    with pytest.raises(PruneError, match="broken cannot be timed"):
        measure({"broken": b"not onnx"}, (1, 3, 8, 8), rounds=3)
    with pytest.raises(PruneError, match="at least 3 rounds"):
        Timing({"one": (1.0,)})


def test_figures_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        figures_of(wide(4), EXAMPLE).macs = 1
