"""Changing the variant that runs while requests come in.

    switcher = Switcher(Resident(files), active="large", example=np.zeros((1, 3, 32, 32), np.float32))
    [logits] = switcher.run(batch)             # from any number of threads
    switched = switcher.switch("small")        # from one more; no request waits, fails or is lost
    print(switched.seconds, switcher.resident_bytes())

Requests under way finish on the variant that they began on; the new one has run once before a request reaches it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import numpy.typing as npt
from torch import nn

from edgeward.errors import PruneError
from edgeward.prune.stores import Borrowed, Opened, Resident, VariantStore
from edgeward.prune.superset import Superset
from edgeward.weights.handover import Handover
from edgeward.weights.store import WeightStore

__all__ = ["Switched", "Switcher", "open_store"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Switched:
    """A change: seconds to open the variant, and those of the inference that warms it up."""

    name: str
    opening: float
    warming: float

    @property
    def seconds(self) -> float:
        """From the call until every new request runs on the variant."""
        return self.opening + self.warming


def open_store(
    kind: Literal["resident", "borrowed", "superset"],
    variants: Mapping[str, Path] | Mapping[str, nn.Module],
    cache: Path | None = None,
) -> VariantStore:
    """A store of ONNX files ("resident", "borrowed") or of torch modules ("superset").

    cache: of "borrowed", the folder for its weights. Raises PruneError for variants of the other sort.
    """
    if not variants:
        raise PruneError("no variants to keep; give at least one")
    if kind not in ("resident", "borrowed", "superset"):
        raise PruneError(f"no store {kind!r}; known: borrowed, resident, superset")
    wanted = nn.Module if kind == "superset" else Path
    wrong = [name for name, variant in variants.items() if not isinstance(variant, wanted)]
    if wrong:
        raise PruneError(
            f"variant {wrong[0]!r} is a {type(variants[wrong[0]]).__name__}; the store {kind!r} takes "
            f"{'torch modules' if kind == 'superset' else 'paths of ONNX files'}"
        )
    if kind == "superset":
        return Superset.build(cast("Mapping[str, nn.Module]", variants))
    files = cast("Mapping[str, Path]", variants)
    if kind == "resident":
        return Resident(files)
    if cache is None:
        raise PruneError("the store 'borrowed' needs 'cache', a folder for its memory-mapped weights")
    return Borrowed(files, WeightStore(cache))


class Switcher:
    """Runs one variant of a store; `switch` changes which.

    example: an input of the variants, any values, for the warm-up. Raises an EdgewardError when `active` cannot run.
    """

    def __init__(self, store: VariantStore, active: str, example: Array) -> None:
        self._store = store
        self._example = example
        self._changing = threading.Lock()
        self._serving = Handover(self._warmed(active)[0])
        self._active = active

    @property
    def active(self) -> str:
        """The variant on which new requests run."""
        return self._active

    def run(self, inputs: Array) -> list[Array]:
        """The active variant's outputs for `inputs`. Raises ModelError for inputs that do not fit it."""
        with self._serving.using() as variant:
            return variant.run(inputs)

    def switch(self, name: str) -> Switched:
        """Make another variant the active one, and let go of the old one when its last request is answered.

        One change at a time: others wait. Raises PruneError for an unknown name, and the store's error when the variant
        cannot be opened or fails its warm-up; the old one goes on then, as if nothing had been asked.
        """
        with self._changing:
            if self._store.check(name) == self._active:
                return Switched(name, 0.0, 0.0)
            opened, switched = self._warmed(name)
            old = self._serving.replace(opened)
            self._active = name
            old.drained().close()
            return switched

    def resident_bytes(self) -> int:
        """Bytes of weights that the store holds in memory now."""
        return self._store.resident_bytes()

    def close(self) -> None:
        """Let go of the active variant when its last request is answered; requests after that fail."""
        with self._changing:
            self._serving.replace(_Closed()).drained().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _warmed(self, name: str) -> tuple[Opened, Switched]:
        """A variant that has run once."""
        begun = time.perf_counter()
        opened = self._store.open(name)
        ready = time.perf_counter()
        try:
            opened.run(self._example)
        except BaseException:
            opened.close()
            raise
        return opened, Switched(name, ready - begun, time.perf_counter() - ready)


class _Closed(Opened):
    """What serves when nothing does."""

    def run(self, inputs: Array) -> list[Array]:
        raise PruneError("this switcher is closed; make a new one")

    def close(self) -> None:
        pass
