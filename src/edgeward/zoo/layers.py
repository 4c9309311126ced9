"""Pieces that the networks of the zoo are built of.

    block = InvertedResidual(16, 24, Expansion(ratio=6, stride=2, same=True))
    block(torch.zeros(1, 16, 56, 56)).shape     # [1, 24, 28, 28]

Convolutions that came from TensorFlow pad like it ("SAME"); batch norms are kept, so that networks can be
trained further. The exporter folds both into plain convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ModelError
from edgeward.zoo.tensorflow import TensorFlowGraph

__all__ = [
    "ConvNorm",
    "Expansion",
    "InvertedResidual",
    "Projection",
    "SameConv2d",
    "load_conv",
    "load_conv_norm",
    "load_in_order",
    "same_padding",
]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under TensorFlow's "SAME": ceil(size / stride) outputs, the odd zero after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, which with a stride can differ from side to side."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, out, ceil(h / stride), ceil(w / stride)]."""
        top, bottom = same_padding(int(x.shape[2]), self.kernel_size[0], self.stride[0])
        left, right = same_padding(int(x.shape[3]), self.kernel_size[1], self.stride[1])
        if top == bottom and left == right:
            return functional.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6. `same` pads like TensorFlow, else evenly by kernel // 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, same: bool = False
    ) -> None:
        conv: nn.Conv2d
        if same:
            conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, _norm(outputs, same), nn.ReLU6())


class Projection(nn.Sequential):
    """A 1x1 convolution without bias, and batch norm; nothing to bend its output."""

    def __init__(self, inputs: int, outputs: int, *, same: bool) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs, same))


def _norm(channels: int, same: bool) -> nn.BatchNorm2d:
    """With the epsilon of the framework that the padding comes from."""
    return nn.BatchNorm2d(channels, eps=1e-3 if same else 1e-5)


@dataclass(frozen=True)
class Expansion:
    """How an inverted residual works inside: widened `ratio` times, a depthwise `kernel` with `stride`."""

    ratio: int
    kernel: int = 3
    stride: int = 1
    same: bool = False


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; added to the input where the shape stays.

    Sandler et al., "MobileNetV2", CVPR 2018, section 3.3. A ratio of 1 leaves the widening out.
    """

    def __init__(self, inputs: int, outputs: int, shape: Expansion) -> None:
        super().__init__()
        width = inputs * shape.ratio
        same = shape.same
        self.expand = ConvNorm(inputs, width, same=same) if shape.ratio != 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, shape.kernel, shape.stride, groups=width, same=same)
        self.project = Projection(width, outputs, same=same)
        self.residual = shape.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def load_conv(conv: nn.Conv2d, graph: TensorFlowGraph, weight: str, bias: str | None = None) -> None:
    """Fill a convolution from a graph's constants: [h, w, in, out], or [h, w, channels, 1] when it is depthwise."""
    outputs, inputs, height, width = conv.weight.shape
    if conv.groups == 1:
        kernel = graph.constant(weight, (height, width, inputs, outputs)).transpose(3, 2, 0, 1)
    else:
        kernel = graph.constant(weight, (height, width, outputs, 1)).transpose(2, 3, 0, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(kernel.copy()))
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(torch.from_numpy(graph.constant(bias, (outputs,))))


def load_conv_norm(layer: nn.Module, graph: TensorFlowGraph, weight: str, scope: str) -> None:
    """Fill a `ConvNorm` from a graph: the kernel `weight`, and the batch norm's constants under `scope`."""
    assert isinstance(layer, nn.Sequential)
    conv, norm = layer[0], layer[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    load_conv(conv, graph, weight)
    shape = (norm.num_features,)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(graph.constant(f"{scope}/BatchNorm/gamma", shape)))
        norm.bias.copy_(torch.from_numpy(graph.constant(f"{scope}/BatchNorm/beta", shape)))
    for buffer, name in ((norm.running_mean, "moving_mean"), (norm.running_var, "moving_variance")):
        assert buffer is not None
        buffer.copy_(torch.from_numpy(graph.constant(f"{scope}/BatchNorm/{name}", shape)))


def load_in_order(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fill a module from a state dict of the same layers under other names, in the same order.

    Raises ModelError when their number, a shape or a value does not fit.
    """
    wanted = module.state_dict()
    if len(wanted) != len(tensors):
        raise ModelError(f"the file has {len(tensors)} tensors, the network {len(wanted)}; it is another network's")
    for (name, own), (given_name, given) in zip(wanted.items(), tensors.items(), strict=True):
        if own.shape != given.shape:
            raise ModelError(f"{given_name} has shape {list(given.shape)}, {name} needs {list(own.shape)}")
        if given.layout != torch.strided or given.is_quantized or given.is_complex():
            raise ModelError(f"{given_name} is stored as {given.dtype}, {given.layout}; plain real numbers are read")
        if not torch.isfinite(given).all():
            raise ModelError(f"{given_name} holds values that are not finite; obtain the file again")
        own.copy_(given)
