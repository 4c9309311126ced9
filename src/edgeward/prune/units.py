"""A partition of a network's channels into units: what has to go together.

coupling = Coupling()
coupling.join(("conv1", "out", 3), ("conv2", "in", 3))
coupling.units()                                   # ([[("conv1", "out", 3), ("conv2", "in", 3)]], {})
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Axis", "Coupling", "Slot"]

Axis = Literal["out", "in", "heads"]
Slot = tuple[str, Axis, int]


@dataclass
class Coupling:
    """A growing partition of slots into units, and reasons why some may not be removed.

    A slot is (layer, axis, index). Layers with one side only (norms, parameters, channel padding) have "out"; the
    heads of an attention module are its "heads".
    """

    _parent: dict[Slot, Slot] = field(default_factory=dict)
    _fixed: list[tuple[Slot, str]] = field(default_factory=list)

    def join(self, one: Slot, other: Slot) -> None:
        """From now on the two slots go together."""
        a, b = self._root(one), self._root(other)
        if a != b:
            self._parent[b] = a

    def fix(self, slot: Slot, reason: str) -> None:
        """The slot, and what goes with it, is not to be removed."""
        self._root(slot)
        self._fixed.append((slot, reason))

    def __contains__(self, slot: Slot) -> bool:
        return slot in self._parent

    def units(self) -> tuple[list[list[Slot]], dict[int, str]]:
        """All units in the order in which their first slots were met, and reasons by the number of a fixed unit."""
        members: dict[Slot, list[Slot]] = defaultdict(list)
        for slot in self._parent:
            members[self._root(slot)].append(slot)
        place = {root: index for index, root in enumerate(members)}
        return list(members.values()), {place[self._root(slot)]: reason for slot, reason in self._fixed}

    def _root(self, slot: Slot) -> Slot:
        parent = self._parent
        root = slot
        while (above := parent.setdefault(root, root)) != root:
            root = above
        while (above := parent[slot]) != root:
            parent[slot], slot = root, above
        return root
