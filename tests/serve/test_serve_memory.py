"""Queries that remember, in a whole box: what they show, what their choosers learn from, what the log holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_inturn_box import calibrated, corners, inferred, ran, two_eyes

from edgeward.errors import ConfigError
from edgeward.serve.analysis import Analysis
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.certainty import Dialect, certain
from edgeward.serve.config import QueryConfig
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Inferred
from edgeward.vision.frames import Frame
from edgeward.vision.memory import Memory
from edgeward.vision.results import Detections

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
NAMES = ("person", "car")
DIALECTS = {"a": Dialect(NAMES, (0.8, -0.2)), "b": Dialect(("car", "person"), (1.3, 0.4))}
ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(5, 20), st.integers(1, 999), st.integers(0, 1)),
    max_size=6,
)


def remembering(folder, rungs="m0, m1", **more):
    return two_eyes(folder, rungs, **more).replace("confidence: 0.3", "confidence: 0.2, remember: true")


def test_models_that_take_over_from_each_other_remember_what_the_other_found(tmp_path):
    """m0 finds a cat in the middle, m1 one in the corner."""
    calibrated(tmp_path / "pets.json")
    text = remembering(tmp_path).replace("calibration: pets.json", "calibration: pets.json, rule: round-robin")
    _, recording = ran(tmp_path, text)
    events = inferred(recording)
    assert {event.model for event in events} == {"m0", "m1"}
    changed = [event for before, event in itertools.pairwise(events) if before.model != event.model]
    assert changed
    for event in changed:
        (found,), (result,) = event.found, event.results
        assert len(found["xyxy"]) == 1
        assert corners(found)[0] in corners(result)
    assert any(len(corners(event.results[0])) == 2 for event in events), "both cats, whoever looks"


def test_a_chooser_learns_from_what_the_model_itself_found(tmp_path):
    calibrated(tmp_path / "pets.json")
    _, recording = ran(tmp_path, remembering(tmp_path, "m0, m1, m0~m1"))
    state, differs = recording.state, 0
    for event in recording.events:
        state = apply(state, event)
        if isinstance(event, Inferred):
            (query,) = state.queries.values()
            least = query.chooser.rules.confidence
            (found,) = event.found
            assert query.chooser.last.boxes.confidence.tolist() == [
                sure for sure in Detections.from_json(found).confidence.tolist() if sure >= least
            ]
            differs += found != event.results[0]
    assert differs


def test_without_it_the_log_says_nothing_twice(tmp_path):
    calibrated(tmp_path / "pets.json")
    _, recording = ran(tmp_path, two_eyes(tmp_path, "m0, m1"))
    assert all(event.found == () for event in inferred(recording))


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from("ab"), ROWS, st.booleans()), max_size=12), st.sampled_from([0.1, 0.3]))
def test_all_looks_count_whoever_looked_and_whether_or_not_it_was_asked_to_answer(looks, confidence):
    """By the definition: scores made probabilities, classes by name, all looks in order; then what the query is about."""
    query = QueryConfig(camera="gate", model="people", confidence=confidence, classes=("person",), remember=True)
    analysis, memory = Analysis(query, NAMES, DIALECTS), Memory(confidence)
    for index, (model, rows, compared) in enumerate(looks):
        x, y, side, sure, kind = np.array(rows, np.float64).reshape(-1, 5).T
        answer = Detections(np.stack([x, y, x + side, y + 2 * side], axis=1), sure / 1000, kind)
        frame = Frame(index, index / 25, np.zeros((120, 160, 3), np.uint8), index)
        sides = certain(answer, DIALECTS[model].certainty)
        named = sides.class_id if model == "a" else 1 - sides.class_id
        asked = Detections(sides.xyxy, sides.confidence, named)[named == 0]
        memory.see(model, asked, frame.time)
        alone = analysis.seen(frame, answer, model) if compared else analysis.take(frame, answer, model)
        own = (sides.confidence >= confidence) & (named == 0)
        found = alone if compared else analysis.found
        assert np.array_equal(np.sort(found.confidence), np.sort(sides.confidence[own]))
        if not compared:
            wanted = memory.boxes[memory.boxes.confidence >= confidence]
            assert np.array_equal(alone.xyxy, wanted.xyxy)
            assert np.array_equal(alone.confidence, wanted.confidence)


def test_fainter_boxes_are_asked_for_as_they_add_up():
    plain = Analysis(QueryConfig(camera="gate", model="people"), NAMES, DIALECTS)
    remembers = Analysis(QueryConfig(camera="gate", model="people", remember=True), NAMES, DIALECTS)
    assert remembers.floor("a") < plain.floor("a")


def test_only_boxes_are_remembered(tmp_path):
    text = (
        "cameras: [{name: a, source: 'test://people'}]\nmodels: [{name: scene, use: efficientnet-lite0}]\n"
        f"queries: [{{camera: a, model: scene, remember: true}}]\ndata: '{tmp_path}/data'\nweb: {{enabled: false}}"
    )
    with pytest.raises(ConfigError, match="query 'a-scene': 'remember' keeps boxes, but model 'scene' does class"):
        Box(parse_config(text, "box.yaml"))
