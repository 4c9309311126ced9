"""Running a model in two pieces, of which the first is common to several models.

    session = BegunSession(beginning, 0, store)       # the first of those that begin so
    session.attach()
    begun = session.begin(pictures)                   # the same for all of them
    outputs = session.finish(begun, pictures)

`edgeward.weights.prefix` finds the beginnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgeward.errors import ModelError
from edgeward.weights.pack import PackedModel
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

__all__ = ["Beginning", "BegunSession", "Ending"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ending:
    """What a model does after the common beginning.

    suffix: reads values of the beginning; None when nothing is left to do.
    given: the name that each of the suffix's inputs, or of the model's outputs, has among the beginning's outputs.
    outputs: names of the model's outputs, in order: the suffix's, or keys of `given`.
    share: of the model's multiply-adds, done in the beginning.
    """

    suffix: PackedModel | None
    given: Mapping[str, str]
    outputs: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Beginning:
    """A beginning and who has it. members: positions of the models, each with its ending."""

    prefix: PackedModel
    members: tuple[int, ...]
    endings: tuple[Ending, ...]


class BegunSession:
    """One model of a `Beginning` (the `place`-th of its members), in two pieces. Used as a `Session` is.

    All models of a beginning share its skeleton and weights; each may be attached and detached on its own.
    """

    def __init__(self, beginning: Beginning, place: int, store: WeightStore, threads: int = 1) -> None:
        self.ending = beginning.endings[place]
        self._made = tuple(port.name for port in beginning.prefix.outputs)
        self._prefix = Session(beginning.prefix, store, threads)
        self._suffix = None if self.ending.suffix is None else Session(self.ending.suffix, store, threads)

    def attach(self) -> None:
        """Borrow the weights of both pieces. Raises StoreError when one is missing; nothing is attached then."""
        try:
            self._prefix.attach()
            if self._suffix is not None:
                self._suffix.attach()
        except BaseException:
            self.detach()
            raise

    def begin(self, batch: Array) -> list[Array]:
        """The values that cross the cut, each with one row for each picture of the batch. Raises ModelError."""
        [port] = self._prefix.packed.inputs
        return self._prefix.run({port.name: batch})

    def finish(self, begun: Sequence[Array], batch: Array) -> list[Array]:
        """The model's outputs from what `begin` gave for these pictures. Raises ModelError, also when not attached."""
        if not self._prefix.attached:  # there may be no other piece that would say so
            raise ModelError("the model's weights are not attached; call attach() first")
        values = dict(zip(self._made, begun, strict=True))
        given = {name: values[made] for name, made in self.ending.given.items()}
        found: dict[str, Array] = {}
        if self._suffix is not None:
            packed = self._suffix.packed
            feeds = {port.name: given.get(port.name, batch) for port in packed.inputs}
            found = dict(zip((port.name for port in packed.outputs), self._suffix.run(feeds), strict=True))
        # What the beginning gave may be wanted again: who gets an answer may do with it as he likes.
        return [found[name] if name in found else given[name].copy() for name in self.ending.outputs]

    def detach(self) -> None:
        """Let go of the weights. Safe to call twice."""
        self._prefix.detach()
        if self._suffix is not None:
            self._suffix.detach()

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        self._prefix.close()
        if self._suffix is not None:
            self._suffix.close()
