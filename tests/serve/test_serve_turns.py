"""Whose frame goes first: what waiting costs, against serving in the order of arrival."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_laddering import TAKES, LadderCosts, answers, boxes, ladder, state

from edgeward.clock import NS
from edgeward.serve.actions import Infer
from edgeward.serve.events import FrameArrived, Inferred
from edgeward.serve.ladder import Rung
from edgeward.serve.policies import policy_named
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.simulate import MedianCosts, RecordedCosts, simulate
from edgeward.serve.state import ModelSpec, QuerySpec, State
from edgeward.serve.turns import _first, _Waiting, costliest

MS = NS // 1000


def one_model(name):
    """A chooser with nothing to choose, which estimates all the same."""
    only = replace(ladder(), rungs=(ladder().rung(name),))
    return Selector.start(only, Rules(30, 1000, 1000, own_frame=False))


class Paces(LadderCosts):
    """Some cameras see objects that move, the others objects that stand still."""

    def __init__(self, load=1.0, moving=("c1",)):
        super().__init__(lambda ns: load)
        self.moving = moving

    def results(self, model, action):
        speed = 0.06 if action.jobs[0].camera in self.moving else 0.0
        self.scene = lambda frame: boxes(150, frame, speed=speed)
        return tuple(self.scene(job.frame).to_json() for job in action.jobs)


def arrivals(seconds, periods):
    """Frames of each camera, its period in milliseconds; none at the same moment as another."""
    found = [
        FrameArrived(1 + camera * MS + index * period * MS, f"c{camera}", index, index, 1000, 1000)
        for camera, period in enumerate(periods)
        for index in range(round(1000 * seconds / period))
    ]
    return sorted(found, key=lambda event: event.time_ns)


def served(policy, periods, load=1.0, moving=("c1",)):
    begun = state(lambda: one_model("middle"), cameras=len(periods))
    return simulate(begun, arrivals(8, periods), policy_named(policy), Paces(load, moving))


def in_time_for_the_next(run, query, period):
    """The share of a camera's frames at which the answer to the frame before is on screen."""
    ready = {}
    for event in run.events:
        for job in getattr(event, "jobs", ()) if event.kind == "inferred" else ():
            if job.query == query:
                ready[job.frame] = event.time_ns
    camera = int(query[1:])
    count = max(ready) + 1
    met = [ready.get(frame, 1 << 62) <= 1 + camera * MS + (frame + 1) * period * MS for frame in range(count)]
    return np.mean(met)


def test_an_answer_that_is_in_time_anyway_lets_others_go_first():
    """An answer takes 40 ms: c0 and c2 can wait for 160 ms, c1 with a frame every 60 ms cannot."""
    periods = (200, 60, 210)
    ours, plain = served("edf-lru", periods), served("fifo-lru", periods)
    assert in_time_for_the_next(ours, "q1", 60) > in_time_for_the_next(plain, "q1", 60) + 0.1
    for query, period in (("q0", 200), ("q2", 210)):
        assert in_time_for_the_next(ours, query, period) > 0.9


@pytest.mark.parametrize("load", [2.0, 6.0])
def test_nobody_starves_under_overload(load):
    run = served("edf-lru", (200, 60, 33), load)
    for query in ("q0", "q1", "q2"):
        times = [at for at, _ in answers(run, query)]
        assert max(np.diff(times)) < 0.5 + 3 * load * TAKES["middle"] / 1000


def test_it_is_not_told_for_one_frame_or_before_anything_was_answered():
    begun = state(lambda: one_model("middle"), cameras=2)
    assert costliest(begun, []) is None
    run = simulate(begun, arrivals(0.001, (1, 1)), policy_named("edf-lru"), Paces(), until_ns=2)
    waiting = [job for query in run.state.queries.values() for job in query.jobs]
    assert costliest(run.state, waiting) is None


def test_several_answers_that_can_wait_are_not_put_off_until_they_miss_together():
    """An answer takes 40 ms: three cameras with a frame every 200 ms need 120 ms of them, c1 takes what is left."""
    run = served("edf-lru", (200, 45, 201, 199), moving=("c0", "c2", "c3"))
    for query, period in (("q0", 200), ("q2", 201), ("q3", 199)):
        assert in_time_for_the_next(run, query, period) > 0.95


class InTurn(Paces):
    """Two models in turn: 10 ms and 70 ms, 40 ms on average."""

    def __init__(self):
        super().__init__(moving=("c0", "c1", "c2"))
        self.looks = Counter()

    def outcome(self, decided):
        if not isinstance(decided.action, Infer):
            return super().outcome(decided)
        (job,) = decided.action.jobs
        self.looks[job.query] += 1
        part, took = ("small", 10) if self.looks[job.query] % 2 else ("large", 70)
        results = self.results(part, decided.action)
        ends = decided.time_ns + took * MS
        return Inferred(ends, decided.number, decided.action.model, (job,), results, part=part)


