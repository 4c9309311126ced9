"""A live run, logged, comes out of a replay decision for decision; logs survive kills and full disks."""

from __future__ import annotations

import os
import queue
import random
import threading
import time

import pytest
from test_serve_loop import MS, box

from edgeward.clock import NS, WallClock
from edgeward.errors import LogError
from edgeward.serve.actions import Wait
from edgeward.serve.apply import apply
from edgeward.serve.events import Decided, Evicted, Failed, FrameArrived, Inferred, Loaded
from edgeward.serve.executor import Executor
from edgeward.serve.log import EventLog, read_log
from edgeward.serve.policies import policy_named
from edgeward.serve.replay import mean_age_ns, replay


class SleepyHands:
    """Real threads that take random times and sometimes fail, like real work does."""

    def __init__(self, seed, fail=0.0):
        self.random = random.Random(seed)
        self.fail = fail
        self.post = None
        self.lanes = {"infer": queue.SimpleQueue(), "load": queue.SimpleQueue()}
        for lane in self.lanes.values():
            threading.Thread(target=self._work, args=(lane,), daemon=True).start()

    def _work(self, lane):
        while (task := lane.get()) is not None:
            seconds, outcome = task
            time.sleep(seconds)
            self.post(outcome)

    def infer(self, number, action):
        outcome = Inferred(0, number, action.model, action.jobs, tuple({"vector": [1.0]} for _ in action.jobs))
        if self.random.random() < self.fail:
            outcome = Failed(0, number, action.model, "infer", "chance")
        self.lanes["infer"].put((self.random.uniform(0.001, 0.012), outcome))

    def load(self, number, action):
        outcome = Loaded(0, number, action.model)
        if self.random.random() < self.fail:
            outcome = Failed(0, number, action.model, "load", "chance")
        self.lanes["load"].put((self.random.uniform(0.001, 0.03), outcome))

    def evict(self, action):
        time.sleep(self.random.uniform(0, 0.0005))

    def stop(self):
        for lane in self.lanes.values():
            lane.put(None)


def live_run(folder, *, seconds=1.2, seed=0, fail=0.0, keep_bytes=64 << 20, policy="edf-lru", budget=80):
    """Four cameras, four models of which two fit, on the wall clock, logged."""
    hands = SleepyHands(seed, fail)
    start = box(queries=4, models=4, budget=budget)
    clock = WallClock()
    executor = Executor(start, policy_named(policy), clock, hands)
    hands.post = executor.post
    log = EventLog(folder, {"policy": policy}, start, keep_bytes)
    executor.observers.append(log.append)
    over = threading.Event()

    def camera(name, period):
        index = 0
        while not over.is_set():
            executor.post(FrameArrived(0, name, index, index))
            index += 1
            time.sleep(period)

    cameras = [threading.Thread(target=camera, args=(f"c{i}", 0.008 + 0.003 * i)) for i in range(4)]
    for thread in cameras:
        thread.start()
    executor.run(lambda: clock.now_ns() > seconds * NS)
    over.set()
    for thread in cameras:
        thread.join()
    executor.run(lambda: executor.idle)
    hands.stop()
    log.close()
    return executor.state


@pytest.mark.parametrize(("seed", "fail"), [(1, 0.0), (2, 0.1)])
def test_replaying_with_recorded_costs_reproduces_every_decision(tmp_path, seed, fail):
    state = live_run(tmp_path, seed=seed, fail=fail)
    (recording,) = read_log(tmp_path)
    comparison = replay(recording, "edf-lru")
    assert comparison.identical
    assert comparison.replayed.decisions == comparison.recorded.decisions > 50
    assert comparison.replayed.in_time == comparison.recorded.in_time == sum(q.in_time for q in state.queries.values())
    assert comparison.replayed.staleness_seconds == comparison.recorded.staleness_seconds


def test_a_replay_from_any_segment_reproduces_what_follows(tmp_path):
    live_run(tmp_path, seed=3, keep_bytes=1, seconds=2.0)  # the smallest segments there are
    segments = sorted(tmp_path.iterdir())
    assert len(segments) >= 2
    for segment in segments:
        (recording,) = read_log(segment)
        assert replay(recording, "edf-lru").identical, segment
    (whole,) = read_log(tmp_path)
    assert replay(whole, "edf-lru").identical


def test_no_segment_begins_in_the_middle_of_an_eviction(tmp_path):
    """Wherever the log is told to begin anew, the decision to evict and its outcome stay together."""
    live_run(tmp_path / "all", seed=5, seconds=0.6)
    (recording,) = read_log(tmp_path / "all")
    evictions = [n for n, event in enumerate(recording.events) if isinstance(event, Evicted)]
    assert evictions
    first = evictions[:6]
    for cut in {*first, *(n - 1 for n in first), *(n + 1 for n in first[:-1])}:
        folder = tmp_path / f"cut{cut}"
        log, state = EventLog(folder, dict(recording.config), recording.state, 1), recording.state
        for number, event in enumerate(recording.events):
            if number == cut:
                log._written = log._segment_bytes  # this segment is full
            state = apply(state, event)
            log.append(event, state)
        log.close()
        segments = sorted(folder.iterdir())
        assert len(segments) >= 2
        for segment in segments:
            (part,) = read_log(segment)
            assert not isinstance(part.events[0], Evicted)
            assert replay(part, "edf-lru").identical


