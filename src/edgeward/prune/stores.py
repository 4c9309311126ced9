"""Where the variants of a portfolio are kept while one of them runs: all in memory, or borrowed when their turn comes.

    store = Borrowed({"small": Path("small/model.onnx"), "large": Path("large/model.onnx")}, WeightStore(folder))
    running = store.open("small")
    [logits] = running.run(batch)          # from any number of threads
    running.close()

`Superset` (see `edgeward.prune.superset`) is the third kind; `edgeward.prune.reload` has the baselines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from edgeward.errors import ModelError, PruneError, nearest
from edgeward.weights.pack import pack, session_options
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

__all__ = ["Borrowed", "Opened", "Resident", "VariantStore"]

Array = npt.NDArray[Any]


class Opened(ABC):
    """A variant that can run."""

    @abstractmethod
    def run(self, inputs: Array) -> list[Array]:
        """Its outputs for `inputs` [n, ...], from any number of threads. Raises ModelError for what does not fit."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what only this variant needs; nobody runs it any more."""


class VariantStore(ABC):
    """Variants by name, of which any can be opened."""

    names: tuple[str, ...]

    @abstractmethod
    def open(self, name: str) -> Opened:
        """A variant, ready to run. Raises an EdgewardError when it is not there or damaged; nothing is held then."""

    @abstractmethod
    def resident_bytes(self) -> int:
        """Bytes of weights held in memory now, counted exactly; what variants share counts once."""

    def check(self, name: str) -> str:
        """The name, when there is such a variant. Raises PruneError that names the nearest."""
        if name not in self.names:
            raise PruneError(f"no variant {name!r}; {nearest(name, self.names)}")
        return name


class Resident(VariantStore):
    """All variants as ONNX Runtime sessions of their own, always: the fastest change, the most memory."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        self.names = tuple(files)
        self._opened = {name: Plain(path, threads) for name, path in files.items()}
        self._bytes = sum(weight_bytes(path) for path in files.values())

    def open(self, name: str) -> Opened:
        return self._opened[self.check(name)]

    def resident_bytes(self) -> int:
        return self._bytes


class Plain(Opened):
    """A session that read its own weights from a file. Raises ModelError when the runtime cannot load it."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0][:300]}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, inputs: Array) -> list[Array]:
        try:
            return list(self._session.run(None, {self._input: inputs}))
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(f"inference failed: {str(error).splitlines()[0][:300]}") from error

    def close(self) -> None:
        pass


class Borrowed(VariantStore):
    """Variants in a memory-mapped weight store; only those that run hold weights.

    What stays of the others is their skeletons, some tens of kilobytes each, so that a change has only to bind weights.
    """

    def __init__(self, files: Mapping[str, Path], weights: WeightStore, threads: int = 1) -> None:
        self.names = tuple(files)
        packed = {name: pack(path, weights) for name, path in files.items()}
        self._make = {name: partial(Session, each, weights, threads) for name, each in packed.items()}
        self._kept = {name: make() for name, make in self._make.items()}
        self._open: list[_Sessions] = []

    def open(self, name: str) -> Opened:
        opened = _Sessions(self.check(name), self._make[name], self._kept, self._open)
        self._open.append(opened)
        return opened

    def resident_bytes(self) -> int:
        held: dict[str, int] = {}
        for opened in list(self._open):
            held.update(opened.packed.tensor_bytes)
        return sum(held.values())


class _Sessions(Opened):
    """Sessions of one variant: as many as threads run it at once, all on the same skeleton and weights.

    kept: detached sessions by variant, from which this one takes its first and to which it gives it back.
    """

    def __init__(
        self, name: str, make: Callable[[], Session], kept: dict[str, Session], among: list[_Sessions]
    ) -> None:
        self._name = name
        self._make = make
        self._kept = kept
        self._among = among
        first = kept.pop(name, None) or make()
        self.packed = first.packed
        self._input = first.packed.inputs[0].name
        self._idle = [first]
        try:
            first.attach()
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Array) -> list[Array]:
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._make()
            session.attach()
        try:
            return session.run({self._input: inputs})
        finally:
            self._idle.append(session)

    def close(self) -> None:
        for session in self._idle:
            session.detach()
        if self._idle:
            self._kept[self._name] = self._idle[0]
        self._idle = []
        if self in self._among:
            self._among.remove(self)


def weight_bytes(path: Path) -> int:
    """Bytes of an ONNX file's weights. Raises ModelError when it is not one."""
    import onnx

    try:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
    except Exception as error:  # protobuf's own exceptions
        raise ModelError(f"{path} is not an ONNX file: {str(error)[:200]}") from error
    sizes = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in {one.data_type for one in tensors}}
    return sum(prod(tensor.dims) * sizes[tensor.data_type] for tensor in tensors)
