"""Suppression against the definition, written as loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.vision.nms import best, nms

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
