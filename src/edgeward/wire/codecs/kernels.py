"""Inner loops of the codecs, compiled when they are first used.

    codes = quantised(values, low, 255 / (high - low))       # uint8
    codes = float_codes(values.view(np.uint32), round_up, mantissa, exponent, lowest)

Plain loops over flat arrays, which numba turns into vector instructions; compiled code is kept on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["block_peaks", "float_codes", "packed6", "quantised", "unpacked6", "with_zeros", "without_zeros"]

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


@njit("u1[::1](f4[::1], f8, f8)", cache=True, nogil=True)
def quantised(values: Any, low: float, scale: float) -> Any:  # pragma: no cover (runs compiled)
    """(value - low) * scale to the nearest whole number, as bytes; the caller sees to it that these are 0 to 255."""
    codes = np.empty(values.size, np.uint8)
    for index in range(values.size):
        codes[index] = np.uint8(np.int32((np.float64(values[index]) - low) * scale + 0.5))
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
        for index in range(number * block, min((number + 1) * block, bits.size)):
            rounded = np.int32((bits[index] & np.uint32(0x7FFFFFFF)) + half)
            code = (rounded >> shift) - base
            code = code if code >= floor else 0
            sign = np.int32(bits[index] >> np.uint32(31)) << (exponent + mantissa)
            codes[index] = np.uint8(code | sign)
    return codes


@njit("u4[::1](u4[::1], i8)", cache=True, nogil=True)
def block_peaks(bits: Any, block: int) -> Any:  # pragma: no cover (runs compiled)
    """The largest magnitude of every block of float32 bits."""
    count = (bits.size + block - 1) // block
    peaks = np.zeros(count, np.uint32)
    for number in range(count):
        peak = np.uint32(0)
        for index in range(number * block, min((number + 1) * block, bits.size)):
            peak = max(peak, bits[index] & np.uint32(0x7FFFFFFF))
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


@njit("Tuple((u1[::1], f4[::1]))(f4[::1])", cache=True, nogil=True)
def without_zeros(values: Any) -> Any:  # pragma: no cover (runs compiled)
    """A bitmap of where values are not zero, first value in the lowest bit, and these values."""
    bitmap = np.zeros((values.size + 7) // 8, np.uint8)
    kept = np.empty(values.size + 1, np.float32)
    count: Any = 0
    whole = values.size // 8
    for group in range(whole):
        bits = np.uint8(0)
        for bit in range(8):
            value = values[8 * group + bit]
            present = np.uint8(value != 0)
            kept[count] = value
            count += present
            bits |= present << np.uint8(bit)
        bitmap[group] = bits
    for index in range(8 * whole, values.size):
        if values[index] != 0:
            kept[count] = values[index]
            count += 1
            bitmap[whole] |= np.uint8(1 << (index - 8 * whole))
    return bitmap, kept[:count]


@njit("f4[::1](u1[::1], f4[::1], i8)", cache=True, nogil=True)
def with_zeros(bitmap: Any, kept: Any, size: int) -> Any:  # pragma: no cover (runs compiled)
    """What `without_zeros` took apart; the bitmap has as many ones as there are values, at least one."""
    values = np.empty(size, np.float32)
    count, last = 0, kept.size - 1
    for index in range(size):
        present = (bitmap[index >> 3] >> np.uint8(index & 7)) & np.uint8(1)
        value = kept[min(count, last)]
        values[index] = value if present else np.float32(0)
        count += present
    return values
