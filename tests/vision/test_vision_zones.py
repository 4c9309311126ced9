"""Zones: geometry against brute force, counting against its own definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.vision.results import Detections
from edgeward.vision.zones import Crossing, Zone, ZoneCounter, points_in_polygon

SQUARE = Zone("square", ((100, 100), (200, 100), (200, 200), (100, 200)))


def inside_slowly(x, y, polygon):
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            odd = not odd
    return odd


def standing_at(points, ids=None):
    """Boxes 10 wide whose bottom centre is at each point."""
    boxes = [[x - 5, y - 30, x + 5, y] for x, y in points]
    numbers = range(1, len(points) + 1) if ids is None else ids
    return Detections(boxes, np.ones(len(points)), np.zeros(len(points)), list(numbers))


def walked(counter, path, alive=(1,)):
    return [crossing for x in path for crossing in counter.update(standing_at([(x, 150)]), alive)]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_point_in_polygon_is_brute_force(seed, corners):
    rng = np.random.default_rng(seed)
    polygon = rng.integers(0, 12, (corners, 2)).astype(float)  # a coarse grid: many points on corners and edges
    points = rng.integers(-1, 14, (60, 2)).astype(float)
    expected = [inside_slowly(x, y, polygon.tolist()) for x, y in points]
    assert points_in_polygon(points, polygon).tolist() == expected


def test_tiles_share_no_point():
    """Zones side by side: every point of the picture is in exactly one."""
    tiles = [Zone(f"{i}{j}", ((i, j), (i + 5, j), (i + 5, j + 5), (i, j + 5))) for i in (2, 7) for j in (2, 7)]
    points = np.stack(np.meshgrid(np.arange(2, 12, 0.5), np.arange(2, 12, 0.5)), axis=-1).reshape(-1, 2)
    assert (np.sum([tile.contains(points) for tile in tiles], axis=0) == 1).all()


def test_relative_zones_scale():
    half = Zone("half", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
    assert half.in_pixels(640, 480).polygon == ((0, 0), (320, 0), (320, 480), (0, 480))
    assert SQUARE.in_pixels(640, 480) is SQUARE


@pytest.mark.parametrize(
    ("polygon", "complaint"),
    [
        (((0, 0), (1, 1)), "has 2 corners"),
        (((0, 0),) * 2000, "has 2000 corners"),
        (((0, 0), (1, 1), (2, 2)), "no area"),
        (((5, 5), (5, 5), (5, 5)), "no area"),
        (((0, 0), (1, float("nan")), (2, 0)), "not finite"),
    ],
)
def test_bad_zones(polygon, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Zone("z", polygon)


def test_the_anchor_says_where_a_box_is():
    """A box 30 tall whose foot is just below the square's lower border, so that its centre is inside."""
    standing = standing_at([(150, 210)])
    centre = Zone("square", SQUARE.polygon, anchor="centre")
    counters = [ZoneCounter(zone) for zone in (SQUARE, centre)]
    for counter in counters:
        counter.update(standing, active_ids=[1])
    assert [counter.inside for counter in counters] == [0, 1]
    unit = Zone("unit", ((0, 0), (1, 0), (1, 1)), anchor="centre")
    assert unit.in_pixels(640, 480).anchor == "centre"
    with pytest.raises(ConfigError, match=r"anchor is 'center'; did you mean 'centre'\?"):
        Zone("z", SQUARE.polygon, anchor="center")


def test_in_and_out():
    counter = ZoneCounter(SQUARE)
    assert walked(counter, [80, 95, 110, 120]) == [Crossing(1, "entered")]
    assert (counter.entered, counter.left, counter.inside) == (1, 0, 1)
    assert walked(counter, [190, 210, 220]) == [Crossing(1, "left")]
    assert (counter.entered, counter.left, counter.inside) == (1, 1, 0)


def test_born_inside_is_inside_but_has_not_entered():
    counter = ZoneCounter(SQUARE)
    assert walked(counter, [150, 150]) == []
    assert (counter.entered, counter.inside) == (0, 1)


def test_trembling_on_the_border_does_not_count():
    counter = ZoneCounter(SQUARE)
    assert walked(counter, [98, 102, 98, 102, 98, 102, 98]) == []
    assert walked(ZoneCounter(SQUARE, confirm=1), [98, 102, 98]) == [Crossing(1, "entered"), Crossing(1, "left")]


def test_a_track_that_ends_has_not_left():
    counter = ZoneCounter(SQUARE)
    walked(counter, [150])
    assert counter.inside == 1
    assert counter.update(Detections.empty().__class__([], [], [], []), active_ids=[1]) == []
    assert counter.inside == 1  # hidden for a moment
    counter.update(standing_at([]), active_ids=[])
    assert (counter.inside, counter.left) == (0, 0)


def test_boxes_without_track_are_passed_over():
    counter = ZoneCounter(SQUARE, confirm=1)
    for x in (50, 150, 50):
        assert counter.update(standing_at([(x, 150)], ids=[-1]), active_ids=[]) == []
    assert counter.inside == 0
    with pytest.raises(ValueError, match="tracker_id"):
        counter.update(Detections([[0, 0, 1, 1]], [1], [0]), active_ids=[])


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_counts_balance(seed, confirm):
    """Whoever is inside at the end was born there or has entered, and has not left since."""
    rng = np.random.default_rng(seed)
    counter = ZoneCounter(SQUARE, confirm)
    places = rng.uniform(80, 220, (5, 2))
    born = sum(counter.zone.contains(places))
    happenings = []
    for _ in range(40):
        happenings += counter.update(standing_at(places), active_ids=range(1, 6))
        places += rng.normal(0, 15, (5, 2))
    assert counter.inside == born + counter.entered - counter.left
    assert [sum(each.kind == kind for each in happenings) for kind in ("entered", "left")] == [
        counter.entered,
        counter.left,
    ]
    for track in range(1, 6):  # one goes in and out in turn
        kinds = [each.kind for each in happenings if each.tracker_id == track]
        assert all(a != b for a, b in itertools.pairwise(kinds))


def test_a_counter_needs_a_frame():
    with pytest.raises(ConfigError, match="confirm is 0"):
        ZoneCounter(SQUARE, confirm=0)
