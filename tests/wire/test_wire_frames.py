"""Messages on a stream: whole, torn, broken; and each taken once."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import HostError, WireError
from edgeward.wire.frames import ReplayGuard, receive, send
from edgeward.wire.header import HEADER_BYTES
from edgeward.wire.messages import Message, TensorPart, joined, pack

PART = TensorPart("identity", "F32", (3, 4), memoryview(bytes(range(48))))
MESSAGE = Message("run", {"stage": 2}, (PART, PART), sequence=7)


def test_streams_carry_messages_whole_and_end_cleanly():
    many = Message(
        "run", {}, tuple(TensorPart("zstd", "U8", (1,), memoryview(bytes([i % 256]) * (i + 1))) for i in range(1000))
    )
    large = Message("run", {}, (TensorPart("identity", "U8", (5_000_000,), memoryview(bytes(5_000_000))),))
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = [MESSAGE, many, large, Message("bye")]

    def write() -> None:
        with left:
            for message in sent:
                send(left, message)

    writer = threading.Thread(target=write)
    writer.start()
    with right:
        assert [receive(right) for _ in sent] == sent
        assert receive(right) is None
    writer.join()


def test_torn_streams_are_told_from_ended_ones():
    whole = bytes(joined(pack(MESSAGE)))
    for length in (1, HEADER_BYTES - 1, HEADER_BYTES, len(whole) - 1):
        left, right = socket.socketpair()
        with right:
            left.sendall(whole[:length])
            left.close()
            with pytest.raises(WireError, match=f"ended after {length} of"):
                receive(right)


def test_broken_and_silent_connections_are_host_errors():
    left, right = socket.socketpair()
    with left:
        right.close()
        with pytest.raises(HostError, match="'run'"):
            send(left, MESSAGE)
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(0.05)
        with pytest.raises(HostError, match="timed out"):
            receive(right)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 12))
def test_the_replay_guard_agrees_with_a_set(numbers, window):
    guard, seen = ReplayGuard(window=window), set()
    for number in numbers:
        fresh = number not in seen and number > max(seen, default=-1) - window
        if fresh:
            guard.check("pi", number)
            seen.add(number)
        else:
            with pytest.raises(WireError, match="'pi'"):
                guard.check("pi", number)


def test_the_replay_guard_is_bounded_and_keeps_senders_apart():
    guard = ReplayGuard(max_senders=2)
    guard.check("a", 2**64 - 1)
    guard.check("b", 2**64 - 1)
    with pytest.raises(WireError, match="2 senders"):
        guard.check("c", 0)
    with pytest.raises(WireError, match="too old"):
        guard.check("a", 0)
    guard.forget("a")
    guard.check("c", 0)
