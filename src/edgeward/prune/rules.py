"""What single operations do to labels and constants.

    field = combined(torch.add, left, right, labels)      # a residual sum couples its operands, channel by channel

Each rule takes fields and gives the field of the result, or raises UnknownError where the operation mixes channels in
a way that it does not cover. Operations are given as functions of a tensor, so that torch itself computes constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgeward.prune.field import Field, Labels, channels_of, compact, spread, varying

__all__ = [
    "UnknownError",
    "averaged",
    "combined",
    "joined",
    "mixed",
    "normalised",
    "padded",
    "pointwise",
    "pooled",
    "scored",
]

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class UnknownError(Exception):
    """The rule of an operation does not cover this use of it."""


def _per_channel(field: Field, axis: int) -> tuple[Tensor, Tensor]:
    found = channels_of(field, axis) if field.labels.dim() > max(axis, 1) else None
    if found is None:
        raise UnknownError
    return found


def pointwise(operation: Callable[[Tensor], Tensor], field: Field) -> Field:
    """An activation: the same function of every element."""
    values = operation(compact(field.values).clone())  # it may write in place
    return Field(field.labels, values.expand(field.values.shape))


def combined(operation: Callable[..., Tensor], left: Field | float, right: Field | float, labels: Labels) -> Field:
    """Sum, difference, product or quotient of elements, with broadcasting; one of the operands may be a number.

    An operand with one value for all channels (a mask, a gate) cannot go with any of them: both sides stay.
    """
    if not isinstance(left, Field) or not isinstance(right, Field):
        field = left if isinstance(left, Field) else right
        assert isinstance(field, Field)
        a, b = (compact(one.values) if isinstance(one, Field) else one for one in (left, right))
        return Field(field.labels, operation(a, b).expand(field.values.shape))
    shape = torch.broadcast_shapes(left.labels.shape, right.labels.shape)  # type: ignore[no-untyped-call]
    mine, theirs = left.labels.expand(shape), right.labels.expand(shape)
    a, b = compact(mine, theirs), compact(theirs, mine)
    if bool((a == a.flatten()[0]).all()) == bool((b == b.flatten()[0]).all()):
        labels.unite(a, b)
    else:
        labels.pin(a)
        labels.pin(b)
    x, y = compact(left.values), compact(right.values)
    values = operation(x, y)
    if operation is torch.mul:
        values = torch.where((x == 0) | (y == 0), 0.0, values)
    return Field(mine if bool((b == b.flatten()[0]).all()) else theirs, values.expand(shape))


def joined(fields: Sequence[Field], axis: int, shape: Sequence[int]) -> Field:
    """Concatenation along a dimension."""

    def cat(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([compact(part, *parts, but=axis) for part in parts], axis).expand(*shape)

    return Field(cat([field.labels for field in fields]), cat([field.values for field in fields]))


def pooled(operation: Callable[[Tensor], Tensor], field: Field, shape: Sequence[int]) -> Field:
    """Pooling or resizing of maps [n, channels, ...]: constants stay when it gives ones of ones."""
    labels, values = _per_channel(field, 1)
    ones = operation(torch.ones(1, 1, *field.labels.shape[2:], dtype=torch.float64))
    if bool((ones - 1).abs().max() > 1e-9):  # zeros around the map are averaged in
        values = torch.where(values == 0, values, torch.nan)
    return spread(labels, values, shape, 1)


def averaged(field: Field, axes: Sequence[int], keep: bool, shape: Sequence[int]) -> Field:
    """The mean over dimensions that are not the channels'."""
    reduced = {axis % field.labels.dim() for axis in axes}
    along = varying(field.labels)
    if len(along) != 1 or along[0] in reduced:
        raise UnknownError
    labels, values = _per_channel(field, along[0])
    return spread(labels, values, shape, along[0] - (0 if keep else sum(one < along[0] for one in reduced)))


def padded(
    field: Field, pads: Sequence[int], value: float, shape: Sequence[int], fresh: Callable[[int], Tensor]
) -> Field:
    """`value` around maps [n, channels, ...] or their channels; `pads` as torch.nn.functional.pad takes them.

    fresh: gives so many new labels, for added channels.
    """
    own, values = _per_channel(field, 1)
    rank = field.labels.dim()
    around = {rank - 1 - index: (pads[2 * index], pads[2 * index + 1]) for index in range(len(pads) // 2)}
    before, after = around.pop(1, (0, 0))
    if rank < 3 or around.pop(0, (0, 0)) != (0, 0) or min(before, after) < 0:
        raise UnknownError
    if any(pad > 0 for pair in around.values() for pad in pair):
        values = torch.where(values == value, values, torch.nan)
    ends = [fresh(count) for count in (before, after)]
    fixed = [torch.full((count,), value, dtype=torch.float64) for count in (before, after)]
    return spread(torch.cat([ends[0], own, ends[1]]), torch.cat([fixed[0], values, fixed[1]]), shape, 1)


def normalised(norm: Norm, field: Field) -> Field:
    """Batch norm with the statistics that it has seen: one line per channel."""
    labels, values = _per_channel(field, 1)
    if norm.running_mean is None or norm.running_var is None:  # it would use those of the batch
        raise UnknownError
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
    made = torch.where(scale == 0, shift, (values - norm.running_mean.double()) * scale + shift)
    return spread(labels, made, field.labels.shape, 1)


def scored(query: Field, key: Field, shape: Sequence[int], labels: Labels) -> Field:
    """The product of [..., heads, tokens, size] and [..., heads, size, tokens]: a head goes as a whole."""
    mine, theirs = _heads(query, -1), _heads(key, -2)
    if mine.shape != theirs.shape:
        raise UnknownError
    both = torch.cat([mine, theirs], 1)
    labels.unite(both, both[:, :1].expand(both.shape))
    unknown = torch.tensor(torch.nan, dtype=torch.float64)
    return Field(mine[:, :1, None].expand(*shape), unknown.expand(*shape))


def mixed(weights: Field, value: Field, shape: Sequence[int], labels: Labels, *, means: bool) -> Field:
    """The product of [..., heads, tokens, tokens] and [..., heads, tokens, size]; with `means`, weights sum to 1."""
    heads, each = _heads(weights, -1)[:, :1], _heads(value, -1)
    if len(heads) != len(each):
        raise UnknownError
    labels.unite(each, heads.expand(each.shape))
    values = compact(value.values)
    same = (values == (values[..., :1, :] if means else 0)).all(-2, keepdim=True)
    values = torch.where(same, values[..., :1, :], torch.nan)
    return Field(value.labels[..., :1, :].expand(*shape), values.expand(*shape))


def _heads(field: Field, axis: int) -> Tensor:
    """Labels [heads, size] where heads lie along the last dimension but two, and their channels along `axis`."""
    rank = field.labels.dim()
    if rank < 3 or not {*varying(field.labels)} <= {rank - 3, axis % rank}:
        raise UnknownError
    return field.labels.movedim((rank - 3, axis), (0, 1)).flatten(2)[..., 0]
