"""Models in memory: loading them from the weight store, running them on pictures.

runner = Runner(served_models, store, threads=1, provider="cpu")
runner.load("people")
[boxes] = runner.infer("people", [image], confidence=0.3)
runner.evict("people")
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from edgeward.errors import ModelError
from edgeward.serve.models import ServedModel
from edgeward.vision.conventions import convention
from edgeward.vision.frames import Image
from edgeward.vision.preprocess import prepare
from edgeward.vision.results import Result
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

__all__ = ["Runner"]


class Runner:
    """Sessions by model name. Load and infer may be called from different threads."""

    def __init__(self, models: Mapping[str, ServedModel], store: WeightStore, threads: int) -> None:
        self._models = models
        self._store = store
        self._threads = threads
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        """Bring a model into memory, ready to run. Its skeleton is made the first time and kept."""
        with self._lock:
            session = self._sessions.get(name)
        if session is None:
            session = Session(self._models[name].packed, self._store, threads=self._threads)
            with self._lock:
                self._sessions[name] = session
        session.attach()

    def evict(self, name: str) -> None:
        """Let go of a model's weights; nothing happens when it is not loaded."""
        with self._lock:
            session = self._sessions.get(name)
        if session is not None:
            session.detach()

    def close(self) -> None:
        """Let go of all models."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def infer(self, name: str, images: Sequence[Image], confidence: float) -> list[Result]:
        """One result per picture; boxes fainter than `confidence` are left out.

        Raises ModelError when the model is not loaded or answers in a shape it did not declare.
        """
        model = self._models[name]
        with self._lock:
            session = self._sessions.get(name)
        if session is None or not session.attached:
            raise ModelError(f"model {name!r} is not in memory")
        spec = model.card.preprocess
        shape = (3, spec.height, spec.width) if spec.layout == "nchw" else (spec.height, spec.width, 3)
        batch = np.empty((len(images), *shape), np.float32)
        placements = [prepare(image, spec, out=batch[row]) for row, image in enumerate(images)]
        outputs = session.run({model.packed.inputs[0].name: batch})
        return convention(model.card.convention).decode(outputs, placements, confidence)
