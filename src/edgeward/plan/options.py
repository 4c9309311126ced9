"""The packings that a hop can choose among, as arrays.

    options = Options.of(profile, fleet)
    options.bytes[p, k]         # what crosses boundary k packed by options.names[p]; number 0 is "identity"

Boundary 0 is the input, boundary k + 1 is behind block k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeward.fleet.fleet import Fleet
from edgeward.plan.arrays import Bools, Floats, Ints
from edgeward.profile.packing import IDENTITY
from edgeward.profile.profile import Profile

__all__ = ["Moves", "Options"]


@dataclass(frozen=True)
class Options:
    """P packings (the first changes nothing), n blocks, R devices.

    bytes: [P, n + 1], inf where a packing does not fit the tensors. pack, unpack: [P, n + 1, R] seconds, inf where it
    does not fit or was not measured on that device. drop: [P, n + 1] loss of accuracy, nan where it was not measured.
    """

    names: tuple[str, ...]
    bytes: Floats
    pack: Floats
    unpack: Floats
    drop: Floats

    @classmethod
    def of(cls, profile: Profile, fleet: Fleet) -> Options:
        """The packings of a profile on a fleet's devices."""
        names = (IDENTITY, *profile.packings)
        shape, size = (len(names), len(profile.blocks) + 1), len(fleet.devices)
        sizes, drop = np.zeros(shape), np.zeros(shape)
        sizes[0] = [profile.input_bytes, *(block.output_bytes for block in profile.blocks)]
        pack, unpack = np.zeros((*shape, size)), np.zeros((*shape, size))
        pack[1:], unpack[1:] = np.inf, np.inf
        for option, (name, costs) in enumerate(profile.packings.items(), start=1):
            sizes[option] = [np.inf if one is None else one for one in costs.bytes]
            drop[option] = [np.nan if one is None else max(one, 0.0) for one in costs.drop]
            for number, device in enumerate(fleet.devices):
                measured = profile.times[device.name].packings.get(name) if device.name in profile.times else None
                if measured is not None:
                    pack[option, :, number] = [np.inf if one is None else one for one in measured.pack]
                    unpack[option, :, number] = [np.inf if one is None else one for one in measured.unpack]
        return cls(names, sizes, pack, unpack, drop)


@dataclass(frozen=True)
class Moves:
    """What may happen at a boundary, for p of the packings.

    option: [p] their numbers, 0 always among them. added: [p, m, R, R] what each adds to each measure, from row to
    column. ok: [p, R, R] whether it may be used; to stay on a device counts as option 0.
    """

    option: Ints
    added: Floats
    ok: Bools

    def least(self) -> Floats:
        """[m, R, R] the least that each measure must rise by; inf where there is no way."""
        return np.asarray(np.where(self.ok[:, None], self.added, np.inf).min(axis=0))

    def most(self) -> Floats:
        """[m, R, R] the most that each measure can rise by; -inf where there is no way."""
        return np.asarray(np.where(self.ok[:, None], self.added, -np.inf).max(axis=0))

    def pruned(self, *others: Floats) -> Moves:
        """Without options that another one is nowhere worse than, by the measures and by other figures [p, R, R].

        Of equal options the first stays, so that a pair of devices is left with what can be part of a best plan.
        """
        if len(self.option) == 1:
            return self
        more = (np.broadcast_to(one, self.ok.shape)[:, None] for one in others)
        figures = np.concatenate([self.added, *more], axis=1)
        ok = self.ok.copy()
        for option in range(len(ok)):
            for other in range(len(ok)):
                better = ok[other] & (figures[other] <= figures[option]).all(axis=0)
                if other > option:
                    better &= (figures[other] < figures[option]).any(axis=0)
                if other != option:
                    ok[option] &= ~better
        return Moves(self.option, self.added, ok)
