"""The way of a request under a plan, as orders to hosts.

    for leg in legs(plan, stage_ids, remote={"edge", "cloud"}, address=endpoint):
        leg.host, leg.route

A stretch of neighbouring remote stages is one leg: its nodes pass the tensors on among themselves, and the last
answers. Between legs the tensors come back to who ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeward.plan.plan import Plan

__all__ = ["Leg", "hop_packings", "legs"]


@dataclass(frozen=True)
class Leg:
    """Stages first to last of a plan, run by one order to `host`."""

    host: str
    first: int
    last: int
    route: tuple[Mapping[str, Any], ...]


def hop_packings(plan: Plan, source: str) -> tuple[str, ...]:
    """The packing of the input, of what crosses each inner boundary, and of the result: one more than stages."""
    packings = [hop.packing for hop in plan.hops]
    entry = packings.pop(0) if plan.stages[0].device != source else "identity"
    inner = [packings.pop(0) for _ in plan.stages[1:]]
    return (entry, *inner, packings.pop(0) if packings else "identity")


def legs(
    plan: Plan,
    source: str,
    stage_ids: Sequence[str],
    remote: Collection[str],
    endpoint: Callable[[str, str], str],
) -> tuple[Leg, ...]:
    """The legs of a plan whose stages were deployed under `stage_ids`.

    remote: devices that reach each other without us. endpoint: where the second is reached from the first.
    """
    packings = hop_packings(plan, source)
    found: list[Leg] = []
    for number, stage in enumerate(plan.stages):
        entry = {"host": stage.device, "stage": stage_ids[number], "packing": packings[number + 1]}
        joins = found and stage.device in remote and plan.stages[number - 1].device in remote
        if joins:
            before = found.pop()
            entry["endpoint"] = endpoint(plan.stages[number - 1].device, stage.device)
            found.append(Leg(before.host, before.first, number, (*before.route, entry)))
        else:
            found.append(Leg(stage.device, number, number, (entry,)))
    return tuple(found)
