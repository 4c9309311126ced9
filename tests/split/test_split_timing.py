"""Times of a request's way, from notes of clocks that are not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.plan.plan import Hop, Plan, Stage
from edgeward.split.timing import figures, steps_of

ZERO = {"latency": 0, "bottleneck": 0, "energy": 0, "bytes": 0, "cost": 0}
PLAN = Plan(
    model="m",
    fingerprint="f",
    stages=(Stage(device="pi", first=0, last=1, seconds=0.1), Stage(device="edge", first=2, last=3, seconds=0.05)),
    hops=(Hop(source="pi", target="edge", bytes=1000, seconds=0.02, pack=0.002, unpack=0.001),),
    **ZERO,
)


def trace(shift=0.0):
    """pi computes 10.0 to 10.1 and packs until 10.102; edge gets it at 10.122, on a clock that is `shift` ahead."""
    own = [10.122, 10.123, 10.173, 10.173]
    return [
        {"host": "pi", "times": [9.9, 10.0, 10.1, 10.102], "arrived": 9.9, "bytes_in": 5, "bytes_out": 1000},
        {"host": "edge", "times": [one + shift for one in own], "arrived": 10.122 + shift, "bytes_in": 1000},
    ]


@given(st.floats(-1e5, 1e5))
def test_clocks_that_differ_by_a_known_offset_change_nothing(shift):
    first, hop, last = steps_of(trace(shift), PLAN, "pi", sent=9.9, offsets={"edge": shift})
    assert first.seconds == pytest.approx(0.1)
    assert (hop.name, hop.bytes) == ("pi->edge", 1000)
    assert (hop.seconds, hop.pack, hop.unpack) == pytest.approx((0.02, 0.002, 0.001), abs=1e-6)
    assert last.seconds == pytest.approx(0.05, abs=1e-6)


def test_a_clock_that_jumps_back_makes_a_hop_take_nothing_rather_than_less():
    hop = steps_of(trace(-50.0), PLAN, "pi", sent=9.9, offsets={})[1]
    assert hop.seconds == 0.0


def test_figures_put_medians_beside_predictions():
    slow = [{**note, "times": [t + 0.01 * n for n, t in enumerate(note["times"])]} for note in trace()]
    requests = [steps_of(notes, PLAN, "pi", sent=9.9, offsets={}) for notes in (trace(), trace(), slow)]
    rows = {row.name: row for row in figures(PLAN, "pi", requests)}
    assert set(rows) == {"pi[0-1]", "pi->edge", "edge[2-3]"}
    assert rows["pi[0-1]"].measured == pytest.approx(0.1)
    assert rows["pi[0-1]"].predicted == 0.1
    assert rows["pi->edge"].predicted == pytest.approx(0.023)
    assert rows["pi->edge"].measured == pytest.approx(0.023, abs=1e-6)
    assert all(row.count == 3 for row in rows.values())
