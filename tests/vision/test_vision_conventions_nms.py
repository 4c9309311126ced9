"""Suppression against the definition, written as loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.vision.nms import best, nms, overlapping

BOX = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 8), st.integers(0, 8))
ITEM = st.tuples(BOX, st.integers(0, 6), st.integers(0, 2))


def overlap(a, b):
    """Intersection and union as whole numbers."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared, a[2] * a[3] + b[2] * b[3] - shared


def brute_force(items, numerator):
    """Greedy suppression at an overlap of numerator / 8."""
    order = sorted(range(len(items)), key=lambda index: -items[index][1])
    kept = []
    for index in order:
        box, _, kind = items[index]
        rivals = [overlap(box, items[other][0]) for other in kept if items[other][2] == kind]
        if not any(8 * shared > numerator * union for shared, union in rivals):
            kept.append(index)
    return kept


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(ITEM, max_size=24), st.integers(0, 8))
def test_nms_is_the_greedy_definition(items, numerator):
    xyxy = np.array([[x, y, x + w, y + h] for (x, y, w, h), _, _ in items], np.float32).reshape(-1, 4)
    confidence = np.array([score / 6 for _, score, _ in items], np.float32)
    class_id = np.array([kind for _, _, kind in items], int)
    assert nms(xyxy, confidence, class_id, numerator / 8).tolist() == brute_force(items, numerator)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_best_is_the_head_of_the_sorted_list(values, limit):
    found = best(np.array(values, np.float32), limit)
    expected = sorted(values, reverse=True)[:limit]
    assert [values[index] for index in found] == expected
    assert len(set(found.tolist())) == len(found)


SCALE = st.sampled_from([1e-3, 1.0, 1e6])
COORDINATE = st.integers(-40, 40)
WILD = st.tuples(
    st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE), st.integers(0, 3), st.sampled_from([0, 1, 79])
)


def by_definition(xyxy, iou):
    """Pairs that overlap by more than `iou`, one after the other; sides are as they come, also turned round."""
    pairs = set()
    for one, (left, top, right, bottom) in enumerate(xyxy):
        for other in range(one):
            x1, y1, x2, y2 = xyxy[other]
            shared = max(min(right, x2) - max(left, x1), 0) * max(min(bottom, y2) - max(top, y1), 0)
            areas = max(right - left, 0) * max(bottom - top, 0) + max(x2 - x1, 0) * max(y2 - y1, 0)
            if shared > iou * (areas - shared):
                pairs.add((other, one))
    return pairs


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(WILD, SCALE), max_size=20), st.integers(0, 7))
def test_overlapping_is_every_pair_of_a_class(items, numerator):
    """Boxes of a thousandth beside those of a million, without area, turned round, equal ones: the sweep finds all."""
    xyxy = np.array([np.multiply(box, scale) for (box, _, _), scale in items], np.float32).reshape(-1, 4)
    classes = np.array([kind for (_, _, kind), _ in items], np.int32)
    one, other = overlapping(xyxy, classes, numerator / 8)
    found = [tuple(sorted(pair)) for pair in zip(one.tolist(), other.tolist(), strict=True)]
    assert len(set(found)) == len(found), "each pair once"
    pairs = by_definition(xyxy.astype(np.float64).tolist(), numerator / 8)
    assert set(found) == {(a, b) for a, b in pairs if classes[a] == classes[b]}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(WILD, SCALE), max_size=20), st.integers(0, 7))
def test_nms_is_greedy_over_all_pairs_whatever_the_boxes(items, numerator):
    xyxy = np.array([np.multiply(box, scale) for (box, _, _), scale in items], np.float32).reshape(-1, 4)
    confidence = np.array([score / 3 for (_, score, _), _ in items], np.float32)
    classes = np.array([kind for (_, _, kind), _ in items], np.int32)
    pairs = by_definition(xyxy.astype(np.float64).tolist(), numerator / 8)
    kept: list[int] = []
    for index in sorted(range(len(items)), key=lambda place: -confidence[place]):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if not any((min(index, other), max(index, other)) in pairs for other in rivals):
            kept.append(index)
    assert nms(xyxy, confidence, classes, numerator / 8).tolist() == kept


def test_a_box_beyond_all_measure_leaves_the_other_classes_alone():
    """One wrong box, 1e30 pixels wide, among twins of many classes: half of these go all the same."""
    twins = np.repeat(np.array([[10, 10, 50, 50]], np.float32), 20, axis=0)
    xyxy = np.concatenate([twins, np.array([[0, 0, 1e30, 1]], np.float32)])
    classes = np.append(np.repeat(np.arange(10), 2), 0)
    kept = nms(xyxy, np.linspace(0.9, 0.3, 21).astype(np.float32), classes, 0.5)
    assert kept.tolist() == [*range(0, 20, 2), 20]


@pytest.mark.parametrize("count", [200, 1000])
def test_many_random_boxes_against_the_table_of_all_pairs(count):
    """float32, as decoders give it; overlaps by another route, as one table."""
    random = np.random.default_rng(count)
    corner, side = random.uniform(-50, 600, (count, 2)), random.uniform(0, 80, (count, 2))
    xyxy = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    confidence, classes = random.random(count, np.float32).round(2), random.integers(0, 80, count) // 20
    left, top, right, bottom = xyxy.astype(np.float64).T
    width = np.minimum(right, right[:, None]) - np.maximum(left, left[:, None])
    height = np.minimum(bottom, bottom[:, None]) - np.maximum(top, top[:, None])
    shared, area = np.clip(width, 0, None) * np.clip(height, 0, None), (right - left) * (bottom - top)
    rivals = (shared > 0.3 * (area + area[:, None] - shared)) & (classes == classes[:, None])
    order, gone = np.argsort(-confidence, kind="stable"), np.zeros(count, bool)
    kept = []
    for index in order.tolist():
        if not gone[index]:
            kept.append(index)
            gone |= rivals[index]
    assert nms(xyxy, confidence, classes, 0.3).tolist() == kept
    assert 0 < len(kept) < count


CROWDS = {
    "spot": lambda random, n: random.uniform([0, 0, 80, 80], [8, 8, 88, 88], (n, 4)),
    "column": lambda random, n: np.array([0, 0, 50, 8]) + np.outer(random.permutation(n), [0, 6, 0, 6]),
    "twins": lambda random, n: np.array([10, 10, 60, 60]) + np.outer(np.arange(n) % 2, [1, 1, 1, 1]) * random.random(4),
}


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("iou", [0.0, 0.13, 0.6, 0.95])
def test_in_a_crowd_each_box_is_compared_with_all_and_the_same_are_kept(crowd, iou):
    """So many share a column that there is no sweep; more boxes than are compared with the others at once."""
    random = np.random.default_rng(1)
    xyxy = CROWDS[crowd](random, 150).astype(np.float32)
    confidence, classes = random.random(150, np.float32).round(1), random.integers(0, 2, 150)
    pairs = by_definition(xyxy.astype(np.float64).tolist(), iou)
    kept: list[int] = []
    for index in np.argsort(-confidence, kind="stable").tolist():
        if not any((min(index, o), max(index, o)) in pairs for o in kept if classes[o] == classes[index]):
            kept.append(index)
    assert nms(xyxy, confidence, classes, iou).tolist() == kept
