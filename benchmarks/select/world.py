"""Synthetic worlds: boxes that move and detectors that miss, all in numpy.

world = World(seed=0)
boxes = world.boxes("y416", 17)              # the same whoever asks, so that all choosers see one world
scores, right = world.judged("y416", 17, 20) # shown while frame 20 is on
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from edgeward.serve.ladder import Ladder, Rung
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections

FPS, PIXELS, OBJECTS, FRAMES = 30, 1000, 18, 180
WIDE, HIGH = 0.6, 1.3
SHAPE = (WIDE * HIGH) ** 0.5  # relative size of a box of scale 1
EDGES = (0.0, 0.05, 0.08, 0.12, 0.18, 0.26, 1.0)
SCENES = (
    (0.07, 0.35, 0.15), (0.22, 0.3, 0.8), (0.10, 0.4, 0.5), (0.30, 0.25, 2.0),
    (0.055, 0.3, 0.3), (0.14, 0.35, 1.2), (0.09, 0.3, 0.05), (0.2, 0.4, 0.3),
)  # fmt: skip
"""Median scale, its log-sigma, speed in own scales per second."""


@dataclass(frozen=True)
class Eye:
    """A detector: milliseconds, scale at which it finds half, share it finds at best, jitter, false boxes per object."""

    milliseconds: float
    mid: float
    top: float
    jitter: float
    false: float

    def recall(self, scale):
        return self.top / (1 + np.exp(-5 * np.log2(scale / self.mid)))


EYES = {
    "t288": Eye(1000 / 36.6, 0.165, 0.80, 0.10, 0.06),
    "t416": Eye(1000 / 25.5, 0.125, 0.84, 0.09, 0.06),
    "y288": Eye(1000 / 7.93, 0.085, 0.93, 0.05, 0.04),
    "y416": Eye(1000 / 4.62, 0.055, 0.95, 0.045, 0.04),
}
NAMES = tuple(EYES)


@dataclass(frozen=True)
class Twist:
    """How a world differs from the one that the ladder was calibrated in.

    mid, top: factors on every detector's. wander: how much speeds change from second to second; 0 for straight lines.
    pace: factor on speeds. slow: factors on latencies, by detector.
    """

    mid: float = 1.0
    top: float = 1.0
    wander: float = 0.0
    pace: float = 1.0
    slow: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)


class World:
    """Scenes of 180 frames, one after another: all eight, or some drawn by lot."""

    def __init__(self, seed: int, twist: Twist = Twist(), drawn: int | None = None) -> None:
        self.twist = twist
        draw = np.random.default_rng(seed)
        chosen = SCENES if drawn is None else [SCENES[place] for place in draw.permutation(len(SCENES))[:drawn]]
        self.frames = FRAMES * len(chosen)
        scenes = [_scene(draw, *scene, twist) for scene in chosen]
        self.scale = np.concatenate([np.repeat(scale[None], FRAMES, axis=0) for scale, _ in scenes])
        self.centre = np.concatenate([centre for _, centre in scenes])
        self.truth = _boxes(self.centre, self.scale)
        difficulty = _difficulty(draw, self.frames)
        self._seen = {
            name: [
                _seen(draw, _twisted(eye, twist), self.centre[f], self.scale[f], difficulty[f])
                for f in range(self.frames)
            ]
            for name, eye in EYES.items()
        }
        self.judged = functools.cache(self._judged)

    def boxes(self, name: str, frame: int) -> Detections:
        return self._seen[name][frame]

    def seconds(self, name: str, load: float) -> float:
        return EYES[name].milliseconds / 1000 * load * self.twist.slow[NAMES.index(name)]

    def _judged(self, name: str, frame: int, shown: int):
        """Scores, and which boxes are right: greedily by score, each to the free object it overlaps most."""
        return judge(self._seen[name][frame], self.truth[shown])


def judge(found: Detections, truth):
    order = np.argsort(-found.confidence, kind="stable")
    shared = overlap(found.xyxy[order], truth, np.zeros(len(truth), bool))
    right = np.zeros(len(order), bool)
    for row in np.flatnonzero(shared.max(axis=1, initial=0) >= 0.5):
        best = shared[row].argmax()
        if shared[row, best] >= 0.5:
            right[row] = True
            shared[:, best] = 0
    return found.confidence[order], right


def eleven_point(scores, right, positives: int) -> float:
    """PASCAL VOC 2007's average precision: mean of the best precision at recalls 0, 0.1, ..., 1."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    recall, precision = hits / positives, hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-12)].mean())


@functools.cache
def ladder(seed: int = 1000) -> Ladder:
    """Calibrated in an untwisted world: 60 frames of 20 objects for each size bin."""
    draw = np.random.default_rng(seed)
    tables = {name: [_accuracy(draw, eye, *edges) for edges in itertools.pairwise(EDGES)] for name, eye in EYES.items()}
    rungs = tuple(
        Rung(name, tuple(tables[name]), eye.milliseconds / 1000, static_iou=_static(draw, eye), fit=_fit(draw, eye))
        for name, eye in EYES.items()
    )
    return Ladder("nano", ("object",), tuple(edge * SHAPE for edge in EDGES[:-1]) + (1.0,), rungs)


