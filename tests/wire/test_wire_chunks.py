"""Long messages in pieces: put together whatever their order among senders, never larger than announced."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.errors import WireError
from edgeward.wire.chunks import CHUNK_BYTES, Assembler, pieces

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 77]


@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=5), st.integers(0, 1000))
def test_messages_of_many_senders_come_out_whole_however_their_pieces_mix(sizes, seed):
    draw = random.Random(seed)
    wanted = [draw.randbytes(size) for size in sizes]
    queues = [
        [(bytes(label), bytes(piece)) for label, piece in pieces(memoryview(data), bytes([n]) * 16, 7)]
        for n, data in enumerate(wanted)
    ]
    assert all(len(piece) <= CHUNK_BYTES for queue in queues for _, piece in queue)
    assembler = Assembler(1 << 20)
    found = []
    while any(queues):
        whole = assembler.add(*draw.choice([queue for queue in queues if queue]).pop(0))
        if whole is not None:
            found.append(bytes(whole))
    assert sorted(found) == sorted(wanted)


def labelled(size=3 * CHUNK_BYTES):
    return [(bytes(label), bytes(piece)) for label, piece in pieces(memoryview(bytes(size)), b"s" * 16, 1)]


def test_missing_repeated_and_stray_pieces_are_refused_and_the_next_message_passes():
    first, second, third = labelled()
    for order in ([first, third], [first, second, second], [second], [first, (first[0][:-1], b"x")]):
        assembler = Assembler(1 << 20)
        with pytest.raises(WireError):
            for one in order:
                assembler.add(*one)
        assert assembler.add(*first) is None
        assert assembler.add(*second) is None
        assert assembler.add(*third) == bytes(3 * CHUNK_BYTES)


def test_more_than_allowed_is_refused_and_the_unfinished_do_not_pile_up():
    with pytest.raises(WireError, match="at most"):
        Assembler(2 * CHUNK_BYTES).add(*labelled()[0])
    assembler = Assembler(1 << 20)
    for number in range(1000):
        start = next(iter(pieces(memoryview(bytes(1 << 20)), number.to_bytes(16, "big"), 1)))
        assert assembler.add(bytes(start[0]), bytes(start[1])) is None
    assert sum(one.whole.nbytes for one in assembler._partial.values()) <= 2 << 20
