"""A model with variants: changes follow the load, memory stays within the budget, and a log of it replays."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinymodel import save_detector

from edgeward.clock import NS
from edgeward.errors import BudgetError, ConfigError, ModelError
from edgeward.profile.variant import Accuracy, LatencyFigure, Portfolio, Variant, save_portfolio
from edgeward.serve.actions import Evict, Infer, Load, Switch, Wait
from edgeward.serve.apply import apply
from edgeward.serve.box import Box
from edgeward.serve.configfile import load_config, parse_config
from edgeward.serve.events import EVENT, Decided, Failed, FrameArrived, Loaded, Switched
from edgeward.serve.log import read_log
from edgeward.serve.policies import LoadSwitching, policy_named
from edgeward.serve.portfolio import resolve_portfolio
from edgeward.serve.replay import replay
from edgeward.serve.runner import Runner
from edgeward.serve.simulate import Costs, ending, simulate
from edgeward.serve.state import STATE, ModelSpec, QuerySpec, State, VariantSpec, union_bytes
from edgeward.weights.store import WeightStore

MS = NS // 1000
PEOPLE = "test://people?seed=1&fps=25&width=160&height=120&frames={frames}&objects=2"


class VariantCosts(Costs):
    """Inference in proportion to the variant's cost, times a slow-down that depends on the time."""

    def __init__(self, slowdown=lambda ns: 1.0, load_ns=5 * MS, fails=()):
        self.slowdown, self.load_ns, self.fails = slowdown, load_ns, set(fails)

    def outcome(self, decided):
        match decided.action:
            case Infer(variant=variant):
                cost = int(variant[1:]) if variant else 5
                return ending(decided, decided.time_ns + round(cost * MS * self.slowdown(decided.time_ns)))
            case Wait(until_ns=until):
                return ending(decided, max(until, decided.time_ns))
            case Load(model=model, variant=variant) if variant in self.fails:
                return Failed(decided.time_ns + self.load_ns, decided.number, model, "load", "damaged")
            case Switch(model=model, variant=variant) if variant in self.fails:
                return Failed(decided.time_ns + self.load_ns, decided.number, model, "switch", "damaged")
        return ending(decided, decided.time_ns + self.load_ns)


def spec(costs=(10, 20, 40), name="m", size=10):
    """Variants "v10", "v20", ... that take so many milliseconds and `size` bytes per millisecond, 3 of them shared."""
    variants = tuple(
        VariantSpec(f"v{cost}", {f"{name}{cost}": size * cost - 3, f"{name}shared": 3}, cost) for cost in costs
    )
    return ModelSpec(name, variants[-1].tensors, 4, variants)


def box(budget=10_000, deadline=60, every_frame=False, others=0, costs=(10, 20, 40)):
    plain = [ModelSpec(f"p{i}", {f"w{i}": 100}) for i in range(others)]
    query = QuerySpec("q", "c0", "m", 0, deadline * MS, 200 * MS, every_frame)
    rest = [QuerySpec(f"o{i}", "c0", f"p{i}", 0, deadline * MS, 200 * MS) for i in range(others)]
    return State.start([query, *rest], [spec(costs), *plain], budget)


def frames(seconds, period=50, start=1):
    count = round(1000 * seconds / period)
    return [FrameArrived(start + index * period * MS, "c0", index, index) for index in range(count)]


def actives(run):
    """Variant by time, from the log alone."""
    return [(event.time_ns / NS, event.variant) for event in run.events if isinstance(event, Switched)]


def test_it_begins_with_the_best_that_fits_the_budget():
    assert box().models["m"].variant == "v40"
    assert box(budget=399).models["m"].variant == "v20"
    assert box(budget=399).models["m"].spec.bytes == 200
    with pytest.raises(BudgetError, match=r"budget.memory is 99 B.*needs 100 B"):
        box(budget=99)


def test_it_goes_down_at_once_and_up_after_calm_windows():
    """Everything is three times slower from second 5 to 8: 40 ms become 120, 20 become 60, 10 become 30."""
    slow = lambda ns: 3.0 if 5 * NS <= ns < 8 * NS else 1.0  # noqa: E731
    run = simulate(box(deadline=70), frames(20), policy_named("edf-lru"), VariantCosts(slow))
    changes = actives(run)
    assert [variant for _, variant in changes] == ["v20", "v10", "v20", "v40"]
    down, further, up, top = (seconds for seconds, _ in changes)
    assert 5 < down < 5.3  # the first frame that was late
    assert down + 0.5 <= further < 6.2
    assert 8 + 2 < up < 8 + 5
    assert up + 3 <= top < up + 4.6
    late_after = [q.late + q.skipped for q in run.state.queries.values()]
    before = simulate(box(deadline=70), frames(20), policy_named("edf-static"), VariantCosts(slow))
    assert sum(late_after) < sum(q.late + q.skipped for q in before.state.queries.values()) / 2


