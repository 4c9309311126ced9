"""A picture in tiles: they cover it, and what is found in them becomes one answer again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeward.vision.results import Detections
from edgeward.vision.tiles import MAX_BOXES, Tiles, joined

WIDTH, HEIGHT = 1200, 900
TILES = st.builds(Tiles, columns=st.integers(1, 4), rows=st.integers(1, 4), overlap=st.floats(0, 0.5))


LEAST = 3
"""Pixels of a part below which an ideal detector leaves it out."""


def seen(boxes, place):
    """What an ideal detector finds in a tile: all of each object that lies in it, parts of few pixels left out."""
    left, top, right, bottom = place
    xyxy = np.clip(boxes.xyxy, [left, top] * 2, [right, bottom] * 2) - [left, top, left, top]
    there = (xyxy[:, 2:] - xyxy[:, :2] >= LEAST).all(axis=1)
    return Detections(xyxy, boxes.confidence, boxes.class_id)[there]


@given(TILES, st.integers(1, 3000), st.integers(1, 3000))
def test_tiles_cover_the_picture_and_overlap_as_asked(tiles, width, height):
    places = tiles.places(width, height)
    assert len(places) == tiles.count
    for side, low, high, count in ((width, 0, 2, tiles.columns), (height, 1, 3, tiles.rows)):
        spans = sorted({(place[low], place[high]) for place in places})
        assert all(0 <= start < end <= side for start, end in spans)
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        if side < 100:  # of so few pixels tiles may be equal
            continue
        assert len(spans) == count
        for (_, end), (start, after) in itertools.pairwise(spans):
            assert end - start >= tiles.overlap * (after - start) - 2
    assert Tiles().places(width, height) == [(0, 0, width, height)]


@settings(max_examples=200, deadline=None)
@given(TILES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_what_an_ideal_detector_finds_in_tiles_is_what_there_is(tiles, across, down, seed):
    """Whatever their size: within a tile, cut by edges, larger than several tiles."""
    random = np.random.default_rng(seed)
    cells = [(x * WIDTH / across, y * HEIGHT / down) for x in range(across) for y in range(down)]
    size = np.array([WIDTH / across, HEIGHT / down])
    low = np.array(cells) + random.uniform(0.05, 0.4, (len(cells), 2)) * size
    high = low + random.uniform(0.1, 0.5, (len(cells), 2)) * size
    objects = Detections(
        np.concatenate([low, high], axis=1), random.uniform(0.1, 1, len(cells)), random.integers(0, 3, len(cells))
    )
    places = tiles.places(WIDTH, HEIGHT)
    found = joined([seen(objects, place) for place in places], places, WIDTH, HEIGHT)
    assert len(found) == len(objects)
    away = np.abs(found.xyxy[:, None] - objects.xyxy).max(axis=2)
    nearest = away.argmin(axis=1)
    assert sorted(nearest) == list(range(len(objects)))
    assert away.min(axis=1).max() <= LEAST
    assert (found.class_id == objects.class_id[nearest]).all()
    assert (found.confidence == objects.confidence[nearest]).all()
    assert (np.diff(found.confidence) <= 0).all()


def test_parts_of_different_classes_or_places_stay_apart():
    tiles = Tiles(columns=2, overlap=0.0)
    places = tiles.places(WIDTH, HEIGHT)
    left = Detections([[500, 100, 600, 200], [500, 400, 600, 500]], [0.9, 0.8], [0, 0])
    right = Detections([[0, 100, 50, 200], [0, 600, 50, 700]], [0.5, 0.4], [1, 0])
    found = joined([left, right], places, WIDTH, HEIGHT)
    assert len(found) == 4
    same = joined([left, Detections([[0, 110, 50, 200]], [0.95], [0])], places, WIDTH, HEIGHT)
    np.testing.assert_allclose(same.xyxy[0], [500, 100, 650, 200])
    assert same.confidence[0] == pytest.approx(0.95)
    assert len(same) == 2


def test_tiles_without_overlap_are_joined_though_detectors_are_not_exact():
    places = Tiles(columns=2, overlap=0.0).places(WIDTH, HEIGHT)
    left = Detections([[500, 100, 597, 200]], [0.9], [0])
    right = Detections([[4, 102, 60, 198]], [0.8], [0])
    np.testing.assert_allclose(joined([left, right], places, WIDTH, HEIGHT).xyxy, [[500, 100, 660, 200]])


def test_a_faint_box_takes_no_part_of_a_certain_one():
    places = Tiles(columns=2).places(WIDTH, HEIGHT)
    (_, _, right, _), (left, _, _, _) = places
    cut = Detections([[right - 60, 300, right, 400]], [0.95], [0])
    around = Detections([[right - 100 - left, 100, right + 100 - left, 500]], [0.06], [0])
    found = joined([cut, around], places, WIDTH, HEIGHT)
    assert found.confidence == pytest.approx([0.95, 0.06])
    whole = replace(around, confidence=[0.6])
    assert joined([cut, whole], places, WIDTH, HEIGHT).confidence == pytest.approx([0.6])
    beyond = Detections([[right - 20 - left, 200, right + 200 - left, 420]], [0.06], [0])
    assert joined([cut, beyond], places, WIDTH, HEIGHT).confidence == pytest.approx([0.95, 0.06])


def test_nothing_and_too_much():
    places = Tiles(columns=2, rows=2).places(WIDTH, HEIGHT)
    assert not len(joined([Detections.empty()] * 4, places, WIDTH, HEIGHT))
    random = np.random.default_rng(0)
    low = random.uniform(0, 550, (3000, 2))
    crowd = Detections(np.concatenate([low, low + 100], axis=1), random.uniform(0, 1, 3000), np.zeros(3000))
    assert len(joined([crowd] * 4, places, WIDTH, HEIGHT)) <= MAX_BOXES


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"rows": 9}, {"overlap": 0.6}, {"overlap": -0.1}, {"cols": 2}])
def test_wrong_tiles_are_refused(wrong):
    with pytest.raises(ValidationError):
        Tiles(**wrong)
