"""How old boxes on screen are, and what many cases of it are worth at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.ages import Ages, age_means, age_shares, frames_on_screen, oldest, own_frame_means
from edgeward.serve.choice import Look
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.latency import Latency
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.staleness import Motion, Retention

FRAMES = st.floats(0.01, 90)
CASES = st.lists(st.tuples(FRAMES, FRAMES, st.floats(0, 3)), min_size=1, max_size=30)


def curves(draw, last):
    """Three accuracies by age, falling."""
    return np.sort(draw.uniform(0, 1, (3, last + 1)), axis=1)[:, ::-1]


@given(CASES, st.integers(0, 10_000), st.floats(0, 0.3))
@settings(deadline=None)
def test_means_are_those_over_the_shares_of_each_age(cases, seed, varies):
    late, span, wait = np.array(cases).T
    draw = np.random.default_rng(seed)
    accuracy, which = curves(draw, oldest(late, span, wait, varies)), draw.integers(0, 3, len(late))
    plain = (age_shares(late, span, wait, varies) * accuracy[which]).sum(axis=1)
    assert age_means(accuracy, which, late, span, wait, varies) == pytest.approx(plain, abs=1e-12)


def test_who_just_keeps_up_is_trusted_when_latencies_are_steady():
    steady, unsteady = (Ages.of(0.039, 0.039, fps=25, varies=varies) for varies in (0.0, 0.1))
    assert steady.frames.tolist() == [1]
    assert unsteady.frames @ unsteady.shares > 1.2


@given(st.floats(0.0, 0.15), st.floats(0.001, 1.0), st.integers(0, 10_000))
def test_how_far_latencies_vary_is_told_from_those_seen(share, seconds, seed):
    draw, latency = np.random.default_rng(seed), Latency.nominal({"small": seconds, "large": 3 * seconds})
    for step in range(300):
        latency = latency.observed("small", seconds * (1 + share * draw.choice([-1, 0, 1])), 0.01 * step)
    assert latency.varies == pytest.approx(share, rel=0.6, abs=0.002)


def test_one_hiccup_is_no_habit():
    latency = Latency.nominal({"small": 0.01})
    for step in range(200):
        latency = latency.observed("small", 1.0 if step == 150 else 0.01, 0.02 * step)
    assert latency.varies < 0.02


@given(CASES, st.integers(0, 10_000))
@settings(deadline=None)
def test_means_of_answers_shown_with_their_own_frames(cases, seed):
    late, span, wait = np.array(cases).T / 2
    draw = np.random.default_rng(seed)
    accuracy, which = curves(draw, oldest(late, span, wait)), draw.integers(0, 3, len(late))
    for row, each in enumerate(own_frame_means(accuracy, which, late, span)):
        first = frames_on_screen(late[row], 1)
        first = 0 if first == 1 else first
        ages = Ages.between(first, first + frames_on_screen(max(span[row], late[row]), 1) - 1).frames.astype(int)
        assert each == pytest.approx(accuracy[which[row], ages].mean())


@given(st.floats(1, 120), st.sampled_from(["displacement", "decay"]))
def test_what_is_assumed_of_motion_is_assumed_of_a_second(fps, model):
    """Whether a camera's pace is known from the beginning or told later."""
    motion = Motion(model=model, assumed=0.99)
    known, told = Retention.assumed(2, motion, fps), Retention.assumed(2, motion).repaced(fps / 30)
    assert known.rates == pytest.approx(told.rates)
    if fps > 2:
        slower = known.repaced(0.5)
        assert slower.mean(Ages.between(3, 3)) == pytest.approx(known.mean(Ages.between(6, 6)))


def test_a_slow_camera_is_taken_to_see_more_motion_from_frame_to_frame():
    ladder = Ladder(
        "box",
        ("object",),
        (0.0, 0.1, 1.0),
        tuple(Rung(f"m{i}", (0.1 * i, 0.9), 0.01, fit=0.7 + 0.05 * i) for i in range(3)),
    )
    slow = Selector.start(ladder, Rules(7, 640, 480))
    told = Selector.start(ladder, Rules(30, 640, 480)).looking(Look(7, 640, 480))
    ages = np.arange(9.0)
    assert told.precisions("m1", ages) == pytest.approx(slow.precisions("m1", ages))
    assert slow.precisions("m1", ages)[1] < Selector.start(ladder, Rules(30, 640, 480)).precisions("m1", ages)[1]
    for selector in (slow, replace(slow, rules=replace(slow.rules, drift=None))):
        each = np.stack([selector.precisions(name, ages) for name in ("m2", "m0")])
        assert selector.curves(("m2", "m0"), ages) == pytest.approx(each)
