"""Tracking: the filter against the textbook's matrices, the tracker against what it promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.vision import kalman
from edgeward.vision.kalman import Motion
from edgeward.vision.metrics import tracking_scores
from edgeward.vision.results import Detections
from edgeward.vision.tracking import ByteTracker, _best_pairs, _iou
from edgeward.vision.truth import load_truth

SEEDS = st.integers(0, 2**32 - 1)


def size_of(box):
    return max((box[2] + box[3]) / 2, 1.0)


def kalman_by_matrices(measured, times):
    """One coordinate at a time, with 2x2 matrices: the estimates (position, velocity) after each measurement."""
    first = size_of(measured[0])
    means = [np.array([value, 0.0]) for value in measured[0]]
    covers = [np.diag([(kalman.MEASUREMENT * first) ** 2, (speed * first) ** 2]) for speed in kalman.SPEED]
    estimates = [np.array(means).T]
    look = np.array([[1.0, 0.0]])
    for dt, box in zip(np.diff(times), measured[1:], strict=True):
        size = size_of(estimates[-1][0])
        move = np.array([[1, dt], [0, 1]])
        drift = np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        for axis in range(4):
            mean = move @ means[axis]
            cover = move @ covers[axis] @ move.T + (kalman.ACCELERATION[axis] * size) ** 2 * drift
            gain = cover @ look.T / (look @ cover @ look.T + (kalman.MEASUREMENT * size_of(box)) ** 2)
            means[axis] = mean + gain.ravel() * (box[axis] - mean[0])
            covers[axis] = (np.eye(2) - gain @ look) @ cover
        estimates.append(np.array(means).T)
    return estimates


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_the_filter_is_the_textbooks(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.01, 0.5, 12))
    boxes = rng.uniform(20, 200, (12, 3, 4))
    motion = Motion.at_rest(boxes[0])
    expected = [kalman_by_matrices(boxes[:, row], times) for row in range(3)]
    for step in range(1, 12):
        motion = motion.predicted(times[step] - times[step - 1]).corrected(np.array([2, 0, 1]), boxes[step][[2, 0, 1]])
        for row in range(3):
            np.testing.assert_allclose(motion.state[row, :2], expected[row][step], rtol=1e-7, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.01, 5))
def test_two_short_predictions_are_one_long_one(seed, seconds):
    rng = np.random.default_rng(seed)
    motion = Motion.at_rest(rng.uniform(20, 200, (4, 4)))
    # Between the two the size must not change, since the noise is in proportion to it.
    once, twice = motion.predicted(2 * seconds), motion.predicted(seconds).predicted(seconds)
    np.testing.assert_allclose(once.state, twice.state, rtol=1e-9)


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
def test_pairs_are_the_best_of_all(seed, n, m):
    rng = np.random.default_rng(seed)
    overlap = rng.random((n, m)) * (rng.random((n, m)) < 0.6)
    floor = 0.3
    rows, columns = _best_pairs(overlap, floor)
    assert len(set(rows)) == len(rows) and len(set(columns)) == len(columns)
    assert (overlap[rows, columns] >= floor).all()
    worth = np.where(overlap >= floor, overlap, 0)
    wide = worth if n <= m else worth.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(max(n, m)), min(n, m))
    )
    assert overlap[rows, columns].sum() == pytest.approx(best)


def test_overlap_by_counting_pixels():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 12, (20, 2))
    boxes = np.hstack([corner, corner + rng.integers(0, 8, (20, 2))]).astype(float)
    masks = np.zeros((20, 20, 20), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    shared = (masks[:, None] & masks).sum(axis=(2, 3))
    union = (masks[:, None] | masks).sum(axis=(2, 3))
    np.testing.assert_allclose(_iou(boxes, boxes), shared / np.maximum(union, 1))


def people(time, speeds=(60.0, -40.0), confidence=0.9, classes=None):
    """Boxes in rows that never meet, each at its own speed in pixels per second."""
    xyxy = [[400 + speed * time, 150 * row, 440 + speed * time, 150 * row + 100] for row, speed in enumerate(speeds)]
    n = len(xyxy)
    return Detections(
        np.array(xyxy).reshape(-1, 4), np.full(n, confidence), np.zeros(n) if classes is None else classes
    )


def followed(tracker, times, **kinds):
    return [tracker.update(people(time, **kinds), time).tracker_id.tolist() for time in times]


def test_numbers_are_kept_and_confirmed_once():
    tracker = ByteTracker()
    assert followed(tracker, np.arange(5) / 10) == [[-1, -1], [1, 2], [1, 2], [1, 2], [1, 2]]
    assert sorted(tracker.active_ids) == [1, 2]
    assert followed(ByteTracker(confirm=1), [0, 0.1]) == [[1, 2], [1, 2]]


def test_skipped_frames_do_not_shift_predictions():
    """Frames at uneven times, up to 0.6 s apart: 60 px/s is 36 px, nearly the box's width."""
    times = np.cumsum([0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 0.1, 0.5, 0.3, 0.6, 0.05, 0.6])
    numbers = followed(ByteTracker(), times)
    assert numbers[1:] == [[1, 2]] * 12


