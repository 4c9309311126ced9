"""What models in turn are worth on screen: precision, load and the joint choice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeward.serve.ages import Ages, frames_on_screen
from edgeward.serve.choice import Answer
from edgeward.serve.combinations import STEPS
from edgeward.serve.inturn import LONE, MISLAID, OUTRUN, RECENT_SECONDS, TOO_FAST
from edgeward.serve.joint import exact
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.latency import among
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.sizes import SizeHistogram
from edgeward.serve.staleness import REACH, SPREAD
from edgeward.vision.results import Detections

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


# What models in turn are worth on screen.

EDGES = (0.0, 0.1, 0.25, 1.0)


def rung(name, seconds=0.03, accuracy=(0.3, 0.6, 0.9), **more):
    parts = (seconds,) * looks_of(name) if looks_of(name) > 1 else ()
    return Rung(name, accuracy, seconds, parts=more.pop("parts", parts), **more)


def selector(*rungs, speed=0.02, rules=None, shares=(1.0, 2.0, 3.0)):
    """A camera whose objects, of three sizes, move so many of their sizes a frame, the small ones fastest."""
    fresh = Selector.start(Ladder("box", ("object",), EDGES, rungs), rules or Rules(30, 640, 480, drift=None))
    rates = tuple((1e9, 1e9 * (speed * factor) ** 2) for factor in (3, 2, 1))
    return replace(
        fresh, histogram=SizeHistogram(shares, (1.0,) * 3), retention=replace(fresh.retention, bins=rates, all=rates[0])
    )


def by_hand(each, name, ages):
    """Average precision of boxes of these ages: of objects of constant speed, so many at each age are still right."""
    [made] = [rung for rung in each.ladder.rungs if rung.name == name]
    reach = REACH * (made.fit - 0.5) / (made.fit + 0.5)
    kept = 0.0
    for rate, share, accuracy in zip(each.retention.rates, each.histogram.shares, made.accuracy, strict=True):
        kept = kept + share * accuracy / (1 + (math.sqrt(rate) * ages / reach) ** SPREAD)
    return kept


def left_of(each, name, apart):
    """Share of what models in turn found that is not mislaid: of each older look, by what motion would have lost."""
    looks, whole = name.count("~") + 1, by_hand(each, name, 0.0)
    lost = 0.0
    for look in range(1, looks):
        frames = look * max(apart * each.rules.fps, 1.0)
        gone = 1 - by_hand(each, name, frames) / whole
        if frames > RECENT_SECONDS * each.rules.fps:
            known = [by_hand(each, other.name, 0.0) for other in each.ladder.rungs if other.name in name.split("~")]
            lost += (1 - min(float(np.mean(known)) / whole if known else LONE, 1.0)) / (looks - 1)
        else:
            lost += (MISLAID * gone + OUTRUN * gone**TOO_FAST) / looks
    return 1 - lost


def on_screen(each, name, parts, cycle):
    """The mean over the answers of one round, each as long as it is on screen: until the next one's is there."""
    fps, worth, spans = each.rules.fps, [], []
    for place, seconds in enumerate(parts):
        span = max(cycle, parts[(place + 1) % len(parts)])
        if each.rules.own_frame:
            first = frames_on_screen(seconds, fps)
            first = 0 if first == 1 else first
            ages = Ages.between(first, first + frames_on_screen(max(span, seconds), fps) - 1)
        else:
            ages = Ages.of(seconds, max(span, seconds), fps, varies=each.latency.varies)
        worth.append(sum(s * by_hand(each, name, age) for age, s in zip(ages.frames, ages.shares, strict=True)))
        spans.append(max(span, 1 / fps))
    return np.average(worth, weights=spans) * left_of(each, name, max(cycle, np.mean(parts)))


PART = st.floats(0.002, 0.3)
ROUND = st.sampled_from([1, 2, 3]).flatmap(lambda count: st.lists(PART, min_size=count, max_size=count))