def test_without_load_it_never_changes():
    run = simulate(box(), frames(20), policy_named("edf-lru"), VariantCosts())
    assert actives(run) == []
    assert run.state.queries["q"].in_time == 400


@pytest.mark.parametrize(("deadline", "period"), [(35, 50), (500, 30)])
def test_it_does_not_go_back_to_what_would_not_keep_up(deadline, period):
    """40 ms miss a deadline of 35; at a frame every 30 ms they leave the processor no time."""
    run = simulate(box(deadline=deadline), frames(20, period), policy_named("edf-lru"), VariantCosts())
    assert [variant for _, variant in actives(run)] == ["v20"]
    assert run.state.queries["q"].late + run.state.queries["q"].skipped < 40


def test_at_the_bottom_it_stays_and_recovers():
    slow = lambda ns: 20.0 if ns < 4 * NS else 1.0  # noqa: E731
    run = simulate(box(), frames(20), policy_named("edf-lru"), VariantCosts(slow))
    assert [variant for _, variant in actives(run)] == ["v20", "v10", "v20", "v40"]


def test_where_memory_is_short_the_old_variant_goes_first():
    slow = lambda ns: 3.0 if ns < 4 * NS else 1.0  # noqa: E731
    run = simulate(box(budget=450), frames(20), policy_named("edf-lru"), VariantCosts(slow))
    kinds = [event.action for event in run.decisions if not isinstance(event.action, Infer | Wait)]
    assert kinds[:4] == [Load("m", "v40"), Evict("m"), Load("m", "v20"), Switch("m", "v10")]
    assert run.state.models["m"].variant == "v40"
    static = simulate(box(budget=450), frames(20), policy_named("edf-static"), VariantCosts(slow))
    ours, theirs = (each.state.queries["q"].late + each.state.queries["q"].skipped for each in (run, static))
    assert ours < theirs / 2


def test_a_variant_that_cannot_be_loaded_leaves_the_old_one_serving():
    run = simulate(box(deadline=35), frames(25), policy_named("edf-lru"), VariantCosts(fails={"v20"}))
    tries = [event.time_ns for event in run.decisions if isinstance(event.action, Switch)]
    assert 2 <= len(tries) <= 3  # not tried again at every frame
    assert all(after - before >= 10 * NS for before, after in itertools.pairwise(tries))
    model = run.state.models["m"]
    assert (model.variant, model.spec.bytes, model.status, model.error) == ("v40", 400, "resident", "damaged")
    assert run.state.queries["q"].due == 500 == run.state.queries["q"].late + run.state.queries["q"].in_time


@pytest.mark.parametrize("broken", ["v40", "v20", "v10"])
def test_where_there_is_no_room_for_both_a_variant_that_cannot_be_loaded_gives_way_to_another(broken):
    slow = lambda ns: 1.0 if ns < 8 * NS or ns > 14 * NS else 3.0  # noqa: E731 - so that it goes down and up again
    run = simulate(box(budget=450), frames(30), policy_named("edf-lru"), VariantCosts(slow, fails={broken}))
    model = run.state.models["m"]
    assert model.status == "resident"
    assert model.variant != broken
    assert run.state.queries["q"].in_time > 300