def test_frames_further_apart_than_a_track_may_be_lost():
    still = {"speeds": (0.0, 1.0)}
    assert followed(ByteTracker(lost_seconds=1.0), np.arange(4) * 5.0, **still)[1:] == [[1, 2]] * 3


def test_hidden_and_found_again():
    tracker = ByteTracker(lost_seconds=1.0)
    followed(tracker, np.arange(10) / 10)
    for time in (1.0, 1.2, 1.5):
        assert len(tracker.update(Detections.empty(), time)) == 0
        assert sorted(tracker.active_ids) == [1, 2]
    assert followed(tracker, [1.8]) == [[1, 2]]
    tracker.update(Detections.empty(), 3.0)
    assert tuple(tracker.active_ids) == ()
    assert followed(tracker, [3.1, 3.2]) == [[-1, -1], [3, 4]]


def test_faint_boxes_go_on_with_a_track_but_start_none():
    tracker = ByteTracker(high_confidence=0.5, low_confidence=0.1)
    assert followed(tracker, [0, 0.1, 0.2], confidence=0.3) == [[-1, -1]] * 3
    followed(tracker, [0.3, 0.4])
    assert followed(tracker, [0.5, 0.6, 0.7], confidence=0.3) == [[1, 2]] * 3
    assert followed(tracker, [0.8], confidence=0.05) == [[-1, -1]]


def test_a_faint_box_does_not_bring_back_a_lost_track():
    tracker = ByteTracker()
    followed(tracker, [0, 0.1, 0.2])
    tracker.update(Detections.empty(), 0.3)
    assert followed(tracker, [0.4], confidence=0.3) == [[-1, -1]]
    assert followed(tracker, [0.5]) == [[1, 2]]


def test_a_flicker_is_no_track():
    """Confirmation takes boxes in a row."""
    tracker = ByteTracker(confirm=2)
    for time in (0, 0.2, 0.4):
        assert followed(tracker, [time]) == [[-1, -1]]
        tracker.update(Detections.empty(), time + 0.1)
        assert tuple(tracker.active_ids) == ()


def test_classes_never_join():
    tracker = ByteTracker()
    followed(tracker, [0, 0.1, 0.2])
    assert followed(tracker, [0.3, 0.4, 0.5], classes=[0, 1])[-1] == [1, 3]


def test_a_looped_clip_starts_again():
    tracker = ByteTracker()
    times = np.arange(20) / 10
    followed(tracker, times)
    for numbers in followed(tracker, times)[1:]:
        assert -1 not in numbers and len(set(numbers)) == 2
    assert len(tracker.active_ids) <= 4


def test_a_clock_that_is_set_back_loses_nobody():
    tracker = ByteTracker()
    followed(tracker, np.arange(20) / 10)
    for time in np.arange(20, 25) / 10:
        assert tracker.update(people(time), time - 1000).tracker_id.tolist() == [1, 2]


def test_a_forecast_is_where_people_will_be():
    tracker = ByteTracker()
    assert len(tracker.forecast(5.0)) == 0
    followed(tracker, np.arange(30) / 10)
    tracker.update(people(3.0, confidence=0.7), 3.0)
    tracker.update(Detections.empty(), 3.2)  # hidden: the forecast goes on
    for time in (3.2, 3.7):
        ahead = tracker.forecast(time)
        assert ahead.tracker_id.tolist() == [1, 2]
        assert ahead.confidence.tolist() == pytest.approx([0.7, 0.7])
        np.testing.assert_allclose(ahead.xyxy, people(time).xyxy, atol=3)
    assert followed(tracker, [3.3]) == [[1, 2]]


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_forecasts_change_nothing(seed):
    rng = np.random.default_rng(seed)
    asked, other = ByteTracker(), ByteTracker()
    for time in np.cumsum(rng.uniform(0, 0.6, 15)):
        boxes = people(time, tuple(rng.uniform(-80, 80, 4)))
        one, two = asked.update(boxes, time), other.update(boxes, time)
        assert one.tracker_id.tolist() == two.tracker_id.tolist()
        assert set(asked.forecast(time + rng.uniform(0, 100)).tracker_id.tolist()) == set(asked.active_ids)


