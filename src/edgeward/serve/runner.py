"""Models in memory: loading them, running them on pictures.

runner = Runner(served_models, threads=1)
runner.load("people")
[boxes] = runner.infer("people", [runner.prepare("people", image)], confidence=0.3)
runner.evict("people")
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edgeward.errors import HostError, ModelError
from edgeward.serve.beginnings import BegunEngine
from edgeward.serve.fused import FusedModel
from edgeward.serve.models import Engine, ServedModel
from edgeward.serve.portfolio import PortfolioEngine
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import convention
from edgeward.vision.frames import Image
from edgeward.vision.preprocess import Placement, prepare
from edgeward.vision.results import Detections, FloatArray, Result
from edgeward.vision.tiles import joined

__all__ = ["PartError", "Prepared", "Runner", "blaming"]


class PartError(ModelError):
    """Of a model made of several, one failed; part: its name. The cause is what went wrong."""

    def __init__(self, part: str, cause: BaseException) -> None:
        super().__init__(f"{part!r}: {type(cause).__name__}: {cause}")
        self.part = part


@contextmanager
def blaming(member: str, whole: str) -> Iterator[None]:
    """What goes wrong with a member of a model becomes a PartError, which names it; with a whole one it stays."""
    try:
        yield
    except Exception as error:
        if member == whole:
            raise
        raise PartError(member, error) from error


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model's input for one picture: pixels float32 [1, ...] as the model wants them, and where they came from.

    Of a model that looks at tiles, none yet: they take memory, and are made one after another when it runs. members:
    the inputs of the members of a fused model, of which the first one's is its own.
    """

    pixels: FloatArray
    placements: tuple[Placement, ...]
    image: Image
    members: tuple[Prepared, ...] = ()


