"""Models that begin with the same computation, cut there: the common beginning is then run once for all of them.

    [beginning] = common_beginnings([cats, dogs], store)
    print([f"{ending.share:.0%}" for ending in beginning.endings])    # of each model's work
    session = BegunSession(beginning, 0, store)

Mainstream (Jiang et al., USENIX ATC 2018) shares the frozen stem of models that were trained on one; here the common
part is found by the content of graphs and weights, however the models came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edgeward.errors import ModelError, StoreError
from edgeward.weights.begun import Beginning, BegunSession, Ending
from edgeward.weights.pack import PackedModel, example, machine, present, same_answers
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore, write_atomically

if TYPE_CHECKING:
    from edgeward.weights.skeleton import Rest, Skeleton

__all__ = ["common_beginnings"]

VERSION = 2
LEAST_SHARE = 0.1
"""Of a model's multiply-adds; below, running it in two pieces would cost about what is saved."""
MOST_TOGETHER = 10
"""Models that have something in common among which the best groups are sought exactly; of more, ten at a time."""
SCALES = (1, 255)
"""Pieces are compared with the whole on inputs from 0 to each of these."""

_MANIFEST = TypeAdapter(tuple[Beginning, ...])

Worth = Callable[[tuple[int, ...]], int]


def common_beginnings(
    models: Sequence[PackedModel], store: WeightStore, looks: Sequence[Collection[str]] | None = None
) -> tuple[Beginning, ...]:
    """The groups of models to begin together, such that most multiply-adds are saved when all look at one picture.

    looks: of each model, names of what it may look at; all models of a group must have one in common. Any when absent.

    A model is in one group at most; those that begin like no other, or share less than a tenth of their work, are in
    none. A pair of pieces must answer as the whole model does on seeded inputs. The result is kept in the store, and
    read from there the next time, unless a model failed: that may pass. Raises StoreError when the disk refuses.
    """
    at = [frozenset(each) for each in (looks if looks is not None else [("",)] * len(models))]
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, model in enumerate(models):
        fit = model.provider == "cpu" and [port.type for port in model.inputs] == ["tensor(float)"]
        if fit and model.tensors and at[place]:
            kind = tuple(size if isinstance(size, int) else None for size in model.inputs[0].shape)
            kinds.setdefault(kind, []).append(place)
    groups = [places for places in kinds.values() if _overlap([models[place] for place in places])]
    if not groups:
        return ()
    content = " ".join(
        f"{place}:{models[place].graph.name}:{sorted(at[place])}" for places in groups for place in places
    )
    key = hashlib.sha256(f"prefix {VERSION} {content} {machine()}".encode()).hexdigest()[:32]
    manifest = store.folder / f"{key}.json"
    try:
        known = _MANIFEST.validate_json(manifest.read_bytes())
        if all(_whole(each, store) for each in known):
            return known
    except (OSError, ValidationError):
        pass
    failures: list[ModelError] = []
    try:
        found = tuple(
            each
            for places in groups
            for each in _sought({place: models[place] for place in places}, at, store, failures)
        )
    except OSError as error:
        raise StoreError(f"cannot write into {store.folder}: {error.strerror}; make room or choose another") from error
    if not failures:
        write_atomically(manifest, [_MANIFEST.dump_json(found)])
    return found


def _overlap(models: Sequence[PackedModel]) -> bool:
    """Whether any weight is in two models: a look into the graphs, and the library that reads them, is spared else."""
    digests = [set(model.tensor_bytes) for model in models]
    return len(set().union(*digests)) < sum(map(len, digests))


def _whole(beginning: Beginning, store: WeightStore) -> bool:
    """Whether all pieces are there as they were written: a graph's name is its content's. OSError when one is not."""
    pieces = [beginning.prefix, *(each.suffix for each in beginning.endings if each.suffix is not None)]
    return all(
        present(each, store) and each.graph.stem == hashlib.sha256(each.graph.read_bytes()).hexdigest()[:32]
        for each in pieces
    )


def _sought(
    models: Mapping[int, PackedModel],
    looks: Sequence[frozenset[str]],
    store: WeightStore,
    failures: list[ModelError],
) -> Iterator[Beginning]:
    """The best groups of models with one kind of input; `failures` is told what could not be run, and stays whole."""
    from edgeward.weights.skeleton import Skeleton

    skeletons = {}
    for place, model in models.items():
        try:
            skeleton = Skeleton(model, store)
            if skeleton.computed:
                skeletons[place] = skeleton
        except ModelError as error:
            failures.append(error)

    @cache
    def worth(group: tuple[int, ...]) -> int:
        if not frozenset.intersection(*(looks[place] for place in group)):
            return 0
        return _Group.of([skeletons[place] for place in group]).saved

    for near in _near(tuple(skeletons), worth):
        for group in _best(near, worth):
            while len(group) > 1 and worth(group) > 0:
                beginning = _cut(skeletons, group, failures)
                if beginning is None:
                    break
                alike = tuple(
                    each for each in beginning.members if _answers_alike(beginning, each, skeletons, failures)
                )
                if alike == group:
                    yield beginning
                    break
                group = alike  # without those that failed, others may have more in common


