"""Inception-ResNet-v2, in the edition that pretrained weights exist for.

    inception_resnet_v2()(torch.zeros(1, 3, 299, 299)).shape     # [1, 1000] logits

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
figures 15 to 19, with the stem and the counts of https://keras.io/api/applications/inceptionresnetv2. Batch norms
carry a scale.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeward.zoo.convolutions import Branches, ConvUnit, Head, named
from edgeward.zoo.inception import inception_stem, path, pooled

__all__ = ["ScaledResidual", "inception_resnet_v2"]


class ScaledResidual(nn.Module):
    """Branches led back to `width` by a 1x1 convolution and added, scaled down: [n, width, h, w] to the same.

    Section 3.3 of the paper: without the scale, wide residual networks stop learning. `last` leaves out the ReLU.
    """

    def __init__(self, width: int, branches: Branches, joined: int, scale: float, *, last: bool = False) -> None:
        super().__init__()
        self.branches = branches
        self.widen = nn.Conv2d(joined, width, 1)
        self.scale = scale
        self.relu = nn.Identity() if last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The input, moved a little."""
        y: Tensor = self.relu(x + self.scale * self.widen(self.branches(x)))
        return y


def _first() -> Branches:
    """[n, 192, h, w] to [n, 320, h, w]."""
    return Branches(
        point=ConvUnit(192, 96),
        single=path(192, (48, 1), (64, 5)),
        twice=path(192, (64, 1), (96, 3), (96, 3)),
        pool=pooled(192, 64),
    )


def _block35() -> ScaledResidual:
    branches = Branches(
        point=ConvUnit(320, 32), single=path(320, (32, 1), (32, 3)), twice=path(320, (32, 1), (48, 3), (64, 3))
    )
    return ScaledResidual(320, branches, 128, 0.17)


def _block17() -> ScaledResidual:
    branches = Branches(point=ConvUnit(1088, 192), crossed=path(1088, (128, 1), (160, (1, 7)), (192, (7, 1))))
    return ScaledResidual(1088, branches, 384, 0.1)


def _block8(*, last: bool = False) -> ScaledResidual:
    branches = Branches(point=ConvUnit(2080, 192), crossed=path(2080, (192, 1), (224, (1, 3)), (256, (3, 1))))
    return ScaledResidual(2080, branches, 448, 1.0 if last else 0.2, last=last)


def _reduction1() -> Branches:
    """[n, 320, h, w] to [n, 1088, (h - 1) / 2, (w - 1) / 2]."""
    twice = named(path=path(320, (256, 1), (256, 3)), reduce=ConvUnit(256, 384, 3, 2, valid=True))
    return Branches(single=ConvUnit(320, 384, 3, 2, valid=True), twice=twice, pool=nn.MaxPool2d(3, 2))


def _reduction2() -> Branches:
    """[n, 1088, h, w] to [n, 2080, (h - 1) / 2, (w - 1) / 2]."""
    return Branches(
        single=named(conv1=ConvUnit(1088, 256), reduce=ConvUnit(256, 384, 3, 2, valid=True)),
        narrow=named(conv1=ConvUnit(1088, 256), reduce=ConvUnit(256, 288, 3, 2, valid=True)),
        twice=named(path=path(1088, (256, 1), (288, 3)), reduce=ConvUnit(288, 320, 3, 2, valid=True)),
        pool=nn.MaxPool2d(3, 2),
    )


def inception_resnet_v2(classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; h and w are at least 75."""
    return named(
        stem=inception_stem(),
        first=_first(),
        stage1=nn.Sequential(*(_block35() for _ in range(10))),
        reduction1=_reduction1(),
        stage2=nn.Sequential(*(_block17() for _ in range(20))),
        reduction2=_reduction2(),
        stage3=nn.Sequential(*(_block8() for _ in range(9)), _block8(last=True)),
        widen=ConvUnit(2080, 1536),
        head=Head(1536, classes),
    )