@pytest.mark.parametrize("time", [0.3, float("inf"), float("nan")])
def test_a_forecast_looks_ahead(time):
    tracker = ByteTracker()
    followed(tracker, [0.2, 0.4])
    with pytest.raises(ValueError, match=r"from the last update, 0\.4, on"):
        tracker.forecast(time)


def test_a_reset_forgets_tracks_but_not_which_numbers_were_given():
    tracker = ByteTracker()
    followed(tracker, [10.0, 10.1, 10.2])
    tracker.reset()
    assert tuple(tracker.active_ids) == ()
    assert len(tracker.forecast(0.0)) == 0
    assert followed(tracker, [0.0, 0.1]) == [[-1, -1], [3, 4]]


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_whatever_comes(seed):
    """Any boxes at any times: the same boxes come back in the same order, and no number twice in a frame."""
    rng = np.random.default_rng(seed)
    tracker = ByteTracker(lost_seconds=float(rng.uniform(0, 2)), confirm=int(rng.integers(1, 4)))
    time, seen = 0.0, 0
    for _ in range(25):
        time += float(rng.choice([0, 0.1, 0.5, 30, -3]))
        n = int(rng.integers(0, 7))
        corner = rng.uniform(-50, 100, (n, 2))
        boxes = Detections(
            np.hstack([corner, corner + rng.choice([0, 1e-3, 40, 5000], (n, 2))]), rng.random(n), rng.integers(0, 2, n)
        )
        tracked = tracker.update(boxes, time)
        assert np.array_equal(tracked.xyxy, boxes.xyxy) and np.array_equal(tracked.confidence, boxes.confidence)
        assert tracked.tracker_id.dtype == np.int32
        numbers = tracked.tracker_id[tracked.tracker_id >= 0].tolist()
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(tracker.active_ids)
        assert min(numbers, default=1) >= 1
        new = [number for number in numbers if number > seen]
        assert len(new) == max(numbers, default=0) - seen or max(numbers, default=0) <= seen
        seen = max(seen, *numbers, 0)


def test_the_order_of_boxes_does_not_matter():
    rng = np.random.default_rng(3)
    one, other = ByteTracker(), ByteTracker()
    speeds = tuple(rng.uniform(-80, 80, 6))
    partner: dict[int, int] = {}
    for time in np.arange(30) / 10:
        boxes, order = people(time, speeds), rng.permutation(6)
        mine, theirs = one.update(boxes, time), other.update(boxes[order], time)
        for a, b in zip(mine.tracker_id[order].tolist(), theirs.tracker_id.tolist(), strict=True):
            assert partner.setdefault(a, b) == b
    assert sorted(partner) == [-1, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "settings",
    [{"high_confidence": 1.5}, {"low_confidence": -1}, {"lost_seconds": float("nan")}, {"confirm": 0}, {"min_iou": 0}],
)
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ByteTracker(**settings)


def test_time_is_checked():
    with pytest.raises(ValueError, match="time_seconds is nan"):
        ByteTracker().update(Detections.empty(), float("nan"))


@pytest.mark.parametrize(
    ("folder", "truth", "detections", "fps", "threshold", "scale", "floor"),
    [
        ("multicam/pets2009_s2l1", "view_001_gt_mot15.txt", "view_001_det_acf.txt", 7, 0.3, 0.01, (0.574, 0.283, 309)),
        ("multicam/pets2009_s2l1", "view_001_gt_mot15.txt", "view_001_det_frcnn.txt", 7, 0.6, 1, (0.567, 0.357, 143)),
        ("mot/TUD-Stadtmitte", "gt/gt.txt", "det/det.txt", 25, 0.3, 0.01, (0.478, 0.438, 39)),
        ("mot/TUD-Stadtmitte", "gt/gt.txt", "det/det_frcnn.txt", 25, 0.6, 1, (0.707, 0.679, 15)),
    ],
)
def test_real_sequences_beat_plain_overlap_matching(
    shared_data, folder, truth, detections, fps, threshold, scale, floor
):
    """`floor`: MOTA, IDF1 and switches that the data's README gives for overlap matching with constant velocity."""
    pytest.importorskip("trackeval")
    real = load_truth(shared_data / folder / truth)
    table = np.loadtxt(shared_data / folder / detections, delimiter=",")
    tracker = ByteTracker(high_confidence=threshold)
    results = {}
    for frame in range(real.frames):
        here = table[table[:, 0] == frame + 1]
        xyxy = np.hstack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]])
        boxes = Detections(xyxy, np.clip(here[:, 6] * scale, 0, 1), np.zeros(len(here)))
        results[frame] = tracker.update(boxes, frame / fps)
    scores = tracking_scores(results, real)
    mota, idf1, switches = floor
    assert scores.mota >= mota - 0.005
    assert scores.idf1 > idf1
    assert scores.switches <= switches
