"""Pictures for people: what is drawn where, what is left alone, and boxes that are nowhere near the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.vision.draw import annotate, encode_jpeg, thumbnail
from edgeward.vision.results import Classification, Detections, Embedding
from edgeward.vision.zones import Zone

GREY = np.full((240, 320, 3), 100, np.uint8)


def decoded(jpeg: bytes) -> np.ndarray:
    assert jpeg[:2] == b"\xff\xd8"
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def boxes(*xyxy, tracks=None):
    count = len(xyxy)
    return Detections(np.array(xyxy), np.full(count, 0.87), np.zeros(count), tracks)


def changed(image: np.ndarray, like: np.ndarray = GREY) -> np.ndarray:
    return (image != like).any(axis=2)


def test_a_box_is_drawn_on_its_border_and_nowhere_else():
    before = GREY.copy()
    drawn = changed(annotate(GREY, [(boxes((100, 80, 200, 200)), ["person"])]))
    assert np.array_equal(GREY, before), "the frame itself is shared with the processor"
    for row, column in ((200, 150), (140, 100), (140, 200), (80, 190)):
        assert drawn[row - 1 : row + 2, column - 1 : column + 2].any()
    assert not drawn[90:190, 110:190].any()
    assert not drawn[205:].any()
    assert not drawn[:, :95].any()


def test_a_track_keeps_its_colour_and_its_number_shows():
    results = [boxes((100, 80, 200, 200), tracks=[n]) for n in (1, 1, 2)]
    one, again, other = (annotate(GREY, [(result, ["person"])]) for result in results)
    assert np.array_equal(one, again)
    assert (one[200, 150] != other[200, 150]).any()
    untracked = annotate(GREY, [(boxes((100, 80, 200, 200), tracks=[-1]), ["person"])])
    assert np.array_equal(untracked, annotate(GREY, [(boxes((100, 80, 200, 200)), ["person"])]))


def test_classes_stand_in_the_corner_one_below_the_other():
    first = (Classification(np.array([1]), np.array([0.6])), ["dog", "cat"])
    one, two = (changed(annotate(GREY, [first] * count)) for count in (1, 2))
    assert one.any()
    assert not one[120:].any()
    assert np.nonzero(two)[0].max() > np.nonzero(one)[0].max()
    nothing = [(Classification(np.zeros(0, np.int32), np.zeros(0)), []), (Embedding(np.ones(4)), []), (boxes(), [])]
    assert not changed(annotate(GREY, nothing)).any()


def test_a_zone_in_fractions_is_the_same_as_one_in_pixels():
    corners = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75))
    fractions = annotate(GREY, [], [Zone("door", corners)])
    pixels = annotate(GREY, [], [Zone("door", tuple((x * 320, y * 240) for x, y in corners))])
    assert np.array_equal(fractions, pixels)
    assert changed(fractions)[60, 80:240].all()


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(*[st.floats(-1e9, 1e9, width=32)] * 4),
    class_id=st.integers(-3, 100),
    name=st.text(max_size=60),
)
def test_nothing_that_a_model_says_breaks_the_drawing(box, class_id, name):
    result = Detections(np.array([box], np.float32), np.array([0.5]), np.array([class_id]))
    assert annotate(GREY, [(result, [name])], [Zone(name, ((0, 0), (1, 0), (1, 1)))]).shape == GREY.shape
    assert max(decoded(thumbnail(GREY, np.array(box, np.float32), 40)).shape[:2]) <= 40


def test_a_tiny_picture_can_be_annotated():
    for size in ((1, 1, 3), (7, 3, 3)):
        picture = np.zeros(size, np.uint8)
        assert (
            annotate(picture, [(boxes((0, 0, 1, 1)), ["person"])], [Zone("z", ((0, 0), (1, 0), (1, 1)))]).shape == size
        )


@pytest.mark.parametrize(
    ("max_width", "width", "height"), [(960, 320, 240), (320, 320, 240), (160, 160, 120), (1, 1, 1)]
)
def test_a_jpeg_is_scaled_down_and_never_up(max_width, width, height):
    assert decoded(encode_jpeg(GREY, max_width)).shape == (height, width, 3)


def test_a_jpeg_looks_like_the_picture_and_quality_costs_bytes():
    smooth = np.dstack([np.add.outer(np.arange(240), np.arange(320)) // 3] * 3).astype(np.uint8)
    assert np.abs(decoded(encode_jpeg(smooth, 320)).astype(int) - smooth).mean() < 2
    noise = np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8)
    assert len(encode_jpeg(noise, 320, quality=30)) < len(encode_jpeg(noise, 320, quality=90)) / 2


def test_a_picture_longer_than_jpeg_allows_is_made_smaller():
    assert max(decoded(encode_jpeg(np.zeros((2, 70000, 3), np.uint8), 100_000)).shape) <= 65500
    assert max(decoded(encode_jpeg(np.zeros((70000, 2, 3), np.uint8), 960)).shape) <= 65500


def test_numbers_that_make_no_sense_are_named():
    for call, message in (
        (lambda: encode_jpeg(GREY, 0), "max_width is 0"),
        (lambda: encode_jpeg(GREY, 10, quality=101), "quality is 101; give 1 to 100"),
        (lambda: thumbnail(GREY, None, 0), "size is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_a_thumbnail_shows_the_box_with_a_margin():
    picture = GREY.copy()
    picture[100:140, 150:170] = (0, 0, 255)
    shown = decoded(thumbnail(picture, np.array([150, 100, 170, 140], np.float32), 160))
    assert shown.shape == (60, 40, 3)  # 20 x 40 and a quarter of 40 on every side
    red = (shown[..., 2] > 200) & (shown[..., 0] < 60)
    rows, columns = np.nonzero(red)
    assert abs(rows.min() - 10) <= 2
    assert abs(rows.max() - 49) <= 2
    assert abs(columns.mean() - 19.5) <= 1


def test_a_thumbnail_of_a_slice_of_a_large_box_fits_its_size():
    assert decoded(thumbnail(GREY, np.array([10, 10, 300, 200], np.float32), 64)).shape[1] == 64
    assert decoded(thumbnail(GREY, None, 32)).shape == (24, 32, 3)


@pytest.mark.parametrize(
    "box",
    [(-500, -500, -400, -400), (320, 0, 400, 50), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)],
    ids=["before", "behind", "nan", "infinite"],
)
def test_a_box_outside_the_picture_gives_the_whole_of_it(box):
    assert decoded(thumbnail(GREY, np.array(box, np.float32), 1000)).shape == GREY.shape


def test_a_box_partly_outside_gives_the_part_inside():
    shown = decoded(thumbnail(GREY, np.array([-100, -100, 40, 40], np.float32), 1000))
    assert shown.shape == (75, 75, 3)
    assert decoded(thumbnail(GREY, np.array([50, 50, 50, 50], np.float32), 1000)).shape == (2, 2, 3)
