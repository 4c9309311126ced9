"""The drift guard: the test of agreement, the chooser in the loop on a virtual clock, and a real box."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tinymodel import save_detector

from edgeward.clock import NS
from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.actions import Choose, Evict, Infer, Load, Wait
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import EVENT, Failed, FrameArrived, Inferred, Second
from edgeward.serve.guard import Guard, agreed
from edgeward.serve.log import read_log
from edgeward.serve.policies import policy_named
from edgeward.serve.replay import replay
from edgeward.serve.shift import ODDS, Shift
from edgeward.serve.simulate import Costs, ending, simulate
from edgeward.serve.state import STATE, ModelSpec, QuerySpec, State
from edgeward.vision.results import Classification, Detections, Embedding
from edgeward.vision.sources import open_source

MS = NS // 1000


def noticed(scores, side="below", target=0.9, **options):
    """After how many scores a shift is certain, None when it never is."""
    shift = Shift.sought(side, target, **options)
    for count, score in enumerate(scores, 1):
        shift = shift.after(float(score))
        if shift.certain:
            return count
    return None


# The test itself.


@given(
    scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=6),
    odds=st.sampled_from(ODDS),
    target=st.floats(0.05, 0.95),
)
def test_no_bet_gains_in_expectation_on_the_safe_side(scores, odds, target):
    """For any distribution of scores; that no false alarm comes too often follows from this alone."""
    values, weights = (np.array(column) for column in zip(*scores, strict=True))
    mean = float(np.average(values, weights=weights))
    for side, safe in (("below", mean >= target), ("above", mean <= target)):
        start = Shift.sought(side, target)
        gains = [[np.exp(bet.gain) for bet in start.after(float(value)).bets] for value in values]
        expected = np.average(gains, axis=0, weights=weights)
        assert (expected <= 1 + 1e-9).all() == safe or np.isclose(mean, target)


@pytest.mark.parametrize("side", ["below", "above"])
def test_false_alarms_are_as_rare_as_stated_at_the_target_itself(side):
    """With `least` at 50, so that there are some to count. Scores turn from coins to shares when they went badly."""
    random, length = np.random.default_rng(7), 400

    def scores():
        score = 1.0
        for _ in range(length):
            score = float(random.random() < 0.8) if score > 0.5 else random.beta(1.6, 0.4)
            yield score

    runs = [noticed(scores(), side, 0.8, least=50.0) for _ in range(300)]
    assert np.mean([run or length for run in runs]) > 50
    assert any(runs)


@pytest.mark.parametrize("agreement", [0.9, 0.93, 0.97, 1.0])
def test_models_that_agree_as_asked_raise_no_alarm(agreement):
    """20 x 3000 comparisons at the target: less than one in 16 such tests may see an alarm even then."""
    random = np.random.default_rng(round(1000 * agreement))
    assert not any(noticed(random.random(3000) < agreement) for _ in range(20))


@pytest.mark.parametrize(("agreement", "usual", "most"), [(0.0, 10, 10), (0.3, 20, 30), (0.6, 50, 130)])
@pytest.mark.parametrize("good", [0, 500])
def test_a_fall_is_noticed_within_so_many_comparisons_however_good_the_past(agreement, usual, most, good):
    random = np.random.default_rng(good)
    found = []
    for _ in range(40):
        scores = np.concatenate([random.random(good) < 0.97, random.random(400) < agreement])
        found.append(noticed(scores) - good)
    assert np.median(found) <= usual
    assert max(found) <= most


def test_smooth_scores_tell_more_than_coins():
    random = np.random.default_rng(1)
    assert noticed(random.beta(24, 16, 400)) < 40


def test_the_mean_told_is_that_since_the_fall():
    shift = Shift.sought("below", 0.9)
    for score in [1.0] * 100 + [0.2] * 12:
        shift = shift.after(score)
    assert (shift.scores, round(shift.mean, 6)) == (12, 0.2)


def box(left, confidence=0.9, class_id=0):
    return Detections([[left, 0, left + 10, 10]], [confidence], [class_id])


def test_agreement_of_each_kind_of_answer():
    assert agreed(box(0), box(1), 0.3) == 1
    assert agreed(box(0), box(20), 0.3) == 0
    assert agreed(box(0), box(0, class_id=1), 0.3) == 0
    assert agreed(box(0), box(0, confidence=0.2), 0.3) == 0
    assert agreed(box(0, confidence=0.2), Detections.empty(), 0.3) is None
    cat, dog, nothing = (Classification(np.array(ids, np.int32), np.full(len(ids), 0.5)) for ids in ([0, 1], [1], []))
    assert (agreed(cat, cat, 0.3), agreed(cat, dog, 0.3), agreed(cat, nothing, 0.3)) == (1, 0, 0)
    assert agreed(nothing, nothing, 0.3) is None
    one, other, opposite = (Embedding(np.array(vector, np.float32)) for vector in ([1, 0], [0.6, 0.8], [-1, 0]))
    assert agreed(one, one, 0.3) == pytest.approx(1)
    assert agreed(one, other, 0.3) == pytest.approx(0.6)
    assert agreed(one, opposite, 0.3) == 0
    assert agreed(one, Embedding(np.ones(3, np.float32)), 0.3) == 0
    assert agreed(one, box(0), 0.3) == 0


# The chooser in the loop.

TAKES = {"cars": 10, "original": 20, "people": 10}
"""Milliseconds."""


class Drifting(Costs):
    """`cars` answers as its original does with the probability of that moment; models fail when `broken` says so."""

    def __init__(self, agreement=lambda ns: 1.0, broken=lambda model, ns: False, kind="boxes"):
        self.agreement, self.broken, self.kind = agreement, broken, kind
        self.held = set()

    def outcome(self, decided):
        action, now = decided.action, decided.time_ns
        if isinstance(action, Load | Evict):
            (self.held.add if isinstance(action, Load) else self.held.discard)(action.model)
        if isinstance(action, Infer):
            if self.broken(action.model, now):
                return Failed(now + MS, decided.number, action.model, "infer", "the runtime refused it")
            also = tuple(
                Second(name, TAKES[name] * MS, self.results(name, action, now))
                for name in action.also
                if name in self.held and not self.broken(name, now)
            )
            took = TAKES[action.model] * MS * action.batch + sum(second.took_ns for second in also)
            results = self.results(action.model, action, now)
            return Inferred(now + took, decided.number, action.model, action.jobs, results, also)
        if isinstance(action, Wait):
            return ending(decided, max(action.until_ns, now))
        return ending(decided, now if isinstance(action, Evict) else now + 30 * MS)

    def results(self, model, action, now):
        return tuple(self.found(model == "cars" and self.wrong(job.frame, now)).to_json() for job in action.jobs)

    def wrong(self, frame, now):
        return np.random.default_rng(frame).random() >= self.agreement(now)

    def found(self, wrong):
        match self.kind:
            case "boxes":
                return box(50 * wrong)
            case "classes":
                return Classification(np.array([int(wrong), 7], np.int32), np.array([0.6, 0.2], np.float32))
            case _:
                return Embedding(np.array([1 - wrong, wrong], np.float32))


def state(budget=10_000, share=0.1, others=0, queries=1):
    specs = [QuerySpec(f"q{i}", f"c{i}", "cars", 0, 500 * MS, NS, False, ("cars", "original")) for i in range(queries)]
    specs += [QuerySpec(f"p{i}", f"c{i}", "people", 0, 500 * MS, NS) for i in range(others)]
    models = [
        ModelSpec("cars", {"shared": 60, "cars": 40}),
        ModelSpec("original", {"shared": 60, "original": 40}),
        ModelSpec("people", {"people": 100}),
    ]
    guards = {f"q{i}": Guard("cars", "original", 0.9, share / queries) for i in range(queries)}
    return State.start(specs, models if others else models[:2], budget, guards)


def frames(seconds, cameras=1, period=40):
    count = round(1000 * seconds / period)
    return [
        FrameArrived(1 + index * period * MS + camera * MS, f"c{camera}", index, index, 100, 100)
        for index in range(count)
        for camera in range(cameras)
    ]


def run(begun, arrivals, costs, policy="edf-lru"):
    return simulate(begun, arrivals, policy_named(policy), costs)


def answers(found, query="q0"):
    return [
        (event.time_ns / NS, event.model)
        for event in found.events
        if isinstance(event, Inferred) and event.jobs[0].query == query
    ]


def changes(found):
    """What was put in charge, and when: (seconds, model, reason)."""
    return [
        (event.time_ns / NS, *event.action.models.values(), event.action.reason)
        for event in found.decisions
        if isinstance(event.action, Choose) and not event.action.probe
    ]


@pytest.mark.parametrize("policy", ["edf", "edf-lru", "fifo-lru"])
@pytest.mark.parametrize("kind", ["boxes", "classes", "vectors"])
def test_the_original_takes_over_when_agreement_falls_and_gives_way_when_it_is_back(kind, policy):
    """Every 0.2 s is compared: a fall to nothing needs 10 comparisons, the way back 163 good ones."""
    found = run(state(), frames(60), Drifting(lambda ns: 0.0 if 10 * NS < ns < 20 * NS else 1.0, kind=kind), policy)
    (fell, first, why), (back, second, reason) = changes(found)
    assert (first, second) == ("original", "cars")
    assert 10 < fell < 13
    assert 20 + 160 * 0.1 < back < 58  # `cars` takes half the time, and is compared twice as often
    assert why == "'cars' agreed with 'original' to 0.00 in the last 10 comparisons; 0.9 is asked for"
    assert "agrees with 'original'" in reason
    assert {model for at, model in answers(found) if fell + 0.1 < at < back} == {"original"}
    assert {model for at, model in answers(found) if at < fell or at > back + 0.1} == {"cars"}
    assert found.state.queries["q0"].switches == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_agrees_stays(seed):
    random = np.random.default_rng(seed)
    found = run(state(), frames(60), Drifting(lambda ns: random.choice([0.92, 1.0])))
    assert not changes(found)
    assert found.state.queries["q0"].chooser.compared > 250


@pytest.mark.parametrize(("share", "queries"), [(0.02, 1), (0.1, 1), (0.1, 3)])
def test_comparisons_cost_no_more_than_their_share(share, queries):
    found = run(state(share=share, queries=queries), frames(60, queries), Drifting())
    spent = sum(second.took_ns for event in found.events if isinstance(event, Inferred) for second in event.also)
    assert 0.7 * share < spent / (59 * NS) <= share
    lost = [1 - query.in_time / query.due for query in found.state.queries.values()]
    assert max(lost) <= share


def test_it_changes_even_when_every_frame_is_compared():
    found = run(state(share=1), frames(10), Drifting(lambda ns: 0.0 if ns > 5 * NS else 1.0))
    assert [model for _, model, _ in changes(found)] == ["original"]
    assert {model for at, model in answers(found) if at > 6} == {"original"}


def test_frames_without_anything_tell_nothing():
    class Nothing(Drifting):
        def found(self, wrong):
            return Detections.empty()

    found = run(state(), frames(20), Nothing())
    assert sum(bool(event.also) for event in found.events if isinstance(event, Inferred)) > 80
    assert found.state.queries["q0"].chooser.compared == 0


def test_states_with_guards_are_values_of_the_log_and_the_same_frames_bring_the_same_decisions():
    def once():
        return run(state(), frames(30), Drifting(lambda ns: 0.0 if ns > 10 * NS else 1.0, kind="classes"))

    found = once()
    assert found.decisions == once().decisions
    again = STATE.validate_json(STATE.dump_json(state()))
    for event in found.events:
        again = apply(STATE.validate_json(STATE.dump_json(again)), EVENT.validate_json(EVENT.dump_json(event)))
    assert STATE.dump_json(again) == STATE.dump_json(found.state)


@pytest.mark.parametrize("model", ["cars", "original"])
def test_while_one_fails_the_other_answers(model):
    def broken(name, ns):
        return name == model and 5 * NS < ns < 20 * NS

    found = run(state(), frames(45), Drifting(broken=broken))
    after = {name for at, name in answers(found) if 6 < at < 18}
    assert after == {"original" if model == "cars" else "cars"}
    assert {name for at, name in answers(found) if at > 40} == {"cars"}
    if model == "cars":
        assert "'cars' failed: the runtime refused it" in [reason for _, _, reason in changes(found)]
    else:
        assert not changes(found)


def test_an_original_that_fails_when_it_is_needed_is_no_loss():
    def broken(name, ns):
        return name == "original" and ns > 12 * NS

    found = run(state(), frames(40), Drifting(lambda ns: 0.0 if ns > 5 * NS else 1.0, broken))
    query = found.state.queries["q0"]
    assert query.skipped < 10
    assert {name for at, name in answers(found) if 13 < at < 21} == {"cars"}


@pytest.mark.parametrize("budget", [160, 200])
@pytest.mark.parametrize("policy", ["edf", "edf-lru"])
def test_where_memory_is_short_comparisons_are_rarer_but_a_fall_is_noticed(budget, policy):
    """`cars` and `people` need 200 bytes, the original 40 more; with 160 the two take turns even without it."""
    share, arrivals = 0.05, frames(40)
    begun = state(budget=budget, others=1, share=share)
    found = run(begun, arrivals, Drifting(lambda ns: 0.0 if ns > 10 * NS else 1.0), policy)
    assert [model for _, model, _ in changes(found)] == ["original"]
    assert found.state.queries["q0"].chooser.missed == 0
    after = begun
    for event in found.events:
        after = apply(after, event)
        assert after.resident_bytes <= budget
    plain = replace(begun, queries={**begun.queries, "q0": replace(begun.queries["q0"], chooser=None)})
    without = run(plain, arrivals, Drifting(), policy)
    served = [sum(query.in_time for query in each.state.queries.values()) for each in (found, without)]
    assert served[0] >= (1 - share) * served[1]


def test_an_original_that_another_model_drove_out_is_loaded_for_each_comparison():
    """Memory for all is there, but the original is gone: it is loaded beside the model in charge, which goes on."""
    begun = state(others=1)
    gone = replace(begun.models["original"], loads=1)
    found = run(replace(begun, models={**begun.models, "original": gone}), frames(5), Drifting())
    assert [event.action.model for event in found.decisions if isinstance(event.action, Load)].count("original") == 1
    assert found.state.queries["q0"].chooser.compared > 10
    assert found.state.queries["q0"].skipped <= 1


# A real box on real video.


def save_model(path, outputs, changed=None):
    """A model [N, 3, 32, 32] that answers `outputs`, whatever it sees; on dark pictures `changed`, when that is given.

    Dark: a mean below 1/30, of 2 - 10 * (red + green + blue), cut to 0..1. All such models share the first layer.
    """
    outputs = np.asarray(outputs, np.float32)
    change = np.zeros_like(outputs) if changed is None else np.asarray(changed, np.float32) - outputs
    weights = {
        "trunk": np.full((1024, 3, 1, 1), -10 / 1024, np.float32),
        "own": np.full((1, 1024, 1, 1), 1 if change.any() else 0.5, np.float32),
        "b1": np.ones(1, np.float32) * 2,
        "w2": change.reshape(-1, 1, 1, 1),
        "b2": outputs.reshape(-1),
        "shape": np.array([-1, *outputs.shape], np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Conv", ["mean", "trunk"], ["all"]),
        helper.make_node("Conv", ["all", "own", "b1"], ["cut"]),
        helper.make_node("Clip", ["cut", "zero", "one"], ["dark"]),
        helper.make_node("Conv", ["dark", "w2", "b2"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["found"]),
    ]
    weights |= {"zero": np.array(0, np.float32), "one": np.array(1, np.float32)}
    graph = helper.make_graph(
        nodes,
        "drifting",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", *outputs.shape])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def one_box(x):
    found = np.zeros((6, 8))
    found[:5, 0] = (x, 16, 8, 16, 0.9)
    return found


ANSWERS = {
    "yolov8": (one_box(10), one_box(22)),
    "logits": ([0.9, 0.05, 0.05], [0.05, 0.9, 0.05]),
    "embedding": ([1.0, 0.0, 0.2], [0.0, 1.0, 0.2]),
}
LABELS = {"yolov8": ", labels: [cat, dog]", "logits": ", labels: [cat, dog, cow]", "embedding": ""}


@pytest.fixture(scope="module")
def dusk(tmp_path_factory):
    """The bundled clip, small, and after 60 frames the light goes out."""
    path = tmp_path_factory.mktemp("dusk") / "dusk.mp4"
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 90))
    source = open_source("package://bikes")
    for index, frame in zip(range(150), source, strict=False):
        image = cv2.resize(frame.image, (160, 90))
        clip.write(image if index < 60 else (image * 0.01).astype(np.uint8))
    clip.release()
    source.close()
    return path


def entry(tmp_path, dusk, convention="yolov8", guard="original: before, agreement: 0.9, share: 0.5", drifts=True):
    right, wrong = ANSWERS[convention]
    save_model(tmp_path / "after.onnx", right, wrong if drifts else None)
    save_model(tmp_path / "before.onnx", right)
    of = f"convention: {convention}{LABELS[convention]}, input: {{fit: stretch, mean: [0, 0, 0], std: [255, 255, 255]}}"
    return "\n".join(
        [
            f"cameras: [{{name: yard, source: '{dusk}', rate: 40}}]",
            "models:",
            f"  - {{name: after, file: after.onnx, {of}, guard: {{{guard}}}}}",
            f"  - {{name: before, file: before.onnx, {of}}}",
            "queries: [{camera: yard, model: after}]",
            f"data: '{tmp_path}/data'",
            f"cache: '{tmp_path}/cache'",
            "web: {enabled: false}",
        ]
    )


def settled(tmp_path, text):
    return parse_config(text, "box.yaml").resolved(tmp_path)


@pytest.mark.parametrize("convention", ANSWERS)
def test_a_box_returns_to_the_original_when_the_light_goes_out(tmp_path, dusk, convention):
    with Box(settled(tmp_path, entry(tmp_path, dusk, convention))) as running:
        running.run()
        (query,) = running.report().queries
        told = [event for event in running.events(100) if event.kind == "model"]
        strokes = [span for span in running.timeline(0) if span.kind == "choose" and span.model == "before"]
    assert query.model == "before"
    assert (query.ladder.name, query.ladder.rule, query.ladder.switches) == ("after", "guard", 1)
    assert query.ladder.why.startswith("'after' agreed with 'before' to 0.0")
    assert [event.text for event in told] == [f"yard-after: {query.ladder.why.partition(', since')[0]}"]
    assert strokes
    assert query.in_time + query.late > 110
    (recording,) = read_log(tmp_path / "data" / "log")
    assert replay(recording, "edf-lru").identical
    content = {event.frame: event.content for event in recording.events if isinstance(event, FrameArrived)}
    late = [(content[event.jobs[0].frame], event.model) for event in recording.events if isinstance(event, Inferred)]
    assert {model for frame, model in late if frame < 60} == {"after"}
    assert {model for frame, model in late if frame > 90} == {"before"}


def test_a_box_keeps_a_model_that_agrees(tmp_path, dusk):
    with Box(settled(tmp_path, entry(tmp_path, dusk, drifts=False))) as running:
        running.run()
        (query,) = running.report().queries
    assert (query.model, query.ladder.switches) == ("after", 0)
    assert query.ladder.why.startswith("'after' agrees with 'before' to 1.00 of late")


LADDER = "ladders: [{name: all, models: [after], calibration: c.json}]\nqueries:"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("original: before", "original: befor", "guard names original 'befor', which does not exist; .*'before'"),
        ("original: before", "original: after", "model 'after': guard compares it with itself"),
        ("queries:", LADDER, "model 'after': guard does not go with ladder 'all'"),
        ("original: before", "origin: before", "models.0.guard.origin: unknown key; .*'original'"),
        ("original: before, ", "", "models.0.guard.original: this key is required"),
        ("agreement: 0.9", "agreement: 1", "models.0.guard.agreement: .* less than 1"),
        ("share: 0.5", "share: 0", "models.0.guard.share: .* greater than 0"),
        ("file: before.onnx,", "file: before.onnx, guard: {original: after},", "'before', which has a guard itself"),
    ],
)
def test_mistakes_in_the_file(tmp_path, dusk, old, new, message):
    text = entry(tmp_path, dusk)
    assert old in text
    with pytest.raises(ConfigError, match=message):
        settled(tmp_path, text.replace(old, new))


def test_models_that_do_not_answer_alike_are_refused(tmp_path, dusk):
    text = entry(tmp_path, dusk)
    changed = text.replace("labels: [cat, dog], input: {fit: stretch, mean: [0, 0, 0], std: [255, 255, 255]}}", "X}", 1)
    with pytest.raises(ConfigError, match="other labels: cow, cat, not cat, dog"):
        Box(settled(tmp_path, changed.replace("X}", "labels: [cow, cat]}")))
    save_model(tmp_path / "before.onnx", [0.9, 0.1])
    with pytest.raises(ConfigError, match="'before', which has other task: classification, not detection"):
        Box(settled(tmp_path, changed.replace("convention: yolov8, X}", "convention: logits}")))


def test_memory_for_both_is_asked_for_and_what_they_share_counts_once(tmp_path, dusk):
    text = entry(tmp_path, dusk)
    with Box(settled(tmp_path, text)) as running:
        running.run(seconds=1)
        held = {model.name: model.bytes for model in running.report().models}
        both = running.report().memory.resident_bytes
    assert both == sum(held.values()) - 4 * 3 * 1024
    with pytest.raises(BudgetError, match=rf"needs 'after' and 'before' in memory together, .*\({both} bytes\), but"):
        Box(settled(tmp_path, f"{text}\nbudget: {{memory: {both - 1}}}"))
    Box(settled(tmp_path, f"{text}\nbudget: {{memory: {both}}}")).close()


def test_what_keeps_a_guard_from_its_work_is_told_at_the_start(tmp_path, dusk):
    save_detector(tmp_path / "people.onnx", width=32)
    text = (
        entry(tmp_path, dusk)
        .replace("queries: [", "  - {name: people, file: people.onnx, convention: yolov8}\nqueries: [")
        .replace("model: after}]", "model: after}, {camera: yard, model: people}]")
        + "\nbudget: {memory: 145 KiB}"
    )
    told = []
    with Box(settled(tmp_path, text), progress=told.append) as running:
        running.run(seconds=1)
        report = running.report()
    [rarer] = [each for each in told if "guard" in each]
    assert "guard: 'before' beside all models in use needs" in rarer
    assert "budget.memory is 145 KiB; comparisons are rarer" in rarer
    assert report.queries[0].ladder.why == "'after' was not compared with 'before' yet"
    told.clear()
    with Box(settled(tmp_path, f"{text}\npolicy: edf-static"), progress=told.append) as running:
        running.run(seconds=1)
        report = running.report()
    [static] = [each for each in told if "guard" in each]
    assert "policy 'edf-static' compares nothing; take edf or edf-lru or fifo-lru" in static
    assert report.queries[0].ladder is None
