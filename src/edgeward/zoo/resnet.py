"""ResNet-18 to ResNet-152.

    resnet(50)(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1 and figure 5. As in the paper, a
bottleneck that halves the picture does so in its first 1x1 convolution; some later editions do it in the 3x3.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeward.zoo.convolutions import ConvUnit, Head, counts_of, named

__all__ = ["BasicBlock", "Bottleneck", "projection", "resnet"]

_COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The way past a block: nothing where the shape stays, else a 1x1 convolution and a batch norm (option B)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return named(conv=nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm=nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to `shortcut`: [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = ConvUnit(inputs, outputs, 3, stride)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The activated sum of what the convolutions and the shortcut say."""
        y: Tensor = self.relu(self.norm2(self.conv2(self.conv1(x))) + self.shortcut(x))
        return y


class Bottleneck(nn.Module):
    """1x1 to a quarter, 3x3, 1x1 back, added to `shortcut`: [n, inputs, h, w] to [n, outputs, h / stride, ...]."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        narrow = outputs // 4
        self.conv1 = ConvUnit(inputs, narrow, 1, stride)
        self.conv2 = ConvUnit(narrow, narrow, 3)
        self.conv3 = nn.Conv2d(narrow, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The activated sum of what the convolutions and the shortcut say."""
        y: Tensor = self.relu(self.norm3(self.conv3(self.conv2(self.conv1(x)))) + self.shortcut(x))
        return y


def resnet(depth: int, classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; `depth` is 18, 34, 50, 101 or 152.

    Raises ConfigError for another depth.
    """
    block, widths = (BasicBlock, (64, 128, 256, 512)) if depth < 50 else (Bottleneck, (256, 512, 1024, 2048))
    stages: dict[str, nn.Module] = {}
    width = 64
    for index, (outputs, count) in enumerate(zip(widths, counts_of("ResNet", depth, _COUNTS), strict=True), start=1):
        blocks: list[nn.Module] = []
        for position in range(count):
            stride = 2 if index > 1 and position == 0 else 1
            blocks.append(block(width, outputs, stride, projection(width, outputs, stride)))
            width = outputs
        stages[f"stage{index}"] = nn.Sequential(*blocks)
    stem = named(unit=ConvUnit(3, 64, 7, 2), pool=nn.MaxPool2d(3, 2, 1))
    return named(stem=stem, **stages, head=Head(width, classes))
