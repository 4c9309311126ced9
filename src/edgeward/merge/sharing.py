"""Who shares what with whom, and who is touched when a shared layer changes.

    sharing = Sharing().plus(group)
    closure(sharing, {"people"})          # every model that shares anything with it, through others too
    sharing.saved_bytes

A model that shares one layer with another is changed by training it, so the two are trained and judged together, and so
on through their own partners; judging only the models of a trial lets the others decay unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeward.errors import PlanError
from edgeward.merge.groups import Group, Instance

__all__ = ["Sharing", "closure", "components"]


@dataclass(frozen=True)
class Sharing:
    """Groups of layers that use one copy each; no layer is in two of them."""

    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        all_of = [one for group in self.groups for one in group.instances]
        if len(set(all_of)) < len(all_of):
            twice = next(one for one in all_of if all_of.count(one) > 1)
            raise PlanError(f"layer {twice.layer} of {twice.model} is in two groups; join them into one")

    @property
    def saved_bytes(self) -> int:
        """Bytes that sharing saves."""
        return sum(group.saving for group in self.groups)

    def plus(self, group: Group) -> Sharing:
        """With these layers sharing one copy too; groups that they are part of already become one with them.

        Raises PlanError when signatures differ or a model would be in the new group twice.
        """
        joined: set[Instance] = set(group.instances)
        kept = []
        for other in self.groups:
            if not joined.isdisjoint(other.instances):
                if other.signature != group.signature:
                    raise PlanError(f"{other.signature} and {group.signature} cannot share; give layers of one form")
                joined |= set(other.instances)
            else:
                kept.append(other)
        return Sharing((*kept, Group(group.signature, tuple(sorted(joined)))))


def components(sharing: Sharing) -> tuple[frozenset[str], ...]:
    """Sets of models that share something, transitively; models that share nothing are in none."""
    found: list[frozenset[str]] = []
    for group in sharing.groups:
        met = [one for one in found if one & group.models]
        found = [one for one in found if not one & group.models]
        found.append(group.models.union(*met))
    return tuple(found)


def closure(sharing: Sharing, models: Iterable[str]) -> frozenset[str]:
    """These models and all that share anything with them, transitively."""
    wanted = frozenset(models)
    return wanted.union(*(one for one in components(sharing) if one & wanted))
