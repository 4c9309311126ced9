"""Texts of constraints, the values they become, and what a user reads when something is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.errors import ConfigError, PlanError
from edgeward.fleet.fleet import Device, Fleet, Link, Zone
from edgeward.plan.constraints import (
    Avoid,
    ByteCap,
    Constraints,
    Once,
    Pin,
    Private,
    Spread,
    TimeCap,
    Use,
    parse_constraint,
)
from edgeward.plan.evaluate import evaluate
from edgeward.plan.explain import explain
from edgeward.plan.objective import Objective
from edgeward.plan.plan import load_plan, save_plan
from edgeward.plan.planner import Planner, plan
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

PROFILE = Profile(
    model="net",
    fingerprint="abc",
    input_bytes=100_000,
    blocks=(
        BlockCost(name="a", output_bytes=400_000, reveals_input=True, parameter_bytes=1000, peak_bytes=100),
        BlockCost(name="b", output_bytes=20_000, parameter_bytes=2000, peak_bytes=100),
        BlockCost(name="c", output_bytes=400, parameter_bytes=3000, peak_bytes=100),
    ),
    times={"pi": DeviceTimes(seconds=(0.1, 0.2, 0.3)), "box": DeviceTimes(seconds=(0.01, 0.02, 0.03))},
)
FLEET = Fleet(
    devices=(Device(name="pi", tier="device", power=5), Device(name="box", tier="cloud", power=50)),
    links=(Link(between=("pi", "box"), bandwidth="8 Mbit/s", latency="10 ms"),),
    zones=(Zone(name="home", devices=("pi",), private=False),),
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("block 10 on edge", Pin("block", 10, 10, "edge")),
        ("layer 10 on edge", Pin("layer", 10, 10, "edge")),
        ("Block 10 not on 6700k(GPU)", Pin("block", 10, 10, "6700k(GPU)", on=False)),
        ("blocks 0 - 6  on pi", Pin("block", 0, 6, "pi")),
        ("use device", Use("device")),
        ("use 2 devices", Spread(2)),
        ("split", Spread(2)),
        ("avoid cloud", Avoid("cloud")),
        ("no revisit", Once()),
        ("pi <= 200 ms", TimeCap("pi", seconds=0.2)),
        ("device<=30%", TimeCap("device", share=0.3)),
        ("pi->cloud <= 2 MB", ByteCap("pi", "cloud", 2_000_000)),
        ("device -> * <= 1 KiB", ByteCap("device", "*", 1024)),
        ("private home", Private("home")),
    ],
)
def test_texts_become_rules_and_rules_texts(text, rule):
    assert parse_constraint(text) == rule
    assert parse_constraint(str(rule)) == rule


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_a_config_error(text):
    try:
        assert str(parse_constraint(text))
    except ConfigError as error:
        assert "constraint" in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blok 3 on pi", "did you mean 'block'"),
        ("blocks 6-2 on pi", "smaller number first"),
        ("pi <= soon", "not a duration"),
        ("pi->box <= many", "not a size"),
    ],
)
def test_a_wrong_text_says_what_to_write(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("use clod", "did you mean 'cloud'"),
        ("block 3 on pi", "blocks 0-2"),
        ("layer 1 on pi", "numbers no layers"),
        ("private hom", "did you mean 'home'"),
    ],
)
def test_a_name_that_is_not_there_is_refused(text, message):
    with pytest.raises(PlanError, match=message):
        plan(PROFILE, FLEET, constraints=Constraints.parse(text))


def test_conflicts_name_the_rules_and_a_way_out_that_works():
    with pytest.raises(PlanError, match=r"'block 0 on device' and 'pi <= 0\.05 s' together") as caught:
        plan(PROFILE, FLEET, constraints=Constraints.parse("use cloud", "block 0 on device", "pi <= 50 ms"))
    enough = re.search(r"raise 'pi <= 0\.05 s' to ([\d.]+ ms)", str(caught.value))[1]
    assert enough == "100 ms"
    assert plan(PROFILE, FLEET, constraints=Constraints.parse("block 0 on device", f"pi <= {enough}"))


def test_privacy_holds_without_being_asked_for_and_is_named():
    home = FLEET.model_copy(update={"zones": (Zone(name="home", devices=("pi",)),)})
    for one in plan(PROFILE, home, top=50):
        assert all(hop.source != "pi" or hop.bytes not in (100_000, 400_000) for hop in one.hops)
    with pytest.raises(PlanError, match="'private home'"):
        plan(PROFILE, home, constraints=Constraints.parse("block 0 on cloud"))
    assert plan(PROFILE, FLEET, constraints=Constraints.parse("private home")) == plan(PROFILE, home)


def test_memory_is_weights_and_the_largest_activation():
    for limit, ways in ((6100, 1), (6099, 0)):
        small = FLEET.model_copy(
            update={"devices": (FLEET.devices[0].model_copy(update={"memory": limit}),), "links": ()}
        )
        try:
            assert len(plan(PROFILE, small)) == ways
        except PlanError as error:
            assert ways == 0
            assert "memory of pi" in str(error)


def test_missing_links_are_named():
    apart = FLEET.model_copy(update={"links": ()})
    with pytest.raises(PlanError, match=r"'links of the fleet' and 'use cloud' together: add a link pi->box"):
        plan(PROFILE, apart, constraints=Constraints.parse("use cloud"))


def test_a_result_is_returned_over_the_link():
    best = plan(PROFILE, FLEET, Objective(return_result=True), Constraints.parse("blocks 0-2 on box"))[0]
    assert [(hop.source, hop.target, hop.bytes) for hop in best.hops] == [("pi", "box", 100_000), ("box", "pi", 400)]
    assert best.latency == pytest.approx(0.06 + 0.11 + 0.0104)
    assert best.energy == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([("pi", 0, 1)], "end before block 2"),
        ([("pi", 0, 0), ("box", 2, 2)], "does not continue at block 1"),
        ([("pi", 0, 0), ("pi", 1, 2)], "write them as one"),
        ([("pie", 0, 2)], "did you mean 'pi'"),
    ],
)
def test_stages_that_are_no_plan_are_refused(stages, message):
    with pytest.raises(PlanError, match=message):
        evaluate(PROFILE, FLEET, stages)


def test_values_out_of_range_are_refused():
    for build in (
        lambda: Objective("speed"),
        lambda: Objective(quantile=0.95),
        lambda: Objective(input_bytes=-1),
        lambda: plan(PROFILE, FLEET, top=0),
        lambda: Planner(PROFILE, FLEET).pareto(criteria=("speed",)),
        lambda: Planner(PROFILE.model_copy(update={"times": {}}), FLEET),
    ):
        with pytest.raises(PlanError):
            one = build()
            one.best()


def test_a_plan_is_saved_and_damage_is_noticed(tmp_path):
    best = plan(PROFILE, FLEET)[0]
    path = tmp_path / "plan.json"
    save_plan(best, path)
    assert load_plan(path) == best
    text = path.read_text()
    for damaged in (
        text[: len(text) // 2],
        text.replace('"format": 1', '"format": 9'),
        "[]",
        text.replace("latency", "x"),
    ):
        path.write_text(damaged)
        with pytest.raises(PlanError, match="is not a plan"):
            load_plan(path)
    with pytest.raises(PlanError, match="cannot read"):
        load_plan(tmp_path / "none.json")


def test_explanation_adds_up_and_its_flips_win():
    constraints = Constraints.parse("block 0 on device", "box <= 45 ms")
    slow = FLEET.with_link("pi", "box", bandwidth=1e5)
    planner = Planner(PROFILE, slow)
    best = planner.best(constraints=constraints)[0]
    why = explain(planner, best, constraints)
    assert best.describe() == "pi[0-2]"
    assert why.compute_seconds + why.transfer_seconds == pytest.approx(best.latency)
    assert why.dominating.name == "pi[0-2]"
    assert why.dominating.share == 1.0
    natives = {native.device: native for native in why.natives}
    assert natives["pi"].plan == best
    assert natives["box"].plan is None
    assert "'box <= 0.045 s' and 'blocks 0-2 on box'" in natives["box"].reason
    assert why.price == pytest.approx(best.cost - planner.best()[0].cost)
    (link,) = [flip for flip in why.flips if flip.kind == "link"]
    assert link.factor == 10.0
    assert link.plan.describe() == "pi[0-1] > box[2-2]"
    assert link.plan.latency < best.latency
    assert "link pi<->box 10x" in str(why)
