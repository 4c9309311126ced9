"""Bytes between hosts by topic, over one Zenoh session, with news of who is alive.

    channel = Channel(listen="tcp/127.0.0.1:7447")
    channel.subscribe("edgeward/box/run", lambda data: print(len(data)))
    channel.declare_alive("box")                 # last: who sees the name can rely on the subscriptions

    other = Channel(connect=["tcp/127.0.0.1:7447"])
    other.watch(lambda name, alive: print(name, alive))
    other.publish("edgeward/box/run", pack(message))

Measured with eclipse-zenoh 1.10: a peer that was killed is noticed within 10 ms, one that froze or whose cable was cut
after its `lease` (while one publishes to it, after twice one's own); one that returns is connected again within 0.5 s,
and its name reappears. Order is kept per key, nothing is dropped while a connection holds, and bytes travel only to
peers that subscribe to their key. Peers do not forward for each other: connect every pair that has to talk. A link
must carry 64 KiB within a lease (350 kbit/s with 1.5 s), or it counts as dead; give slower ones a longer lease.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import zenoh

from edgeward.errors import HostError, WireError
from edgeward.units import format_bytes
from edgeward.wire.chunks import CHUNK_BYTES, LARGEST_CHUNK, Assembler, pieces
from edgeward.wire.endpoints import Endpoint, Tls

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAX_BYTES", "Channel", "Tls"]

MAX_BYTES = (1 << 30) + (64 << 10)  # whole networks travel, and some room
_ALIVE = "edgeward/alive/"
_NAME = re.compile(r"[^\s/*$?#]{1,64}")


class Channel:
    """One Zenoh session of mode "peer", without shared memory.

    listen, connect: endpoints such as "tcp/127.0.0.1:7447"; with `tls` both sides prove who they are. An endpoint
    that other machines reach needs `tls`. lease: seconds of silence after which others count it as gone.
    timeout: seconds within which all of `connect` must be reached; later, lost peers are sought for ever.
    announce: answer who looks for nodes by multicast (see `edgeward.wire.discovery`) with the endpoint listened at.
    Raises HostError when an endpoint is wrong, taken, unreachable or unsafe, StoreError when `tls` is not fit.
    """

    def __init__(
        self,
        *,
        listen: str | None = None,
        connect: Sequence[str] = (),
        tls: Tls | None = None,
        lease: float = 1.5,
        timeout: float = 5.0,
        announce: bool = False,
    ) -> None:
        if not 0.1 <= lease <= 3600 or not 0.1 <= timeout <= 3600:
            raise HostError(f"lease {lease} s and timeout {timeout} s of a channel must lie between 0.1 and 3600 s")
        here = None if listen is None else Endpoint.parse(listen)
        there = [Endpoint.parse(text) for text in connect]
        if tls is None:
            for endpoint in (*([here] if here else []), *there):
                _safe(endpoint)
        else:
            tls.check()
        settings = _configuration(here, there, tls)
        settings["transport/link/tx/lease"] = round(1000 * lease)
        # Microseconds that a sender waits for one free batch. A link that lives frees one within a lease.
        settings["transport/link/tx/queue/congestion_control/block/wait_before_close"] = round(2e6 * lease)
        settings["connect/timeout_ms"] = round(1000 * timeout)
        settings["scouting/multicast/enabled"] = announce
        configuration = zenoh.Config()
        for name, value in settings.items():
            configuration.insert_json5(name, json.dumps(value))
        try:
            self._session = zenoh.open(configuration)
        except zenoh.ZError as error:
            raise HostError(_why(error, here, there, tls)) from error
        self._publishers: dict[str, Any] = {}
        self._sender, self._number = os.urandom(16), 0
        local = all(endpoint.loopback for endpoint in (*([here] if here else []), *there))
        self._piece = LARGEST_CHUNK if local else CHUNK_BYTES
        self._tokens: dict[str, Any] = {}  # a token that is not held is withdrawn
        self._lock = threading.Lock()

    def publish(self, key: str, buffers: Sequence[Buffer]) -> None:
        """Send the joined buffers to every subscriber of a key elsewhere; returns once they are queued.

        Waits while a receiver is slow to read. With no subscriber the bytes go nowhere (see `listeners`).
        Raises WireError above `MAX_BYTES`, HostError for a malformed key or a closed channel.
        """
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        if size > MAX_BYTES:
            raise WireError(f"{format_bytes(size)} for {key!r}; a channel carries at most {format_bytes(MAX_BYTES)}")
        payload = buffers[0] if len(buffers) == 1 and isinstance(buffers[0], bytes) else b"".join(buffers)
        with self._lock:
            self._number += 1
            number = self._number
        publisher = self._publisher(key)
        try:
            for label, piece in pieces(memoryview(payload), self._sender, number, self._piece):
                # A put that takes longer than its patience ends the connection: pieces keep each of them short.
                publisher.put(bytes(piece) if label else payload, attachment=label or None)
        except zenoh.ZError as error:
            raise HostError(f"nothing can be sent to {key!r}: {_reason(error)}") from error

    def listeners(self, key: str) -> bool:
        """Whether a connected peer subscribes to the key. Raises HostError for a malformed key or a closed channel."""
        publisher = self._publisher(key)
        try:
            return bool(publisher.matching_status.matching)
        except zenoh.ZError as error:
            raise HostError(f"the listeners of {key!r} are unknown: {_reason(error)}") from error

    def subscribe(self, key: str, handler: Callable[[bytes | memoryview], None]) -> None:
        """Call `handler` with what others publish to a key ("*" stands for one part, "**" for any number).

        Calls come one after the other in order of sending, from a thread of this subscription; the handler may
        publish. While it works, arriving bytes wait in memory without bound: whoever sends must await answers.
        Raises HostError for a malformed key or a closed channel.
        """

        assembler = Assembler(MAX_BYTES)

        def deliver(sample: Any) -> None:
            label = sample.attachment.to_bytes() if sample.attachment is not None else b""
            try:
                whole = assembler.add(label, sample.payload.to_bytes())
            except WireError:
                return  # like any other loss: whoever awaits an answer notices that there is none
            if whole is not None:
                handler(whole)

        try:
            self._session.declare_subscriber(key, deliver, allowed_origin=zenoh.Locality.REMOTE)
        except zenoh.ZError as error:
            raise HostError(f"{key!r} cannot be subscribed to: {_reason(error)}") from error

    def declare_alive(self, name: str) -> None:
        """Show a name to all peers until this channel closes or its process dies. Raises HostError for a wrong name."""
        if _NAME.fullmatch(name) is None:
            raise HostError(
                f"{name!r} cannot be a host's name; use at most 64 characters without blanks, /, *, $, ?, #"
            )
        try:
            token = self._session.liveliness().declare_token(_ALIVE + name)
        except zenoh.ZError as error:
            raise HostError(f"{name!r} cannot be declared: {_reason(error)}") from error
        with self._lock:
            self._tokens[name] = token

    def watch(self, handler: Callable[[str, bool], None]) -> None:
        """Call `handler(name, True)` for every peer that is or comes alive, `handler(name, False)` when it is gone.

        Calls come in order from one thread; names declared on this channel are left out. Raises HostError when the
        channel is closed.
        """

        def tell(sample: Any) -> None:
            name = str(sample.key_expr).removeprefix(_ALIVE)
            if name not in self._tokens:
                handler(name, sample.kind == zenoh.SampleKind.PUT)

        try:
            self._session.liveliness().declare_subscriber(_ALIVE + "*", tell, history=True)
        except zenoh.ZError as error:
            raise HostError(f"peers cannot be watched: {_reason(error)}") from error

    def close(self) -> None:
        """Leave: peers learn that the names of this channel are gone. A second call does nothing.

        When somebody still publishes, it may wait for up to twice the lease.
        """
        with suppress(zenoh.ZError):
            self._session.close()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _publisher(self, key: str) -> Any:
        with self._lock:
            known = self._publishers.get(key)
            if known is None:
                try:
                    known = self._session.declare_publisher(
                        key,
                        reliability=zenoh.Reliability.RELIABLE,
                        congestion_control=zenoh.CongestionControl.BLOCK,
                        express=True,
                        allowed_destination=zenoh.Locality.REMOTE,
                    )
                except zenoh.ZError as error:
                    raise HostError(f"nothing can be sent to {key!r}: {_reason(error)}") from error
                self._publishers[key] = known
            return known


def _safe(endpoint: Endpoint) -> None:
    """Refuse to talk in the clear with other machines."""
    if not endpoint.loopback:
        raise HostError(
            f"{endpoint} is not on this machine and there are no certificates; make them with "
            "`edgeward node cert` and pass them (tls), or use 127.0.0.1"
        )


def _configuration(listen: Endpoint | None, connect: Sequence[Endpoint], tls: Tls | None) -> dict[str, object]:
    """Settings by the names of Zenoh's configuration file, without times."""
    secure = tls is not None
    settings: dict[str, object] = {
        "mode": "peer",
        "listen/endpoints": [listen.locator(secure=secure)] if listen else [],
        "connect/endpoints": [endpoint.locator(secure=secure) for endpoint in connect],
        "connect/exit_on_failure": True,
        "connect/retry": {"period_init_ms": 100, "period_max_ms": 500, "period_increase_factor": 1.5},
        "scouting/multicast/autoconnect": {"router": [], "peer": []},  # who is heard is not thereby trusted
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/link/protocols": ["tls" if secure else "tcp"],
        "transport/link/rx/max_message_size": LARGEST_CHUNK + (64 << 10),
        # With two batches of 64 KiB, the default, both ends wait for each other: 1 MiB takes 1.5 times longer.
        "transport/link/tx/queue/size/data": 16,
    }
    if tls is not None:
        settings["transport/link/tls"] = {
            "root_ca_certificate": str(tls.ca),
            "listen_certificate": str(tls.certificate),
            "listen_private_key": str(tls.key),
            "connect_certificate": str(tls.certificate),
            "connect_private_key": str(tls.key),
            "enable_mtls": True,
            "verify_name_on_connect": True,
            "close_link_on_expiration": True,
        }
    return settings


def _why(error: Exception, listen: Endpoint | None, connect: Sequence[Endpoint], tls: Tls | None) -> str:
    """What to tell the user when a session does not open: Zenoh itself only knows that its time ran out."""
    for endpoint in connect:
        if fault := endpoint.fault(tls):
            return f"{endpoint} cannot be reached: {fault}"
    if listen is not None and (fault := listen.taken()):
        return f"{listen} cannot be listened on: {fault}"
    if connect and tls is None:
        names = ", ".join(map(str, connect))
        return f"{names}: something answers, but no edgeward node without certificates; does it need them (tls)?"
    return f"the channel cannot be opened: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Zenoh's message without the places in its sources."""
    return re.sub(r"( at /\S+:\d+\.?)+", "", str(error)).strip(" .")
