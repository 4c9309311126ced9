"""Models of a box that begin alike: what they have in common is computed once for each picture.

    models = begin_together(models, note=print)      # 'cats' and 'dogs' begin alike: ...
    engine = models["cats"].open(threads=1)
    engine.run_on(images, pixels)                    # computes the beginning where 'dogs' did not yet

A picture is known by the array that holds it, so that it must not be changed in place. What was computed for it is
let go with it, or before when there is no room.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeward.errors import StoreError
from edgeward.serve.models import ServedModel, StoredModel
from edgeward.vision.frames import Image
from edgeward.vision.results import FloatArray
from edgeward.weights.begun import Beginning, BegunSession
from edgeward.weights.prefix import common_beginnings

__all__ = ["BegunEngine", "BegunModel", "ByPicture", "begin_together"]

T = TypeVar("T")

ROOM = 64 << 20
"""Bytes that a box keeps at most of inputs and of values where beginnings end."""


class ByPicture:
    """What was made of pictures that are still in memory, at most `room` bytes of it. Safe for many threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[int, str], tuple[weakref.ref[Image], Any, int]] = OrderedDict()

    def get(self, image: Image, key: str) -> Any:
        """What was put for this picture, None when nothing is there."""
        with self._lock:
            found = self._made.get((id(image), key))
            # An array may lie where another, that is no more, has lain.
            return found[1] if found is not None and found[0]() is image else None

    def put(self, image: Image, key: str, made: Any, nbytes: int) -> None:
        """Keep something, which must not hold the picture itself; what is left of pictures that are gone makes room."""
        with self._lock:
            self._made[id(image), key] = (weakref.ref(image), made, nbytes)
            self._made.move_to_end((id(image), key))
            for place in [place for place, each in self._made.items() if each[0]() is None]:
                del self._made[place]
            while self._held() > self._room:
                self._made.popitem(last=False)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._made.clear()

    @property
    def nbytes(self) -> int:
        """What is kept now, also of pictures that are gone since the last `put`."""
        with self._lock:
            return self._held()

    def _held(self) -> int:
        return sum(nbytes for _, _, nbytes in self._made.values())


@dataclass(frozen=True)
class BegunModel(StoredModel):
    """A model of this process that begins as others do. place: among the members of `beginning`."""

    beginning: Beginning = field(repr=False)
    place: int
    made: ByPicture = field(repr=False, compare=False)

    def open(self, threads: int) -> BegunEngine:
        return BegunEngine(BegunSession(self.beginning, self.place, self.store, threads), self)


class BegunEngine:
    """An engine in two pieces, the first of which is run once for each picture, whoever of the models asks first.

    Every engine has sessions of its own on the same skeletons and weights, so that loading or evicting one leaves the
    others as they are.
    """

    def __init__(self, session: BegunSession, model: BegunModel) -> None:
        self._session = session
        self._made = model.made
        self._key = model.beginning.prefix.graph.name

    def attach(self) -> None:
        self._session.attach()

    def run(self, batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        return self._session.finish(self._session.begin(batch), batch)

    def run_on(self, images: Sequence[Image], batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        """As `run`, for inputs made of these pictures."""
        known = [self._made.get(image, self._key) for image in images]
        missing = [row for row, values in enumerate(known) if values is None]
        if missing:
            begun = self._session.begin(batch if len(missing) == len(images) else batch[missing])
            for place, row in enumerate(missing):
                # A view of one row would keep the whole batch in memory.
                values = begun if len(missing) == 1 else [each[place : place + 1].copy() for each in begun]
                known[row] = values
                self._made.put(images[row], self._key, values, sum(each.nbytes for each in values))
            if len(missing) == len(images):
                return self._session.finish(begun, batch)
        joined = known[0] if len(known) == 1 else [np.concatenate(rows) for rows in zip(*known, strict=True)]
        return self._session.finish(joined, batch)

    def prepared(self, image: Image, make: Callable[[], tuple[FloatArray, T]]) -> tuple[FloatArray, T]:
        """The input made of a picture and what belongs to it, made once for all models that begin alike."""
        key = f"input of {self._key}"
        found: tuple[FloatArray, T] | None = self._made.get(image, key)
        if found is None:
            found = make()
            self._made.put(image, key, found, found[0].nbytes)
        return found

    def detach(self) -> None:
        self._session.detach()

    def close(self) -> None:
        self._made.clear()
        self._session.close()


def begin_together(
    models: Mapping[str, ServedModel], note: Callable[[str], None] = lambda text: None
) -> dict[str, ServedModel]:
    """The models, those that begin alike made to share that; `note` is told which, in words.

    Looked for among models of this process that are fed alike: equal preprocessing and batches.
    """
    found, made = dict(models), ByPicture()
    kinds: dict[tuple[str, int], list[StoredModel]] = {}
    for model in models.values():
        if isinstance(model, StoredModel):
            kinds.setdefault((model.card.preprocess.model_dump_json(), id(model.store)), []).append(model)
    for group in kinds.values():
        try:
            beginnings = common_beginnings([each.packed for each in group], group[0].store)
        except StoreError as error:  # the box can do without
            note(f"what models have in common is not looked for: {error}")
            continue
        for beginning in beginnings:
            members = [group[place] for place in beginning.members]
            note(_told(members, beginning))
            for place, each in enumerate(members):
                found[each.name] = BegunModel(
                    each.name, each.card, each.max_batch, each.tensors, each.packed, each.store, beginning, place, made
                )
    return found


def _told(members: Sequence[StoredModel], beginning: Beginning) -> str:
    names = _and([repr(each.name) for each in members])
    shares = _and([f"{int(100 * ending.share)} %" for ending in beginning.endings])
    return f"{names} begin alike: {shares} of their work is done once for each frame"


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
