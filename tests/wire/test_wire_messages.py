"""Messages: what goes in comes out; whatever else comes in ends in a WireError and costs little."""

from __future__ import annotations

import json
import random
import socket
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import WireError
from edgeward.wire.frames import receive
from edgeward.wire.header import VERSION, Header, checksum
from edgeward.wire.messages import DTYPES, Limits, Message, TensorPart, joined, pack, unpack
from edgeward.wire.strictjson import load

FLOATS = np.arange(12, dtype="<f4").reshape(3, 4)
PART = TensorPart("identity", "F32", (3, 4), FLOATS.data)
MESSAGE = Message("run", {"stage": 2, "name": "Brücke", "none": None}, (PART, PART), sequence=7)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def parts(draw):
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    if draw(st.booleans()):
        return TensorPart(
            "identity", dtype, shape, memoryview(random.Random(1).randbytes(int(np.prod(shape)) * DTYPES[dtype]))
        )
    data = draw(st.binary(max_size=200))
    return TensorPart(
        draw(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda n: n != "identity")),
        dtype,
        shape,
        memoryview(data),
        draw(st.floats(0, 1e30)),
    )


messages = st.builds(
    Message,
    st.from_regex(r"[a-z][a-z0-9._-]{0,63}", fullmatch=True),
    st.dictionaries(texts, values, max_size=4),
    st.lists(parts(), max_size=4).map(tuple),
    st.integers(0, 2**64 - 1),
)


def sealed(body: object, payload: bytes = b"", text: bytes | None = None) -> bytes:
    """A message with right lengths and checksums around any JSON: what a hostile sender makes."""
    text = json.dumps(body).encode() if text is None else text
    text += b" " * (-len(text) % 64)
    return Header(len(text), len(payload), 0, checksum([payload])).pack(text) + payload


@settings(max_examples=150, deadline=None, derandomize=True)
@given(messages)
def test_what_is_packed_is_unpacked(message):
    buffers = pack(message)
    assert unpack(joined(buffers)) == message
    assert unpack(b"".join(buffers)) == message
    assert len(joined(buffers)) % 64 == 0


def test_tensors_are_not_copied():
    source = np.arange(1000, dtype="<i8")
    message = Message("run", {}, (TensorPart("identity", "I64", (1000,), source.data),))
    head, data = pack(message)[:2]
    assert len(head) % 64 == 0
    assert np.shares_memory(np.frombuffer(data, np.uint8), source)
    buffer = joined(pack(message))
    assert np.shares_memory(np.frombuffer(unpack(buffer).tensors[0].data, np.uint8), np.frombuffer(buffer, np.uint8))
    np.testing.assert_array_equal(np.frombuffer(unpack(buffer).tensors[0].data, "<i8"), source)


def test_the_frame_costs_under_one_percent_of_a_mebibyte():
    part = TensorPart("identity", "U8", (1 << 20,), memoryview(bytes(1 << 20)))
    assert len(joined(pack(Message("run", {"stage": 1}, (part,))))) <= 1.01 * (1 << 20)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(noise, with_magic):
    with pytest.raises(WireError):
        unpack(b"EDGW\x01\x00\x00\x00" + noise if with_magic else noise)


def test_every_flipped_bit_is_noticed():
    whole = joined(pack(MESSAGE))
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            broken = bytearray(whole)
            broken[position] ^= 1 << bit
            with pytest.raises(WireError):
                unpack(broken)


def test_every_truncation_and_every_tail_is_noticed():
    whole = bytes(joined(pack(MESSAGE)))
    for length in range(len(whole)):
        with pytest.raises(WireError):
            unpack(whole[:length])
    with pytest.raises(WireError, match="announces"):
        unpack(whole + b"\0" * 64)


ROW = ["identity", "F32", [16], 64, 0.0]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"kind": "run", "meta": {}},
        {"kind": "run", "meta": [], "tensors": [ROW]},
        {"kind": "run", "meta": {}, "tensors": [ROW], "more": 1},
        {"kind": "Run!", "meta": {}, "tensors": [ROW]},
        {"kind": 5, "meta": {}, "tensors": [ROW]},
        {"kind": "run", "meta": {}, "tensors": {}},
        {"kind": "run", "meta": {}, "tensors": []},
        {"kind": "run", "meta": {}, "tensors": [ROW, ROW]},
        *(
            {"kind": "run", "meta": {}, "tensors": [[*ROW[:place], wrong, *ROW[place + 1 :]]]}
            for place, wrong in [
                (0, "Identity"), (0, None), (0, ["identity"]), (1, "F31"), (1, ["F32"]), (1, {"a": 1}), (2, 16), (2, [-16]), (2, [16.0]),
                (2, [True]), (2, [2**70]), (2, [1] * 33), (2, [15]), (2, [[16]]), (3, -64), (3, 65), (3, 2**63), (3, "64"),
                (3, 0), (3, None), (3, True), (4, -1.0), (4, "0"), (4, None), (4, True), (4, 10**400),
            ]
        ),
        {"kind": "run", "meta": {}, "tensors": [ROW[:4]]},
        {"kind": "run", "meta": {}, "tensors": [dict.fromkeys("abcde", 1)]},
    ],
)  # fmt: skip
def test_a_well_sealed_lie_is_refused(body):
    assert unpack(sealed({"kind": "run", "meta": {}, "tensors": [ROW]}, bytes(64))).tensors[0].elements == 16
    with pytest.raises(WireError):
        unpack(sealed(body, bytes(64)))


