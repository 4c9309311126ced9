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
from edgeward.serve.analysis import Analysis
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.choice import Answer, Look
from edgeward.serve.config import QueryConfig
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import EVENT, FrameArrived, Inferred
from edgeward.serve.log import read_log
from edgeward.serve.replay import replay
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.vision.frames import Frame
from edgeward.vision.results import Detections

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


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 9), st.floats(0.05, 1)), min_size=2))
def test_who_answers_first_is_who_loses_least_whoever_comes_next(rungs):
    """By the definition: of each two, one first and then the other, both orders, for as long as both take."""
    fps, base = 30.0, ladder().rungs[0]
    made = tuple(
        replace(base, name=name, accuracy=(accuracy, accuracy), seconds=count / fps)
        for name, (count, accuracy) in rungs.items()
    )
    selector = Selector.start(replace(ladder(), rungs=made), Rules(fps, 100, 100, own_frame=False))
    selector = replace(selector, active=min(rungs))
    first = selector._at_once({rung.name: rung for rung in made}, tuple(rungs))
    worth = {name: float(selector.precisions(name, np.array([float(count)]))[0]) for name, (count, _) in rungs.items()}
    for other in rungs.keys() - {first}:
        on_screen = worth[first] * rungs[other][0]  # until the second answer; then both orders go on alike
        assert on_screen >= worth[other] * rungs[first][0] - 1e-9


def test_only_who_is_in_memory_may_be_first():
    selector = replace(Selector.start(ladder(), Rules(30, 100, 100)), active="large")
    rungs = {rung.name: rung for rung in ladder().rungs}
    assert selector._at_once(rungs, ("small", "middle", "large")) != "large"
    assert selector._at_once(rungs, ("large",)) == "large"


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


def test_another_view_may_come_at_another_pace():
    def paced(*times_ms, at):
        now = state()
        for number, time in enumerate(times_ms):
            now = apply(now, FrameArrived(1 + time * MS, "c0", number, number, 100, 100, int(number >= at)))
        return now.cameras["c0"]

    times = (0, 140, 280, 420, 560, 600)
    assert paced(*times, at=9).period_ns == 140 * MS, "one gap is no pace"
    camera = paced(*times, at=4)
    assert (camera.period_ns, camera.since, camera.since_ns) == (40 * MS, 4, 1 + 560 * MS)
    assert paced(*times, at=5).period_ns == 140 * MS, "nothing is known of it yet"


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
