"""A camera that shows another view: what was known of the old one is dropped, and the first answer comes soon."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import save_scenes
from test_serve_laddering import FOUND, MS, TAKES, LadderCosts, answers, boxes, choices, frames, ladder, run, state
from tinymodel import box_text

from edgeward.clock import NS
from edgeward.serve import looks
from edgeward.serve.analysis import Analysis
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.certainty import Dialect
from edgeward.serve.choice import Answer, Choice, Look
from edgeward.serve.config import QueryConfig
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import EVENT, FrameArrived, Inferred
from edgeward.serve.log import read_log
from edgeward.serve.replay import replay
from edgeward.serve.rules import Rules
from edgeward.serve.score import Answer as Found
from edgeward.serve.score import accuracy
from edgeward.serve.selection import Selector
from edgeward.serve.staleness import Motion
from edgeward.vision.frames import Frame
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

CUT = 60
"""Number of the first frame of the second view."""


def cut(arrivals, at=CUT):
    return [replace(event, view=int(event.frame >= at)) for event in arrivals]


def still(frame):
    return boxes(50, 0)


def test_the_first_answer_in_a_new_view_comes_soon_and_then_all_goes_on():
    """Small objects at rest: "large" finds 0.9 after 5 frames, "middle" 0.5 after 2, "small" 0.1 after one."""
    found = run(state(), cut(frames(4)), LadderCosts(scene=still))
    begun_ns = next(event.time_ns for event in found.events if isinstance(event, FrameArrived) and event.view)
    order = [
        event.model for event in found.events if isinstance(event, Inferred) and event.jobs[0].arrived_ns >= begun_ns
    ]
    assert order[0] == "middle"
    assert set(order[1:]) == {"large"}
    before = [event.model for event in found.events if isinstance(event, Inferred) and event.time_ns < begun_ns]
    assert before[-1] == "large"
    (choice,) = [each for each in choices(found) if "new view" in each.reason]
    assert choice.probe, "who is in charge stays"
    without = run(state(), frames(4), LadderCosts(scene=still))
    assert {model for at, model in answers(without) if at * NS > begun_ns} == {"large"}


RUNGS = st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 9), st.floats(0.05, 1)), min_size=2)


def selecting(rungs, fps=30.0, period=0.0):
    """rungs: frames at 30 a second that an answer takes, and accuracy; "a" or the next one is in charge."""
    base = ladder().rungs[0]
    made = tuple(
        replace(base, name=name, accuracy=(accuracy, accuracy), seconds=count / 30)
        for name, (count, accuracy) in rungs.items()
    )
    rules = Rules(fps, 100, 100, own_frame=False, period=period)
    return replace(Selector.start(replace(ladder(), rungs=made), rules), active=min(rungs))


def at_once(selector):
    rungs = {rung.name: rung for rung in selector.ladder.rungs}
    return looks.at_once(selector, rungs, tuple(rungs))


def played(rungs, first, period):
    """Accuracy on screen, summed over frames of boxes that do not age: `first` looks, then who is in charge, for long."""
    answers, at, name = [], 0, first
    while at < 600:
        answers.append((at + rungs[name][0], rungs[name][1]))
        at, name = max(at + rungs[name][0], at + period), min(rungs)
    return sum(max((each for each in answers if each[0] <= frame), default=(0, 0.0))[1] for frame in range(600))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(RUNGS, st.sampled_from([0, 15, 30]))
def test_who_answers_first_in_a_new_view_is_best_by_playing_it(rungs, period):
    """At 30 frames a second. Who is first changes when all later answers come, by as much for each: a frame or so."""
    selector = selecting(rungs, period=period / 30)
    still = replace(selector, retention=replace(selector.retention, motion=Motion("fixed", "decay", assumed=1.0)))
    worth = {name: played(rungs, name, period) for name in rungs}
    assert worth[at_once(still)] >= max(worth.values()) - 1e-6


def test_where_waiting_costs_nothing_nobody_else_is_first():
    """Whoever answers first stays for the whole period; a slow camera's next frame comes after the answer anyway."""
    rungs = {"a": (5, 0.9), "b": (2, 0.5)}
    assert at_once(selecting(rungs)) == "b"
    assert at_once(selecting(rungs, period=0.5)) == at_once(selecting(rungs, fps=5.0)) == "a"


