"""Bandwidth traces: the integral against a fine sum, additivity, the two file forms, real recordings, refusals."""

from __future__ import annotations

import json
import math
import tarfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.fleet import traces
from edgeward.fleet.traces import Trace, load_trace, parse_trace

STEPS = st.lists(
    st.tuples(st.floats(0.01, 20), st.one_of(st.just(0.0), st.floats(1e3, 1e8))), min_size=1, max_size=8
).filter(lambda steps: any(rate for _, rate in steps))


def trace_of(steps):
    edges = [0.0]
    for length, _ in steps:
        edges.append(edges[-1] + length)
    return Trace(tuple(edges[:-1]), tuple(rate for _, rate in steps), edges[-1])


@settings(max_examples=200, derandomize=True)
@given(STEPS, st.floats(0, 100), st.floats(0, 1e7), st.floats(1, 1e7))
def test_sending_twice_takes_as_long_as_sending_at_once(steps, start, first, second):
    trace = trace_of(steps)
    one = trace.seconds_for(start, first)
    two = trace.seconds_for(start + one, second)
    assert one + two == pytest.approx(trace.seconds_for(start, first + second), rel=1e-6, abs=1e-6 * trace.duration)


@settings(max_examples=100, derandomize=True)
@given(STEPS, st.floats(0, 50), st.floats(1, 1e6))
def test_the_bits_that_pass_in_the_time_are_those_sent(steps, start, count):
    trace = trace_of(steps)
    assume(8 * count < 20 * trace.mean * trace.duration)
    end = start + trace.seconds_for(start, count)
    bits, now = 0.0, start
    while now < end:
        step = min(max(trace.until_change(now), 1e-9), end - now)
        bits += step * trace.at(now + step / 2)
        now = max(now + step, math.nextafter(now, math.inf))
    assert bits == pytest.approx(8 * count, rel=1e-5, abs=1e-6 * max(trace.rates))


@settings(max_examples=100, derandomize=True)
@given(STEPS, st.integers(1, 1000))
def test_whole_rounds_take_whole_durations(steps, rounds):
    trace = trace_of(steps)
    whole = rounds * trace.mean * trace.duration / 8
    seconds = trace.seconds_for(0.0, whole * (1 - 1e-9))  # a rounding above it would wait for the next round
    assert (rounds - 1) * trace.duration <= seconds <= rounds * trace.duration * (1 + 1e-6)


def test_an_outage_stalls():
    trace = Trace((0.0, 1.0, 5.0), (8e6, 0.0, 8e6), 6.0)
    assert trace.seconds_for(0.0, 1_000_000) == 1.0
    assert trace.seconds_for(0.5, 1_000_000) == pytest.approx(5.0)
    assert trace.seconds_for(2.0, 0) == 0.0
    assert (trace.at(0.5), trace.at(3), trace.at(6.5)) == (8e6, 0.0, 8e6)
    assert trace.mean == pytest.approx(8e6 / 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("0 1", "one line"),
        ("0 0\n1 0\n2 0", "rate above 0"),
        ("0 1\n1 2\n1 3", "must rise"),
        ("0 1\n2 x\n", "line 2: '2 x' is not 2 numbers"),
        ("0 1\n2\n", "line 2"),
        ("0 1\n2 -1\n", "line 2"),
        ("0 1\n2 nan\n", "line 2"),
        ("0 1\n2 1e300\n", "between 0 and"),
        ("1 2 3", "3 columns"),
        ("5\n3", "must not fall"),
        ("0\n0", "last is above 0"),
        ("1.5\n2", "whole numbers"),
        ("1\n999999999999", "at most a day"),
    ],
)
def test_what_is_no_trace(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_trace(text)


def test_both_forms_and_line_ends_agree(tmp_path):
    (tmp_path / "a").write_bytes(b"10\t1\r\n11\t2\r\n13.5\t4\r\n")
    trace = load_trace(tmp_path / "a")
    assert trace == Trace((0.0, 1.0), (2e6, 4e6), 3.5)
    packets = parse_trace("\n".join(str(1 + i // 2) for i in range(2000)))  # two packets in each of 1000 ms
    assert packets.mean == pytest.approx(24e6)
    assert packets.seconds_for(0, 3_000_000) == pytest.approx(1.0)


def test_faults_of_files(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"cannot read trace .*nothing"):
        load_trace(tmp_path / "nothing")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not ASCII"):
        load_trace(tmp_path / "bytes")
    monkeypatch.setattr(traces, "MAX_BYTES", 1)
    with pytest.raises(ConfigError, match="at most 1"):
        load_trace(tmp_path / "bytes")


def test_recorded_means_are_met(shared_data):
    folder = shared_data / "net_traces" / "subset"
    for entry in json.loads((folder / "index.json").read_text())["traces"]:
        trace = load_trace(folder / entry["file"])
        assert trace.mean / 1e6 == pytest.approx(entry["mean_mbit_s"], abs=6e-4), entry["file"]
        assert trace.duration == pytest.approx(entry["duration_s"], abs=0.06)


def test_every_recorded_trace_is_read(shared_data):
    with tarfile.open(shared_data / "net_traces" / "comyco.tar.gz") as archive:
        files = [member for member in archive if member.isfile() and "traces/" in member.name]
        found = [parse_trace(archive.extractfile(member).read().decode()) for member in files]
    assert len(found) == 269
    assert sum(trace.duration for trace in found) / 3600 == pytest.approx(52.0, abs=0.5)
    assert any(0.0 in trace.rates for trace in found)
