"""Changing a variant without a store: it is read from disk each time. The baselines of `edgeward.prune.switch`.

store = Reload(factories, files, how="torch.load")
with Switcher(store, "large", example) as switcher:
    print(switcher.switch("small").seconds)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeward.errors import ModelError, PruneError
from edgeward.prune.stores import Opened, Plain, VariantStore, weight_bytes
from edgeward.prune.superset import TorchVariant, tensors_of

__all__ = ["Reload", "ReloadSession"]

How = Literal["torch.load", "safetensors", "load_state_dict"]


class Reload(VariantStore):
    """Torch variants of which only the open ones are in memory.

    factories: make a variant's module, with any weights. files: its state_dict, by torch.save or as safetensors.
    how: "torch.load" and "safetensors" put the tensors read straight into a module made without weights; with
    "load_state_dict" the module is made with its own and the tensors are copied, as most programs do.
    """

    def __init__(self, factories: Mapping[str, Callable[[], nn.Module]], files: Mapping[str, Path], how: How) -> None:
        if how not in ("torch.load", "safetensors", "load_state_dict"):
            raise PruneError(f"no way to reload {how!r}; known: torch.load, safetensors, load_state_dict")
        self.names = tuple(files)
        self._factories = factories
        self._files = files
        self._how = how
        self._open: list[_Loaded] = []

    def open(self, name: str) -> Opened:
        path = self._files[self.check(name)]
        state = _read(path, "safetensors" if self._how == "safetensors" else "torch.load")
        if self._how == "load_state_dict":
            module = self._factories[name]()
        else:
            with torch.device("meta"):
                module = self._factories[name]()
        try:
            module.load_state_dict(state, assign=self._how != "load_state_dict")
        except RuntimeError as error:
            raise ModelError(f"{path} does not fit variant {name!r}: {str(error).splitlines()[-1].strip()}") from error
        opened = _Loaded(module, self._open)
        self._open.append(opened)
        return opened

    def resident_bytes(self) -> int:
        return sum(tensor.nbytes for opened in list(self._open) for _, tensor in tensors_of(opened.module))


class _Loaded(TorchVariant):
    def __init__(self, module: nn.Module, among: list[_Loaded]) -> None:
        super().__init__(module)
        self._among = among

    def close(self) -> None:
        if self in self._among:
            self._among.remove(self)


class ReloadSession(VariantStore):
    """ONNX variants of which only the open ones are in memory: a new plain session each time."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        self.names = tuple(files)
        self._files = files
        self._bytes = {name: weight_bytes(path) for name, path in files.items()}
        self._threads = threads
        self._open: dict[_Session, int] = {}

    def open(self, name: str) -> Opened:
        opened = _Session(self._files[self.check(name)], self._threads, self._open)
        self._open[opened] = self._bytes[name]
        return opened

    def resident_bytes(self) -> int:
        return sum(self._open.copy().values())


class _Session(Plain):
    def __init__(self, path: Path, threads: int, among: dict[_Session, int]) -> None:
        super().__init__(path, threads)
        self._among = among

    def close(self) -> None:
        self._among.pop(self, None)


def _read(path: Path, how: Literal["torch.load", "safetensors"]) -> dict[str, Tensor]:
    try:
        if how == "safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch, zip and safetensors raise exceptions of their own
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0][:200]}") from error
    return state