def in_turn():
    """A box with three cameras and a ladder of one rung in turn."""
    name = "small~large"
    only = replace(ladder(), rungs=(Rung(name, (0.9, 0.9), 0.04, static_iou=0.99, parts=(0.01, 0.07)),))
    chooser = Selector.start(only, Rules(30, 1000, 1000, own_frame=False))
    queries = [QuerySpec(f"q{camera}", f"c{camera}", "people", 0, NS // 2, NS, False, (name,)) for camera in range(3)]
    models = [ModelSpec(name, {name: 100}, 1)]
    return State.start(queries, models, 10_000, {query.name: chooser for query in queries})


def test_frames_that_models_in_turn_look_at_can_wait_only_as_long_as_for_the_slowest():
    run = simulate(in_turn(), arrivals(8, (200, 60, 210)), policy_named("edf-lru"), InTurn())
    for query, period in (("q0", 200), ("q2", 210)):
        assert in_time_for_the_next(run, query, period) > 0.98


def test_another_policy_is_charged_what_each_model_in_turn_takes():
    """Latencies are the same each time: the medians of one policy's run are what another one's takes."""
    frames = arrivals(8, (200, 60, 210))
    begun, known = in_turn(), simulate(in_turn(), frames, policy_named("edf-lru"), InTurn())
    again = simulate(begun, frames, policy_named("fifo-lru"), MedianCosts(known.events))
    real = simulate(begun, frames, policy_named("fifo-lru"), InTurn())
    assert Counter(event.part for event in again.events if isinstance(event, Inferred)).keys() == {"small", "large"}
    assert again.decisions == real.decisions


def test_whose_turn_it_is_is_known_where_a_recording_ends():
    frames = arrivals(8, (200, 60, 210))
    real = simulate(in_turn(), frames, policy_named("fifo-lru"), InTurn())
    for turns in (41, 42, 43, 44):  # whoever's turn it is next
        answered = [place for place, event in enumerate(real.events) if isinstance(event, Inferred)]
        costs = RecordedCosts(in_turn(), real.events[: answered[turns] + 1])
        assert simulate(in_turn(), frames, policy_named("fifo-lru"), costs).decisions == real.decisions


WAITS = st.lists(
    st.tuples(st.floats(0.01, 0.3), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(WAITS)
def test_the_first_is_that_of_the_best_of_all_orders(drawn):
    waiting = [
        _Waiting(None, seconds, sorted(slack for slack, _ in frames), np.cumsum([loss for _, loss in frames]).tolist())
        for seconds, frames in drawn
    ]

    def lost(order):
        ends = np.cumsum([0.0] + [waiting[place].seconds for place in order])
        return sum(waiting[place].lost(delay) for place, delay in zip(order, ends, strict=False))

    orders = list(itertools.permutations(range(len(waiting))))
    best = min(lost(order) for order in orders)
    assert min(lost(order) for order in orders if order[0] == _first(waiting)) == pytest.approx(best, abs=1e-9)


def test_the_choice_costs_least_of_all_orders():
    """Against brute force: of two frames that wait, the one is first whose waiting costs more."""
    run = served("edf-lru", (200, 60), load=3.0)
    checked = 0
    for until in range(2000, 6000, 130):
        part = simulate(
            state(lambda: one_model("middle"), cameras=2),
            arrivals(8, (200, 60)),
            policy_named("edf-lru"),
            Paces(3.0),
            until * MS,
        ).state
        jobs = [job for query in part.queries.values() for job in query.jobs]
        first = costliest(part, jobs)
        if first is None or len(jobs) < 2:
            continue
        costs = {job: _cost(part, job, jobs) for job in jobs}
        assert costs[first] <= min(costs.values()) + 1e-9
        checked += 1
    assert checked > 3
    assert run.state.queries["q0"].answered_frame > 0


def _cost(part, first, jobs):
    """Accuracy times seconds that the frames lose when `first` goes first and the other next."""
    total, ready = 0.0, part.now_ns / NS
    for job in [first, *(other for other in jobs if other is not first)]:
        query = part.queries[job.query]
        chooser = query.chooser
        seconds, fps = chooser.latency.seconds[query.model], chooser.rules.fps
        alone, ready = part.now_ns / NS + seconds, ready + seconds
        for k in range(1, 60):
            coming = job.arrived_ns / NS + k / fps
            if alone <= coming < ready:
                old = k + (job.arrived_ns - query.answered_arrival_ns) / NS * fps
                new, kept = chooser.precisions(query.model, np.array([float(k), old]))
                total += (new - kept) / fps
    return total
