"""Inception-v3, without its auxiliary classifier.

    inception_v3()(torch.zeros(1, 3, 299, 299)).shape     # [1, 1000] logits

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, table 1 and figures 5 to 7.
Batch norms carry a scale.
"""

from __future__ import annotations

from torch import nn

from edgeward.zoo.convolutions import Branches, ConvUnit, Head, named

__all__ = ["Kernel", "inception_stem", "inception_v3", "path", "pooled"]

Kernel = int | tuple[int, int]


def path(inputs: int, *steps: tuple[int, Kernel]) -> nn.Sequential:
    """Convolutions in a row, each given by its channels and kernel; the size stays."""
    units: dict[str, nn.Module] = {}
    for index, (outputs, kernel) in enumerate(steps, start=1):
        units[f"conv{index}"] = ConvUnit(inputs, outputs, kernel)
        inputs = outputs
    return named(**units)


def pooled(inputs: int, outputs: int) -> nn.Sequential:
    """The mean of 3x3 pixels, of those that the border leaves, then a 1x1 convolution."""
    return named(pool=nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv1=ConvUnit(inputs, outputs))


def inception_stem() -> nn.Sequential:
    """[n, 3, h, w] to [n, 192, h', w']: 299 pixels come to 35, 75 to 7. Inception-ResNet-v2 shares it."""
    return named(
        conv1=ConvUnit(3, 32, 3, 2, valid=True),
        conv2=ConvUnit(32, 32, 3, valid=True),
        conv3=ConvUnit(32, 64, 3),
        pool1=nn.MaxPool2d(3, 2),
        conv4=ConvUnit(64, 80),
        conv5=ConvUnit(80, 192, 3, valid=True),
        pool2=nn.MaxPool2d(3, 2),
    )


def _square(inputs: int, pool: int) -> Branches:
    """Figure 5: 3x3 in place of 5x5, [n, inputs, h, w] to [n, 224 + pool, h, w]."""
    return Branches(
        point=ConvUnit(inputs, 64),
        single=path(inputs, (48, 1), (64, 5)),
        twice=path(inputs, (64, 1), (96, 3), (96, 3)),
        pool=pooled(inputs, pool),
    )


def _crossed(narrow: int) -> Branches:
    """Figure 6: 7x7 as 1x7 and 7x1, [n, 768, h, w] to the same shape."""
    row, column = (1, 7), (7, 1)
    return Branches(
        point=ConvUnit(768, 192),
        single=path(768, (narrow, 1), (narrow, row), (192, column)),
        twice=path(768, (narrow, 1), (narrow, column), (narrow, row), (narrow, column), (192, row)),
        pool=pooled(768, 192),
    )


def _spread(inputs: int) -> Branches:
    """Figure 7: 1x3 and 3x1 beside each other, [n, inputs, h, w] to [n, 2048, h, w]."""

    def fork(width: int) -> Branches:
        return Branches(row=ConvUnit(width, 384, (1, 3)), column=ConvUnit(width, 384, (3, 1)))

    return Branches(
        point=ConvUnit(inputs, 320),
        single=named(conv1=ConvUnit(inputs, 384), fork=fork(384)),
        twice=named(path=path(inputs, (448, 1), (384, 3)), fork=fork(384)),
        pool=pooled(inputs, 192),
    )


def _reduction1() -> Branches:
    """[n, 288, h, w] to [n, 768, (h - 1) / 2, (w - 1) / 2]."""
    twice = named(path=path(288, (64, 1), (96, 3)), reduce=ConvUnit(96, 96, 3, 2, valid=True))
    return Branches(single=ConvUnit(288, 384, 3, 2, valid=True), twice=twice, pool=nn.MaxPool2d(3, 2))


def _reduction2() -> Branches:
    """[n, 768, h, w] to [n, 1280, (h - 1) / 2, (w - 1) / 2]."""
    crossed = path(768, (192, 1), (192, (1, 7)), (192, (7, 1)))
    return Branches(
        single=named(conv1=ConvUnit(768, 192), reduce=ConvUnit(192, 320, 3, 2, valid=True)),
        crossed=named(path=crossed, reduce=ConvUnit(192, 192, 3, 2, valid=True)),
        pool=nn.MaxPool2d(3, 2),
    )


def inception_v3(classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; h and w are at least 75."""
    return named(
        stem=inception_stem(),
        stage1=nn.Sequential(_square(192, 32), _square(256, 64), _square(288, 64)),
        reduction1=_reduction1(),
        stage2=nn.Sequential(_crossed(128), _crossed(160), _crossed(160), _crossed(192)),
        reduction2=_reduction2(),
        stage3=nn.Sequential(_spread(1280), _spread(2048)),
        head=Head(2048, classes),
    )
