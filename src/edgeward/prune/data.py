"""What masks are found and networks trained with: anything that gives shuffled batches, and tensors that do.

    data = Tensors(inputs, labels)                     # [n, ...], int64 [n]
    for inputs, labels in data.batches(128, seed=0):
        ...

`vision.labelled.Labelled` is such data too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import PruneError
from edgeward.vision.classification import logits_of

__all__ = ["Batch", "Data", "Tensors", "checked_batches", "cross_entropy", "device_of", "digest_of", "sample"]

Batch = tuple[Tensor, Tensor]


class Data(Protocol):
    """Examples with labels, in batches that depend on the seed alone."""

    def __len__(self) -> int:
        """How many examples."""

    def batches(self, size: int, seed: int | None = None, *, augment: bool = False) -> Iterator[Batch]:
        """Inputs [size, ...] and labels [size], shuffled by `seed` or in order; the last batch may be smaller."""


@dataclass(frozen=True, eq=False)
class Tensors:
    """inputs: [n, ...]. labels: [n, ...]. Raises PruneError when they are empty or not as many."""

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not len(self.inputs) or len(self.inputs) != len(self.labels):
            raise PruneError(f"{len(self.inputs)} inputs have {len(self.labels)} labels; give at least one of each")

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int, seed: int | None = None, *, augment: bool = False) -> Iterator[Batch]:
        """As `Data.batches`; tensors have no known augmentation, so it is refused."""
        if augment:
            raise PruneError("plain tensors cannot be augmented; choose augment=False or give labelled pictures")
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for chosen in torch.split(order, size):
            yield self.inputs[chosen], self.labels[chosen]


def sample(data: Data, count: int, size: int, seed: int) -> tuple[Batch, ...]:
    """About `count` examples drawn without repetition by `seed`, in batches of `size`; all there are where fewer."""
    found: list[Batch] = []
    taken = 0
    for inputs, labels in data.batches(min(size, count), seed):
        if found and (taken >= count or len(labels) < 2):  # a batch norm needs two
            break
        part = min(len(labels), count - taken)
        if found and part < 2:
            break
        found.append((inputs[:part], labels[:part]))
        taken += part
    return checked_batches(found)


def checked_batches(batches: Iterable[Batch]) -> tuple[Batch, ...]:
    """All of them, to be gone through twice. Raises PruneError when there is none or one is no inputs with labels."""
    found = tuple(batches)
    if not found:
        raise PruneError("the data gives no batch; give at least one example")
    for one in found:
        if not (isinstance(one, tuple | list) and len(one) == 2 and all(isinstance(part, Tensor) for part in one)):
            raise PruneError(f"a batch is a {type(one).__name__}; give pairs of tensors: inputs and labels")
        if not len(one[0]) or len(one[0]) != len(one[1]):
            raise PruneError(f"a batch has {len(one[0])} inputs and {len(one[1])} labels; give as many, at least one")
    return found


def cross_entropy(output: Any, labels: Tensor) -> Tensor:
    """Mean cross entropy of a classifier's output for labels [n]. Raises ModelError when it is no scores."""
    return functional.cross_entropy(logits_of(output), labels)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is."""
    return next((one.device for one in model.parameters()), torch.device("cpu"))


def digest_of(data: Data) -> str:
    """SHA-256 of all examples in order."""
    digest = hashlib.sha256()
    for batch in data.batches(1000):
        for tensor in batch:
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
