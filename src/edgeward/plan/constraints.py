"""What a plan must obey, as values and as texts.

    Constraints.parse("block 0 on device", "layers 10-12 not on cloud", "device->* <= 2 MB")
    Constraints((Use("edge"), TimeCap("pi", seconds=0.2)))

Private zones, device memory and links of a fleet hold without being asked for, and that packing loses no accuracy
unless "accuracy drop at most 1 %" or "any accuracy" allows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgeward.errors import ConfigError, nearest
from edgeward.units import parse_bytes, parse_seconds, parse_share

__all__ = [
    "UNCONSTRAINED",
    "Avoid",
    "ByteCap",
    "Constraints",
    "Drop",
    "Links",
    "Memory",
    "Once",
    "Packed",
    "Pin",
    "Private",
    "Rule",
    "Spread",
    "TimeCap",
    "Unchecked",
    "Use",
    "parse_constraint",
]


@dataclass(frozen=True)
class Pin:
    """Blocks (or a published table's layers) first to last run on a device or tier, or do not."""

    unit: Literal["block", "layer"]
    first: int
    last: int
    where: str
    on: bool = True

    def __str__(self) -> str:
        which = f"{self.unit} {self.first}" if self.first == self.last else f"{self.unit}s {self.first}-{self.last}"
        return f"{which} {'on' if self.on else 'not on'} {self.where}"


@dataclass(frozen=True)
class Use:
    """A device, or some device of a tier, runs at least one block."""

    where: str

    def __str__(self) -> str:
        return f"use {self.where}"


@dataclass(frozen=True)
class Avoid:
    """A device, or a whole tier, runs nothing."""

    where: str

    def __str__(self) -> str:
        return f"avoid {self.where}"


@dataclass(frozen=True)
class Spread:
    """At least `count` devices run blocks."""

    count: int

    def __str__(self) -> str:
        return f"use {self.count} devices"


@dataclass(frozen=True)
class Once:
    """A device that was left is not used again."""

    def __str__(self) -> str:
        return "no revisit"


@dataclass(frozen=True)
class TimeCap:
    """A device or tier computes at most `seconds`, or at most the share of all computing seconds.

    Packing and unpacking is computing.
    """

    where: str
    seconds: float | None = None
    share: float | None = None

    def __str__(self) -> str:
        limit = f"{_plain(self.seconds or 0.0)} s" if self.share is None else f"{_plain(100 * self.share)} %"
        return f"{self.where} <= {limit}"


@dataclass(frozen=True)
class ByteCap:
    """At most `bytes` travel from a device or tier to another; "*" is every device not on the other side."""

    source: str
    target: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.source}->{self.target} <= {self.bytes} B"


@dataclass(frozen=True)
class Private:
    """Neither the raw input nor an output that reveals it leaves a zone of the fleet."""

    zone: str

    def __str__(self) -> str:
        return f"private {self.zone}"


@dataclass(frozen=True)
class Memory:
    """Weights of a device's blocks and their largest activations fit its memory. Holds without being asked for."""

    device: str

    def __str__(self) -> str:
        return f"memory of {self.device}"


@dataclass(frozen=True)
class Links:
    """Data moves only over the fleet's links. Holds without being asked for."""

    def __str__(self) -> str:
        return "links of the fleet"


@dataclass(frozen=True)
class Drop:
    """Packings lose at most this share of accuracy, all hops together, as far as it was measured hop by hop.

    Packings of unknown loss are not used. Drop(0.0) holds without being asked for, unless another Drop or Unchecked is.
    """

    limit: float

    def __str__(self) -> str:
        return f"accuracy drop at most {_plain(100 * self.limit)} %" if self.limit else "lossless"


@dataclass(frozen=True)
class Unchecked:
    """Packings may lose any accuracy, even where it was not measured, as far as no Drop is among the rules."""

    def __str__(self) -> str:
        return "any accuracy"


@dataclass(frozen=True)
class Packed:
    """Hops use only these packings, or none of them. "identity" counts as one."""

    names: tuple[str, ...]
    on: bool = True

    def __str__(self) -> str:
        return f"packing {'' if self.on else 'not '}{'|'.join(self.names)}"


Rule = Pin | Use | Avoid | Spread | Once | TimeCap | ByteCap | Private | Memory | Links | Drop | Unchecked | Packed


