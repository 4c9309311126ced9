"""VGG-16 and VGG-19: 3x3 convolutions and three wide linear layers.

    vgg(16)(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1,
configurations D and E.
"""

from __future__ import annotations

from torch import nn

from edgeward.zoo.convolutions import ConvUnit, counts_of, named

__all__ = ["WIDTHS", "stage", "vgg"]

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five stages."""

_COUNTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def stage(inputs: int, outputs: int, count: int, *, norm: bool = False) -> nn.Sequential:
    """`count` 3x3 convolutions with ReLU, halved at the end: [n, inputs, h, w] to [n, outputs, h / 2, w / 2].

    With `norm` the convolutions carry a batch norm in place of their bias.
    """
    layers: dict[str, nn.Module] = {}
    for index in range(1, count + 1):
        if norm:
            layers[f"conv{index}"] = ConvUnit(inputs, outputs, 3)
        else:
            layers[f"conv{index}"] = named(conv=nn.Conv2d(inputs, outputs, 3, padding=1), relu=nn.ReLU())
        inputs = outputs
    return named(**layers, pool=nn.MaxPool2d(2))


def vgg(depth: int, classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; `depth` is 16 or 19, h and w are at least 32.

    Away from 224 x 224 the last map is pooled to the 7 x 7 that the linear layers were made for.
    Raises ConfigError for another depth.
    """
    stages: dict[str, nn.Module] = {}
    width = 3
    for index, (outputs, count) in enumerate(zip(WIDTHS, counts_of("VGG", depth, _COUNTS), strict=True), start=1):
        stages[f"stage{index}"] = stage(width, outputs, count)
        width = outputs
    head = named(
        pool=nn.AdaptiveAvgPool2d(7),
        flatten=nn.Flatten(),
        linear1=nn.Linear(width * 7 * 7, 4096),
        relu1=nn.ReLU(),
        dropout1=nn.Dropout(0.5),
        linear2=nn.Linear(4096, 4096),
        relu2=nn.ReLU(),
        dropout2=nn.Dropout(0.5),
        classifier=nn.Linear(4096, classes),
    )
    return named(**stages, head=head)
