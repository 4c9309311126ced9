"""What packing the tensors of a hop costs: bytes and lost accuracy per network, seconds per device.

    profile.packings["int8+zstd"].bytes[3]                  # what crosses behind block 2, packed
    profile.times["pi"].packings["int8+zstd"].pack[3]       # seconds that packing it takes there

A packing is a transfer layer, a codec, or both: "avg2-bilinear", "int8+zstd", "avg2-bilinear/int8+zstd" (the layer
first); "identity" sends tensors as they are. A network of n blocks has the boundaries 0 to n: 0 is the input, k + 1 is
behind block k, so n is the result.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["IDENTITY", "PackingCosts", "PackingTimes"]

IDENTITY = "identity"
"""The packing that changes nothing. Profiles do not list it."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PackingCosts(_Value):
    """Per boundary 0 to n: packed bytes, None where the tensors cannot be packed so; and what it loses.

    drop: loss of accuracy as a share of 1 (0.01 is one point), exactly 0.0 where nothing is lost, None where it was not
    measured. Negative ones (a lucky measurement) count as 0.
    """

    bytes: tuple[int | None, ...]
    drop: tuple[float | None, ...]

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if len(self.drop) != len(self.bytes):
            raise ValueError(f"{len(self.drop)} drops for {len(self.bytes)} boundaries; give one per boundary")
        if (least := min((one for one in self.bytes if one is not None), default=0)) < 0:
            raise ValueError(f"{least} bytes are negative; sizes are at least 0")
        for one in self.drop:
            if one is not None and not -1 <= one <= 1:
                raise ValueError(f"a drop of {one} is outside -1 to 1; one point of accuracy is 0.01")
        return self

    def updated(self, other: PackingCosts) -> PackingCosts:
        """The other's values, and drops of this one that the other does not know. Both have as many boundaries."""
        pairs = zip(self.drop, other.drop, strict=True)
        return PackingCosts(bytes=other.bytes, drop=tuple(old if new is None else new for old, new in pairs))


class PackingTimes(_Value):
    """Seconds on one device, per boundary 0 to n, to pack and to unpack; None where the tensors cannot be packed so."""

    pack: tuple[float | None, ...]
    unpack: tuple[float | None, ...]

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if len(self.pack) != len(self.unpack):
            raise ValueError(f"{len(self.pack)} times to pack and {len(self.unpack)} to unpack; give one per boundary")
        if (least := min((one for one in self.pack + self.unpack if one is not None), default=0.0)) < 0:
            raise ValueError(f"{least} s is negative; times are at least 0")
        return self

    def faster(self, factor: float) -> PackingTimes:
        """On a device so many times as fast."""
        pack, unpack = (tuple(s if s is None else s / factor for s in row) for row in (self.pack, self.unpack))
        return PackingTimes(pack=pack, unpack=unpack)