@pytest.mark.parametrize(
    "text",
    [
        b'{"kind":"run","kind":"run","meta":{},"tensors":[]}',
        b'{"kind":"run","meta":{"a":{"b":1,"b":2}},"tensors":[]}',
        b'{"kind":"run","meta":{"a":NaN},"tensors":[]}',
        b'{"kind":"run","meta":{"a":-Infinity},"tensors":[]}',
        b'{"kind":"run","meta":{"a":1e999},"tensors":[]}',
        b'{"kind":"run","meta":{"a":' + b"9" * 5000 + b'},"tensors":[]}',
        b'{"kind":"run","meta":{"a":"\\ud800"},"tensors":[]}',
        b'{"kind":"run","meta":{"\\udfff":1},"tensors":[]}',
        b'{"kind":"run","meta":{"a":' + b"[" * 40 + b"]" * 40 + b'},"tensors":[]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"kind":"run","meta":{},"tensors":[]} 1',
        b"\xff\xfe",
        b"",
    ],
)
def test_hostile_json_is_refused(text):
    with pytest.raises(WireError):
        unpack(sealed(None, text=text))
    with pytest.raises(WireError):
        load(memoryview(text))


def test_nothing_is_allocated_for_announced_sizes():
    huge = struct.pack("<4sHHIIQQ", b"EDGW", VERSION, 0, 64, 0, 1 << 50, 0) + bytes(32)
    claims = sealed({"kind": "run", "meta": {}, "tensors": [["zstd", "F32", [1 << 40], 64, 0.0]]}, bytes(64))
    tracemalloc.start()
    try:
        for data, what in ((huge, "max_bytes"), (claims, "max_elements")):
            with pytest.raises(WireError, match=what):
                unpack(data)
        left, right = socket.socketpair()
        with left, right:
            left.sendall(huge)
            with pytest.raises(WireError, match="max_bytes"):
                receive(right)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_limits_hold_for_sender_and_receiver():
    whole = joined(pack(MESSAGE))
    for limits in (
        Limits(max_bytes=len(whole) - 1),
        Limits(max_meta_bytes=64),
        Limits(max_tensors=1),
        Limits(max_elements=23),
    ):
        with pytest.raises(WireError, match="at most"):
            pack(MESSAGE, limits)
        with pytest.raises(WireError, match="at most"):
            unpack(whole, limits)
    assert unpack(whole, Limits(len(whole), 640, 2, 24)) == MESSAGE
    with pytest.raises(WireError, match="max_bytes is 0"):
        Limits(max_bytes=0)


def test_another_version_is_named_with_the_remedy():
    whole = joined(pack(MESSAGE))
    whole[4:6] = struct.pack("<H", 9)
    with pytest.raises(WireError, match=f"version 9, .* version {VERSION}; upgrade"):
        unpack(whole)


@pytest.mark.parametrize(
    "meta", [{"a": float("nan")}, {1: 2}, {"a": b"x"}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": 10**5000}]
)
def test_values_that_are_not_json_are_refused_at_the_sender(meta):
    with pytest.raises(WireError):
        pack(Message("run", meta))
    cyclic: dict[str, object] = {}
    cyclic["self"] = cyclic
    with pytest.raises(WireError, match="deeper"):
        pack(Message("run", cyclic))


def test_wrong_parts_name_what_is_wrong():
    with pytest.raises(WireError, match="needs 48"):
        TensorPart("identity", "F32", (3, 4), memoryview(bytes(47)))
    with pytest.raises(WireError, match="contiguous"):
        TensorPart("identity", "F32", (4, 3), FLOATS.T.data)
    with pytest.raises(WireError, match="did you mean 'F32'"):
        TensorPart("identity", "F3", (3, 4), FLOATS.data)
    with pytest.raises(WireError, match="float"):
        TensorPart("identity", "F32", (), 1.0)
    with pytest.raises(WireError, match="sequence"):
        Message("run", sequence=-1)
