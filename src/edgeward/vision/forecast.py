"""Boxes of an answer that comes late, moved to where their objects should be by now.

    forecast = Forecast.start()
    forecast = forecast.observe(tracked, frame.time)      # boxes with `tracker_id`, of each answer in turn
    shown = forecast.at(now)                              # the newest answer's boxes, in the same order
    places, steps = forecast.known(now)                   # of those that it missed, too

Li, Wang, Ramanan, "Towards Streaming Perception" (ECCV 2020, section 4): forecasting tracks with a Kalman filter makes
up for much of what lateness costs. But detectors jitter, and motion that is only jitter makes boxes worse than leaving
them alone. So a velocity is shrunk twice: each by its own uncertainty, as the positive part of James and Stein's
estimator does (Efron and Morris, JASA 68, 1973), and all by how much of the motion that was forecast so far came true.
Sizes are kept, and the newest box is moved rather than the filter's smoother one: both measured better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.kalman import VAR_VELOCITY, VELOCITY, Array, Motion
from edgeward.vision.results import Detections, IntArray

__all__ = ["Forecast", "ForecastOptions"]

Index = npt.NDArray[np.intp]
MEMORY_SECONDS = 5.0
"""A track that was not seen for longer starts anew, at rest."""
TRUST_SECONDS = 30.0
"""After this time what came true counts 1/e of what it did."""
ASSUMED = 0.05
"""Squared box sizes of motion that is taken to have come true before anything was seen."""


@dataclass(frozen=True)
class ForecastOptions:
    """How far boxes are moved.

    doubt: a box moves only when the square of its velocity exceeds so many variances of it, and by the less the nearer
        the two are. The filter's variance is mostly that of objects that speed up and turn, of which jitter is a part.
    jitter: standard deviation of a detected box around a steady object, in box sizes; forecasts that err by much more
        (a track that jumped to another object) hardly count in what came true.
    damping_seconds: after this time a velocity has fallen to 1/e: people stop and turn.

    Raises ConfigError for a value out of range.
    """

    doubt: float = 0.1
    jitter: float = 0.05
    damping_seconds: float = 3.0

    def __post_init__(self) -> None:
        for name, low, high in (("doubt", 0, 100), ("jitter", 0.001, 1), ("damping_seconds", 0.01, 3600)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"forecast: {name} is {getattr(self, name)}; it must be in {low}..{high}")


@dataclass(frozen=True)
class _Trust:
    """Sums over past forecasts of real motion along the forecast one and of the latter, in squared box sizes."""

    real: float = 0.0
    forecast: float = 0.0

    @property
    def share(self) -> float:
        """How much of a forecast motion to believe, 0..1: the slope of real motion over forecast motion."""
        return min(max((ASSUMED + self.real) / (ASSUMED + self.forecast), 0.0), 1.0)

    def judged(self, forecast: Array, real: Array, seconds: float, jitter: float) -> Self:
        """After objects moved by `real` within `seconds`, float64 [n, 2] as `forecast`, in box sizes."""
        # Cauchy's weights: without them a few tracks that changed objects outweigh all others.
        weight = 1 / (1 + ((real - forecast) ** 2).sum(axis=1) / jitter**2)
        fading = math.exp(-seconds / TRUST_SECONDS)
        along, whole = (float(weight @ (forecast * moved).sum(axis=1)) for moved in (real, forecast))
        return replace(self, real=self.real * fading + along, forecast=self.forecast * fading + whole)


@dataclass(frozen=True, eq=False)
class _Tracks:
    """What is known of n tracks: their numbers, ascending, motion, and seconds at which they were last seen."""

    number: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    motion: Motion = field(default_factory=lambda: Motion.at_rest(np.zeros((0, 4))))
    seen: Array = field(default_factory=lambda: np.zeros(0))

    def observed(self, number: IntArray, boxes: Array, time: float, seconds: float) -> Self:
        """`seconds` after the last time, with boxes [m, 4] of tracks that have these numbers, each one once."""
        kept = time - self.seen <= MEMORY_SECONDS
        _, rows, columns = np.intersect1d(self.number[kept], number, assume_unique=True, return_indices=True)
        motion = self.motion.only(kept).predicted(min(seconds, MEMORY_SECONDS)).corrected(rows, boxes[columns])
        seen = self.seen[kept]
        seen[rows] = time
        new = np.ones(len(number), bool)
        new[columns] = False
        motion = motion.joined(Motion.at_rest(boxes[new]))
        joined = np.concatenate([self.number[kept], number[new]])
        order = np.argsort(joined)
        seen = np.concatenate([seen, np.full(int(new.sum()), time)])
        return replace(self, number=joined[order], motion=Motion(motion.state[order]), seen=seen[order])

    def velocity(self, number: IntArray, doubt: float) -> Array:
        """Of the centres of known tracks, pixels per second, shrunk by its uncertainty: float64 [m, 2]."""
        state = self.motion.state[np.searchsorted(self.number, number)]
        velocity, variance = state[:, VELOCITY, :2], state[:, VAR_VELOCITY, :2].sum(axis=1)
        kept: Array = 1 - doubt * variance / np.maximum((velocity**2).sum(axis=1), 1e-12)
        return np.maximum(kept, 0.0)[:, None] * velocity


@dataclass(frozen=True, eq=False)
class Forecast:
    """The newest answer and the motion of its boxes; made by `start`, then by `observe`."""

    options: ForecastOptions = ForecastOptions()
    _boxes: Detections = field(default_factory=Detections.empty)
    _velocity: Array = field(default_factory=lambda: np.zeros((0, 2)))
    _time: float | None = None
    _tracks: _Tracks = _Tracks()
    _trust: _Trust = _Trust()

    @classmethod
    def start(cls, options: ForecastOptions | None = None) -> Self:
        """Before the first answer."""
        return cls(options or ForecastOptions())

    def observe(self, boxes: Detections, time_seconds: float) -> Self:
        """After an answer to a frame that was taken at `time_seconds`.

        Boxes without `tracker_id`, or with -1, are not moved, nor those of a track's first answer. When the time lies
        before that of the last answer (a looped clip) what is known about motion is dropped. Raises ValueError when it
        is not finite.
        """
        if not math.isfinite(time_seconds):
            raise ValueError(f"time_seconds is {time_seconds}; give the frame's time in seconds")
        back = self._time is None or time_seconds < self._time
        before = replace(self, _boxes=Detections.empty(), _tracks=_Tracks(), _time=time_seconds) if back else self
        assert before._time is not None
        seconds, places = time_seconds - before._time, _centred(boxes)
        number, rows = np.unique(_numbers(boxes), return_index=True)
        number, rows = number[number >= 0], rows[number >= 0]
        tracks = before._tracks.observed(number, places[rows], time_seconds, seconds)
        tracked = _numbers(boxes) >= 0
        velocity = np.zeros((len(boxes), 2))
        velocity[tracked] = tracks.velocity(_numbers(boxes)[tracked], self.options.doubt)
        trust = before._judged(boxes, places, seconds)
        return replace(self, _boxes=boxes, _velocity=velocity, _time=time_seconds, _tracks=tracks, _trust=trust)

    @property
    def newest(self) -> Detections:
        """The newest answer's boxes where they were found; none before the first."""
        return self._boxes

    def at(self, time_seconds: float) -> Detections:
        """The newest answer's boxes where they should be at `time_seconds`; before that answer's time, where they were.

        No boxes before the first answer. Raises ValueError for a time that is not finite.
        """
        if not math.isfinite(time_seconds):
            raise ValueError(f"time_seconds is {time_seconds}; give a time in seconds")
        if self._time is None or time_seconds <= self._time:
            return self._boxes
        moved = self._moved(time_seconds - self._time) * self._trust.share
        xyxy = self._boxes.xyxy.astype(np.float64) + np.tile(moved, 2)
        return replace(self._boxes, xyxy=xyxy.astype(np.float32))

    def known(self, time_seconds: float) -> tuple[Array, Array]:
        """Where objects were at the newest answer's time, and how far they move until `time_seconds`.

        Corners float64 [n, 4], pixels float64 [n, 2]: the newest answer's boxes first, then tracks that it missed.
        Raises ValueError for a time that is not finite.
        """
        if not math.isfinite(time_seconds):
            raise ValueError(f"time_seconds is {time_seconds}; give a time in seconds")
        newest = time_seconds if self._time is None else self._time
        seconds, missed = max(time_seconds - newest, 0.0), self._tracks.seen < newest
        velocity = self._tracks.velocity(self._tracks.number[missed], self.options.doubt)
        places = np.concatenate([self._boxes.xyxy, self._tracks.motion.only(missed).corners])
        steps = np.concatenate([self._moved(seconds), self._damped(velocity, seconds)])
        return places.astype(np.float64), steps * self._trust.share

    def _moved(self, seconds: float) -> Array:
        """Pixels that the boxes move within `seconds`, were the velocities right: float64 [n, 2]."""
        return self._damped(self._velocity, seconds)

    def _damped(self, velocity: Array, seconds: float) -> Array:
        damping = self.options.damping_seconds
        return velocity * (-damping * math.expm1(-seconds / damping))

    def _judged(self, boxes: Detections, places: Array, seconds: float) -> _Trust:
        """The trust after `boxes` were found at `places`, `seconds` after the newest boxes so far."""
        number, old, new = np.intersect1d(_numbers(self._boxes), _numbers(boxes), return_indices=True)
        old, new = old[number >= 0], new[number >= 0]
        if not len(old):
            return self._trust
        size = np.maximum(places[new, 2:].mean(axis=1, keepdims=True), 1.0)
        real = places[new, :2] - _centred(self._boxes)[old, :2]
        return self._trust.judged(self._moved(seconds)[old] / size, real / size, seconds, self.options.jitter)


def _numbers(boxes: Detections) -> IntArray:
    return np.full(len(boxes), -1, np.int32) if boxes.tracker_id is None else boxes.tracker_id


def _centred(boxes: Detections) -> Array:
    """Centre x, centre y, width, height, pixels: float64 [n, 4]."""
    corners = boxes.xyxy.astype(np.float64)
    return np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
