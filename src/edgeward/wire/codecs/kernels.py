"""Inner loops of the codecs, compiled when they are first used.

    codes = quantised(values, low, 0, scale, scale, 255)     # uint8, scale = 255 / (high - low)
    codes = float_codes(values.view(np.uint32), half, exponent, mantissa, bases, block)

Plain loops over flat arrays, which numba turns into vector instructions; compiled code is kept on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "block_peaks",
    "float_codes",
    "packed6",
    "quantised",
    "scaled",
    "unpacked4",
    "unpacked6",
    "with_zeros",
    "without_zeros",
]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


@njit("u1[::1](f4[::1], f8, i8, f8, f8, i8)", cache=True, nogil=True)
def quantised(  # pragma: no cover (runs compiled)
    values: Any, origin: float, steps: int, below: float, above: float, mask: int
) -> Any:
    """Steps from the origin to the nearest whole number, of a size for each of its sides, modulo mask + 1.

    steps: how many lie below the origin. below, above: steps per unit.
    """
    codes = np.empty(values.size, np.uint8)
    offset, base, cut = np.float64(steps) + 0.5, np.int32(steps), np.int32(mask)
    for index in range(values.size):
        distance = np.float64(values[index]) - origin
        scale = above if distance > 0 else below
        codes[index] = np.uint8((np.int32(distance * scale + offset) - base) & cut)
    return codes


@njit("u1[::1](u4[::1], u4, i8, i8, i4[::1], i8)", cache=True, nogil=True)
def float_codes(  # pragma: no cover (runs compiled)
    bits: Any, half: Any, exponent: int, mantissa: int, bases: Any, block: int
) -> Any:
    """Codes sign | exponent | mantissa of float32 bits; `bases[k]` is (lowest exponent - 1) of block k."""
    codes = np.empty(bits.size, np.uint8)
    shift, floor = 23 - mantissa, 1 << mantissa
    for number in range(bases.size):
        base = bases[number] << mantissa
        # Slices count from 0, which spares the check for negative indices and lets the loop be vectorised.
        part = bits[number * block : (number + 1) * block]
        written = codes[number * block : (number + 1) * block]
        for index in range(part.size):
            rounded = np.int32((part[index] & np.uint32(0x7FFFFFFF)) + half)
            code = (rounded >> shift) - base
            code = code if code >= floor else 0
            sign = np.int32(part[index] >> np.uint32(31)) << (exponent + mantissa)
            written[index] = np.uint8(code | sign)
    return codes


@njit("f4[::1](u1[::1], f4[::1], f8[::1], i8)", cache=True, nogil=True)
def scaled(codes: Any, table: Any, scales: Any, block: int) -> Any:  # pragma: no cover (runs compiled)
    """The table's values at the codes, times the scale of their block."""
    values = np.empty(codes.size, np.float32)
    for number in range(scales.size):
        part = codes[number * block : (number + 1) * block]
        written = values[number * block : (number + 1) * block]
        for index in range(part.size):
            written[index] = np.float32(table[part[index]] * scales[number])
    return values


@njit("u4[::1](u4[::1], i8)", cache=True, nogil=True)
def block_peaks(bits: Any, block: int) -> Any:  # pragma: no cover (runs compiled)
    """The largest magnitude of every block of float32 bits."""
    count = (bits.size + block - 1) // block
    peaks = np.zeros(count, np.uint32)
    for number in range(count):
        peak = np.uint32(0)
        part = bits[number * block : (number + 1) * block]
        for index in range(part.size):
            peak = max(peak, part[index] & np.uint32(0x7FFFFFFF))
        peaks[number] = peak
    return peaks


@njit("u1[::1](u1[::1])", cache=True, nogil=True)
def packed6(codes: Any) -> Any:  # pragma: no cover (runs compiled)
    """Four 6-bit codes in three bytes; their number is a multiple of four."""
    packed = np.empty(codes.size // 4 * 3, np.uint8)
    for group in range(codes.size // 4):
        a, b, c, d = codes[4 * group], codes[4 * group + 1], codes[4 * group + 2], codes[4 * group + 3]
        packed[3 * group] = a | (b << 6)
        packed[3 * group + 1] = (b >> 2) | (c << 4)
        packed[3 * group + 2] = (c >> 4) | (d << 2)
    return packed


@njit("u1[::1](u1[::1])", cache=True, nogil=True)
def unpacked4(packed: Any) -> Any:  # pragma: no cover (runs compiled)
    """Two 4-bit codes of every byte, the one in its lower half first."""
    codes = np.empty(packed.size * 2, np.uint8)
    for index in range(packed.size):
        codes[2 * index] = packed[index] & 15
        codes[2 * index + 1] = packed[index] >> 4
    return codes


@njit("u1[::1](u1[::1])", cache=True, nogil=True)
def unpacked6(packed: Any) -> Any:  # pragma: no cover (runs compiled)
    """What `packed6` packed."""
    codes = np.empty(packed.size // 3 * 4, np.uint8)
    for group in range(packed.size // 3):
        a, b, c = packed[3 * group], packed[3 * group + 1], packed[3 * group + 2]
        codes[4 * group] = a & 63
        codes[4 * group + 1] = (a >> 6) | ((b & 15) << 2)
        codes[4 * group + 2] = (b >> 4) | ((c & 3) << 4)
        codes[4 * group + 3] = c >> 2
    return codes


@njit(cache=True, nogil=True)
def without_zeros(codes: Any) -> Any:  # pragma: no cover (runs compiled)
    """A bitmap of where codes are not zero, first code in the lowest bit, and these codes."""
    bitmap = np.zeros((codes.size + 7) // 8, np.uint8)
    kept = np.empty(codes.size + 1, codes.dtype)
    count: Any = 0
    whole = codes.size // 8
    for group in range(whole):
        bits = np.uint8(0)
        for bit in range(8):
            code = codes[8 * group + bit]
            present = np.uint8(code != 0)
            kept[count] = code
            count += present
            bits |= present << np.uint8(bit)
        bitmap[group] = bits
    for index in range(8 * whole, codes.size):
        if codes[index] != 0:
            kept[count] = codes[index]
            count += 1
            bitmap[whole] |= np.uint8(1 << (index - 8 * whole))
    return bitmap, kept[:count]


@njit(cache=True, nogil=True)
def with_zeros(bitmap: Any, kept: Any, size: int) -> Any:  # pragma: no cover (runs compiled)
    """What `without_zeros` took apart. kept: as many as the bitmap has ones, then one more that does not matter."""
    codes = np.empty(size, kept.dtype)
    count = 0
    for index in range(size):
        present = (bitmap[index >> 3] >> np.uint8(index & 7)) & np.uint8(1)
        codes[index] = kept[count] * present
        count += present
    return codes
