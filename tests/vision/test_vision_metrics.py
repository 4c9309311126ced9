"""Metrics against independent judges: COCO's own code, brute force, and what must be true of any of them."""

from __future__ import annotations

import builtins
import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.clock import NS
from edgeward.errors import ConfigError, EdgewardError
from edgeward.vision.metrics import average_precision, coco_map, streaming_ap, tracking_scores
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

FRAMES = 8
SEEDS = st.integers(0, 2**32 - 1)


def boxes_at(rng, count, grid):
    corner = rng.integers(0, 12 if grid else 60, (count, 2)).astype(np.float32)
    size = rng.integers(1, 8 if grid else 40, (count, 2)).astype(np.float32)
    if not grid:
        corner += rng.random((count, 2), np.float32)
    return np.hstack([corner, corner + size])


def random_case(seed, classes=2, ignored=0.3):
    """Truth and answers that share some boxes; on a coarse grid, so that overlaps and confidences often tie."""
    rng = np.random.default_rng(seed)
    grid = bool(rng.integers(2))
    counts = rng.integers(0, 6, FRAMES)
    total = int(counts.sum())
    real = TruthFrame(
        boxes_at(rng, total, grid),
        np.concatenate([np.arange(count) for count in counts]).astype(np.int32),
        rng.integers(0, classes, total).astype(np.int32),
        rng.random(total) < ignored,
    )
    truth = Truth(FRAMES, tuple("abc"[:classes]), np.repeat(np.arange(FRAMES), counts).astype(np.int32), real)
    results = {}
    for frame in range(FRAMES):
        here = truth.at(frame)
        copies = here.xyxy[rng.integers(0, len(here), rng.integers(0, 5))] if len(here) else here.xyxy
        copies = copies + (rng.integers(-1, 2, copies.shape) if grid else rng.normal(0, 2, copies.shape))
        copies[:, 2:] = np.maximum(copies[:, 2:], copies[:, :2] + 1)
        xyxy = np.vstack([copies, boxes_at(rng, rng.integers(0, 3), grid)])
        n = len(xyxy)
        confidence = rng.integers(1, 5, n) / 4 if grid else rng.random(n)
        if rng.random() < 0.9:
            results[frame] = Detections(xyxy, confidence, rng.integers(0, classes, n), np.arange(n))
    return results, truth


