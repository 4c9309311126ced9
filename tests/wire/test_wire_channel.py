"""Channels between two processes on loopback: delivery, order, liveliness, return after a crash, clear faults."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeward.errors import HostError, WireError
from edgeward.wire.channel import MAX_BYTES, Channel

ECHO = """
import sys, time
from edgeward.wire.channel import Channel
channel = Channel(listen=sys.argv[1], lease=0.5)
channel.subscribe("test/request", lambda data: channel.publish("test/reply", [data]))
channel.declare_alive("echo")
print("up", flush=True)
sys.stdin.read()
"""


def free_endpoint(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
    return f"tcp/[{host}]:{port}" if ":" in host else f"tcp/{host}:{port}"


class Started(NamedTuple):
    """A process: the first line it printed, and how to end or signal it."""

    line: str
    kill: Callable[[], None]
    send_signal: Callable[[int], None]


@contextmanager
def process(code: str, *arguments: str) -> Iterator[Started]:
    """A Python process, killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        line = child.stdout.readline().strip()
        assert line, "the other process died"
        yield Started(line, child.kill, lambda number: child.send_signal(number))
    finally:
        child.kill()
        child.communicate()


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Peers:
    """Who is alive, as `watch` tells it, with the moments."""

    def __init__(self, channel: Channel) -> None:
        self.events: queue.Queue[tuple[str, bool, float]] = queue.Queue()
        channel.watch(lambda name, alive: self.events.put((name, alive, time.monotonic())))

    def next(self, seconds: float = 5.0) -> tuple[str, bool, float]:
        return self.events.get(timeout=seconds)


def test_bytes_reach_subscribers_of_their_key_and_nobody_else():
    endpoint = free_endpoint()
    with Channel(listen=endpoint) as hub, Channel(connect=[endpoint]) as left, Channel(connect=[endpoint]) as right:
        got: list[tuple[str, bytes]] = []
        hub.subscribe("test/one", lambda data: got.append(("hub", data)))
        for name, channel in (("left", left), ("right", right)):
            channel.subscribe("test/two", lambda data, name=name: got.append((name, data)))
            channel.subscribe(f"test/*/{name}", print)  # declared last: once it is known, so is the other
        left.subscribe("test/one", lambda data: got.append(("left", data)))
        until(lambda: left.listeners("test/one"))
        until(lambda: hub.listeners("test/its/left") and hub.listeners("test/its/right"))
        left.publish("test/one", [b"ab", memoryview(b"cd"), bytearray(b"e")])  # reaches hub, not left itself
        left.publish("test/two", [b"x"])  # right is not a direct peer: hub does not forward
        hub.publish("test/two", [b"y"])
        until(lambda: len(got) == 3)
        time.sleep(0.2)
        assert sorted(got) == [("hub", b"abcde"), ("left", b"y"), ("right", b"y")]
        assert not left.listeners("test/two")


def received_on_loopback() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="counts bytes with /proc/net/dev")
def test_bytes_on_the_wire_are_at_most_one_percent_more():
    endpoint, size, counts = free_endpoint(), 16 << 20, {}
    with Channel(listen=endpoint) as hub, Channel(connect=[endpoint]) as peer:
        got: list[bytes] = []
        hub.subscribe("test/heard", got.append)
        until(lambda: peer.listeners("test/heard"))
        for key in ("test/heard", "test/unheard"):
            least = []
            for _ in range(3):  # others use loopback too: the least of three
                before = received_on_loopback()
                peer.publish(key, [bytes(size)])
                if key == "test/heard":
                    until(got.__len__)
                    got.clear()
                else:
                    time.sleep(0.1)
                least.append(received_on_loopback() - before)
            counts[key] = min(least)
    assert size <= counts["test/heard"] <= 1.01 * size
    assert counts["test/unheard"] < 0.01 * size


def test_large_messages_and_slow_receivers_lose_nothing_and_keep_order():
    endpoint = free_endpoint()
    with process(ECHO, endpoint), Channel(connect=[endpoint]) as channel:
        got: list[bytes] = []

        def slow(data: bytes) -> None:
            time.sleep(0.01)
            got.append(data)

        channel.subscribe("test/reply", slow)
        until(lambda: channel.listeners("test/request"))
        sizes = [64 << 20, *[(0, 10, 100_000, 1 << 20)[i % 4] for i in range(80)]]
        for number, size in enumerate(sizes):
            channel.publish("test/request", [number.to_bytes(4, "little"), bytes(size)])
        until(lambda: len(got) == len(sizes), 20)
        assert [int.from_bytes(data[:4], "little") for data in got] == list(range(len(sizes)))
        assert [len(data) - 4 for data in got] == sizes


