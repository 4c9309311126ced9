"""What is known of a tensor before any input is seen: whose channel each element is, and which are constant.

    field = spread(labels, values, torch.Size((1, 64, 56, 56)), axis=1)
    channels_of(field, 1)                   # (labels, values) again: one per channel

A label names a set of channels that can only leave the network together. Where elements repeat along a dimension its
stride is 0, so the field of a large map costs no more than its channels, and views are taken by torch itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Field", "Labels", "channels_of", "compact", "spread", "varying"]


@dataclass(frozen=True)
class Field:
    """labels: int64; values: float64, NaN where the input decides. Both have the shape of the tensor they describe."""

    labels: Tensor
    values: Tensor


class Labels:
    """Labels that are united as channels turn out to be coupled; those pinned stay in the network."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pinned: set[int] = set()

    def fresh(self, count: int, *, pinned: bool = False) -> Tensor:
        """New labels, int64 [count]."""
        first = len(self._parent)
        self._parent += range(first, first + count)
        if pinned:
            self._pinned |= {*range(first, first + count)}
        return torch.arange(first, first + count)

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Each of `left` with the one of `right` at its place."""
        for pair in zip(left.flatten().tolist(), right.flatten().tolist(), strict=True):
            self.bind(pair)

    def bind(self, labels: Sequence[int]) -> None:
        """All of these with one another."""
        for label in labels[1:]:
            self._parent[self._find(label)] = self._find(labels[0])

    def pin(self, labels: Tensor) -> None:
        """Channels with these labels stay."""
        self._pinned |= {*torch.unique(compact(labels)).tolist()}

    def _find(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def roots(self) -> Tensor:
        """The label that stands for each, int64 [labels]."""
        return torch.tensor([self._find(label) for label in range(len(self._parent))], dtype=torch.int64)

    def pinned(self) -> Tensor:
        """Which roots are pinned, bool [labels]."""
        found = torch.zeros(len(self._parent), dtype=torch.bool)
        found[[self._find(label) for label in self._pinned]] = True
        return found


def compact(tensor: Tensor, *others: Tensor, but: int | None = None) -> Tensor:
    """Of size 1 in the dimensions, `but` one, along which this tensor and the `others` only repeat."""
    for axis in range(tensor.dim()):
        if axis != but and all(one.stride(axis) == 0 for one in (tensor, *others)):
            tensor = tensor.narrow(axis, 0, min(1, tensor.shape[axis]))
    return tensor


def spread(labels: Tensor, values: Tensor, shape: Sequence[int], axis: int) -> Field:
    """A field of this shape whose channels lie along `axis`."""
    sides = [1] * len(shape)
    sides[axis] = -1
    return Field(labels.reshape(sides).expand(*shape), values.reshape(sides).expand(*shape))


def varying(tensor: Tensor) -> list[int]:
    """The dimensions along which elements differ."""
    small = compact(tensor)
    return [axis for axis in range(small.dim()) if not bool((small == small.narrow(axis, 0, 1)).all())]


def channels_of(field: Field, axis: int) -> tuple[Tensor, Tensor] | None:
    """Label and value of every channel along `axis`; None where a channel holds elements of several labels.

    A channel's value is NaN unless all its elements have the same.
    """
    labels = compact(field.labels).movedim(axis, 0).flatten(1)
    if bool((labels != labels[:, :1]).any()):
        return None
    values = compact(field.values).movedim(axis, 0).flatten(1)
    count = field.labels.shape[axis]
    constant = torch.where((values == values[:, :1]).all(1), values[:, 0], torch.nan)
    return labels[:, 0].expand(count), constant.expand(count)
