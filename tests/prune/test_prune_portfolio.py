"""Choosing a variant: the front against brute force, the choice against its definition, changes against a flapping load."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import BudgetError, ModelError, PruneError
from edgeward.profile.variant import Accuracy, LatencyFigure, Variant
from edgeward.prune.portfolio import Rules, Selection, choose, pareto


def variant(name, seconds, value, memory, spread=0.0):
    figure = LatencyFigure(median=seconds, low=seconds * (1 - spread), high=seconds * (1 + spread))
    return Variant(
        name=name, folder=name, method="test", parameters=1, macs=1, bytes=memory,
        latency={"pi": figure}, accuracy=Accuracy(value=value, data="test"),
    )  # fmt: skip


FIGURES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
SMALL, MIDDLE, LARGE = (
    variant("small", 0.01, 0.80, 10),
    variant("middle", 0.02, 0.85, 20),
    variant("large", 0.04, 0.90, 40),
)
THREE = (SMALL, MIDDLE, LARGE)


def several(figures):
    return [variant(f"v{i}", s / 100, a / 10, m) for i, (s, a, m) in enumerate(figures)]


def beats(one, other):
    """The definition: nowhere worse, somewhere better."""
    mine = (-one.latency["pi"].median, one.accuracy.value, -one.memory)
    theirs = (-other.latency["pi"].median, other.accuracy.value, -other.memory)
    return all(a >= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


@given(st.lists(FIGURES, max_size=12))
@settings(derandomize=True, deadline=None)
def test_the_front_is_what_brute_force_leaves(figures):
    variants = several(figures)
    front = pareto(variants, "pi")
    unbeaten = [v for v in variants if not any(beats(other, v) for other in variants)]
    key = lambda v: (v.latency["pi"].median, v.accuracy.value, v.memory)  # noqa: E731
    assert {key(v) for v in front} == {key(v) for v in unbeaten}
    assert len({key(v) for v in front}) == len(front)  # of equals one
    assert [v.latency["pi"].median for v in front] == sorted(v.latency["pi"].median for v in front)
    assert pareto(front, "pi") == front


@given(st.lists(FIGURES, min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.5, 1, 2]))
@settings(derandomize=True, deadline=None)
def test_the_choice_is_the_most_accurate_that_fits_and_meets_the_deadline(figures, deadline, memory, slowdown):
    variants = several(figures)
    rules = Rules("pi", deadline=deadline / 100, memory=memory)
    fitting = [v for v in variants if v.memory <= memory]
    if not fitting:
        with pytest.raises(BudgetError, match="no variant fits"):
            choose(variants, rules, slowdown)
        return
    meeting = [v for v in fitting if v.latency["pi"].high * slowdown <= rules.deadline]
    chosen = choose(variants, rules, slowdown)
    assert (chosen is None) == (not meeting)
    if chosen is not None:
        assert chosen in meeting
        assert chosen.accuracy.value == max(v.accuracy.value for v in meeting)
        equals = [v for v in meeting if v.accuracy.value == chosen.accuracy.value]
        assert chosen.latency["pi"].median == min(v.latency["pi"].median for v in equals)


def test_a_deadline_is_met_by_nine_of_ten_not_by_half():
    rules = Rules("pi", deadline=0.011)
    assert choose([variant("steady", 0.01, 0.5, 1), variant("erratic", 0.01, 0.9, 1, 0.2)], rules).name == "steady"


def test_going_down_is_at_once_and_going_up_waits():
    rules = Rules("pi", deadline=0.05, windows=3)
    selection = Selection("large").next(THREE, rules, slowdown=2.0)  # large takes 80 ms
    assert (selection.active, selection.switches) == ("middle", 1)
    seen = []
    for _ in range(4):
        selection = selection.next(THREE, rules, slowdown=1.0)
        seen.append(selection.active)
    assert seen == ["middle", "middle", "large", "large"]


def test_one_bad_window_starts_the_count_again():
    rules = Rules("pi", deadline=0.05, windows=3)
    selection = Selection("middle")
    for slowdown in (1, 1, 1.5, 1, 1):
        selection = selection.next(THREE, rules, slowdown)
    assert selection.active == "middle"
    assert selection.next(THREE, rules, 1).active == "large"


@given(st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 4.0, 6.0]), max_size=40), st.integers(1, 5))
@settings(derandomize=True, deadline=None)
def test_what_runs_meets_the_deadline_if_anything_can_and_has_proven_itself_before(load, windows):
    rules = Rules("pi", deadline=0.05, windows=windows)
    selection = Selection("large")
    for index, slowdown in enumerate(load):
        before = selection
        selection = selection.next(THREE, rules, slowdown)
        was, active = ({v.name: v for v in THREE}[each.active] for each in (before, selection))
        best = choose(THREE, rules, slowdown)
        if best is None:
            assert active == SMALL  # the fastest: nothing better can be done
        else:
            assert rules.met(active, slowdown)
            assert active.accuracy.value <= best.accuracy.value
        if active.accuracy.value > was.accuracy.value:
            assert index + 1 >= windows
            assert all(rules.met(active, seen) for seen in load[index + 1 - windows : index + 1])
        assert selection.switches == before.switches + (active != was)


def test_a_change_that_costs_more_than_it_gains_is_not_made():
    gain = 0.90 - 0.85
    dear = Rules("pi", deadline=0.05, windows=2, window=1.0, switch=1.01 * gain * 2 / 0.85)
    cheap = Rules("pi", deadline=0.05, windows=2, window=1.0, switch=0.99 * gain * 2 / 0.85)
    results = {}
    for rules in (dear, cheap):
        selection = Selection("middle")
        for _ in range(6):
            selection = selection.next(THREE, rules, 1.0)
        results[rules.switch] = selection
    assert results[dear.switch].active == "middle"
    assert results[cheap.switch].active == "large"
    assert results[cheap.switch].spent == cheap.switch


def test_less_memory_is_obeyed_at_once():
    selection = Selection("large").next(THREE, Rules("pi", deadline=1.0, memory=25), 1.0)
    assert selection.active == "middle"


def test_a_state_machine_is_pure():
    rules = Rules("pi", deadline=0.05)
    before = Selection("middle")
    assert before.next(THREE, rules, 1.0) == before.next(THREE, rules, 1.0)
    assert before == Selection("middle")


def test_mistakes_are_named():
    rules = Rules("pi", deadline=0.05)
    with pytest.raises(BudgetError, match=r"'small', needs 10 B"):
        choose(THREE, Rules("pi", deadline=1.0, memory=9))
    with pytest.raises(PruneError, match="at least one"):
        choose([], rules)
    with pytest.raises(PruneError, match="did you mean 'large'"):
        Selection("larg").next(THREE, rules, 1.0)
    with pytest.raises(PruneError, match="slow-down factor nan"):
        choose(THREE, rules, float("nan"))
    with pytest.raises(PruneError, match="score it"):
        pareto([SMALL.model_copy(update={"accuracy": None})], "pi")
    with pytest.raises(ModelError, match="no latency on 'tpu'"):
        pareto(THREE, "tpu")
    for wrong in ({"deadline": 0.0}, {"deadline": 1.0, "windows": 0}, {"deadline": 1.0, "switch": -1.0}):
        with pytest.raises(PruneError):
            Rules("pi", **wrong)