def test_another_view_may_come_at_the_usual_pace():
    """At seven frames a second both answer before the next one; at thirty waiting would cost much more than that."""
    selector = selecting({"a": (4, 0.9), "b": (2, 0.8)}, fps=7.0)
    assert looks._gained(selector, "b", 7.0) < 0
    assert at_once(selector) == "b"


def test_a_look_in_a_new_view_is_free():
    """What is on screen is of another view."""
    selector = replace(Selector.start(ladder(), Rules(30, 1000, 1000, own_frame=False)), active="large", began=0.0)
    selector = selector.observe(Answer("large", 1.0, boxes(50, 0)), 1.2, 0.15)
    look = Choice("small", "", probe=True)
    assert selector.taken(look, 5.0).credit != selector.credit
    moved = selector.looking(Look(25, 640, 480, since=2.0))  # of another size and pace
    assert moved.in_new_view
    assert moved.taken(look, 5.0).credit == selector.credit


def test_a_new_view_may_hold_anything():
    """Hardly anything after much is no sign of a bad model there."""

    def factor(since):
        selector = Selector.start(ladder(), Rules(30, 1000, 1000, own_frame=False))
        for number in range(30):
            selector = selector.observe(Answer("large", 1 + number / 30, boxes(50, 0, count=9)), 1.1 + number / 30, 0.1)
        selector = selector.looking(Look(30, 1000, 1000, since=since))
        return selector.observe(Answer("middle", 2.1, boxes(50, 0, count=1)), 2.2, 0.04).evidence.factor("middle")

    assert factor(since=2.05) > factor(since=0.0) + 0.002


def test_only_who_is_in_memory_may_be_first():
    selector = replace(Selector.start(ladder(), Rules(30, 100, 100)), active="large")
    rungs = {rung.name: rung for rung in ladder().rungs}
    assert looks.at_once(selector, rungs, ("small", "middle", "large")) != "large"
    assert looks.at_once(selector, rungs, ("large",)) == "large"


def test_what_moved_in_one_view_says_nothing_of_the_next():
    """Boxes that happen to lie beside those of the old view are no motion."""
    selector = Selector.start(ladder(), Rules(30, 1000, 1000, own_frame=False))
    for number in range(40):
        if number == 30:
            selector = selector.looking(Look(30, 1000, 1000, since=1 + number / 30))
        shown = boxes(150, 0) if number < 30 else boxes(150, 1, speed=0.3)
        old, selector = selector, selector.observe(Answer("large", 1 + number / 30, shown), 1.1 + number / 30, 0.1)
        if number == 30:
            assert selector.retention == old.retention
    assert selector.retention.rates.max() < 1e-4
    assert not selector.in_new_view


def test_an_answer_about_a_view_that_is_gone_says_nothing_of_motion():
    """Two cuts while it was worked on: it is of neither the old view nor the new one."""
    selector = Selector.start(ladder(), Rules(30, 1000, 1000, own_frame=False))
    for number in range(30):
        selector = selector.observe(Answer("large", 1 + number / 30, boxes(150, 0)), 1.1 + number / 30, 0.1)
    for since in (2.01, 2.2):
        selector = selector.looking(Look(30, 1000, 1000, since=since))
    after = selector.observe(Answer("large", 2.1, boxes(150, 1, speed=0.3)), 2.3, 0.1)
    assert after.retention == selector.retention
    assert after.in_new_view


def test_another_view_may_come_at_another_pace():
    def paced(*times_ms, at):
        now = state()
        for number, time in enumerate(times_ms):
            now = apply(now, FrameArrived(1 + time * MS, "c0", number, number, 100, 100, int(number >= at)))
        return now.cameras["c0"]

    times = (0, 140, 280, 420, 560, 600, 640)
    assert paced(*times, at=9).period_ns == 140 * MS, "two gaps are no pace"
    camera = paced(*times, at=4)
    assert (camera.period_ns, camera.since, camera.since_ns) == (40 * MS, 4, 1 + 560 * MS)
    assert paced(*times, at=6).period_ns == 140 * MS, "nothing is known of it yet"
    assert paced(0, 40, 80, 120, 121, 160, 200, at=3).period_ns == pytest.approx(40 * MS, rel=0.05), "a burst is none"


def analysis(**changed):
    query = QueryConfig(camera="gate", model="m", confidence=0.3, **changed)
    return Analysis(query, ("cat",))


def frame(index, view, size=(120, 160)):
    return Frame(index, index / 25, np.zeros((*size, 3), np.uint8), index, view)


