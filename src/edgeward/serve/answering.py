"""Who may answer each query: its model, that and the original it is guarded by, or the models of its ladder.

models = with_variants(config, resolved)
asked = answering(config, models, device_name("cpu", threads=1))
print(asked["street-people"].models, asked["street-people"].labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgeward.errors import BudgetError, ConfigError, nearest
from edgeward.profile.machine import machine
from edgeward.serve.certainty import Dialect
from edgeward.serve.choosers import AnyChooser, chooser_for
from edgeward.serve.config import BoxConfig, QueryConfig
from edgeward.serve.fused import FusedModel
from edgeward.serve.guard import Guard
from edgeward.serve.ladder import AGAIN, Ladder, dominated, load_ladder
from edgeward.serve.modelconfig import GuardConfig, LadderConfig, members_of
from edgeward.serve.models import ServedModel
from edgeward.serve.portfolio import PortfolioModel
from edgeward.serve.rules import fitting
from edgeward.serve.selection import Selector
from edgeward.serve.state import ModelSpec, union_bytes
from edgeward.units import format_bytes

__all__ = ["Answering", "answering", "calibration", "device_name", "ladder_members", "ladder_models", "with_variants"]

COMPARING = ("edf", "edf-lru", "fifo-lru")
"""Policies under which a second model can look at a frame."""


@dataclass(frozen=True)
class Answering:
    """models: names of those that may answer; labels: class names of the answers; chooser: None without a ladder.

    dialects: how to understand each model of the ladder. notes: what is odd about the ladder, in words.
    """

    models: tuple[str, ...]
    labels: tuple[str, ...]
    task: str
    chooser: AnyChooser | None = None
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def needed(self) -> frozenset[str]:
        """The models that run for it: those, and what they consist of."""
        return frozenset(each for name in self.models for each in (name, *members_of(name)))

    @property
    def ladder(self) -> tuple[str, ...]:
        """The models to choose from, none without a ladder."""
        return self.models if self.chooser is not None else ()


@dataclass(frozen=True)
class Room:
    """Bytes of model weights that may be held, and the models of queries that have no choice."""

    budget: int
    fixed: tuple[ModelSpec, ...]

    @property
    def left(self) -> int:
        """What is left beside those."""
        return self.budget - union_bytes(self.fixed)

    def beside(self, ladder: Ladder, models: Mapping[str, ServedModel]) -> Ladder:
        """The ladder with the bytes that each rung adds to those: what they hold anyway is not asked for again."""
        held = union_bytes(self.fixed)
        added = {rung.name: union_bytes([*self.fixed, models[rung.name].spec]) - held for rung in ladder.rungs}
        return replace(ladder, rungs=tuple(replace(rung, bytes=added[rung.name]) for rung in ladder.rungs))


def device_name(provider: str, threads: int) -> str:
    """What latencies of a calibration hold for."""
    return f"{machine()}, {provider}, {threads} thread(s)"


def with_variants(config: BoxConfig, models: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
    """The models of a box, where each portfolio that a ladder lists gives way to its variants.

    A portfolio that a query names itself stays, too.
    """
    listed = {name for ladder in config.ladders for name in ladder.models}
    named = {query.model for query in config.queries}
    found: dict[str, ServedModel] = {}
    for name, model in models.items():
        variants = _variants(model) if name in listed and isinstance(model, PortfolioModel) else []
        found |= {each.name: each for each in variants}
        if name in named or not variants:
            found[name] = model
    return found


def ladder_models(ladder: LadderConfig, models: Mapping[str, ServedModel]) -> tuple[str, ...]:
    """The names of the rungs of a ladder; a portfolio's variants are called MODEL.VARIANT.

    Those of several models are ONE+TWO, together, and ONE~TWO, in turn.
    """
    found: list[str] = []
    for name in ladder.models:
        whole = len(members_of(name)) > 1 or (name in models and not isinstance(models[name], PortfolioModel))
        found += [name] if whole else [other for other in models if other.startswith(f"{name}.")]
    return tuple(found)


def ladder_members(ladder: LadderConfig, models: Mapping[str, ServedModel]) -> tuple[str, ...]:
    """The names of the models that its rungs consist of, each once."""
    return tuple(dict.fromkeys(each for name in ladder_models(ladder, models) for each in members_of(name)))


def answering(config: BoxConfig, models: Mapping[str, ServedModel], device: str) -> dict[str, Answering]:
    """By query. Raises ConfigError when a calibration is missing, of another device, of other models or classes,
    BudgetError when no model of a ladder fits."""
    fixed = [models[name].spec for name in {query.model for query in config.queries} if config.ladder(name) is None]
    room = Room(config.budget.memory, tuple(fixed))
    found = {}
    for query in config.queries:
        ladder, guard = config.ladder(query.model), config.guard(query.model)
        if ladder is not None:
            found[query.key] = _chosen(query, ladder, models, device, room)
        elif guard is not None:
            found[query.key] = _guarded(query, guard, models, config)
        else:
            card = models[query.model].card
            found[query.key] = Answering((query.model,), card.labels, card.task)
    return found


def _guarded(query: QueryConfig, guard: GuardConfig, models: Mapping[str, ServedModel], config: BoxConfig) -> Answering:
    """Raises ConfigError when a model and its original cannot be compared, BudgetError when memory holds but one."""
    own, original, where = models[query.model], models[guard.original], f"model {query.model!r}: guard"
    for what in ("task", "labels"):
        one, other = getattr(own.card, what), getattr(original.card, what)
        if one != other:
            raise ConfigError(
                f"{where} compares it with {original.name!r}, which has other {what}: {_told(other)}, not "
                f"{_told(one)}; name the model that it was made from, or correct '{what}'"
            )
    if own.card.tiles != original.card.tiles:
        raise ConfigError(
            f"{where} compares it with {original.name!r}, which looks at other tiles of a picture and so finds "
            "other things; give both the same 'tiles'"
        )
    both, budget = union_bytes((own.spec, original.spec)), config.budget.memory
    if both > budget:
        raise BudgetError(
            f"{where} needs {query.model!r} and {original.name!r} in memory together, {format_bytes(both)} ({both} "
            f"bytes), but budget.memory is {format_bytes(budget)}; raise it to at least that, or take the guard away"
        )
    if config.policy not in COMPARING:
        note = f"{where}: policy {config.policy!r} compares nothing; take {' or '.join(COMPARING)}"
        return Answering((own.name,), own.card.labels, own.card.task, notes=(note,))
    asked = [each.model for each in config.queries]
    needed = union_bytes(models[name].spec for name in {original.name, *_in_use(config, models)})
    notes = []
    if needed > budget:
        notes.append(
            f"{where}: {original.name!r} beside all models in use needs {format_bytes(needed)} ({needed} bytes), "
            f"budget.memory is {format_bytes(budget)}; comparisons are rarer, as each has to wait for loads"
        )
    share = guard.share / asked.count(query.model)
    chooser = Guard(own.name, original.name, guard.agreement, share, query.confidence)
    return Answering((own.name, original.name), own.card.labels, own.card.task, chooser, notes=tuple(notes))


def _in_use(config: BoxConfig, models: Mapping[str, ServedModel]) -> set[str]:
    """The models of all queries; of a ladder, the largest."""
    found = set()
    for name in {query.model for query in config.queries}:
        ladder = config.ladder(name)
        names = (name,) if ladder is None else ladder_models(ladder, models)
        found |= {max(names, key=lambda each: models[each].spec.bytes)} if names else set()
    return found


def _told(value: str | tuple[str, ...]) -> str:
    """A task or labels, in words."""
    if isinstance(value, str):
        return value
    return ", ".join(value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "") if value else "none"


def _chosen(
    query: QueryConfig,
    ladder: LadderConfig,
    models: Mapping[str, ServedModel],
    device: str,
    room: Room,
) -> Answering:
    names = ladder_models(ladder, models)
    try:
        calibrated = calibration(ladder, names, models)
        calibrated.check(device, calibrated.labels)
        for name in query.classes or ():
            if name not in calibrated.labels:
                raise ConfigError(
                    f"it was calibrated for {', '.join(calibrated.labels[:5])}, query {query.key!r} asks for class "
                    f"{name!r}; {AGAIN}"
                )
        try:
            chooser = chooser_for(ladder, room.beside(calibrated, models), room.left)
        except BudgetError:  # not beside the models of other queries: they take turns in memory
            chooser = chooser_for(ladder, calibrated, room.budget)
        alone = (f"{names[0]!r} is its only model: nothing is to be chosen",) if len(names) == 1 else ()
        silent = _silent(query, calibrated, [models[name].card.labels for name in ladder_members(ladder, models)])
        never = _never_chosen(chooser) if isinstance(chooser, Selector) else ()
        notes = tuple(f"ladder {ladder.name!r}: {note}" for note in (*alone, *silent, *never))
        dialects = _members_dialects(models, names) | {
            rung.name: Dialect(models[rung.name].card.labels, rung.certainty) for rung in calibrated.rungs
        }
        return Answering(names, calibrated.labels, "detection", chooser, dialects, notes)
    except (ConfigError, BudgetError) as error:
        raise type(error)(f"ladder {ladder.name!r}: {error}") from error


def _members_dialects(models: Mapping[str, ServedModel], names: Sequence[str]) -> dict[str, Dialect]:
    """How to understand the models of which several are one rung."""
    several = [model for name in names if isinstance(model := models[name], FusedModel)]
    return {member: each for model in several for member, each in zip(model.members, model.dialects, strict=True)}


def _never_chosen(chooser: Selector) -> tuple[str, ...]:
    """Rungs that another one beats in everything, or that memory is too short for, in words."""
    memory = chooser.rules.memory or 0
    possible = fitting(chooser.ladder, chooser.rules)
    large = (
        f"{rung.name!r} never runs: it needs {format_bytes(rung.bytes)}, budget.memory leaves {format_bytes(memory)}; "
        "raise it, or take the model off the ladder"
        for rung in chooser.ladder.rungs
        if rung not in possible
    )
    return (*dominated(possible).values(), *large)


def _silent(query: QueryConfig, ladder: Ladder, known: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What the models know but a query without `classes` is not told."""
    missing = [label for label in known[0] if label not in ladder.labels and all(label in each for each in known)]
    if query.classes is not None or not missing:
        return ()
    listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return (f"query {query.key!r} is told of {', '.join(ladder.labels[:5])} only, not of {listed}; {AGAIN}",)


