"""Rungs of several models beside others: what they hold and load anyway is not counted twice."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.clock import NS
from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.answering import Room
from edgeward.serve.choice import Answer
from edgeward.serve.elsewhere import elsewhere
from edgeward.serve.events import Failed
from edgeward.serve.joint import assign
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.ladders import disappointed
from edgeward.serve.latency import Latency
from edgeward.serve.looks import price
from edgeward.serve.members import held_bytes, member_bytes, missing_seconds
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.serve.state import ModelSpec, QuerySpec, State
from edgeward.vision.results import Detections

SIZES = {"a": 40, "b": 50, "c": 60}
LOADS = {"a": 0.4, "b": 0.5, "c": 0.6}
NAMES = ("a", "b", "c", "a+b", "b+c", "a+b+c")


def rung(name, accuracy=(0.5, 0.8)):
    parts = name.split("+")
    seconds = 0.01 * len(parts)
    return Rung(name, accuracy, seconds, sum(LOADS[each] for each in parts), sum(SIZES[each] for each in parts))


def ladder(*names):
    return Ladder("box", ("person",), (0.0, 0.1, 1.0), tuple(rung(name) for name in names))


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_models_count_once(names):
    each = {part for name in names for part in name.split("+")}
    assert held_bytes(ladder(*NAMES), names) == sum(SIZES[part] for part in each)


@given(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES)))
def test_what_others_hold_needs_no_load(name, resident):
    missing = set(name.split("+")) - {part for other in resident for part in other.split("+")}
    assert missing_seconds(ladder(*NAMES), name, resident) == pytest.approx(sum(LOADS[part] for part in missing))


def test_models_that_are_no_rungs_share_the_rest():
    sizes = member_bytes(ladder("a", "a+b+c").rungs)
    assert sizes == {"a": 40, "b": 55, "c": 55}
    assert missing_seconds(ladder("a", "a+b"), "a+b", ["a"]) == pytest.approx(0.45)


def test_a_joint_choice_counts_what_two_cameras_share_once():
    """One camera needs a; the other's b adds 50 bytes to it, and a+b no more than that."""
    rules = Rules(10.0, 640, 480, own_frame=False)
    better = replace(ladder("b", "a+b"), rungs=(rung("b", (0.3, 0.5)), rung("a+b", (0.8, 0.9))))
    cameras = {"c1": Selector.start(ladder("a"), rules), "c2": Selector.start(better, rules)}
    assert assign(cameras, 1.0, 90).names == {"c1": "a", "c2": "a+b"}
    with pytest.raises(BudgetError, match="memory"):
        assign(cameras, 1.0, 89)


@given(st.sets(st.sampled_from("abc")), st.integers(0, 200))
def test_beside_models_without_a_choice_only_what_is_new_has_to_fit(fixed, budget):
    models = {
        name: SimpleNamespace(spec=ModelSpec(name, {part: SIZES[part] for part in name.split("+")})) for name in NAMES
    }
    room = Room(budget, tuple(models[name].spec for name in sorted(fixed)))
    for each in room.beside(ladder(*NAMES), models).rungs:
        whole = sum(SIZES[part] for part in {*fixed, *each.name.split("+")})
        assert (each.bytes <= room.left) == (whole <= budget)


def test_what_holds_a_model_that_failed_leaves_the_ladder_with_it():
    rules = Rules(10.0, 640, 480)
    query = QuerySpec("q", "cam", "a", 0, NS, NS, ladder=NAMES)
    models = [ModelSpec(name, {part: SIZES[part] for part in name.split("+")}) for name in NAMES]
    state = State.start([query], models, 1000, {"q": Selector.start(ladder(*NAMES), rules)})
    after = disappointed(state, Failed(NS, 0, "b", "load", "the disk is gone"))
    assert set(after.queries["q"].chooser.out) == {"b", "a+b", "b+c", "a+b+c"}
    alone = disappointed(state, Failed(NS, 0, "a+b", "infer", "no"))
    assert set(alone.queries["q"].chooser.out) == {"a+b"}
    blamed = disappointed(state, Failed(NS, 0, "a+b", "infer", "no", "a"))
    assert set(blamed.queries["q"].chooser.out) == {"a", "a+b", "a+b+c"}


def test_who_only_looked_at_what_failed_goes_back():
    query = QuerySpec("q", "cam", "a", 0, NS, NS, ladder=NAMES)
    models = [ModelSpec(name, {part: SIZES[part] for part in name.split("+")}) for name in NAMES]
    state = State.start([query], models, 1000, {"q": Selector.start(ladder(*NAMES), Rules(10.0, 640, 480))})
    asked = replace(state.queries["q"], chosen="a", after="b")
    for failed in (Failed(NS, 0, "a", "infer", "no"), Failed(NS, 0, "a+b", "infer", "no", "a")):
        after = disappointed(replace(state, queries={"q": asked}), failed).queries["q"]
        assert (after.chosen, after.after) == ("b", "")


def test_an_answer_shows_that_all_that_took_part_in_it_work():
    selector = Selector.start(ladder(*NAMES), Rules(10.0, 640, 480))
    for name in NAMES:
        selector = selector.failed(name, 0.0, "a hiccup")
    after = selector.observe(Answer("a+b", 1.0, Detections.empty()), 1.1, 0.1)
    assert set(selector.out) - set(after.out) == {"a", "b", "a+b"}
    in_turn = replace(ladder("a", "b").rungs[0], name="a~b", parts=(0.1, 0.1))
    selector = Selector.start(
        replace(ladder("a", "b"), rungs=(*ladder("a", "b").rungs, in_turn)), Rules(10.0, 640, 480)
    )
    for name in ("a", "b", "a~b"):
        selector = selector.failed(name, 0.0, "a hiccup")
    after = selector.observe(Answer("a~b", 1.0, Detections.empty(), part="a"), 1.1, 0.1)
    assert set(after.out) == {"b"}, "the other one has not answered yet"


def test_a_look_and_a_switch_cost_no_load_that_is_not_needed():
    selector = replace(Selector.start(ladder("a", "b", "a+b"), Rules(10.0, 640, 480)), active="a")
    both = selector.ladder.rung("a+b")
    free, full = price(selector, both, ("a", "b")), price(selector, both, ())
    assert full - free == pytest.approx(0.9)
    tight = replace(selector, rules=replace(selector.rules, memory=90))
    assert price(tight, both, ("a", "b")) == pytest.approx(free)


def test_a_log_of_before_latencies_were_watched_goes_on_as_it_did():
    old, new = Latency({"a": 0.01}), Latency.nominal({"a": 0.01})
    for step in range(20):
        old, new = (each.observed("a", 0.01, 0.1 * step) for each in (old, new))
    assert old.varies == 0.06 > new.varies


def test_rungs_are_known_by_name():
    with pytest.raises(ConfigError, match="no rung 'd'"):
        missing_seconds(ladder("a"), "d", ())
    assert elsewhere(ladder("a", "b")) == ladder("a", "b")
