"""All that a policy may know, frozen.

    state = State.start(queries, models, budget_bytes=64 << 20)
    state = apply(state, event)          # see edgeward.serve.apply

Costs in it are moving estimates fed by measured ones; a policy cannot tell whether they were
measured a moment ago or read from a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, TypeAdapter

from edgeward.errors import BudgetError
from edgeward.serve.actions import Infer, Job, Load, Switch, Wait
from edgeward.serve.choosers import AnyChooser
from edgeward.units import format_bytes

__all__ = [
    "SMOOTHING",
    "STATE",
    "CameraState",
    "ModelSpec",
    "ModelState",
    "QuerySpec",
    "QueryState",
    "Running",
    "State",
    "VariantSpec",
    "Watch",
    "smoothed",
    "union_bytes",
]


SMOOTHING = 0.2
"""Weight of the newest measurement in a moving estimate."""
UNKNOWN_NS_PER_BYTE = 10.0
"""Before the first load was measured: the sequential reading of an SD card."""


@dataclass(frozen=True, slots=True)
class QuerySpec:
    """A query as the loop sees it. `period_ns` 0 asks for every frame.

    ladder: the models among which is chosen; `model` is then the ladder's own name. forecast: whether its boxes are
    shown where their tracks are by now.
    """

    name: str
    camera: str
    model: str
    period_ns: int
    deadline_ns: int
    max_staleness_ns: int
    every_frame: bool = False
    ladder: tuple[str, ...] = ()
    forecast: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """All that may answer it."""
        return self.ladder or (self.model,)


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """One variant of a portfolio: its tensors, and what an inference costs in proportion to the other variants."""

    name: str
    tensors: Mapping[str, int]
    cost: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as the loop sees it: its tensors by digest, each with its bytes.

    variants: of a portfolio, cheapest and least accurate first; `tensors` are then those of the variant that is loaded,
    of both during a change.
    """

    name: str
    tensors: Mapping[str, int]
    max_batch: int = 1
    variants: tuple[VariantSpec, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the model alone."""
        return sum(self.tensors.values())

    def variant(self, name: str) -> VariantSpec:
        """The variant of that name, which must be there."""
        return next(variant for variant in self.variants if variant.name == name)


@dataclass(frozen=True, slots=True)
class Watch:
    """How a portfolio's variant keeps up (see `edgeward.serve.watch`).

    settled_ns: when it began to answer, or may be changed again. trouble_ns: when a frame was last skipped or late.
    calm: windows in a row in which the next better variant would have kept up; `spoiled`: not so in the one under way.
    window_ns, window_busy_ns, window_own_ns: when that one began, and what processor and model had worked until then.
    own_ns: what the model has worked in all.
    """

    settled_ns: int = 0
    trouble_ns: int = -1
    calm: int = 0
    spoiled: bool = False
    window_ns: int = 0
    window_busy_ns: int = 0
    window_own_ns: int = 0
    own_ns: int = 0


@dataclass(frozen=True, slots=True)
class QueryState:
    """Waiting jobs, oldest first, and what became of all others: due = in_time + late + skipped + waiting.

    Of a ladder: chooser is what chooses; chosen, the model in charge; after, during a look of another one, the model
    that goes on; also, models that shall answer the next frame, too. switches: changes of the one in charge since the
    first answer; why: the reason of the newest.
    turn_ns: of the oldest frame since the last one that was taken up, 0 for none.
    """

    spec: QuerySpec
    next_due_ns: int = 0
    jobs: tuple[Job, ...] = ()
    due: int = 0
    in_time: int = 0
    late: int = 0
    skipped: int = 0
    answered_frame: int = -1
    answered_arrival_ns: int = -1
    chooser: AnyChooser | None = None
    chosen: str = ""
    after: str = ""
    also: tuple[str, ...] = ()
    switches: int = 0
    why: str = ""
    turn_ns: int = 0

    @property
    def model(self) -> str:
        """The model in charge."""
        return self.chosen or self.spec.model


def _members(cold: object) -> object:
    """Logs of before there were models in turn hold whether a model was cold; its first run hardly matters in one."""
    return frozenset() if isinstance(cold, bool) else cold


@dataclass(frozen=True, slots=True)
class ModelState:
    """Where a model is and what it costs.

    infer_ns: estimated nanoseconds of one inference, by batch size; worked_ns: the same without waiting for others.
    retry_ns: after failures, the time before which it is left alone.
    variant: of a portfolio, which is loaded or would be. cold: who has not run since it
    was loaded, itself or those of models in turn.
    """

    spec: ModelSpec
    status: Literal["absent", "loading", "resident", "evicting"] = "absent"
    used_ns: int = 0
    infer_ns: Mapping[int, int] = field(default_factory=dict)
    load_ns: int = 0
    loads: int = 0
    evictions: int = 0
    failures: int = 0
    retry_ns: int = 0
    error: str = ""
    variant: str = ""
    watch: Watch = Watch()
    cold: Annotated[frozenset[str], BeforeValidator(_members)] = frozenset()
    worked_ns: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CameraState:
    """The newest frame of a camera, its size in pixels and the time between two, a moving estimate.

    odd_ns: the last such times in a row that were quite another. view: see `Frame.view`; since: the first frame of this
    view, since_ns: when it arrived, 0 when it is the first view.
    """

    status: str = "connecting"
    detail: str = ""
    frame: int = -1
    arrived_ns: int = -1
    width: int = 0
    height: int = 0
    period_ns: int = 0
    odd_ns: tuple[int, ...] = ()
    view: int = 0
    since: int = 0
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """An action under way."""

    number: int
    since_ns: int
    action: Infer | Load | Switch


@dataclass(frozen=True, slots=True)
class State:
    """The box at one moment. `resident_bytes` counts each tensor of loading and resident models once, and those `kept`
    of evicted ones for the next load. `loading_bytes` are missing of what is being loaded; `loaded_bytes` were missing
    of what was loaded before, in `loaded_ns` (moving sums). `busy_ns` is what the processor has worked, `begun_ns` when
    it last began and `ran` with which model.
    """

    budget_bytes: int
    queries: Mapping[str, QueryState]
    models: Mapping[str, ModelState]
    cameras: Mapping[str, CameraState]
    now_ns: int = 0
    decisions: int = 0
    resident_bytes: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    loading_bytes: int = 0
    loaded_bytes: int = 0
    loaded_ns: int = 0
    busy_ns: int = 0
    begun_ns: int = 0
    ran: str = ""
    processor: Running | None = None
    loader: Running | None = None
    waiting: Wait | None = None

    @property
    def ns_per_byte(self) -> float:
        """What loads have taken of late for each byte that was missing."""
        return self.loaded_ns / self.loaded_bytes if self.loaded_bytes else UNKNOWN_NS_PER_BYTE

    @classmethod
    def start(
        cls,
        queries: Iterable[QuerySpec],
        models: Iterable[ModelSpec],
        budget_bytes: int,
        choosers: Mapping[str, AnyChooser] | None = None,
    ) -> State:
        """A box before its first event, nothing loaded; of a portfolio it begins with the best variant that fits.

        choosers: of each query that names a ladder. Raises BudgetError when a model that a query needs is larger than
        the whole budget.
        """
        model_states = {spec.name: _begun(spec, budget_bytes) for spec in models}
        query_states = {spec.name: _asked(spec, (choosers or {}).get(spec.name)) for spec in queries}
        for query in query_states.values():
            spec = model_states[query.model].spec
            if spec.bytes > budget_bytes:
                raise BudgetError(
                    f"budget.memory is {format_bytes(budget_bytes)}, but model {spec.name!r} alone needs "
                    f"{format_bytes(spec.bytes)} ({spec.bytes} bytes); raise the budget to at least that"
                )
        cameras = {query.spec.camera: CameraState() for query in query_states.values()}
        return cls(budget_bytes, query_states, model_states, cameras)


def _asked(spec: QuerySpec, chooser: AnyChooser | None) -> QueryState:
    """A query before its first frame."""
    if chooser is None:
        return QueryState(spec)
    choice = chooser.choice(0.0)
    return QueryState(spec, chooser=chooser.taken(replace(choice, also=()), 0.0), chosen=choice.name)


def _begun(spec: ModelSpec, budget_bytes: int) -> ModelState:
    """A model before its first load; the smallest variant when none fits."""
    if not spec.variants:
        return ModelState(spec)
    fitting = [variant for variant in spec.variants if sum(variant.tensors.values()) <= budget_bytes]
    chosen = fitting[-1] if fitting else min(spec.variants, key=lambda variant: sum(variant.tensors.values()))
    return ModelState(replace(spec, tensors=chosen.tensors), variant=chosen.name)


STATE: TypeAdapter[State] = TypeAdapter(State)
"""Validates and writes states as JSON."""


def union_bytes(specs: Iterable[ModelSpec], kept: Mapping[str, int] | None = None) -> int:
    """Bytes of several models together, and of tensors `kept`: a tensor that two of them share counts once."""
    together: dict[str, int] = dict(kept or {})
    for spec in specs:
        together.update(spec.tensors)
    return sum(together.values())


def smoothed(before: int | None, measured: int) -> int:
    """A moving estimate after a measurement; the measurement itself when it is the first."""
    return measured if before is None else round(before + SMOOTHING * (measured - before))
