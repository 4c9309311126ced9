"""A profile: what every block of a network costs, and how long it takes on each device that was measured.

    profile = load_profile(Path("resnet50.json"))
    profile.times["pi"].segment(0, 9)        # seconds of blocks 0 to 9 run as one piece
    profile = profile.merge(other)           # more devices
    profile = profile.with_drops("int8+zstd", drops)    # what a packing was measured to lose at every boundary

Profiles are plain JSON with a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeward.errors import PlanError, nearest
from edgeward.graph.blockcost import BlockCost
from edgeward.profile.packing import IDENTITY, PackingCosts, PackingTimes

__all__ = ["FORMAT", "BlockCost", "DeviceTimes", "Profile"]

FORMAT = 1
"""Version of the file format."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceTimes(_Value):
    """Seconds of every block on one device, each run alone: median, and the 10th and 90th percentile.

    joined: what is saved at each inner boundary when the blocks on both its sides run as one piece (a runtime that
    fuses across it, and one call instead of two); length blocks - 1, or empty for nothing.
    whole: seconds of the whole network as one piece, None when not measured. resident_bytes: measured memory.
    packings: what packing the tensors of a hop takes here.
    """

    seconds: tuple[float, ...] = Field(min_length=1)
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    joined: tuple[float, ...] = ()
    whole: float | None = Field(default=None, ge=0)
    backend: str = ""
    threads: int = Field(default=1, ge=1)
    batch: int = Field(default=1, ge=1)
    repeats: int = Field(default=0, ge=0)
    resident_bytes: int | None = None
    machine: str = ""
    notes: tuple[str, ...] = ()
    packings: dict[str, PackingTimes] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        count = len(self.seconds)
        if min(self.seconds) < 0:
            raise ValueError(f"a block takes {min(self.seconds)} s; times are at least 0")
        for name, length in (("low", count), ("high", count), ("joined", count - 1)):
            if len(getattr(self, name)) not in (0, length):
                raise ValueError(
                    f"{name!r} has {len(getattr(self, name))} values for {count} blocks, expected {length}"
                )
        for packing, times in self.packings.items():
            if len(times.pack) != count + 1:
                raise ValueError(f"{packing!r} has {len(times.pack)} times for {count} blocks, expected {count + 1}")
        for name, edge in (("low", self.low), ("high", self.high)):
            ordered = zip(edge, self.seconds, strict=True) if name == "low" else zip(self.seconds, edge, strict=True)
            if edge and any(below > above for below, above in ordered):
                raise ValueError(f"'{name}' crosses 'seconds'; low is at most the median, and high at least")
        return self

    def at(self, quantile: float) -> tuple[float, ...]:
        """Seconds of every block at a quantile in [0.1, 0.9], straight lines between the three that are known."""
        if not 0.1 <= quantile <= 0.9:
            raise PlanError(f"quantile {quantile} is outside what profiles hold; choose one from 0.1 to 0.9")
        edge = self.low if quantile < 0.5 else self.high
        if not edge:
            return self.seconds
        part = abs(quantile - 0.5) / 0.4
        return tuple(middle + part * (end - middle) for middle, end in zip(self.seconds, edge, strict=True))

    def segment(self, first: int, last: int, quantile: float = 0.5) -> float:
        """Seconds of blocks first to last (both included) run as one piece; joining saves at most a block."""
        seconds, joined = self.at(quantile), self.joined or (0.0,) * (len(self.seconds) - 1)
        return seconds[first] + sum(max(seconds[k] - joined[k - 1], 0.0) for k in range(first + 1, last + 1))


class Profile(_Value):
    """Costs of a network's blocks and times per device.

    fingerprint: hash of the network's structure and block boundaries; only profiles with equal ones merge.
    packings: bytes and lost accuracy of every packing that was measured.
    """

    format: int = FORMAT
    model: str
    fingerprint: str
    input_bytes: int = Field(ge=0)
    input_shape: tuple[int, ...] = ()
    blocks: tuple[BlockCost, ...] = Field(min_length=1)
    times: dict[str, DeviceTimes] = Field(default_factory=dict)
    packings: dict[str, PackingCosts] = Field(default_factory=dict)
    origin: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format != FORMAT:
            raise ValueError(f"profile format {self.format} is not {FORMAT}; measure again with this version")
        for device, times in self.times.items():
            if len(times.seconds) != len(self.blocks):
                raise ValueError(
                    f"device {device!r} has times of {len(times.seconds)} blocks, the model {len(self.blocks)}"
                )
        for name, costs in self.packings.items():
            if name == IDENTITY:
                raise ValueError(f"{IDENTITY!r} is always there and costs nothing; leave it out of 'packings'")
            if len(costs.bytes) != len(self.blocks) + 1:
                raise ValueError(
                    f"packing {name!r} has {len(costs.bytes)} boundaries, the model {len(self.blocks) + 1}"
                )
        return self

    def merge(self, other: Profile) -> Profile:
        """Both profiles' devices and packings; where both have them the other's win, except drops only this one knows.

        Raises PlanError for another network.
        """
        if other.fingerprint != self.fingerprint:
            mine, theirs = (f"{one.model!r} ({one.fingerprint[:8]})" for one in (self, other))
            raise PlanError(
                f"profiles of {mine} and {theirs} are of different networks or cuts; "
                "profile the same network with the same options on every device"
            )
        both = {
            name: self.packings[name].updated(costs) if name in self.packings else costs
            for name, costs in other.packings.items()
        }
        return self.model_copy(update={"times": self.times | other.times, "packings": self.packings | both})

    def with_drops(self, name: str, drops: Sequence[float | None]) -> Profile:
        """The profile with measured losses of a packing, one per boundary 0 to n; None leaves what is known.

        Raises PlanError when the packing was not profiled or there are not so many boundaries.
        """
        if name not in self.packings:
            hint = nearest(name, self.packings) if self.packings else "none was profiled"
            raise PlanError(f"no packing {name!r} in the profile of {self.model!r}; {hint}")
        costs = self.packings[name]
        if len(drops) != len(costs.bytes):
            raise PlanError(f"{len(drops)} drops of {name!r} for {len(costs.bytes)} boundaries; give one per boundary")
        try:
            changed = costs.updated(PackingCosts(bytes=costs.bytes, drop=tuple(drops)))
        except ValueError as error:
            raise PlanError(
                f"drops of {name!r}: each is None or from -1 to 1; one point of accuracy is 0.01"
            ) from error
        return self.model_copy(update={"packings": self.packings | {name: changed}})
