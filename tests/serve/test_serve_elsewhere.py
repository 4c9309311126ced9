"""What a ladder's accuracies are worth in other scenes."""

from __future__ import annotations

import math

import numpy as np
import pytest
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
    before = [rung.mean for rung in ladder_of(accuracies).rungs]
    after = [rung.mean for rung in elsewhere(ladder_of(accuracies)).rungs]
    assert max(after) / min(after) <= max(before) / min(before) * (1 + 1e-9)
    for one, other in zip(np.argsort(before)[:-1], np.argsort(before)[1:], strict=True):
        assert after[one] <= after[other] * (1 + 1e-9)


@given(ACCURACIES)
def test_sizes_keep_their_ratios(accuracies):
    ladder = ladder_of([(0.9 * small, 0.9 * large) for small, large in accuracies])
    for rung, found in zip(ladder.rungs, elsewhere(ladder).rungs, strict=True):
        if max(found.accuracy) < 1:
            ratio = found.accuracy[0] / rung.accuracy[0]
            assert found.accuracy[1] == pytest.approx(rung.accuracy[1] * ratio)


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
