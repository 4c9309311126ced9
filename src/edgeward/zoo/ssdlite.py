"""SSDLite on MobileNetV2, 300 x 300: a light detector.

    model = SsdLite(classes=1)
    load_ssdlite(model, read_graphdef(path))
    offsets, logits = model(torch.zeros(1, 3, 300, 300))    # [1, 1917, 4], [1, 1917, 2]

Sandler et al., "MobileNetV2", CVPR 2018, section 6.2. Batch norms are kept. Outputs as convention "ssd" reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeward.zoo.layers import ConvNorm, Expansion, InvertedResidual, load_conv, load_conv_norm
from edgeward.zoo.mobilenet import STAGES
from edgeward.zoo.tensorflow import TensorFlowGraph

__all__ = ["SsdLite", "load_ssdlite"]

FIRST_TAP = 13
"""The block whose widened tensor, at stride 16, feeds the first predictor."""
EXTRAS = ((1280, 512), (512, 256), (256, 256), (256, 128))
TAPS = (576, 1280, 512, 256, 256, 128)
ANCHORS = (3, 6, 6, 6, 6, 6)


class Predictor(nn.Module):
    """One small head on one feature map: `outputs` numbers for each anchor of each cell."""

    def __init__(self, inputs: int, anchors: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.depthwise = ConvNorm(inputs, inputs, 3, groups=inputs, same=True)
        self.linear = nn.Conv2d(inputs, anchors * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, h * w * anchors, outputs]."""
        cells: Tensor = self.linear(self.depthwise(x))
        count = int(cells[0].numel()) // self.outputs
        return cells.permute(0, 2, 3, 1).reshape(-1, count, self.outputs)


class SsdLite(nn.Module):
    """[n, 3, h, w], RGB scaled to -1..1, to offsets [n, anchors, 4] and logits [n, anchors, 1 + classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2, same=True)
        blocks, width = [], 32
        for ratio, outputs, count, stride in STAGES:
            for index in range(count):
                shape = Expansion(ratio, stride=stride if index == 0 else 1, same=True)
                blocks.append(InvertedResidual(width, outputs, shape))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = ConvNorm(width, 1280, same=True)
        self.extras = nn.ModuleList(
            nn.Sequential(
                ConvNorm(inputs, outputs // 2, same=True),
                ConvNorm(outputs // 2, outputs // 2, 3, 2, groups=outputs // 2, same=True),
                ConvNorm(outputs // 2, outputs, same=True),
            )
            for inputs, outputs in EXTRAS
        )
        pairs = list(zip(TAPS, ANCHORS, strict=True))
        self.offsets = nn.ModuleList(Predictor(inputs, anchors, 4) for inputs, anchors in pairs)
        self.logits = nn.ModuleList(Predictor(inputs, anchors, 1 + classes) for inputs, anchors in pairs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and logits of all anchors, the finest grid first."""
        x = self.stem(x)
        taps = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            if index == FIRST_TAP:
                wide = block.expand(x)
                taps.append(wide)
                x = block.project(block.depthwise(wide))
            else:
                x = block(x)
        taps.append(self.last(x))
        for extra in self.extras:
            taps.append(extra(taps[-1]))
        return (
            torch.cat([head(tap) for head, tap in zip(self.offsets, taps, strict=True)], dim=1),
            torch.cat([head(tap) for head, tap in zip(self.logits, taps, strict=True)], dim=1),
        )


def load_ssdlite(model: SsdLite, graph: TensorFlowGraph) -> None:
    """Fill the network from a frozen graph of TensorFlow's object detection models; ModelError when it does not fit."""
    root = "FeatureExtractor/MobilenetV2"
    load_conv_norm(model.stem, graph, f"{root}/Conv/weights", f"{root}/Conv")
    for index, block in enumerate(model.blocks):
        assert isinstance(block, InvertedResidual)
        scope = f"{root}/expanded_conv_{index}" if index else f"{root}/expanded_conv"
        if index:
            load_conv_norm(block.expand, graph, f"{scope}/expand/weights", f"{scope}/expand")
        load_conv_norm(block.depthwise, graph, f"{scope}/depthwise/depthwise_weights", f"{scope}/depthwise")
        load_conv_norm(block.project, graph, f"{scope}/project/weights", f"{scope}/project")
    load_conv_norm(model.last, graph, f"{root}/Conv_1/weights", f"{root}/Conv_1")
    for index, (extra, (_, outputs)) in enumerate(zip(model.extras, EXTRAS, strict=True), start=2):
        narrow = f"{root}/layer_19_1_Conv2d_{index}_1x1_{outputs // 2}"
        wide = f"{root}/layer_19_2_Conv2d_{index}_3x3_s2_{outputs}"
        assert isinstance(extra, nn.Sequential)
        load_conv_norm(extra[0], graph, f"{narrow}/weights", narrow)
        load_conv_norm(extra[1], graph, f"{wide}_depthwise/depthwise_weights", f"{wide}_depthwise")
        load_conv_norm(extra[2], graph, f"{wide}/weights", wide)
    for heads, kind in ((model.offsets, "BoxEncodingPredictor"), (model.logits, "ClassPredictor")):
        for index, head in enumerate(heads):
            assert isinstance(head, Predictor)
            scope = f"BoxPredictor_{index}/{kind}"
            load_conv_norm(head.depthwise, graph, f"{scope}_depthwise/depthwise_weights", f"{scope}_depthwise")
            load_conv(head.linear, graph, f"{scope}/weights", f"{scope}/biases")
