"""Small networks of every family with dead filters, for the tests of exact conversion."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional

from edgeward.zoo.cifar import cifar_resnet
from edgeward.zoo.convolutions import ConvUnit, Head
from edgeward.zoo.densenet import DenseLayer
from edgeward.zoo.resnet import BasicBlock, Bottleneck, projection

PICTURE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def chain(activation=nn.ReLU, pool=nn.MaxPool2d):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, padding=1, stride=2), activation(),
        pool(2), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), activation(), nn.Flatten(), nn.Linear(32, 16),
        activation(), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 24), nn.GELU(), nn.Linear(24, 24), nn.Sigmoid(), nn.Linear(24, 4))


def basic():
    blocks = [
        BasicBlock(8, 8, 1, nn.Identity()),
        BasicBlock(8, 16, 2, projection(8, 16, 2)),
        BasicBlock(16, 16, 1, nn.Identity()),
    ]
    return nn.Sequential(ConvUnit(3, 8, 3), *blocks, Head(16, 5))


def bottleneck():
    return nn.Sequential(
        ConvUnit(3, 8, 3), Bottleneck(8, 32, 1, projection(8, 32, 1)), Bottleneck(32, 32, 1, nn.Identity()), Head(32, 5)
    )


class Inverted(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(inputs, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(24, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 6, 1), nn.SiLU(), nn.Conv2d(6, 24, 1), nn.Hardsigmoid()
        )
        self.joins = inputs == outputs

    def forward(self, x):
        inner = self.depthwise(self.expand(x))
        y = self.project(inner * self.gate(inner))
        return x + y if self.joins else y


def mobile():
    return nn.Sequential(ConvUnit(3, 8, 3, 2), Inverted(8, 8), Inverted(8, 12), Inverted(12, 12), Head(12, 5))


def dense():
    return nn.Sequential(
        ConvUnit(3, 8, 3),
        DenseLayer(8),
        DenseLayer(40),
        nn.BatchNorm2d(72),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1),
        Head(72, 5),
    )


def grouped():
    return nn.Sequential(
        ConvUnit(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16), nn.LeakyReLU(), nn.Conv2d(16, 8, 1, groups=2), Head(8, 5)
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, width, num_heads, *, fused):
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.norm, self.qkv, self.project = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        query, key, value = (
            self.qkv(self.norm(x))
            .reshape(x.shape[0], x.shape[1], 3, self.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        if self.fused:
            y = functional.scaled_dot_product_attention(query, key, value)
        else:
            y = ((query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5).softmax(dim=-1) @ value
        return x + self.project(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Transformer(nn.Module):
    def __init__(self, *, fused=True):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.first, self.second = Attention(16, 4, fused=fused), Attention(16, 4, fused=fused)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.second(self.first(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position))
        return self.head((x + self.mlp(x))[:, 0])


FAMILIES = {
    "chain": chain, "mlp": mlp, "basic": basic, "bottleneck": bottleneck, "mobile": mobile, "dense": dense, "grouped": grouped,
    "padded": functools.partial(cifar_resnet, 8, 5), "vit": Transformer, "vit-plain": functools.partial(Transformer, fused=False),
}  # fmt: skip


def masked(family, sparsity, seed=0, dead=0.0):
    """A network in float64 with random biases and statistics; a share of its weights, and of its filters, is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (FAMILIES[family] if isinstance(family, str) else family)().double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0.2, 0.5, generator=generator)
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                weight[torch.rand(weight.shape, generator=generator, dtype=torch.float64) < sparsity] = 0
                weight[torch.rand(len(weight), generator=generator) < dead] = 0
                weight[:, torch.rand(weight.shape[1], generator=generator) < dead / 2] = 0
    return model
