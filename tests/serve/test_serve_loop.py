"""The loop as pure functions: accounts that always add up, policies checked against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.clock import NS
from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.actions import Evict, Infer, Job, Load, Wait
from edgeward.serve.apply import apply
from edgeward.serve.events import (
    EVENT,
    CameraChanged,
    Decided,
    Evicted,
    Failed,
    FrameArrived,
    Inferred,
    Loaded,
)
from edgeward.serve.policies import POLICIES, EarliestDeadlineFirst, policy_named
from edgeward.serve.residency import LeastRecentlyUsed
from edgeward.serve.simulate import Costs, ending, simulate
from edgeward.serve.state import STATE, ModelSpec, QuerySpec, State, union_bytes

MS = NS // 1000


class FixedCosts(Costs):
    """Every action of a kind takes the same time."""

    def __init__(self, infer_ns=10 * MS, load_ns=30 * MS, evict_ns=MS // 10):
        self.by_kind = {"infer": infer_ns, "load": load_ns, "evict": evict_ns}

    def outcome(self, decided):
        if isinstance(decided.action, Wait):
            return ending(decided, max(decided.action.until_ns, decided.time_ns))
        return ending(decided, decided.time_ns + self.by_kind[decided.action.kind])


def box(queries=2, models=2, budget=100, *, every_frame=False, shared=False, cameras=None, rate_ns=0):
    """A state of `queries` queries spread over cameras and models of 40 bytes (10 of them shared, if asked)."""
    specs = []
    for index in range(models):
        tensors = {f"own{index}": 30, ("common" if shared else f"rest{index}"): 10}
        specs.append(ModelSpec(f"m{index}", tensors, max_batch=4))
    wanted = [
        QuerySpec(
            f"q{index}", f"c{index % (cameras or queries)}", f"m{index % models}",
            period_ns=rate_ns, deadline_ns=(50 + 10 * index) * MS, max_staleness_ns=200 * MS, every_frame=every_frame,
        )
        for index in range(queries)
    ]  # fmt: skip
    return State.start(wanted, specs, budget)


def frames(cameras, period_ns, count, start_ns=1):
    arrivals = [
        FrameArrived(start_ns + index * period_ns + offset, f"c{offset}", index, index)
        for index in range(count)
        for offset in range(cameras)
    ]
    return sorted(arrivals, key=lambda event: event.time_ns)


def accounts_add_up(state):
    running = state.processor.action.jobs if state.processor else ()
    for name, query in state.queries.items():
        now = sum(job.query == name for job in running)
        assert query.due == query.in_time + query.late + query.skipped + len(query.jobs) + now
    held = [model.spec for model in state.models.values() if model.status != "absent"]
    assert state.resident_bytes == union_bytes(held, state.kept) <= state.budget_bytes


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(
    queries=st.integers(1, 5), models=st.integers(1, 4), budget=st.integers(40, 170), cameras=st.integers(1, 3),
    every_frame=st.booleans(), shared=st.booleans(), period=st.integers(1, 60), infer=st.integers(1, 80),
    load=st.integers(1, 120), rate=st.sampled_from([0, 40 * MS]),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_accounts_add_up_after_every_event(
    policy, queries, models, budget, cameras, every_frame, shared, period, infer, load, rate
):
    cameras = min(cameras, queries)
    start = box(queries, models, budget, every_frame=every_frame, shared=shared, cameras=cameras, rate_ns=rate)
    run = simulate(start, frames(cameras, period * MS, 30), policy_named(policy), FixedCosts(infer * MS, load * MS))
    state = start
    for event in run.events:
        state = apply(state, event)
        accounts_add_up(state)
    assert state == run.state
    assert STATE.validate_json(STATE.dump_json(state)) == state
    for event in run.events:
        assert EVENT.validate_json(EVENT.dump_json(event)) == event
    if policy != "edf-static":  # which never makes room, by design
        assert all(query.in_time + query.late + query.skipped == query.due for query in state.queries.values())


@given(
    deadlines=st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True),
    cost=st.integers(1, 25),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_earliest_deadline_first_is_in_time_whenever_any_order_is(deadlines, cost):
    """EDF is optimal for jobs that arrive together: brute force over all orders never serves all when it does not."""
    feasible = any(
        all((place + 1) * cost <= deadline for place, deadline in enumerate(order))
        for order in itertools.permutations(deadlines)
    )
    specs = [QuerySpec(f"q{i}", f"c{i}", "m", 0, d * MS, NS) for i, d in enumerate(deadlines)]
    state = State.start(specs, [ModelSpec("m", {"w": 1}, max_batch=1)], 1)
    state = apply(apply(state, Decided(1, 0, Load("m"))), Loaded(2, 0, "m"))
    for i in range(len(deadlines)):
        state = apply(state, FrameArrived(3, f"c{i}", 0, 0))
    state = replace(state, now_ns=3)
    run = simulate(state, [CameraChanged(3, "c0", "live")], EarliestDeadlineFirst(), FixedCosts(cost * MS))
    late = sum(query.late for query in run.state.queries.values())
    assert (late == 0) == feasible


def test_a_newer_frame_replaces_a_waiting_one_and_is_counted():
    state = box(queries=1, models=1)
    for index in range(3):
        state = apply(state, FrameArrived(index + 1, "c0", index, index))
    query = state.queries["q0"]
    assert [job.frame for job in query.jobs] == [2]
    assert (query.due, query.skipped) == (3, 2)


def test_every_frame_keeps_all_in_order_and_never_gives_up():
    state = box(queries=1, models=1, every_frame=True)
    for index in range(3):
        state = apply(state, FrameArrived(index * NS + 1, "c0", index, index))
    assert [job.frame for job in state.queries["q0"].jobs] == [0, 1, 2]


def test_a_stale_frame_is_given_up():
    state = apply(box(queries=1, models=1), FrameArrived(1, "c0", 0, 0))
    state = apply(state, CameraChanged(1 + 201 * MS, "c0", "retrying", "gone"))
    assert state.queries["q0"].jobs == ()
    assert state.queries["q0"].skipped == 1


@given(jitter=st.lists(st.integers(-15, 15), min_size=100, max_size=100))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_rate_keeps_its_phase_under_jitter(jitter):
    """25 fps asked at 5 per second gives 5 per second, however frames wobble."""
    state = box(queries=1, models=1, rate_ns=200 * MS)
    for index, wobble in enumerate(jitter):
        state = apply(state, FrameArrived(NS + index * 40 * MS + wobble * MS, "c0", index, index))
    assert 19 <= state.queries["q0"].due <= 21


def test_batches_join_frames_of_several_cameras_only_while_the_deadline_holds():
    specs = [QuerySpec(f"q{i}", f"c{i}", "m", 0, 50 * MS, NS) for i in range(3)]
    state = State.start(specs, [ModelSpec("m", {"w": 1}, max_batch=8)], 1)
    state = apply(apply(state, Decided(1, 0, Load("m"))), Loaded(2, 0, "m"))
    for i in range(3):
        state = apply(state, FrameArrived(3 + i, f"c{i}", 0, 0))
    policy = EarliestDeadlineFirst()
    assert policy.next(state).batch == 1  # nothing measured yet: no risk taken
    model = replace(state.models["m"], infer_ns={1: 20 * MS})
    assert policy.next(replace(state, models={"m": model})).batch == 2  # three would end after 60 ms
    model = replace(state.models["m"], infer_ns={1: 20 * MS, 3: 45 * MS})
    state = replace(state, models={"m": model})
    assert [job.camera for job in policy.next(state).jobs] == ["c0", "c1", "c2"]


def test_queries_on_one_frame_share_its_picture():
    specs = [QuerySpec(f"q{i}", "c0", "m", 0, 50 * MS, NS) for i in range(3)]
    state = State.start(specs, [ModelSpec("m", {"w": 1})], 1)
    state = apply(apply(state, Decided(1, 0, Load("m"))), Loaded(2, 0, "m"))
    action = EarliestDeadlineFirst().next(apply(state, FrameArrived(3, "c0", 0, 0)))
    assert isinstance(action, Infer)
    assert (len(action.jobs), action.batch) == (3, 1)


def test_the_least_recently_used_model_makes_room_and_a_running_one_never():
    state = box(queries=3, models=3, budget=80)
    for number, name in enumerate(("m0", "m1")):
        state = apply(state, Decided(number * 10 + 1, number, Load(name)))
        state = apply(state, Loaded(number * 10 + 2, number, name))
    state = apply(state, FrameArrived(100, "c2", 0, 0))
    assert LeastRecentlyUsed().next(state) == Evict("m0")
    running = replace(state, processor=None)
    running = apply(running, FrameArrived(101, "c0", 0, 0))
    infer = EarliestDeadlineFirst().next(running)
    running = apply(running, Decided(102, running.decisions, infer))
    assert LeastRecentlyUsed().next(running) == Evict("m1")


def test_free_memory_is_filled_before_anybody_waits():
    state = box(queries=2, models=2, budget=80)
    assert LeastRecentlyUsed().next(state) == Load("m0")


def test_shared_tensors_count_once():
    state = box(queries=2, models=2, budget=70, shared=True)
    for number, name in enumerate(("m0", "m1")):
        assert LeastRecentlyUsed().next(state) == Load(name)
        state = apply(state, Decided(2 * number + 1, number, Load(name)))
        state = apply(state, Loaded(2 * number + 2, number, name))
    assert state.resident_bytes == 70


def test_a_model_that_fails_is_left_alone_for_a_while_and_others_go_on():
    state = box(queries=2, models=2, budget=40)
    policy = policy_named("edf-lru")
    state = apply(state, FrameArrived(1, "c0", 0, 0))
    assert policy.next(state) == Load("m0")
    state = apply(state, Decided(1, 0, Load("m0")))
    state = apply(state, Failed(2, 0, "m0", "load", "no such file"))
    state = apply(state, FrameArrived(3, "c1", 0, 0))
    assert policy.next(state) == Load("m1")
    later = replace(state, now_ns=2 + NS, queries={**state.queries})
    assert policy.next(later).model in ("m0", "m1")
    assert state.models["m0"].error == "no such file"


def test_a_failed_inference_counts_its_frames_as_skipped():
    state = box(queries=1, models=1)
    state = apply(apply(state, Decided(1, 0, Load("m0"))), Loaded(2, 0, "m0"))
    state = apply(state, FrameArrived(3, "c0", 0, 0))
    state = apply(state, Decided(4, 1, EarliestDeadlineFirst().next(state)))
    state = apply(state, Failed(5, 1, "m0", "infer", "broken"))
    accounts_add_up(state)
    assert state.queries["q0"].skipped == 1
    assert state.processor is None


def test_deadlines_are_judged_at_the_end_of_the_answer():
    state = box(queries=1, models=1)
    state = apply(apply(state, Decided(1, 0, Load("m0"))), Loaded(2, 0, "m0"))
    state = apply(state, FrameArrived(10, "c0", 0, 0))
    job = Job("q0", "c0", 0, 10, 10 + 50 * MS)
    assert state.queries["q0"].jobs == (job,)
    state = apply(state, Decided(10, 1, Infer("m0", (job,))))
    on_time = apply(state, Inferred(job.deadline_ns, 1, "m0", (job,)))
    late = apply(state, Inferred(job.deadline_ns + 1, 1, "m0", (job,)))
    assert (on_time.queries["q0"].in_time, late.queries["q0"].late) == (1, 1)


def test_a_load_never_holds_up_a_resident_model():
    """While m1 loads for a whole second, every frame for m0 is still answered in time."""
    arrivals = frames(2, 40 * MS, 50)
    start = box(queries=2, models=2, budget=80)
    run = simulate(start, arrivals, policy_named("edf-lru"), FixedCosts(5 * MS, NS))
    first_load = next(event for event in run.events if isinstance(event, Loaded))
    after = [event for event in run.events if isinstance(event, FrameArrived) and event.time_ns > first_load.time_ns]
    asked = sum(event.camera == f"c{first_load.model[1:]}" for event in after)
    assert run.state.queries[f"q{first_load.model[1:]}"].in_time >= asked > 20


def test_a_budget_below_a_wanted_model_is_refused_with_both_sizes():
    with pytest.raises(BudgetError, match=r"budget.memory is 39 B.*needs 40 B"):
        box(queries=1, models=1, budget=39)


def test_an_unknown_policy_names_the_nearest():
    with pytest.raises(ConfigError, match="edf-lru"):
        policy_named("edf-lruu")


def test_evicting_frees_the_bytes():
    state = box(queries=1, models=1)
    state = apply(apply(state, Decided(1, 0, Load("m0"))), Loaded(2, 0, "m0"))
    state = apply(apply(state, Decided(3, 1, Evict("m0"))), Evicted(4, 1, "m0"))
    assert (state.resident_bytes, state.models["m0"].evictions) == (0, 1)
