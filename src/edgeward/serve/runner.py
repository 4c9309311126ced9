"""Models in memory: loading them from the weight store, running them on pictures.

runner = Runner(served_models, store, threads=1, provider="cpu")
runner.load("people")
[boxes] = runner.infer("people", [image], confidence=0.3)
runner.evict("people")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeward.serve.models import ServedModel
from edgeward.vision.conventions import convention
from edgeward.vision.frames import Image
from edgeward.vision.preprocess import prepare
from edgeward.vision.results import Result
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

__all__ = ["Runner"]


class Runner:
    """Sessions by model name. Load and infer may be called from different threads.

    Making it makes every model's skeleton, so that a later load has only weights to attach. Raises ModelError when the
    runtime refuses one.
    """

    def __init__(self, models: Mapping[str, ServedModel], store: WeightStore, threads: int) -> None:
        self._models = models
        self._sessions = {name: Session(model.packed, store, threads) for name, model in models.items()}

    def load(self, name: str) -> None:
        """Bring a model's weights into memory."""
        self._sessions[name].attach()

    def evict(self, name: str) -> None:
        """Let go of a model's weights; nothing happens when it is not loaded."""
        self._sessions[name].detach()

    def close(self) -> None:
        """Let go of all models."""
        for session in self._sessions.values():
            session.close()

    def infer(self, name: str, images: Sequence[Image], confidence: float) -> list[Result]:
        """One result per picture; boxes fainter than `confidence` are left out.

        Raises ModelError when the model is not loaded or answers in a shape it did not declare.
        """
        model = self._models[name]
        session = self._sessions[name]
        spec = model.card.preprocess
        batch = np.empty((len(images), *spec.shape), np.float32)
        placements = [prepare(image, spec, out=batch[row]) for row, image in enumerate(images)]
        outputs = session.run({model.packed.inputs[0].name: batch})
        return convention(model.card.convention).decode(outputs, placements, confidence)
