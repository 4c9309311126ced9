"""Boxes of several detectors as one answer: what holds whatever they found, and the definition, written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeward.vision.fusion import SAME, fused
from edgeward.vision.nms import nms
from edgeward.vision.results import Detections

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
CORNER, SIDE = st.integers(-20, 20), st.integers(1, 16)
ROW = st.tuples(CORNER, CORNER, SIDE, SIDE, st.integers(0, 1000), st.integers(0, 2))

EIGHTHS = st.tuples(CORNER, CORNER, SIDE, SIDE, st.integers(0, 8).map(lambda eighths: 125 * eighths), st.integers(0, 2))


def answer(rows):
    """Detections of (x, y, width, height, thousandths of confidence, class)."""
    boxes = np.array(rows, np.float64).reshape(-1, 6)
    x, y, width, height, sure, kind = boxes.T
    return Detections(np.stack([x, y, x + width, y + height], axis=1), sure / 1000, kind)


ANSWER = st.lists(ROW, max_size=7).map(answer)
ANSWERS = st.lists(ANSWER, min_size=1, max_size=4)


def listed(boxes):
    """Rows (corners, confidence, class) as plain tuples."""
    return list(zip(map(tuple, boxes.xyxy.tolist()), boxes.confidence.tolist(), boxes.class_id.tolist(), strict=True))


def distinct(answers):
    """Whether all confidences differ, in what comes out, too: then nothing is left to the order of the answers."""
    scores = [score for each in answers for score in each.confidence.tolist()]
    sums = fused(answers).confidence.tolist()
    return len(set(scores)) == len(scores) and all(abs(a - b) > 1e-5 for a, b in itertools.combinations(sums, 2))


def near(one, other, same):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return shared > same * (area - shared)


def groups(answers, same):
    """The definition: [(answer, box, score, class), ...] of each object, begun by the most certain box left."""
    left = [(number, *row) for number, each in enumerate(answers) for row in listed(each)]
    left.sort(key=lambda row: -row[2])
    found = []
    while left:
        group = [left.pop(0)]
        leader = group[0]
        for row in list(left):
            if row[3] == leader[3] and row[0] not in {member[0] for member in group} and near(row[1], leader[1], same):
                group.append(row)
                left.remove(row)
        found.append(group)
    return found


def by_definition(answers, same):
    """(corners, confidence, class) of each object, most certain first."""
    made = []
    for group in groups(answers, same):
        weights = [max(score, 1e-9) for _, _, score, _ in group]
        corners = [
            sum(weight * row[1][side] for weight, row in zip(weights, group, strict=True)) / sum(weights)
            for side in range(4)
        ]
        made.append((corners, sum(score for _, _, score, _ in group) / len(answers), group[0][3]))
    return sorted(made, key=lambda row: -row[1])


@SETTINGS
@given(st.lists(st.lists(EIGHTHS, max_size=7).map(answer), min_size=1, max_size=4), st.sampled_from([0.25, SAME, 0.75]))
def test_fusion_is_its_definition(answers, same):
    """Confidences in eighths: many are equal, and their sums are exact, so that the order is, too."""
    found, expected = fused(answers, same), by_definition(answers, same)
    np.testing.assert_allclose(found.confidence, [sure for _, sure, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy, np.reshape([corners for corners, _, _ in expected], (-1, 4)), atol=1e-4)
    assert found.class_id.tolist() == [kind for _, _, kind in expected]


@SETTINGS
@given(ANSWER)
def test_one_answer_comes_back_most_certain_first(boxes):
    found = fused([boxes])
    order = np.argsort(-boxes.confidence, kind="stable")
    assert np.array_equal(found.xyxy, boxes.xyxy[order])
    assert np.array_equal(found.confidence, boxes.confidence[order])
    assert np.array_equal(found.class_id, boxes.class_id[order])
    assert found.tracker_id is None


@SETTINGS
@given(ANSWERS, st.randoms(use_true_random=False))
def test_the_order_of_answers_and_of_their_boxes_changes_nothing(answers, random):
    assume(distinct(answers))
    shuffled = [each[np.array(random.sample(range(len(each)), len(each)), int)] for each in answers]
    random.shuffle(shuffled)
    one, other = fused(answers), fused(shuffled)
    np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-6)
    assert one.class_id.tolist() == other.class_id.tolist()


@SETTINGS
@given(ANSWERS)
def test_what_comes_out_of_what_goes_in(answers):
    """Confidence is kept in sum, corners lie between those of the class, and every object of an answer stays one."""
    found = fused(answers)
    sums = [float(each.confidence.astype(np.float64).sum()) for each in answers]
    assert len(answers) * float(found.confidence.astype(np.float64).sum()) == pytest.approx(
        sum(sums), rel=1e-5, abs=1e-6
    )
    assert np.all((found.confidence >= 0) & (found.confidence <= 1))
    assert np.all(np.diff(found.confidence) <= 0)
    for kind in range(3):
        of_kind = [each.xyxy[each.class_id == kind] for each in answers]
        made = found.xyxy[found.class_id == kind]
        assert max(map(len, of_kind)) <= len(made) <= sum(map(len, of_kind)), "of a group at most one box each"
        corners = np.concatenate(of_kind)
        if len(corners):
            assert np.all(made >= corners.min(axis=0))
            assert np.all(made <= corners.max(axis=0))


@SETTINGS
@given(ANSWERS)
def test_corners_lie_within_those_of_their_group(answers):
    assume(distinct(answers))
    expected = sorted(groups(answers, SAME), key=lambda group: -sum(row[2] for row in group))
    for corners, group in zip(fused(answers).xyxy, expected, strict=True):
        members = np.array([row[1] for row in group], np.float32)
        assert np.all(members.min(axis=0) <= corners)
        assert np.all(corners <= members.max(axis=0))


@SETTINGS
@given(ANSWER, st.integers(2, 4))
def test_detectors_that_agree_say_what_each_says(boxes, count):
    """Of an answer without boxes that overlap: else a box may pair with another's neighbour."""
    boxes = boxes[np.sort(nms(boxes.xyxy, boxes.confidence, boxes.class_id, 0.0))]
    found, alone = fused([boxes] * count), fused([boxes])
    assert np.array_equal(found.xyxy, alone.xyxy)
    np.testing.assert_allclose(found.confidence, alone.confidence, rtol=1e-6)
    assert np.array_equal(found.class_id, alone.class_id)


