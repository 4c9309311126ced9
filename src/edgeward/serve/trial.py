"""Models run on pictures one by one, as a box would run them: how long they take and what they find.

    trials, taken = tried(models, pictures, conditions)
    print(trials["nano"].median, trials["nano"].load_seconds, trials["nano"].boxes[0])

Pictures come in batches; every model is loaded, run over the batch and evicted before the next one's turn. So the runs
of all models are interleaved over the whole time, each load is timed many times, and memory holds one model at once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from edgeward.errors import EdgewardError, ModelError
from edgeward.serve.models import ServedModel
from edgeward.serve.runner import Runner
from edgeward.serve.sampling import Picture
from edgeward.vision.frames import Image
from edgeward.vision.labels import relabelled
from edgeward.vision.results import Detections, FloatArray
from edgeward.vision.truth import TruthFrame

__all__ = ["Conditions", "Progress", "Trial", "shares", "tried"]

BATCH, TIMED = 10, 3
"""Pictures that are held at once, and how many of them a model is timed on."""
FAINTEST = 0.05
"""Least score of the boxes that are kept: what scores are worth is told from the wrong ones, too. Reading that many
takes time, so that models are timed without."""
Progress = Callable[[int, int, str], None]
"""Told (done, total, what) as work goes on; a total of 0 is not known."""


@dataclass(frozen=True)
class Conditions:
    """Under which models run.

    labels: class names of the ladder; other boxes are left out. threads: of the runtime. confidence: least score of a
    box while models are timed. mirror: whether the slowest model, or that of the name `reference`, sees every picture
    mirrored, too. expected: number of pictures, when it is known.
    """

    labels: tuple[str, ...]
    threads: int
    confidence: float
    mirror: bool = False
    reference: str | None = None
    expected: int = 0
    progress: Progress = lambda done, total, what: None


@dataclass
class Trial:
    """What was measured of one model: seconds of each run, of each load with what a first run takes longer, and its
    boxes on each picture in shares of the frame; mirrored: the same as found on mirrored pictures, turned back."""

    seconds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    boxes: list[Detections] = field(default_factory=list)
    mirrored: list[Detections] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of a run: preparing the picture, the network, reading its outputs."""
        return median(self.seconds)

    @property
    def load_seconds(self) -> float:
        """Seconds until it can answer when it is not in memory."""
        return median(self.loads)


def tried(
    models: Mapping[str, ServedModel], pictures: Iterable[Picture], conditions: Conditions
) -> tuple[dict[str, Trial], list[Picture]]:
    """One trial for each model, and the pictures that all saw, without their pixels, truth in shares of the frame.

    Raises ModelError, naming the model, when one fails.
    """
    runner = Runner(models, conditions.threads)
    trials = {name: Trial() for name in models}
    taken: list[Picture] = []
    total = conditions.expected * len(models)
    try:
        for name in models:
            conditions.progress(0, 0, f"trying {name}")
            runner.rehearse(name)
        for batch in _batches(pictures):
            for place, (name, trial) in enumerate(trials.items()):
                conditions.progress(len(taken) * len(models) + place * len(batch), total, name)
                _try(runner, name, [picture.image for picture in batch], conditions, trial)
            if conditions.mirror:
                reference = conditions.reference or max(trials, key=lambda name: trials[name].median)
                conditions = replace(conditions, reference=reference)
                mirrored = Trial()
                _try(runner, reference, [_mirrored(picture.image) for picture in batch], conditions, mirrored)
                trials[reference].mirrored += [_turned(boxes) for boxes in mirrored.boxes]
            taken += [_noted(picture) for picture in batch]
    finally:
        runner.close()
    for name, trial in trials.items():
        trial.boxes = [relabelled(boxes, models[name].card.labels, conditions.labels) for boxes in trial.boxes]
        trial.mirrored = [relabelled(boxes, models[name].card.labels, conditions.labels) for boxes in trial.mirrored]
    return trials, taken


def _try(runner: Runner, name: str, images: Sequence[Image], conditions: Conditions, trial: Trial) -> None:
    """Load a model, time it, run it on each picture, and evict it."""
    times = []
    try:
        began = time.perf_counter()
        runner.load(name)
        _boxes(runner, name, images[0], conditions.confidence)
        ready = time.perf_counter() - began
        for image in images[:TIMED]:
            began = time.perf_counter()
            _boxes(runner, name, image, conditions.confidence)
            times.append(time.perf_counter() - began)
        for image in images:
            trial.boxes.append(shares(_boxes(runner, name, image, FAINTEST), *image.shape[1::-1]))
    except EdgewardError as error:
        raise ModelError(f"model {name!r} failed: {error}; mend it or take it off the ladder") from error
    finally:
        runner.evict(name)
    trial.seconds += times
    trial.loads.append(max(ready - median(times), 0.0))


def _boxes(runner: Runner, name: str, image: Image, confidence: float) -> Detections:
    [boxes] = runner.infer(name, [runner.prepare(name, image)], confidence)
    assert isinstance(boxes, Detections), "only detectors are tried"
    return boxes


def shares(boxes: Detections, width: int, height: int) -> Detections:
    """Boxes in shares of a frame of this size."""
    return replace(boxes, xyxy=_scaled(boxes.xyxy, width, height))


def _scaled(xyxy: FloatArray, width: int, height: int) -> FloatArray:
    return np.asarray(xyxy / np.array([width, height, width, height]), np.float32)


def _noted(picture: Picture) -> Picture:
    truth = picture.truth
    if truth is not None:
        scaled = _scaled(truth.xyxy, *picture.image.shape[1::-1])
        truth = TruthFrame(scaled, truth.tracker_id, truth.class_id, truth.ignored)
    return Picture(picture.image[:0, :0], picture.video, picture.index, truth)


def _mirrored(image: Image) -> Image:
    return np.ascontiguousarray(image[:, ::-1])


def _turned(boxes: Detections) -> Detections:
    """Boxes of a mirrored picture as they lie in the picture itself."""
    x1, y1, x2, y2 = boxes.xyxy.T
    return replace(boxes, xyxy=np.stack([1 - x2, y1, 1 - x1, y2], axis=1))


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    rest = iter(pictures)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch
