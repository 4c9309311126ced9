"""Common beginnings in a box: never at the cost of a right answer, of a start, or of an honest estimate."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter
from tinyheads import answers, assert_same, detectors, images, loaded

from edgeward.clock import NS, to_seconds
from edgeward.errors import ModelError, StoreError
from edgeward.serve import beginnings
from edgeward.serve.actions import Infer, Job
from edgeward.serve.analysis import Analysis
from edgeward.serve.apply import apply
from edgeward.serve.beginnings import BegunModel, ByPicture, begin_together
from edgeward.serve.buffer import FrameBuffer
from edgeward.serve.choice import Chooser
from edgeward.serve.config import QueryConfig
from edgeward.serve.events import EVENT, Decided, FrameArrived, Inferred, Second
from edgeward.serve.latency import among
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.state import ModelSpec, ModelState, QuerySpec, State
from edgeward.serve.workers import Workers
from edgeward.vision.frames import Frame
from edgeward.weights.store import WeightStore

MS = NS // 1000


@pytest.fixture
def store(tmp_path):
    return WeightStore(tmp_path / "weights")


def brighter(folder, store, classes):
    """A detector of the same file, fed otherwise."""
    config = ModelConfig(
        name=f"b{classes}", file=folder / f"m{classes}.onnx", convention="yolov8",
        labels=tuple(f"c{index}" for index in range(classes)), input={"mean": (-9.0, -9.0, -9.0)},
    )  # fmt: skip
    return {config.name: resolve_model(config, store, folder, "cpu")}


def test_the_same_files_fed_in_two_ways_are_two_beginnings(tmp_path, store):
    models = detectors(tmp_path, store, (1, 2))
    models |= brighter(tmp_path, store, 1) | brighter(tmp_path, store, 2)
    found = begin_together(models)
    assert len({each.beginning.prefix.graph for each in found.values()}) == 1, "the case in question"
    whole, together = loaded(models), loaded(found)
    for picture in images(3):
        for name in models:
            assert_same(answers(together, name, [picture]), answers(whole, name, [picture]))
            theirs = whole.prepare(name, picture).pixels
            assert np.array_equal(together.prepare(name, picture).pixels, theirs)


@pytest.mark.parametrize(
    "error",
    [StoreError("cannot write x: full"), ModelError("refused"), OSError(30, "Read-only"), KeyError("tensor(uint32)")],
)
def test_a_box_does_without_when_nothing_can_be_found_out(tmp_path, store, monkeypatch, error):
    models = detectors(tmp_path, store, (1, 2))
    models |= brighter(tmp_path, store, 1) | brighter(tmp_path, store, 2)
    said = []

    def failing(*_):
        raise error

    monkeypatch.setattr(beginnings, "common_beginnings", failing)
    assert begin_together(models, note=said.append) == models
    [text] = said
    assert str(error) in text
    assert "stay whole" in text


def test_models_of_different_cameras_stay_whole(tmp_path, store):
    models, said = detectors(tmp_path, store), []
    apart = begin_together(models, {"m1": {"gate"}, "m2": {"yard"}}, said.append)
    assert apart == models
    assert not said
    found = begin_together(models, {"m1": {"gate"}, "m2": {"yard"}, "m3": {"yard", "gate"}})
    assert sum(isinstance(each, BegunModel) for each in found.values()) == 2


def test_inputs_give_way_before_values_and_what_was_asked_for_stays():
    made, pictures = ByPicture(room=100), images(4)
    made.put(pictures[0], "cut", 1, 40)
    made.put(pictures[0], "input", 2, 40, spare=True)
    made.put(pictures[1], "cut", 3, 40)
    assert [made.get(pictures[0], key) for key in ("cut", "input")] == [1, None]
    made.get(pictures[0], "cut")
    made.put(pictures[2], "cut", 4, 40)
    assert [made.get(picture, "cut") for picture in pictures] == [1, None, 4, None]
    made.put(pictures[3], "cut", 5, 101)
    assert [made.get(picture, "cut") for picture in pictures] == [1, None, 4, None], "too large to be kept at all"


def test_what_was_made_goes_as_soon_as_its_picture_does():
    made, pictures, gone = ByPicture(), images(2), threading.Event()

    class Made:
        def __del__(self):
            gone.set()

    made.put(pictures[0], "k", Made(), 40)
    made.put(pictures[1], "k", 1, 2)
    del pictures[0]
    gc.collect()
    assert gone.is_set()
    assert made.nbytes == 2
    with made._lock:  # whoever works there meanwhile does not wait for himself
        pictures.clear()
        gc.collect()
    assert made.nbytes == 0


def test_what_is_shared_cannot_be_changed(tmp_path, store):
    found = begin_together(detectors(tmp_path, store))
    runner, [picture] = loaded(found), images(1)
    answers(runner, "m1", [picture])
    pixels = runner.prepare("m2", picture).pixels
    with pytest.raises(ValueError, match="read-only"):
        pixels[:] = 0
    engine = runner._engines["m1"]
    for values in engine._made.get(picture, engine._key):
        assert not values.flags.writeable


class Work:
    """Workers over models that begin together, without threads, on one frame after another."""

    def __init__(self, models):
        self.runner, self.frames = loaded(models), 0
        self.buffer = FrameBuffer(["a"], [])
        queries = {name: QueryConfig(camera="a", model=name) for name in models}
        analyses = {name: Analysis(query, models[name].card.labels) for name, query in queries.items()}
        self.workers = Workers(self.runner, self.buffer, analyses, lambda event: None)

    def arrive(self):
        [image] = images(1)
        self.buffer.put("a", Frame(self.frames, 0.0, image, self.frames), threading.Event())
        self.frames += 1

    def infer(self, model, *also):
        jobs = (Job(model, "a", self.frames - 1, 0, NS),)
        return self.workers._infer(0, Infer(model, jobs, also=also))


def test_who_began_a_picture_is_told_from_who_found_it_begun(tmp_path, store, monkeypatch):
    work, order = Work(begin_together(detectors(tmp_path, store))), []
    plain = work.runner.infer
    monkeypatch.setattr(work.runner, "infer", lambda name, *rest: order.append(name) or plain(name, *rest))
    work.arrive()
    event = work.infer("m1", "m2")
    assert order == ["m1", "m2"], "the model in charge pays for what is common"
    assert (event.whole, [second.whole for second in event.also]) == (True, [False])
    assert not work.infer("m3").whole
    work.arrive()
    assert work.infer("m3").whole
    alone = Work(detectors(tmp_path, store))
    alone.arrive()
    assert alone.infer("m1", "m2").whole
    assert alone.infer("m3").whole


class Paced(Chooser):
    """Remembers what it is told of times."""

    def __init__(self, told=(), besides=()):
        self.told, self.besides = told, besides

    def choice(self, now, resident=()):
        raise AssertionError("nothing is to be chosen")

    def observe(self, result, now, seconds):
        return self.paced(result.rung, seconds, now, result.part, result.beside)

    def paced(self, name, seconds, now, part="", beside=0.0):
        return Paced((*self.told, (name, seconds, part)), (*self.besides, beside))


def ran(state, now, took, **changes):
    """After an inference of m0 that took so long."""
    number, job = state.decisions, Job("q", "a", 0, 0, NS)
    state = apply(state, Decided(now, number, Infer("m0", (job,))))
    return apply(state, Inferred(now + took, number, "m0", (job,), **changes))


def test_estimates_are_of_a_model_alone():
    models = [ModelSpec(name, {name: 1}, max_batch=4) for name in ("m0", "m1")]
    query = QuerySpec("q", "a", "m0", period_ns=0, deadline_ns=NS, max_staleness_ns=NS, every_frame=False)
    state = apply(State.start([query], models, 10), FrameArrived(1, "a", 0, 0))
    state = replace(state, queries={"q": replace(state.queries["q"], chooser=Paced())})
    state = ran(state, 10, MS, whole=False)
    assert state.models["m0"].infer_ns == {1: MS}, "better than nothing"
    state = ran(state, 2 * NS, 100 * MS)
    known = state.models["m0"].infer_ns[1]
    assert known > 20 * MS
    state = ran(state, 3 * NS, MS, whole=False)
    assert state.models["m0"].infer_ns == {1: known}
    also = (Second("m1", MS, whole=False),)
    state = ran(state, 4 * NS, 2 * MS, whole=False, also=also)
    told = [seconds for name, seconds, _ in state.queries["q"].chooser.told if name == "m0"]
    assert told[-2:] == [to_seconds(known)] * 2


def test_what_a_model_is_known_to_take_is_told_beside_the_programs_of_now():
    """It is remembered without waiting: what it took beside others then says nothing of how many there are now."""
    models = [ModelSpec("m0", {"m0": 1}, max_batch=4)]
    query = QuerySpec("q", "a", "m0", period_ns=0, deadline_ns=NS, max_staleness_ns=NS, every_frame=False)
    state = apply(State.start([query], models, 10), FrameArrived(1, "a", 0, 0))
    state = replace(state, queries={"q": replace(state.queries["q"], chooser=Paced())})
    alone_ns = 20 * MS

    def under(beside, worked_ns):
        return round(NS * among(worked_ns / NS, beside))

    for step in range(1, 30):
        state = ran(state, step * NS, under(3.0, alone_ns), worked_ns=alone_ns)
    state = ran(state, 30 * NS, under(1.0, MS), worked_ns=MS, whole=False)
    chooser = state.queries["q"].chooser
    assert chooser.told[-2][1] == pytest.approx(under(3.0, alone_ns) / NS)
    assert chooser.told[-1][1] == pytest.approx(under(1.0, alone_ns) / NS)
    assert chooser.besides[-2:] == pytest.approx([3.0, 1.0], rel=1e-4)


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("beside", [0.0, 2.0])
def test_a_batch_waits_once_and_tells_of_one_picture(pictures, beside):
    models = [ModelSpec("m0", {"m0": 1}, max_batch=4)]
    cameras = [f"c{place}" for place in range(pictures)]
    queries = [
        QuerySpec(name, name, "m0", period_ns=0, deadline_ns=NS, max_staleness_ns=NS, every_frame=False)
        for name in cameras
    ]
    state = State.start(queries, models, 10)
    for place, name in enumerate(cameras):
        state = apply(state, FrameArrived(1 + place, name, 0, 0))
    state = replace(state, queries={name: replace(each, chooser=Paced()) for name, each in state.queries.items()})
    jobs, worked_ns = tuple(Job(name, name, 0, 0, NS) for name in cameras), pictures * 20 * MS
    state = apply(state, Decided(10, 0, Infer("m0", jobs)))
    took_ns = round(NS * among(worked_ns / NS, beside))
    state = apply(state, Inferred(10 + took_ns, 0, "m0", jobs, worked_ns=worked_ns))
    for each in state.queries.values():
        assert each.chooser.told[-1][1] == pytest.approx(among(0.02, beside))
        assert each.chooser.besides[-1] == pytest.approx(beside, abs=1e-6)


def test_what_a_rung_is_known_to_take_is_nobodys_turn():
    """An answer of models in turn that found work done tells its mean, whichever of them it was."""
    models = [ModelSpec(name, {name: 1}, max_batch=4) for name in ("m0", "m1")]
    query = QuerySpec("q", "a", "m0", period_ns=0, deadline_ns=NS, max_staleness_ns=NS, every_frame=False)
    state = apply(State.start([query], models, 10), FrameArrived(1, "a", 0, 0))
    state = replace(state, queries={"q": replace(state.queries["q"], chooser=Paced())})
    state = ran(state, 10, 100 * MS, part="m1")
    state = ran(state, 2 * NS, 5 * MS, part="m1", whole=False)
    assert [part for _, _, part in state.queries["q"].chooser.told] == ["m1", ""]


def test_logs_of_before_there_were_models_in_turn_can_be_read():
    spec = {"name": "m", "tensors": {"t": 1}}
    for cold in (True, False):
        assert TypeAdapter(ModelState).validate_python({"spec": spec, "cold": cold}).cold == frozenset()
    whole = ModelState(ModelSpec("m", {"t": 1}), cold=frozenset({"a", "b"}))
    assert TypeAdapter(ModelState).validate_json(TypeAdapter(ModelState).dump_json(whole)) == whole


def test_logs_of_before_say_that_models_did_all_themselves():
    line = b'{"time_ns":1,"number":0,"model":"m","jobs":[],"also":[{"model":"n","took_ns":5}],"kind":"inferred"}'
    event = EVENT.validate_json(line)
    assert event.whole
    assert event.also[0].whole
    assert EVENT.validate_json(EVENT.dump_json(replace(event, whole=False))) == replace(event, whole=False)


def test_a_later_box_of_the_same_files_needs_no_second_search(tmp_path, store, monkeypatch):
    models = detectors(tmp_path, store, (1, 2))
    cameras = {"m1": {"a"}, "m2": {"a"}}
    first = begin_together(models, cameras)
    monkeypatch.setattr("edgeward.weights.prefix._sought", None)
    assert begin_together(models, cameras) == first
