"""Rungs in turn: whose turn it is, and what the newest looks found."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.serve.certainty import Dialect, certain
from edgeward.serve.inturn import Looks, Turns
from edgeward.serve.modelconfig import members_of
from edgeward.vision.frames import Frame
from edgeward.vision.fusion import fused_in_turn
from edgeward.vision.labels import relabelled
from edgeward.vision.results import Detections

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


# Whose turn it is.

RUNGS = ("a", "b", "c", "a+b", "a~b", "b~a", "a~b~c", "c~b")
CAMERAS = ("gate", "yard", "hall")


def turns_of(steps):
    """Which model answered each (rung, camera), one after another."""
    turns, found = Turns(), []
    for rung, camera in steps:
        found.append(turns.due(rung, [camera]))
        turns.looked(found[-1], [camera])
    return found


@SETTINGS
@given(st.lists(st.sampled_from(CAMERAS), max_size=40), st.sampled_from(["a~b", "a~b~c", "d~c~b~a"]))
def test_each_camera_has_its_own_turns_however_cameras_come(cameras, rung):
    by_camera = defaultdict(list)
    for model, camera in zip(turns_of((rung, camera) for camera in cameras), cameras, strict=True):
        by_camera[camera].append(model)
    for answered in by_camera.values():
        assert answered == list(itertools.islice(itertools.cycle(members_of(rung)), len(answered)))


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from(RUNGS), st.sampled_from(CAMERAS)), max_size=40))
def test_it_is_the_turn_of_who_has_not_looked_for_longest(steps):
    """Told from the whole history, whatever rungs were in charge before; rungs of one look are themselves."""
    history = defaultdict(list)
    for (rung, camera), model in zip(steps, turns_of(steps), strict=True):
        looked = [members_of(each) for each in history[camera]]
        if "~" not in rung:
            assert model == rung
        else:
            newest = {m: max((at for at, each in enumerate(looked) if m in each), default=-1) for m in rung.split("~")}
            assert newest[model] == min(newest.values())
            assert model == next(m for m in newest if newest[m] == newest[model])
        history[camera].append(model)


ASKED = st.lists(st.sampled_from(CAMERAS), min_size=1, max_size=3, unique=True)


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from(["a~b", "a~b~c"]), ASKED), max_size=30))
def test_of_queries_that_ask_together_the_one_that_waits_longest_is_served(steps):
    """The model that one of them has not heard from for longest."""
    turns, heard, at = Turns(), {}, 0
    for rung, asked in steps:
        due, at = turns.due(rung, asked), at + 1
        longest = {m: min(heard.get((m, query), 0) for query in asked) for m in members_of(rung)}
        assert longest[due] == min(longest.values())
        turns.looked(due, asked)
        heard |= {(due, query): at for query in asked}


def test_a_change_to_models_in_turn_begins_with_the_other_one():
    assert turns_of([("a", "gate"), ("a~b", "gate"), ("a~b", "gate")]) == ["a", "b", "a"]
    assert turns_of([("a", "yard"), ("a~b", "gate")]) == ["a", "a"], "another camera's looks are none"
    turns = Turns()
    assert turns.due("a~b", ["gate"]) == turns.due("a~b", ["gate"]) == "a", "who was asked but failed is asked again"


# What the newest looks found.

NAMES = ("left", "right")
DIALECTS = {
    "a": Dialect(NAMES, (1.3, -0.4)),
    "b": Dialect(("other", *reversed(NAMES)), (0.7, 0.2)),
    "c": Dialect(NAMES),
    "a~b": Dialect(NAMES, (1.2, 0.3)),
    "a~b~c": Dialect(NAMES, (0.9, -0.2)),
}
BOX = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20), st.integers(1, 99))


def found_by(model, rows):
    """What a model says of (x, y, width, height, hundredths, ...), classes by the model's own numbers."""
    x, y, width, height, sure = np.array(rows, float).reshape(-1, 5).T
    first = 1 if model == "b" else 0
    kind = first + np.arange(len(x)) % 2
    return Detections(np.stack([x, y, x + width, y + height], axis=1), sure / 100, kind)


