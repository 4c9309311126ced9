"""The way of a request under a plan: neighbouring remote stages pass tensors on among themselves."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeward.plan.plan import Hop, Plan, Stage
from edgeward.split.legs import hop_packings, legs

DEVICES = ("pi", "edge", "cloud", "far")


@st.composite
def plans(draw):
    names = [draw(st.sampled_from(DEVICES))]
    for _ in range(draw(st.integers(0, 4))):
        names.append(draw(st.sampled_from([name for name in DEVICES if name != names[-1]])))
    way = ["pi", *names] if names[0] != "pi" else names
    if way[-1] != "pi" and draw(st.booleans()):
        way.append("pi")
    hops = [
        Hop(source=a, target=b, bytes=1, seconds=0, packing=f"p{n}") for n, (a, b) in enumerate(itertools.pairwise(way))
    ]
    stages = [Stage(device=name, first=n, last=n, seconds=0) for n, name in enumerate(names)]
    zero = {"latency": 0, "bottleneck": 0, "energy": 0, "bytes": 0, "cost": 0}
    return Plan(model="m", fingerprint="f", stages=tuple(stages), hops=tuple(hops), **zero)


@given(plans(), st.sets(st.sampled_from(DEVICES[1:])))
def test_legs_cover_the_stages_in_order_and_break_only_where_a_host_cannot_reach_the_next(plan, remote):
    names = [f"s{n}" for n in range(len(plan.stages))]
    found = legs(plan, "pi", names, remote, lambda a, b: f"{a}>{b}")
    entries = [entry for leg in found for entry in leg.route]
    assert [entry["stage"] for entry in entries] == names
    assert [entry["host"] for entry in entries] == [stage.device for stage in plan.stages]
    assert all(leg.host == leg.route[0]["host"] for leg in found)
    assert all(leg.last - leg.first + 1 == len(leg.route) for leg in found)
    for leg in found:
        assert "endpoint" not in leg.route[0]
        for before, entry in zip(leg.route, leg.route[1:], strict=False):
            assert {before["host"], entry["host"]} <= remote
            assert entry["endpoint"] == f"{before['host']}>{entry['host']}"
    for one, other in itertools.pairwise(found):
        assert not {one.route[-1]["host"], other.host} <= remote


@given(plans())
def test_every_hop_is_packed_as_the_plan_says(plan):
    packings = hop_packings(plan, "pi")
    assert len(packings) == len(plan.stages) + 1
    assert [one for one in packings if one != "identity"] == [hop.packing for hop in plan.hops]
    assert (packings[0] == "identity") == (plan.stages[0].device == "pi")
