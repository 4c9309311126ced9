"""One copy of the weights for all variants: each is a view of the leading channels of the largest.

    store = Superset.build({"large": large, "medium": medium, "small": small})
    [logits] = store.open("small").run(batch)
    store.resident_bytes()                  # of the superset, and of the little that each variant has of its own

It holds for nested variants: channels sorted by importance, so that a smaller variant keeps the first of each layer.
Slimmable networks (Yu et al., ICLR 2019, section 3) share weights so, with batch norms of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeward.errors import ModelError, PruneError
from edgeward.prune.stores import Opened, VariantStore

__all__ = ["Superset", "TorchVariant"]

Array = npt.NDArray[Any]


class Superset(VariantStore):
    """Torch variants as views of shared tensors. Make it with `build`."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.names = tuple(modules)
        self._opened = {name: TorchVariant(module) for name, module in modules.items()}
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for module in modules.values()
            for _, tensor in tensors_of(module)
        }
        self._bytes = sum(storages.values())

    @classmethod
    def build(cls, models: Mapping[str, nn.Module]) -> Self:
        """The store of `models`, on copies: they may go afterwards.

        A tensor with one axis (norms, biases) that is no leading slice of the largest model's is small and kept apart.
        Raises PruneError naming the first tensor of more axes that is not, with the place where it differs.
        """
        if not models:
            raise PruneError("no variants to keep; give at least one")
        largest = max(models, key=lambda name: sum(tensor.numel() for _, tensor in tensors_of(models[name])))
        shared = {name: tensor.detach().clone() for name, tensor in tensors_of(models[largest])}
        return cls({name: _viewing(name, model, shared, largest) for name, model in models.items()})

    def open(self, name: str) -> Opened:
        return self._opened[self.check(name)]

    def resident_bytes(self) -> int:
        return self._bytes


class TorchVariant(Opened):
    """A torch module that takes and gives arrays."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)

    def run(self, inputs: Array) -> list[Array]:
        try:
            with torch.inference_mode():
                outputs = self.module(torch.from_numpy(inputs))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"inference failed: {str(error).splitlines()[0][:300]}") from error
        return [one.numpy() for one in (outputs if isinstance(outputs, tuple | list) else (outputs,))]

    def close(self) -> None:
        pass


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name; a tensor that appears under several names only once."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _viewing(name: str, model: nn.Module, shared: Mapping[str, Tensor], largest: str) -> nn.Module:
    """A copy of `model` whose tensors are views of `shared` wherever they are its leading slices."""
    # What deepcopy finds in its memo it takes as copied already: so the tensors are never copied, only exchanged.
    memo: dict[int, Any] = {}
    for path, tensor in tensors_of(model):
        view = _slice(tensor, shared.get(path))
        if view is None:
            if tensor.dim() > 1:
                raise PruneError(
                    f"variant {name!r} is no slice of {largest!r}: {path} {_difference(tensor, shared.get(path))}; "
                    "keep such variants in the store 'borrowed'"
                )
            view = tensor.detach().clone()
        memo[id(tensor)] = nn.Parameter(view, requires_grad=False) if isinstance(tensor, nn.Parameter) else view
    return copy.deepcopy(model, memo)


def _slice(tensor: Tensor, whole: Tensor | None) -> Tensor | None:
    """The leading slice of `whole` that equals `tensor`, or None."""
    if whole is None or whole.dtype != tensor.dtype or whole.dim() != tensor.dim():
        return None
    if any(mine > theirs for mine, theirs in zip(tensor.shape, whole.shape, strict=True)):
        return None
    view = whole[tuple(slice(size) for size in tensor.shape)]
    return view if torch.equal(view, tensor.detach()) else None


def _difference(tensor: Tensor, whole: Tensor | None) -> str:
    """Why a tensor is no leading slice, in words."""
    if whole is None:
        return "is not there"
    shapes = f"has shape {list(tensor.shape)} and {tensor.dtype}, there {list(whole.shape)} and {whole.dtype}"
    same = whole.dim() == tensor.dim() and whole.dtype == tensor.dtype
    if not same or any(mine > theirs for mine, theirs in zip(tensor.shape, whole.shape, strict=True)):
        return shapes
    differing = (whole[tuple(slice(size) for size in tensor.shape)] != tensor.detach()).nonzero()
    return f"differs from the leading slice of {list(whole.shape)} first at {differing[0].tolist()}"
