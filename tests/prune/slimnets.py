"""Small networks that are slices of one another, as torch modules and as files."""

from __future__ import annotations

import warnings

import torch
from torch import nn


def plain(width, *, classes=5, seed=0):
    """conv-norm-conv-norm-pool-linear on [n, 3, 8, 8], `width` channels, with running statistics that are not the initial ones."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )
    net.train()(torch.randn(4, 3, 8, 8))
    return net.eval()


def slim(net, width):
    """The same network with the first channels of each layer only, and norms of its own."""
    small = plain(width, classes=net[-1].out_features, seed=width)
    wide, state = net.state_dict(), small.state_dict()
    for name, tensor in state.items():
        if tensor.dim() > 1:
            tensor.copy_(wide[name][tuple(slice(size) for size in tensor.shape)])
    return small


def family(widths=(12, 8, 4)):
    largest = plain(widths[0])
    return {f"w{width}": slim(largest, width) if width != widths[0] else largest for width in widths}


def save_onnx(net, path, shape=(3, 8, 8)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(1, *shape),), path, dynamo=False, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    return path
