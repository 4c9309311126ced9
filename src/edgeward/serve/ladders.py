"""What queries learn about the models of their ladders, event by event. Pure; part of `edgeward.serve.apply`.

state = in_charge(state, Choose({"street": "fast"}, "objects are large"))
state = learned(state, inferred, seconds_ns)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgeward.clock import NS, to_seconds
from edgeward.serve.actions import Choose
from edgeward.serve.choice import Answer, Choice, Look
from edgeward.serve.choosers import AnyChooser
from edgeward.serve.events import Failed, Inferred, Second
from edgeward.serve.latency import alone, among, programs
from edgeward.serve.modelconfig import members_of
from edgeward.serve.state import CameraState, QueryState, State
from edgeward.vision.results import Detections, Result, result_from_json

__all__ = ["disappointed", "in_charge", "learned", "looked"]

Queries = dict[str, QueryState]


def in_charge(state: State, action: Choose) -> State:
    """After models were put in charge."""
    now, queries = to_seconds(state.now_ns), dict(state.queries)
    for name, model in action.models.items():
        query = queries[name]
        assert query.chooser is not None, "a choice for a query without a ladder"
        choice = Choice(model, action.reason, probe=action.probe, also=action.also)
        passing = action.probe or bool(action.also)
        queries[name] = replace(
            query,
            switches=query.switches + (not passing and query.answered_frame >= 0 and model != query.model),
            why=query.why if passing else action.reason,
            chooser=query.chooser.taken(choice, now),
            chosen=model,
            after=query.chosen if passing else "",
            also=action.also,
        )
    return replace(state, queries=queries)


def looked(query: QueryState, camera: CameraState) -> QueryState:
    """After a frame, whose size and pace may be new."""
    if query.chooser is None or not camera.period_ns or not camera.width:
        return query
    period, since = to_seconds(query.spec.period_ns), to_seconds(camera.since_ns)
    look = Look(NS / camera.period_ns, camera.width, camera.height, period, since)
    return replace(query, chooser=query.chooser.looking(look))


def learned(state: State, event: Inferred, took_ns: int) -> State:
    """After answers: each query's chooser sees its own results, all others how long the model took.

    Of a model that found a part of its work done, what it is known to take. What the first run after a load took
    says nothing of the next ones: it sets up what they use.
    """
    now, queries = to_seconds(state.now_ns), dict(state.queries)

    def cold(ran: Inferred | Second) -> bool:
        return ran.model in state.models and (ran.part or ran.model) in state.models[ran.model].cold

    pictures = len({(job.camera, job.frame) for job in event.jobs})

    def per_picture(ran: Inferred | Second, ns: int) -> tuple[float, float]:
        """Seconds, and beside how many programs."""
        beside, model = _beside(ran, ns), state.models.get(ran.model)
        known = None if ran.whole or model is None else model.worked_ns.get(pictures)
        worked = alone(to_seconds(ns), beside) if known is None else to_seconds(known)
        return among(worked / pictures, beside), beside

    def turn(ran: Inferred | Second) -> str:
        # What is known of a rung that found work done is its mean, whoever's turn it was.
        return ran.part if ran.whole else ""

    own_ns = max(took_ns - sum(second.took_ns for second in event.also), 1)
    all_ran: list[tuple[Inferred | Second, int]] = [(second, second.took_ns) for second in event.also]
    seen = {each.model: (each, *per_picture(each, ns)) for each, ns in [*all_ran, (event, own_ns)]}
    for place, job in enumerate(event.jobs):
        query = queries[job.query]
        if query.chooser is not None:
            chooser = query.chooser
            for model, (ran, seconds, beside) in seen.items():
                found = _result(ran.results, place)
                if found is None:
                    chooser = chooser.unseen(model, seconds, now, turn(ran), beside)
                else:
                    expected = _result(event.expected, place)
                    moved = expected if isinstance(expected, Detections) else None
                    # What the model found by itself tells of the model, what is remembered of those before it, too.
                    own = _result(event.found, place) if ran is event else None
                    own = found if own is None else own
                    answer = Answer(model, to_seconds(job.arrived_ns), own, moved, cold(ran), turn(ran), beside)
                    chooser = chooser.observe(answer, now, seconds)
            queries[job.query] = replace(query, chooser=chooser, chosen=query.after or query.chosen, after="")
    asked = {job.query for job in event.jobs}
    rest = {name: query for name, query in queries.items() if name not in asked}

    def paced(chooser: AnyChooser) -> AnyChooser:
        _, seconds, beside = seen[event.model]
        return chooser.paced(event.model, seconds, now, turn(event), beside)

    others = {} if cold(event) else _told(rest, event.model, paced)
    return replace(state, queries={**queries, **others})


def disappointed(state: State, event: Failed) -> State:
    """After a model failed: it and what it is a part of leave the ladders; who only looked with it goes back."""
    now = to_seconds(state.now_ns)

    def gone(rung: str) -> Callable[[AnyChooser], AnyChooser]:
        return lambda chooser: chooser.failed(rung, now, event.error)

    changed = dict(state.queries)
    rungs = {name for query in changed.values() for name in query.spec.ladder}
    leaving = {rung for rung in rungs if (event.part or event.model) in members_of(rung)} | {event.model}
    for rung in sorted(leaving & rungs):
        changed |= _told(changed, rung, gone(rung))
    back = {
        name: replace(query, chosen=query.after, after="", also=())
        for name, query in changed.items()
        if query.after and not leaving.isdisjoint((query.chosen, *query.also))
    }
    return replace(state, queries={**state.queries, **changed, **back})


def _told(queries: Mapping[str, QueryState], model: str, tell: Callable[[AnyChooser], AnyChooser]) -> Queries:
    """The queries that may use a model, after their choosers were told."""
    return {
        name: replace(query, chooser=tell(query.chooser))
        for name, query in queries.items()
        if query.chooser is not None and model in query.spec.ladder
    }


def _beside(ran: Inferred | Second, took_ns: int) -> float:
    """How many programs worked on the same processor; none where that was not measured."""
    return programs(to_seconds(took_ns), to_seconds(took_ns - ran.worked_ns)) if ran.worked_ns else 0.0


def _result(results: Sequence[Mapping[str, object] | None], place: int) -> Result | None:
    """None when the log does not hold it, as in a replay that went another way."""
    record = results[place] if place < len(results) else None
    return None if record is None else result_from_json(record)
