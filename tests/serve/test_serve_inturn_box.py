"""Rungs in turn in a whole box, on tiny real models."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import settings
from onnx import numpy_helper
from test_serve_fused import DEVICE, assert_blamed, box_text, ran_without_m1, started
from test_serve_inturn_worth import rung

from edgeward.clock import SCHEDSTAT
from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Failed, Inferred
from edgeward.serve.ladder import Ladder, save_ladder
from edgeward.serve.log import read_log
from edgeward.serve.modelconfig import members_of
from edgeward.serve.replay import replay
from edgeward.serve.runner import Runner
from edgeward.serve.simulate import pairs

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


# The whole box.


def calibrated(path, names=("m0", "m1", "m0~m1")):
    """Each rung better than the one before it."""
    rungs = (rung(name, 0.003, (0.8 - 0.6 / 2**place,)) for place, name in enumerate(names))
    save_ladder(Ladder(DEVICE, ("cat",), (0.0, 1.0), tuple(rungs)), path)


def two_eyes(folder, rungs="m0, m1, m0~m1", **more):
    """A box whose m0 finds a cat in the middle and whose m1 finds one in a corner."""
    text = box_text(folder, rungs, **more).replace("model: pets", "model: pets, confidence: 0.3")
    model = onnx.load(folder / "m1.onnx")
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "b2"]
    values = numpy_helper.to_array(bias).reshape(6, 8).copy()
    values[:4, 0] = (8, 8, 8, 8)
    bias.CopyFrom(numpy_helper.from_array(values.reshape(-1), "b2"))
    onnx.save(model, folder / "m1.onnx")
    return text


def ran(folder, text, overrides=()):
    """The report of a box that ran to its end, and its log, which decides the same again."""
    with Box(parse_config(text, "box.yaml", list(overrides)).resolved(folder)) as box:
        box.run()
        report = box.report()
    (recording,) = read_log(folder / "data" / "log")
    assert replay(recording, "edf").identical
    for decided, outcome in pairs(recording.events):
        if isinstance(outcome, Inferred) and SCHEDSTAT.exists():
            assert 0 < outcome.worked_ns <= outcome.time_ns - decided.time_ns
    return report, recording


def inferred(recording, camera="a"):
    return [event for event in recording.events if isinstance(event, Inferred) and event.jobs[0].camera == camera]


def assert_in_turn(events, rung="m0~m1"):
    """Of what one camera was answered: of models in turn, each time another one."""
    before = None
    for event in events:
        model = event.part or event.model
        assert (event.part != "") == (event.model == rung)
        if event.part:
            assert event.part in members_of(rung)
            assert event.part != before
        before = model


def corners(result):
    return sorted(tuple(round(side) for side in box) for box in result["xyxy"])


@pytest.mark.parametrize("rungs", ["m0, m1, m0~m1", "m0~m1"])
def test_a_box_shows_what_both_find_while_one_looks_at_a_time(tmp_path, rungs):
    calibrated(tmp_path / "pets.json")
    report, recording = ran(tmp_path, two_eyes(tmp_path, rungs))
    (query,) = report.queries
    assert query.model == "m0~m1"
    assert query.in_time + query.late >= 40
    events = inferred(recording)
    assert_in_turn(events)
    in_turn = [event for event in events if event.part]
    assert len(in_turn) > 30
    assert {event.part for event in in_turn} == {"m0", "m1"}
    for event in in_turn[1:]:
        (result,) = event.results
        assert len(corners(result)) == 2, "the cat in the middle and that in the corner"
        assert result["confidence"] == pytest.approx([0.45, 0.45], abs=0.05)
    models = {model.name: model for model in report.models}
    assert report.memory.resident_bytes == models["m0~m1"].bytes <= models["m0"].bytes + models["m1"].bytes


def test_two_cameras_take_turns_each_on_its_own(tmp_path):
    calibrated(tmp_path / "pets.json")
    text = two_eyes(tmp_path).replace(
        "cameras: [{name: a, source: '", "cameras: [{name: b, source: 'SCENE', rate: 25}, {name: a, source: '"
    )
    source = text.split("source: '")[2].split("'")[0]
    text = text.replace("SCENE", source).replace("queries: [", "queries: [{camera: b, model: pets, confidence: 0.3}, ")
    report, recording = ran(tmp_path, text)
    assert [query.model for query in report.queries] == ["m0~m1"] * 2
    for camera in ("a", "b"):
        events = [event for event in inferred(recording, camera) if event.part]
        assert len(events) > 30
        assert_in_turn(inferred(recording, camera))
        assert all(len({(job.camera, job.frame) for job in event.jobs}) == 1 for event in events), (
            "one picture at a time"
        )
        assert all(len(corners(event.results[0])) == 2 for event in events[1:])


def test_where_a_member_cannot_be_loaded_the_other_goes_on(tmp_path):
    calibrated(tmp_path / "pets.json")
    recording = ran_without_m1(tmp_path, two_eyes(tmp_path, frames=75))
    assert_blamed(recording, "m0~m1")
    assert all(event.part == "" for event in inferred(recording))


def test_a_member_that_fails_in_its_turn_leaves_with_all_that_holds_it(tmp_path, monkeypatch):
    calibrated(tmp_path / "pets.json")
    asked, answer = [], Runner.infer

    def infer(self, name, pictures, confidence):
        asked.append(name)
        if name == "m1" and asked.count("m1") > 2:  # by itself and in turn it is rehearsed
            raise RuntimeError("the accelerator is gone")
        return answer(self, name, pictures, confidence)

    monkeypatch.setattr(Runner, "infer", infer)
    report, recording = ran(tmp_path, two_eyes(tmp_path, frames=75))
    assert_blamed(recording, "m0~m1")
    assert report.queries[0].model == "m0"
    [why] = {event.error for event in recording.events if isinstance(event, Failed)}
    assert why == "'m1': RuntimeError: the accelerator is gone"


def test_what_does_not_fit_in_memory_together_is_left_out_or_refused(tmp_path):
    """Models in turn are both in memory: a change at every frame would load one each time."""
    calibrated(tmp_path / "pets.json")
    text = two_eyes(tmp_path, frames=25)
    with Box(parse_config(text, "box.yaml").resolved(tmp_path)) as box:
        short = box.models["m0~m1"].spec.bytes - 1
        assert box.models["m0~m1"].max_batch == 1 < box.models["m0"].max_batch, "cameras differ in whose turn it is"
        assert max(box.models[name].spec.bytes for name in ("m0", "m1")) <= short
    with Box(parse_config(text, "box.yaml", [f"budget.memory={short}"]).resolved(tmp_path)) as box:
        box.run()
        assert box.report().queries[0].model == "m1"
        assert not {model.name: model.inferences for model in box.report().models}["m0~m1"]
    alone = parse_config(two_eyes(tmp_path, "m0~m1"), "box.yaml", [f"budget.memory={short}"])
    with pytest.raises(BudgetError, match=r"'m0~m1'.* memory"):
        Box(alone.resolved(tmp_path))


@pytest.mark.parametrize(
    ("rungs", "names", "message"),
    [
        ("m0, m0~m1", ("m0", "m0~m1"), "its calibration says nothing of 'm1', which 'm0~m1' holds; .*calibrate"),
        ("m0, m0~m1", ("m0", "m1"), "says nothing of model 'm0~m1'; .*calibrate"),
        ("m0, m0~m7", ("m0", "m1"), "lists model 'm7'; known: m0, m1"),
    ],
)
def test_calibrations_that_lack_the_rung_or_its_member_are_refused(tmp_path, rungs, names, message):
    calibrated(tmp_path / "pets.json", names)
    with pytest.raises(ConfigError, match=f"ladder 'pets'.* {message}"):
        started(tmp_path, box_text(tmp_path, rungs))


def test_another_query_of_the_same_camera_takes_nobodys_turn(tmp_path):
    """One query has m0 alone, the other m0 and m1 in turn."""
    calibrated(tmp_path / "pets.json")
    text = two_eyes(tmp_path, "m0~m1").replace("queries: [", "queries: [{name: plain, camera: a, model: m0}, ")
    _, recording = ran(tmp_path, text)
    events = [event for event in inferred(recording) if event.part]
    assert len(events) > 30
    assert {event.part for event in events[4:]} == {"m0", "m1"}
    assert all(len(corners(event.results[0])) == 2 for event in events[4:])
