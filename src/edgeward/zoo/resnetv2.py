"""ResNet-50 V2 to ResNet-152 V2: residual blocks that normalise before they convolve.

    resnetv2(50)(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, figure 1(b), in the edition of
https://keras.io/api/applications/resnet: a stage halves the picture in its last block, not its first.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeward.zoo.convolutions import ConvUnit, Head, counts_of, named

__all__ = ["PreActivation", "Projected", "resnetv2"]

_COUNTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _Bottleneck(nn.Module):
    """Batch norm and ReLU, then 1x1 to a quarter of `outputs`, 3x3 with `stride`, 1x1 to `outputs` with bias."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        narrow = outputs // 4
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv1 = ConvUnit(inputs, narrow, 1)
        self.conv2 = ConvUnit(narrow, narrow, 3, stride)
        self.conv3 = nn.Conv2d(narrow, outputs, 1)


class Projected(_Bottleneck):
    """The first block of a stage, [n, inputs, h, w] to [n, outputs, h, w]; the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, stride=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both ways start from the activated input."""
        active = self.relu(self.norm(x))
        y: Tensor = self.conv3(self.conv2(self.conv1(active))) + self.shortcut(active)
        return y


class PreActivation(_Bottleneck):
    """The other blocks, [n, width, h, w] to [n, width, h / stride, w / stride]; every other pixel passes by."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__(width, width, stride)
        self.shortcut = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The input passes by as it came."""
        y: Tensor = self.conv3(self.conv2(self.conv1(self.relu(self.norm(x))))) + self.shortcut(x)
        return y


def resnetv2(depth: int, classes: int = 1000) -> nn.Sequential:
    """[n, 3, h, w] to logits [n, classes]; `depth` is 50, 101 or 152.

    Raises ConfigError for another depth.
    """
    stages: dict[str, nn.Module] = {}
    width = 64
    for index, count in enumerate(counts_of("ResNet V2", depth, _COUNTS), start=1):
        outputs = 128 << index
        strides = [1] * (count - 2) + [2 if index < 4 else 1]
        blocks = [PreActivation(outputs, stride) for stride in strides]
        stages[f"stage{index}"] = nn.Sequential(Projected(width, outputs), *blocks)
        width = outputs
    stem = named(conv=nn.Conv2d(3, 64, 7, 2, 3), pool=nn.MaxPool2d(3, 2, 1))
    return named(stem=stem, **stages, norm=nn.BatchNorm2d(width), relu=nn.ReLU(), head=Head(width, classes))
