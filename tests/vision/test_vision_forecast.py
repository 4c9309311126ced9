"""Forecasts: right for what moves, harmless for what does not, and worth their while on a real recording."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.clock import NS
from edgeward.errors import ConfigError
from edgeward.vision.forecast import MEMORY_SECONDS, Forecast, ForecastOptions
from edgeward.vision.metrics import average_precision, streaming_ap
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.tracking import ByteTracker
from edgeward.vision.truth import Truth, TruthFrame, load_truth

SEEDS = st.integers(0, 2**32 - 1)
SIZE = 75.0
"""Half of width + height of the boxes of `Scene`, pixels."""
PLAIN = ForecastOptions(doubt=0, damping_seconds=3600)


class Scene:
    """People of 50 x 100 pixels who walk on at a constant speed, and a detector with jitter.

    speed, jitter: in box sizes (per second); each walks in a direction of his own.
    """

    def __init__(self, seed, speed, jitter, people=60):
        self.rng = np.random.default_rng(seed)
        self.jitter = jitter * SIZE
        self.start = self.rng.uniform(0, 1000, (people, 2))
        angle = self.rng.uniform(0, 2 * math.pi, people)
        self.velocity = speed * SIZE * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def real(self, time):
        centre = self.start + self.velocity * time
        return np.hstack([centre - [25, 50], centre + [25, 50]])

    def detected(self, time):
        real = self.real(time)
        centre, side = self.rng.normal(0, self.jitter, (2, len(real), 2))
        xyxy = real + np.hstack([centre - side / 4, centre + side / 4])
        return Detections(xyxy, np.ones(len(real)), np.zeros(len(real)), np.arange(len(real)))

    def overlaps(self, seconds, answers=12, options=None):
        """Mean overlap with the truth, moved and unmoved, halfway to an answer that takes so many seconds."""
        forecast, figures = Forecast.start(options), []
        for step in range(answers):
            boxes = self.detected(step * seconds)
            forecast = forecast.observe(boxes, step * seconds)
            now = (step + 1.5) * seconds
            figures.append([self.mean_iou(forecast.at(now), now), self.mean_iou(boxes, now)])
        return np.mean(figures, axis=0)

    def mean_iou(self, boxes, time):
        real = self.real(time)
        return overlap(boxes.xyxy, real, np.zeros(len(real), bool)).diagonal().mean()


def tracked(xyxy, ids):
    n = len(xyxy)
    return Detections(np.asarray(xyxy, float), np.linspace(0.9, 0.5, n), np.arange(n) % 3, ids)


def seen(answers, options=None):
    """The forecast after (time, boxes) answers."""
    forecast = Forecast.start(options)
    for time, boxes in answers:
        forecast = forecast.observe(boxes, time)
    return forecast


def walk(steps=12, seconds=0.2, step=10.0, track=4):
    """One person who walks to the right by `step` pixels each time."""
    return [(k * seconds, tracked([[k * step, 0, k * step + 50, 100]], [track])) for k in range(steps)]


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.floats(0, 0.05), st.floats(0.03, 1))
def test_what_stands_still_is_left_alone(seed, jitter, seconds):
    moved, still = Scene(seed, 0, jitter).overlaps(seconds)
    assert moved >= still - (0.012 if jitter <= 0.03 else 0.03)


@pytest.mark.parametrize(("jitter", "seconds", "loss"), [(0.05, 0.5, 0.017), (0.08, 0.2, 0.03), (0.08, 0.5, 0.03)])
def test_jitter_costs_a_fraction_of_what_it_costs_the_line_through_two_boxes(jitter, seconds, loss):
    moved, still = np.mean([Scene(seed, 0, jitter).overlaps(seconds) for seed in range(5)], axis=0)
    scene = Scene(0, 0, jitter)
    first, second = scene.detected(0), scene.detected(seconds)
    line = Detections(second.xyxy + 1.5 * (second.xyxy - first.xyxy), second.confidence, second.class_id)
    assert still - moved < loss < (still - scene.mean_iou(line, 0)) / 4


def test_a_track_that_jumps_does_not_hold_back_the_others():
    """As when a number goes over to another object."""
    scene, forecast, jumped = Scene(1, 0.8, 0.01, people=8), Forecast.start(), Forecast.start()
    for k in range(12):
        boxes = scene.detected(k * 0.3)
        forecast = forecast.observe(boxes, k * 0.3)
        far = boxes.xyxy.copy()
        far[0] += 80 * (k % 4 < 2)
        jumped = jumped.observe(tracked(far, boxes.tracker_id), k * 0.3)
    last = scene.real(3.3)
    alone, beside = (each.at(3.9).xyxy[1:] - last[1:] for each in (forecast, jumped))
    assert np.linalg.norm(beside) > 0.9 * np.linalg.norm(alone)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.floats(0.4, 1.5), st.floats(0, 0.03), st.floats(0.2, 0.7))
def test_what_walks_is_followed(seed, speed, jitter, seconds):
    moved, still = Scene(seed, speed, jitter).overlaps(seconds)
    assert moved > still + 0.05


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.1, 2), st.floats(0.05, 0.5))
def test_constant_velocity_without_jitter_is_learnt(seed, speed, seconds):
    scene = Scene(seed, speed, 0)
    forecast = seen([(k * seconds, scene.detected(k * seconds)) for k in range(40)], PLAIN)
    now = 41 * seconds
    away = np.abs(forecast.at(now).xyxy - scene.real(now)).max()
    assert away <= 0.05 * speed * SIZE * 2 * seconds + 1e-3


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.2, 20), st.floats(-500, 500), st.floats(0, 1e6))
def test_scale_place_and_time_do_not_matter(seed, scale, shift, later):
    scene = Scene(seed, 0.8, 0.03, people=5)
    answers = [(k * 0.25, scene.detected(k * 0.25)) for k in range(6)]
    other = [
        (time + later, tracked(boxes.xyxy.astype(float) * scale + shift, boxes.tracker_id)) for time, boxes in answers
    ]
    expected = seen(answers).at(1.75).xyxy * scale + shift
    np.testing.assert_allclose(seen(other).at(1.75 + later).xyxy, expected, rtol=1e-3, atol=0.02 * scale + 0.05)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_the_order_of_boxes_does_not_matter_and_is_kept(seed):
    scene, rng = Scene(seed, 0.8, 0.03, people=8), np.random.default_rng(seed)
    plain = mixed = Forecast.start()
    for k in range(5):
        boxes, order = scene.detected(k * 0.2), rng.permutation(8)
        plain, mixed = plain.observe(boxes, k * 0.2), mixed.observe(boxes[order], k * 0.2)
    shown = mixed.at(1.1)
    np.testing.assert_array_equal(shown.tracker_id, order)
    np.testing.assert_allclose(shown.xyxy, plain.at(1.1).xyxy[order], atol=1e-3)


@pytest.mark.parametrize("ids", [None, [-1]])
def test_boxes_of_no_track_stay(ids):
    answers = [(time, tracked(boxes.xyxy, ids)) for time, boxes in walk()]
    last = answers[-1][1]
    shown = seen(answers).at(99)
    np.testing.assert_array_equal(shown.xyxy, last.xyxy)
    assert (shown.tracker_id is None) == (ids is None)


def test_only_boxes_and_nothing_else_about_them_changes():
    shown = seen(walk()).at(2.6)
    last = walk()[-1][1]
    assert shown.xyxy[0, 0] > last.xyxy[0, 0] + 10
    np.testing.assert_allclose(shown.xyxy[:, 2:] - shown.xyxy[:, :2], [[50, 100]], atol=1e-3)
    for name in ("confidence", "class_id", "tracker_id"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(last, name))


def test_a_value_is_never_changed():
    early = seen(walk(4))
    before = early.at(1.0).xyxy.copy()
    early.observe(walk(5)[-1][1], 0.8).observe(Detections.empty(), 1.0)
    np.testing.assert_array_equal(early.at(1.0).xyxy, before)


def test_before_and_at_the_answers_time_boxes_are_where_they_were():
    assert len(Forecast.start().at(1.0)) == 0
    for time in (-5.0, 2.2):
        np.testing.assert_array_equal(seen(walk()).at(time).xyxy, walk()[-1][1].xyxy)


def test_a_new_track_stays_and_an_old_one_goes_on_after_a_miss():
    empty = Detections.empty()
    [*most, (time, last)] = walk()
    new = tracked(np.vstack([last.xyxy, [[300, 0, 350, 100]]]), [4, 2])
    shown = seen([*most[:-1], (most[-1][0], empty), (time, new)]).at(time + 0.4)
    assert shown.xyxy[0, 0] > last.xyxy[0, 0] + 10
    np.testing.assert_array_equal(shown.xyxy[1], new.xyxy[1])


def test_motion_is_forgotten_when_time_runs_back_or_a_track_was_long_away():
    for gap in (-1.0, MEMORY_SECONDS + 1, 1e300):
        [*most, (time, last)] = walk()
        forecast = seen([*most, (time, Detections.empty()), (time + gap, last)])
        np.testing.assert_array_equal(forecast.at(time + gap + 0.5).xyxy, last.xyxy)


def test_motion_dies_down():
    quick = seen(walk(), ForecastOptions(damping_seconds=0.5))
    far = quick.at(1e300).xyxy[0, 0] - walk()[-1][1].xyxy[0, 0]
    assert 10 < far < 50 * 0.5 * 1.1, "50 pixels per second for the time constant, and a tenth"


def test_a_number_given_twice_is_measured_once():
    twice = [(time, tracked(np.vstack([boxes.xyxy, boxes.xyxy + 500]), [4, 4])) for time, boxes in walk()]
    shown, plain = seen(twice).at(2.6), seen(walk()).at(2.6)
    np.testing.assert_allclose(shown.xyxy, np.vstack([plain.xyxy, plain.xyxy + 500]), atol=1e-3)


@pytest.mark.parametrize(("name", "value"), [("doubt", -1), ("jitter", 0), ("damping_seconds", 0), ("doubt", math.nan)])
def test_options_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"forecast: {name} is {value}"):
        ForecastOptions(**{name: value})


@pytest.mark.parametrize("time", [math.nan, math.inf])
def test_times_are_checked(time):
    with pytest.raises(ValueError, match="time_seconds is"):
        Forecast.start().observe(Detections.empty(), time)
    with pytest.raises(ValueError, match="time_seconds is"):
        Forecast.start().at(time)


def scene_truth(scene, frames, fps):
    boxes = np.concatenate([scene.real(frame / fps) for frame in range(frames)])
    people = len(scene.start)
    track = np.tile(np.arange(people), frames).astype(np.int32)
    real = TruthFrame(boxes.astype(np.float32), track, np.zeros(len(boxes), np.int32), np.zeros(len(boxes), bool))
    return Truth(frames, ("person",), np.repeat(np.arange(frames), people).astype(np.int32), real)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_streaming_with_a_forecast_is_brute_force(seed, latency, numbered):
    scene, rng = Scene(seed, 1.0, 0.02, people=3), np.random.default_rng(seed)
    truth = scene_truth(scene, 16, 10)
    arrivals = {frame: frame * NS // 10 for frame in range(16)}
    finished = []
    for frame in range(0, 16, 2):
        boxes = scene.detected(frame / 10)
        boxes = boxes if numbered else Detections(boxes.xyxy, boxes.confidence, boxes.class_id)
        finished.append((arrivals[frame] + latency * NS // 10 + int(rng.integers(0, NS // 2)), frame, boxes))
    known = {}
    for frame, now in arrivals.items():
        ready = sorted((answer for answer in finished if answer[0] <= now), key=lambda answer: answer[0])
        in_order = [a for i, a in enumerate(ready) if all(a[1] >= b[1] for b in ready[:i])]
        if in_order:
            known[frame] = seen([(arrivals[a[1]] / NS, a[2]) for a in in_order]).at(now / NS)
    score = streaming_ap(arrivals, finished, truth, forecast=Forecast.start())
    plain = streaming_ap(arrivals, finished, truth)
    assert score.ap == pytest.approx(average_precision(known, truth), abs=1e-9)
    assert score.staleness_seconds == plain.staleness_seconds
    if not numbered:
        assert score.ap == plain.ap


@pytest.mark.parametrize(("latency", "gain"), [(1, -0.01), (3, 0.03), (5, 0.1)])
def test_it_pays_on_a_real_recording(shared_data, latency, gain):
    """Boxes that come with TUD-Stadtmitte, answered so many frames late and every so many frames."""
    folder, fps = shared_data / "mot/TUD-Stadtmitte", 25
    truth = load_truth(folder / "gt/gt.txt")
    table = np.loadtxt(folder / "det/det_frcnn.txt", delimiter=",")
    tracker, finished = ByteTracker(high_confidence=0.6), []
    arrivals = {frame: frame * NS // fps for frame in range(truth.frames)}
    for frame in range(0, truth.frames - latency, latency):
        here = table[table[:, 0] == frame + 1]
        boxes = Detections(
            np.hstack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]]), np.clip(here[:, 6], 0, 1), np.zeros(len(here))
        )
        finished.append((arrivals[frame + latency], frame, tracker.update(boxes, frame / fps)))
    still = streaming_ap(arrivals, finished, truth).ap
    moved = streaming_ap(arrivals, finished, truth, forecast=Forecast.start()).ap
    assert moved > still + gain


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-200, 200), st.integers(1, 10), st.floats(0, 0.5))
def test_it_is_known_where_those_should_be_that_the_newest_answer_missed(speed, missed, ahead):
    """Two walk side by side; the second is missed for some answers."""
    forecast = Forecast.start()
    for frame in range(20 + missed):
        left = np.array([0.0, 300.0]) + speed * frame / 25
        boxes = Detections(
            np.stack([left, 0 * left, left + 40, 0 * left + 90], axis=1), [0.9, 0.9], [0, 0], np.array([1, 2], np.int32)
        )
        forecast = forecast.observe(boxes[:1] if frame >= 20 else boxes, frame / 25)
    now = (19 + missed) / 25
    places, steps = forecast.known(now + ahead)
    assert len(places) == len(steps) == 2
    assert np.array_equal(places[:1], forecast.newest.xyxy)
    assert places[1] == pytest.approx([300 + speed * now, 0, 340 + speed * now, 90], abs=10)
    assert places[:1] + np.tile(steps[:1], 2) == pytest.approx(forecast.at(now + ahead).xyxy, abs=1e-3)
    assert steps[1] == pytest.approx(steps[0], abs=2 + 0.1 * abs(speed) * ahead)
    assert not forecast.known(now)[1].any()


def test_before_an_answer_nothing_is_known():
    places, steps = Forecast.start().known(1.0)
    assert places.shape == (0, 4)
    assert steps.shape == (0, 2)
    with pytest.raises(ValueError, match="time_seconds is nan"):
        Forecast.start().known(math.nan)
