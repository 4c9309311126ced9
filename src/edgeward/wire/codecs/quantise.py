"""Ways to write a row of float32 values in fewer bits; the rest of a codec is the same for all.

    body = Halves("fp16").pack(values)          # None: these values cannot be held, send them as they are
    values = Halves("fp16").unpack(body, count)

Every way reproduces its own output: what was unpacked packs to the same bytes again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import WireError
from edgeward.wire.codecs.base import Floats

__all__ = ["Affine", "ChannelAffine", "Halves", "Quantiser", "Rounding", "extent", "halved", "pairs_table", "taken"]


class Rounding:
    """To the nearest value, or up or down by chance so that the mean is right (seeded)."""

    def __init__(self, stochastic: bool = False, seed: int = 0) -> None:
        self.stochastic = stochastic
        self._random = np.random.default_rng(seed)

    def shares(self, count: int) -> Floats:
        """What to add before rounding down: a half, or random shares below 1."""
        return self._random.random(count, np.float32)

    def words(self, count: int, limit: int) -> npt.NDArray[np.uint32]:
        """Random whole numbers below `limit`."""
        return self._random.integers(0, limit, count, np.uint32)


class Quantiser(ABC):
    """name: as in a codec's name. bits: of one value."""

    name: str
    bits: int

    def of(self, shape: tuple[int, ...]) -> Quantiser:
        """This way for arrays of a shape; most do not care."""
        return self

    @abstractmethod
    def pack(self, values: Floats) -> bytes | None:
        """float32 [n], all finite, n at least 1, as bytes; None when they cannot be held in this form."""

    @abstractmethod
    def unpack(self, body: memoryview, count: int) -> Floats:
        """float32 [count] of a body of `size(count)` bytes."""

    @abstractmethod
    def size(self, count: int) -> int:
        """Bytes of the body of `count` values."""

    @abstractmethod
    def bound(self, values: Floats) -> float:
        """The largest absolute error that a value of [n] can have."""


class Halves(Quantiser):
    """IEEE 754 half precision ("fp16"), or the upper half of float32 ("bf16"); both to the nearest, ties to even."""

    bits = 16

    def __init__(self, name: str) -> None:
        self.name = name

    def pack(self, values: Floats) -> bytes | None:
        if self.name == "fp16":
            if extent(values) >= 65_520:  # what rounds to infinity
                return None
            import torch  # numpy converts halves one by one, ten times slower

            return torch.from_numpy(values).half().numpy().tobytes()
        words = values.view(np.uint32)
        upper = (words + (np.uint32(0x7FFF) + ((words >> 16) & 1))) >> 16
        if bool(((upper & 0x7F80) == 0x7F80).any()):
            return None
        return upper.astype("<u2").tobytes()

    def unpack(self, body: memoryview, count: int) -> Floats:
        if self.name == "fp16":
            import torch

            halves = np.frombuffer(body, "<f2").copy()
            found: Floats = torch.from_numpy(halves).float().numpy()
            return found
        return (np.frombuffer(body, "<u2").astype(np.uint32) << 16).view(np.float32)

    def size(self, count: int) -> int:
        return 2 * count

    def bound(self, values: Floats) -> float:
        most = extent(values)
        return most * 2.0**-11 + 2.0**-25 if self.name == "fp16" else most * 2.0**-8 + 2.0**-134


