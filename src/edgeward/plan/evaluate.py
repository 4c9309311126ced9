"""The figures of a plan: the one place that computes them. Solvers only find stages.

    evaluate(profile, fleet, [("pi", 0, 6), ("box", 7, 25)]).latency

latency = seconds of the stages + seconds of the hops; a hop costs `Link.seconds(bytes)`. The input is hopped from
the fleet's source when another device runs block 0. This is Scission's model (arXiv 2008.03523) with any order of
devices, measured overhead per hop, stages that save at inner boundaries, and returned results.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from edgeward.errors import PlanError, nearest
from edgeward.fleet.fleet import Fleet, Link
from edgeward.plan.costs import running_seconds
from edgeward.plan.objective import LATENCY, Objective
from edgeward.plan.plan import Hop, Plan, Stage
from edgeward.profile.profile import Profile

__all__ = ["Evaluator", "Span", "evaluate"]

Span = tuple[str, int, int]
"""A device, its first and its last block."""


def evaluate(profile: Profile, fleet: Fleet, stages: Iterable[Span], objective: Objective = LATENCY) -> Plan:
    """The plan of these stages with all its figures.

    Raises PlanError when the stages do not cover the blocks in order, a device was not profiled, or a link is missing.
    """
    return Evaluator(profile, fleet, objective)(tuple(stages))


class Evaluator:
    """`evaluate` for many plans of one profile, fleet and objective."""

    def __init__(self, profile: Profile, fleet: Fleet, objective: Objective) -> None:
        self.profile, self.fleet, self.objective = profile, fleet, objective
        self._ways = fleet.ways()
        self._devices = {device.name: device for device in fleet.devices}
        self._running: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}

    def __call__(self, spans: Sequence[Span]) -> Plan:
        self._check(spans)
        stages = tuple(Stage(device=d, first=a, last=b, seconds=self._seconds(d, a, b)) for d, a, b in spans)
        moved = self._transfers(spans)
        links = [self._link(source, target) for source, target, _ in moved]
        hops = tuple(
            Hop(source=source, target=target, bytes=count, seconds=link.seconds(count))
            for (source, target, count), link in zip(moved, links, strict=True)
        )
        figures = {
            "latency": sum(stage.seconds for stage in stages) + sum(hop.seconds for hop in hops),
            "throughput": self._bottleneck(stages, hops, links),
            "energy": sum(self._devices[stage.device].power * stage.seconds for stage in stages)
            + sum(link.energy * hop.bytes for link, hop in zip(links, hops, strict=True)),
            "bytes": sum(hop.bytes for hop in hops),
        }
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
            objective=self.objective,
        )

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

    def _transfers(self, spans: Sequence[Span]) -> list[tuple[str, str, int]]:
        """Source, target and bytes of every hop."""
        blocks, objective, source = self.profile.blocks, self.objective, self.fleet.source
        moved = []
        if spans[0][0] != source:
            count = self.profile.input_bytes if objective.input_bytes is None else objective.input_bytes
            moved.append((source, spans[0][0], count))
        moved += [(here, there, blocks[last].output_bytes) for (here, _, last), (there, *_) in pairwise(spans)]
        if objective.return_result and spans[-1][0] != source:
            count = blocks[-1].output_bytes if objective.output_bytes is None else objective.output_bytes
            moved.append((spans[-1][0], source, count))
        return moved

    def _link(self, source: str, target: str) -> Link:
        link = self._ways.get((source, target))
        if link is None:
            raise PlanError(f"no link {source}->{target} in fleet {self.fleet.name!r}; add it or plan around it")
        return link

    def _bottleneck(self, stages: Sequence[Stage], hops: Sequence[Hop], links: Sequence[Link]) -> float:
        """Seconds that the busiest device or link is occupied per inference; latency on the wire occupies nothing."""
        busy: dict[tuple[str, ...], float] = defaultdict(float)
        for stage in stages:
            busy[(stage.device,)] += stage.seconds / self._devices[stage.device].count
        for hop, link in zip(hops, links, strict=True):
            busy[hop.source, hop.target] += link.overhead + 8 * hop.bytes / link.bandwidth
        return max(busy.values())
