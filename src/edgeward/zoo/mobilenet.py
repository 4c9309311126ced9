"""MobileNetV2 without its classifier: a picture as 1280 numbers.

    model = MobileNetV2()
    load_in_order(model, state_dict)
    model(torch.zeros(1, 3, 224, 224)).shape     # [1, 1280]

Sandler et al., "MobileNetV2", CVPR 2018, table 2. Batch norms are kept.
"""

from __future__ import annotations

from torch import nn

from edgeward.zoo.layers import ConvNorm, Expansion, InvertedResidual

__all__ = ["STAGES", "MobileNetV2"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion ratio, channels, blocks, stride of the first block."""


class MobileNetV2(nn.Sequential):
    """[n, 3, h, w], RGB normalised by ImageNet's mean and deviation, to [n, 1280]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        width = 32
        for ratio, outputs, count, stride in STAGES:
            for index in range(count):
                layers.append(InvertedResidual(width, outputs, Expansion(ratio, stride=stride if index == 0 else 1)))
                width = outputs
        super().__init__(*layers, ConvNorm(width, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten())
