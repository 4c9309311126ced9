"""The figures of a plan: the one place that computes them. Solvers only find stages.

    evaluate(profile, fleet, [("pi", 0, 6), ("box", 7, 25)]).latency
    evaluate(profile, fleet, [("pi", 0, 6), ("box", 7, 25)], packings=["int8+zstd"])

latency = seconds of the stages + per hop: seconds to pack, `Link.seconds(bytes)`, seconds to unpack. The input is
hopped from the fleet's source when another device runs block 0. This is Scission's model (arXiv 2008.03523) with any
order of devices, measured overhead per hop, stages that save at inner boundaries, and returned results; packing is what
ScissionLite (arXiv 2105.02019) adds for one layer and two tiers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from edgeward.errors import PlanError, nearest
from edgeward.fleet.fleet import Fleet, Link
from edgeward.plan.costs import running_seconds
from edgeward.plan.objective import LATENCY, Objective
from edgeward.plan.plan import Hop, Plan, Stage
from edgeward.profile.packing import IDENTITY
from edgeward.profile.profile import Profile

__all__ = ["Evaluator", "Span", "evaluate"]

Span = tuple[str, int, int]
"""A device, its first and its last block."""


def evaluate(
    profile: Profile,
    fleet: Fleet,
    stages: Iterable[Span],
    objective: Objective = LATENCY,
    packings: Sequence[str] | None = None,
) -> Plan:
    """The plan of these stages with all its figures.

    packings: one for every hop, an input's first and a returned result's last; without, nothing is packed.
    Raises PlanError when the stages do not cover the blocks in order, a device was not profiled, a link is missing, or
    a packing was not measured there.
    """
    return Evaluator(profile, fleet, objective)(tuple(stages), packings)


class Evaluator:
    """`evaluate` for many plans of one profile, fleet and objective."""

    def __init__(self, profile: Profile, fleet: Fleet, objective: Objective) -> None:
        self.profile, self.fleet, self.objective = profile, fleet, objective
        self._ways = fleet.ways()
        self._devices = {device.name: device for device in fleet.devices}
        self._running: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}

    def __call__(self, spans: Sequence[Span], packings: Sequence[str] | None = None) -> Plan:
        self._check(spans)
        stages = tuple(Stage(device=d, first=a, last=b, seconds=self._seconds(d, a, b)) for d, a, b in spans)
        ends = self.ends(spans)
        packings = (IDENTITY,) * len(ends) if packings is None else packings
        if len(packings) != len(ends):
            raise PlanError(f"{len(packings)} packings for {len(ends)} hops; give one per hop, {IDENTITY!r} for none")
        links = [self._link(source, target) for _, source, target in ends]
        hops = tuple(self._hop(end, packing, link) for end, packing, link in zip(ends, packings, links, strict=True))
        figures = {
            "latency": sum(stage.seconds for stage in stages) + sum(hop.latency for hop in hops),
            "throughput": self._bottleneck(stages, hops, links),
            "energy": sum(self._devices[device].power * seconds for device, seconds in _worked(stages, hops))
            + sum(link.energy * hop.bytes for link, hop in zip(links, hops, strict=True)),
            "bytes": sum(hop.bytes for hop in hops),
        }
        drops = [hop.drop for hop in hops]
        return Plan(
            model=self.profile.model,
            fingerprint=self.profile.fingerprint,
            stages=stages,
            hops=hops,
            latency=figures["latency"],
            bottleneck=figures["throughput"],
            energy=figures["energy"],
            bytes=int(figures["bytes"]),
            cost=figures[self.objective.kind],
            drop=None if None in drops else sum(one or 0.0 for one in drops),
            objective=self.objective,
        )

    def ends(self, spans: Sequence[Span]) -> list[tuple[int, str, str]]:
        """Boundary, source and target of every hop."""
        source, last = self.fleet.source, len(self.profile.blocks)
        path = [(0, source), *((first, device) for device, first, _ in spans)]
        path += [(last, source)] if self.objective.return_result else []
        return [(boundary, here, there) for (_, here), (boundary, there) in pairwise(path) if here != there]

    def _check(self, spans: Sequence[Span]) -> None:
        count, following = len(self.profile.blocks), 0
        for device, first, last in spans:
            if device not in self._devices:
                known = nearest(device, self._devices)
                raise PlanError(f"no device {device!r} in fleet {self.fleet.name!r}; {known}")
            if device not in self.profile.times:
                raise PlanError(f"device {device!r} has no times of {self.profile.model!r}; profile the model there")
            if first != following or not first <= last < count:
                raise PlanError(
                    f"stage {device}[{first}-{last}] does not continue at block {following} of {count}; "
                    "stages cover all blocks in order"
                )
            following = last + 1
        if following != count:
            raise PlanError(f"the stages end before block {following} of {count}; they must cover all blocks")
        for (device, _, last), (other, *_) in pairwise(spans):
            if device == other:
                raise PlanError(f"two stages meet on {device!r} after block {last}; write them as one")

    def _seconds(self, device: str, first: int, last: int) -> float:
        if device not in self._running:
            self._running[device] = running_seconds(self.profile.times[device], self.objective.quantile)
        start, inner = self._running[device]
        return start[first] + sum(inner[first + 1 : last + 1])

    def _hop(self, end: tuple[int, str, str], packing: str, link: Link) -> Hop:
        boundary, source, target = end
        if packing == IDENTITY:
            count = self._plain_bytes(boundary)
            return Hop(source=source, target=target, bytes=count, seconds=link.seconds(count))
        if packing not in self.profile.packings:
            known = nearest(packing, [IDENTITY, *self.profile.packings])
            raise PlanError(f"no packing {packing!r} in the profile of {self.profile.model!r}; {known}")
        costs, (pack, unpack) = self.profile.packings[packing], self._working(packing, end)
        size, drop = costs.bytes[boundary], costs.drop[boundary]
        if size is None or pack is None or unpack is None:
            raise PlanError(
                f"{packing!r} does not fit what crosses boundary {boundary}, or was not measured on {source!r} and "
                f"{target!r}; choose {IDENTITY!r} there, or profile with --packing {packing} on both"
            )
        return Hop(
            source=source,
            target=target,
            bytes=size,
            seconds=link.seconds(size),
            packing=packing,
            pack=pack,
            unpack=unpack,
            drop=None if drop is None else max(drop, 0.0),
        )

    def _plain_bytes(self, boundary: int) -> int:
        """What crosses a boundary unpacked."""
        blocks, objective = self.profile.blocks, self.objective
        if boundary == 0:
            return self.profile.input_bytes if objective.input_bytes is None else objective.input_bytes
        if boundary == len(blocks) and objective.output_bytes is not None:
            return objective.output_bytes
        return blocks[boundary - 1].output_bytes

    def _working(self, packing: str, end: tuple[int, str, str]) -> tuple[float | None, float | None]:
        """Seconds to pack on a hop's source and to unpack on its target, None where they are not known."""
        boundary, source, target = end
        here, there = (
            self.profile.times[name].packings.get(packing) if name in self.profile.times else None
            for name in (source, target)
        )
        return None if here is None else here.pack[boundary], None if there is None else there.unpack[boundary]

    def _link(self, source: str, target: str) -> Link:
        link = self._ways.get((source, target))
        if link is None:
            raise PlanError(f"no link {source}->{target} in fleet {self.fleet.name!r}; add it or plan around it")
        return link

    def _bottleneck(self, stages: Sequence[Stage], hops: Sequence[Hop], links: Sequence[Link]) -> float:
        """Seconds that the busiest device or link is occupied per inference; latency on the wire occupies nothing."""
        busy: dict[tuple[str, ...], float] = defaultdict(float)
        for device, seconds in _worked(stages, hops):
            busy[(device,)] += seconds / self._devices[device].count
        for hop, link in zip(hops, links, strict=True):
            busy[hop.source, hop.target] += link.overhead + 8 * hop.bytes / link.bandwidth
        return max(busy.values())


def _worked(stages: Sequence[Stage], hops: Sequence[Hop]) -> Iterator[tuple[str, float]]:
    """Every device that computes, packs or unpacks, with the seconds of it."""
    yield from ((stage.device, stage.seconds) for stage in stages)
    for hop in hops:
        yield hop.source, hop.pack
        yield hop.target, hop.unpack
