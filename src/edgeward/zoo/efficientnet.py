"""EfficientNet-Lite0: a classifier for ImageNet made for small devices.

    model = EfficientNetLite0()
    load_in_order(model, state_dict)
    model(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

Tan and Le, "EfficientNet", ICML 2019, table 1, in the Lite variant (ReLU6, no squeeze-and-excitation) of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Batch norms are kept.
"""

from __future__ import annotations

from torch import nn

from edgeward.zoo.layers import ConvNorm, Expansion, InvertedResidual

__all__ = ["EfficientNetLite0"]

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion ratio, channels, blocks, kernel, stride of the first block."""


class EfficientNetLite0(nn.Sequential):
    """[n, 3, h, w], RGB as (pixel - 127) / 128, to logits [n, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, same=True)]
        width = 32
        for ratio, outputs, count, kernel, stride in STAGES:
            for index in range(count):
                shape = Expansion(ratio, kernel, stride if index == 0 else 1, same=True)
                layers.append(InvertedResidual(width, outputs, shape))
                width = outputs
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes))
        super().__init__(*layers, ConvNorm(width, 1280, same=True), *head)