def frame(time, width=64, height=48):
    return Frame(0, time, np.zeros((height, width, 3), np.uint8), 0)


def meant(model, boxes):
    return certain(relabelled(boxes, DIALECTS[model].labels, NAMES), DIALECTS[model].certainty)


def assert_alike(one, other):
    assert np.array_equal(one.xyxy, other.xyxy)
    assert np.array_equal(one.confidence, other.confidence)
    assert np.array_equal(one.class_id, other.class_id)


LOOK = st.tuples(
    st.sampled_from([("a", "a"), ("c", "c"), ("a~b", "a"), ("a~b", "b"), ("a~b~c", "a"), ("a~b~c", "b")]),
    st.lists(BOX, max_size=4),
    st.sampled_from([0.0, 0.04, 0.3, 0.7, 1.01, -0.2]),
    st.sampled_from([64, 64, 64, 32]),
)


class Still(Looks):
    """Looks at what does not move."""

    def _follow(self, boxes, time):
        pass


@SETTINGS
@given(st.lists(LOOK, max_size=12))
def test_what_is_joined_is_what_each_model_found_last_and_lately(looks):
    """Of objects at rest. Another view (here of another width), and frames of later and of long ago do not count."""
    joining, history, now = Still(DIALECTS, NAMES, 0.3), {}, 10.0
    for (rung, model), rows, later, width in looks:
        now += later
        boxes = found_by(model, rows)
        if any(each[1] != width for each in history.values()):
            joining.reset()
        joined = joining.understood(rung, model, boxes, frame(now, width))
        history = {each: look for each, look in history.items() if look[1] == width and 0 <= now - look[0] <= 1.0}
        others = [each for each in members_of(rung) if each in history and each != model]
        others.sort(key=lambda each: -history[each][0])
        alone = meant(model, boxes)
        both = fused_in_turn([alone, *(meant(each, history[each][2]) for each in others)])
        assert_alike(joined, meant(rung, both) if others else alone)
        history[model] = (now, width, boxes)


ROW = (0, 0, 10, 10, 80)


@pytest.mark.parametrize(
    ("time", "anew", "counts"),
    [(5.04, 0, True), (6.0, 0, True), (5.0, 0, True), (6.01, 0, False), (4.96, 0, False), (5.04, 1, False)],
)
def test_a_look_counts_for_a_second_in_its_view(time, anew, counts):
    looks = Looks(DIALECTS, NAMES, 0.3)
    looks.understood("a", "a", found_by("a", [ROW]), frame(5.0))
    if anew:
        looks.reset()
    joined = looks.understood("a~b", "b", found_by("b", []), frame(time))
    assert len(joined) == counts
    if counts:
        sure = meant("a", found_by("a", [ROW]))
        halved = replace(sure, confidence=sure.confidence / 2)
        assert joined.confidence == pytest.approx(meant("a~b", halved).confidence), (
            "and what the whole is known to mean"
        )


def test_models_with_other_lists_of_classes_agree_by_name():
    looks = Looks(DIALECTS, NAMES, 0.3)
    one = Detections([[0, 0, 10, 10], [30, 0, 40, 10]], [0.8, 0.6], [0, 1])
    looks.understood("a", "a", one, frame(0.0))
    same = replace(one, class_id=np.array([2, 1]))
    joined = looks.understood("a~b", "b", same, frame(0.04))
    assert joined.xyxy[:, 0].tolist() == [0, 30]
    assert joined.class_id.tolist() == [0, 1]
    mean = (meant("a", one).confidence + meant("b", same).confidence) / 2
    assert joined.confidence == pytest.approx(certain(replace(one, confidence=mean), (1.2, 0.3)).confidence)


