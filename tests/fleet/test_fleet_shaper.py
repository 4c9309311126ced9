"""The shaper inside a process, on a virtual clock."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.clock import VirtualClock, to_seconds
from edgeward.errors import ConfigError
from edgeward.fleet.fleet import Link
from edgeward.fleet.shaper import Shaper
from edgeward.fleet.traces import Trace, load_trace

LINK = Link(between=("a", "b"), bandwidth=8e6, latency=0.05)


@settings(max_examples=50, derandomize=True)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
def test_one_after_another_costs_what_the_link_says(sizes):
    clock = VirtualClock()
    shaper = Shaper(LINK, clock=clock)
    for size in sizes:
        assert shaper.wait(size) == pytest.approx(LINK.seconds(size), abs=1e-8)
    assert to_seconds(clock.now_ns()) == pytest.approx(sum(LINK.seconds(size) for size in sizes), abs=1e-6)


def test_what_is_sent_together_shares_the_bandwidth_and_overlaps_its_latency():
    shaper = Shaper(LINK)
    assert [shaper.send_seconds(100_000, 0.0) for _ in range(3)] == pytest.approx([0.15, 0.25, 0.35])
    assert shaper.send_seconds(100_000, 10.0) == pytest.approx(0.15)  # an idle link saves nothing up


def test_the_mean_rate_of_a_trace_is_kept(shared_data):
    trace = load_trace(shared_data / "net_traces" / "subset" / "03_fixed_0.80mbps.txt")
    assert 0.0 in trace.rates
    clock = VirtualClock()
    shaper = Shaper(LINK.model_copy(update={"latency": 0.0}), trace=trace, clock=clock)
    sent = 0
    while to_seconds(clock.now_ns()) < trace.duration:
        shaper.wait(50_000)
        sent += 50_000
    assert 8 * sent / to_seconds(clock.now_ns()) == pytest.approx(trace.mean, rel=0.01)


def test_jitter_is_seeded_bounded_and_keeps_the_order():
    link = LINK.model_copy(update={"jitter": 0.02})
    first, again, other = (Shaper(link, seed=seed) for seed in (1, 1, 2))
    times = [10.0 * i for i in range(200)]
    delays = [first.send_seconds(0, now) for now in times]
    assert delays == [again.send_seconds(0, now) for now in times]
    assert delays != [other.send_seconds(0, now) for now in times]
    assert 0.03 <= min(delays) < 0.035 < 0.065 < max(delays) <= 0.07
    together = Shaper(link)
    arrivals = [together.send_seconds(0, 0.0) for _ in range(100)]
    assert arrivals == sorted(arrivals)


def test_unpaced_leaves_the_latency_alone():
    assert Shaper(LINK, paced=False).send_seconds(10**9, 0.0) == pytest.approx(0.05)


def test_a_link_brings_its_trace(tmp_path):
    (tmp_path / "t").write_text("0 1\n1 4\n2 4\n")
    shaper = Shaper(LINK.model_copy(update={"trace": tmp_path / "t", "latency": 0.0}))
    assert shaper.send_seconds(500_000, 0.0) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="cannot read trace"):
        Shaper(LINK.model_copy(update={"trace": tmp_path / "none"}))
    with pytest.raises(ConfigError, match="cannot send -1"):
        shaper.send_seconds(-1, 0.0)


def test_threads_share_one_link():
    shaper = Shaper(LINK, trace=Trace((0.0,), (8e6,), 1.0))
    delays = []
    threads = [threading.Thread(target=lambda: delays.append(shaper.send_seconds(1000, 0.0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(delays) == pytest.approx([0.05 + 0.001 * (i + 1) for i in range(20)])