@dataclass(frozen=True)
class Constraints:
    """Rules that all hold."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, *texts: str) -> Constraints:
        """The constraints of these texts, see `parse_constraint`."""
        return cls(tuple(parse_constraint(text) for text in texts))

    def __add__(self, other: Constraints) -> Constraints:
        return Constraints(self.rules + other.rules)

    def __str__(self) -> str:
        return "; ".join(map(str, self.rules)) or "no constraints"


UNCONSTRAINED = Constraints()
"""No constraint beyond what the fleet itself imposes."""


def _plain(value: float) -> str:
    """A number without exponent, so that the text parses."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _pin(unit: str, first: str, last: str | None, negated: str | None, where: str) -> Rule:
    start, end = int(first), int(last or first)
    if end < start:
        raise ValueError(f"{start}-{end} runs backwards; write the smaller number first")
    return Pin("layer" if unit.lower() == "layer" else "block", start, end, where, on=negated is None)


def _time_cap(where: str, limit: str) -> Rule:
    if limit.endswith("%"):
        return TimeCap(where, share=parse_share(limit))
    return TimeCap(where, seconds=parse_seconds(limit))


def _drop(limit: str) -> Rule:
    share = parse_share(limit)
    if share > 1:
        raise ValueError(f"a drop of {limit} is more than all accuracy; one point is '1 %' or 0.01")
    return Drop(share)


def _packed(negated: str | None, names: str) -> Rule:
    return Packed(tuple(dict.fromkeys(name.strip() for name in names.split("|"))), on=negated is None)


_GRAMMAR: tuple[tuple[str, Callable[..., Rule]], ...] = (
    (r"(?i:(block|layer)s?) +(\d+)(?: *- *(\d+))? +(?i:(not) +)?(?i:on) +(\S+)", _pin),
    (r"(?i:use) +(\d+) +(?i:devices?)", lambda count: Spread(int(count))),
    (r"(?i:split)", lambda: Spread(2)),
    (r"(?i:use) +(\S+)", Use),
    (r"(?i:avoid) +(\S+)", Avoid),
    (r"(?i:no +revisit)", Once),
    (r"(?i:private) +(.+)", Private),
    (r"(?i:accuracy +drop) *(?:<=|(?i:at +most)) *(.+)", _drop),
    (r"(?i:lossless)", lambda: Drop(0.0)),
    (r"(?i:any +accuracy)", Unchecked),
    (r"(?i:packing) +(?i:(not) +)?([^\s|]+(?: *\| *[^\s|]+)*)", _packed),
    (r"(\S+) *-> *(\S+?) *<= *(.+)", lambda source, target, size: ByteCap(source, target, parse_bytes(size))),
    (r"(\S+?) *<= *(.+)", _time_cap),
)
_WORDS = (
    *("accuracy", "any accuracy", "avoid", "block", "blocks", "layer", "layers", "lossless", "no revisit", "packing"),
    *("private", "split", "use"),
)


def parse_constraint(text: str) -> Rule:
    """The rule of a text. WHERE is a device's name or a tier (device, edge, cloud); a device's name goes first.

        block 10 on WHERE          blocks 0-6 on WHERE         block 10 not on WHERE
        layer 10 on WHERE          layers 3-8 not on WHERE     numbers of a published table (`BlockCost.layers`)
        use WHERE                  avoid WHERE                 something, or nothing, runs there
        use 3 devices              split                       at least three, at least two devices
        no revisit                                             a device that was left is not used again
        WHERE <= 200 ms            WHERE <= 30 %               computing seconds there, or their share of all
        WHERE->WHERE <= 2 MB       WHERE->* <= 2 MB            bytes that travel from one to the other, that leave
        private ZONE                                           as if the fleet had marked the zone private
        accuracy drop at most 1 %  lossless  any accuracy      what packing may lose, all hops together; 0 if not said
        packing identity|int8      packing not float4          what may be used to pack the tensors of a hop

    Raises ConfigError, which lists the forms. Whether names exist is checked when planning.
    """
    trimmed = " ".join(text.split())
    for pattern, build in _GRAMMAR:
        if match := re.fullmatch(pattern, trimmed):
            try:
                return build(*match.groups())
            except ValueError as error:
                raise ConfigError(f"constraint {text!r}: {error}") from error
    hint = nearest(trimmed.lower().split(" ")[0], _WORDS)
    raise ConfigError(
        f"{text!r} is not a constraint ({hint}); write 'block 3 on edge', 'layer 3 not on cloud', 'use edge', "
        "'avoid cloud', 'split', 'no revisit', 'pi <= 200 ms', 'device <= 30 %', 'pi->* <= 2 MB', 'private home', "
        "'accuracy drop at most 1 %', 'lossless', 'any accuracy' or 'packing not int8'"
    )
