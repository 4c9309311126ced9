"""Ways to write a row of float32 values as codes of fewer bits; the rest of a codec is the same for all.

    parameters, codes = Affine("int8", 8, Rounding()).codes(values)
    values = Affine("int8", 8, Rounding()).values(parameters, codes)

Every way reproduces its own output: values of codes have these codes. Wherever a way can say zero, code 0 does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from edgeward.errors import WireError
from edgeward.wire.codecs.base import Floats

__all__ = ["Affine", "ChannelAffine", "Codes", "Halves", "Quantiser", "Rounding", "Whole", "extent"]

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


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
    """name: as in a codec's name. bits: of one code."""

    name: str
    bits: int

    def of(self, shape: tuple[int, ...]) -> Quantiser:
        """This way for arrays of a shape; most do not care."""
        return self

    @abstractmethod
    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        """Parameters and codes [n] of float32 [n], all finite, n at least 1; None when they cannot be held."""

    @abstractmethod
    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        """float32 [n] of codes [n], n at least 1. Raises WireError for parameters that no values have."""

    @abstractmethod
    def bound(self, values: Floats) -> float:
        """The largest absolute error that a value of [n] can have."""

    def parameter_bytes(self, count: int) -> int:
        """Bytes of the parameters of `count` values."""
        return 0


class Whole(Quantiser):
    """The bits of float32 as they are, which lets zeros be left out of them."""

    name, bits = "identity", 32

    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        return b"", values.view(np.uint32)

    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        found: Floats = codes.view(np.float32)
        return found

    def bound(self, values: Floats) -> float:
        return 0.0


class Halves(Quantiser):
    """IEEE 754 half precision ("fp16"), or the upper half of float32 ("bf16"); both to the nearest, ties to even."""

    bits = 16

    def __init__(self, name: str) -> None:
        self.name = name

    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        if self.name == "fp16":
            if extent(values) >= 65_520:  # what rounds to infinity
                return None
            import torch  # numpy converts halves one by one, ten times slower

            return b"", torch.from_numpy(values).half().numpy().view(np.uint16)
        words = values.view(np.uint32)
        upper = ((words + (np.uint32(0x7FFF) + ((words >> 16) & 1))) >> 16).astype(np.uint16)
        return None if bool(((upper & 0x7F80) == 0x7F80).any()) else (b"", upper)

    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        found: Floats
        if self.name == "fp16":
            import torch

            found = torch.from_numpy(codes.view(np.float16)).float().numpy()
        else:
            found = (codes.astype(np.uint32) << 16).view(np.float32)
        return found

    def bound(self, values: Floats) -> float:
        most = extent(values)
        return most * 2.0**-11 + 2.0**-25 if self.name == "fp16" else most * 2.0**-8 + 2.0**-134


class Affine(Quantiser):
    """Even steps from the smallest to the largest value, both kept exactly, and zero too where it lies between them.

    There the steps below zero and above it differ a little, as neither end may move for zero to fall on a code.
    Codes count from zero (or from the smallest value) and wrap around, as two's complement does.
    """

    def __init__(self, name: str, bits: int, rounding: Rounding) -> None:
        self.name, self.bits = name, bits
        self._levels = (1 << bits) - 1
        self._rounding = rounding

    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        low, high = float(values.min()), float(values.max())
        origin, steps = self._origin(low, high)
        below = steps / (origin - low) if steps else 0.0
        above = (self._levels - steps) / (high - origin) if high > origin else 0.0
        codes: Codes
        if self._rounding.stochastic:
            distance = values.astype(np.float64) - origin
            chosen = distance * np.where(distance > 0, above, below) + steps + self._rounding.shares(values.size)
            codes = (np.clip(chosen, 0, self._levels).astype(np.int32) - steps & self._levels).astype(np.uint8)
        else:
            from edgeward.wire.codecs.kernels import quantised

            codes = quantised(values, origin, steps, below, above, self._levels)
        return np.array([low, high], "<f4").tobytes(), codes

    def _origin(self, low: float, high: float) -> tuple[float, int]:
        """The value of code 0, which is zero when the range has it, and how many steps lie below."""
        if not low <= 0 <= high or low == high:
            return low, 0
        return 0.0, min(max(round(-low / (high - low) * self._levels), int(low < 0)), self._levels - int(high > 0))

    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        low, high = (float(one) for one in np.frombuffer(parameters, "<f4"))
        if not -np.inf < low <= high < np.inf:
            raise WireError(f"{low} to {high} is no range of an encoded tensor; it is damaged and must be sent again")
        origin, steps = self._origin(low, high)
        below, above = np.linspace(low, origin, steps + 1), np.linspace(origin, high, self._levels - steps + 1)
        table = np.concatenate([above, below[:-1]]).astype(np.float32)
        from edgeward.wire.codecs.kernels import scaled

        found: Floats = scaled(codes, table, np.ones(1), codes.size)
        return found

    def parameter_bytes(self, count: int) -> int:
        return 8

    def bound(self, values: Floats) -> float:
        low, high = float(values.min()), float(values.max())
        if low == high:
            return 0.0
        origin, steps = self._origin(low, high)
        step = max((origin - low) / max(steps, 1), (high - origin) / max(self._levels - steps, 1))
        return 2.0**-149 + step * (1.0 if self._rounding.stochastic else 0.5) + max(-low, high, 0.0) * 2.0**-22


class ChannelAffine(Quantiser):
    """`Affine` for each channel on its own: of [N, C, ...] the second axis, of other arrays all values together."""

    def __init__(self, name: str, bits: int, rounding: Rounding, layout: tuple[int, int, int] = (1, 1, 0)) -> None:
        self.name, self.bits = name, bits
        self._one, self._rounding, self._layout = Affine(name, bits, rounding), rounding, layout

    def of(self, shape: tuple[int, ...]) -> Quantiser:
        layout = (shape[0], shape[1], math.prod(shape[2:])) if len(shape) > 1 else (1, 1, math.prod(shape))
        return ChannelAffine(self.name, self.bits, self._rounding, layout)

    def codes(self, values: Floats) -> tuple[bytes, Codes] | None:
        samples, _, inner = self._layout
        written, parameters = np.empty(self._layout, np.uint8), []
        for channel, one in enumerate(values.reshape(self._layout).transpose(1, 0, 2)):
            found = self._one.codes(np.ascontiguousarray(one).reshape(-1))
            if found is None:
                return None
            parameters.append(found[0])
            written[:, channel] = found[1].reshape(samples, inner)
        return b"".join(parameters), written.reshape(-1)

    def values(self, parameters: memoryview, codes: Codes) -> Floats:
        samples, channels, inner = self._layout
        found, each = np.empty(self._layout, np.float32), codes.reshape(self._layout)
        for channel in range(channels):
            own: Codes = np.ascontiguousarray(each[:, channel], np.uint8).reshape(-1)
            found[:, channel] = self._one.values(parameters[8 * channel : 8 * channel + 8], own).reshape(samples, inner)
        return found.reshape(-1)

    def parameter_bytes(self, count: int) -> int:
        return 8 * self._layout[1]

    def bound(self, values: Floats) -> float:
        return max(self._one.bound(one.reshape(-1)) for one in values.reshape(self._layout).transpose(1, 0, 2))


def extent(values: Floats) -> float:
    """The largest magnitude."""
    return max(float(values.max()), -float(values.min()))
