"""Models that begin with the same computation, cut there: the common beginning is then run once for all of them.

    [beginning] = common_beginnings([cats, dogs], store)
    print([f"{ending.share:.0%}" for ending in beginning.endings])    # of each model's work
    session = BegunSession(beginning, 0, store)

Mainstream (Jiang et al., USENIX ATC 2018) shares the frozen stem of models that were trained on one; here the common
part is found by the content of graphs and weights, however the models came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edgeward.errors import ModelError
from edgeward.weights.begun import Beginning, BegunSession, Ending
from edgeward.weights.pack import PackedModel, example, machine, present, same_answers
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore, write_atomically

if TYPE_CHECKING:
    from edgeward.weights.skeleton import Rest, Skeleton

__all__ = ["common_beginnings"]

VERSION = 1
LEAST_SHARE = 0.1
"""Of a model's multiply-adds; below, running it in two pieces would cost about what is saved."""
MOST_TOGETHER = 10
"""Models with one kind of input among which the best groups are sought exactly; more are taken ten at a time."""

_MANIFEST = TypeAdapter(tuple[Beginning, ...])


def common_beginnings(models: Sequence[PackedModel], store: WeightStore) -> tuple[Beginning, ...]:
    """The groups of models to begin together, such that most multiply-adds are saved when all look at one picture.

    A model is in one group at most; those that begin like no other, or share less than a tenth of their work, are in
    none. A pair of pieces must answer as the whole model does on a seeded input. The result is kept in the store, and
    read from there the next time. Raises StoreError when the disk refuses.
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, model in enumerate(models):
        if model.provider == "cpu" and model.tensors and [port.type for port in model.inputs] == ["tensor(float)"]:
            kind = tuple(size if isinstance(size, int) else None for size in model.inputs[0].shape)
            kinds.setdefault(kind, []).append(place)
    groups = [places for places in kinds.values() if _overlap([models[place] for place in places])]
    if not groups:
        return ()
    content = " ".join(f"{place}:{models[place].graph.name}" for places in groups for place in places)
    key = hashlib.sha256(f"prefix {VERSION} {content} {machine()}".encode()).hexdigest()[:32]
    manifest = store.folder / f"{key}.json"
    try:
        known = _MANIFEST.validate_json(manifest.read_bytes())
        if all(_whole(each, store) for each in known):
            return known
    except (OSError, ValidationError):
        pass
    found = tuple(each for places in groups for each in _sought(models, places, store))
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


def _sought(models: Sequence[PackedModel], places: Sequence[int], store: WeightStore) -> list[Beginning]:
    from edgeward.weights.skeleton import Skeleton

    skeletons = {}
    for place in places:
        try:
            skeleton = Skeleton(models[place], store)
            if skeleton.computed:
                skeletons[place] = skeleton
        except ModelError:  # it refuses the seeded input: it stays whole
            continue
    known = list(skeletons)
    chunks = [tuple(known[start : start + MOST_TOGETHER]) for start in range(0, len(known), MOST_TOGETHER)]
    groups = [group for chunk in chunks for group in _best(skeletons, chunk)]
    found = [_cut(skeletons, group) for group in groups]
    return [each for each in found if all(_answers_alike(each, place, models, store) for place in each.members)]


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


def _best(skeletons: Mapping[int, Skeleton], places: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The division of models into groups that saves most; only groups worth cutting."""

    @cache
    def saved(group: tuple[int, ...]) -> int:
        return _Group.of([skeletons[place] for place in group]).saved

    @cache
    def best(rest: tuple[int, ...]) -> tuple[int, list[tuple[int, ...]]]:
        if not rest:
            return 0, []
        first, others = rest[0], rest[1:]
        options = [best(others)]
        for picked in range(1, 1 << len(others)):
            group = (first, *(place for bit, place in enumerate(others) if picked >> bit & 1))
            if saved(group) > 0:
                worth, groups = best(tuple(place for place in others if place not in group))
                options.append((worth + saved(group), [group, *groups]))
        return max(options, key=lambda option: option[0])

    return best(places)[1]


def _cut(skeletons: Mapping[int, Skeleton], places: tuple[int, ...]) -> Beginning:
    group = _Group.of([skeletons[place] for place in places])
    prefix = group.members[0].piece(group.prefix, list(group.names.values()))
    ports = {port.name: port for port in prefix.outputs}
    endings = []
    for each, rest, share in zip(group.members, group.rests, group.shares, strict=True):
        given = {name: group.names[each.digests[name]] for name in rest.given}
        outputs = tuple(port.name for port in each.packed.outputs)
        made = [name for name in outputs if name not in given]
        entering = [replace(ports[origin], name=name) for name, origin in given.items()]
        endings.append(Ending(each.piece(rest, made, entering) if made else None, given, outputs, share))
    return Beginning(prefix, places, tuple(endings))


def _answers_alike(beginning: Beginning, place: int, models: Sequence[PackedModel], store: WeightStore) -> bool:
    """Whether the pieces answer as the whole does, also for pictures whose beginnings come from different batches."""
    packed = models[place]
    [port] = packed.inputs
    batch = example(port, np.random.default_rng(1), batch=2)
    pieces = None
    try:
        with Session(packed, store) as whole:
            expected = whole.run({port.name: batch})
        pieces = BegunSession(beginning, beginning.members.index(place), store)
        pieces.attach()
        alone, turned = pieces.begin(batch[:1]), pieces.begin(np.ascontiguousarray(batch[::-1]))
        rows = [np.concatenate([one, two[: len(batch) - 1]]) for one, two in zip(alone, turned, strict=True)]
        outputs = pieces.finish(rows, batch)
    except ModelError:
        return False
    finally:
        if pieces is not None:
            pieces.close()
    return same_answers(outputs, expected)
