"""What a user sees of packings: rules on accuracy, figures of packed hops, conflicts, explanations, pictures."""

from __future__ import annotations

import re

import pytest

from edgeward.errors import ConfigError, PlanError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.constraints import Constraints, Drop, Packed, Unchecked, parse_constraint
from edgeward.plan.evaluate import evaluate
from edgeward.plan.explain import explain
from edgeward.plan.objective import Kind, Objective
from edgeward.plan.picture import picture
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner
from edgeward.profile.packing import PackingCosts, PackingTimes
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

TIMES = {
    "pi": DeviceTimes(
        seconds=(0.1, 0.2, 0.3),
        packings={name: PackingTimes(pack=(0.004,) * 4, unpack=(0.002,) * 4) for name in ("zip", "int8", "float4")},
    ),
    "box": DeviceTimes(
        seconds=(0.01, 0.02, 0.03),
        packings={name: PackingTimes(pack=(0.001,) * 4, unpack=(0.001,) * 4) for name in ("zip", "int8", "float4")},
    ),
}
PROFILE = Profile(
    model="net",
    fingerprint="abc",
    input_bytes=100_000,
    blocks=tuple(BlockCost(name=name, output_bytes=size) for name, size in (("a", 400_000), ("b", 20_000), ("c", 400))),
    packings={
        "zip": PackingCosts(bytes=(90_000, 300_000, 18_000, 400), drop=(0.0,) * 4),
        "int8": PackingCosts(bytes=(25_000, 100_000, 5_000, 100), drop=(0.02, 0.005, 0.004, 0.0)),
        "float4": PackingCosts(bytes=(12_500, 50_000, 2_500, 50), drop=(None,) * 4),
    },
    times=TIMES,
)
FLEET = Fleet(
    devices=(Device(name="pi", tier="device", power=5), Device(name="box", tier="cloud", power=50)),
    links=(Link(between=("pi", "box"), bandwidth="8 Mbit/s", latency="10 ms"),),
)
AWAY = "block 1 on box"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("accuracy drop at most 1 %", Drop(0.01)),
        ("accuracy drop <= 0.01", Drop(0.01)),
        ("Accuracy  drop at most 0.5%", Drop(0.005)),
        ("lossless", Drop(0.0)),
        ("any accuracy", Unchecked()),
        ("packing identity|int8+zstd", Packed(("identity", "int8+zstd"))),
        ("packing not avg2-bilinear/int8", Packed(("avg2-bilinear/int8",), on=False)),
        ("packing a | b", Packed(("a", "b"))),
    ],
)
def test_texts_become_rules_and_rules_texts(text, rule):
    assert parse_constraint(text) == rule
    assert parse_constraint(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy drop at most 3", "more than all accuracy"),
        ("accuracy drop <= few", "not a share"),
        ("losless", "did you mean 'lossless'"),
    ],
)
def test_a_wrong_text_says_what_to_write(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_constraint(text)


def best(*texts: str, objective: Kind = "latency") -> Plan:
    return Planner(PROFILE, FLEET).best(Objective(objective), Constraints.parse(*texts), top=1)[0]


def test_accuracy_is_never_lost_silently():
    assert set(best(AWAY, objective="bytes").packings) == {"zip"}
    assert best(AWAY, objective="bytes").drop == 0.0
    capped = best(AWAY, "accuracy drop at most 0.5 %", objective="bytes")
    assert (capped.describe(), capped.drop) == ("zip > box[0-2]", 0.0)
    pinned = best(AWAY, "block 0 on pi", "accuracy drop at most 0.5 %", objective="bytes")
    assert (pinned.describe(), pinned.drop) == ("pi[0-0] > int8 > box[1-2]", 0.005)
    upload = best(AWAY, "accuracy drop at most 2 %", objective="bytes")
    assert (upload.describe(), upload.drop) == ("int8 > box[0-2]", 0.02)
    unchecked = best(AWAY, "any accuracy", objective="bytes")
    assert (unchecked.packings, unchecked.drop) == (("float4",), None)
    assert best("any accuracy", "accuracy drop at most 2 %", AWAY, objective="bytes") == upload


def test_the_drops_of_all_hops_count_together():
    texts = ("block 0 on box", "block 1 on pi", "block 2 on box")
    assert best(*texts, "accuracy drop at most 2.9 %", objective="bytes").packings == ("int8", "int8", "int8")
    assert best(*texts, "accuracy drop at most 2.8 %", objective="bytes").packings == ("int8", "int8", "zip")
    assert best(*texts, "accuracy drop at most 1 %", objective="bytes").packings == ("zip", "int8", "int8")
    assert best(*texts, objective="bytes").packings == ("zip", "zip", "zip")


def test_a_measured_drop_opens_the_packing():
    checked = PROFILE.with_drops("float4", (None, None, 0.0, None))
    pinned = Constraints.parse("blocks 0-1 on pi", "block 2 on box")
    assert Planner(checked, FLEET).best(Objective("bytes"), pinned)[0].packings == ("float4",)
    assert Planner(PROFILE, FLEET).best(Objective("bytes"), pinned)[0].packings == ("zip",)


def test_figures_of_packed_hops():
    one = evaluate(PROFILE, FLEET, [("pi", 0, 1), ("box", 2, 2)], Objective(return_result=True), ["int8", "identity"])
    assert [hop.packing for hop in one.hops] == ["int8", "identity"]
    assert one.hops[0].latency == pytest.approx(0.004 + 0.01 + 0.005 + 0.001)
    assert one.latency == pytest.approx(0.3 + 0.02 + 0.03 + 0.0104)
    assert one.bottleneck == pytest.approx(0.304)
    assert one.energy == pytest.approx(5 * 0.304 + 50 * 0.031)
    assert (one.bytes, one.drop) == (5_400, 0.004)
    assert Plan.model_validate_json(one.model_dump_json()) == one
    assert evaluate(PROFILE, FLEET, [("pi", 0, 1), ("box", 2, 2)]).packings == ("identity",)


@pytest.mark.parametrize(
    ("packings", "message"),
    [(["int9"], "did you mean 'int8'"), (["int8", "int8"], "2 packings for 1 hops"), (["zap"], "packing 'zap'")],
)
def test_packings_that_are_not_there_are_refused(packings, message):
    with pytest.raises(PlanError, match=message):
        evaluate(PROFILE, FLEET, [("pi", 0, 1), ("box", 2, 2)], packings=packings)
    lacking = PROFILE.model_copy(update={"times": TIMES | {"box": DeviceTimes(seconds=(0.01, 0.02, 0.03))}})
    with pytest.raises(PlanError, match=r"does not fit .* or was not measured on 'pi' and 'box'"):
        evaluate(lacking, FLEET, [("pi", 0, 1), ("box", 2, 2)], packings=["int8"])
    with pytest.raises(PlanError, match="no packing 'int9'"):
        best("packing int9")


def test_conflicts_say_how_much_accuracy_would_do():
    with pytest.raises(PlanError, match=r"'lossless', 'pi->\* <= 5000 B' and 'block 2 on box'") as caught:
        best("pi->* <= 5000 B", "blocks 0-1 on pi", "block 2 on box")
    assert re.search(r"raise 'pi->\* <= 5000 B' to 18000 B", str(caught.value))
    enough = re.search(r"allow '(accuracy drop at most .*?)'", str(caught.value))[1]
    assert enough == "accuracy drop at most 0.4 %"
    assert best("pi->* <= 5000 B", "blocks 0-1 on pi", "block 2 on box", enough).packings == ("int8",)
    with pytest.raises(PlanError, match="measure what packings lose, or allow 'any accuracy'"):
        best("pi->* <= 3000 B", "blocks 0-1 on pi", "block 2 on box")


def test_bytes_that_really_travel_are_not_packed_again():
    jpeg = Objective("bytes", input_bytes=9_000)
    found = Planner(PROFILE, FLEET).best(jpeg, Constraints.parse("blocks 0-2 on box", "any accuracy"))[0]
    assert [(hop.bytes, hop.packing) for hop in found.hops] == [(9_000, "identity")]


def test_explanations_and_pictures_know_packings():
    constraints = Constraints.parse("blocks 0-1 on device", "block 2 on cloud", "accuracy drop at most 1 %")
    planner = Planner(PROFILE, FLEET)
    chosen = planner.best(constraints=constraints)[0]
    assert chosen.describe() == "pi[0-1] > int8 > box[2-2]"
    why = explain(planner, chosen, constraints)
    assert why.compute_seconds + why.transfer_seconds == pytest.approx(chosen.latency)
    assert "pi->box as int8" in str(why)
    assert why.price >= 0
    (link,) = [flip for flip in why.flips if flip.kind == "link"]
    assert link.plan is not None
    assert "identity" in link.plan.packings, "a faster link makes packing not worth its time"
    assert "pi-&gt;box as int8" in picture([chosen], FLEET)


def test_time_caps_count_packing():
    pinned = ("blocks 0-1 on pi", "block 2 on box", "packing int8", "any accuracy")
    assert best(*pinned, "pi <= 304 ms")
    with pytest.raises(PlanError, match=r"'pi <= 0\.303 s'"):
        best(*pinned, "pi <= 303 ms")
