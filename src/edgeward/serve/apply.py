"""The state after an event. Pure: no clock, no I/O, nothing remembered elsewhere.

state = apply(state, FrameArrived(time_ns=5, camera="street", frame=0, content=0))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import TypeVar

from edgeward.clock import NS
from edgeward.serve.actions import Choose, Evict, Infer, Load, Switch, Wait
from edgeward.serve.arrivals import arrived
from edgeward.serve.events import (
    CameraChanged,
    Decided,
    Event,
    Evicted,
    Failed,
    FrameArrived,
    Inferred,
    Loaded,
    Second,
    Switched,
    Waited,
)
from edgeward.serve.ladders import disappointed, in_charge, learned
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.state import SMOOTHING, ModelSpec, ModelState, Running, State, smoothed, union_bytes
from edgeward.serve.watch import watched, worse

__all__ = ["apply"]

FIRST_RETRY_NS = 1 * NS
LAST_RETRY_NS = 60 * NS

V = TypeVar("V")


def apply(state: State, event: Event) -> State:
    """`state` after `event`; also gives up jobs that have become too stale by then."""
    after = _apply(event, replace(state, now_ns=event.time_ns))
    return watched(state, event, _give_up_stale(after))


@singledispatch
def _apply(event: Event, state: State) -> State:
    raise TypeError(f"not an event: {event!r}")


@_apply.register
def _frame_arrived(event: FrameArrived, state: State) -> State:
    return arrived(state, event)


@_apply.register
def _camera_changed(event: CameraChanged, state: State) -> State:
    camera = state.cameras.get(event.camera)
    if camera is None:
        return state
    camera = replace(camera, status=event.status, detail=event.detail)
    return replace(state, cameras={**state.cameras, event.camera: camera})


@_apply.register
def _decided(event: Decided, state: State) -> State:
    state = replace(state, decisions=event.number + 1, waiting=None)
    match event.action:
        case Infer() as infer:
            taken = set(infer.jobs)
            queries = dict(state.queries)
            for name in {job.query for job in infer.jobs}:
                query = queries[name]
                left = tuple(job for job in query.jobs if job not in taken)
                queries[name] = replace(query, jobs=left, also=(), turn_ns=0)
            model = replace(state.models[infer.model], used_ns=event.time_ns)
            running = Running(event.number, event.time_ns, infer)
            return replace(
                state,
                queries=queries,
                models={**state.models, infer.model: model},
                processor=running,
                begun_ns=event.time_ns,
                ran=infer.model,
            )
        case Load() as load:
            running = Running(event.number, event.time_ns, load)
            chosen = _with_variant(state, load.model, load.variant) if load.variant else state
            begun = _with_model(replace(chosen, kept={}), load.model, status="loading")
            # What was kept for it is in memory already.
            missing = begun.resident_bytes - union_bytes(_held(chosen), chosen.kept)
            return replace(begun, loader=running, loading_bytes=max(missing, 0))
        case Switch() as switch:
            model = state.models[switch.model]
            both = {**model.spec.tensors, **model.spec.variant(switch.variant).tensors}
            running = Running(event.number, event.time_ns, switch)
            spec = replace(model.spec, tensors=both)
            changed = _with_model(replace(state, kept={}), switch.model, status=model.status, spec=spec)
            return replace(changed, loader=running)
        case Choose() as choose:
            return in_charge(state, choose)
        case Evict() as evict:
            return _with_model(replace(state, kept=_kept(state, evict)), evict.model, status="evicting")
        case Wait() as wait:
            return replace(state, waiting=wait)


@_apply.register
def _inferred(event: Inferred, state: State) -> State:
    started = state.processor
    assert started is not None and started.number == event.number, "an answer to nothing that runs"
    seconds_ns = event.time_ns - started.since_ns
    model = state.models[event.model]
    batch = len({(job.camera, job.frame) for job in event.jobs})
    model = replace(model, used_ns=event.time_ns, failures=0, error="" if model.failures else model.error)
    if isinstance(started.action, Infer) and started.action.variant in ("", model.variant):  # not of one just left
        known, own_ns = model.infer_ns.get(batch), seconds_ns - sum(second.took_ns for second in event.also)
        if event.whole or known is None:  # what others began says too little of what it takes
            worked = smoothed(model.worked_ns.get(batch), event.worked_ns or own_ns)
            took = {**model.infer_ns, batch: smoothed(known, own_ns)}
            model = replace(model, infer_ns=took, worked_ns={**model.worked_ns, batch: worked})
    queries = dict(state.queries)
    for job in event.jobs:
        query = queries[job.query]
        in_time = event.time_ns <= job.deadline_ns
        queries[job.query] = replace(
            query,
            in_time=query.in_time + in_time,
            late=query.late + (not in_time),
            answered_frame=max(query.answered_frame, job.frame),
            answered_arrival_ns=max(query.answered_arrival_ns, job.arrived_ns),
        )
    models = {**state.models, event.model: model}
    after = replace(state, queries=queries, models=models, processor=None, busy_ns=state.busy_ns + seconds_ns)
    taught = learned(after, event, seconds_ns)
    answers: tuple[Inferred | Second, ...] = (event, *event.also)
    warm = {
        ran.model: replace(taught.models[ran.model], cold=taught.models[ran.model].cold - {ran.part or ran.model})
        for ran in answers
    }
    return replace(taught, models={**taught.models, **warm})


@_apply.register
def _loaded(event: Loaded, state: State) -> State:
    assert state.loader is not None and state.loader.number == event.number, "a load that nobody began"
    model = state.models[event.model]
    seconds_ns = event.time_ns - state.loader.since_ns
    state = _with_model(
        state,
        event.model,
        status="resident",
        used_ns=event.time_ns,
        load_ns=smoothed(model.load_ns or None, seconds_ns),
        loads=model.loads + 1,
        cold=frozenset(members_of(event.model) if looks_of(event.model) > 1 else (event.model,)),
    )
    fading = 1 - SMOOTHING
    return replace(
        state,
        loader=None,
        loaded_bytes=round(fading * state.loaded_bytes) + state.loading_bytes,
        loaded_ns=round(fading * state.loaded_ns) + seconds_ns,
    )


@_apply.register
def _switched(event: Switched, state: State) -> State:
    assert state.loader is not None and state.loader.number == event.number, "a change that nobody began"
    changed = _with_variant(state, event.model, event.variant)
    return replace(_with_model(changed, event.model, error=""), loader=None)


@_apply.register
def _evicted(event: Evicted, state: State) -> State:
    evictions = state.models[event.model].evictions + 1
    return _with_model(state, event.model, status="absent", evictions=evictions)


@_apply.register
def _failed(event: Failed, state: State) -> State:
    state = disappointed(state, event)
    model = state.models[event.model]
    if event.what == "switch":  # it goes on with the variant it has
        back = _with_variant(state, event.model, model.variant)
        return replace(_with_model(back, event.model, error=event.error), loader=None)
    pause = min(FIRST_RETRY_NS << min(model.failures, 10), LAST_RETRY_NS)
    changes = {"failures": model.failures + 1, "retry_ns": event.time_ns + pause, "error": event.error}
    if event.what == "load":
        state = _with_model(state, event.model, status="absent", **changes)
        if model.spec.variants:  # another may be whole: the next cheaper one, and behind the cheapest the best again
            state = _with_variant(state, event.model, (worse(model) or model.spec.variants[-1]).name)
        return replace(state, loader=None)
    running = state.processor
    assert running is not None and isinstance(running.action, Infer), "a failure of nothing that runs"
    queries = dict(state.queries)
    for job in running.action.jobs:
        queries[job.query] = replace(queries[job.query], skipped=queries[job.query].skipped + 1)
    state = _with_model(state, event.model, **changes)
    return replace(state, queries=queries, processor=None)


@_apply.register
def _waited(event: Waited, state: State) -> State:
    return replace(state, waiting=None)


def _with_variant(state: State, name: str, variant: str) -> State:
    """`state` with a model of which only that variant is held; what inferences cost is taken over in proportion."""
    model = state.models[name]
    before, after = model.spec.variant(model.variant), model.spec.variant(variant)
    return _with_model(
        state,
        name,
        status=model.status,
        spec=replace(model.spec, tensors=after.tensors),
        variant=variant,
        **{
            what: {batch: ns * after.cost // before.cost for batch, ns in getattr(model, what).items()}
            for what in ("infer_ns", "worked_ns")
        },
    )


def _with_model(state: State, name: str, **changes: object) -> State:
    """`state` with one model changed and the memory account made up again."""
    models: Mapping[str, ModelState] = {**state.models, name: replace(state.models[name], **changes)}  # type: ignore[arg-type]
    if "status" not in changes:
        return replace(state, models=models)
    after = replace(state, models=models)
    return replace(after, resident_bytes=union_bytes(_held(after), state.kept))


def _held(state: State) -> list[ModelSpec]:
    return [model.spec for model in state.models.values() if model.status != "absent"]


def _kept(state: State, evict: Evict) -> Mapping[str, int]:
    """What stays in memory for the next load: of the evicted model's tensors, and of those kept before."""
    if not evict.keep_for:
        return {}
    there = {**state.kept, **state.models[evict.model].spec.tensors}
    wanted = state.models[evict.keep_for].spec.tensors
    return {digest: size for digest, size in there.items() if digest in wanted}


def _give_up_stale(state: State) -> State:
    changed = {}
    for name, query in state.queries.items():
        if query.jobs and not query.spec.every_frame:
            oldest = state.now_ns - query.spec.max_staleness_ns
            fresh = tuple(job for job in query.jobs if job.arrived_ns >= oldest)
            if len(fresh) < len(query.jobs):
                lost = len(query.jobs) - len(fresh)
                changed[name] = replace(query, jobs=fresh, skipped=query.skipped + lost)
    return replace(state, queries={**state.queries, **changed}) if changed else state