def by_coco(results, truth):
    """(mean over ten thresholds, at 0.5) by faster_coco_eval."""
    coco = pytest.importorskip("faster_coco_eval")
    annotations, answers = [], []
    for frame in range(truth.frames):
        real = truth.at(frame)
        for box, label, skipped in zip(real.xyxy.tolist(), real.class_id.tolist(), real.ignored.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            note = {
                "id": len(annotations) + 1,
                "image_id": frame + 1,
                "category_id": label + 1,
                "iscrowd": int(skipped),
            }
            annotations.append(note | {"bbox": [*box[:2], width, height], "area": width * height})
        boxes = results.get(frame, Detections.empty())
        columns = (boxes.xyxy.tolist(), boxes.confidence.tolist(), boxes.class_id.tolist())
        for box, score, label in zip(*columns, strict=True):
            where = {"image_id": frame + 1, "category_id": label + 1, "score": score}
            answers.append(where | {"bbox": [*box[:2], box[2] - box[0], box[3] - box[1]]})
    with contextlib.redirect_stdout(io.StringIO()):
        judge = coco.COCO()
        judge.dataset = {
            "info": {},
            "images": [{"id": frame + 1} for frame in range(truth.frames)],
            "categories": [{"id": number + 1, "name": name} for number, name in enumerate(truth.labels)],
            "annotations": annotations,
        }
        judge.createIndex()
        evaluation = coco.COCOeval_faster(judge, judge.loadRes(answers), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    valid = precision[0, 0] > -1
    return (float(precision[:, :, valid].mean()), float(precision[0][:, valid].mean())) if valid.any() else (0.0, 0.0)


@settings(deadline=None, max_examples=150)
@given(SEEDS)
def test_coco_agrees(seed):
    results, truth = random_case(seed)
    if not sum(map(len, results.values())) or not len(truth.frame):
        return
    mean, half = by_coco(results, truth)
    assert coco_map(results, truth) == pytest.approx(mean, abs=1e-6)
    assert average_precision(results, truth) == pytest.approx(half, abs=1e-6)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_coco_agrees_on_equal_overlaps(order):
    """The surer box overlaps two real ones equally; which of them it takes decides about the other box."""
    real = np.array([[0, 0, 10, 8], [0, 2, 10, 10]], np.float32)[list(order)]
    truth = Truth(1, ("a",), np.zeros(2, np.int32), TruthFrame(real, np.arange(2), np.zeros(2, int), np.zeros(2, bool)))
    results = {0: Detections([[0, 0, 10, 10], [0, 2, 10, 10]], [0.9, 0.8], [0, 0])}
    assert coco_map(results, truth) == pytest.approx(by_coco(results, truth)[0], abs=1e-6)


def test_coco_agrees_on_crowded_frames():
    """More than 100 boxes of a class in a frame: only the most confident 100 count."""
    rng = np.random.default_rng(0)
    xyxy = boxes_at(rng, 150, grid=False)
    truth = Truth(
        1, ("a",), np.zeros(150, np.int32), TruthFrame(xyxy, np.arange(150), np.zeros(150, int), np.zeros(150, bool))
    )
    results = {0: Detections(xyxy, rng.random(150), np.zeros(150))}
    assert average_precision(results, truth) == pytest.approx(by_coco(results, truth)[1], abs=1e-6)
    assert 0.6 < average_precision(results, truth) < 0.7


def perfect(truth, frames=None):
    answers = {}
    for frame in range(truth.frames) if frames is None else frames:
        real = truth.at(frame)
        wanted = ~real.ignored
        ones = np.ones(int(wanted.sum()))
        answers[frame] = Detections(real.xyxy[wanted], ones, real.class_id[wanted], real.tracker_id[wanted])
    return answers


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_bounds(seed):
    results, truth = random_case(seed)
    expected = 1.0 if (~truth.boxes.ignored).any() else 0.0
    assert average_precision(perfect(truth), truth) == coco_map(perfect(truth), truth) == expected
    assert average_precision({}, truth) == 0
    assert 0 <= coco_map(results, truth) <= average_precision(results, truth) + 1e-12 <= 1 + 1e-9
    assert average_precision(results, truth, 0.3) >= average_precision(results, truth, 0.7) - 1e-12


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_only_chosen_frames_count(seed):
    results, truth = random_case(seed)
    chosen = [5, 1, 2]
    kept = np.isin(truth.frame, chosen)
    real = truth.boxes
    part = TruthFrame(real.xyxy[kept], real.tracker_id[kept], real.class_id[kept], real.ignored[kept])
    smaller = Truth(truth.frames, truth.labels, truth.frame[kept], part)
    answers = {frame: boxes for frame, boxes in results.items() if frame in chosen}
    assert average_precision(results, truth, frames=chosen) == average_precision(answers, smaller)


def test_iou_is_checked():
    results, truth = random_case(0)
    with pytest.raises(ConfigError, match="iou is 0"):
        average_precision(results, truth, iou=0)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_streaming_without_latency_is_offline(seed):
    results, truth = random_case(seed)
    results |= {frame: Detections.empty() for frame in range(FRAMES) if frame not in results}
    arrivals = {frame: frame * NS // 10 for frame in range(FRAMES)}
    finished = [(arrivals[frame], frame, boxes) for frame, boxes in results.items()]
    score = streaming_ap(arrivals, finished, truth)
    assert score.ap == average_precision(results, truth)
    assert score.staleness_seconds == 0


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_streaming_is_brute_force(seed):
    results, truth = random_case(seed)
    rng = np.random.default_rng(seed)
    arrivals = {frame: int(frame * 100 + rng.integers(50)) for frame in range(FRAMES)}
    finished = [(arrivals[frame] + int(rng.integers(0, 400)), frame, boxes) for frame, boxes in results.items()]
    rng.shuffle(finished)
    views = dict(enumerate(np.sort(rng.integers(0, 3, FRAMES)).tolist())) if seed % 2 else None
    known, ages = {}, []
    for frame, now in arrivals.items():
        ready = [(answered, boxes) for done, answered, boxes in finished if done <= now]
        newest = max((answered for answered, _ in ready), default=None)
        if ready and (views is None or views[newest] == views[frame]):
            answered, known[frame] = max(ready, key=lambda each: each[0])
            ages.append((now - arrivals[answered]) / NS)
    score = streaming_ap(arrivals, finished, truth, views=views)
    assert score.ap == average_precision(known, truth)
    assert score.staleness_seconds == (pytest.approx(np.mean(ages)) if ages else None)


def test_streaming_that_never_finishes_is_worth_nothing():
    results, truth = random_case(1)
    arrivals = {frame: frame for frame in range(FRAMES)}
    for finished in ([], [(NS, frame, boxes) for frame, boxes in results.items()]):
        score = streaming_ap(arrivals, finished, truth)
        assert (score.ap, score.staleness_seconds) == (0.0, None)
    with pytest.raises(ValueError, match=r"never arrived: \[99\]"):
        streaming_ap(arrivals, [(0, 99, Detections.empty())], truth)


def test_later_is_never_better_on_a_walk():
    """A box that walks on: the older the answer, the lower the score."""
    truth = walk(40)
    arrivals = {frame: frame * 100 for frame in range(40)}
    scores = [
        streaming_ap(
            arrivals, [(arrivals[frame] + delay, frame, boxes) for frame, boxes in perfect(truth).items()], truth
        )
        for delay in (0, 150, 350, 1000)
    ]
    assert [round(score.staleness_seconds * NS) for score in scores] == [0, 200, 400, 1000]
    figures = [score.ap for score in scores]
    assert figures[0] == 1 and figures == sorted(figures, reverse=True) and figures[-1] == 0


def walk(frames, people=2, step=6.0, labels=("person",), ignored=()):
    """People side by side who walk to the right."""
    xyxy = [[step * t, 100 * p, step * t + 30, 100 * p + 60] for t in range(frames) for p in range(people)]
    track = np.tile(np.arange(people), frames)
    real = TruthFrame(np.array(xyxy, np.float32), track, track % len(labels), np.isin(track, ignored))
    return Truth(frames, labels, np.repeat(np.arange(frames), people).astype(np.int32), real)


@pytest.fixture
def trackeval():
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.importorskip("trackeval")


def test_perfect_tracks(trackeval):
    truth = walk(20)
    scores = tracking_scores(perfect(truth), truth)
    assert (scores.hota, scores.idf1, scores.mota, scores.switches) == pytest.approx((1, 1, 1, 0))
    assert tracking_scores({}, truth).mota == tracking_scores({}, truth).hota == 0


def test_a_switch_half_way(trackeval):
    """Two of two identities swap: 2 switches among 40 boxes; each identity is right half of the time."""
    truth = walk(20)
    answers = perfect(truth)
    for frame in range(10, 20):
        boxes = answers[frame]
        answers[frame] = Detections(boxes.xyxy, boxes.confidence, boxes.class_id, 1 - boxes.tracker_id)
    scores = tracking_scores(answers, truth)
    assert (scores.switches, scores.mota, scores.idf1) == (2, pytest.approx(38 / 40), pytest.approx(0.5))
    # Each matched pair shares 10 of the 30 frames in which either is there: A = 1/3, D = 1.
    assert scores.hota == pytest.approx((1 / 3) ** 0.5)


def test_one_identity_number_in_two_classes_is_two_identities(trackeval):
    truth = walk(20, labels=("cat", "dog"))
    answers = {
        frame: Detections(boxes.xyxy, boxes.confidence, boxes.class_id, [5, 5])
        for frame, boxes in perfect(truth).items()
    }
    assert tracking_scores(answers, truth).idf1 == pytest.approx(1)
    swapped = {
        frame: Detections(boxes.xyxy, boxes.confidence, 1 - boxes.class_id, [5, 5]) for frame, boxes in answers.items()
    }
    assert tracking_scores(swapped, truth).idf1 == 0


def test_ignored_people_count_neither_way(trackeval):
    everybody = perfect(walk(20, people=3))
    truth = walk(20, people=3, ignored=(1,))
    assert tracking_scores(everybody, truth).mota == pytest.approx(1)
    assert tracking_scores(perfect(truth), truth).mota == pytest.approx(1)
    elsewhere = {
        frame: Detections(boxes.xyxy + 500, boxes.confidence, boxes.class_id, boxes.tracker_id)
        for frame, boxes in everybody.items()
    }
    assert tracking_scores(elsewhere, truth).mota == pytest.approx(-60 / 40)


def test_a_box_that_a_real_person_needs_is_not_passed_over(trackeval):
    """The ignored person stands where a real one stands."""
    truth = walk(20, people=2, ignored=(1,))
    truth.boxes.xyxy[1::2] = truth.boxes.xyxy[::2]
    assert tracking_scores(perfect(truth), truth).mota == pytest.approx(1)


def test_untracked_boxes_and_other_frames_do_not_count(trackeval):
    truth = walk(20)
    answers = perfect(truth)
    answers[3] = Detections(answers[3].xyxy + 300, [1, 1], [0, 0], [-1, -1])
    assert tracking_scores(answers, truth).mota == pytest.approx(38 / 40)
    assert tracking_scores(answers, truth, frames=[0, 1, 2]).mota == pytest.approx(1)


def test_what_cannot_be_scored(trackeval):
    truth = walk(2)
    boxes = perfect(truth)[0]
    with pytest.raises(ValueError, match="no tracker_id"):
        tracking_scores({0: Detections(boxes.xyxy, boxes.confidence, boxes.class_id)}, truth)
    with pytest.raises(ValueError, match="same tracker_id"):
        tracking_scores({0: Detections(boxes.xyxy, boxes.confidence, boxes.class_id, [1, 1])}, truth)
    real = truth.boxes
    nameless = Truth(
        2, truth.labels, truth.frame, TruthFrame(real.xyxy, real.tracker_id - 1, real.class_id, real.ignored)
    )
    with pytest.raises(ConfigError, match="box without identity"):
        tracking_scores({}, nameless)


def test_scores_in_several_threads_leave_the_standard_output_where_it_is(trackeval):
    """The first import prints, and is kept from it; the standard output is the whole process's."""
    code = """
import sys, threading
from edgeward.vision.metrics.tracks import load_trackeval
real = sys.stdout
threads = [threading.Thread(target=load_trackeval) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("here" if sys.stdout is real else "gone", file=real)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "here\n"


def test_without_trackeval_the_message_says_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("trackeval"):
            raise ImportError("No module named 'trackeval'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(EdgewardError, match=r"pip install --no-deps trackeval==1\.3\.0"):
        tracking_scores({}, walk(2))
