"""Bytes from strangers: random, flipped, cut short, or announcing more than is allowed."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from edgeward.errors import WireError
from edgeward.wire.codecs import decode_any, parse_codec

NAMES = [
    *(
        [
            "identity",
            "identity+zero+zstd",
            "fp16",
            "bf16+zstd",
            "int8",
            "int4+zero",
            "int8c",
            "int4c+zstd",
            "float8-e4m3",
            "float6-e3m2@7",
        ]
    ),
    *(["float4-e3m0+zero+zstd", "float8-e5m2@256+zero", "int8c+zero", "int8+stochastic", "uint8", "png", "jpeg90"]),
]
LIMIT = 1 << 20


def blob_of(name: str) -> bytes:
    if name in ("png", "jpeg90"):
        pytest.importorskip("cv2")
    array = np.random.default_rng(0).random((1, 3, 16, 20), np.float32)
    array[array < 0.4] = 0
    return bytes(parse_codec(name).encode(array))


def decoded_or_refused(data: bytes) -> bool:
    """Whether an array within the limit came out; anything but that or a WireError fails the test."""
    try:
        found = decode_any(data, LIMIT)
    except WireError:
        return False
    assert isinstance(found, np.ndarray)
    assert found.nbytes <= LIMIT
    return True


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bits_and_bytes(name):
    blob, random = blob_of(name), np.random.default_rng(5)
    head = range(min(60, len(blob)))
    refused = 0
    for place in [*head, *random.integers(0, len(blob), 150)]:
        for value in {int(random.integers(256)), 0, 255, blob[place] ^ (1 << int(random.integers(8)))}:
            damaged = bytearray(blob)
            damaged[place] = value
            refused += not decoded_or_refused(bytes(damaged))
    assert refused > 20  # what a head says is checked; bits of values cannot be, messages have a checksum for that


@pytest.mark.parametrize("name", NAMES)
def test_cut_short_or_too_long(name):
    blob = blob_of(name)
    for size in [*range(min(80, len(blob))), *range(80, len(blob), 37), len(blob) - 1]:
        with pytest.raises(WireError):
            decode_any(blob[:size], LIMIT)
    if name not in ("png", "jpeg90"):
        with pytest.raises(WireError):
            decode_any(blob + b"\0", LIMIT)


def test_random_bytes():
    random = np.random.default_rng(6)
    starts = [b"", *(blob_of(name)[:size] for name in NAMES for size in (2, 4, 16, 24, 40))]
    for start in starts:
        for _ in range(20):
            assert not decoded_or_refused(start + random.bytes(int(random.integers(0, 300))))


@pytest.mark.parametrize("name", NAMES)
def test_arrays_above_the_limit_are_refused(name):
    blob = blob_of(name)
    assert decode_any(blob, 3 * 16 * 20 * 4).nbytes == 3 * 16 * 20 * 4
    with pytest.raises(WireError):
        decode_any(blob, 3 * 16 * 20 * 4 - 1)
    with pytest.raises(WireError):
        parse_codec(name).decode(blob, 100)


@pytest.mark.parametrize("name", NAMES)
def test_never_allocates_far_above_the_limit(name):
    """Every number of the head is replaced by large ones; what is allocated stays near the limit."""
    blob = blob_of(name)
    decoded_or_refused(blob)  # imports and compiles before memory is counted
    tracemalloc.start()
    try:
        for place in range(min(80, len(blob) - 8)):
            for number in (1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, LIMIT):
                damaged = bytearray(blob)
                struct.pack_into("<Q", damaged, place, number)
                decoded_or_refused(bytes(damaged))
        assert tracemalloc.get_traced_memory()[1] < 6 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_compression_bomb_is_refused():
    zstandard = pytest.importorskip("zstandard")
    blob = bytes(parse_codec("identity+zstd").encode(np.zeros(100_000, np.float32)))
    frame = blob[blob.index(b"\x28\xb5\x2f\xfd") :]
    for size in (1 << 26, 400_001):
        bomb = zstandard.ZstdCompressor().compress(bytes(size))
        unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))
        for body in (bomb, unsized):
            with pytest.raises(WireError):
                decode_any(blob.replace(frame, body), 1 << 20)


def test_a_picture_larger_than_announced_is_refused_before_it_is_decoded():
    """A PNG whose header claims 60000 x 60000 pixels, in a blob that announces 16 x 20."""
    blob = blob_of("png")
    start = blob.index(b"\x89PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = blob[start : start + 12] + header + struct.pack(">I", zlib.crc32(header)) + blob[start + 33 :]
    with pytest.raises(WireError):
        decode_any(blob[:start] + bomb)


@pytest.mark.parametrize("value", [None, 5, "text", np.zeros((4, 4))[::2, ::2]])
def test_what_is_no_buffer_of_bytes_is_refused(value):
    with pytest.raises((WireError, TypeError)):
        decode_any(value)


@pytest.mark.parametrize("claimed", [1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_chunk_longer_than_its_png_never_reaches_the_decoder(claimed, monkeypatch):
    """OpenCV would allocate what the chunk claims: gigabytes, of which tracemalloc sees nothing."""
    cv2 = pytest.importorskip("cv2")
    blob = bytearray(blob_of("png"))
    struct.pack_into(">I", blob, blob.index(b"\x89PNG") + 33, claimed)
    called: list[object] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *given: called.append(given))
    with pytest.raises(WireError):
        decode_any(bytes(blob), LIMIT)
    assert not called


@pytest.mark.parametrize("name", ["identity", "int8", "int8c", "float8-e4m3", "float4-e3m0+zero", "uint8"])
@pytest.mark.parametrize("shape", [(0, 1 << 62), (0, (1 << 64) - 1), (1 << 63, 0)])
def test_no_values_in_more_dimensions_than_can_be_counted(name, shape):
    blob = bytes(parse_codec(name).encode(np.zeros((0, 3), np.float32)))
    with pytest.raises(WireError):
        decode_any(blob[:-16] + struct.pack("<2Q", *shape))


def test_more_dimensions_than_a_blob_can_hold_are_refused():
    with pytest.raises(WireError, match="dimensions"):
        parse_codec("int8").encode(np.zeros((1,) * 33, np.float32))
