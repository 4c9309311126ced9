"""Long messages in pieces, so that a thin link is not mistaken for a dead one while it carries one.

    for label, piece in pieces(data, sender, number):
        put(piece, label)
    whole = Assembler(limit).add(label, piece)      # None until the last piece is there

A piece is at most `CHUNK_BYTES` where a link may be thin; within a machine it may be `LARGEST_CHUNK`, since every piece
costs a fifth of a millisecond. Its label says whose and which message it is of, how long that is, and where it goes.
Data of one piece have no label.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeward.errors import WireError
from edgeward.units import format_bytes

__all__ = ["CHUNK_BYTES", "LARGEST_CHUNK", "Assembler", "pieces"]

CHUNK_BYTES = 128 << 10
LARGEST_CHUNK = 4 << 20
_LABEL = struct.Struct("<16sQQQ")
_UNDER_WAY = 64


def pieces(data: memoryview, sender: bytes, number: int, size: int = CHUNK_BYTES) -> Iterator[tuple[bytes, memoryview]]:
    """The label and bytes of each piece in order. sender: 16 bytes, different for every channel."""
    if data.nbytes <= size:
        yield b"", data
        return
    for start in range(0, data.nbytes, size):
        yield _LABEL.pack(sender, number, data.nbytes, start), data[start : start + size]


@dataclass
class _Partial:
    whole: memoryview
    done: int = 0


class Assembler:
    """Puts the pieces of messages of many senders together; pieces of one message come in order, or it is dropped.

    limit: bytes of a message. What is under way takes at most twice that; the oldest is given up for a newer one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._partial: OrderedDict[tuple[bytes, int], _Partial] = OrderedDict()

    def add(self, label: bytes, piece: bytes) -> bytes | memoryview | None:
        """The whole message when this was its last piece. Raises WireError for a piece that fits nowhere."""
        if not label:
            return piece
        if len(label) != _LABEL.size:
            raise WireError(f"a piece of a message has a label of {len(label)} bytes; {_LABEL.size} are expected")
        sender, number, total, start = _LABEL.unpack(label)
        if total > self.limit:
            raise WireError(f"a message of {format_bytes(total)} is announced; at most {format_bytes(self.limit)}")
        key = sender, number
        if start == 0:
            self._make_room(total)
            # numpy.empty touches no page: to announce much and send little costs nothing.
            self._partial[key] = _Partial(np.empty(total, np.uint8).data)
        partial = self._partial.get(key)
        end = start + len(piece)
        if partial is None or start != partial.done or end > partial.whole.nbytes or not piece:
            self._partial.pop(key, None)
            raise WireError("a piece of a message is missing or repeated; the message is dropped")
        partial.whole[start:end] = piece
        partial.done = end
        if end < partial.whole.nbytes:
            return None
        del self._partial[key]
        return partial.whole

    def _make_room(self, total: int) -> None:
        while self._partial and (
            len(self._partial) >= _UNDER_WAY
            or sum(one.whole.nbytes for one in self._partial.values()) + total > 2 * self.limit
        ):
            self._partial.popitem(last=False)
