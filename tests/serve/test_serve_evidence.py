"""What answers say of their own worth, how old boxes on screen are, and scores that can be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.ages import Ages
from edgeward.serve.certainty import UNCHANGED, certain, fitted
from edgeward.serve.evidence import EMPTY, Drift, Evidence, expected_area
from edgeward.serve.staleness import Motion, Retention
from edgeward.vision.metrics.precision import average_precision
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame


def test_the_expected_area_is_the_average_precision_of_boxes_as_right_as_they_say():
    draw = np.random.default_rng(0)
    found, frames, boxes, objects = {}, [], [], 0
    for frame in range(300):
        chances = draw.uniform(0.05, 1, 8)
        right = draw.random(8) < chances
        xyxy = np.stack([np.arange(8) * 20.0, np.zeros(8), np.arange(8) * 20.0 + 10, np.full(8, 10.0)], axis=1)
        found[frame] = Detections(xyxy, chances, np.zeros(8))
        boxes.append(xyxy[right])
        frames += [frame] * int(right.sum())
        objects += int(right.sum())
    here = np.concatenate(boxes).astype(np.float32)
    none = np.zeros(len(here), np.int32)
    truth = Truth(300, ("x",), np.array(frames, np.int32), TruthFrame(here, none - 1, none, none.astype(bool)))
    said = expected_area(np.concatenate([each.confidence for each in found.values()])) / objects
    assert said == pytest.approx(average_precision(found, truth), abs=0.03)


def test_models_are_told_apart_only_by_looks_at_the_same_scene():
    evidence = Evidence.none(("small", "large"), Drift(holds=1.0))
    for _ in range(50):
        evidence = evidence.seen("small", 5.0, expected=0.5, elapsed=0.1)
    assert evidence.factor("small") == pytest.approx(1, abs=0.2)  # how much is there is not known either
    before = variance(evidence, "small", "large")
    for _ in range(20):
        evidence = evidence.seen("small", 5.0, 0.5, 0.1).seen("large", 4.0, 0.8, 0.1)
    assert evidence.factor("large") / evidence.factor("small") < 0.75  # 4 where 8 were promised
    assert variance(evidence, "small", "large") < before
    later = evidence.seen("small", 5.0, 0.5, elapsed=1000.0)
    assert later.factor("large") == pytest.approx(1, abs=0.05)


@given(st.floats(0, 1), st.lists(st.floats(0, 50), max_size=9))
def test_of_what_scores_tell_a_share_holds(share, areas):
    whole, part = (Evidence.none(("small", "large"), Drift(holds=holds)) for holds in (1.0, share))
    for area in areas:
        whole, part = (each.seen("small", 5.0, 0.5, 0.1).seen("large", area, 0.8, 0.1) for each in (whole, part))
    for name in whole.names:
        assert part.factor(name) == pytest.approx(whole.factor(name) ** share)
    learned = [each.learned("small", "large", 0.5, 1.0) for each in (whole, part)]
    assert learned[1] == pytest.approx(share * learned[0])


def variance(evidence: Evidence, name: str, other: str) -> float:
    """Of the logarithm of one's factor over the other's."""
    contrast = np.zeros(1 + len(evidence.names))
    contrast[1 + evidence.names.index(name)], contrast[1 + evidence.names.index(other)] = 1, -1
    return float(contrast @ np.array(evidence.covariance) @ contrast)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.floats(0.1, 1), st.floats(0, 9)), max_size=20),
    st.floats(0.1, 1),
    st.floats(0, 9),
    st.floats(0.1, 1),
)
def test_what_a_look_would_teach_is_by_how_much_it_lessens_the_doubt(looks, expected, elapsed, holds):
    evidence = Evidence.none(("a", "b", "c"), Drift(own_seconds=1e9, holds=holds))
    for name, area, promised, since in looks:
        evidence = evidence.seen(name, area, promised, since)
    learned = evidence.learned("a", "b", expected, elapsed)
    area = math.exp(evidence.mean[0] + evidence.mean[1]) * expected - EMPTY  # just what is expected
    if area > 0:
        later = evidence.seen("a", area, expected, elapsed)
        assert later.mean[1:] == pytest.approx(evidence.mean[1:], abs=1e-6)
        lessened = variance(evidence, "a", "b") - variance(later, "a", "b")
        assert learned**2 == pytest.approx(holds**2 * lessened, abs=1e-6)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.floats(0, 1), st.floats(0, 30)), max_size=40))
def test_evidence_stays_finite_and_its_covariance_sound(looks):
    evidence = Evidence.none(("a", "b", "c"))
    for name, area, expected, elapsed in looks:
        evidence = evidence.seen(name, area, expected, elapsed)
    assert all(0.05 < evidence.factor(name) < 20 for name in "abc")
    assert np.linalg.eigvalsh(np.array(evidence.covariance)).min() > -1e-9


def test_a_fit_finds_the_scale_and_keeps_the_order():
    draw = np.random.default_rng(1)
    odds = draw.normal(0, 2, 20_000)
    scores = 1 / (1 + np.exp(-(odds + 1.0) / 3))
    slope, offset = fitted(scores, draw.random(len(odds)) < 1 / (1 + np.exp(-odds)))
    assert (slope, offset) == pytest.approx((3.0, -1.0), abs=0.1)
    boxes = Detections(np.zeros((5, 4)), [0.9, 0.3, 0.5, 0.0, 1.0], np.zeros(5))
    assert (np.argsort(certain(boxes, (slope, offset)).confidence) == np.argsort(boxes.confidence)).all()
    assert certain(boxes, UNCHANGED) is boxes
    assert fitted([], []) == UNCHANGED
    assert all(math.isfinite(each) for each in fitted([0.9] * 9, [True] * 9))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 8), st.floats(1.0, 3.0))
def test_ages_are_those_of_a_processor_that_takes_the_newest_frame(frames, stretch):
    """Answers of `frames` frames each; every turn is `stretch` as long, for others' sake."""
    draw, newest, shown = np.random.default_rng(0), [], []
    late, turn, now = frames, max(frames * stretch, 1.0), 0.0
    for _ in range(4000):
        begin = math.ceil(now) if turn <= 1 else now
        newest.append((begin + late * draw.uniform(0.94, 1.06), math.floor(begin + 1e-9)))
        now = begin + turn * draw.uniform(0.99, 1.01)
    at = 0
    for frame in range(10, int(newest[-1][0])):
        while at + 1 < len(newest) and newest[at + 1][0] <= frame:
            at += 1
        shown.append(frame - newest[at][1])
    ages = Ages.of(late / 30, turn / 30, 30.0)
    if turn > 1.05:
        assert float(ages.frames @ ages.shares) == pytest.approx(np.mean(shown), abs=0.25)
    assert ages.shares.sum() == pytest.approx(1)


def test_a_changed_pace_changes_motion_per_frame():
    overlaps = (np.full(8, 0.6), np.zeros(8, np.intp))
    for model in ("displacement", "decay"):
        slow = Retention.assumed(1, Motion(model=model)).observed(overlaps, 0.8, 2.0, 0.9)
        fast = slow.repaced(2.0)
        assert fast.rates[0] != slow.rates[0]
        assert fast.repaced(0.5).rates == pytest.approx(slow.rates)
        near, far = (each.mean(Ages.between(age, age))[0] for each, age in ((slow, 2), (fast, 4)))
        assert near == pytest.approx(far, abs=0.1)
