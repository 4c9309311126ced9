"""What a ladder's accuracies are worth in other scenes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.elsewhere import ALONE, FUSED, elsewhere
from edgeward.serve.ladder import Ladder, Rung

ACCURACIES = st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), min_size=2, max_size=8)


def ladder_of(accuracies, fused=(), seconds=()):
    names = [f"m{i}" if i not in fused else f"m{i}+x" for i in range(len(accuracies))]
    taken = seconds or [0.01] * len(names)
    rungs = (Rung(name, each, took) for name, each, took in zip(names, accuracies, taken, strict=True))
    return Ladder("box", ("person",), (0.0, 0.1, 1.0), tuple(rungs))


@given(ACCURACIES)
def test_single_models_keep_their_order_and_come_nearer_to_each_other(accuracies):
    for size in (0, 1):
        before = [rung.accuracy[size] for rung in ladder_of(accuracies).rungs]
        after = [rung.accuracy[size] for rung in elsewhere(ladder_of(accuracies)).rungs]
        assert max(after) / min(after) <= max(before) / min(before) * (1 + 1e-9)
        for one, other in zip(np.argsort(before)[:-1], np.argsort(before)[1:], strict=True):
            assert after[one] <= after[other] * (1 + 1e-9)


@given(ACCURACIES)
def test_who_is_better_at_every_size_stays_so(accuracies):
    ladder = ladder_of(accuracies)
    assert set(elsewhere(ladder).notes) >= set(ladder.notes)


def test_who_sees_nothing_of_a_size_does_not_count():
    with_it, without = ladder_of([(0.8, 0.8), (0.7, 0.7), (0.02, 0.8)]), ladder_of([(0.8, 0.8), (0.7, 0.7)])
    for found, plain in zip(elsewhere(with_it).rungs, elsewhere(without).rungs, strict=False):
        assert found.accuracy[0] == plain.accuracy[0]
    assert elsewhere(with_it).rungs[2].accuracy[0] == 0.02


def test_of_equals_the_one_of_several_models_is_trusted_more():
    best = elsewhere(ladder_of([(0.9, 0.9), (0.9, 0.9), (0.6, 0.6)], fused=[1])).rungs
    assert best[1].mean > best[0].mean > best[2].mean
    alike = ladder_of([(0.8, 0.7)] * 3, fused=[1])
    assert elsewhere(alike) == alike


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=8, unique=True), st.floats(0, 0.2))
def test_what_follows_the_rule_stays_as_it_is(seconds, power):
    """Who takes longer finds more, by a power of its seconds: nothing of it looks like luck."""
    accuracies = [(0.9 * took**power, 0.8 * took ** (2 * power)) for took in seconds]
    ladder = ladder_of(accuracies, seconds=seconds)
    for rung, found in zip(ladder.rungs, elsewhere(ladder).rungs, strict=True):
        np.testing.assert_allclose(found.accuracy, rung.accuracy, rtol=1e-6)


def test_the_quick_ones_are_not_lifted_to_what_slow_ones_find():
    """What quick models lack is no bad luck; a slow one that is beaten may have had some."""
    seconds = [0.005, 0.01, 0.015, 0.02, 0.03, 0.06]
    accuracies = [(each, each) for each in (0.76, 0.83, 0.86, 0.9, 0.89, 0.97)]
    slow = elsewhere(ladder_of(accuracies, seconds=seconds)).rungs
    level = elsewhere(ladder_of(accuracies)).rungs
    assert slow[0].mean < level[0].mean < slow[0].mean * 1.1
    assert slow[5].mean > level[5].mean
    falling = elsewhere(ladder_of(accuracies, seconds=seconds[::-1])).rungs
    assert [rung.accuracy for rung in falling] == [rung.accuracy for rung in level], "the rule never falls"


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_time_tells_what_to_expect_where_it_matters_and_else_does_no_harm(seed):
    """Errors over many scenes, told the seconds and not told: models that find more the longer they take, or do not."""
    draw, seconds = np.random.default_rng(seed), np.geomspace(0.005, 0.03, 8)
    for power, least, most in ((0.1, 0.0, 0.97), (0.0, 0.0, 1.1)):
        told = untold = 0.0
        for _ in range(300):
            worth = 0.9 * (seconds / 0.03) ** power * np.exp(draw.normal(0, 0.03, 8))
            seen = np.minimum(worth * np.exp(draw.normal(0, ALONE, 8)), 1)
            accuracies = [(float(each), float(each)) for each in seen]
            errors = [
                sum(math.log(rung.mean / real) ** 2 for rung, real in zip(elsewhere(each).rungs, worth, strict=True))
                for each in (ladder_of(accuracies, seconds=seconds.tolist()), ladder_of(accuracies))
            ]
            told, untold = told + errors[0], untold + errors[1]
        assert least < told / untold < most


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_it_errs_less_than_what_was_measured(seed):
    """Over many scenes that differ as those it was made for: drawn, then measured in one and met in another."""
    draw, plain, sober = np.random.default_rng(seed), 0.0, 0.0
    for _ in range(300):
        worth = 0.5 * np.exp(draw.normal(0, 0.1, 6))
        doubt = np.array([ALONE, ALONE, ALONE, ALONE, FUSED, FUSED])
        seen = worth * np.exp(draw.normal(0, doubt))
        ladder = ladder_of([(float(each), float(each)) for each in np.minimum(seen, 1)], fused=[4, 5])
        found = [rung.mean for rung in elsewhere(ladder).rungs]
        plain += sum(math.log(a / b) ** 2 for a, b in zip(seen, worth, strict=True))
        sober += sum(math.log(a / b) ** 2 for a, b in zip(found, worth, strict=True))
    assert sober < plain
