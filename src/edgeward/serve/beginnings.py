"""Models of a box that begin alike: what they have in common is computed once for each picture.

    models = begin_together(models, cameras, note=print)     # 'cats' and 'dogs' begin alike: ...
    engine = models["cats"].open(threads=1)
    engine.run_on(images, pixels)                            # computes the beginning where 'dogs' did not yet

A picture is known by the array that holds it, so that it must not be changed in place. What was computed for it is
let go with it, or before when there is no room.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeward.errors import EdgewardError
from edgeward.serve.models import ServedModel, StoredModel
from edgeward.vision.frames import Image
from edgeward.vision.results import FloatArray
from edgeward.weights.begun import Beginning, BegunSession
from edgeward.weights.prefix import common_beginnings

__all__ = ["BegunEngine", "BegunModel", "ByPicture", "begin_together"]

T = TypeVar("T")
Place = tuple[int, str]

logger = logging.getLogger(__name__)

ROOM = 64 << 20
"""Bytes that a box keeps at most of inputs and of values where beginnings end."""


@dataclass(frozen=True, eq=False)
class _Kept:
    image: weakref.ref[Image]
    made: Any
    nbytes: int
    spare: bool


class ByPicture:
    """What was made of pictures that are still in memory, at most `room` bytes of it. Safe for many threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._made: OrderedDict[Place, _Kept] = OrderedDict()
        self._gone: deque[Place] = deque()

    def get(self, image: Image, key: str) -> Any:
        """What was put for this picture, None when nothing is there."""
        with self._lock:
            found = self._made.get((id(image), key))
            # An array may lie where another, that is no more, has lain.
            if found is None or found.image() is not image:
                return None
            self._made.move_to_end((id(image), key))
            return found.made

    def put(self, image: Image, key: str, made: Any, nbytes: int, *, spare: bool = False) -> None:
        """Keep something, which must not hold the picture itself, until the picture is gone or room is needed.

        spare: it is given up before all else. What was asked for last is given up last.
        """
        place = (id(image), key)
        with self._lock:
            self._drop()
            self._made.pop(place, None)
            if nbytes > self._room:
                return
            self._made[place] = _Kept(weakref.ref(image, lambda _: self._went(place)), made, nbytes, spare)
            while self._held() > self._room:
                first = next(iter(self._made))
                del self._made[next((other for other, each in self._made.items() if each.spare), first)]

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._made.clear()

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        with self._lock:
            self._drop()
            return self._held()

    def _held(self) -> int:
        return sum(each.nbytes for each in self._made.values())

    def _went(self, place: Place) -> None:
        """A picture is gone. Called wherever its last user is, also amid the work here, which then goes on first."""
        self._gone.append(place)
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        while self._gone:
            place = self._gone.popleft()
            found = self._made.get(place)
            if found is not None and found.image() is None:  # else it is of another picture by now
                del self._made[place]


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
        # The same beginning gives other values for another input.
        self._key = f"{model.beginning.prefix.graph.name} {model.card.preprocess.model_dump_json()}"

    def attach(self) -> None:
        self._session.attach()

    def run(self, batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        return self._session.finish(self._session.begin(batch), batch)

    def begun(self, images: Sequence[Image]) -> bool:
        """Whether a part of the work for these pictures is done already."""
        return any(self._made.get(image, self._key) is not None for image in images)

    def run_on(self, images: Sequence[Image], batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        """As `run`, for inputs made of these pictures."""
        known = [self._made.get(image, self._key) for image in images]
        missing = [row for row, values in enumerate(known) if values is None]
        if missing:
            begun = self._session.begin(batch if len(missing) == len(images) else batch[missing])
            for place, row in enumerate(missing):
                # A view of one row would keep the whole batch in memory.
                values = begun if len(missing) == 1 else [each[place : place + 1].copy() for each in begun]
                for each in values:
                    each.flags.writeable = False
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
            found[0].flags.writeable = False
            self._made.put(image, key, found, found[0].nbytes, spare=True)
        return found

    def detach(self) -> None:
        self._session.detach()

    def close(self) -> None:
        self._made.clear()
        self._session.close()


def begin_together(
    models: Mapping[str, ServedModel],
    cameras: Mapping[str, Collection[str]] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, ServedModel]:
    """The models, those that begin alike made to share that; `note` is told which, in words.

    cameras: of each model, those whose frames it may look at; any when absent. Looked for among models of this process
    that have a camera in common and are fed alike: equal preprocessing and batches. Where that fails they stay as
    they are.
    """
    found, made, failures = dict(models), ByPicture(), set[str]()
    kinds: dict[tuple[str, int], list[StoredModel]] = {}
    for model in models.values():
        if isinstance(model, StoredModel) and model.card.tiles.count == 1:  # what is kept is of whole pictures
            kinds.setdefault((model.card.preprocess.model_dump_json(), id(model.store)), []).append(model)
    for group in kinds.values():
        looks = None if cameras is None else [cameras.get(each.name, ()) for each in group]
        try:
            beginnings = common_beginnings([each.packed for each in group], group[0].store, looks)
        except Exception as error:  # the box can do without, whatever a library raises
            if not isinstance(error, EdgewardError):
                logger.exception("common beginnings could not be looked for")
            failures.add(f"{type(error).__name__}: {error}")
            continue
        for beginning in beginnings:
            members = [group[place] for place in beginning.members]
            note(_told(members, beginning))
            for place, each in enumerate(members):
                found[each.name] = BegunModel(
                    each.name, each.card, each.max_batch, each.tensors, each.packed, each.store, beginning, place, made
                )
    if failures:
        note(f"what models have in common is not looked for, they stay whole: {'; '.join(sorted(failures))}")
    return found


def _told(members: Sequence[StoredModel], beginning: Beginning) -> str:
    names = _and([repr(each.name) for each in members])
    shares = _and([f"{int(100 * ending.share)} %" for ending in beginning.endings])
    return f"{names} begin alike: {shares} of their work is done once for each frame"


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