class Affine(Quantiser):
    """low + code * (high - low) / levels, from the smallest to the largest value, both of which are kept exactly."""

    def __init__(self, name: str, bits: int, rounding: Rounding) -> None:
        self.name, self.bits = name, bits
        self._levels = (1 << bits) - 1
        self._rounding = rounding

    def pack(self, values: Floats) -> bytes | None:
        low, high = float(values.min()), float(values.max())
        scale = self._levels / (high - low) if high > low else 0.0
        if not np.isfinite(scale):  # a range below any step
            return None
        codes = self._codes(values, low, scale)
        body = codes if self.bits == 8 else halved(codes)
        return np.array([low, high], "<f4").tobytes() + body.tobytes()

    def _codes(self, values: Floats, low: float, scale: float) -> npt.NDArray[np.uint8]:
        if not self._rounding.stochastic:
            from edgeward.wire.codecs.kernels import quantised

            found: npt.NDArray[np.uint8] = quantised(values, low, scale)
            return found
        steps = (values.astype(np.float64) - low) * scale + self._rounding.shares(values.size)
        return np.minimum(steps, self._levels).astype(np.uint8)

    def unpack(self, body: memoryview, count: int) -> Floats:
        low, high = (float(one) for one in np.frombuffer(body[:8], "<f4"))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise WireError("the range of an encoded tensor is damaged; it must be sent again")
        table = (low + (high - low) * np.arange(self._levels + 1) / self._levels).astype(np.float32)
        table[0], table[-1] = low, high  # the sum rounds
        return taken(table, body[8:], self.bits, count)

    def size(self, count: int) -> int:
        return 8 + (count * self.bits + 7) // 8

    def bound(self, values: Floats) -> float:
        low, high = float(values.min()), float(values.max())
        step = (high - low) / self._levels
        return step * (1.0 if self._rounding.stochastic else 0.5) + max(-low, high, 0.0) * 2.0**-22


class ChannelAffine(Quantiser):
    """`Affine` for each channel on its own: of [N, C, ...] the second axis, of other arrays all values together."""

    def __init__(self, name: str, bits: int, rounding: Rounding, layout: tuple[int, int, int] = (1, 1, 0)) -> None:
        self.name, self.bits = name, bits
        self._one, self._rounding, self._layout = Affine(name, bits, rounding), rounding, layout

    def of(self, shape: tuple[int, ...]) -> Quantiser:
        layout = (shape[0], shape[1], math.prod(shape[2:])) if len(shape) > 1 else (1, 1, math.prod(shape))
        return ChannelAffine(self.name, self.bits, self._rounding, layout)

    def pack(self, values: Floats) -> bytes | None:
        channels = values.reshape(self._layout).transpose(1, 0, 2)
        bodies = [self._one.pack(np.ascontiguousarray(one).reshape(-1)) for one in channels]
        return None if None in bodies else b"".join(body for body in bodies if body is not None)

    def unpack(self, body: memoryview, count: int) -> Floats:
        samples, channels, inner = self._layout
        step = self._one.size(samples * inner)
        found = np.empty(self._layout, np.float32)
        for channel in range(channels):
            part = body[channel * step : (channel + 1) * step]
            found[:, channel] = self._one.unpack(part, samples * inner).reshape(samples, inner)
        return found.reshape(-1)

    def size(self, count: int) -> int:
        samples, channels, inner = self._layout
        return channels * self._one.size(samples * inner)

    def bound(self, values: Floats) -> float:
        return max(self._one.bound(one.reshape(-1)) for one in values.reshape(self._layout).transpose(1, 0, 2))


def extent(values: Floats) -> float:
    """The largest magnitude."""
    return max(float(values.max()), -float(values.min()))


def halved(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two 4-bit codes in a byte, the first in its lower half."""
    if codes.size % 2:
        codes = np.append(codes, np.uint8(0))
    packed: npt.NDArray[np.uint8] = codes[0::2] | np.left_shift(codes[1::2], 4, dtype=np.uint8)
    return packed


def pairs_table(table: Floats) -> npt.NDArray[np.complex64]:
    """For every byte the two values of its halves, as one item of eight bytes."""
    low, high = np.meshgrid(table, table)
    pairs: npt.NDArray[np.complex64] = np.stack([low.ravel(), high.ravel()], axis=1).view(np.complex64).ravel()
    return pairs


def taken(table: Floats, body: Any, bits: int, count: int) -> Floats:
    """The table's values at the codes in a body of 8-bit or 4-bit codes."""
    codes = np.frombuffer(body, np.uint8)
    if bits == 8:
        return np.take(table, codes, mode="clip")
    pairs: Floats = np.take(pairs_table(table), codes, mode="clip").view(np.float32)[:count]
    return pairs