def test_another_policy_decides_otherwise_on_the_same_arrivals(tmp_path):
    live_run(tmp_path, seed=4)
    (recording,) = read_log(tmp_path)
    comparison = replay(recording, "edf-static")
    assert not comparison.identical
    assert comparison.replayed.due == comparison.recorded.due
    assert comparison.replayed.loads_per_hour < comparison.recorded.loads_per_hour


def test_median_costs_come_close_to_the_wall_clock(tmp_path):
    live_run(tmp_path, seed=5, seconds=2.0, budget=160)
    (recording,) = read_log(tmp_path)
    comparison = replay(recording, "edf-lru", costs="median")
    assert comparison.replayed.in_time_fraction == pytest.approx(comparison.recorded.in_time_fraction, abs=0.1)


def test_a_log_cut_anywhere_reads_to_its_last_whole_event(tmp_path):
    live_run(tmp_path / "whole", seed=6, seconds=0.3)
    (segment,) = (tmp_path / "whole").iterdir()
    (recording,) = read_log(segment)
    data = segment.read_bytes()
    header = data.index(b"\n") + 1
    chosen = random.Random(0)
    for _ in range(25):
        cut = chosen.randrange(header, len(data))
        torn = tmp_path / "events.000000.jsonl"
        torn.write_bytes(data[:cut])
        (partial,) = read_log(torn)
        whole_lines = data[header:cut].count(b"\n")
        assert partial.events == recording.events[:whole_lines]
    torn.write_bytes(data[: header // 2])
    with pytest.raises(LogError, match="no event log"):
        read_log(torn)


def test_damage_in_the_middle_is_named_with_its_line(tmp_path):
    live_run(tmp_path, seed=7, seconds=0.2)
    (segment,) = tmp_path.iterdir()
    lines = segment.read_bytes().split(b"\n")
    lines[3] = b'{"kind": "frame"'
    segment.write_bytes(b"\n".join(lines))
    with pytest.raises(LogError, match="line 4 is damaged"):
        read_log(segment)
    segment.write_text("not a log\n")
    with pytest.raises(LogError, match="not an edgeward event log"):
        read_log(segment)


def test_a_full_disk_pauses_the_log_and_a_new_segment_follows(tmp_path, monkeypatch):
    start = box(queries=1, models=1)
    log = EventLog(tmp_path, {}, start, 1 << 20)
    write, full = os.write, threading.Event()

    def refusing(file, data):
        if full.is_set():
            return write(file, data[: len(data) // 2])  # a full disk takes part of a line
        return write(file, data)

    monkeypatch.setattr(os, "write", refusing)
    events = [FrameArrived(index * NS + 1, "c0", index, index) for index in range(6)]
    from edgeward.serve.apply import apply

    state = start
    for index, event in enumerate(events):
        full.set() if index in (2, 3) else full.clear()
        state = apply(state, event)
        log.append(event, state)
        assert bool(log.paused) == (index in (2, 3))
    log.close()
    assert log.lost == 2
    first, second = read_log(tmp_path)
    assert first.events == tuple(events[:2])
    assert second.events == tuple(events[4:])
    assert second.state.queries["q0"].due == 4


def test_old_segments_go_when_the_log_is_large_enough(tmp_path):
    start = box(queries=1, models=1)
    log = EventLog(tmp_path, {}, start, 1)
    from edgeward.serve.apply import apply

    state = start
    for index in range(12_000):
        event = FrameArrived(index + 1, "c0", index, index)
        state = apply(state, event)
        log.append(event, state)
    log.close()
    assert len(list(tmp_path.iterdir())) == 8
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 9 * (64 << 10)


def test_mean_age_of_the_newest_answer_by_hand():
    # An answer at 10 for a frame of 0; a second at 30 for a frame of 25; the run ends at 40.
    # Ages run 10..30 over 20, then 5..15 over 10: (20 * 20 + 10 * 10) / 30.
    assert mean_age_ns([(10, 0), (30, 25)], 40) == pytest.approx(500 / 30)


def test_a_wait_is_replayed_too(tmp_path):
    live_run(tmp_path, seed=8, fail=0.5, seconds=2.5)
    (recording,) = read_log(tmp_path)
    waits = [event for event in recording.events if isinstance(event, Decided) and isinstance(event.action, Wait)]
    assert waits
    assert replay(recording, "edf-lru").identical
    assert MS < NS
