"""Views: pictures of one scene belong together whatever moves in it and however bright it is; other scenes do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import save_scenes, scene

from edgeward.vision.reader import CameraReader, Pace
from edgeward.vision.sources import open_source
from edgeward.vision.views import CHANGED, Views, alike, another, glance

SEEDS = st.integers(0, 2**32 - 1)
SETTINGS = settings(deadline=None, max_examples=80, derandomize=True)
SIDES = st.tuples(st.integers(8, 400), st.integers(8, 400))


@SETTINGS
@given(SEEDS, SIDES, st.floats(0.3, 1.2), st.integers(-35, 15), st.integers(0, 6))
def test_light_and_noise_are_no_other_view(seed, sides, contrast, brighter, noise):
    before = scene(seed, *sides)
    grain = np.random.default_rng(seed).normal(0, noise, before.shape)
    after = np.clip(before * contrast + brighter + grain, 0, 255).astype(np.uint8)
    views = Views()
    assert [views.see(each) for each in (before, after, before)] == [0, 0, 0]


@SETTINGS
@given(SEEDS, st.floats(0.1, 0.3), st.integers(20, 220))
def test_what_moves_is_no_other_view(seed, side, shade):
    """Something that covers up to a tenth of the picture, here and then there."""
    random, views = np.random.default_rng(seed), Views()
    for _ in range(4):
        picture = scene(seed)
        top, left = random.uniform(0, 1 - side, 2)
        picture[int(240 * top) : int(240 * (top + side)), int(320 * left) : int(320 * (left + side))] = shade
        assert views.see(picture) == 0


@SETTINGS
@given(SEEDS, st.sampled_from([0.0, 1.0, 2.0, 4.0, 8.0, 12.0]), st.integers(0, 3))
def test_the_noise_of_the_night_and_lights_in_it_are_no_other_views(seed, noise, lights):
    """Lamps that stand there, and one that passes by."""
    random, views = np.random.default_rng(seed), Views()
    lamps = random.integers(0, 200, (lights, 2))
    for step in range(8):
        night = random.normal(12, noise, (240, 320, 3))
        for top, left in (*lamps, (100, 38 * step)):
            night[top : top + 14, left : left + 14] = 230
        assert views.see(np.clip(night, 0, 255).astype(np.uint8)) == 0


def test_who_passes_a_plain_wall_is_no_other_view():
    views = Views()
    for left in (-100, -40, 20, 120, 220, 290, 400):
        wall = np.full((240, 320, 3), 180, np.uint8)
        wall[60:, max(left, 0) : max(left + 50, 0)] = 40
        assert views.see(wall) == 0


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_frame_of_nothing_is_no_view_at_all(shade):
    """A grey frame of a decoder, glare, a lid: whatever comes after is compared with what was before."""
    views, nothing = Views(), np.full((240, 320, 3), shade, np.uint8)
    assert [views.see(each) for each in (scene(1), nothing, scene(1), nothing, nothing, scene(2))] == [0, 0, 0, 0, 0, 1]


def test_each_other_scene_is_a_view_of_its_own_and_one_that_comes_again_is_new():
    views = Views()
    numbers = [views.see(scene(seed)) for seed in (1, 1, 2, 2, 3, 1, 1)]
    assert numbers == [0, 0, 1, 1, 2, 3, 3]
    pairs = [alike(glance(scene(a)), glance(scene(b))) for a in range(60) for b in range(a)]
    assert np.mean(np.array(pairs) < CHANGED) > 0.99
    told = [another(glance(scene(a)), glance(scene(b))) for a in range(20) for b in range(a)]
    assert np.mean(told) > 0.99


@given(SIDES, SIDES)
def test_of_any_size(one, other):
    assert glance(scene(1, *one)).shape == glance(scene(1, *other)).shape
    assert alike(glance(scene(1, *one)), glance(scene(1, *one))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("video/vtest.avi", []),
        ("multicam/pets2009_s2l1/view_006.mp4", []),
        ("mot/TUD-Stadtmitte/img1", []),
        ("video/car-detection.mp4", []),
        ("video/one-by-one-person-detection.mp4", []),
        ("video/bikes.mp4", [30, 76, 137, 187, 242]),
    ],
)
def test_of_real_recordings_only_the_edited_one_has_cuts(shared_data, name, cuts):
    views = Views()
    numbers = [views.see(frame.image) for frame in open_source(str(shared_data / name))]
    assert np.flatnonzero(np.diff(numbers)).tolist() == [cut - 1 for cut in cuts]


def test_a_camera_counts_its_views(tmp_path):
    frames = []
    url = save_scenes(tmp_path / "film", [1] * 3 + [2] * 3 + [1])
    reader = CameraReader("cam", url, frames.append, lambda status, detail: None, Pace("max"))
    reader.start()
    reader._thread.join(20)
    assert [frame.view for frame in frames] == [0, 0, 0, 1, 1, 1, 2]
