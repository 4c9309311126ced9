"""Fleet, Device, Link, Zone: units, ways, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.errors import FleetError
from edgeward.fleet.fleet import Device, Fleet, Link, Zone
from edgeward.units import (
    format_bytes,
    format_rate,
    format_seconds,
    parse_bytes,
    parse_rate,
    parse_seconds,
    parse_share,
)

PI, BOX = Device(name="pi", tier="device"), Device(name="box", tier="cloud")


@pytest.mark.parametrize(
    ("text", "bits"),
    [("20 Mbit/s", 20e6), ("1.6 mbps", 1.6e6), ("10 MB/s", 80e6), ("800kbit/s", 8e5), ("3 bytes/s", 24), (7, 7)],
)
def test_rates(text, bits):
    assert parse_rate(text) == bits


@given(st.floats(min_value=1, max_value=990))
def test_what_is_written_for_people_is_read_again(value):
    for power in (1, 1e3, 1e6):
        assert parse_rate(format_rate(value * power)) == pytest.approx(value * power, rel=6e-3)
        assert parse_seconds(format_seconds(value / power)) == pytest.approx(value / power, rel=6e-3)
        assert parse_bytes(format_bytes(round(value * power))) == pytest.approx(value * power, rel=6e-3, abs=1)


@pytest.mark.parametrize("parse", [parse_rate, parse_seconds, parse_share])
@pytest.mark.parametrize("text", ["fast", "-1", -1, float("nan"), float("inf"), "1 parsec", True, ""])
def test_bad_quantities_are_refused(parse, text):
    with pytest.raises(ValueError, match=r"write it like|finite number"):
        parse(text)


def test_a_link_between_leads_both_ways_and_a_directed_one_does_not():
    both = Fleet(devices=(PI, BOX), links=(Link(between=("pi", "box"), bandwidth="8 Mbit/s", latency="10 ms"),))
    assert both.link("pi", "box") is both.link("box", "pi") is both.links[0]
    assert both.links[0].seconds(1_000_000) == pytest.approx(1.01)
    one = Fleet(devices=(PI, BOX), links=(Link(source="pi", target="box", bandwidth=1e6),))
    assert one.link("box", "pi") is None
    assert set(one.ways()) == {("pi", "box")}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Link(between=("a", "b"), source="a", target="b", bandwidth=1), "either 'between"),
        (lambda: Link(source="a", bandwidth=1), "either 'between"),
        (lambda: Link(between=("a", "a"), bandwidth=1), "to itself"),
        (lambda: Link(between=("a", "b"), bandwidth=0), "greater than 0"),
        (lambda: Device(name="a b", tier="edge"), "pattern"),
        (lambda: Device(name="a", tier="edge", memory="0 MiB"), "greater than 0"),
        (lambda: Fleet(devices=(PI, PI)), "names must differ"),
        (lambda: Fleet(devices=(PI,), zones=(Zone(name="z", devices=("p",)),)), "did you mean 'pi'"),
        (lambda: Fleet(devices=(PI,), source="bix"), "'source' names device 'bix'"),
        (lambda: Fleet(devices=(PI, BOX), links=(Link(between=("pi", "box"), bandwidth=1),) * 2), "two links"),
    ],
)
def test_what_a_fleet_refuses(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_changing_a_link_changes_only_that():
    fleet = Fleet(devices=(PI, BOX), links=(Link(between=("pi", "box"), bandwidth=1e6, latency=0.1),))
    changed = fleet.with_link("box", "pi", bandwidth=2e6)
    assert changed.link("pi", "box") == fleet.links[0].model_copy(update={"bandwidth": 2e6})
    with pytest.raises(FleetError, match="above 0"):
        fleet.with_link("pi", "box", bandwidth=0)
    with pytest.raises(FleetError, match="no link from 'pi' to 'x'"):
        fleet.with_link("pi", "x", bandwidth=1)
