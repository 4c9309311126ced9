"""Low-rank private corrections beside shared layers: accuracy bought back for about one hundredth of the memory.

    add_delta(model, "fc1", rank=4)                        # changes nothing yet
    add_delta(model, "fc1", rank=4, wanted=own_weight)     # starts as the best approximation of the own weight

A layer with weight W computes with W + up @ down; W may be shared, up and down are the model's own. Updates of low rank
as in Hu et al., "LoRA", ICLR 2022, section 4; the start is the truncated singular value decomposition (Eckart and
Young, 1936). The layer stays at its path and keeps its parameters, so that what was tied is still tied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import PlanError

__all__ = ["DeltaConv1d", "DeltaConv2d", "DeltaConv3d", "DeltaLinear", "add_delta", "deltas", "remove_delta"]


class _Delta:
    """What the layers below have in common."""

    up: nn.Parameter
    down: nn.Parameter


class DeltaLinear(_Delta, nn.Linear):
    """A linear layer with a private correction; up [outputs, rank], down [rank, inputs]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
        return super().forward(input) + functional.linear(functional.linear(input, self.down), self.up)


class _DeltaConvolution(_Delta, nn.modules.conv._ConvNd):
    """A convolution to `rank` channels, then one of 1x1, beside the shared one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
        narrow = self._conv_forward(input, self.down.view(-1, *self.weight.shape[1:]), None)
        pointwise = _POINTWISE[len(self.kernel_size)]
        wide = pointwise(narrow, self.up.view(*self.up.shape, *(1 for _ in self.kernel_size)))
        return self._conv_forward(input, self.weight, self.bias) + wide


class DeltaConv1d(_DeltaConvolution, nn.Conv1d):
    """As `DeltaConv2d`, for sequences."""


class DeltaConv2d(_DeltaConvolution, nn.Conv2d):
    """A convolution with a private correction; up [outputs, rank], down [rank, inputs * kernel]."""


class DeltaConv3d(_DeltaConvolution, nn.Conv3d):
    """As `DeltaConv2d`, for volumes."""


_POINTWISE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_WITH: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: DeltaLinear,
    nn.Conv1d: DeltaConv1d,
    nn.Conv2d: DeltaConv2d,
    nn.Conv3d: DeltaConv3d,
}
_WITHOUT: dict[type[nn.Module], type[nn.Module]] = {one: plain for plain, one in _WITH.items()}


def deltas(module: nn.Module) -> dict[str, int]:
    """Ranks of a model's corrections by path of their layers."""
    return {path: one.down.shape[0] for path, one in module.named_modules() if isinstance(one, _Delta)}


def add_delta(module: nn.Module, path: str, rank: int, wanted: Tensor | None = None) -> bool:
    """Give the layer at `path` a correction of this rank, or replace the one it has.

    wanted: a weight of the layer's shape to come as close to as the rank allows; without it the correction starts as 0.
    Returns False, and changes nothing, for a layer that cannot have one: convolutions in groups, layers of the user's
    own class, ranks that would take as much memory as the layer. Raises PlanError for a rank below 1 or no such layer.
    """
    if rank < 1:
        raise PlanError(f"a correction of rank {rank} is none; choose at least 1")
    try:
        layer = module.get_submodule(path)
    except AttributeError as error:
        raise PlanError(f"the model has no layer {path!r}") from error
    kind = _WITHOUT.get(type(layer), type(layer))
    if kind not in _WITH or getattr(layer, "groups", 1) != 1:
        return False
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    outputs, inputs = weight.shape[0], weight[0].numel()
    if rank * (outputs + inputs) >= outputs * inputs:
        return False
    # The class is changed in place, so path, parameters, hooks and whoever holds the layer stay as they are.
    layer.__class__ = _WITH[kind]
    up, down = _start(weight.detach(), rank, wanted)
    layer.register_parameter("up", nn.Parameter(up))
    layer.register_parameter("down", nn.Parameter(down))
    return True


def remove_delta(module: nn.Module, path: str) -> None:
    """Take the correction away again; the shared weight stays as it is."""
    layer = module.get_submodule(path)
    if type(layer) in _WITHOUT:
        del layer.up, layer.down
        layer.__class__ = _WITHOUT[type(layer)]


def _start(weight: Tensor, rank: int, wanted: Tensor | None) -> tuple[Tensor, Tensor]:
    """up and down at the beginning."""
    flat = weight.reshape(len(weight), -1)
    if wanted is not None:
        u, s, v = torch.linalg.svd((wanted.detach().reshape_as(flat) - flat).float(), full_matrices=False)
        root = s[:rank].sqrt()
        return (u[:, :rank] * root).to(weight.dtype).contiguous(), (root[:, None] * v[:rank]).to(
            weight.dtype
        ).contiguous()
    # down is not 0, else neither would ever have a gradient.
    generator = torch.Generator().manual_seed(rank)
    down = torch.randn(rank, flat.shape[1], generator=generator) / flat.shape[1] ** 0.5
    return torch.zeros_like(flat[:, :rank]).contiguous(), down.to(weight)