def calibration(config: LadderConfig, names: tuple[str, ...], models: Mapping[str, ServedModel]) -> Ladder:
    """What was measured of these models, in this order. Raises ConfigError when one was not, or cannot be a rung."""
    for name in names:
        if models[name].card.task != "detection":
            raise ConfigError(f"model {name!r} does {models[name].card.task}; a ladder holds detectors")
    ladder = load_ladder(config.calibration)
    rungs = {name: ladder.known_as(name) for name in names}
    for name, rung in rungs.items():
        if rung is None:
            known = [rung.name for rung in ladder.rungs]
            raise ConfigError(f"{config.calibration} says nothing of model {name!r}; {nearest(name, known)}; {AGAIN}")
        missing = [label for label in ladder.labels if label not in models[name].card.labels]
        if missing:
            raise ConfigError(f"model {name!r} knows no class {missing[0]!r} of the calibration; {AGAIN}")
    fed = {rung.name: rung.fed for rung in ladder.rungs if rung.fed}
    for name in ladder_members(config, models):
        now = models[name].card.fed
        if fed.get(name, now) != now:
            raise ConfigError(f"model {name!r} was calibrated looking at {fed[name]}, now it looks at {now}; {AGAIN}")
    # What a model takes in memory is known better than when it was calibrated: its file may be another one by now.
    held = {name: sum(models[name].tensors.values()) for name in names}
    return replace(ladder, rungs=tuple(replace(rung, bytes=held[name]) for name, rung in rungs.items() if rung))


def _variants(model: PortfolioModel) -> list[ServedModel]:
    return [replace(each, name=f"{model.name}.{each.name}") for each in model.variants]