@pytest.mark.parametrize("newer", ["a", "c"])
def test_of_what_the_newest_look_missed_the_next_newest_tells_where_it_is(newer):
    """Of three models in turn, whichever order they are named in."""
    looks, found = Looks(DIALECTS, NAMES, 0.3), {}
    for name, x in (("c" if newer == "a" else "a", 0), (newer, 3)):
        found[name] = meant(name, found_by(name, [(x, 0, 10, 10, 80)]))
        looks.understood(name, name, found_by(name, [(x, 0, 10, 10, 80)]), frame(0.04 * len(found)))
    joined = looks.understood("a~b~c", "b", Detections.empty(), frame(0.12))
    assert_alike(joined, meant("a~b~c", fused_in_turn([Detections.empty(), *reversed(found.values())])))
    assert joined.xyxy[0, 0] > fused_in_turn([Detections.empty(), *found.values()]).xyxy[0, 0] + 0.5


def test_rungs_of_one_look_are_understood_alone():
    looks = Looks({"a": DIALECTS["a"], "a+b": DIALECTS["a~b"]}, NAMES, 0.3)
    assert not looks.wanted
    assert Looks(DIALECTS, NAMES, 0.3).wanted
    for each in (looks, Looks(DIALECTS | {"a+b": DIALECTS["a~b"]}, NAMES, 0.3)):
        each.understood("a", "a", found_by("a", [ROW]), frame(0.0))
        both = each.understood("a+b", "a+b", found_by("a", []), frame(0.04))
        assert len(both) == 0
        assert_alike(each.understood("a", "a", found_by("a", [ROW]), frame(0.08)), meant("a", found_by("a", [ROW])))


PLAIN = {name: Dialect(NAMES) for name in ("a", "b", "a~b", "a+b")}


def walked(looks, speed, until, box_of):
    """After both models saw objects in so many frames of 25 a second, in turn."""
    for index in range(until):
        name = "ab"[index % 2]
        looks.understood("a~b", name, box_of(speed * index), frame(index / 25))
    return "ab"[until % 2]


def one_walks(x):
    return Detections([[x, 10, x + 20, 30], [300, 300, 310, 310]], [0.8, 0.8], [0, 0])


@SETTINGS
@given(st.floats(-8, 8), st.integers(12, 24), st.integers(1, 3))
def test_what_was_found_before_moves_on_with_the_objects(speed, until, missed):
    """As far as their tracks go until the next look, which misses them; what rests stays where it is."""
    looks = Looks(PLAIN, NAMES, 0.3)
    due = walked(looks, speed, until, one_walks)
    at = until - 1 + missed
    joined = looks.understood("a~b", due, Detections.empty(), frame(at / 25))
    moved, rests = joined[np.argsort(joined.xyxy[:, 1])].xyxy[:, 0].tolist()
    assert rests == pytest.approx(300, abs=0.5)
    assert abs(moved - speed * at) < 0.35 * abs(speed) * missed + 0.5


def test_a_frame_moves_what_was_found_once_however_often_it_is_asked_for():
    looks = Looks(PLAIN, NAMES, 0.3)
    due = walked(looks, 2.0, 20, one_walks)
    asked = [looks.understood("a~b", due, Detections.empty(), frame(20 / 25)) for _ in range(3)]
    for each in asked[1:]:
        assert_alike(each, asked[0])


def test_what_moves_too_far_for_looks_to_meet_is_followed_all_the_same():
    """Objects that move by two fifths of their width from look to look, of which no look is very sure."""
    looks, found = Looks(PLAIN, NAMES, 0.3), 0
    for index in range(40):
        name, x = "ab"[index % 2], 100 + 16.0 * index
        joined = looks.understood("a~b", name, Detections([[x, 10, x + 40, 90]], [0.5], [0]), frame(index / 5))
        found += bool(len(joined) and joined.confidence[0] > 0.45)
    assert found > 30


def test_what_models_found_together_counts_for_each_of_them():
    looks = Looks(PLAIN, NAMES, 0.3)
    looks.understood("b", "b", found_by("a", [(30, 0, 10, 10, 90)]), frame(0.0))
    looks.understood("a+b", "a+b", found_by("a", [ROW]), frame(0.04))
    joined = looks.understood("a~b", "a", Detections.empty(), frame(0.08))
    assert joined.xyxy[:, 0].tolist() == [0], "what b found before has been looked over since"
