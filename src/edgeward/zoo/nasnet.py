"""NASNet-A, mobile and large: two cells found by search, repeated; each sees the two cells before it.

    nasnet_mobile()(torch.zeros(1, 3, 224, 224)).shape     # [1, 1000] logits

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018, figure 4, with the
stem and the skips of https://keras.io/api/applications/nasnet. No auxiliary classifier, no dropped paths.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from edgeward.zoo.convolutions import Branches, Head, Separable, named

__all__ = ["Fit", "NasNet", "NormalCell", "ReductionCell", "nasnet_large", "nasnet_mobile"]


def _twice(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A ReLU and a separable convolution, twice; the first has the stride."""
    first, second = Separable(inputs, outputs, kernel, stride), Separable(outputs, outputs, kernel)
    return named(relu1=nn.ReLU(), conv1=first, relu2=nn.ReLU(), conv2=second)


def _mean(stride: int = 1) -> nn.AvgPool2d:
    """The mean of 3x3 pixels, of those that the border leaves."""
    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


class Fit(nn.Sequential):
    """[n, inputs, h, w] to [n, outputs, h, w], or to half of h and w (rounded up) where `halve` says so.

    Halving takes the even pixels for one half of the channels and the odd ones for the other, so none is lost.
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False) -> None:
        mix: nn.Module = nn.Conv2d(inputs, outputs, 1, bias=False)
        if halve:
            sides = (outputs // 2, outputs - outputs // 2)
            even, odd = (nn.Conv2d(inputs, side, 1, bias=False) for side in sides)
            mix = Branches(
                even=named(sample=nn.AvgPool2d(1, 2), conv=even),
                odd=named(shift=nn.ZeroPad2d((-1, 1, -1, 1)), sample=nn.AvgPool2d(1, 2), conv=odd),
            )
        super().__init__(OrderedDict[str, nn.Module](relu=nn.ReLU(), conv=mix, norm=nn.BatchNorm2d(outputs)))


class NormalCell(nn.Module):
    """The cell before last and the last, [n, ., h, w] each, to [n, 6 * width, h, w].

    `widths` are their channels; `halve` says that the one before last is still twice as high and wide.
    """

    def __init__(self, widths: tuple[int, int], width: int, *, halve: bool = False) -> None:
        super().__init__()
        self.fit_before = Fit(widths[0], width, halve=halve)
        self.fit_last = Fit(widths[1], width)
        self.last5 = _twice(width, width, 5)
        self.before3 = _twice(width, width, 3)
        self.before5 = _twice(width, width, 5)
        self.before3_again = _twice(width, width, 3)
        self.mean_last = _mean()
        self.mean_before = _mean()
        self.last3 = _twice(width, width, 3)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Five sums, joined by channel behind the fitted cell before last."""
        before, last = self.fit_before(before), self.fit_last(last)
        mean = self.mean_before(before)
        sums = (
            self.last5(last) + self.before3(before),
            self.before5(before) + self.before3_again(before),
            self.mean_last(last) + before,
            mean + mean,
            self.last3(last) + last,
        )
        return torch.cat([before, *sums], dim=1)


class ReductionCell(nn.Module):
    """The cell before last and the last, [n, ., h, w] each, to [n, 4 * width, h / 2, w / 2], rounded up.

    Arguments as for `NormalCell`; None in place of `before` at the first cell, which takes the last one twice.
    """

    def __init__(self, widths: tuple[int | None, int], width: int, *, halve: bool = False) -> None:
        super().__init__()
        given, entering = widths
        self.fit_before = nn.Identity() if given is None else Fit(given, width, halve=halve)
        self.fit_last = Fit(entering, width)
        inner = entering if given is None else width
        self.last5 = _twice(width, width, 5, 2)
        self.before7 = _twice(inner, width, 7, 2)
        self.before7_again = _twice(inner, width, 7, 2)
        self.before5 = _twice(inner, width, 5, 2)
        self.max = nn.MaxPool2d(3, 2, 1)
        self.mean = _mean(2)
        self.mean_sum = _mean()
        self.sum3 = _twice(width, width, 3)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Four of five sums, joined by channel; the first is only an intermediate of the others."""
        before, last = self.fit_before(before), self.fit_last(last)
        largest = self.max(last)
        first = self.last5(last) + self.before7(before)
        second = largest + self.before7_again(before)
        third = self.mean(last) + self.before5(before)
        return torch.cat([second, third, self.mean_sum(first) + second, self.sum3(first) + largest], dim=1)


class NasNet(nn.Module):
    """[n, 3, h, w] to logits [n, classes]: three stacks of `repeats` (2 or more) normal cells.

    `stem` and `width` are the channels of the stem and of the first stack's cells, doubled from stack to stack.
    With `skip` the first cell after a reduction looks past that one's input to the cell before it.
    """

    def __init__(self, stem: int, width: int, repeats: int, classes: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.stem = named(conv=nn.Conv2d(3, stem, 3, 2, bias=False), norm=nn.BatchNorm2d(stem))
        self.stem1 = ReductionCell((None, stem), width // 4)
        self.stem2 = ReductionCell((stem, width), width // 2, halve=True)
        widths = (width, 2 * width)
        cells: list[nn.Module] = []
        for stack in range(3):
            if stack > 0:
                cells.append(ReductionCell(widths, 2 * width))
                width *= 2
                widths = (widths[0] if skip else widths[1], 4 * width)
            for index in range(repeats):
                cells.append(NormalCell(widths, width, halve=index == 0))
                widths = (widths[1], 6 * width)
        self.cells = nn.ModuleList(cells)
        self.relu = nn.ReLU()
        self.head = Head(widths[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, h, w] to logits [n, classes]."""
        before = self.stem(x)
        last = self.stem1(before, before)
        before, last = last, self.stem2(before, last)
        for cell in self.cells:
            entering, last = last, cell(before, last)
            if not (self.skip and isinstance(cell, ReductionCell)):
                before = entering
        logits: Tensor = self.head(self.relu(last))
        return logits


def nasnet_mobile(classes: int = 1000) -> NasNet:
    """[n, 3, h, w] to logits [n, classes]: NASNet-A (4 @ 1056)."""
    return NasNet(32, 44, 4, classes, skip=False)


def nasnet_large(classes: int = 1000) -> NasNet:
    """[n, 3, h, w] to logits [n, classes]: NASNet-A (6 @ 4032)."""
    return NasNet(96, 168, 6, classes, skip=True)
