"""What a ladder's accuracies are worth in other scenes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.elsewhere import ALONE, FUSED, elsewhere
from edgeward.serve.ladder import Ladder, Rung

ACCURACIES = st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), min_size=2, max_size=8)


def ladder_of(accuracies, fused=()):
    names = [f"m{i}" if i not in fused else f"m{i}+x" for i in range(len(accuracies))]
    rungs = (Rung(name, each, 0.01) for name, each in zip(names, accuracies, strict=True))
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