def camera_of(parts, speed, rules):
    """A camera with one rung of so many models in turn, and its name."""
    name = "~".join("abc"[: len(parts)])
    mean = sum(parts) / len(parts)
    return selector(rung(name, mean, parts=tuple(parts) if len(parts) > 1 else ()), speed=speed, rules=rules), name


@pytest.mark.parametrize("own_frame", [True, False])
@SETTINGS
@given(ROUND, st.floats(0, 0.1), st.sampled_from([7.0, 25.0, 30.0]), st.sampled_from([0.0, 0.05, 0.5]))
def test_precision_is_the_mean_over_a_round_of_answers_and_their_ages(own_frame, parts, speed, fps, cycle):
    camera, name = camera_of(parts, speed, Rules(fps, 640, 480, own_frame=own_frame, drift=None))
    # Ages are looked up for hundredths of a frame.
    assert camera.precision(name, cycle) == pytest.approx(on_screen(camera, name, parts, cycle), rel=1e-3)


@SETTINGS
@given(st.floats(0.005, 0.2), st.floats(0.001, 0.1))
def test_in_turn_is_worth_what_together_is_worth_where_nothing_moves_and_less_the_more_does(seconds, speed):
    """At the same pace; in truth together takes longer."""

    def loses(speed):
        camera = selector(rung("a+b", seconds), rung("a~b", seconds), rung("a~b~c", seconds), speed=speed)
        whole = camera.precision("a+b")
        return [1 - camera.precision(name) / whole for name in ("a~b", "a~b~c")]

    assert loses(0.0) == pytest.approx([0, 0], abs=1e-9)
    two, three = loses(speed)
    assert 0 < two < three < 1
    assert loses(speed / 2)[0] < two


def test_precisions_without_a_turn_take_that_of_late():
    camera, ages = selector(rung("a~b")), np.arange(5.0)
    slow = replace(camera, turn=0.2)
    assert slow.precisions("a~b", ages) == pytest.approx(by_hand(slow, "a~b", ages) * left_of(slow, "a~b", 0.2))
    assert camera.precisions("a~b", ages) == pytest.approx(camera.precisions("a~b", ages, 1 / 30))


PARTS = (0.02, 0.06, 0.01)
NOMINAL = {"a": 0.02, "b": 0.06, "a~b": 0.04, "a~b~c": 0.03}


def slowed(told, rounds, under, rung_name, paced):
    """After so many turns of each model, each slowed by the same load; `told`: whether it is said which one looked."""
    ladder = [rung("a", 0.02), rung("b", 0.06), rung("a~b", 0.04, parts=PARTS[:2]), rung("a~b~c", 0.03, parts=PARTS)]
    camera, seen = selector(*ladder), []
    slow, beside = under
    for step in range(rounds * looks_of(rung_name)):
        part = members_of(rung_name)[step % looks_of(rung_name)]
        took, now = among(slow * PARTS["abc".index(part)], beside), 0.1 * (step + 1)
        said = part if told else ""
        if paced:
            camera = camera.paced(rung_name, took, now, said, beside)
        else:
            answer = Answer(rung_name, now - took, Detections.empty(), part=said, beside=beside)
            camera = camera.observe(answer, now, took)
        seen.append(camera)
    return seen


@pytest.mark.parametrize("name", ["a~b", "a~b~c"])
@SETTINGS
@given(st.floats(0.2, 5), st.floats(0, 4), st.integers(1, 6), st.booleans())
def test_load_is_told_from_whoever_looked_without_ripple(name, slow, beside, rounds, paced):
    under = {each: among(slow * seconds, beside) for each, seconds in NOMINAL.items()}
    for camera in slowed(True, rounds, (slow, beside), name, paced):
        assert camera.latency.seconds == pytest.approx(under)
        parts = camera.latency.turns(camera.ladder.rung(name))
        assert parts == pytest.approx([among(slow * each, beside) for each in PARTS[: looks_of(name)]])
    assert camera.latency.varies <= selector(rung("a")).latency.varies + 1e-9, "as steady as each of them is"
    assert (
        np.ptp([each.latency.seconds[name] for each in slowed(False, 3, (slow, beside), name, paced)])
        > 0.1 * slow * NOMINAL[name]
    )


