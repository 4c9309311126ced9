"""The loops that the box is measured against, and the box itself, on one recording.

Each function answers every frame of a video once and returns frames per second of wall time. All
use one compute thread and the same ONNX model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import onnxruntime as ort

from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Event, Inferred
from edgeward.serve.state import State
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import convention
from edgeward.vision.preprocess import prepare

WARM = 5
"""Answers that are not counted: they wait for the first load, which the bare loops make before they begin."""


@dataclass(frozen=True)
class Task:
    """A detector on a video. entry: the model as a box file gives it; onnx: its portable file."""

    video: Path
    onnx: Path
    card: ModelCard
    entry: str
    frames: int


def plain_session(path: Path) -> ort.InferenceSession:
    """ONNX Runtime as most people open it, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def decoded(task: Task) -> Iterator[np.ndarray]:
    """BGR pictures of the video, again from the start when it ends, `task.frames` of them."""
    left = task.frames
    while left:
        with av.open(str(task.video)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="bgr24")
                left -= 1
                if not left:
                    return


def bare_fps(task: Task) -> float:
    """Decode, run, decode boxes: no tracker, no store, no queue."""
    session = plain_session(task.onnx)
    name = session.get_inputs()[0].name
    family = convention(task.card.convention)
    spec = task.card.preprocess
    batch = np.empty((1, *spec.shape), np.float32)
    begin = time.perf_counter()
    for image in decoded(task):
        placement = prepare(image, spec, out=batch[0])
        family.decode(session.run(None, {name: batch}), [placement], 0.3)
    return task.frames / (time.perf_counter() - begin)


def supervision_fps(task: Task) -> float:
    """The loop a user would write: the same, with `supervision` detections and the `trackers` ByteTrack."""
    import supervision as sv
    from trackers import ByteTrackTracker

    session = plain_session(task.onnx)
    name = session.get_inputs()[0].name
    family = convention(task.card.convention)
    tracker = ByteTrackTracker(frame_rate=25)
    begin = time.perf_counter()
    for image in decoded(task):
        array, placement = _prepared(image, task)
        [found] = family.decode(session.run(None, {name: array}), [placement], 0.1)
        tracker.update(sv.Detections(xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id))
    return task.frames / (time.perf_counter() - begin)


def box_fps(task: Task, data: Path, page: bool = False) -> float:
    """The box with tracker and store on, every frame answered; with the page's live stream read when `page`."""
    config = parse_config(
        f"""
        cameras: [{{name: cam, source: "{task.video}", loop: true, rate: max, backpressure: every_frame}}]
        models: [{task.entry}]
        queries: [{{camera: cam, model: m, tracker: true, deadline: 10}}]
        budget: {{memory: 256 MiB, threads: 1}}
        web: {{enabled: {str(page).lower()}, port: 0}}
        data: "{data}"
        """,
        "benchmark",
    )
    box = Box(config)
    times: list[int] = []

    def count(event: Event, state: State) -> None:
        if isinstance(event, Inferred):
            times.extend([time.perf_counter_ns()] * len(event.jobs))
            if len(times) > task.frames + WARM:
                box.stop()

    box.observe(count)
    with _viewed(box) if page else _unwatched(), box:
        box.run(600)
    return task.frames / ((times[task.frames + WARM] - times[WARM]) / 1e9)


@contextmanager
def _unwatched() -> Iterator[None]:
    yield


@contextmanager
def _viewed(box: Box) -> Iterator[None]:
    """The page open in a headless browser."""
    from browser import open_page

    from edgeward.web.server import WebServer

    server = WebServer(box, port=0)
    server.start()
    try:
        with open_page(server.url):
            yield
    finally:
        server.stop()


def _prepared(image: np.ndarray, task: Task) -> tuple[np.ndarray, object]:
    spec = task.card.preprocess
    batch = np.empty((1, *spec.shape), np.float32)
    return batch, prepare(image, spec, out=batch[0])
