"""A machine that runs blocks for others over the network: the process behind `edgeward node`.

    node = Node(StageServer("edge", memory=512 << 20), listen="tcp/127.0.0.1:7447")
    ...
    node.close()

Orders come on "edgeward/NAME/orders". A stretch that goes on elsewhere is sent straight to the next node, and its
answer straight to who ordered it; nothing passes through the machine of the one who ordered.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgeward.errors import EdgewardError, HostError, WireError
from edgeward.wire.channel import Channel, Tls
from edgeward.wire.frames import ReplayGuard
from edgeward.wire.messages import Message, pack, unpack
from edgeward.wire.outbox import Outbox
from edgeward.wire.server import StageServer, error_reply

__all__ = ["MAX_WAITING", "Node", "answers_key", "orders_key"]

MAX_WAITING = 64
"""Orders that wait at most; more are refused, so that a flood cannot fill the memory."""
_CONNECT_SECONDS = 5.0


def orders_key(name: str) -> str:
    """Where a node takes orders."""
    return f"edgeward/{name}/orders"


def answers_key(sender: str) -> str:
    """Where who ordered takes answers."""
    return f"edgeward/{sender}/answers"


class Node:
    """Serves a `StageServer` to others. tls: certificates, needed to listen on anything but loopback.

    note: told of what an operator should see, such as refused messages. announce: be found by `discover`.
    Raises HostError when it cannot listen.
    """

    def __init__(
        self,
        server: StageServer,
        listen: str,
        tls: Tls | None = None,
        note: Callable[[str], None] = lambda text: None,
        *,
        announce: bool = False,
    ) -> None:
        self.server = server
        self.handled = 0
        self._tls, self._note = tls, note
        self._guard = ReplayGuard()
        self._inbox: queue.Queue[Message | None] = queue.Queue(MAX_WAITING)
        self._onward: dict[str, tuple[Channel, Outbox[tuple[str, Message]]]] = {}
        self._channel = Channel(listen=listen, tls=tls, announce=announce)
        self._answers = Outbox[tuple[str, Message]](self._publish_with(self._channel), self._unsent, server.name)
        self._worker = threading.Thread(target=self._work, name=f"node-{server.name}", daemon=True)
        self._worker.start()
        self._channel.subscribe(orders_key(server.name), self._take)
        self._channel.declare_alive(server.name)

    def close(self) -> None:
        """Stop taking orders, finish the one under way, let go of the network."""
        try:
            self._inbox.put(None, timeout=1.0)
        except queue.Full:
            self._note("closing with orders waiting")
        self._worker.join(5.0)
        self._answers.close()
        for channel, outbox in self._onward.values():
            outbox.close()
            channel.close()
        self._channel.close()

    def _take(self, data: Any) -> None:
        """Called by the network's thread: everything that is wrong with a message ends here."""
        arrived = self.server.now()
        try:
            order = unpack(data, self.server.limits)
            sender = order.meta.get("sender")
            if not isinstance(sender, str) or not sender.isalnum():
                raise WireError(f"an order of kind {order.kind!r} says not who sent it")
            self._guard.check(sender, order.sequence)
        except WireError as error:
            self._note(f"refused a message: {error}")
            return
        order = replace(order, meta={**order.meta, "arrived": arrived})
        if order.kind == "ping":  # tells the clock, so it must not wait behind work
            self._answer(order, self.server.handle(order))
            return
        try:
            self._inbox.put_nowait(order)
        except queue.Full:
            busy = HostError(f"host {self.server.name!r} has {MAX_WAITING} orders waiting already; send fewer at once")
            self._answer(order, error_reply(order, self.server.name, busy))

    def _work(self) -> None:
        while (order := self._inbox.get()) is not None:
            answer = self.server.handle(order)
            self.handled += 1
            if answer.kind == "run":
                self._forward(order, answer)
            else:
                self._answer(order, answer)

    def _forward(self, order: Message, onward: Message) -> None:
        following: Mapping[str, Any] = onward.meta["route"][0]
        try:
            key = orders_key(str(following["host"]))
            outbox = self._way(str(following["endpoint"]), key)
        except (KeyError, EdgewardError) as error:
            reason = HostError(f"host {self.server.name!r} cannot reach host {following.get('host')!r}: {error}")
            self._answer(order, error_reply(order, self.server.name, reason))
            return
        outbox.put((key, onward))

    def _way(self, endpoint: str, key: str) -> Outbox[tuple[str, Message]]:
        """The connection to another node, made when it is first needed. Raises HostError when it is not there."""
        if endpoint not in self._onward:
            channel = Channel(connect=[endpoint], tls=self._tls)
            self._onward[endpoint] = (channel, Outbox(self._publish_with(channel), self._unsent, endpoint))
        channel, outbox = self._onward[endpoint]
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not channel.listeners(key):  # what is published to nobody is lost
            if time.monotonic() > deadline:
                raise HostError(f"no answer at {endpoint} within {_CONNECT_SECONDS:g} s")
            time.sleep(0.005)
        return outbox

    def _answer(self, order: Message, answer: Message) -> None:
        self._answers.put((answers_key(str(order.meta.get("sender"))), answer))

    def _publish_with(self, channel: Channel) -> Callable[[tuple[str, Message]], None]:
        def publish(item: tuple[str, Message]) -> None:
            channel.publish(item[0], pack(item[1], self.server.limits))

        return publish

    def _unsent(self, item: tuple[str, Message], error: Exception) -> None:
        self._note(f"an answer to {item[0]} could not be sent: {error}")