HERE = Detections([[10, 10, 40, 60]], [0.9], [0])
THERE = Detections([[100, 50, 130, 100]], [0.9], [0])


@pytest.mark.parametrize("after", [{"view": 1}, {"view": 0, "size": (240, 320)}], ids=["a cut", "another size"])
def test_tracks_memory_and_forecast_begin_anew(after):
    each = analysis(tracker=True, forecast=True, remember=True)
    for index in range(20):
        shown = each.take(frame(index, 0), HERE, "m")
    (old,) = shown.tracker_id.tolist()
    shown = each.take(frame(20, **after), THERE, "m")
    assert shown.xyxy.tolist() == THERE.xyxy.tolist(), "nothing of the old view is remembered"
    assert each.expected is None or not len(each.expected)
    assert len(each.forecast(21 / 25)) == 1
    for index in range(21, 30):
        shown = each.take(frame(index, **after), HERE, "m")
    assert old not in shown.tracker_id.tolist(), "who stands there now is somebody else"


def test_nothing_is_remembered_where_nothing_is():
    each = analysis(remember=True)
    for index in range(20):
        each.take(frame(index, 0), HERE, "m")
    assert len(each.take(frame(20, 0), Detections.empty(), "m")) == 1
    assert len(each.take(frame(21, 1), Detections.empty(), "m")) == 0


def test_who_looked_at_the_old_view_has_no_say_in_the_new_one():
    """Of models in turn."""
    dialects = {name: Dialect(("cat",)) for name in ("a", "b", "a~b")}
    query = QueryConfig(camera="gate", model="pets", confidence=0.3)
    each = Analysis(query, ("cat",), dialects)
    each.take(frame(0, 0), HERE, "a~b", "a")
    assert len(each.take(frame(1, 0), Detections.empty(), "a~b", "b")) == 1
    each.take(frame(2, 0), HERE, "a~b", "a")
    assert len(each.take(frame(3, 1), Detections.empty(), "a~b", "b")) == 0


def test_the_score_holds_nothing_of_the_old_view_against_the_new_one():
    """An object that stands still, seen once; the view changes after the second of four frames."""
    here = TruthFrame(HERE.xyxy.repeat(4, axis=0), np.full(4, -1), np.zeros(4, np.int32), np.zeros(4, bool))
    truth = Truth(4, ("cat",), np.arange(4, dtype=np.int32), here)
    arrivals = [FrameArrived(10 * index, "gate", index, index, 160, 120) for index in range(4)]
    shown = [Found(5, 0, HERE)]
    assert accuracy(arrivals, shown, truth, ("cat",))["streaming_ap50"] == pytest.approx(0.75, abs=0.01)
    seen = accuracy(cut(arrivals, at=2), shown, truth, ("cat",))
    assert seen["streaming_ap50"] == pytest.approx(0.25, abs=0.01)


def test_a_box_notes_the_view_shows_nothing_of_the_old_one_and_replays(tmp_path):
    film = save_scenes(tmp_path / "film", [1] * 25 + [2] * 25)
    text = box_text(tmp_path, {"gate": film})
    with Box(parse_config(text, "box.yaml")) as box:
        box.run()
        newest = box.live_frame("gate")
        (query,) = box.state.queries
        (index, result) = box.telemetry.newest(query)
        assert box.state.cameras["gate"].since == 25
        assert [overlay.frame_index for overlay in newest.overlays] == [index]
        box.telemetry._newest[query] = (24, result)  # as if the new view had no answer yet
        assert box.live_frame("gate").overlays == ()
    with sqlite3.connect(tmp_path / "data" / "box.sqlite") as store:
        told = [text for (text,) in store.execute("SELECT text FROM events WHERE kind = 'camera'")]
    assert told.count("gate shows another view") == 1
    (recording,) = read_log(tmp_path / "data" / "log")
    seen = [event.view for event in recording.events if isinstance(event, FrameArrived)]
    assert seen == [0] * 25 + [1] * 25
    assert replay(recording, "edf").identical


def test_logs_of_before_know_one_view():
    record = '{"time_ns": 5, "camera": "gate", "frame": 0, "content": 0, "kind": "frame"}'
    assert EVENT.validate_json(record).view == 0


def test_the_scene_of_these_tests_is_as_described():
    assert [FOUND[name][0] for name in ("small", "middle", "large")] == [0.1, 0.5, 0.9]
    assert [-(-each // 33) for each in TAKES.values()] == [1, 2, 5]
