"""Queries that choose of a ladder: in the loop on a virtual clock, and in a real box."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_portfolio import save_family
from tinymodel import save_detector

from edgeward.clock import NS
from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.actions import Choose, Infer, Load, Wait
from edgeward.serve.answering import device_name
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.choosers import chooser_for
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import EVENT, Failed, FrameArrived, Inferred, Loaded, Second
from edgeward.serve.ladder import Ladder, Rung, save_ladder
from edgeward.serve.ladderview import UNCHANGED, ladder_report
from edgeward.serve.latency import among
from edgeward.serve.log import read_log
from edgeward.serve.modelconfig import LadderConfig
from edgeward.serve.policies import policy_named
from edgeward.serve.replay import replay
from edgeward.serve.rivals import Fixed, Periodic, RoundRobin, Thresholds
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.simulate import Costs, ending, simulate
from edgeward.serve.state import STATE, ModelSpec, QuerySpec, State
from edgeward.vision.results import Detections

MS = NS // 1000
SIDE = 1000
PEOPLE = "test://people?seed=1&fps=25&width=160&height=120&frames={frames}&objects=2"
TAKES = {"small": 10, "middle": 40, "large": 150}
"""Milliseconds."""


def ladder(**changes):
    rungs = {
        "small": Rung("small", (0.1, 0.7), 0.01, bytes=100, static_iou=0.99),
        "middle": Rung("middle", (0.5, 0.8), 0.04, bytes=100, static_iou=0.99),
        "large": Rung("large", (0.9, 0.9), 0.15, bytes=100, static_iou=0.99),
    }
    return Ladder("here", ("person",), (0.0, 0.1, 1.0), tuple((rungs | changes).values()))


def boxes(side, frame, count=6, speed=0.0):
    """Objects `side` large that move by `speed` of their size each frame."""
    left = np.arange(count) * (SIDE / count) + (speed * side * frame) % SIDE
    return Detections(
        np.stack([left, np.full(count, 100.0), left + side, np.full(count, 100.0 + side)], axis=1),
        [0.9] * count,
        [0] * count,
    )


FOUND = {rung.name: rung.accuracy for rung in ladder().rungs}


def seen(model, scene, frame):
    """What a model finds of a scene, as its accuracies say; a box is as sure as it is likely to be found at all."""
    side = float(scene.xyxy[0, 2] - scene.xyxy[0, 0]) / SIDE if len(scene) else 0.0
    chance = FOUND[model][int(side >= 0.1)]
    lots = np.random.default_rng(list(TAKES).index(model) + 3 * frame).random(len(scene))
    return replace(scene[lots < chance], confidence=scene.confidence[lots < chance] * (0.5 + chance / 2))


class LadderCosts(Costs):
    """Each model takes its time, times the load at that moment, and finds what its accuracy says."""

    def __init__(self, load=lambda ns: 1.0, scene=lambda frame: boxes(50, frame), load_ns=20 * MS, broken=None):
        self.load, self.scene, self.load_ns = load, scene, load_ns
        self.broken = broken or (lambda model, ns: False)

    def outcome(self, decided):
        action = decided.action
        if isinstance(action, Infer):
            if self.broken(action.model, decided.time_ns):
                return Failed(decided.time_ns + MS, decided.number, action.model, "infer", "the runtime refused it")
            slow = self.load(decided.time_ns)
            also = tuple(
                Second(name, round(TAKES[name] * slow * MS), self.results(name, action)) for name in action.also
            )
            took = round(TAKES[action.model] * slow * MS * action.batch) + sum(second.took_ns for second in also)
            results = self.results(action.model, action)
            return Inferred(decided.time_ns + took, decided.number, action.model, action.jobs, results, also)
        if isinstance(action, Wait):
            return ending(decided, max(action.until_ns, decided.time_ns))
        return ending(decided, decided.time_ns + self.load_ns)

    def results(self, model, action):
        return tuple(seen(model, self.scene(job.frame), job.frame).to_json() for job in action.jobs)


def state(chooser=None, budget=10_000, cameras=1, every_frame=False):
    made = chooser or (lambda: Selector.start(ladder(), Rules(30, SIDE, SIDE, own_frame=False, memory=budget)))
    names = tuple(TAKES)
    queries = [QuerySpec(f"q{i}", f"c{i}", "people", 0, 500 * MS, NS, every_frame, names) for i in range(cameras)]
    models = [ModelSpec(name, {name: 100}, 1) for name in names]
    return State.start(queries, models, budget, {query.name: made() for query in queries})


def frames(seconds, period=33, cameras=1):
    count = round(1000 * seconds / period)
    return sorted(
        (
            FrameArrived(1 + index * period * MS + camera * 7 * MS, f"c{camera}", index, index, SIDE, SIDE)
            for camera in range(cameras)
            for index in range(count)
        ),
        key=lambda event: event.time_ns,
    )


def run(begun, arrivals, costs=None, policy="edf-lru"):
    return simulate(begun, arrivals, policy_named(policy), costs or LadderCosts())


def answers(found, query="q0"):
    """Who answered a query: (time in seconds, model)."""
    return [
        (event.time_ns / NS, event.model)
        for event in found.events
        if isinstance(event, Inferred) and any(job.query == query for job in event.jobs)
    ]


def choices(found):
    return [event.action for event in found.decisions if isinstance(event.action, Choose)]


def test_small_objects_that_stand_still_get_the_large_model_and_large_fast_ones_the_small_one():
    still = run(state(), frames(4))
    assert {model for at, model in answers(still) if at > 2} == {"large"}
    moving = run(state(), frames(4), LadderCosts(scene=lambda frame: boxes(150, frame, speed=0.08)))
    late = [model for at, model in answers(moving) if at > 2]
    assert late.count("small") > 0.9 * len(late)


def test_a_choice_says_why_and_follows_the_load():
    slow = LadderCosts(load=lambda ns: 6.0 if 3 * NS < ns < 6 * NS else 1.0, scene=lambda f: boxes(150, f, speed=0.02))
    found = run(state(), frames(9), slow)
    before, under, after = (
        np.mean([TAKES[model] for at, model in answers(found) if start < at < start + 1.5]) for start in (1.4, 4.4, 7.4)
    )
    assert under < 0.6 * before
    assert under < 0.6 * after
    told = [action for action in choices(found) if not action.probe]
    assert told
    assert all("instead of" in action.reason for action in told)


def test_a_first_run_after_a_load_is_not_taken_for_load():
    """It takes ten times as long as the next ones: nobody learns from it what anything takes."""
    ran = set()

    class Cold(LadderCosts):
        def outcome(self, decided):
            found = super().outcome(decided)
            if isinstance(decided.action, Infer) and decided.action.model not in ran:
                ran.add(decided.action.model)
                late = 9 * round(TAKES[decided.action.model] * MS)
                return replace(found, time_ns=found.time_ns + late)
            return found

    found = run(state(), frames(3), Cold(scene=lambda frame: boxes(150, frame)))
    selector = found.state.queries["q0"].chooser
    for name in ran:
        assert selector.latency.seconds[name] == pytest.approx(TAKES[name] / 1000, rel=0.01)
        assert not found.state.models[name].cold


@pytest.mark.parametrize("waits", [True, False])
def test_what_was_waited_for_others_tells_how_long_all_models_wait(waits):
    """Two programs beside it, or a processor that is as slow: in a moment that is known of the models that rest, too."""

    class Busy(LadderCosts):
        def outcome(self, decided):
            found = super().outcome(decided)
            if not isinstance(found, Inferred):
                return found
            worked = found.time_ns - decided.time_ns - sum(second.took_ns for second in found.also)
            others = [replace(each, took_ns=self.takes(each.took_ns), worked_ns=each.took_ns) for each in found.also]
            took = self.takes(worked) + sum(each.took_ns for each in others)
            told = {"worked_ns": worked} if waits else {}
            return replace(found, time_ns=decided.time_ns + took, also=tuple(others), **told)

        def takes(self, worked_ns):
            return round(NS * among(worked_ns / NS, 2.0)) if waits else 3 * worked_ns

    found = run(state(), frames(3), Busy(scene=lambda frame: boxes(150, frame)))
    latency = found.state.queries["q0"].chooser.latency
    for name, takes in TAKES.items():
        expected = among(takes / 1000, 2.0) if waits else 3 * takes / 1000
        assert latency.seconds[name] == pytest.approx(expected, rel=0.01)
    assert latency.beside == pytest.approx(2.0 if waits else 0.0, abs=0.01)


def test_the_old_model_answers_until_the_new_one_is_in_memory():
    """A load takes 400 ms, for which nothing pauses: two of the three models fit."""
    costs = LadderCosts(lambda ns: 5.0 if ns > 2 * NS else 1.0, lambda f: boxes(150, f, speed=0.02), load_ns=400 * MS)
    found = run(state(budget=200), frames(6), costs)
    assert choices(found)
    times = [event.time_ns / NS for event in found.decisions if isinstance(event.action, Infer)]
    loads = [event for event in found.decisions if isinstance(event.action, Load) and event.time_ns / NS > times[0]]
    assert loads
    longest = max(TAKES.values()) * 5 / 1000
    assert max(np.diff(times)) <= longest + 0.04


@pytest.mark.parametrize("budget", [100, 200, 10_000])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_accounts_add_up_and_memory_holds(budget, data):
    """Whatever scene, load and failures do: every frame is answered, skipped or waits, and the budget is kept."""
    speed = data.draw(st.sampled_from([0.0, 0.03, 0.2]))
    side = data.draw(st.sampled_from([40, 150]))
    slow = data.draw(st.sampled_from([1.0, 4.0]))
    broken = data.draw(st.sampled_from(["", "small", "large"]))
    costs = LadderCosts(
        load=lambda ns: slow if ns % (2 * NS) > NS else 1.0,
        scene=lambda frame: boxes(side, frame, speed=speed),
        broken=lambda model, ns: model == broken and ns % (3 * NS) > 2 * NS,
    )
    begun = state(budget=budget, cameras=data.draw(st.integers(1, 3)))
    found = run(begun, frames(5, cameras=len(begun.queries)), costs)
    after = begun
    for event in found.events:
        after = apply(after, event)
        assert after.resident_bytes <= budget
        for query in after.queries.values():
            running = sum(
                job.query == query.spec.name for job in getattr(after.processor and after.processor.action, "jobs", ())
            )
            assert query.due == query.in_time + query.late + query.skipped + len(query.jobs) + running
            assert query.model in TAKES
    assert STATE.dump_json(after) == STATE.dump_json(found.state)


def test_states_with_choosers_are_values_of_the_log():
    found = run(state(cameras=2), frames(3, cameras=2))
    written = STATE.dump_json(found.state)
    assert STATE.dump_json(STATE.validate_json(written)) == written
    lines = [EVENT.validate_json(EVENT.dump_json(event)) for event in found.events]
    assert lines == list(found.events)
    again = STATE.validate_json(STATE.dump_json(state(cameras=2)))
    for event in lines:
        again = apply(again, event)
    assert STATE.dump_json(again) == written


def test_the_same_frames_bring_the_same_choices():
    one, two = (run(state(cameras=3), frames(4, cameras=3)) for _ in range(2))
    assert one.decisions == two.decisions


def test_switching_never_drops_what_a_fixed_model_would_have_answered():
    """A query that wants every frame gets all of them, however often the model changes."""
    begun = state(lambda: RoundRobin(tuple(TAKES), 0.2), every_frame=True)
    found = run(begun, frames(4, period=200))
    assert len(choices(found)) > 8
    query = found.state.queries["q0"]
    assert (query.skipped, query.in_time) == (0, query.due)


def test_a_model_that_fails_leaves_with_a_reason_and_is_tried_again():
    costs = LadderCosts(broken=lambda model, ns: model == "large" and NS < ns < 3 * NS)
    found = run(state(), frames(25), costs)
    models = answers(found)
    assert "large" in {model for at, model in models if at < 1}
    assert "large" not in {model for at, model in models if 1.2 < at < 10}
    assert "large" in {model for at, model in models if at > 15}
    left = [action.reason for action in choices(found) if "left the ladder" in action.reason]
    assert left
    assert "the runtime refused it" in left[0]


def test_when_all_fail_frames_are_skipped_and_all_goes_on():
    costs = LadderCosts(broken=lambda model, ns: ns < 4 * NS)
    found = run(state(), frames(30), costs)
    assert answers(found)[-1][0] > 29
    assert found.state.queries["q0"].skipped > 10


def test_no_object_for_a_minute_is_no_trouble():
    found = run(state(), frames(60), LadderCosts(scene=lambda frame: Detections.empty()))
    assert len(answers(found)) > 100
    assert found.state.queries["q0"].chooser.histogram.objects == (0.0, 0.0)


def test_cameras_share_the_processor_by_a_joint_choice():
    """One still scene of small objects, one of fast large ones: each gets what serves all best, and both are served."""

    class Scenes(LadderCosts):
        def outcome(self, decided):
            if isinstance(decided.action, Infer):
                fast = decided.action.jobs[0].camera == "c1"
                self.scene = lambda frame: boxes(150, frame, speed=0.05) if fast else boxes(50, frame)
            return super().outcome(decided)

    found = run(state(cameras=2), frames(6, cameras=2), Scenes())
    late = {query: [model for at, model in answers(found, query) if at > 3] for query in ("q0", "q1")}
    assert all(len(models) > 10 for models in late.values())
    assert sum(map(TAKES.get, late["q0"])) / len(late["q0"]) > sum(map(TAKES.get, late["q1"])) / len(late["q1"])
    joint = [action for action in choices(found) if "combination" in action.reason]
    assert joint
    for name, query in found.state.queries.items():
        said = [action.reason for action in choices(found) if name in action.models and not action.probe]
        report = ladder_report(query, found.state, found.state.now_ns)
        assert report.why == (said or [UNCHANGED])[-1], "not what it would take if it were alone"


class Agreed(LadderCosts):
    """All models find everything."""

    def results(self, model, action):
        return tuple(self.scene(job.frame).to_json() for job in action.jobs)


def test_all_models_are_compared_on_one_frame():
    names = tuple(TAKES)
    begun = state(lambda: Periodic(names, period=2.0))
    found = run(begun, frames(7), Agreed())
    looks = [event for event in found.events if isinstance(event, Inferred) and event.also]
    assert len(looks) in (3, 4)
    assert {tuple(second.model for second in event.also) for event in looks} == {names[:-1]}
    assert {model for at, model in answers(found) if 0.5 < at < 1.5} == {"small"}


def test_thresholds_follow_the_median_box():
    begun = state(lambda: Thresholds(tuple(TAKES), (0.14, 0.08), 1, 1))
    sizes = LadderCosts(scene=lambda frame: boxes(50 if frame < 60 else 100 if frame < 120 else 200, frame))
    found = run(begun, frames(6), sizes)
    seen = [{model for at, model in answers(found) if low < at < low + 1} for low in (0.8, 2.8, 4.8)]
    assert seen == [{"large"}, {"middle"}, {"small"}]


def test_a_fixed_chooser_never_changes():
    found = run(state(lambda: Fixed("middle")), frames(2))
    assert not choices(found)
    assert {model for _, model in answers(found)} == {"middle"}


def test_a_camera_of_another_pace_or_size_is_noticed():
    found = run(state(), frames(4, period=100))
    rules = found.state.queries["q0"].chooser.rules
    assert (rules.width, rules.height) == (SIDE, SIDE)
    assert rules.fps == pytest.approx(10, rel=0.11)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, "precision"), ({"rule": "periodic"}, "periodic"), ({"rule": "random"}, "random"),
     ({"rule": "round-robin"}, "round-robin"), ({"rule": "thresholds", "thresholds": (0.2, 0.1)}, "thresholds")],
)  # fmt: skip
def test_rules_by_name(changes, kind):
    config = LadderConfig(name="people", models=tuple(TAKES), calibration="people.json", **changes)
    assert chooser_for(config, ladder(), 1000).kind == kind


def test_rules_that_lack_something_are_refused():
    config = LadderConfig(name="people", models=tuple(TAKES), calibration="people.json", rule="thresholds")
    with pytest.raises(ConfigError, match="needs 'thresholds', 2 falling"):
        chooser_for(config, ladder(), 1000)
    with pytest.raises(BudgetError, match="fits in 50 B"):
        chooser_for(config.model_copy(update={"rule": "precision"}), ladder(), 50)


# The whole box: real sessions, real files.

DEVICE = device_name("cpu", 1)


def calibrated(path, names=("m0", "m1"), device=DEVICE, labels=("cat",), **changes):
    rungs = tuple(
        Rung(name, (0.2 + 0.3 * place, 0.5 + 0.2 * place), 0.002 * (place + 1), bytes=1000)
        for place, name in enumerate(names)
    )
    save_ladder(replace(Ladder(device, labels, (0.0, 0.2, 1.0), rungs), **changes), path)


def entry(tmp_path, sizes=(32, 64), ladder_extra="", query_extra="", frames=75):
    lines = [f"cameras: [{{name: a, source: '{PEOPLE.format(frames=frames)}', rate: 25}}]", "models:"]
    for index, size in enumerate(sizes):
        path = save_detector(tmp_path / f"m{index}.onnx", seed=index, size=size, width=16 + index)
        lines.append(f"  - {{name: m{index}, file: '{path}', convention: yolov8, labels: [cat, dog]}}")
    return "\n".join(
        [
            *lines,
            f"ladders: [{{name: pets, models: [m0, m1], calibration: pets.json{ladder_extra}}}]",
            f"queries: [{{camera: a, model: pets{query_extra}}}]",
            "budget: {threads: 1}",
            f"data: '{tmp_path}/data'",
            f"cache: '{tmp_path}/cache'",
            "web: {enabled: false}",
        ]
    )


def settled(tmp_path, text):
    return parse_config(text, "box.yaml").resolved(tmp_path)


@pytest.mark.parametrize(
    ("rule", "said"),
    [(", rule: random", []), ("", ["'m1' is left out: 'm0' is at least as accurate", "'m0+m1' never runs: it needs"])],
)
def test_rungs_that_are_never_chosen_are_named_where_the_rule_leaves_them_out(tmp_path, rule, said):
    calibrated(tmp_path / "pets.json")
    record = json.loads((tmp_path / "pets.json").read_text())
    first, second = record["rungs"]
    second |= {"accuracy": first["accuracy"], "seconds": 2 * first["seconds"]}
    both = first | {"name": "m0+m1", "accuracy": [0.9] * len(first["accuracy"]), "seconds": 3 * first["seconds"]}
    record["rungs"].append(both)
    (tmp_path / "pets.json").write_text(json.dumps(record))
    text = entry(tmp_path, ladder_extra=rule).replace("[m0, m1]", "[m0, m1, m0+m1]" if not rule else "[m0, m1]")
    told = []
    Box(settled(tmp_path, text.replace("{threads: 1}", "{threads: 1, memory: 8 KiB}")), progress=told.append).close()
    warned = [text for text in told if text.startswith("ladder 'pets': '")]
    assert len(warned) == len(said), warned
    assert all(words in warning for words, warning in zip(said, warned, strict=True))


def test_a_box_chooses_tells_and_replays(tmp_path):
    calibrated(tmp_path / "pets.json")
    text = entry(tmp_path, ladder_extra=", rule: round-robin", query_extra=", tracker: true, confidence: 0.5")
    with Box(settled(tmp_path, text)) as running:
        running.run()
        report = running.report()
        told = [event for event in running.events(100) if event.kind == "model"]
        marks = [span for span in running.timeline(0) if span.kind == "choose"]
    (query,) = report.queries
    assert query.due == query.in_time + query.late + query.skipped == 75
    assert query.ladder.rule == "round-robin"
    assert query.ladder.beside is None
    assert {model.name: model.inferences > 5 for model in report.models} == {"m0": True, "m1": True}
    assert {mark.text for mark in marks} == {"it is the turn of 'm0'", "it is the turn of 'm1'"}
    assert len(marks) > 3
    assert len(marks) - 1 <= query.ladder.switches <= len(marks)
    assert told  # the store may be a moment behind
    assert told[0].text.startswith("a-pets: it is the turn of 'm")
    (recording,) = read_log(tmp_path / "data" / "log")
    assert replay(recording, "edf-lru").identical
    static = replay(recording, "edf-static").replayed
    assert 0.2 < static.answers_known < 0.8, "it keeps one model: what that one found where another answered is unknown"
    assert {event.model for event in recording.events if isinstance(event, Loaded)} == {"m0", "m1"}


def test_precision_in_a_box_says_what_each_model_is_worth(tmp_path):
    calibrated(tmp_path / "pets.json")
    with Box(settled(tmp_path, entry(tmp_path))) as running:
        running.run()
        (query,) = running.report().queries
    assert query.ladder.rule == "precision"
    assert query.model == "m1"
    rungs = {rung.model: rung for rung in query.ladder.rungs}
    assert rungs["m1"].relative == pytest.approx(1)
    assert rungs["m0"].relative < 1
    assert all(0 < rung.seconds < 1 for rung in rungs.values())
    assert 0 <= query.ladder.beside < 100


def test_boxes_are_numbered_by_the_classes_of_the_ladder(tmp_path):
    """The models know cat and dog; the ladder was calibrated for dog, cat: class 0 becomes class 1."""
    calibrated(tmp_path / "pets.json", labels=("dog", "cat"))
    with Box(settled(tmp_path, entry(tmp_path, query_extra=", confidence: 0.5"))) as running:
        running.run(seconds=1)
        found = running.detections("a-pets", limit=3)
    assert found
    assert all(set(each["result"]["class_name"]) == {"cat"} for each in found)
    assert all(set(each["result"]["class_id"]) == {1} for each in found)


def test_a_portfolio_stands_for_its_variants(tmp_path):
    save_family(tmp_path / "family")
    calibrated(tmp_path / "pets.json", names=("m.w2", "m.w8", "m.w16"))
    text = (
        entry(tmp_path)
        .replace("models: [m0, m1]", "models: [m]")
        .replace("ladders:", "  - {name: m, portfolio: family, convention: yolov8, labels: [cat, dog]}\nladders:")
    )
    with Box(settled(tmp_path, text)) as running:
        running.run(seconds=1)
        report = running.report()
    assert {"m.w2", "m.w8", "m.w16"} <= {model.name for model in report.models}
    assert "m" not in {model.name for model in report.models}
    assert [rung.model for rung in report.queries[0].ladder.rungs] == ["m.w2", "m.w8", "m.w16"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"device": "a Nano"}, ConfigError, "calibrated on 'a Nano', this device is .* edgeward serve calibrate"),
        ({"labels": ("horse",)}, ConfigError, "model 'm0' knows no class 'horse'"),
        ({"names": ("m0", "other")}, ConfigError, "says nothing of model 'm1'"),
        ({"labels": ("dog",)}, ConfigError, "calibrated for dog, query 'a-pets' asks for class 'cat'"),
    ],
)
def test_calibrations_that_do_not_fit_are_refused(tmp_path, changes, error, message):
    calibrated(tmp_path / "pets.json", **changes)
    with pytest.raises(error, match=message):
        Box(settled(tmp_path, entry(tmp_path, query_extra=", classes: [cat]")))


def test_without_calibration_the_command_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"ladder .pets.: cannot read .*edgeward serve calibrate"):
        Box(settled(tmp_path, entry(tmp_path)))


def test_damaged_calibrations_are_refused(tmp_path):
    calibrated(tmp_path / "pets.json")
    record = json.loads((tmp_path / "pets.json").read_text())
    record["rungs"][0]["accuracy"] = [0.1]
    (tmp_path / "pets.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="has accuracies for 1 size bins, the ladder has 2"):
        Box(settled(tmp_path, entry(tmp_path)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("models: [m0, m1]", "models: [m0, m7]", "ladder 'pets' lists model 'm7'"),
        ("models: [m0, m1]", "models: [m0, m0]", "model 'm0' is listed twice"),
        ("name: pets", "name: m1", "models and ladders: two are named 'm1'"),
        ("model: pets", "model: pet", "asks for model 'pet', which does not exist; .*pets"),
        ("calibration: pets.json", "calibration: pets.json, margin: 2", "margin"),
        ("model: pets", "model: pets, forecast: true", "forecast follows tracked objects"),
    ],
)
def test_mistakes_in_the_file(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        settled(tmp_path, entry(tmp_path).replace(old, new))


def test_odd_ladders_are_told(tmp_path):
    calibrated(tmp_path / "pets.json", names=("m0",))
    text = entry(tmp_path).replace("models: [m0, m1]", "models: [m0]")
    told = []
    Box(settled(tmp_path, text), progress=told.append).close()
    assert "ladder 'pets': 'm0' is its only model: nothing is to be chosen" in told


def test_the_device_is_told_apart_by_processor_and_threads():
    assert str(os.cpu_count()) in device_name("cpu", 1)
    assert device_name("cpu", 1) != device_name("cpu", 2)


@pytest.mark.parametrize("policy", ["edf-lru", "fifo-lru"])
@pytest.mark.parametrize(("cameras", "period"), [(2, 143), (4, 33)])
def test_no_camera_starves_when_all_want_more_than_there_is(policy, cameras, period):
    """Each newer frame takes over the turn of the one that it replaces."""
    begun = state(lambda: Fixed("large"), cameras=cameras)
    found = run(begun, frames(20, period=period, cameras=cameras), policy=policy)
    times = [[at for at, _ in answers(found, name)] for name in begun.queries]
    assert max(map(len, times)) - min(map(len, times)) <= 1
    assert max(max(np.diff(each)) for each in times) <= (cameras + 0.1) * TAKES["large"] / 1000


def test_a_camera_that_is_away_does_not_keep_others_from_choosing_together():
    begun = state(cameras=3)
    arrivals = [event for event in frames(6, cameras=3) if event.camera != "c2"]
    found = run(begun, arrivals)
    assert any("combination" in action.reason for action in choices(found))
    assert all(len(answers(found, query)) > 10 for query in ("q0", "q1"))


def test_a_query_that_is_never_answered_does_not_freeze_the_others():
    """q1's models always fail; q0 goes on as if alone when its scene changes."""

    class OneFails(LadderCosts):
        def outcome(self, decided):
            action = decided.action
            if isinstance(action, Infer) and action.jobs[0].query == "q1":
                return Failed(decided.time_ns + MS, decided.number, action.model, "infer", "no")
            return super().outcome(decided)

    names = {"q0": tuple(TAKES), "q1": tuple(f"other-{name}" for name in TAKES)}
    queries = [QuerySpec(q, f"c{q[1]}", "people", 0, 500 * MS, NS, False, models) for q, models in names.items()]
    models = [ModelSpec(name, {name: 100}, 1) for each in names.values() for name in each]
    others = replace(ladder(), rungs=tuple(replace(rung, name=f"other-{rung.name}") for rung in ladder().rungs))
    rules = Rules(30, SIDE, SIDE, own_frame=False)
    begun = State.start(
        queries, models, 10_000, {"q0": Selector.start(ladder(), rules), "q1": Selector.start(others, rules)}
    )
    changing = OneFails(scene=lambda frame: boxes(50, frame) if frame < 120 else boxes(150, frame, speed=0.08))
    found = run(begun, frames(12, cameras=2), changing)
    late = [model for at, model in answers(found) if at > 9]
    assert late.count("small") > 0.6 * len(late)