def _near(places: tuple[int, ...], worth: Worth) -> Iterator[tuple[int, ...]]:
    """The models divided into sets to be looked at apart: what is worth cutting for a group is so for each two of it.

    More than can be looked at together are taken by how much they save with the first of them.
    """
    left = list(places)
    while left:
        near, waiting = [left[0]], [left.pop(0)]
        while waiting:
            one = waiting.pop()
            beside = [place for place in left if worth((min(one, place), max(one, place))) > 0]
            left = [place for place in left if place not in beside]
            near += beside
            waiting += beside
        first, *others = near
        others.sort(key=lambda place: -worth((first, place)))
        yield tuple(sorted((first, *others[: MOST_TOGETHER - 1])))
        left = sorted((*left, *others[MOST_TOGETHER - 1 :]))


@dataclass(frozen=True)
class _Group:
    """Models begun together. rests: what is left of each; names: of the values that cross, in the first model."""

    members: tuple[Skeleton, ...]
    rests: tuple[Rest, ...]
    names: Mapping[str, str]

    @classmethod
    def of(cls, members: Sequence[Skeleton]) -> Self:
        common = frozenset.intersection(*(each.computed for each in members))
        rests = tuple(each.after(common) for each in members)
        given = {each.digests[name] for each, rest in zip(members, rests, strict=True) for name in rest.given}
        return cls(tuple(members), rests, members[0].named(given))

    @property
    def prefix(self) -> Rest:
        return self.members[0].before(self.names.values())

    @property
    def shares(self) -> list[float]:
        """Of each model's operations, done in the beginning."""
        return [1 - each.work(rest) / each.work() for each, rest in zip(self.members, self.rests, strict=True)]

    @property
    def saved(self) -> int:
        """Operations; 0 when it is not worth its while for each of the models."""
        if min(self.shares) < LEAST_SHARE:
            return 0
        apart = sum(each.work() - each.work(rest) for each, rest in zip(self.members, self.rests, strict=True))
        return apart - self.members[0].work(self.prefix)


def _best(places: tuple[int, ...], worth: Worth) -> list[tuple[int, ...]]:
    """The division of models into groups that saves most; only groups worth cutting."""

    @cache
    def best(rest: tuple[int, ...]) -> tuple[int, list[tuple[int, ...]]]:
        if not rest:
            return 0, []
        first, others = rest[0], rest[1:]
        options = [best(others)]
        for picked in range(1, 1 << len(others)):
            group = (first, *(place for bit, place in enumerate(others) if picked >> bit & 1))
            if worth(group) > 0:
                saved, groups = best(tuple(place for place in others if place not in group))
                options.append((saved + worth(group), [group, *groups]))
        return max(options, key=lambda option: option[0])

    return best(places)[1]


def _cut(skeletons: Mapping[int, Skeleton], places: tuple[int, ...], failures: list[ModelError]) -> Beginning | None:
    """The pieces, without models whose own could not be made; None when the beginning could not, or is not the same
    for a picture alone and among others."""
    group = _Group.of([skeletons[place] for place in places])
    try:
        prefix = group.members[0].piece(group.prefix, list(group.names.values()))
        if not _rows_alike(prefix, group.members[0].store):
            return None
    except ModelError as error:
        failures.append(error)
        return None
    ports = {port.name: port for port in prefix.outputs}
    endings = {}
    for place, each, rest, share in zip(places, group.members, group.rests, group.shares, strict=True):
        given = {name: group.names[each.digests[name]] for name in rest.given}
        outputs = tuple(port.name for port in each.packed.outputs)
        made = [name for name in outputs if name not in given]
        entering = [replace(ports[origin], name=name) for name, origin in given.items()]
        try:
            endings[place] = Ending(each.piece(rest, made, entering) if made else None, given, outputs, share)
        except ModelError as error:
            failures.append(error)
    return Beginning(prefix, tuple(endings), tuple(endings.values()))


def _rows_alike(prefix: PackedModel, store: WeightStore) -> bool:
    """Whether what crosses the cut is the same for a picture alone and among others. Raises ModelError."""
    [port] = prefix.inputs
    with Session(prefix, store) as session:
        for scale in SCALES:
            batch = example(port, np.random.default_rng(1), batch=3) * np.float32(scale)
            together = session.run({port.name: batch})
            for row in range(len(batch)):
                alone = session.run({port.name: batch[row : row + 1]})
                if not same_answers([each[row : row + 1] for each in together], alone):
                    return False
    return True


def _answers_alike(
    beginning: Beginning, place: int, skeletons: Mapping[int, Skeleton], failures: list[ModelError]
) -> bool:
    """Whether the pieces answer as the whole does, also for pictures whose beginnings come from different batches."""
    packed, store = skeletons[place].packed, skeletons[place].store
    [port] = packed.inputs
    pieces = None
    try:
        pieces = BegunSession(beginning, beginning.members.index(place), store)
        pieces.attach()
        with Session(packed, store) as whole:
            for scale in SCALES:
                batch = example(port, np.random.default_rng(1), batch=2) * np.float32(scale)
                alone, turned = pieces.begin(batch[:1]), pieces.begin(np.ascontiguousarray(batch[::-1]))
                rows = [np.concatenate([one, two[: len(batch) - 1]]) for one, two in zip(alone, turned, strict=True)]
                if not same_answers(pieces.finish(rows, batch), whole.run({port.name: batch})):
                    return False
    except ModelError as error:
        failures.append(error)
        return False
    finally:
        if pieces is not None:
            pieces.close()
    return True