class Runner:
    """Engines by model name. Load and infer may be called from different threads.

    Making it makes every model's skeleton, so that a later load has only weights to attach. Raises ModelError when the
    runtime refuses one.
    """

    def __init__(self, models: Mapping[str, ServedModel], threads: int) -> None:
        # OpenCV would resize on every core, beside the threads that the budget allows.
        cv2.setNumThreads(threads)
        self._models = models
        self._engines: dict[str, Engine] = {
            name: model.open(threads) for name, model in models.items() if not isinstance(model, FusedModel)
        }
        # A model is in memory for itself and for whatever it is a member of; the last one to go lets go of it.
        self._needed_by: dict[str, set[str]] = {name: set() for name in self._engines}
        self._lock = threading.Lock()
        # Tensors of evicted models that the next load shares, and which model that is.
        self._kept: object = None
        self._kept_for = ""

    def load(self, name: str, variant: str = "") -> None:
        """Bring a model's weights into memory; of a portfolio, those of the variant."""
        if variant:
            _variants(name, self._engines[name]).choose(variant)
        if name != self._kept_for:
            self._kept = None
        members = self._members(name)
        with self._lock:
            for member in members:
                self._needed_by[member].add(name)
        try:
            for member in members:
                with blaming(member, name):
                    self._engines[member].attach()
        except BaseException:
            self._release(name)
            raise
        finally:
            self._kept = None

    def switch(self, name: str, variant: str) -> None:
        """Have a loaded model answer with another variant; what is under way ends on the old one."""
        self._kept = None
        _variants(name, self._engines[name]).switch(variant)

    def evict(self, name: str, keep_for: str = "") -> None:
        """Let go of a model's weights; nothing happens when it is not loaded.

        keep_for: the model that is loaded next; what it shares stays in memory until then.
        """
        self._kept = [self._models[member].in_memory() for member in self._members(keep_for)] if keep_for else None
        self._kept_for = keep_for
        self._release(name)

    def close(self) -> None:
        """Let go of all models."""
        for engine in self._engines.values():
            engine.close()

    def rehearse(self, name: str) -> None:
        """Load, run and evict a model once on a grey picture: what is wrong with it, and what is slow about its first
        run, is met before any camera starts. Raises ModelError or StoreError."""
        engine = self._engines.get(name)
        for variant in engine.variants if isinstance(engine, PortfolioEngine) else ("",):
            try:
                self.load(name, variant)
                self.infer(name, [self.prepare(name, np.full((64, 64, 3), 128, np.uint8))], confidence=0.5)
            except (HostError, ModelError) as error:
                if isinstance(error, PartError) and not isinstance(error.__cause__, HostError | ModelError | None):
                    raise error.__cause__ from None  # of another kind, which is not to be told here
                what = f"model {name!r}, variant {variant!r}," if variant else f"model {name!r}"
                raise ModelError(f"{what} failed its first run: {error}") from error
            finally:
                self.evict(name)

    def prepare(self, name: str, image: Image) -> Prepared:
        """A picture as the model's input; from any thread, whether the model is loaded or not.

        Models that begin alike (see `edgeward.serve.beginnings`) know a picture again by its array: do not change it.
        """
        model = self._models[name]
        if isinstance(model, FusedModel):
            members = []
            for member in model.members:
                with blaming(member, name):
                    members.append(self.prepare(member, image))
            return replace(members[0], members=tuple(members))
        if model.card.tiles.count > 1:
            return Prepared(*_inputs((), model.card), image)
        pieces = self._pieces(name)

        def make() -> tuple[FloatArray, tuple[Placement, ...]]:
            return _inputs((image,), model.card)

        return Prepared(*(make() if pieces is None else pieces.prepared(image, make)), image)

    def begun(self, name: str, pictures: Sequence[Prepared]) -> bool:
        """Whether other models have done a part of the work for these pictures."""
        pieces = [self._pieces(member) for member in self._members(name)]
        return any(each.begun([picture.image for picture in pictures]) for each in pieces if each is not None)

    def infer(self, name: str, pictures: Sequence[Prepared], confidence: float) -> list[Result]:
        """One result per picture; boxes fainter than `confidence` are left out.

        Raises ModelError when the model is not loaded or answers in a shape it did not declare, PartError when that is
        one of several that answer together.
        """
        model = self._models[name]
        if isinstance(model, FusedModel):
            return self._infer_fused(model, pictures, confidence)
        if model.card.tiles.count > 1:
            return [self._infer_tiles(name, each.image, confidence) for each in pictures]
        batch = pictures[0].pixels if len(pictures) == 1 else np.concatenate([each.pixels for each in pictures])
        pieces = self._pieces(name)
        if pieces is None:
            outputs = self._engines[name].run(batch)
        else:
            outputs = pieces.run_on([each.image for each in pictures], batch)
        placements = [placement for picture in pictures for placement in picture.placements]
        return convention(model.card.convention).decode(outputs, placements, confidence)

    def _infer_tiles(self, name: str, image: Image, confidence: float) -> Detections:
        """What a model finds in the tiles of a picture, as many at once as it takes."""
        model, (height, width) = self._models[name], image.shape[:2]
        places, answers = model.card.tiles.places(width, height), list[Detections]()
        for start in range(0, len(places), model.max_batch):
            tiles = [image[top:bottom, left:right] for left, top, right, bottom in places[start:][: model.max_batch]]
            pixels, placements = _inputs(tiles, model.card)
            outputs = self._engines[name].run(pixels)
            found = convention(model.card.convention).decode(outputs, placements, confidence)
            answers += [boxes for boxes in found if isinstance(boxes, Detections)]
        return joined(answers, places, width, height)

    def _infer_fused(self, model: FusedModel, pictures: Sequence[Prepared], confidence: float) -> list[Result]:
        answers: list[list[Detections]] = [[] for _ in pictures]
        for place, (member, floor) in enumerate(zip(model.members, model.floors(confidence), strict=True)):
            with blaming(member, model.name):
                found = self.infer(member, [each.members[place] for each in pictures], floor)
            for answer, boxes in zip(answers, found, strict=True):
                assert isinstance(boxes, Detections), "only detectors are fused"
                answer.append(boxes)
        return [model.fused(each, confidence) for each in answers]

    def _members(self, name: str) -> tuple[str, ...]:
        """The models that have engines: its members, or itself."""
        model = self._models[name]
        return model.members if isinstance(model, FusedModel) else (name,)

    def _release(self, name: str) -> None:
        """Let go of the engines that nobody else needs."""
        with self._lock:
            for member in self._members(name):
                self._needed_by[member].discard(name)
                if not self._needed_by[member]:
                    self._engines[member].detach()

    def _pieces(self, name: str) -> BegunEngine | None:
        """The engine of a model that begins as others do."""
        engine = self._engines[name]
        return engine if isinstance(engine, BegunEngine) else None


def _inputs(images: Sequence[Image], card: ModelCard) -> tuple[FloatArray, tuple[Placement, ...]]:
    """Pictures as a model's input, and where each lies in its own."""
    pixels = np.empty((len(images), *card.preprocess.shape), np.float32)
    return pixels, tuple(prepare(image, card.preprocess, out=each) for image, each in zip(images, pixels, strict=True))


def _variants(name: str, engine: Engine) -> PortfolioEngine:
    if not isinstance(engine, PortfolioEngine):
        raise ModelError(f"model {name!r} has no variants; list a 'portfolio' in the box file")
    return engine
