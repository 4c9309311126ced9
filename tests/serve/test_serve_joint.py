"""Several cameras on one processor: the joint choice against every combination."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.choice import Answer
from edgeward.serve.combinations import STEPS, turn
from edgeward.serve.joint import LIMIT, assign, exact, greedy
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.latency import Latency
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.sizes import SizeHistogram
from edgeward.vision.results import Detections

EDGES = (0.0, 0.1, 0.25, 1.0)
RUNGS = (
    Rung("tiny", (0.0, 0.3, 0.8), 0.025, 0.1, 4),
    Rung("small", (0.05, 0.6, 0.85), 0.05, 0.1, 8),
    Rung("middle", (0.2, 0.8, 0.9), 0.12, 0.2, 20),
    Rung("large", (0.8, 0.9, 0.95), 0.22, 0.4, 60),
)
LADDER = Ladder("box", ("object",), EDGES, RUNGS)
RULES = Rules(30, 1000, 1000)


def camera(seed, rules=RULES):
    """A camera whose objects have sizes, and speeds by size, drawn at random."""
    draw = np.random.default_rng(seed)
    selector = Selector.start(LADDER, rules)
    rates = [(10.0, 10.0 * float(speed) ** 2) for speed in np.exp(draw.uniform(-7, -2, 3))]
    return replace(
        selector,
        histogram=SizeHistogram(tuple(draw.uniform(0, 10, 3)), (1.0,) * 3),
        retention=replace(selector.retention, bins=tuple(rates)),
    )


def cameras(seed, count, kinds=(RULES,)):
    return {f"c{i}": camera(1000 * seed + i, kinds[i % len(kinds)]) for i in range(count)}


def brute(found, memory=math.inf):
    """Written out: every combination, each worth the sum of what is on screen."""
    return max(map(sum, written_out(found, memory).values()))


def written_out(found, memory=math.inf):
    """What is on each screen under every combination that fits."""
    worth = {}
    periods = [max(1 / each.rules.fps, each.rules.period) for each in found.values()]
    for rungs in itertools.product(RUNGS, repeat=len(found)):
        if sum(rung.bytes for rung in set(rungs)) > memory:
            continue
        seconds = [rung.seconds for rung in rungs]
        whole = math.exp(round(math.log(turn(seconds, periods)) * STEPS) / STEPS)
        waits = [max([*seconds[:i], *seconds[i + 1 :]], default=0.0) for i in range(len(rungs))]
        worth[tuple(rung.name for rung in rungs)] = [
            each.precision(rung.name, max(whole, period), wait if whole <= period else 0.0)
            for each, rung, wait, period in zip(found.values(), rungs, waits, periods, strict=True)
        ]
    return worth


@given(st.lists(st.tuples(st.floats(0.01, 0.3), st.floats(0.02, 0.5)), min_size=1, max_size=6))
def test_turns_fill_the_processor_or_it_keeps_up(cameras):
    seconds, periods = zip(*cameras, strict=True)
    found = turn(seconds, periods)
    share = sum(each / max(period, found) for each, period in cameras)
    assert share <= 1 + 1e-9
    assert found >= max(seconds)
    assert share == pytest.approx(1) or found == pytest.approx(max(seconds))


def test_who_has_no_new_frame_is_passed_over():
    assert turn([0.1, 0.1], [0.01, 0.01]) == pytest.approx(0.2)
    assert turn([0.1, 0.1], [0.01, 1.0]) == pytest.approx(0.1 / 0.9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([4, 12, 24, 30, 80, math.inf]))
def test_the_exact_choice_is_the_best_of_all(seed, count, memory):
    found = cameras(seed, count)
    limit = None if memory == math.inf else int(memory)
    assert exact(found, 0.0, limit).total == pytest.approx(brute(found, memory))
    assert assign(found, 0.0, limit).total == pytest.approx(brute(found, memory))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([12, 30, math.inf]))
def test_cameras_of_different_paces_get_the_best_of_all(seed, count, memory):
    """Some keep up with their frames and some do not; one is asked for a frame now and then only."""
    slow, sampled = replace(RULES, fps=2.0, own_frame=False), replace(RULES, period=0.5, own_frame=False)
    found = cameras(seed, count, (replace(RULES, own_frame=False), slow, sampled, replace(slow, fps=7.0)))
    best = brute(found, memory)
    # What one camera alone looks up is rounded to hundredths of a frame.
    assert exact(found, 0.0, None if memory == math.inf else int(memory)).total == pytest.approx(best, rel=2e-3)


def test_the_greedy_choice_is_close_to_the_exact_one():
    shares = []
    for seed in range(40):
        found = cameras(seed, 2 + seed % 4)
        best, climbed = exact(found, 0.0).total, greedy(found, 0.0).total
        assert climbed <= best + 1e-12
        shares.append(climbed / best)
    assert min(shares) >= 0.98
    assert np.mean(np.array(shares) > 1 - 1e-9) >= 0.9


def test_many_cameras_are_assigned_without_trying_all():
    found = cameras(7, 8)
    assert len(RUNGS) ** len(found) > LIMIT
    chosen = assign(found, 0.0)
    assert "best found" in chosen.reason
    for rung in RUNGS:
        cycle = rung.seconds * len(found)
        assert chosen.total >= sum(each.precision(rung.name, cycle) for each in found.values())


def test_one_camera_gets_what_it_would_choose_alone():
    for seed in range(30):
        alone = replace(camera(seed), last=Answer("tiny", 0.0, Detections.empty()))
        loaded = [rung.name for rung in RUNGS]
        assert assign({"gate": alone}, 0.0).names["gate"] == alone.choice(0.0, loaded).name


def test_cameras_in_other_order_get_the_same():
    found = cameras(3, 4)
    turned = dict(reversed(found.items()))
    assert assign(found, 0.0) == assign(turned, 0.0)


@given(st.floats(1.1, 6))
@settings(deadline=None, max_examples=20)
def test_more_load_never_raises_the_total(factor):
    found = cameras(5, 3)
    slow = {
        name: replace(each, latency=Latency.nominal({rung.name: rung.seconds * factor for rung in RUNGS}))
        for name, each in found.items()
    }
    assert exact(slow, 0.0).total <= exact(found, 0.0).total + 1e-12


def test_a_camera_keeps_its_model_for_its_dwell_and_within_the_margin():
    found = {name: replace(each, active="tiny", since=0.0) for name, each in cameras(11, 3).items()}
    free = exact({name: replace(each, active="") for name, each in found.items()}, 10.0)
    assert set(free.names.values()) != {"tiny"}
    assert set(assign(found, 0.1).names.values()) == {"tiny"}
    eager = {name: replace(each, rules=replace(RULES, margin=0.0)) for name, each in found.items()}
    assert assign(eager, 10.0).names == free.names
    wide = {name: replace(each, rules=replace(RULES, margin=50.0)) for name, each in found.items()}
    assert set(assign(wide, 10.0).names.values()) == {"tiny"}


@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from(RUNGS), st.sampled_from((0.0, 0.03, 0.2, 0.5))), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_change_gains_the_margins_of_the_cameras_it_changes(seed, held):
    found = {
        name: replace(each, active=rung.name, since=0.0, rules=replace(RULES, margin=margin))
        for (name, each), (rung, margin) in zip(cameras(seed, len(held)).items(), held, strict=True)
    }
    worth = written_out(found)
    before = worth[tuple(rung.name for rung, _ in held)]

    def net(names):
        changed = zip(names, held, before, strict=True)
        return sum(worth[names]) - sum(margin * value for name, (rung, margin), value in changed if name != rung.name)

    names = tuple(assign(found, 10.0).names.values())
    assert net(names) == pytest.approx(max(map(net, worth)), abs=1e-9)


def test_one_camera_of_many_changes_its_model_when_it_gains_by_it():
    """Its gain is less than the margin of what all of them have together."""
    quick = Latency.nominal({rung.name: rung.seconds / 100 for rung in RUNGS})
    one = replace(camera(0, replace(RULES, period=0.5)), latency=quick)  # all are served in time
    large = replace(one, active="large", histogram=SizeHistogram((0.0, 0.0, 10.0), (1.0,) * 3))
    small = replace(one, active="middle", histogram=SizeHistogram((10.0, 0.0, 0.0), (1.0,) * 3))
    found = {f"c{i:02}": large for i in range(40)} | {"c40": small}
    chosen = assign(found, 10.0)
    assert set(chosen.names.values()) == {"large"}
    held = {name: replace(each, rules=replace(each.rules, margin=50.0)) for name, each in found.items()}
    before = assign(held, 10.0).total
    assert before < chosen.total < before * (1 + RULES.margin)


def test_latencies_that_vary_by_a_hundredth_change_nothing():
    """Turns are told in steps; a step that all cameras take must not look like the gain of one of them."""
    switches = 0
    for seed in range(6):
        draw = np.random.default_rng(seed)
        found = {
            name: replace(each, since=0.0) for name, each in cameras(seed, 6, [replace(RULES, own_frame=False)]).items()
        }
        for time in range(20):
            seconds = {rung.name: rung.seconds * 0.3 * math.exp(draw.normal(0, 0.01)) for rung in RUNGS}
            found = {name: replace(each, latency=Latency.nominal(seconds)) for name, each in found.items()}
            names = assign(found, 10.0 + time).names
            switches += sum(each.active not in ("", names[name]) for name, each in found.items())
            found = {name: replace(each, active=names[name]) for name, each in found.items()}
    assert switches <= 3


def alike(margin, *rungs):
    """A camera in whose ladder all rungs find all sizes alike, the last of them in charge."""
    ladder = Ladder("box", ("object",), (0.0, 1.0), rungs)
    rules = replace(RULES, fps=10, margin=margin)
    answer = Answer(rungs[-1].name, 0.0, Detections.empty())
    return replace(Selector.start(ladder, rules), active=rungs[-1].name, since=0.0, last=answer)


def test_of_equals_the_one_in_charge_stays():
    one = alike(0.0, Rung("a", (0.8,), 0.010, bytes=9), Rung("b", (0.8,), 0.012, bytes=4))
    assert one.choice(9.0, ["a", "b"]).name == "b"
    assert set(assign({"x": one, "y": one}, 9.0).names.values()) == {"b"}


def test_what_a_load_takes_is_charged_against_a_change():
    one = alike(0.03, Rung("a", (0.9,), 0.010, 1.0, 9), Rung("b", (0.8,), 0.009, 1.0, 4))
    assert one.rules.horizon == 2.0, "a second's load is half of it"
    for resident, name in ((["b"], "b"), (["a", "b"], "a"), (None, "a")):
        assert one.choice(9.0, ["a", "b"] if resident is None else resident).name == name
        assert set(assign({"x": one, "y": one}, 9.0, resident=resident).names.values()) == {name}
    gone = one.failed("b", 8.9, "gone")
    assert set(assign({"x": gone, "y": gone}, 9.0, resident=[]).names.values()) == {"a"}


def test_margins_hold_for_the_others_when_the_model_of_one_fails():
    one = alike(0.5, Rung("a", (0.81,), 0.010, bytes=9), Rung("b", (0.8,), 0.009, bytes=4))
    assert dict(assign({"x": one, "y": one.failed("b", 8.9, "gone")}, 9.0).names) == {"x": "b", "y": "a"}


@given(st.integers(0, 200), st.lists(st.sampled_from(RUNGS), min_size=2, max_size=3))
@settings(max_examples=40, deadline=None)
def test_what_does_not_fit_in_memory_any_more_has_no_claim_to_stay(seed, held):
    found = {
        name: replace(each, active=rung.name, since=0.0)
        for (name, each), rung in zip(cameras(seed, len(held)).items(), held, strict=True)
    }
    memory = sum(rung.bytes for rung in set(held)) - 1
    if memory >= RUNGS[0].bytes:
        assert assign(found, 10.0, memory).total == pytest.approx(exact(found, 10.0, memory).total)


def test_a_model_that_failed_is_given_to_no_camera():
    found = {name: replace(each, active="large", since=0.0) for name, each in cameras(2, 2).items()}
    failed = {name: each.failed("large", 0.0, "gone") for name, each in found.items()}
    assert "large" not in assign(failed, 0.0).names.values()


def test_what_cannot_be_assigned_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        assign({}, 0.0)
    with pytest.raises(BudgetError, match="no combination of models fits in 3 B"):
        assign(cameras(0, 2), 0.0, memory=3)
