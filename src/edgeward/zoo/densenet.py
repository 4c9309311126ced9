"""DenseNet-121, DenseNet-169 and DenseNet-201: each layer sees what all before it in its block have found.

    densenet(121)(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, table 1 (growth rate 32, DenseNet-BC).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeward.zoo.convolutions import ConvUnit, Head, counts_of, named

__all__ = ["DenseLayer", "densenet"]

GROWTH = 32
"""Channels that each layer adds."""

_COUNTS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


class DenseLayer(nn.Module):
    """[n, inputs, h, w] to [n, inputs + GROWTH, h, w]: the input, and what this layer makes of it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv1 = ConvUnit(inputs, 4 * GROWTH, 1)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The input's channels stay in front."""
        return torch.cat([x, self.conv2(self.conv1(self.relu(self.norm(x))))], dim=1)


def _transition(inputs: int) -> nn.Sequential:
    """[n, inputs, h, w] to [n, inputs / 2, h / 2, w / 2]."""
    conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
    return named(norm=nn.BatchNorm2d(inputs), relu=nn.ReLU(), conv=conv, pool=nn.AvgPool2d(2))


def densenet(depth: int, classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; `depth` is 121, 169 or 201, h and w are at least 29.

    Raises ConfigError for another depth.
    """
    layers: dict[str, nn.Module] = {"stem": named(unit=ConvUnit(3, 64, 7, 2), pool=nn.MaxPool2d(3, 2, 1))}
    width = 64
    for index, count in enumerate(counts_of("DenseNet", depth, _COUNTS), start=1):
        if index > 1:
            layers[f"transition{index - 1}"] = _transition(width)
            width //= 2
        layers[f"block{index}"] = nn.Sequential(*(DenseLayer(width + GROWTH * layer) for layer in range(count)))
        width += GROWTH * count
    return named(**layers, norm=nn.BatchNorm2d(width), relu=nn.ReLU(), head=Head(width, classes))
