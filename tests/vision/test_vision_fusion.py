"""Boxes of several detectors as one answer: what holds whatever they found, and the definition, written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeward.vision.fusion import SAME, SAME_LATER, STILL, fused, fused_in_turn
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


def share(one, other):
    """Intersection over union of two boxes that have an area."""
    width, height = (min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1))
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


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


def by_definition(answers, same, still=0):
    """(corners, confidence, class) of each object, most certain first; still: power of the overlap with the newest."""
    made = []
    for group in groups(answers, same):
        newest = min(group)[1]
        weights = [max(max(score, 1e-9) * share(box, newest) ** still, 1e-9) for _, box, score, _ in group]
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


NEAR = st.tuples(
    *[st.integers(0, 6)] * 2, *[st.integers(8, 12)] * 2, EIGHTHS.map(lambda row: row[4]), st.integers(0, 1)
)


@SETTINGS
@given(st.lists(st.lists(NEAR, max_size=4).map(answer), min_size=2, max_size=4))
def test_looks_one_after_another_are_joined_by_the_definition(answers):
    found, expected = fused_in_turn(answers), by_definition(answers, SAME_LATER, STILL)
    np.testing.assert_allclose(found.confidence, [sure for _, sure, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(found.xyxy, np.reshape([corners for corners, _, _ in expected], (-1, 4)), atol=1e-4)
    assert found.class_id.tolist() == [kind for _, _, kind in expected]


BOTH = pytest.mark.parametrize("join", [fused, fused_in_turn])


@BOTH
@SETTINGS
@given(ANSWER)
def test_one_answer_comes_back_most_certain_first(join, boxes):
    found = join([boxes])
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


@BOTH
@SETTINGS
@given(ANSWERS)
def test_what_comes_out_of_what_goes_in(join, answers):
    """Confidence is kept in sum, corners lie between those of the class, and every object of an answer stays one."""
    found = join(answers)
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


@BOTH
@SETTINGS
@given(ANSWER, st.integers(2, 4))
def test_detectors_that_agree_say_what_each_says(join, boxes, count):
    """Of an answer without boxes that overlap: else a box may pair with another's neighbour."""
    boxes = boxes[np.sort(nms(boxes.xyxy, boxes.confidence, boxes.class_id, 0.0))]
    found, alone = join([boxes] * count), join([boxes])
    assert np.array_equal(found.xyxy, alone.xyxy)
    np.testing.assert_allclose(found.confidence, alone.confidence, rtol=1e-6)
    assert np.array_equal(found.class_id, alone.class_id)


@BOTH
@SETTINGS
@given(ANSWER, st.integers(0, 3))
def test_who_finds_nothing_counts_as_doubt(join, boxes, blind):
    found, alone = join([boxes, *[Detections.empty()] * blind]), join([boxes])
    assert np.array_equal(found.xyxy, alone.xyxy)
    np.testing.assert_allclose(found.confidence, alone.confidence / (1 + blind), rtol=1e-6)


@BOTH
def test_nothing_of_nobody_is_nothing(join):
    assert len(join([])) == len(join([Detections.empty()])) == len(join([Detections.empty()] * 3)) == 0


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


@BOTH
def test_boxes_without_area_or_certainty_are_no_trouble(join):
    flat = Detections([[5, 5, 5, 5], [0, 0, 4, 4]], [0.8, 0.0], [0, 0])
    found = join([flat, flat])
    np.testing.assert_allclose(sorted(found.confidence.tolist()), [0, 0.4, 0.4], rtol=1e-6)
    assert np.isfinite(found.xyxy).all()


# Looks one after another.

CELL = st.tuples(st.integers(0, 3), st.integers(0, 1000), st.integers(0, 2))
CELLS = st.lists(CELL, max_size=6, unique_by=lambda cell: (cell[0], cell[2]))


def standing(cells):
    """Detections of (place, thousandths of confidence, class); boxes are at one place or have nothing in common."""
    return answer([(20 * place, 0, 10, 10, sure, kind) for place, sure, kind in cells])


@SETTINGS
@given(st.lists(CELLS.map(standing), min_size=1, max_size=4))
def test_of_what_stands_still_it_makes_no_difference_when_it_was_seen(answers):
    found, together = fused_in_turn(answers), fused(answers)
    assert listed(found) == listed(together)


@SETTINGS
@given(ANSWER)
def test_what_only_the_older_look_found_keeps_its_corners_and_half_its_certainty(boxes):
    found, alone = fused_in_turn([answer([(100, 100, 5, 5, 900, 0)]), boxes]), fused([boxes])
    older = found[found.xyxy[:, 0] < 100]
    assert len(found) == len(boxes) + 1
    assert np.array_equal(older.xyxy, alone.xyxy)
    np.testing.assert_allclose(older.confidence, alone.confidence / 2, rtol=1e-6)
    assert np.array_equal(older.class_id, alone.class_id)


@SETTINGS
@given(st.lists(st.integers(0, 32), min_size=2, max_size=2, unique=True), st.integers(1, 1000), st.integers(1, 1000))
def test_the_further_an_object_moved_the_less_the_older_box_says_of_where_it_is(steps, sure, before):
    """In shares of the way from the newest box to the older one; of moves that leave half of the boxes in common."""
    newest, shares = answer([(0, 0, 100, 10, sure, 0)]), []
    for step in sorted(steps):
        older = answer([(step, 0, 100, 10, before, 0)])
        (moved,) = fused_in_turn([newest, older]).xyxy[:, 0]
        (plain,) = fused([newest, older], SAME_LATER).xyxy[:, 0]
        assert 0 <= moved <= plain <= step + 1e-5
        shares.append(moved / step if step else before / (sure + before))
    assert shares[1] < shares[0] + 1e-6
    if max(steps) - min(steps) > 4 and min(sure, before) > 20:
        assert shares[1] < shares[0]


def test_too_far_apart_they_are_two_objects():
    looks = [answer([(0, 0, 100, 10, 800, 0)]), answer([(34, 0, 100, 10, 600, 0)])]
    found = fused_in_turn(looks)
    assert found.xyxy[:, 0].tolist() == [0, 34]
    np.testing.assert_allclose(found.confidence, [0.4, 0.3], rtol=1e-6)


@pytest.mark.parametrize("certain", [0, 1], ids=["newest", "older"])
def test_the_newest_tells_where_it_is_however_uncertain(certain):
    """The older box may lead its group: what others are compared with is still the newest."""
    sure = [100, 900] if certain else [900, 100]
    found = fused_in_turn([answer([(0, 0, 10, 10, sure[0], 0)]), answer([(2, 0, 10, 10, sure[1], 0)])])
    weights = [sure[0], sure[1] * (8 / 12) ** STILL]
    np.testing.assert_allclose(found.xyxy[:, 0], [2 * weights[1] / sum(weights)], rtol=1e-5)
