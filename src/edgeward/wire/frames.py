"""Messages on a stream: whole ones over a connected socket, each taken once.

send(sock, Message("run", {"stage": 2}))
while (message := receive(other)) is not None:      # None: the sender closed after a whole message
    guard.check("pi", message.sequence)             # WireError when it came before
"""

from __future__ import annotations

import socket
import threading

import numpy as np

from edgeward.errors import HostError, WireError
from edgeward.wire.header import HEADER_BYTES, Header, Limits
from edgeward.wire.messages import Message, pack, unpack

__all__ = ["ReplayGuard", "receive", "send"]

_BUFFERS_PER_CALL = 512  # POSIX grants at least 16, Linux and macOS 1024 (IOV_MAX)


def send(sock: socket.socket, message: Message, limits: Limits | None = None) -> None:
    """Write a message to a connected stream socket, straight from the tensors' buffers.

    Raises WireError when it exceeds the limits, HostError when the connection breaks or the socket's timeout passes.
    """
    pending = [view for buffer in pack(message, limits) if (view := memoryview(buffer)).nbytes]
    try:
        while pending:
            sent = sock.sendmsg(pending[:_BUFFERS_PER_CALL])
            done = 0
            while done < len(pending) and sent >= pending[done].nbytes:
                sent -= pending[done].nbytes
                done += 1
            del pending[:done]
            if sent:
                pending[0] = pending[0][sent:]
    except OSError as error:
        raise HostError(f"the connection broke while a {message.kind!r} message was sent: {error}") from error


def receive(sock: socket.socket, limits: Limits | None = None) -> Message | None:
    """The next message of a connected stream socket, or None when the other side closed between two messages.

    Raises WireError for a message that is torn, damaged or beyond the limits (close the socket then: where the next
    one begins is unknown), HostError when the connection breaks or the socket's timeout passes.
    """
    limits = limits or Limits()
    first = memoryview(bytearray(HEADER_BYTES))
    count = _fill(sock, first)
    if count == 0:
        return None
    if count < HEADER_BYTES:
        raise WireError(f"the stream ended after {count} of {HEADER_BYTES} bytes of a header; the sender died")
    header = Header.unpack(first)
    header.check(limits)
    # Unlike bytearray, numpy.empty touches no page: to announce much and send little costs the receiver nothing.
    whole = np.empty(header.total, np.uint8).data
    whole[:HEADER_BYTES] = first
    count += _fill(sock, whole[HEADER_BYTES:])
    if count < header.total:
        raise WireError(f"the stream ended after {count} of {header.total} bytes of a message; the sender died")
    return unpack(whole, limits)


def _fill(sock: socket.socket, view: memoryview) -> int:
    """Read until the view is full or the stream ends; how many bytes came."""
    count = 0
    try:
        while count < view.nbytes and (got := sock.recv_into(view[count:])):
            count += got
    except OSError as error:
        raise HostError(f"the connection broke after {count} of {view.nbytes} bytes: {error}") from error
    return count


class ReplayGuard:
    """Takes each (sender, sequence) once, in any order within a sliding window, from any thread.

    The window is that of RFC 4303, section 3.4.3: behind the highest number seen, `window` numbers are remembered one
    by one, and what is older is refused. A sender that starts again at 0 needs a new name (host and start time), or to
    be forgotten first. Memory: `window` bits for each of at most `max_senders`; one more is refused, for
    dropping an old one would let its messages in again.
    """

    def __init__(self, *, window: int = 1024, max_senders: int = 4096) -> None:
        if window < 1 or max_senders < 1:
            raise WireError(f"window {window} and max_senders {max_senders} of a ReplayGuard must be at least 1")
        self._window = window
        self._max_senders = max_senders
        self._seen: dict[str, tuple[int, int]] = {}  # highest number; bit i: highest - i was seen
        self._lock = threading.Lock()

    def check(self, sender: str, sequence: int) -> None:
        """Note a message. Raises WireError when it was seen before or is older than the window."""
        with self._lock:
            if sender not in self._seen and len(self._seen) >= self._max_senders:
                raise WireError(f"{len(self._seen)} senders are known, the most allowed; {sender!r:.80} is refused")
            highest, bits = self._seen.get(sender, (-1, 0))
            age = highest - sequence
            if age >= self._window:
                raise WireError(f"message {sequence} of {sender!r:.80} is too old: {highest} has been seen")
            if age >= 0 and bits >> age & 1:
                raise WireError(f"message {sequence} of {sender!r:.80} came a second time; it is ignored")
            if age >= 0:
                self._seen[sender] = (highest, bits | 1 << age)
            else:
                # A jump past the window forgets all; shifting by its full length could take any amount of memory.
                kept = bits << -age if -age < self._window else 0
                self._seen[sender] = (sequence, (kept | 1) & ((1 << self._window) - 1))

    def forget(self, sender: str) -> None:
        """Drop what is known of a sender that left for good."""
        with self._lock:
            self._seen.pop(sender, None)
