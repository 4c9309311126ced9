"""Codes of 4, 6, 8, 16 or 32 bits close together in bytes, the first in the lowest bits.

body = packed(codes, 6)                     # four codes in three bytes
codes = unpacked(body, 6, count)            # uint8
"""

from __future__ import annotations

import numpy as np

from edgeward.wire.codecs.quantise import Codes

__all__ = ["packed", "packed_bytes", "unpacked"]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes."""
    return -(-count // 4) * 3 if bits == 6 else -(-count * bits // 8)


def packed(codes: Codes, bits: int) -> bytes:
    """The codes as bytes, little-endian where one takes several."""
    if bits == 6:
        from edgeward.wire.codecs.kernels import packed6

        sixes: bytes = packed6(np.append(codes, np.zeros(-codes.size % 4, np.uint8))).tobytes()
        return sixes
    if bits == 4:
        even = np.append(codes, np.uint8(0)) if codes.size % 2 else codes
        return (even[0::2] | np.left_shift(even[1::2], 4, dtype=np.uint8)).tobytes()
    return codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()


def unpacked(body: memoryview, bits: int, count: int) -> Codes:
    """[count] codes of a body of `packed_bytes(count, bits)`; they may be written to."""
    if bits > 8:
        return np.frombuffer(body, f"<u{bits // 8}").astype(f"u{bits // 8}")
    data = np.frombuffer(body, np.uint8)
    if bits == 6:
        from edgeward.wire.codecs.kernels import unpacked6

        sixes: Codes = unpacked6(data.copy())[:count]
        return sixes
    if bits == 4:
        from edgeward.wire.codecs.kernels import unpacked4

        fours: Codes = unpacked4(data.copy())[:count]
        return fours
    return data.copy()
