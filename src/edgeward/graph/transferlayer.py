"""The two halves of a transfer layer: what shrinks a tensor before it is sent, and what restores its shape.

    layer = parse_transfer("avg2-bilinear")
    restored = layer.up(layer.down(x), (x.shape[2], x.shape[3]))

ScissionLite (arXiv 2105.02019) pools by 2 and repeats pixels, for even sizes. Here every size is safe: what the factor
does not divide is first padded by repeating the last row and column, and cropped again behind.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeward.errors import ConfigError, nearest

__all__ = ["LearnedLayer", "PooledLayer", "TransferLayer", "cropped", "is_transfer", "padded", "parse_transfer"]

FACTORS = range(2, 9)
LARGEST_PATCH = 4096
_FORM = re.compile(r"(?P<pool>max|avg)(?P<f>\d+)-(?P<up>nearest|bilinear)|learned(?P<k>\d+)-1x1|strided(?P<s>\d+)")
_FORMS = tuple(
    form.format(factor)
    for factor in FACTORS
    for form in ("max{}-nearest", "max{}-bilinear", "avg{}-nearest", "avg{}-bilinear", "learned{}-1x1", "strided{}")
)


class TransferLayer(nn.Module, ABC):
    """The pair. name: as `parse_transfer` reads it; factor: by how much height and width shrink.

    Subclasses give `shrink` for sizes that the factor divides, and `restore`; both can be traced by torch.fx.
    """

    def __init__(self, name: str, factor: int) -> None:
        super().__init__()
        self.name = name
        self.factor = factor

    @abstractmethod
    def shrink(self, x: Tensor) -> Tensor:
        """[n, c, factor h, factor w] to [n, c', h, w]."""

    @abstractmethod
    def restore(self, y: Tensor) -> Tensor:
        """[n, c', h, w] to [n, c, factor h, factor w]."""

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is 4-D and gets smaller."""
        return len(shape) == 4 and min(shape) > 0 and shape[2] > 1 and shape[3] > 1

    def fit(self, activations: Tensor) -> None:
        """Set the weights from examples [n, c, h, w] of what will be sent; nothing to do where there are none."""

    def down(self, x: Tensor) -> Tensor:
        """[n, c, h, w] of any size to [n, c', ceil(h / factor), ceil(w / factor)]."""
        return self.shrink(padded(x, self.padding((x.shape[2], x.shape[3]))))

    def up(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        """Back to [n, c, *size]."""
        return cropped(self.restore(y), size, self.padding(size))

    def padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows below and columns on the right that height and width lack."""
        return -size[0] % self.factor, -size[1] % self.factor


class PooledLayer(TransferLayer):
    """Maximum or mean of each square, put back as it is ("nearest") or in straight lines ("bilinear"). No weights."""

    def __init__(self, pool: str, factor: int, up: str) -> None:
        super().__init__(f"{pool}{factor}-{up}", factor)
        self.pool = functional.max_pool2d if pool == "max" else functional.avg_pool2d
        self.mode = up

    def shrink(self, x: Tensor) -> Tensor:
        smaller: Tensor = self.pool(x, self.factor)
        return smaller

    def restore(self, y: Tensor) -> Tensor:
        if self.mode == "nearest":
            return functional.interpolate(y, scale_factor=float(self.factor), mode="nearest")
        return functional.interpolate(y, scale_factor=float(self.factor), mode="bilinear", align_corners=False)


class LearnedLayer(TransferLayer):
    """A convolution that maps each patch of factor x factor to `narrow` values, and its transpose back.

    Begins as an orthogonal projection; `fit` makes it the principal components of the patches, the best linear one.
    """

    def __init__(self, name: str, channels: int, narrow: int, factor: int = 1) -> None:
        super().__init__(name, factor)
        self.channels = channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encode = nn.Conv2d(channels, narrow, factor, factor)
            self.decode = nn.ConvTranspose2d(narrow, channels, factor, factor)
            basis = torch.linalg.qr(torch.randn(channels * factor * factor, narrow))[0].T
        self._project(basis, torch.zeros(channels * factor * factor))

    def shrink(self, x: Tensor) -> Tensor:
        smaller: Tensor = self.encode(x)
        return smaller

    def restore(self, y: Tensor) -> Tensor:
        larger: Tensor = self.decode(y)
        return larger

    def fits(self, shape: Sequence[int]) -> bool:
        if len(shape) != 4 or min(shape) < 1 or shape[1] != self.channels:
            return False
        return self.encode.out_channels < self.channels if self.factor == 1 else super().fits(shape)

    def fit(self, activations: Tensor) -> None:
        """Principal components of the patches of [n, c, h, w]. Raises ConfigError when a patch is too large."""
        width = self.channels * self.factor**2
        if width > LARGEST_PATCH:
            raise ConfigError(
                f"{self.name} on {self.channels} channels has patches of {width} values, more than the {LARGEST_PATCH} "
                f"whose principal components are computed; choose a smaller factor or a cut with fewer channels"
            )
        values = padded(activations.detach(), self.padding((activations.shape[2], activations.shape[3])))
        patches = functional.unfold(values.float(), self.factor, stride=self.factor).transpose(1, 2).reshape(-1, width)
        # A convolution's bias is one value per channel, so the mean over a patch's pixels is what can be taken off.
        mean = patches.mean(0).view(self.channels, -1).mean(1).repeat_interleave(self.factor**2)
        centred = patches - mean
        vectors = torch.linalg.eigh((centred.T @ centred).double())[1]
        self._project(vectors[:, -self.encode.out_channels :].flip(1).T.float(), mean)

    def _project(self, basis: Tensor, mean: Tensor) -> None:
        assert self.encode.bias is not None
        assert self.decode.bias is not None
        with torch.no_grad():
            self.encode.weight.copy_(basis.reshape(self.encode.weight.shape))
            self.encode.bias.copy_(-basis @ mean)
            self.decode.weight.copy_(basis.reshape(self.decode.weight.shape))
            self.decode.bias.copy_(mean.view(self.channels, -1)[:, 0])


def is_transfer(text: str) -> bool:
    """Whether a text has the form of a transfer layer's name."""
    return _FORM.fullmatch(text) is not None


def parse_transfer(text: str, channels: int | None = None) -> TransferLayer:
    """The layer of that name: max or avg, factor, nearest or bilinear ("avg2-bilinear"), "learned4-1x1", or "strided2".

    channels: of the tensors at the cut; layers with weights need it. Raises ConfigError that names the nearest form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        hint = nearest(text, _FORMS)
        known = "max2-nearest, avg2-bilinear, learned4-1x1, strided2, with factors 2 to 8"
        raise ConfigError(f"no transfer layer {text!r}; {hint if hint.startswith('did') else f'known: {known}'}")
    factor = int(match["f"] or match["k"] or match["s"])
    if factor not in FACTORS:
        raise ConfigError(f"transfer layer {text!r} has factor {factor}; choose from 2 to 8")
    if match["pool"]:
        return PooledLayer(match["pool"], factor, match["up"])
    if channels is None or channels < 1:
        raise ConfigError(f"transfer layer {text!r} has weights: say how many channels the tensor at the cut has")
    if match["k"]:
        return LearnedLayer(text, channels, -(-channels // factor))
    return LearnedLayer(text, channels, channels, factor)


def padded(x: Tensor, lacks: tuple[int, int]) -> Tensor:
    """[n, c, h, w] with so many rows below and columns on the right, repeating the last ones."""
    return functional.pad(x, (0, lacks[1], 0, lacks[0]), mode="replicate") if any(lacks) else x


def cropped(x: Tensor, size: tuple[int, int], surplus: tuple[int, int]) -> Tensor:
    """[n, c, h, w] without what `padded` had added."""
    return x[:, :, : size[0], : size[1]] if any(surplus) else x
