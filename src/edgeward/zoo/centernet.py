"""CenterNet on MobileNetV3, 512 x 512: objects as peaks of a heat map.

    model = CenterNet(classes=80)
    load_centernet(model, read_tfjs(path))
    heat, sides = model(torch.zeros(1, 3, 512, 512))      # [1, 80, 128, 128], [1, 4, 128, 128]

Zhou et al., "Objects as Points", arXiv 1904.07850, on Howard et al., "MobileNetV3", ICCV 2019, as trained in
https://github.com/610265158/mobilenetv3_centernet. The graph has its batch norms folded into the convolutions,
and so has this module. Outputs as convention "centernet" reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.zoo.layers import SameConv2d, load_conv
from edgeward.zoo.tensorflow import TensorFlowGraph

__all__ = ["CenterNet", "load_centernet"]


@dataclass(frozen=True)
class Block:
    """One bottleneck: channels inside and out, depthwise kernel and stride, channels of its excitation (or 0)."""

    width: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    excite: int = 0
    hard: bool = True


BLOCKS = (
    Block(16, 16, hard=False),
    Block(64, 24, stride=2, hard=False),
    Block(72, 24, hard=False),
    Block(72, 32, 5, 2, 24, hard=False),
    Block(96, 32, 5, 1, 24, hard=False),
    Block(96, 32, 5, 1, 24, hard=False),
    Block(192, 64, stride=2),
    Block(160, 64),
    Block(144, 64),
    Block(144, 64),
    Block(384, 88, excite=96),
    Block(528, 88, excite=136),
    Block(528, 120, 5, 2, 136),
    Block(720, 120, 5, 1, 184),
    Block(720, 120, 5, 1, 184),
)
WIDE_TAPS, PLAIN_TAP = (3, 5), 11
"""Blocks whose widened tensor (strides 4 and 8) and whose output (stride 16) the head takes up again."""


class Excite(nn.Module):
    """Squeeze and excitation: channels weighted by what the whole picture shows (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.excite = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to the same shape."""
        weight = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        return x * functional.hardsigmoid(weight)


class Bottleneck(nn.Module):
    """An inverted residual of MobileNetV3."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        width = block.width
        self.expand = SameConv2d(inputs, width, 1) if width != inputs else None
        self.depthwise = SameConv2d(width, width, block.kernel, block.stride, groups=width)
        self.excite = Excite(width, block.excite) if block.excite else None
        self.project = SameConv2d(width, block.outputs, 1)
        self.activate = nn.Hardswish() if block.hard else nn.ReLU()
        self.residual = block.stride == 1 and inputs == block.outputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The widened tensor and the block's output."""
        wide = x if self.expand is None else self.activate(self.expand(x))
        y = self.activate(self.depthwise(wide))
        y = self.project(y if self.excite is None else self.excite(y))
        return wide, x + y if self.residual else y


class Separable(nn.Module):
    """A depthwise convolution without bias, then a 1x1."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = SameConv2d(inputs, inputs, kernel, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h, w]."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class Rise(nn.Module):
    """One step up: two separable convolutions added and doubled in size, joined with a tap of the backbone."""

    def __init__(self, inputs: int, tap: int, narrow: int, outputs: int) -> None:
        super().__init__()
        self.small = Separable(inputs, outputs, 3)
        self.large = Separable(inputs, outputs, 5)
        self.tap = nn.Conv2d(tap, narrow, 1)
        self.reverse = Separable(narrow, outputs, 5)

    def forward(self, x: Tensor, tap: Tensor) -> Tensor:
        """[n, inputs, h, w] and [n, tap, 2h, 2w] to [n, 2 * outputs, 2h, 2w]."""
        risen = _double(self.small(x) + self.large(x))
        return functional.relu(torch.cat([self.reverse(functional.relu(self.tap(tap))), risen], dim=1))


class CenterNet(nn.Module):
    """[n, 3, h, w], RGB in 0..255, to heat [n, classes, h / 4, w / 4] and sides [n, 4, h / 4, w / 4] in pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 16, 3, 2)
        blocks, width = [], 16
        for block in BLOCKS:
            blocks.append(Bottleneck(width, block))
            width = block.outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(width, 480, 1)
        self.rises = nn.ModuleList([Rise(480, 88, 22, 128), Rise(256, 96, 24, 96), Rise(192, 72, 18, 64)])
        self.squeeze = nn.Conv2d(128, 32, 1)
        self.weigh = nn.Conv2d(32, 128, 1, bias=False)
        self.heat = Separable(128, classes, 3)
        self.sides = Separable(128, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Heat in 0..1 and the distances to the four sides."""
        x = functional.hardswish(self.stem(x))
        taps = []
        for index, block in enumerate(self.blocks):
            wide, x = block(x)
            if index in WIDE_TAPS:
                taps.append(wide)
            elif index == PLAIN_TAP:
                taps.append(x)
        x = functional.hardswish(self.last(x))
        for rise, tap in zip(self.rises, reversed(taps), strict=True):
            x = rise(x, tap)
        x = x * self.weigh(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.heat(x).sigmoid(), self.sides(x) * 16


def _double(x: Tensor) -> Tensor:
    """Twice the size, bilinear as in TensorFlow 1: output i lies at input i / 2, the last row and column repeated.

    Said in terms of aligned corners, which exporters know: repeat the last row first, drop the surplus after.
    """
    height, width = int(x.shape[2]), int(x.shape[3])
    padded = functional.pad(x, (0, 1, 0, 1), mode="replicate")
    larger = functional.interpolate(padded, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return larger[:, :, : 2 * height, : 2 * width]


def load_centernet(model: CenterNet, graph: TensorFlowGraph) -> None:
    """Fill the network from the TensorFlow.js graph. ModelError when it does not fit."""
    # The converter prefixes only those constants that it has folded a batch norm into.
    graph = TensorFlowGraph(
        graph.nodes, {name.removeprefix("tower_0/"): value for name, value in graph.constants.items()}
    )
    root, head = "MobilenetV3", "CenternetHead"

    def fused(conv: nn.Module, scope: str, kind: str = "Conv2D") -> None:
        assert isinstance(conv, nn.Conv2d)
        load_conv(conv, graph, f"{scope}/{kind}_weights", f"{scope}/{kind}_bn_offset")

    def separable(layer: Separable, scope: str) -> None:
        load_conv(layer.depthwise, graph, f"{scope}/depthwise_weights")
        fused(layer.pointwise, scope, "separable_conv2d")

    fused(model.stem, f"{root}/Conv")
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Bottleneck)
        scope = f"{root}/expanded_conv_{index}" if index else f"{root}/expanded_conv"
        if block.expand is not None:
            fused(block.expand, f"{scope}/expand")
        depthwise = f"{scope}/depthwise/depthwise"
        load_conv(block.depthwise, graph, f"{depthwise}_weights", f"{depthwise}_bn_offset")
        if block.excite is not None:
            for conv, name in ((block.excite.squeeze, "Conv"), (block.excite.excite, "Conv_1")):
                excite = f"{scope}/squeeze_excite/{name}"
                load_conv(conv, graph, f"{excite}/weights", f"{excite}/biases")
        fused(block.project, f"{scope}/project")
    fused(model.last, "extern1")
    for rise, up, tap in zip(model.rises, ("c5", "c4", "c3"), ("c4", "c3", "c2"), strict=True):
        assert isinstance(rise, Rise)
        separable(rise.small, f"{head}/{up}_upsample/branch_x_upsample_resize")
        separable(rise.large, f"{head}/{up}_upsample/branch_y_upsample_resize")
        fused(rise.tap, f"{head}/{tap}_reverse/1x1")
        separable(rise.reverse, f"{head}/{tap}_reverse/3x3")
    fused(model.squeeze, f"{head}/conv1x1_se_a")
    load_conv(model.weigh, graph, f"{head}/conv1x1_se_b/weights")
    for output, name in ((model.heat, "cls"), (model.sides, "wh")):
        scope = f"{head}/centernet_{name}_output"
        load_conv(output.depthwise, graph, f"{scope}/depthwise_weights")
        load_conv(output.pointwise, graph, f"{scope}/pointwise_weights", f"{scope}/biases")
