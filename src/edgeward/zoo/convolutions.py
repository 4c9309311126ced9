"""Pieces that the reference networks share: convolutions with batch norm, parallel branches, the usual head.

    unit = ConvUnit(3, 64, 7, 2)
    unit(torch.zeros(1, 3, 224, 224)).shape     # [1, 64, 112, 112]

All padding is even and known when the module is built, so `torch.fx` and `torch.export` see one static graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeward.errors import ConfigError

__all__ = ["Branches", "ConvUnit", "Head", "Separable", "counts_of", "even", "named"]


def counts_of(family: str, depth: int, table: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """How many blocks each stage has in the member of a family that is `depth` layers deep.

    Raises ConfigError when the family has no such member.
    """
    if depth not in table:
        raise ConfigError(f"there is no {family} of depth {depth}; choose one of {', '.join(map(str, table))}")
    return table[depth]


def even(kernel: int | tuple[int, int]) -> tuple[int, int]:
    """Zeros on each side (rows, columns) that keep the size under an odd kernel and stride 1."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return height // 2, width // 2


def named(**modules: nn.Module) -> nn.Sequential:
    """The modules in the order given, each reachable by its name."""
    return nn.Sequential(OrderedDict(modules))


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch norm, ReLU: [n, inputs, h, w] to [n, outputs, h / stride, w / stride].

    `valid` leaves the borders unpadded. Ioffe and Szegedy, "Batch Normalization", ICML 2015, section 3.2.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, *, valid: bool = False
    ) -> None:
        padding = (0, 0) if valid else even(kernel)
        super().__init__(
            OrderedDict[str, nn.Module](
                conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
                norm=nn.BatchNorm2d(outputs),
                relu=nn.ReLU(),
            )
        )


class Separable(nn.Sequential):
    """Each channel filtered, the channels mixed by 1x1, batch norm: shapes as for `ConvUnit`, nothing after it.

    Chollet, "Xception", CVPR 2017, section 3: no nonlinearity between the two convolutions.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                depthwise=nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
                pointwise=nn.Conv2d(inputs, outputs, 1, bias=False),
                norm=nn.BatchNorm2d(outputs),
            )
        )


class Branches(nn.ModuleDict):
    """Several ways through, joined by channel: [n, inputs, h, w] to [n, the sum of their outputs, h', w']."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        """All branches see the same input and agree on h' and w'."""
        return torch.cat([branch(x) for branch in self.values()], dim=1)


class Head(nn.Sequential):
    """The mean of each channel, and one linear layer: [n, inputs, h, w] to logits [n, classes]."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Linear(inputs, classes)
            )
        )