@pytest.mark.alone
def test_a_killed_peer_is_noticed_within_a_second_and_found_again_when_it_returns():
    endpoint = free_endpoint()
    with ExitStack() as stack:
        child = stack.enter_context(process(ECHO, endpoint))
        channel = stack.enter_context(Channel(connect=[endpoint]))
        peers = Peers(channel)
        assert peers.next()[:2] == ("echo", True)  # it was there before
        answers: queue.Queue[bytes] = queue.Queue()
        channel.subscribe("test/reply", answers.put)
        for number in (b"1", b"2"):
            killed = time.monotonic()
            child.kill()
            name, alive, noticed = peers.next()
            assert (name, alive) == ("echo", False)
            assert noticed - killed < 1
            channel.publish("test/request", [b"to nobody"])  # neither waits nor fails
            child = stack.enter_context(process(ECHO, endpoint))
            started = time.monotonic()
            name, alive, noticed = peers.next()
            assert (name, alive) == ("echo", True)
            assert noticed - started < 2
            channel.publish("test/request", [number])  # who is seen alive has subscribed
            assert answers.get(timeout=5) == number


@pytest.mark.alone
@pytest.mark.parametrize("publishing", [False, True])
def test_a_frozen_peer_is_gone_after_the_lease_and_holds_nobody_up(publishing):
    endpoint = free_endpoint()
    with process(ECHO, endpoint) as child, Channel(connect=[endpoint], lease=0.5) as channel:
        peers = Peers(channel)
        assert peers.next()[:2] == ("echo", True)
        child.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        try:
            if publishing:
                for _ in range(20):  # more than the buffers hold: it waits, then gives up
                    channel.publish("test/request", [bytes(1 << 20)])
                assert time.monotonic() - frozen < 2.5
            name, alive, noticed = peers.next()
            assert (name, alive) == ("echo", False)
            assert noticed - frozen < 2.5
        finally:
            child.send_signal(signal.SIGCONT)


def test_closing_withdraws_the_name_and_ones_own_is_not_told():
    endpoint = free_endpoint()
    with Channel(listen=endpoint) as hub:
        hub.declare_alive("hub")
        peers = Peers(hub)
        other = Channel(connect=[endpoint])
        other.declare_alive("other")
        assert peers.next()[:2] == ("other", True)
        other.close()
        other.close()
        assert peers.next()[:2] == ("other", False)
        with pytest.raises(HostError, match="closed"):
            other.publish("test/key", [b"x"])
        with pytest.raises(HostError, match="closed"):
            other.subscribe("test/key", print)
        with pytest.raises(HostError, match="closed"):
            other.declare_alive("other")
        with pytest.raises(HostError, match="closed"):
            other.watch(print)


def test_handlers_may_publish_large_answers_to_each_other():
    endpoint, lock, data = free_endpoint(), threading.Lock(), bytes(4 << 20)
    with Channel(listen=endpoint) as one, Channel(connect=[endpoint]) as two:
        counts = {"test/one": 0, "test/two": 0}

        def answering(channel: Channel, key: str, answer: str) -> Callable[[bytes], None]:
            def handler(received: bytes) -> None:
                with lock:
                    counts[key] += 1
                    more = counts[key] <= 10
                if more:
                    channel.publish(answer, [received])

            return handler

        one.subscribe("test/one", answering(one, "test/one", "test/two"))
        two.subscribe("test/two", answering(two, "test/two", "test/one"))
        until(lambda: one.listeners("test/two") and two.listeners("test/one"))
        for _ in range(4):  # several at once, both ways, from several threads
            one.publish("test/two", [data])
            two.publish("test/one", [data])
        until(lambda: counts == {"test/one": 14, "test/two": 14}, 20)
        assert counts == {
            "test/one": 14,
            "test/two": 14,
        }  # each began four and answered ten; nothing hung or came twice


def test_ipv6_loopback():
    try:
        endpoint = free_endpoint("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Channel(listen=endpoint) as one, Channel(connect=[endpoint]) as two:
        got: queue.Queue[bytes] = queue.Queue()
        one.subscribe("test/six", got.put)
        until(lambda: two.listeners("test/six"))
        two.publish("test/six", [b"6"])
        assert got.get(timeout=5) == b"6"


def test_wrong_arguments():
    with Channel() as channel:
        for key in ("", "/a", "a//b", "a/"):
            with pytest.raises(HostError, match="sent to"):
                channel.publish(key, [b"x"])
            with pytest.raises(HostError, match="subscribed"):
                channel.subscribe(key, print)
        for name in ("", "a/b", "*", "a b", "x" * 65):
            with pytest.raises(HostError, match="host's name"):
                channel.declare_alive(name)
        block = bytes(64 << 20)
        with pytest.raises(WireError, match="at most"):
            channel.publish("a", [block] * (MAX_BYTES // len(block)) + [b"x" * (MAX_BYTES % len(block) + 1)])
    with pytest.raises(HostError, match="lease 0"):
        Channel(lease=0)


def test_a_mebibyte_goes_and_comes_back_unchanged_again_and_again():
    """How fast is the benchmark's to say."""
    endpoint = free_endpoint()
    with process(ECHO, endpoint), Channel(connect=[endpoint]) as channel:
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        channel.subscribe("test/reply", answers.put)
        until(lambda: channel.listeners("test/request"))
        for _ in range(20):
            data = os.urandom(1 << 20)
            channel.publish("test/request", [data])
            assert answers.get(timeout=10) == data
