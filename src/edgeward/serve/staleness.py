"""How fast boxes that stay on screen cease to be right.

    retention = Retention.assumed(bins=6)
    overlaps = matched(before, after, size_bins(sizes(before, 1920, 1080), ladder.edges))
    retention = retention.observed(overlaps, static_iou=0.8, frames=4.0, weight=0.3)
    print(retention.mean(Ages.of(0.13, 0.13, fps=30)))     # by size: share of the accuracy that is kept on screen

ROMA (WACV 2023, arXiv 2210.16083) models the loss of average precision by a factor beta per dropped frame. Two
estimates from the overlap of an object's boxes in two processed frames, given what boxes of an object that stands still
have in common (detectors jitter): "decay" is that factor; "displacement" the distance moved, with a curve of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.serve.ages import Ages
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections

__all__ = ["Motion", "Retention", "matched"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Overlaps = tuple[FloatArray, IntArray]
Sums = tuple[float, float]
FARTHEST = 1.5
"""Sizes that an object may move between two processed frames."""
SHAPE = 0.15
"""A side that differs by this share counts as much as a whole size of distance."""
MATCHES = 3
"""With fewer matched boxes the old estimate is kept, and fades."""
FADING = 0.1
"""What is not matched again is forgotten this much slower: it stays right for a while, but must not bind for ever."""
NEAREST = 0.5
"""Frames between two answers below which motion cannot be told from jitter."""
ASSUMED = 1.0
"""Matched boxes that the estimate for all sizes counts for in that of one size."""
LEAST = 0.5
FPS = 30.0
"""Frames a second that the assumed motion is for."""
SPREAD = 3.0
"""Objects of one size differ in speed and direction, so that they get too far one after another: log-logistic with this
exponent. Chosen between two videos: boxes of five rungs, aged by 1 to 8 frames, fit 2.3 on PETS, where people walk to
and fro, and 3.7 on TUD."""
REACH = 1.1
"""How much farther than their mean overlap allows boxes may be off before half of them are wrong: those that fit better
last longer. By the true motion 1.24 to 1.29; chosen below that, as what is told of motion between two answers is rather
less than the true one."""
SPAN = 0.15
"""Sizes moved between two answers at which motion is told best: enough to stand out from jitter, few objects lost or
turned back."""
LONGEST = 8.0
"""Frames between two answers beyond which objects are hardly found again."""


@dataclass(frozen=True)
class Motion:
    """How retention is estimated.

    by: "bin" for one estimate per object size, "all" for one of all sizes, "fixed" for the assumed one.
    model: "displacement" for objects of constant speed whose boxes are right until they moved a third of their size,
    "decay" for the factor beta of ROMA. assumed: before anything is known beta, or the overlap kept, from one frame to
    the next at 30 frames a second; where frames are fewer, more happens between two.
    """

    by: Literal["bin", "all", "fixed"] = "bin"
    model: Literal["displacement", "decay"] = "displacement"
    assumed: float = 0.97

    def __post_init__(self) -> None:
        if not LEAST <= self.assumed <= 1:
            raise ConfigError(f"assumed retention {self.assumed} per frame is outside {LEAST}..1")

    def measured(self, iou: float, static_iou: float, frames: float) -> float:
        """The rate per frame, from the overlap left after so many frames: squared sizes moved, or beta.

        A box that moved by d of its size has an overlap of (1 - d) / (1 + d). Jitter and motion are independent and add
        by their squares; the difference may be negative, so that its mean over time is not biased.
        """
        if self.model == "displacement":
            return (_moved(iou) ** 2 - _moved(static_iou) ** 2) / frames**2
        return float(min(max((iou / static_iou) ** (1 / frames), LEAST), 1.0))

    def kept(self, rates: FloatArray, ages: FloatArray, fit: float | FloatArray = 0.75) -> FloatArray:
        """Share of the accuracy that boxes keep at each age in frames: float64 [bins, ages] from [bins] and [ages].

        fit: mean overlap of fresh boxes with their objects; of several models [models, 1, 1], for one more axis. A box
        that is d sizes away has (1 - d) / (1 + d) of it; a half is reached at d = (fit - 1/2) / (fit + 1/2), and by
        half of the boxes at REACH times that.
        """
        if self.model == "displacement":
            reach = REACH * (fit - 0.5) / (fit + 0.5)
            moved = np.sqrt(np.maximum(rates, 0.0))[:, None] * (ages / reach)
            return np.asarray(1 / (1 + moved**SPREAD))
        return np.asarray(rates[:, None] ** ages)


@dataclass(frozen=True)
class Retention:
    """Moving sums of what was measured, over all sizes and for each size bin.

    all: matched boxes, and the sum of their rates (see `Motion.measured`); bins: the same of each size bin. fps: of the
    frames that rates are for.
    """

    all: Sums
    bins: tuple[Sums, ...]
    motion: Motion = Motion()
    fps: float = FPS

    @classmethod
    def assumed(cls, bins: int, motion: Motion | None = None, fps: float = FPS) -> Self:
        """Before anything was seen."""
        return cls((0.0, 0.0), ((0.0, 0.0),) * bins, motion or Motion(), fps)

    def observed(
        self, overlaps: Overlaps, static_iou: float, frames: float, weight: float, sure: Sequence[float] = ()
    ) -> Self:
        """After boxes were matched over a span of so many frames.

        static_iou: mean overlap of two boxes of an object that stands still. weight: of this estimate in the moving
        average, of the old one the rest. sure: how far boxes of each bin are objects at all, 0..1.
        """
        ious, at = overlaps
        if self.motion.by == "fixed" or frames < NEAREST:
            return self
        share = np.asarray(sure or (1.0,) * len(self.bins))[at]

        def moved(old: Sums, rows: npt.NDArray[np.bool_]) -> Sums:
            if rows.sum() < MATCHES:
                return _faded(old, weight * FADING)
            rate = self.motion.measured(float(ious[rows].mean()), static_iou, frames)
            mass, total = _faded(old, weight)
            added = weight * float(share[rows].sum())
            return mass + added, total + added * rate

        every = moved(self.all, at >= 0)
        bins = self.bins if self.motion.by == "all" else tuple(moved(o, at == i) for i, o in enumerate(self.bins))
        return replace(self, all=every, bins=bins)

    @functools.cached_property
    def rates(self) -> FloatArray:
        """The rate of each size bin; where few boxes were matched, rather that of all sizes, or the assumed one."""
        overall = self._overall
        return np.array([_shrunk(sums, overall) for sums in self.bins])

    @property
    def _overall(self) -> float:
        """The rate of all sizes. Objects move so much in a second, not in a frame."""
        return _shrunk(self.all, self.motion.measured(self.motion.assumed, 1.0, self.fps / FPS))

    @property
    def span(self) -> float:
        """Frames after which motion should be measured again."""
        overall = self._overall
        return min(SPAN / math.sqrt(overall), LONGEST) if overall > 0 else LONGEST

    def kept(self, ages: FloatArray, fit: float | FloatArray = 0.75) -> FloatArray:
        """Share of the accuracy that boxes keep at each age in frames: float64 [bins, ages]. fit: see `Motion.kept`."""
        return self.motion.kept(self.rates, ages, fit)

    def mean(self, ages: Ages, fit: float = 0.75) -> FloatArray:
        """The same as a mean over boxes of these ages: float64 [bins]."""
        return np.asarray(self.kept(ages.frames, fit) @ ages.shares)

    def repaced(self, ratio: float) -> Self:
        """After frames come `ratio` times as fast: what moved so far in a frame now takes as many more."""

        def moved(sums: Sums) -> Sums:
            mass, total = sums
            if self.motion.model == "displacement":
                return mass, total / ratio**2
            return mass, mass * (total / mass) ** (1 / ratio) if mass else total

        return replace(self, all=moved(self.all), bins=tuple(moved(each) for each in self.bins), fps=self.fps * ratio)


def matched(before: Detections, after: Detections, bins: Sequence[int] | IntArray) -> Overlaps:
    """Overlap of boxes that are each other's nearest in two frames, float64 [m], and the bins of the earlier, int [m].

    Nearest in place and shape: an object may move by more than its size, but hardly changes its shape, and the overlap
    with a neighbour would pass for slow motion. bins: int [n], the size bin of each box of `before`.
    """
    if not len(before) or not len(after):
        return np.zeros(0), np.zeros(0, np.intp)
    centre, side = _centred(before)
    centres, sides = _centred(after)
    away = np.abs(centre[:, None] - centres) / ((side[:, None] + sides) / 2)
    shape = np.abs(np.log(side[:, None] / sides))
    far = (away > FARTHEST).any(axis=2) | (before.class_id[:, None] != after.class_id)
    distance = np.where(far, np.inf, (away**2).sum(axis=2) + ((shape / SHAPE) ** 2).sum(axis=2))
    partner, rows = distance.argmin(axis=1), np.arange(len(before))
    mutual = np.isfinite(distance[rows, partner]) & (distance.argmin(axis=0)[partner] == rows)
    found = after.xyxy[partner[mutual]]
    shared = overlap(before.xyxy[mutual], found, np.zeros(len(found), np.bool_))
    return shared.diagonal().copy(), np.asarray(bins, np.intp)[mutual]


def _centred(boxes: Detections) -> tuple[FloatArray, FloatArray]:
    """Centres and sides, pixels: float64 [n, 2] each; no side is shorter than a hundredth of a pixel."""
    box = boxes.xyxy.astype(np.float64)
    return (box[:, :2] + box[:, 2:]) / 2, np.maximum(box[:, 2:] - box[:, :2], 0.01)


def _moved(iou: float) -> float:
    return (1 - iou) / (1 + iou)


def _shrunk(sums: Sums, towards: float) -> float:
    """A mean that counts as much as one matched box for each that is assumed."""
    return (sums[1] + ASSUMED * towards) / (sums[0] + ASSUMED)


def _faded(sums: Sums, weight: float) -> Sums:
    return (1 - weight) * sums[0], (1 - weight) * sums[1]
