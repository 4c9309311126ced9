"""What a convolution or linear layer makes of constant inputs, exactly, and which of its inputs it reads.

    reads = Reads.of(conv)
    constant_outputs(conv, reads, given)     # float64 [outputs], NaN where the input decides

Zero padding replaces inputs at the border. A tap of the kernel that never meets the border sees a constant channel as
the same constant everywhere, so that its product is a bias; the product of any other tap is smaller at the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "LAYERS",
    "Mixer",
    "Reads",
    "by_group",
    "constant_outputs",
    "inner_sums",
    "inner_taps",
    "outer_sums",
]

Mixer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def by_group(layer: Mixer) -> Tensor:
    """A view of a layer's weight as [groups, outputs / groups, inputs / groups, taps]."""
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    weight = layer.weight.detach()
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)


def inner_taps(layer: Mixer) -> Tensor:
    """Which taps of the kernel never meet zero padding, whatever the size of the picture: bool [taps]."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return torch.ones(by_group(layer).shape[-1], dtype=torch.bool)
    inner = torch.ones(1, dtype=torch.bool)
    for axis, (side, gap) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        reach = gap * (side - 1)
        if isinstance(layer.padding, str):
            before = reach // 2 if layer.padding == "same" else 0
            after = reach - before if layer.padding == "same" else 0
        else:
            before = after = layer.padding[axis]
        place = gap * torch.arange(side)
        # The last window begins so that its end is at most `after` beyond the picture.
        inner = (inner[:, None] & ((place >= before) & (reach - place >= after))[None]).flatten()
    return inner


@dataclass(frozen=True)
class Reads:
    """Which weights of a layer are not zero, bool [groups, outputs / groups, inputs / groups].

    outer: those with such a tap that meets the border; None where no tap does.
    """

    any: Tensor
    outer: Tensor | None

    @classmethod
    def of(cls, layer: Mixer) -> Reads:
        """Read off the weights."""
        weight, inner = by_group(layer), inner_taps(layer)
        used = weight != 0
        every = used[..., 0] if used.shape[-1] == 1 else used.any(-1)
        return cls(every, None if bool(inner.all()) else used[..., ~inner].any(-1))


def inner_sums(layer: Mixer, given: Tensor) -> Tensor:
    """What the inner taps make of constant inputs: float64 [outputs]; NaN in `given`, float64 [inputs], counts as 0."""
    weight = by_group(layer)
    given = given.nan_to_num().view(len(weight), -1)
    told = (given != 0).any(0)
    if not bool(told.any()):
        return torch.zeros(weight.shape[0] * weight.shape[1], dtype=torch.float64)
    inner = weight[:, :, told][..., inner_taps(layer)].double().sum(-1)
    return torch.einsum("goi,gi->go", inner, given[:, told]).flatten()


def outer_sums(layer: Mixer, given: Tensor) -> Tensor:
    """The kernel of the taps that meet the border on one constant input of 1: float64 [outputs, such taps]."""
    told = given.nan_to_num() != 0
    outer = by_group(layer)[0][:, told][..., ~inner_taps(layer)].double()
    return torch.einsum("oit,i->ot", outer, given[told])


def constant_outputs(layer: Mixer, reads: Reads, given: Tensor) -> Tensor:
    """The outputs that are the same number everywhere for every input: float64 [outputs], NaN elsewhere.

    given: the constants of the inputs, float64 [inputs], NaN where the input decides.
    """
    known = given.view(reads.any.shape[0], 1, -1)
    open_ = (reads.any & known.isnan()).any(-1)
    if reads.outer is not None:
        open_ |= (reads.outer & ~known.isnan() & (known != 0)).any(-1)
    values = inner_sums(layer, given)
    if layer.bias is not None:
        values = values + layer.bias.detach().double()
    return torch.where(open_.flatten(), torch.nan, values)
