"""Networks for pictures of 32 x 32: residual networks without projections, and VGG-16 with batch norm.

    cifar_resnet(20)(torch.zeros(1, 3, 32, 32)).shape     # [1, 10] logits

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; Simonyan and Zisserman, "Very
Deep Convolutional Networks", ICLR 2015, configuration D with one linear layer, as Liu et al., "Learning Efficient
Convolutional Networks through Network Slimming", ICCV 2017, prune it.
"""

from __future__ import annotations

from torch import nn

from edgeward.errors import ConfigError
from edgeward.zoo.convolutions import ConvUnit, Head, named
from edgeward.zoo.resnet import BasicBlock
from edgeward.zoo.vgg import WIDTHS, stage

__all__ = ["cifar_resnet", "cifar_vgg16"]


def _padded(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The way past a block that needs no weights (option A): every `stride`-th pixel, zeros around its channels."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    before = (outputs - inputs) // 2
    # Six numbers reach past width and height to the channels.
    return named(sample=nn.AvgPool2d(1, stride), pad=nn.ZeroPad3d((0, 0, 0, 0, before, outputs - inputs - before)))


def cifar_resnet(depth: int, classes: int = 10) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; `depth` is 6 k + 2 for k blocks in each of the three stages.

    Raises ConfigError for another depth.
    """
    if depth < 8 or depth % 6 != 2:
        raise ConfigError(f"there is no CIFAR ResNet of depth {depth}; choose 6 k + 2: 8, 14, 20, 32, 44, 56, ...")
    stages: dict[str, nn.Module] = {}
    width = 16
    for index, outputs in enumerate((16, 32, 64), start=1):
        blocks: list[nn.Module] = []
        for position in range((depth - 2) // 6):
            stride = 2 if index > 1 and position == 0 else 1
            blocks.append(BasicBlock(width, outputs, stride, _padded(width, outputs, stride)))
            width = outputs
        stages[f"stage{index}"] = nn.Sequential(*blocks)
    return named(stem=ConvUnit(3, 16, 3), **stages, head=Head(width, classes))


def cifar_vgg16(classes: int = 10) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; h and w are at least 32."""
    stages: dict[str, nn.Module] = {}
    width = 3
    for index, (outputs, count) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True), start=1):
        stages[f"stage{index}"] = stage(width, outputs, count, norm=True)
        width = outputs
    return named(**stages, head=Head(width, classes))
