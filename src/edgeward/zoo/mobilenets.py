"""MobileNet V1 and V2 as classifiers.

    mobilenet_v1()(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

Howard et al., "MobileNets", arXiv 1704.04861, table 1; Sandler et al., "MobileNetV2", CVPR 2018, table 2.
"""

from __future__ import annotations

from torch import nn

from edgeward.zoo.convolutions import Head, named
from edgeward.zoo.layers import ConvNorm
from edgeward.zoo.mobilenet import MobileNetV2

__all__ = ["mobilenet_v1", "mobilenet_v2"]

_V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride."""


def mobilenet_v1(classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]."""
    blocks: list[nn.Module] = []
    width = 32
    for outputs, stride in _V1_BLOCKS:
        depthwise = ConvNorm(width, width, 3, stride, groups=width)
        blocks.append(named(depthwise=depthwise, pointwise=ConvNorm(width, outputs)))
        width = outputs
    return named(stem=ConvNorm(3, 32, 3, 2), blocks=nn.Sequential(*blocks), head=Head(width, classes))


def mobilenet_v2(classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]."""
    return named(embed=MobileNetV2(), dropout=nn.Dropout(0.2), classifier=nn.Linear(1280, classes))
