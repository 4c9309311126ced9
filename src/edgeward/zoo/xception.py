"""Xception: depthwise separable convolutions with residual connections.

    xception()(torch.zeros(1, 3, 299, 299)).shape     # [1, 1000] logits

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from edgeward.zoo.convolutions import ConvUnit, Head, Separable, named
from edgeward.zoo.resnet import projection

__all__ = ["XceptionBlock", "xception"]


class XceptionBlock(nn.Module):
    """Separable convolutions added to a shortcut: [n, widths[0], h, w] to [n, widths[-1], h / stride, w / stride].

    Each convolution is preceded by a ReLU; `active` says that the input already comes out of one.
    """

    def __init__(self, widths: tuple[int, ...], stride: int = 1, *, active: bool = False) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            if index > 1 or not active:
                layers[f"relu{index}"] = nn.ReLU()
            layers[f"conv{index}"] = Separable(inputs, outputs)
        if stride > 1:
            layers["pool"] = nn.MaxPool2d(3, stride, 1)
        self.convolutions = named(**layers)
        self.shortcut = projection(widths[0], widths[-1], stride)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, not activated."""
        y: Tensor = self.convolutions(x) + self.shortcut(x)
        return y


def xception(classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; h and w are at least 7."""
    return named(
        stem=named(conv1=ConvUnit(3, 32, 3, 2, valid=True), conv2=ConvUnit(32, 64, 3, valid=True)),
        entry=nn.Sequential(
            XceptionBlock((64, 128, 128), 2, active=True),
            XceptionBlock((128, 256, 256), 2),
            XceptionBlock((256, 728, 728), 2),
        ),
        middle=nn.Sequential(*(XceptionBlock((728, 728, 728, 728)) for _ in range(8))),
        exit=named(
            block=XceptionBlock((728, 728, 1024), 2),
            conv1=Separable(1024, 1536),
            relu1=nn.ReLU(),
            conv2=Separable(1536, 2048),
            relu2=nn.ReLU(),
        ),
        head=Head(2048, classes),
    )