def test_what_another_rung_took_is_its_own():
    camera = selector(rung("a", 0.02), rung("a~b", 0.04, parts=(0.02, 0.06)))
    assert camera.paced("other~b", 1.0, 0.1, "b") == camera
    assert camera.paced("a", 0.03, 0.1).latency.seconds["a"] == pytest.approx(0.03)


def looked_up(seconds, period):
    """A turn as the joint choice looks it up."""
    return max(math.exp(round(math.log(seconds) * STEPS) / STEPS), period)


@pytest.mark.parametrize("own_frame", [True, False])
@SETTINGS
@given(ROUND, st.floats(0, 0.05), st.sampled_from([1.0, 7.0, 30.0]), st.integers(1, 4))
def test_cameras_are_together_worth_what_each_is_at_their_pace(own_frame, parts, speed, fps, count):
    """Of equal cameras that all fall behind, or of one."""
    camera, name = camera_of(parts, speed, Rules(fps, 640, 480, own_frame=own_frame, drift=None))
    mean = sum(parts) / len(parts)
    assume(count == 1 or count * mean > 1.1 / fps)
    each = camera.precision(name, looked_up(count * mean, 1 / fps))
    found = exact({f"c{place}": camera for place in range(count)}, 0.0).total / count
    assert found == pytest.approx(each, rel=0.03)


def test_the_joint_choice_takes_turns_where_little_moves_and_not_where_much_does():
    alone = (0.3, 0.6, 0.7)
    rungs = rung("a", 0.03, alone), rung("b", 0.03, (0.3, 0.5, 0.7)), rung("a~b", 0.03, [1.03 * each for each in alone])
    slow, fast = (selector(*rungs, speed=speed) for speed in (0.0001, 0.5))
    assert exact({"gate": slow}, 0.0).names["gate"] == "a~b"
    assert exact({"gate": fast}, 0.0).names["gate"] == "a"
    assert dict(exact({"gate": slow, "yard": fast}, 0.0).names)["yard"] == "a"


def test_looks_too_far_apart_to_be_joined_promise_no_more_than_one_of_them():
    """A query that asks for an answer every two seconds, of a scene at rest."""
    rules = Rules(30, 640, 480, period=2.0, drift=None)
    camera = selector(
        rung("a", 0.03, (0.5,) * 3), rung("b", 0.03, (0.5,) * 3), rung("a~b", 0.03), speed=0.0, rules=rules
    )
    assert camera.precision("a~b") <= camera.precision("a") + 1e-9


@SETTINGS
@given(st.floats(0.5, 1.0), st.floats(1.1, 20))
def test_a_lone_look_says_nothing_against_its_rung(share, apart):
    """Now and then one of two has a look while a third model is in charge: what it lacks is the other's look."""
    whole = 0.9
    alone = share * whole
    rungs = [rung("big", 0.03, (0.8,) * 3), *(rung(name, 0.03, (alone,) * 3) for name in "ab")]
    begun = Selector.start(
        Ladder("box", ("object",), EDGES, (*rungs, rung("a~b", 0.03, (whole,) * 3))), Rules(30, 640, 480)
    )
    now = 0.0

    def boxes(found):
        """As many as make up so large an area, all of a size and side by side."""
        count = max(round(found), 1)
        box = np.stack(
            [np.arange(count) * 50.0, np.zeros(count), np.arange(count) * 50.0 + 40, np.full(count, 40.0)], 1
        )
        return Detections(box, [0.999] * count, [0] * count)

    for turn in range(12):
        begun = begun.observe(Answer("big", now, boxes(80)), now + 0.03, 0.03)
        answer = Answer("a~b", now + 0.03, boxes(100 * alone), part="ab"[turn % 2])
        begun = begun.observe(answer, now + 0.06, 0.03)
        now += apart
    assert begun.evidence.factor("a~b") / begun.evidence.factor("big") == pytest.approx(1, abs=0.02)
