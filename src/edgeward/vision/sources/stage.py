"""Walking figures before a street, drawn from numbers: what the synthetic source shows.

    scene = Scene(seed=1, objects=4)
    stage = Stage(scene)
    image, truth = stage.render(17), stage.truth(17)

Everything is a pure function of the scene and the frame's number.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgeward.vision.frames import Image
from edgeward.vision.results import Detections
from edgeward.vision.sources.scene import Scene

__all__ = ["Stage"]

PHASES = 8
"""Postures in one step cycle."""

TALLEST = 540
"""Pixels; eight postures of a figure this tall take 5 MB."""

HORIZON = 0.45
"""Where the ground begins, as a fraction of the height."""


@dataclass(frozen=True, eq=False)
class _Walker:
    """One figure: its postures (picture, mask, tight box), where its canvas starts and how it moves."""

    postures: tuple[tuple[Image, Image, tuple[int, int, int, int]], ...]
    top: int
    start: float
    speed: float
    step_rate: float


class Stage:
    """A scene with its background and figures drawn once, so that a frame costs a copy and a few pastes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        random = np.random.default_rng(scene.seed)
        self._background = _street(scene.width, scene.height, random)
        walkers = [_walker(scene, random) for _ in range(scene.objects)]
        # The nearer a figure, the lower its feet and the later it is painted.
        self._walkers = sorted(walkers, key=lambda walker: walker.top + walker.postures[0][0].shape[0])

    def render(self, index: int) -> Image:
        """Picture number `index`: uint8 [height, width, 3], BGR."""
        image = self._background.copy()
        for walker in self._walkers:
            left, (figure, mask, _) = self._pose(walker, index)
            high, wide = mask.shape
            cv2.copyTo(figure, mask, image[walker.top : walker.top + high, left : left + wide])
        return image

    def truth(self, index: int) -> Detections:
        """Tight boxes of all figures in picture `index`, also where one hides another.

        class_id is 0 (person), tracker_id is the figure's number, the farthest first.
        """
        boxes = np.zeros((len(self._walkers), 4), np.float32)
        for row, walker in enumerate(self._walkers):
            left, (_, _, (x, y, wide, high)) = self._pose(walker, index)
            boxes[row] = (left + x, walker.top + y, left + x + wide, walker.top + y + high)
        count = len(boxes)
        return Detections(
            boxes, np.ones(count, np.float32), np.zeros(count, np.int32), np.arange(count, dtype=np.int32)
        )

    def _pose(self, walker: _Walker, index: int) -> tuple[int, tuple[Image, Image, tuple[int, int, int, int]]]:
        """Where the figure's canvas is in picture `index`, and in which posture: it walks to and fro."""
        seconds = index / self.scene.fps
        room = self.scene.width - walker.postures[0][0].shape[1]
        position = (walker.start + walker.speed * seconds) % (2 * room) if room else 0.0
        posture = walker.postures[int(seconds * walker.step_rate * PHASES) % PHASES]
        return round(room - abs(room - position)), posture


def _street(width: int, height: int, random: np.random.Generator) -> Image:
    """Sky, house fronts and pavement with grain: something for a codec and a detector to chew on."""
    rows = np.linspace(150, 90, height)[:, None, None]
    image = np.broadcast_to(rows + np.array([12, 4, -6]), (height, width, 3)).astype(np.float32)
    ground = round(HORIZON * height)
    for _ in range(8):
        left, wide = random.integers(0, width), max(2, int(random.uniform(0.08, 0.3) * width))
        top = int(random.uniform(0.05, 0.8) * ground)
        image[top:ground, left : left + wide] = random.uniform(70, 170) + random.uniform(-20, 20, 3)
    coarse = random.normal(0, 8, (max(2, height // 16), max(2, width // 16))).astype(np.float32)
    image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    image += random.normal(0, 6, (height, width, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _walker(scene: Scene, random: np.random.Generator) -> _Walker:
    depth = random.uniform()
    feet = scene.height * (HORIZON + 0.1 + depth * (1 - HORIZON - 0.12))
    high = min(max(12, round(scene.height * (0.22 + 0.4 * depth))), int(feet), 2 * scene.width, TALLEST)
    wide = max(6, high // 2)
    clothes = random.uniform(20, 230, (3, 3))
    grain = random.normal(0, 14, (high, wide, 1))
    postures = tuple(_posture(high, min(wide, scene.width), phase, clothes, grain) for phase in range(PHASES))
    return _Walker(
        postures=postures,
        top=int(feet) - high,
        start=random.uniform(0, 2 * scene.width),
        speed=high * random.uniform(0.3, 0.8),
        step_rate=random.uniform(0.8, 1.3),
    )


def _posture(
    high: int, wide: int, phase: int, clothes: np.ndarray, grain: np.ndarray
) -> tuple[Image, Image, tuple[int, int, int, int]]:
    """A figure of `high` pixels on a canvas `wide` pixels wide: head, torso, swinging arms and legs."""
    swing = np.sin(2 * np.pi * phase / PHASES)
    figure = np.zeros((high, wide, 3), np.float32)
    mask = np.zeros((high, wide), np.uint8)
    coat, trousers, skin = clothes[0], clothes[1], np.array([110.0, 140.0, 190.0]) + (clothes[2] - 125) * 0.3

    def at(x: float, y: float) -> tuple[int, int]:
        return round(wide / 2 + x * high), round(y * high)

    def limb(start: tuple[int, int], end: tuple[int, int], thickness: float, colour: np.ndarray) -> None:
        for canvas, value in ((figure, colour.tolist()), (mask, 255)):
            cv2.line(canvas, start, end, value, max(1, round(thickness * high)))

    for side in (-1, 1):
        limb(at(side * 0.03, 0.5), at(side * swing * 0.14, 0.96), 0.075, trousers)
        limb(at(side * 0.09, 0.22), at(side * 0.1 - side * swing * 0.08, 0.5), 0.05, coat * 0.8)
    for canvas, colour in ((figure, coat.tolist()), (mask, 255)):
        cv2.ellipse(canvas, at(0, 0.35), (max(1, round(0.1 * high)), max(1, round(0.2 * high))), 0, 0, 360, colour, -1)
    for canvas, colour in ((figure, skin.tolist()), (mask, 255)):
        cv2.circle(canvas, at(0, 0.085), max(1, round(0.065 * high)), colour, -1)
    box = cv2.boundingRect(mask)
    return np.clip(figure + grain[:, :wide], 0, 255).astype(np.uint8), mask, (box[0], box[1], box[2], box[3])
