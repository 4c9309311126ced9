"""Time that is handed in, and the time in which others had the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from edgeward import clock
from edgeward.clock import NS, SCHEDSTAT, Working


def spun(seconds):
    """Nanoseconds that passed while this thread worked until so many seconds were over, and of them its own."""
    working, began = Working(), time.perf_counter_ns()
    start = working.now_ns()
    while time.perf_counter_ns() - began < seconds * NS:
        pass
    worked = working.since(start)
    return time.perf_counter_ns() - began, worked


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="the system does not tell who waits")
def test_what_others_have_of_the_processor_is_not_working_time():
    found = []

    def shared():
        core = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})  # of this thread and the process that it starts
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            try:
                time.sleep(0.2)
                found.append(spun(1.0))
            finally:
                other.kill()

    thread = threading.Thread(target=shared)
    thread.start()
    thread.join()
    ((passed, worked),) = found
    assert 0.05 * passed < worked < 0.9 * passed


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="the system does not tell who waits")
def test_sleep_is_not_waiting_for_others():
    working = Working()
    began, start = time.perf_counter_ns(), working.now_ns()
    time.sleep(0.2)
    assert 0.5 * 0.2 * NS < working.since(start) <= time.perf_counter_ns() - began


@pytest.mark.parametrize("told", [None, "", "12", "a b c"])
def test_nothing_is_known_where_the_system_does_not_tell(monkeypatch, tmp_path, told):
    file = tmp_path / "schedstat"
    if told is not None:
        file.write_text(told)
    monkeypatch.setattr(clock, "SCHEDSTAT", file)
    working = Working()
    before = time.perf_counter_ns()
    start = working.now_ns()
    assert before <= start <= time.perf_counter_ns()
    assert working.since(start) == 0
    assert Working().since(0) == 0


def test_a_wait_between_two_looks_counts_for_neither(monkeypatch, tmp_path):
    """The thread waits 5 ms between reading the clock and what it waited so far: it looks once more."""
    waited = iter([0, 0, 0, 5_000_000, 5_000_000])
    times = iter([100, 6_000_200, 6_000_300])
    working = Working()
    monkeypatch.setattr(working, "_waited_ns", lambda: next(waited))
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: next(times))
    assert working.now_ns() == 100
    assert working.now_ns() == 6_000_300 - 5_000_000
