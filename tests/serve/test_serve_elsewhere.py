"""What a ladder's accuracies are worth in other scenes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.elsewhere import ALONE, FUSED, elsewhere
from edgeward.serve.ladder import Ladder, Rung, dominated
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector

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


@given(st.data(), ACCURACIES, st.sets(st.integers(0, 7)))
def test_who_is_better_in_everything_stays_so(data, accuracies, fused):
    """Also where it is quicker than the rule expects of who is as good."""
    count = len(accuracies)
    seconds = data.draw(st.lists(st.floats(0.001, 1), min_size=count, max_size=count, unique=True))
    ladder = ladder_of(accuracies, fused, seconds)
    assert dominated(elsewhere(ladder).rungs).keys() >= dominated(ladder.rungs).keys()


def test_who_sees_nothing_of_a_size_does_not_count():
    with_it, without = ladder_of([(0.8, 0.8), (0.7, 0.7), (0.02, 0.8)]), ladder_of([(0.8, 0.8), (0.7, 0.7)])
    for found, plain in zip(elsewhere(with_it).rungs, elsewhere(without).rungs, strict=False):
        assert found.accuracy[0] == plain.accuracy[0]
    assert elsewhere(with_it).rungs[2].accuracy[0] == 0.02


def test_of_equals_the_one_of_several_models_is_trusted_more():
    accuracies = [(0.9, 0.9), (0.9, 0.9), (0.6, 0.6)]
    best = elsewhere(ladder_of(accuracies, fused=[1], seconds=[0.01, 0.0099, 0.01])).rungs
    assert best[1].mean > best[0].mean > best[2].mean
    alike = ladder_of([(0.8, 0.7)] * 3, fused=[1])
    assert elsewhere(alike) == alike


def change(ladder):
    """How far accuracies are moved: mean square of logarithms."""
    pairs = zip(ladder.rungs, elsewhere(ladder).rungs, strict=True)
    return np.mean([np.log(np.divide(found.accuracy, rung.accuracy)) ** 2 for rung, found in pairs])


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=8, unique=True), st.floats(0.01, 0.2))
def test_what_follows_the_rule_is_moved_less(seconds, power):
    """Who takes longer finds more, by a power of its seconds: that is hardly luck, unless they take nearly as long."""
    accuracies = [(0.9 * took**power, 0.8 * took ** (2 * power)) for took in seconds]
    assert change(ladder_of(accuracies, seconds=seconds)) <= change(ladder_of(accuracies)) * (1 + 1e-9)


@given(st.integers(0, 1000), st.integers(2, 12), st.floats(0.001, 1))
def test_seconds_that_differ_by_an_error_of_measurement_tell_nothing(seed, count, seconds):
    draw = np.random.default_rng(seed)
    accuracies = [(float(each), float(each)) for each in draw.uniform(0.5, 0.9, count)]
    level = elsewhere(ladder_of(accuracies)).rungs
    for jitter, most in ((0.0, 1e-9), (0.005, 0.01)):
        taken = (seconds * np.exp(draw.normal(0, jitter, count))).tolist()
        for rung, found in zip(level, elsewhere(ladder_of(accuracies, seconds=taken)).rungs, strict=True):
            assert abs(math.log(found.mean / rung.mean)) <= most


def test_rungs_of_several_models_say_nothing_of_the_rule():
    """They find more than single models that take as long: quick single models would look better than they are."""
    alone, seconds = [(each, each) for each in (0.7, 0.78, 0.86, 0.9)], [0.005, 0.01, 0.02, 0.04]
    more, longer = [(each, each) for each in (0.82, 0.89, 0.88, 0.92)], [0.0075, 0.0125, 0.015, 0.03]
    plain = elsewhere(ladder_of(alone, seconds=seconds))
    both = elsewhere(ladder_of(alone + more, fused=range(4, 8), seconds=seconds + longer))
    assert both.rungs[:4] == plain.rungs


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
@settings(max_examples=5, deadline=None)
def test_time_tells_what_to_expect_where_it_matters_and_else_does_no_harm(seed):
    """Errors over many scenes, told the seconds and not told: models that find more the longer they take, or do not."""
    draw = np.random.default_rng(seed)
    for count, power, most in ((8, 0.1, 0.95), (8, 0.0, 1.06), (3, 0.0, 1.1)):
        seconds, told, untold = np.geomspace(0.005, 0.03, count), 0.0, 0.0
        for _ in range(300):
            worth = 0.7 * (seconds / 0.03) ** power * np.exp(draw.normal(0, 0.03, count))
            seen = worth * np.exp(draw.normal(0, ALONE, count))
            accuracies = [(float(each), float(each)) for each in seen]
            errors = [
                sum(math.log(rung.mean / real) ** 2 for rung, real in zip(elsewhere(each).rungs, worth, strict=True))
                for each in (ladder_of(accuracies, seconds=seconds.tolist()), ladder_of(accuracies))
            ]
            told, untold = told + errors[0], untold + errors[1]
        assert told / untold < most, (count, power)


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


@given(st.lists(st.floats(0.51, 1), min_size=2, max_size=8), st.floats(0, 0.2))
def test_what_is_late_loses_the_same_share_whoever_found_it(fits, rate):
    """However fast objects move: how well a rung's boxes fit decides nothing between two whose answers are as old."""
    plain = ladder_of([(0.8, 0.7)] * len(fits))
    ladder = replace(plain, rungs=tuple(replace(one, fit=fit) for one, fit in zip(plain.rungs, fits, strict=True)))
    selector = Selector.start(elsewhere(ladder), Rules(10.0, 640, 480))
    moving = replace(selector.retention, all=(9.0, 9.0 * rate))
    ages = np.array([0.0, 1.0, 4.0])
    first, *others = (replace(selector, retention=moving).precisions(one.name, ages) for one in ladder.rungs)
    assert (np.diff(first) <= 0).all()
    for other in others:
        np.testing.assert_allclose(other, first)


@given(st.lists(st.floats(0.51, 1), min_size=1, max_size=8))
def test_a_ladder_whose_boxes_fit_better_keeps_more(fits):
    ladder = ladder_of([(0.8, 0.7)] * len(fits))
    ladder = replace(ladder, rungs=tuple(replace(one, fit=fit) for one, fit in zip(ladder.rungs, fits, strict=True)))
    (common,) = {one.fit for one in elsewhere(ladder).rungs}
    assert min(fits) <= common * (1 + 1e-9) and common <= max(fits) * (1 + 1e-9)
    assert math.isclose(common, sum(fits) / len(fits))