def _accuracy(draw, eye: Eye, low: float, high: float) -> float:
    scores, right = [], []
    for _ in range(60):
        scale = draw.uniform(max(low, 0.03), min(high, 0.45), 20)
        centre = _placed(draw, scale)
        found = _seen(draw, eye, centre, scale, draw.random(20))
        for values, value in zip((scores, right), judge(found, _boxes(centre, scale)), strict=True):
            values.append(value)
    return round(eleven_point(np.concatenate(scores), np.concatenate(right), 60 * 20), 3)


def _static(draw, eye: Eye) -> float:
    """Mean overlap of two detections of the same objects."""
    return round(float(_overlaps(_sure(draw, eye), _sure(draw, eye)).mean()), 3)


def _fit(draw, eye: Eye) -> float:
    """Mean overlap of detections with their objects, where it is over a half."""
    shared = _overlaps(_sure(draw, eye), _boxes(CENTRES, SCALES))
    return round(float(shared[shared >= 0.5].mean()), 3)


def _sure(draw, eye: Eye):
    """Boxes of 1000 objects alike, all found."""
    return _seen(draw, Eye(0, 0.01, 1.0, eye.jitter, 0), CENTRES, SCALES, np.zeros(len(SCALES))).xyxy


def _overlaps(one, other):
    return np.array([overlap(a[None], b[None], np.zeros(1, bool))[0, 0] for a, b in zip(one, other, strict=True)])


SCALES, CENTRES = np.full(1000, 0.3), np.full((1000, 2), 0.5)


def _twisted(eye: Eye, twist: Twist) -> Eye:
    return Eye(eye.milliseconds, eye.mid * twist.mid, eye.top * twist.top, eye.jitter, eye.false)


def _placed(draw, scale):
    half = np.stack([WIDE * scale, HIGH * scale], axis=1) / 2
    return half + draw.random((len(scale), 2)) * (1 - 2 * half)


def _scene(draw, median: float, sigma: float, speed: float, twist: Twist):
    """Scales [n] and centres [frames, n, 2] of objects that bounce at the border."""
    scale = np.clip(median * np.exp(sigma * draw.standard_normal(OBJECTS)), 0.03, 0.45)
    half = np.stack([WIDE * scale, HIGH * scale], axis=1) / 2
    angle = draw.uniform(0, 2 * np.pi, OBJECTS)
    pace = twist.pace * speed * scale * np.exp(0.3 * draw.standard_normal(OBJECTS)) / FPS
    step = pace[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # With wander each object's pace follows a random walk of its own, one value a second.
    walk = np.cumsum(twist.wander * draw.standard_normal((FRAMES // FPS, OBJECTS, 1)), axis=0)
    steps = step * np.repeat(np.exp(np.clip(walk, -2, 1)), FPS, axis=0)
    path = _placed(draw, scale) + np.cumsum(steps, axis=0)
    span = 1 - 2 * half
    return scale, half + np.abs((path - half + span) % (2 * span) - span)


def _boxes(centre, scale):
    half = np.stack([WIDE * scale, HIGH * scale], axis=-1) / 2
    return (PIXELS * np.concatenate([centre - half, centre + half], axis=-1)).astype(np.float32)


def _difficulty(draw, frames: int):
    """[frames, n]: 15 % of the objects become easier or harder with every frame of the world, seen or not."""
    fresh, redrawn = draw.random((frames, OBJECTS)), draw.random((frames, OBJECTS)) < 0.15
    redrawn[::FRAMES] = True
    newest = np.maximum.accumulate(np.where(redrawn, np.arange(frames)[:, None], 0), axis=0)
    return np.take_along_axis(fresh, newest, axis=0)


def _seen(draw, eye: Eye, centre, scale, difficulty) -> Detections:
    recall = eye.recall(scale)
    hit = difficulty < recall
    n, false = int(hit.sum()), draw.poisson(eye.false * len(scale))
    noise = eye.jitter * draw.standard_normal((n, 4))
    size = np.stack([WIDE * scale[hit], HIGH * scale[hit]], axis=1)
    middle, whole = centre[hit] + noise[:, :2] * size, size * np.exp(noise[:, 2:] * SIZE_JITTER)
    real = np.hstack([middle - whole / 2, middle + whole / 2])
    odd = np.clip(0.08 * np.exp(0.5 * draw.standard_normal(false)), 0.03, 0.45)
    box = np.vstack([PIXELS * real, _boxes(_placed(draw, odd), odd)])
    score = np.concatenate([0.5 + 0.5 * recall[hit] - 0.2 * draw.random(n), 0.3 + 0.4 * draw.random(false)])
    return Detections(box, score, np.zeros(n + false, np.int32))


SIZE_JITTER = 0.5
"""Sides vary by half of what the centre does."""