@SETTINGS
@given(ANSWER, st.integers(0, 3))
def test_who_finds_nothing_counts_as_doubt(boxes, blind):
    found, alone = fused([boxes, *[Detections.empty()] * blind]), fused([boxes])
    assert np.array_equal(found.xyxy, alone.xyxy)
    np.testing.assert_allclose(found.confidence, alone.confidence / (1 + blind), rtol=1e-6)


def test_nothing_of_nobody_is_nothing():
    assert len(fused([])) == len(fused([Detections.empty()])) == len(fused([Detections.empty()] * 3)) == 0


def test_the_more_certain_box_has_more_say_and_classes_never_mix():
    certain, faint = answer([(0, 0, 10, 10, 900, 0)]), answer([(2, 0, 10, 10, 100, 0)])
    found = fused([certain, faint])
    np.testing.assert_allclose(found.xyxy, [[0.2, 0, 10.2, 10]], rtol=1e-6)
    np.testing.assert_allclose(found.confidence, [0.5], rtol=1e-6)
    other = fused([certain, answer([(0, 0, 10, 10, 800, 1)])])
    assert listed(other) == [
        ((0, 0, 10, 10), pytest.approx(0.45), 0),
        ((0, 0, 10, 10), pytest.approx(0.4), 1),
    ]


def test_neighbours_of_one_answer_stay_apart():
    """Two people side by side overlap each other; the second detector's box belongs to the more certain of the two."""
    pair = answer([(0, 0, 10, 20, 900, 0), (2, 0, 10, 20, 800, 0)])
    found = fused([pair, answer([(1, 0, 10, 20, 700, 0)])])
    np.testing.assert_allclose(found.confidence, [0.8, 0.4], rtol=1e-6)


def test_boxes_without_area_or_certainty_are_no_trouble():
    flat = Detections([[5, 5, 5, 5], [0, 0, 4, 4]], [0.8, 0.0], [0, 0])
    found = fused([flat, flat])
    np.testing.assert_allclose(sorted(found.confidence.tolist()), [0, 0.4, 0.4], rtol=1e-6)
    assert np.isfinite(found.xyxy).all()