@pytest.mark.parametrize(("first", "then"), [(1, 33), (33, 400)])
def test_another_pace_is_noticed_however_different(first, then):
    early = [FrameArrived(1 + i * first * MS, "c0", i, i, SIDE, SIDE) for i in range(5)]
    late = [FrameArrived(early[-1].time_ns + (i + 1) * then * MS, "c0", 5 + i, 5 + i, SIDE, SIDE) for i in range(40)]
    found = run(state(lambda: Fixed("small")), [*early, *late])
    assert found.state.cameras["c0"].period_ns == pytest.approx(then * MS, rel=0.02)


def test_one_gap_is_no_other_pace():
    arrivals = frames(2)
    arrivals += [replace(each, time_ns=each.time_ns + 20 * NS, frame=each.frame + 60) for each in frames(1)]
    found = run(state(lambda: Fixed("small")), arrivals)
    assert found.state.cameras["c0"].period_ns == pytest.approx(33 * MS, rel=0.02)


def test_a_slow_camera_is_served_beside_busy_ones_even_when_its_frames_go_stale():
    """Frames a second apart that are given up after 0.2 s keep their turn."""
    queries = [QuerySpec(f"q{i}", f"c{i}", "people", 0, 500 * MS, NS, False, tuple(TAKES)) for i in range(5)]
    queries.append(QuerySpec("slow", "slow", "people", 0, 500 * MS, NS // 5, False, tuple(TAKES)))
    models = [ModelSpec(name, {name: 100}, 1) for name in TAKES]
    begun = State.start(queries, models, 10_000, {query.name: Fixed("large") for query in queries})
    slow = [FrameArrived(500_000 + i * NS, "slow", i, i, SIDE, SIDE) for i in range(30)]
    arrivals = sorted([*frames(30, cameras=5), *slow], key=lambda event: event.time_ns)
    found = run(begun, arrivals)
    assert len(answers(found, "slow")) > 7


def test_queries_alike_on_one_camera_get_one_model():
    queries = [QuerySpec(f"q{i}", "c0", "people", 0, 500 * MS, NS, False, tuple(TAKES)) for i in range(2)]
    models = [ModelSpec(name, {name: 100}, 1) for name in TAKES]
    rules = Rules(30, SIDE, SIDE, own_frame=False)
    begun = State.start(queries, models, 10_000, {query.name: Selector.start(ladder(), rules) for query in queries})
    found = run(begun, frames(5), LadderCosts(scene=lambda frame: boxes(150, frame, speed=0.02)))
    late = {query: [model for at, model in answers(found, query) if at > 2] for query in ("q0", "q1")}
    assert late["q0"] == late["q1"]


def test_a_model_that_cannot_fit_is_never_put_in_charge():
    begun = state()
    larger = replace(begun.models["large"].spec, tensors={"large": 20_000})
    begun = replace(begun, models={**begun.models, "large": replace(begun.models["large"], spec=larger)})
    found = run(begun, frames(4))
    assert len(answers(found)) > 20
    assert "large" not in {model for _, model in answers(found)}
