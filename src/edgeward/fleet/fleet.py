"""A fleet: devices, the links between them, and zones that data may not leave.

    fleet = Fleet(
        devices=(Device(name="pi", tier="device", compute="25 %"), Device(name="box", tier="cloud")),
        links=(Link(between=("pi", "box"), bandwidth="20 Mbit/s", latency="45 ms"),),
    )
    fleet.link("pi", "box").seconds(1_000_000)     # 0.445

Quantities are given as numbers in the unit of the field, or as texts with their unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgeward.errors import FleetError, nearest
from edgeward.units import parse_bytes, parse_rate, parse_seconds, parse_share

__all__ = ["TIERS", "Device", "Fleet", "Link", "Tier", "Zone"]

Tier = Literal["device", "edge", "cloud"]
TIERS: tuple[Tier, ...] = ("device", "edge", "cloud")

Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Rate = Annotated[float, BeforeValidator(parse_rate)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Share = Annotated[float, BeforeValidator(parse_share)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Device(_Value):
    """A machine that runs blocks.

    compute: share of one machine's processor that it has, when it is emulated (1.0 is all of it).
    memory: bytes for weights and activations, or None for no limit. power: watts while it computes, above idle.
    count: identical machines behind this name, among which a stage can be replicated.
    """

    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\s/:>,]+$")
    tier: Tier
    compute: Share = Field(default=1.0, gt=0, le=64)
    memory: Bytes | None = Field(default=None, gt=0)
    power: float = Field(default=0.0, ge=0)
    backend: Literal["torch", "onnxruntime"] = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=1024)
    count: int = Field(default=1, ge=1, le=10_000)
    address: str | None = None


class Link(_Value):
    """A way from one device to another.

    Give `between` for a link of the same figures both ways, or `source` and `target` for one way.
    bandwidth: bits per second. latency: seconds added to every transfer. jitter: seconds, the spread of the latency.
    overhead: seconds of processor time that every transfer costs beside the wire (measured per hop).
    energy: joules per byte sent. trace: a file with the bandwidth over time (see `edgeward.fleet.traces`).
    """

    between: tuple[str, str] | None = None
    source: str = ""
    target: str = ""
    bandwidth: Rate = Field(gt=0)
    latency: Seconds = Field(default=0.0, ge=0)
    jitter: Seconds = Field(default=0.0, ge=0)
    overhead: Seconds = Field(default=0.0, ge=0)
    energy: float = Field(default=0.0, ge=0)
    trace: Path | None = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        one_way = bool(self.source and self.target)
        if one_way == (self.between is not None) or bool(self.source) != bool(self.target):
            raise ValueError("a link has either 'between = [a, b]' or both 'source' and 'target'")
        first, second = self.ends
        if first == second:
            raise ValueError(f"a link leads from {first!r} to itself; name two devices")
        return self

    @property
    def ends(self) -> tuple[str, str]:
        """The two devices; of a one-way link the source first."""
        return self.between if self.between is not None else (self.source, self.target)

    def seconds(self, count: float) -> float:
        """Seconds to move `count` bytes: latency, overhead, and the bytes at the full bandwidth."""
        return self.latency + self.overhead + 8 * count / self.bandwidth


class Zone(_Value):
    """Devices among which data moves freely, and which raw data may not leave when `private`."""

    name: str = Field(min_length=1)
    devices: tuple[str, ...] = Field(min_length=1)
    private: bool = True


class Fleet(_Value):
    """Devices, links, zones, and the device at which inputs arise (the first one unless `source` names it)."""

    name: str = "fleet"
    devices: tuple[Device, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    zones: tuple[Zone, ...] = ()
    source: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [device.name for device in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two devices are named {twice[0]!r}; names must differ")
        mentioned = [(end, "a link") for link in self.links for end in link.ends]
        mentioned += [(name, f"zone {zone.name!r}") for zone in self.zones for name in zone.devices]
        mentioned += [(self.source, "'source'")] if self.source else []
        for name, where in mentioned:
            if name not in names:
                raise ValueError(f"{where} names device {name!r}, which is not there; {nearest(name, names)}")
        ways = [way for link in self.links for way in self._ways(link)]
        doubled = sorted({way for way in ways if ways.count(way) > 1})
        if doubled:
            raise ValueError(f"there are two links from {doubled[0][0]!r} to {doubled[0][1]!r}; keep one")
        if not self.source:
            object.__setattr__(self, "source", names[0])
        return self

    @staticmethod
    def _ways(link: Link) -> tuple[tuple[str, str], ...]:
        first, second = link.ends
        return ((first, second), (second, first)) if link.between is not None else ((first, second),)

    def device(self, name: str) -> Device:
        """The device of that name. Raises FleetError when there is none."""
        for device in self.devices:
            if device.name == name:
                return device
        raise FleetError(f"no device {name!r} in fleet {self.name!r}; {nearest(name, [d.name for d in self.devices])}")

    def link(self, source: str, target: str) -> Link | None:
        """The link from one device to another, or None."""
        return self.ways().get((source, target))

    def ways(self) -> dict[tuple[str, str], Link]:
        """Every ordered pair of devices that a link connects."""
        return {way: link for link in self.links for way in self._ways(link)}

    def with_link(
        self, source: str, target: str, *, bandwidth: float | None = None, latency: float | None = None
    ) -> Fleet:
        """The same fleet after the link between two devices changed (bits per second, seconds). Raises FleetError."""
        link = self.link(source, target)
        if link is None:
            raise FleetError(f"no link from {source!r} to {target!r} in fleet {self.name!r}; add one to the fleet file")
        new = {"bandwidth": bandwidth, "latency": latency}
        values = link.model_dump() | {key: value for key, value in new.items() if value is not None}
        try:
            changed = Link(**values)
        except ValueError as error:
            raise FleetError(
                f"link {source}->{target}: bandwidth {bandwidth} must be above 0 bit/s, latency at least 0 s"
            ) from error
        return self.model_copy(update={"links": tuple(changed if one is link else one for one in self.links)})