@given(
    budget=st.integers(100, 1200), deadline=st.integers(15, 90), period=st.integers(10, 60), others=st.integers(0, 2),
    every_frame=st.booleans(), load=st.integers(1, 400), slowdowns=st.lists(st.sampled_from([0.5, 1, 2, 4]), min_size=4, max_size=4),
)  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True)
def test_accounts_add_up_and_the_budget_holds_after_every_event(
    budget, deadline, period, others, every_frame, load, slowdowns
):
    start = box(budget, deadline, every_frame, others)
    costs = VariantCosts(lambda ns: slowdowns[min(ns // (2 * NS), 3)], load * MS)
    run = simulate(start, frames(6, period), policy_named("edf-lru"), costs)
    state = start
    for event in run.events:
        state = apply(state, event)
        running = state.processor.action.jobs if state.processor else ()
        for name, query in state.queries.items():
            now = sum(job.query == name for job in running)
            assert query.due == query.in_time + query.late + query.skipped + len(query.jobs) + now
        held = [model.spec for model in state.models.values() if model.status != "absent"]
        assert state.resident_bytes == union_bytes(held) <= budget
        model = state.models["m"]
        changing = state.loader is not None and isinstance(state.loader.action, Switch)
        if not changing:
            assert model.spec.tensors == model.spec.variant(model.variant).tensors
        assert EVENT.validate_json(EVENT.dump_json(event)) == event
    assert state == run.state
    assert STATE.validate_json(STATE.dump_json(state)) == state


def test_a_change_takes_the_known_costs_over_in_proportion():
    state = box()
    state = apply(apply(state, Decided(1, 0, Load("m", "v40"))), Loaded(2, 0, "m"))
    model = replace(state.models["m"], infer_ns={1: 44 * MS, 4: 160 * MS})
    state = replace(state, models={"m": model})
    state = apply(state, Decided(3, 1, Switch("m", "v10")))
    assert state.resident_bytes == 400 + 100 - 3  # both, the shared tensor once
    state = apply(state, Switched(4, 1, "m", "v10"))
    assert state.models["m"].infer_ns == {1: 11 * MS, 4: 40 * MS}
    assert state.resident_bytes == 100


def test_the_policy_waits_for_the_loader_and_for_the_model_that_runs():
    state = box(budget=450)
    state = apply(apply(state, Decided(1, 0, Load("m", "v40"))), Loaded(2, 0, "m"))
    troubled = replace(state.models["m"].watch, settled_ns=0, trouble_ns=1)
    state = replace(state, models={"m": replace(state.models["m"], watch=troubled)})
    assert LoadSwitching().next(state) == Evict("m")
    state = apply(state, FrameArrived(3, "c0", 0, 0))
    infer = Infer("m", state.queries["q"].jobs, "v40")
    assert LoadSwitching().next(apply(state, Decided(4, 1, infer))) is None
    assert LoadSwitching().next(apply(state, Decided(4, 1, Switch("m", "v10")))) is None


# The mechanism: real sessions, real files.


def save_family(folder, widths=(2, 8, 16), size=32, **changes):
    """A portfolio of tiny detectors; the wider the more accurate."""
    variants = []
    for place, width in enumerate(widths):
        name = f"w{width}"
        (folder / name).mkdir(parents=True)
        save_detector(folder / name / "model.onnx", size=size, width=width, seed=width)
        figure = LatencyFigure.of([0.001 * width])
        accuracy = Accuracy(value=0.5 + place / 10, data="test")
        given = {
            "name": name, "folder": name, "method": "test", "parameters": width, "macs": width, "bytes": width,
            "latency": {"pi": figure}, "accuracy": accuracy,
        }  # fmt: skip
        variants.append(Variant(**(given | changes.get(name, {}))))
    save_portfolio(Portfolio(model="tiny", variants=tuple(variants)), folder)
    return folder


def entry(tmp_path, extra=""):
    return "\n".join(
        [
            f"cameras: [{{name: a, source: '{PEOPLE.format(frames=75)}', rate: 25}}]",
            "models: [{name: m, portfolio: family, convention: yolov8, labels: [cat, dog]}]",
            "queries: [{camera: a, model: m}]",
            f"data: '{tmp_path}/data'",
            f"cache: '{tmp_path}/cache'",
            extra,
        ]
    )


def resolved(tmp_path):
    (model,) = parse_config(entry(tmp_path), "box.yaml").resolved(tmp_path).models
    return resolve_portfolio(model, WeightStore(tmp_path / "weights"), tmp_path, "cpu")


def test_variants_that_are_not_worth_having_are_left_out(tmp_path):
    slow = {"latency": {"pi": LatencyFigure.of([1.0])}}
    save_family(tmp_path / "family", w8=slow)
    assert [(v.name, v.cost) for v in resolved(tmp_path).spec.variants] == [("w2", 2_000_000), ("w16", 16_000_000)]


def test_without_common_latencies_multiply_accumulates_count(tmp_path):
    save_family(tmp_path / "family", w2={"latency": {}})
    assert [v.cost for v in resolved(tmp_path).spec.variants] == [2, 8, 16]


def test_answers_are_whole_while_variants_change(tmp_path):
    save_family(tmp_path / "family")
    model = resolved(tmp_path)
    runner = Runner({"m": model}, threads=1)
    pixels = np.random.default_rng(0).random((1, 3, 32, 32)).astype(np.float32)
    engine = runner._engines["m"]
    expected = {}
    for name in engine.variants:
        runner.load("m", name)
        expected[name] = engine.run(pixels)[0]
        runner.evict("m")
        with pytest.raises(ModelError, match="attach"):
            engine.run(pixels)
    runner.load("m", "w16")
    seen, done, failures = [], threading.Event(), []

    def ask():
        try:
            while not done.is_set():
                seen.append(engine.run(pixels)[0])
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for index in range(60):
        name = engine.variants[index % 3]
        runner.switch("m", name)
    done.set()
    thread.join()
    assert not failures
    assert len(seen) > 20
    assert all(any(np.allclose(one, answer) for answer in expected.values()) for one in seen)
    np.testing.assert_allclose(engine.run(pixels)[0], expected["w16"])
    runner.close()


def test_a_switch_that_fails_changes_nothing(tmp_path):
    save_family(tmp_path / "family")
    model = resolved(tmp_path)
    runner = Runner({"m": model}, threads=1)
    runner.load("m", "w16")
    for segment in (tmp_path / "weights").glob("*.safetensors"):
        segment.unlink()
    with pytest.raises(Exception, match="weights"):
        runner.switch("m", "w2")
    assert runner._engines["m"].run(np.zeros((1, 3, 32, 32), np.float32))
    runner.close()


def test_a_box_that_is_too_slow_changes_down_and_the_log_replays(tmp_path):
    """At 320 pixels and 192 channels an answer takes some tens of milliseconds; 5 ms are asked for."""
    save_family(tmp_path / "family", widths=(1, 192), size=320)
    config = parse_config(entry(tmp_path), "box.yaml", ["queries.0.deadline=0.005", "web.enabled=false"])
    with Box(config.resolved(tmp_path)) as running:
        assert running.state.models["m"].variant == "w192"
        running.run()
        report = running.report()
    (recording,) = read_log(tmp_path / "data" / "log")
    assert [event.variant for event in recording.events if isinstance(event, Switched)][:1] == ["w1"]
    assert report.models[0].variant == running.state.models["m"].variant == "w1"
    query = report.queries[0]
    assert (query.due, query.in_time + query.late + query.skipped) == (75, 75)
    assert report.memory.resident_bytes == report.models[0].bytes < 10_000
    for costs in ("recorded", "median"):
        assert replay(recording, "edf-lru", costs).replayed.decisions > 50
    assert replay(recording, "edf-lru").identical


def test_a_real_video_is_served_by_a_portfolio(tmp_path, shared_data):
    (video, *_) = sorted((shared_data / "video").glob("*.mp4"), key=lambda path: path.stat().st_size)
    save_family(tmp_path / "family", size=64)
    settings_ = ["web.enabled=false", "cameras.0.rate=max", f"cameras.0.source={video}"]
    config = parse_config(entry(tmp_path), "box.yaml", [*settings_, "cameras.0.backpressure=every_frame"])
    with Box(config.resolved(tmp_path)) as running:
        running.run(seconds=5)
        report = running.report()
    query = report.queries[0]
    assert query.due > 20
    assert query.due == query.in_time + query.late + query.skipped
    assert report.models[0].variant in ("w2", "w8", "w16")


def test_a_portfolio_in_the_file(tmp_path):
    save_family(tmp_path / "family")
    (tmp_path / "box.yaml").write_text(entry(tmp_path))
    assert load_config(tmp_path / "box.yaml").models[0].portfolio == tmp_path / "family"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("portfolio: family,", "portfolio: family, use: ssdlite-person,"), "'portfolio' and 'use' exclude each other"),
        (("portfolio: family,", "portfolio: family, plan: p.json,"), "'plan' and 'portfolio' exclude each other"),
        (("convention: yolov8,", ""), "needs 'convention'"),
        (("portfolio: family,", ""), r"'portfolio' \(variants of one\)"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(entry(tmp_path).replace(*change), "box.yaml")


def test_damaged_portfolios_are_refused_before_any_camera_starts(tmp_path):
    folder = tmp_path / "family"
    config = parse_config(entry(tmp_path), "box.yaml").resolved(tmp_path)
    with pytest.raises(ModelError, match=r"model 'm': cannot read portfolio .*portfolio\.json"):
        Box(config)
    save_family(folder)
    (folder / "w8" / "model.onnx").write_bytes(b"cut short")
    with pytest.raises(ModelError, match=r"variant 'w8' of model 'm': .*model\.onnx"):
        Box(config)
    save_detector(folder / "w8" / "model.onnx", size=64)
    with pytest.raises(ModelError, match="'w8' and 'w16' differ in input or output"):
        Box(config)
    record = json.loads((folder / "portfolio.json").read_text())
    record["variants"][0]["accuracy"] = None
    (folder / "portfolio.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="'w2' has no accuracy"):
        Box(config)


def test_only_a_portfolio_has_variants(tmp_path):
    from edgeward.serve.models import resolve_model

    save_detector(tmp_path / "x.onnx")
    text = entry(tmp_path).replace("portfolio: family", "file: x.onnx")
    (model,) = parse_config(text, "box.yaml").resolved(tmp_path).models
    runner = Runner({"m": resolve_model(model, WeightStore(tmp_path / "w"), tmp_path, "cpu")}, threads=1)
    with pytest.raises(ModelError, match="no variants"):
        runner.switch("m", "small")
    runner.close()
