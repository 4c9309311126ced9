"""Vision transformers of the DeiT family.

    network = vit(192, heads=3)
    network(torch.zeros(1, 3, 224, 224)).shape        # [1, 1000]

Touvron et al., "Training data-efficient image transformers and distillation through attention", ICML 2021, table 1
(without the distillation token), after Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Sizes inside
follow from the weights, so that heads and widths can be taken out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ConfigError

__all__ = ["Attention", "Mlp", "ViT", "vit"]


class Attention(nn.Module):
    """Self-attention; one layer gives queries, then keys, then values, each with its `num_heads` heads in turn."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] to the same."""
        count, tokens = x.shape[0], x.shape[1]
        heads = self.qkv(x).reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads[0], heads[1], heads[2]
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.project(mixed.transpose(1, 2).reshape(count, tokens, -1))
        return y


class Mlp(nn.Sequential):
    """Two layers with a GELU between them, `ratio` times as wide inside."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class Block(nn.Module):
    """Attention, then the two layers, each normalised before and added to what it was given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] to the same."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ViT(nn.Module):
    """Patches of 16 x 16 as tokens, a class token before them, `depth` blocks, and a layer on the class token."""

    def __init__(self, width: int, heads: int, *, depth: int = 12, classes: int = 1000, side: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + (side // 16) ** 2, width))
        for parameter in (self.token, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, side, side] to logits [n, classes]; `side` is the one that the network was built for."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def vit(width: int, heads: int, classes: int = 1000, depth: int = 12, side: int = 224) -> ViT:
    """A vision transformer. Raises ConfigError when the heads do not share the width evenly, or 16 not the side."""
    if heads < 1 or width < heads or width % heads:
        raise ConfigError(f"{heads} heads cannot share a width of {width} evenly; choose a divisor")
    if side < 16 or side % 16 or depth < 1:
        raise ConfigError(f"pictures of side {side} in {depth} blocks: the side is a multiple of 16, blocks at least 1")
    return ViT(width, heads, depth=depth, classes=classes, side=side)
