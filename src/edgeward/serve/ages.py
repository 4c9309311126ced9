"""How old boxes on screen are when answers take a while and the next ones come a turn later.

ages = Ages.of(0.13, 0.2, fps=30)
print(ages.frames, ages.shares)          # how many frames old, for which share of the time
means = age_means(curves, which, late, span, wait)       # of many cases at once
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["VARIES", "Ages", "age_means", "age_shares", "frames_on_screen", "oldest", "own_frame_means"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
VARIES = 0.06
"""Share by which a latency differs from its mean until that was seen."""
BEGUN = np.array([1 / 6, 1 / 2, 5 / 6])
"""Shares of the longest wait after which an answer that keeps up begins; cases that count as much."""
EPSILON = 0.05
"""Frames by which a latency may miss a whole number of frames and still count as that number."""
OLDEST = 128
"""Age in frames beyond which none are told apart."""


@dataclass(frozen=True, eq=False)
class Ages:
    """How old boxes on screen are: frames [n], and for which share of the time [n]."""

    frames: FloatArray
    shares: FloatArray

    @staticmethod
    def of(seconds: float, turn: float, fps: float, wait: float = 0.0, varies: float = VARIES) -> Ages:
        """An answer takes so many seconds, the next one comes a turn later; the newest frame is taken each time.

        With L and C for the two in frames: r after an answer came, 0 <= r < C, its boxes are of the frame that was the
        newest r + L before, ceil(r + L) frames old. Who keeps up with the frames begins when one comes, or up to `wait`
        seconds later. Latencies vary, and a little more may mean a whole frame: three cases count as much, the mean and
        what differs from it by the share `varies`.
        """
        late, span = round(seconds * fps, 2), round(max(turn, seconds) * fps, 2)
        return _aged(late, span, round(wait * fps, 1), round(varies, 2))

    @classmethod
    def between(cls, first: int, last: int) -> Self:
        """All ages from first to last alike."""
        frames = np.arange(first, last + 1.0)
        return cls(frames, np.full(len(frames), 1 / len(frames)))


def age_shares(late: FloatArray, span: FloatArray, wait: FloatArray, varies: float = VARIES) -> FloatArray:
    """For which share of the time boxes are 0, 1, ... frames old: float64 [n, ages], the oldest up to OLDEST.

    late, span, wait: float64 [n], in frames: how long an answer takes, from one to the next, and how long at most one
    that keeps up begins after its frame. See `Ages.of`.
    """
    most = oldest(late, span, wait, varies)
    ages, found = np.arange(1, most + 1), np.zeros((len(late), most))
    for factor in _varying(varies):
        first = late * factor
        every = np.maximum(np.maximum(span, first), 0.01)
        here = np.minimum(ages, (first + every)[:, None]) - np.maximum(ages - 1, first[:, None])
        share = np.maximum(here, 0.0) / every[:, None]
        share[:, -1] += np.maximum(1 - share.sum(axis=1), 0.0)  # all that is older counts as the oldest
        keeps = np.flatnonzero(every <= 1)
        share[keeps] = 0.0
        for begun in BEGUN:
            at = np.clip(np.ceil(first[keeps] + wait[keeps] * begun), 1, len(ages)).astype(int) - 1
            share[keeps, at] += 1 / 3
        found += share / 3
    return np.concatenate([np.zeros((len(late), 1)), found], axis=1)


def own_frame_means(curves: FloatArray, which: IntArray, late: FloatArray, span: FloatArray) -> FloatArray:
    """The same where an answer that is there before the next frame is shown with its own: float64 [n].

    All ages from one to another count alike; see `age_means` for the rest.
    """
    sums = np.concatenate([np.zeros((len(curves), 1)), curves.cumsum(axis=1)], axis=1)
    first, frames = (np.maximum(np.ceil(each - EPSILON), 1).astype(np.intp) for each in (late, np.maximum(span, late)))
    first[first == 1] = 0
    end = np.minimum(first + frames, curves.shape[1])
    first = np.minimum(first, end - 1)
    return np.asarray((sums[which, end] - sums[which, first]) / (end - first))


def oldest(late: FloatArray, span: FloatArray, wait: FloatArray, varies: float = VARIES) -> int:
    """The age in frames beyond which boxes on screen are not, or none are told apart; see `age_shares`."""
    longest = (late + np.maximum(span, late)).max() * (1 + varies)
    return int(max(min(np.ceil(longest) + np.ceil(wait.max()), OLDEST), 1))


def age_means(
    curves: FloatArray, which: IntArray, late: FloatArray, span: FloatArray, wait: FloatArray, varies: float = VARIES
) -> FloatArray:
    """Mean accuracy over the ages of `age_shares`: float64 [n], the same without their table.

    curves: float64 [m, ages], accuracy at the ages 0, 1, ...; what is older counts as the oldest. which: int [n], the
    curve of each row. late, span, wait: float64 [n], in frames.
    """
    last = curves.shape[1] - 1
    sums = np.concatenate([np.zeros((len(curves), 1)), curves[:, 1:].cumsum(axis=1)], axis=1)

    def until(age: FloatArray) -> FloatArray:
        whole = np.minimum(age, last - 1).astype(np.intp)
        return np.asarray(sums[which, whole] + (age - whole) * curves[which, whole + 1])

    first = late * _varying(varies)[:, None]
    every = np.maximum(np.maximum(span, first), 0.01)
    found = (until(first + every) - until(first)) / every
    factor, keeps = np.nonzero(every <= 1)
    if len(keeps):
        begins = first[factor, keeps] + wait[keeps] * BEGUN[:, None]
        ages = np.clip(np.ceil(begins), 1, last).astype(np.intp)
        found[factor, keeps] = curves[which[keeps], ages].mean(axis=0)
    return np.asarray(found.mean(axis=0))


def _varying(varies: float) -> FloatArray:
    return np.array([1 - varies, 1.0, 1 + varies])


@functools.lru_cache(maxsize=1024)
def _aged(late: float, span: float, wait: float, varies: float) -> Ages:
    """For an answer that takes `late` frames, a turn of `span` frames and a wait of up to `wait` frames."""
    shares = age_shares(np.array([late]), np.array([span]), np.array([wait]), varies)[0]
    (ages,) = np.nonzero(shares)
    return Ages(ages.astype(np.float64), shares[ages])


def frames_on_screen(seconds: float, fps: float) -> int:
    """How many frames pass while a model works: at least 1; a latency of whole frames is not rounded up."""
    return max(1, math.ceil(seconds * fps - EPSILON))
