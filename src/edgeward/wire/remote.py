"""Hosts on other machines, seen from the one who orders.

    exchange = Exchange({"edge": "tcp/127.0.0.1:7447"})
    host = exchange.host("edge")
    host.run(package.to_message()).result()
    exchange.watch(lambda name, alive: print(name, alive))

One exchange holds the connections to all nodes; their answers come to it, whichever node sends them.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from edgeward.errors import EdgewardError, HostError, WireError
from edgeward.wire.channel import Channel, Tls
from edgeward.wire.header import Limits
from edgeward.wire.hosts import Host
from edgeward.wire.messages import Message, pack, unpack
from edgeward.wire.node import answers_key, orders_key
from edgeward.wire.outbox import Outbox

__all__ = ["Exchange", "RemoteHost"]

_CONNECT_SECONDS = 2.0
_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class _Waiting:
    """An order without its answer yet, and the hosts it passes."""

    future: Future[Message]
    hosts: frozenset[str]


class Exchange:
    """Connections to nodes, by name, and the orders under way at them. Nodes may come later, and go and come again."""

    def __init__(self, endpoints: Mapping[str, str], tls: Tls | None = None, limits: Limits | None = None) -> None:
        self.sender = uuid.uuid4().hex
        self.endpoints = dict(endpoints)
        self.limits = limits or Limits(max_bytes=1 << 30, max_elements=1 << 30)
        self.obstacles: dict[str, str] = {}
        self._tls = tls
        self._numbers = itertools.count(1)
        self._channels: dict[str, Channel] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._present: set[str] = set()
        self._watchers: list[Callable[[str, bool], None]] = []
        self._changed = threading.Condition()
        self._closed = threading.Event()
        for name in self.endpoints:
            threading.Thread(target=self._connect, args=(name,), name=f"connect-{name}", daemon=True).start()

    def host(self, name: str) -> RemoteHost:
        """The node of this name as a host; it need not be there yet."""
        return RemoteHost(name, self)

    def present(self, name: str) -> bool:
        """Whether a node is there now."""
        return name in self._present

    def wait_for(self, name: str, seconds: float) -> bool:
        """Wait until a node is there; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: name in self._present, seconds)

    def watch(self, handler: Callable[[str, bool], None]) -> None:
        """Be told, from another thread, of nodes that come and go."""
        self._watchers.append(handler)

    def begin(self, order: Message, hosts: frozenset[str]) -> tuple[Message, Future[Message]]:
        """Number an order and wait for its answer; it fails when one of the hosts goes, or is not there at all.

        Raises HostError then.
        """
        future: Future[Message] = Future()
        with self._changed:
            for name in sorted(hosts - self._present):
                where = self.endpoints.get(name, "an unknown place")
                raise HostError(f"host {name!r} at {where} is not there; start it or wait")
            number = next(self._numbers)
            self._waiting[number] = _Waiting(future, hosts)
        return replace(order, sequence=number, meta={**order.meta, "sender": self.sender}), future

    def publish(self, name: str, order: Message) -> None:
        """Send a numbered order to a node. Blocks while the link is busy. Raises HostError when it is not there."""
        channel = self._channels.get(name)
        if channel is None:
            raise HostError(f"host {name!r} is not connected: {self.obstacles.get(name, 'it was never there')}")
        channel.publish(orders_key(name), pack(order, self.limits))

    def fail(self, number: int, error: Exception) -> None:
        """End a waiting order with an error."""
        with self._changed:
            waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.future.set_exception(error)

    def close(self) -> None:
        """Let go of all connections; what is under way fails."""
        self._closed.set()
        for channel in list(self._channels.values()):
            channel.close()
        for number in list(self._waiting):
            self.fail(number, HostError("the connections were closed"))

    def _connect(self, name: str) -> None:
        """Try until it works; from then on the channel itself comes back when it is broken."""
        while not self._closed.is_set():
            try:
                channel = Channel(connect=[self.endpoints[name]], tls=self._tls, timeout=_CONNECT_SECONDS)
            except EdgewardError as error:
                self.obstacles[name] = str(error)
                self._closed.wait(_RETRY_SECONDS)
                continue
            self._channels[name] = channel
            channel.subscribe(answers_key(self.sender), self._take)
            channel.watch(lambda who, here: self._note_presence(who, here) if who == name else None)
            if self._closed.is_set():
                channel.close()
            return

    def _take(self, data: Any) -> None:
        arrived = time.monotonic()
        try:
            answer = unpack(data, self.limits)
        except WireError:
            return  # a damaged answer is like none: the order's own deadline notices
        with self._changed:
            waiting = self._waiting.pop(answer.sequence, None)
        if waiting is not None:  # else repeated, or given up
            waiting.future.set_result(replace(answer, meta={**answer.meta, "arrived": arrived}))

    def _note_presence(self, name: str, here: bool) -> None:
        with self._changed:
            (self._present.add if here else self._present.discard)(name)
            lost = [] if here else [number for number, one in self._waiting.items() if name in one.hosts]
            self._changed.notify_all()
        for number in lost:
            self.fail(number, HostError(f"host {name!r} went away while it worked"))
        for watcher in list(self._watchers):
            watcher(name, here)


class RemoteHost(Host):
    """A node as a host."""

    def __init__(self, name: str, exchange: Exchange) -> None:
        self.name, self.exchange = name, exchange
        self._outbox = Outbox[Message](lambda order: exchange.publish(name, order), self._unsent, name)

    @property
    def alive(self) -> bool:
        return self.exchange.present(self.name)

    def run(self, order: Message) -> Future[Message]:
        route = order.meta.get("route", ())
        hosts = frozenset({self.name, *(str(one.get("host")) for one in route)})
        try:
            numbered, future = self.exchange.begin(order, hosts)
        except HostError as error:
            future = Future()
            future.set_exception(error)
            return future
        self._outbox.put(numbered)
        return future

    def close(self) -> None:
        self._outbox.close()

    def _unsent(self, order: Message, error: Exception) -> None:
        self.exchange.fail(order.sequence, HostError(f"host {self.name!r} cannot be told: {error}"))
