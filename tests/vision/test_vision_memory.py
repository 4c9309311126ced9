"""What was found in the last moments counts, too: the definition over all looks, and what holds whatever was found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.vision.following import Follower
from edgeward.vision.fusion import ALONE, FORGOTTEN, fused_over_time
from edgeward.vision.memory import MEMORY_SECONDS, MOST, Memory, found_before
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.metrics.precision import average_precision
from edgeward.vision.results import Detections
from edgeward.vision.tracking import ByteTracker
from edgeward.vision.truth import load_truth

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
ROW = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(4, 30), st.integers(1, 1000), st.integers(0, 1))


def boxes_of(rows):
    """Squares of (x, y, side, thousandths of confidence, class)."""
    x, y, side, sure, kind = np.array(rows, np.float64).reshape(-1, 5).T
    return Detections(np.stack([x, y, x + side, y + side], axis=1), sure / 1000, kind)


def people(*sure, x=0.0):
    """One box for each confidence, far from each other."""
    left = x + 100 * np.arange(len(sure))
    return Detections(np.stack([left, 0 * left, left + 40, 0 * left + 90], axis=1), sure, np.zeros(len(sure)))


def shared(one, other):
    return overlap(one.xyxy, other.xyxy, np.zeros(len(other), np.bool_))


ANSWER = st.lists(ROW, max_size=8).map(boxes_of)


@SETTINGS
@given(ANSWER, ANSWER, st.floats(0, 10))
def test_what_is_found_now_keeps_most_of_its_confidence(newest, before, weight):
    shown, kept = fused_over_time(newest, before, weight)
    assert (np.diff(shown.confidence) <= 0).all()
    assert len(shown) <= len(newest) + len(before)
    least = ALONE * np.sort(newest.confidence)[::-1]
    assert (shown.confidence[: len(newest)] >= least - 1e-6).all()
    highest = max(newest.confidence.max(initial=0), before.confidence.max(initial=0))
    assert shown.confidence.max(initial=0) <= highest + 1e-6
    assert len(kept) <= len(shown)
    assert (kept.confidence >= FORGOTTEN - 1e-9).all()


@SETTINGS
@given(ANSWER, ANSWER)
def test_without_weight_what_was_found_before_says_nothing(newest, before):
    """It may still tell boxes of the newest answer apart, but adds none that is worth showing."""
    shown, kept = fused_over_time(newest, before, 0.0)
    assert shown.confidence[: len(newest)] == pytest.approx(np.sort(newest.confidence)[::-1])
    assert (shown.confidence[len(newest) :] == 0).all()
    assert len(kept) == len(newest)


LOOKS = st.lists(
    st.tuples(st.floats(0.02, 0.4), st.lists(st.floats(0, 0.29), min_size=3, max_size=3)), min_size=1, max_size=20
)


@SETTINGS
@given(LOOKS)
def test_confidence_is_a_mean_over_all_looks(looks):
    """Where objects stand still, by the definition: a sum over the history. One is always surely there."""
    memory, now, history = Memory(0.1), 0.0, []
    for step, faint in looks:
        now += step
        history.append((now, [0.9, *faint]))
        memory.see("a", people(0.9, *faint), now)
        weights = [math.exp((time - now) / MEMORY_SECONDS) for time, _ in history]
        means = np.average([sure for _, sure in history], axis=0, weights=weights)
        expected = np.maximum(means, ALONE * np.array(history[-1][1]))
        for place, sure in enumerate(expected):
            here = memory.boxes[memory.boxes.xyxy[:, 0] == 100 * place]
            # What hardly has a chance may be forgotten on the way.
            assert here.confidence.sum() == pytest.approx(sure, abs=0.006)
            assert len(here) <= 1


@SETTINGS
@given(st.floats(-250, 250), st.integers(10, 20), st.integers(1, 7), st.floats(0.5, 1))
def test_who_is_missed_is_shown_where_it_has_walked_to(speed, seen, missed, sure):
    """People walk at up to six times their width in a second; one is missed for some frames, others are seen."""
    memory = Memory(0.3)
    for frame in range(seen + missed + 3):
        away = seen <= frame < seen + missed
        memory.see("a", people(*[sure] * (2 if away else 3), x=speed * frame / 25), frame / 25)
        assert len(memory.boxes) == 3, "nor is anybody shown twice when it is found again"
        if frame >= seen:
            near = shared(memory.boxes, people(1, 1, 1, x=speed * frame / 25))
            assert (near.max(axis=1) > 0.7).all()
        if away:
            third = memory.boxes.confidence[near[:, 2].argmax()]
            assert 0.3 * sure < third < sure


@pytest.mark.parametrize("speed", [60, 200])
@pytest.mark.parametrize("missed", [1, 3, 6, 12])
def test_a_tracker_knows_again_who_was_missed(speed, missed):
    memory, tracker, numbers = Memory(0.3), ByteTracker(0.3), set()
    for frame in range(20 + missed + 10):
        away = 20 <= frame < 20 + missed
        memory.see("a", people(*[0.9] * (1 if away else 2), x=speed * frame / 25), frame / 25)
        shown = memory.boxes[memory.boxes.confidence >= 0.1]
        numbers |= set(tracker.update(shown, frame / 25).tracker_id.tolist())
    assert numbers == {-1, 1, 2}, "-1 in the first frame"


def both(one, other):
    """What detectors "a" and "b" find: persons of their own."""
    return {"a": people(*one), "b": people(*other, x=400)}


@pytest.mark.parametrize("rest", [(), (0.8,)])
def test_detectors_that_never_find_the_same_make_up_for_each_other(rest):
    found, memory = both((0.9,), (0.9, *rest)), Memory(0.3)
    for frame in range(20):
        memory.see("ab"[frame % 2], found["ab"[frame % 2]], frame / 25)
        if frame >= 1:
            assert len(memory.boxes[memory.boxes.confidence > 0.25]) == 2 + len(rest)


def test_who_looks_seldom_does_not_make_others_forget():
    """What "b" found half a second ago hardly has a say by now, yet it was there."""
    memory = Memory(0.3)
    for frame in range(40):
        detector = "b" if frame in (13, 26, 39) else "a"
        memory.see(detector, people(0.9, x=400 * (detector == "b")), frame / 25)
    near = memory.boxes[memory.boxes.xyxy[:, 0] < 300]
    assert near.confidence.max(initial=0) > 0.5


@pytest.mark.parametrize(("away", "left"), [(0.5, 0), (1.2, 1)])
def test_who_has_not_looked_for_a_second_comes_new(away, left):
    """What "b" finds is nowhere near what it found before: another view, unless that was long ago."""
    memory = Memory(0.3)
    memory.see("b", people(0.9, x=400), 0.0)
    for look in range(1, 60):
        memory.see("a", people(0.9), away * look / 60)
    memory.see("b", people(0.9, x=200), away)
    assert int((memory.boxes.xyxy[:, 0] == 0).sum()) == left


def test_in_another_view_nothing_moves_as_before():
    """Somebody who stands where somebody walked is not moved along."""
    memory = Memory(0.3)
    for frame in range(20):
        memory.see("a", people(0.9, 0.9, x=5 * frame), frame / 25)
    memory.reset()
    memory.see("a", people(0.9, x=95), 0.8)
    memory.see("a", people(0.2, x=300), 0.84)
    stays = memory.boxes[memory.boxes.confidence > 0.3]
    assert stays.xyxy[:, 0].tolist() == [95]


def test_in_another_view_nobody_looked_before():
    memory = Memory(0.3)
    for frame in range(20):
        memory.see("ab"[frame % 2], people(0.9, x=400), frame / 25)
    memory.reset()
    memory.see("a", people(0.9), 0.8)
    memory.see("b", people(0.9, x=200), 0.84)
    assert sorted(memory.boxes.xyxy[:, 0].tolist()) == [0, 200]


def test_one_of_another_class_in_the_same_place_is_another_object():
    memory = Memory(0.3)
    for frame in range(20):
        memory.see("a", people(0.9), frame / 25)
    car = Detections(people(0.8).xyxy, [0.8], [1])
    memory.see("a", car, 0.8)
    assert memory.boxes.class_id.tolist() == [1]


@pytest.mark.parametrize(
    ("boxes", "time"),
    [
        (people(0.8, 0.8, x=45), 1.04),  # nothing of what is there lies where something was
        (people(0.8, 0.8), 0.5),
        (people(0.8, 0.8), 4.0),
    ],
    ids=["another view", "an earlier time", "a long time"],
)
def test_what_no_longer_holds_is_forgotten(boxes, time):
    memory = Memory(0.3)
    for frame in range(26):
        memory.see("a", people(0.9, 0.9, 0.9), frame / 25)
    memory.see("a", boxes, time)
    assert len(memory.boxes) == 2
    assert memory.boxes.confidence == pytest.approx(boxes.confidence)
    memory.see("a", Detections.empty(), time + 0.04)
    assert len(memory.boxes) == 2, "a new history begins"


def test_a_look_that_finds_nothing_does_not_empty_the_screen():
    memory = Memory(0.3)
    for frame in range(10):
        memory.see("a", people(0.9, 0.9), frame / 25)
    for frame in range(10, 13):
        memory.see("a", Detections.empty(), frame / 25)
        assert len(memory.boxes[memory.boxes.confidence > 0.4]) == 2
    for frame in range(13, 38):
        memory.see("a", Detections.empty(), frame / 25)
    assert (memory.boxes.confidence < 0.1).all()


@SETTINGS
@given(st.integers(45, 200), st.integers(3, 20))
def test_who_outruns_its_track_leaves_no_ghosts(step, looks):
    memory = Memory(0.3)
    for look in range(looks):
        memory.see("a", people(0.9, x=step * look * (-1) ** look), look / 10)
        assert len(memory.boxes) == 1
        assert memory.boxes.confidence[0] == pytest.approx(0.9)


def test_noise_does_not_pile_up():
    rng, memory = np.random.default_rng(3), Memory(0.1)
    for frame in range(200):
        corner = rng.uniform(0, 1000, (40, 2))
        noise = Detections(np.hstack([corner, corner + 30]), rng.uniform(0.02, 0.25, 40), np.zeros(40))
        memory.see("a", noise, frame / 25)
        assert len(memory.boxes) <= MOST + 40
    assert (memory.boxes.confidence < 0.3).all(), "what is not there is seldom found twice"


@pytest.mark.parametrize(
    ("boxes", "before", "share"),
    [
        (people(), people(0.9), 1.0),
        (people(0.2), people(), 1.0),
        (people(0.9), people(), 0.0),
        (people(0.9), people(0.09), 0.0),
        (people(0.9), Detections(people(0.9).xyxy, [0.9], [1]), 0.0),
        (people(0.9, 0.3), people(0.5), 0.75),
        (people(0.9, 0.3), people(0.5, 0.5), 1.0),
    ],
)
def test_the_share_of_what_is_sure_that_was_expected(boxes, before, share):
    assert found_before(boxes, (before, people())) == pytest.approx(share)


@SETTINGS
@given(ANSWER, ANSWER)
def test_boxes_move_only_with_a_track(found, others):
    """After one look nothing is known of motion; nor later, of what no track is near."""
    follower = Follower(0.3)
    assert follower.carried(others, 1.0) is others
    follower.follow(found, 0.0)
    assert np.array_equal(follower.carried(others, 0.5).xyxy, others.xyxy)


@pytest.mark.parametrize(
    ("place", "detections", "fps", "every", "gain"),
    [
        ("mot/TUD-Stadtmitte/gt/gt.txt", "mot/TUD-Stadtmitte/det/det_frcnn.txt", 25, 1, 0.05),
        ("mot/TUD-Stadtmitte/gt/gt.txt", "mot/TUD-Stadtmitte/det/det_frcnn.txt", 25, 3, 0.05),
        ("multicam/pets2009_s2l1/view_001_gt_mot15.txt", "multicam/pets2009_s2l1/view_001_det_frcnn.txt", 7, 1, 0.05),
    ],
)
def test_it_pays_on_real_recordings(shared_data, place, detections, fps, every, gain):
    """Boxes of a detector that no constant was chosen with, some of which were missed."""
    truth, table = load_truth(shared_data / place), np.loadtxt(shared_data / detections, delimiter=",")
    rng, memory, plain, remembered = np.random.default_rng(7), Memory(0.3), {}, {}
    for frame in range(0, truth.frames, every):
        here = table[(table[:, 0] == frame + 1)]
        here = here[rng.random(len(here)) < 0.9]
        corners = np.hstack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]])
        plain[frame] = Detections(corners, np.clip(here[:, 6], 0, 1), np.zeros(len(here)))
        memory.see("a", plain[frame], frame / fps)
        remembered[frame] = memory.boxes
    before, after = (average_precision(each, truth, frames=list(plain)) for each in (plain, remembered))
    assert after > before + gain
