"""Floats of 8, 6 or 4 bits with one shared exponent, after AccEPT (arXiv 2311.05827).

    exponents, codes = SharedFloat(4, 3, 0, Rounding()).codes(values)   # sign, 4 exponent bits, 3 mantissa bits

With e_max the largest exponent after rounding, a code holds sign, exponent - lowest + 1 and mantissa, where lowest is
e_max - 2^E + 2; what lies below becomes zero. The bit layout is our own: the paper's is not published.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeward.wire.codecs.base import Floats
from edgeward.wire.codecs.quantise import Codes, Quantiser, Rounding, extent

__all__ = ["SharedFloat"]

_INFINITE = 255


class SharedFloat(Quantiser):
    """exponent, mantissa: bits. block: values that share an exponent, 0 for all."""

    def __init__(self, exponent: int, mantissa: int, block: int, rounding: Rounding) -> None:
        self.exponent, self.mantissa, self.block = exponent, mantissa, block
        self.bits = 1 + exponent + mantissa
        self.name = f"float{self.bits}-e{exponent}m{mantissa}" + (f"@{block}" if block else "")
        self._rounding = rounding

    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        from edgeward.wire.codecs.kernels import block_peaks, float_codes

        bits = values.view(np.uint32)
        shift = 23 - self.mantissa
        half = 1 << (shift - 1)
        if self._rounding.stochastic:  # rounded here, so that the loop below only cuts off
            magnitude = (bits & np.uint32(0x7FFFFFFF)) + self._rounding.words(bits.size, 1 << shift)
            bits, half = (magnitude & np.uint32(0x7FFFFFFF)) | (bits & np.uint32(0x80000000)), 0
        block = self.block or bits.size
        if self.block:
            peaks = block_peaks(bits, block)
        else:
            peaks = np.array([extent(values)], np.float32).view(np.uint32)
            if self._rounding.stochastic:
                peaks = np.array([(bits & np.uint32(0x7FFFFFFF)).max()], np.uint32)
        peaks = ((peaks + np.uint32(half)) >> np.uint32(23)).astype(np.int32)
        if int(peaks.max()) >= _INFINITE:
            return None
        codes = float_codes(bits, np.uint32(half), self.exponent, self.mantissa, self._bases(peaks), block)
        return peaks.astype(np.uint8).tobytes(), codes

    def _bases(self, peaks: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Lowest exponent - 1 of every block; exponent 0 holds zeros and what is too small to matter."""
        lowest = np.maximum(peaks - (1 << self.exponent) + 2, 1)
        return np.ascontiguousarray(lowest - 1, np.int32)

    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        bases = self._bases(np.frombuffer(parameters, np.uint8).astype(np.int32))
        table = self._table(int(bases.max()))
        from edgeward.wire.codecs.kernels import scaled

        # One table for all blocks: their exponents differ by a power of two, which multiplies exactly.
        found: Floats = scaled(codes, table, np.ldexp(1.0, bases - int(bases.max())), self.block or codes.size)
        return found

    def _table(self, base: int) -> Floats:
        codes = np.arange(1 << self.bits)
        magnitude = codes & ((1 << (self.bits - 1)) - 1)
        exponent, mantissa = magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1)
        values = np.ldexp(1 + mantissa / (1 << self.mantissa), exponent + base - 127)
        values = np.where(exponent == 0, 0.0, values)
        with np.errstate(over="ignore"):
            table: Floats = np.where(codes >> (self.bits - 1), -values, values).astype(np.float32)
        return table

    def parameter_bytes(self, count: int) -> int:
        return -(-count // self.block) if self.block else 1

    def bound(self, values: Floats) -> float:
        most = extent(values)
        step = 2.0 ** -(self.mantissa + 1)
        kept = most * (2 * step if self._rounding.stochastic else step / (1 + step))
        # What is flushed lies below the smallest code, whose exponent follows from the largest value (rounded up).
        peak = int(np.frexp(most * (1 + 2 * step))[1]) + 126 if most > 0 else 0
        lowest = max(peak - (1 << self.exponent) + 2, 1)
        return max(kept, min(most, float(np.ldexp(1.0, lowest - 127))))
