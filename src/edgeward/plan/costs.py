"""What running a block on a device and crossing a link cost, as arrays.

    costs = Costs.of(profile, fleet, quantile=0.5)
    costs.start[k, r]       # seconds of block k on device r when it begins a stage there
    costs.inner[k, r]       # the same when block k - 1 ran there too

Devices are numbered as in the fleet; those the profile has no times of are not `able`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeward.errors import PlanError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.arrays import Bools, Floats
from edgeward.plan.options import Options
from edgeward.profile.profile import DeviceTimes, Profile

__all__ = ["Costs", "LinkCosts", "running_seconds"]


def running_seconds(times: DeviceTimes, quantile: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of every block that begins a stage, and of every block that continues one.

    A block that continues saves what `joined` says of the boundary before it, at most all of its own time, so that
    a stage's time is the sum over its blocks and never negative.
    """
    start = times.at(quantile)
    saved = (0.0, *(times.joined or (0.0,) * (len(start) - 1)))
    return start, tuple(max(own - less, 0.0) for own, less in zip(start, saved, strict=True))


@dataclass(frozen=True)
class LinkCosts:
    """Matrices [R, R], from row to column: whether a link exists, its seconds per hop, and its cost per byte."""

    exists: Bools
    latency: Floats
    overhead: Floats
    seconds_per_byte: Floats
    joules_per_byte: Floats

    @classmethod
    def of(cls, fleet: Fleet) -> LinkCosts:
        """The matrices of a fleet's links."""
        count = len(fleet.devices)
        empty = cls(np.zeros((count, count), np.bool_), *(np.zeros((count, count)) for _ in range(4)))
        empty.exists[np.diag_indices(count)] = True
        index = {device.name: number for number, device in enumerate(fleet.devices)}
        for (source, target), link in fleet.ways().items():
            empty._set(index[source], index[target], link)
        return empty

    def with_link(self, ends: tuple[tuple[int, int], ...], link: Link) -> LinkCosts:
        """The same matrices with one link's figures replaced on the given ways."""
        changed = LinkCosts(
            self.exists.copy(),
            self.latency.copy(),
            self.overhead.copy(),
            self.seconds_per_byte.copy(),
            self.joules_per_byte.copy(),
        )
        for source, target in ends:
            changed._set(source, target, link)
        return changed

    def _set(self, source: int, target: int, link: Link) -> None:
        self.exists[source, target] = True
        self.latency[source, target] = link.latency
        self.overhead[source, target] = link.overhead
        self.seconds_per_byte[source, target] = 8 / link.bandwidth
        self.joules_per_byte[source, target] = link.energy


@dataclass(frozen=True)
class Costs:
    """A profile on a fleet: n blocks, R devices.

    start, inner: [n, R] seconds. able: [R]. parameters, peak: [n] bytes. reveals: [n]. options: how hops are packed.
    """

    devices: tuple[Device, ...]
    source: int
    able: Bools
    start: Floats
    inner: Floats
    parameters: Floats
    peak: Floats
    reveals: Bools
    options: Options
    links: LinkCosts

    @classmethod
    def of(cls, profile: Profile, fleet: Fleet, quantile: float, links: LinkCosts | None = None) -> Costs:
        """The arrays of a profile on a fleet. Raises PlanError when no device of the fleet was profiled."""
        names = [device.name for device in fleet.devices]
        able = np.array([name in profile.times for name in names])
        if not able.any():
            raise PlanError(
                f"profile of {profile.model!r} has times for {sorted(profile.times)}, none of which is in fleet "
                f"{fleet.name!r} ({', '.join(names)}); profile the model on one of these"
            )
        start = np.zeros((len(profile.blocks), len(names)))
        inner = np.zeros_like(start)
        for number, name in enumerate(names):
            if able[number]:
                start[:, number], inner[:, number] = running_seconds(profile.times[name], quantile)
        blocks = profile.blocks
        return cls(
            devices=fleet.devices,
            source=names.index(fleet.source),
            able=able,
            start=start,
            inner=inner,
            parameters=np.array([block.parameter_bytes for block in blocks], np.float64),
            peak=np.array([block.peak_bytes for block in blocks], np.float64),
            reveals=np.array([block.reveals_input for block in blocks]),
            options=Options.of(profile, fleet),
            links=links or LinkCosts.of(fleet),
        )

    def with_links(self, links: LinkCosts) -> Costs:
        """The same costs over other links."""
        return replace(self, links=links)
