"""The synthetic camera: pure, deterministic, with exact truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.vision.sources import open_source
from edgeward.vision.sources.scene import Scene
from edgeward.vision.sources.stage import Stage


def test_the_same_url_gives_the_same_frames():
    url = "test://people?seed=7&frames=12&width=160&height=120&objects=3&fps=12.5"
    first, second = list(open_source(url)), list(open_source(url))
    assert len(first) == 12
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.image, other.image)
        assert one.time == pytest.approx(one.index / 12.5)
    assert not np.array_equal(first[0].image, first[5].image)
    assert not np.array_equal(first[0].image, next(iter(open_source(url.replace("seed=7", "seed=8")))).image)


def test_a_frame_depends_on_its_number_alone():
    stage = Stage(Scene(seed=2, width=200, height=150))
    forwards = [stage.render(index) for index in range(6)]
    for index in reversed(range(6)):
        assert np.array_equal(stage.render(index), forwards[index])
        assert np.array_equal(Stage(Scene(seed=2, width=200, height=150)).render(index), forwards[index])


def test_a_loop_shows_the_same_pictures_again():
    source = open_source("test://people?frames=4&width=64&height=64", loop=True)
    frames = list(itertools.islice(source, 10))
    assert [frame.content_index for frame in frames] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert np.array_equal(frames[1].image, frames[9].image)
    source.close()
    assert list(source) == []


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(32, 300), st.integers(32, 300)),
    objects=st.integers(0, 8),
    index=st.integers(0, 10_000),
)
def test_truth_is_exactly_where_the_picture_differs(seed, size, objects, index):
    stage = Stage(Scene(seed=seed, width=size[0], height=size[1], objects=objects))
    empty = Stage(Scene(seed=seed, width=size[0], height=size[1], objects=0))
    truth = stage.truth(index)
    assert len(truth) == objects
    assert (truth.xyxy[:, :2] >= 0).all()
    assert (truth.xyxy[:, 2] <= size[0]).all()
    assert (truth.xyxy[:, 3] <= size[1]).all()
    changed = (stage.render(index) != empty.render(index)).any(axis=2)
    covered = np.zeros_like(changed)
    for x1, y1, x2, y2 in truth.xyxy.astype(int):
        assert x2 > x1
        assert y2 > y1
        covered[y1:y2, x1:x2] = True
    assert not (changed & ~covered).any()


def test_boxes_are_tight_and_move_smoothly():
    scene = Scene(seed=3, objects=1)
    stage, empty = Stage(scene), Stage(Scene(seed=3, objects=0))
    for index in range(0, 200, 20):
        rows, columns = np.nonzero((stage.render(index) != empty.render(index)).any(axis=2))
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(stage.truth(index).xyxy[0] - seen).max() <= 1  # a grain may equal the background by chance
    feet = np.array([stage.truth(index).xyxy[0, 3] for index in range(100)])
    centres = np.array([stage.truth(index).xyxy[0, [0, 2]].mean() for index in range(100)])
    assert np.ptp(centres) > 20
    assert np.abs(np.diff(centres)).max() < 12
    assert np.ptp(feet) < 12


def test_truth_outside_the_recording():
    source = open_source("test://people?frames=5")
    assert source.truth(4).tracker_id.tolist() == [0, 1, 2, 3]
    for index in (-1, 5):
        with pytest.raises(IndexError, match=r"outside 0 \.\. 4"):
            source.truth(index)
