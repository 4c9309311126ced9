"""What rungs of several models have in common with others: bytes in memory, and loads that are not needed.

bytes = held_bytes(ladder, ["nano", "nano+center"])          # nano counts once
seconds = missing_seconds(ladder, "nano+center", resident=["nano"])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.modelconfig import members_of

__all__ = ["held_bytes", "member_bytes", "missing_seconds"]


def member_bytes(rungs: Iterable[Rung]) -> dict[str, float]:
    """Bytes of each model that the rungs consist of; of what is no rung itself, its share of what is left of one."""
    rungs = list(rungs)
    found = {rung.name: float(rung.bytes) for rung in rungs if len(members_of(rung.name)) == 1}
    for rung in sorted(rungs, key=lambda rung: (rung.bytes, rung.name)):
        unknown = [member for member in members_of(rung.name) if member not in found]
        rest = rung.bytes - sum(found.get(member, 0.0) for member in members_of(rung.name))
        found |= {member: max(rest, 0.0) / len(unknown) for member in unknown}
    return found


def held_bytes(ladder: Ladder, names: Iterable[str]) -> float:
    """Bytes that rungs hold together."""
    sizes = member_bytes(ladder.rungs)
    return sum(sizes[member] for member in {member for name in names for member in members_of(name)})


def missing_seconds(ladder: Ladder, name: str, resident: Collection[str]) -> float:
    """Seconds until a rung can answer when these rungs are in memory: what others hold of it needs no load."""
    rung, known = ladder.rung(name), {rung.name: rung for rung in ladder.rungs}
    held = {member for other in resident for member in members_of(other)}
    members = members_of(name)
    missing = [member for member in members if member not in held]
    if len(missing) == len(members):
        return rung.load_seconds
    parts: Mapping[str, float] = {each: known[each].load_seconds for each in missing if each in known}
    return sum(parts.get(each, rung.load_seconds / len(members)) for each in missing)
