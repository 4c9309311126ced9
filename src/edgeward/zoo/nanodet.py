"""NanoDet-g, 416 x 416: a one-stage detector of plain 3x3 convolutions.

    model = NanoDet(classes=80)
    load_nanodet(model, read_tfjs(path))
    scores, distances = model(torch.zeros(1, 3, 416, 416))   # [1, 3549, 80], [1, 3549, 44]

https://github.com/RangiLyu/nanodet (a cross-stage partial backbone after Wang et al., CVPRW 2020; a path
aggregation neck without convolutions; the head of "Generalized Focal Loss"). The graph has its batch norms folded
into the convolutions, and so has this module. Outputs as convention "nanodet" reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ModelError
from edgeward.zoo.layers import load_conv
from edgeward.zoo.tensorflow import TensorFlowGraph

__all__ = ["NanoDet", "load_nanodet"]

STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 3, 2))
"""Channels, pairs of convolutions, stride; a stage gives twice its channels."""
NECK = 128
BINS = 11


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(0.1))


class Pair(nn.Module):
    """Two narrow convolutions, one after the other, their results joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = _conv(channels, channels // 2)
        self.after = _conv(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same shape."""
        narrow = self.before(x)
        return torch.cat([self.after(narrow), narrow], dim=1)


class PartialStage(nn.Module):
    """A convolution, pairs of narrow ones, a convolution; what went into the pairs is joined to what comes out."""

    def __init__(self, inputs: int, channels: int, pairs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, channels, stride)
        self.pairs = nn.ModuleList(Pair(channels) for _ in range(pairs))
        self.last = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, 2 * channels, h / stride, w / stride]."""
        bypass = y = self.first(x)
        for pair in self.pairs:
            y = pair(y)
        return torch.cat([self.last(y), bypass], dim=1)


class NanoDet(nn.Module):
    """[n, 3, h, w], BGR normalised, sides multiples of 32, to scores [n, cells, classes] and distances."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(_conv(3, 32, 2), nn.MaxPool2d(3, 2, padding=1))
        stages, width = [], 32
        for channels, pairs, stride in STAGES:
            stages.append(PartialStage(width, channels, pairs, stride))
            width = 2 * channels
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(nn.Conv2d(2 * channels, NECK, 1) for channels, _, _ in STAGES[1:])
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(NECK, NECK), nn.Conv2d(NECK, classes + 4 * BINS, 1)) for _ in STAGES[1:]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores in 0..1 and distance logits of all cells, strides 8, 16, 32."""
        x = self.stages[0](self.stem(x))
        levels = []
        for stage, lateral in zip(self.stages[1:], self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        outputs = [head(level) for head, level in zip(self.heads, _aggregate(levels), strict=True)]
        every = torch.cat([_flat(output) for output in outputs], dim=2).permute(0, 2, 1)
        return every[..., : self.classes].sigmoid(), every[..., self.classes :]


def _flat(x: Tensor) -> Tensor:
    """[n, c, h, w] to [n, c, h * w]; sizes as numbers, so that an exporter sees them fixed."""
    return x.reshape(-1, int(x.shape[1]), int(x.shape[2]) * int(x.shape[3]))


def _aggregate(levels: list[Tensor]) -> list[Tensor]:
    """Coarse levels added to finer ones, then finer ones to coarser.

    The down-sampling by bilinear interpolation with half-pixel centres is, at a factor of two, the mean of 2 x 2.
    """
    for index in (1, 0):
        coarse = functional.interpolate(levels[index + 1], scale_factor=2.0, mode="bilinear", align_corners=False)
        levels = [*levels[:index], levels[index] + coarse, *levels[index + 1 :]]
    for index in (1, 2):
        levels = [*levels[:index], levels[index] + functional.avg_pool2d(levels[index - 1], 2), *levels[index + 1 :]]
    return levels


def load_nanodet(model: NanoDet, graph: TensorFlowGraph) -> None:
    """Fill the network from the TensorFlow.js graph: its convolutions are numbered. ModelError when it does not fit."""
    biases = {
        node.inputs[0].split("/")[-1]: node.inputs[1]
        for node in graph.nodes
        if node.op == "Add" and len(node.inputs) == 2 and node.inputs[0].split("/")[-1].startswith("convolution")
    }
    convs = [conv for conv in model.modules() if isinstance(conv, nn.Conv2d)]
    for index, conv in enumerate(convs):
        suffix = f"_{index}" if index else ""
        if f"convolution{suffix}" not in biases:
            raise ModelError(f"the graph has no convolution {index} with a bias; it is not NanoDet-g")
        load_conv(conv, graph, f"PartitionedCall/split{suffix}", biases[f"convolution{suffix}"])
