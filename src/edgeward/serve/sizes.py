"""Which object sizes a camera sees, from the boxes of whatever model is running.

    view = SizeHistogram.unknown(bins=6)
    view = view.seen(counts(sizes(boxes, 1920, 1080), ladder.edges), rung.accuracy, age=0.5)
    print(view.shares)                       # sums to 1; uniform when nothing was seen

A small model misses small objects, so its boxes say "all large" and would keep it in charge. Each bin's count is
therefore divided by what the model finds there (ROMA, WACV 2023, arXiv 2210.16083, selects by this histogram), and a
bin is corrected only as far as the model sees it: what a stronger model found in a blind spot is remembered, and one
look of it weighs the more, the longer nobody saw that bin (a scalar Kalman filter for each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.results import Detections

__all__ = ["FLOOR", "SizeHistogram", "counts", "size_bins", "sizes"]

FloatArray = npt.NDArray[np.float64]
FLOOR = 0.05
"""Least share of a bin's objects that a model is taken to find: one box counts for at most twenty."""
PRIOR = 0.5
"""Objects that are always assumed, spread over all bins: with none seen, every size is as likely."""
UNKNOWN = 1e6
"""Variance of what was never seen."""


@dataclass(frozen=True)
class SizeHistogram:
    """objects: estimated number in view, by size bin. doubt: variance of each, in units of that of one full view."""

    objects: tuple[float, ...]
    doubt: tuple[float, ...]

    @classmethod
    def unknown(cls, bins: int) -> Self:
        """Before anything was seen."""
        return cls((0.0,) * bins, (UNKNOWN,) * bins)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of objects in each bin; sums to 1."""
        total, bins = sum(self.objects), len(self.objects)
        return tuple((count + PRIOR / bins) / (total + PRIOR) for count in self.objects)

    def seen(self, found: Sequence[float] | FloatArray, visible: Sequence[float], age: float) -> Self:
        """After a model found so many objects in each bin.

        visible: the share of objects it finds, by bin (its accuracy; all 1 takes its boxes at face value).
        age: time since the last view, in units of the time in which a scene changes.
        """
        if len(found) != len(self.objects) or len(visible) != len(self.objects):
            raise ConfigError(f"{len(found)} counts, {len(visible)} accuracies for {len(self.objects)} size bins")
        moved = [
            _corrected(old, min(doubt + age, UNKNOWN), float(count), share)
            for old, doubt, count, share in zip(self.objects, self.doubt, found, visible, strict=True)
        ]
        return type(self)(tuple(each[0] for each in moved), tuple(each[1] for each in moved))


def _corrected(old: float, doubt: float, count: float, share: float) -> tuple[float, float]:
    """Objects of a bin and their variance after `count` were found of which a `share` is visible.

    What is found is share x objects + noise, so that a view informs by the square of the share.
    """
    gain = doubt * share**2 / (doubt * share**2 + 1)
    return old + gain * (count / max(share, FLOOR) - old), doubt * (1 - gain)


def sizes(boxes: Detections, width: float, height: float) -> FloatArray:
    """Relative size of each box, the square root of its share of the frame: float64 [n]. width, height: pixels."""
    box = boxes.xyxy.astype(np.float64)
    area = np.maximum(box[:, 2] - box[:, 0], 0) * np.maximum(box[:, 3] - box[:, 1], 0)
    found: FloatArray = np.sqrt(area / (width * height))
    return found


def size_bins(size: FloatArray, edges: Sequence[float]) -> npt.NDArray[np.intp]:
    """The bin of each size: int [n], 0..len(edges) - 2; what lies beyond the last edge is in the last bin."""
    return np.clip(np.searchsorted(edges, size, side="right") - 1, 0, len(edges) - 2)


def counts(size: FloatArray, edges: Sequence[float]) -> FloatArray:
    """How many sizes fall in each bin: float64 [len(edges) - 1]."""
    return np.bincount(size_bins(size, edges), minlength=len(edges) - 1).astype(np.float64)
