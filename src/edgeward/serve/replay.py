"""Yesterday's log through another policy: the same arrivals, measured costs, a virtual clock.

recording = read_log(Path("box-data/log"))[-1]
comparison = replay(recording, "fifo-lru")
print(comparison.recorded.in_time_fraction, comparison.replayed.in_time_fraction)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from edgeward.clock import NS, to_seconds
from edgeward.errors import LogError
from edgeward.serve.actions import Infer
from edgeward.serve.apply import apply
from edgeward.serve.events import Decided, Event, FrameArrived, Inferred, Loaded
from edgeward.serve.log import Recording
from edgeward.serve.policies import policy_named
from edgeward.serve.score import Answer, accuracy
from edgeward.serve.simulate import MedianCosts, RecordedCosts, Simulated, outside, simulate, under_way
from edgeward.serve.state import State
from edgeward.vision.results import Detections, result_from_json
from edgeward.vision.truth import Truth

__all__ = ["Comparison", "RunFigures", "mean_age_ns", "replay", "run_figures"]

HOUR_NS = 3600 * NS


class Asked(NamedTuple):
    """An answer to a frame: another model, variant or turn says something else."""

    query: str
    camera: str
    frame: int
    model: str
    variant: str
    part: str


Known = Mapping[Asked, Mapping[str, Any]]
"""What the recording holds."""


@dataclass(frozen=True)
class RunFigures:
    """What a run came to.

    in_time_fraction: frames answered within their deadline / frames asked for and settled (answered or given up).
    staleness_seconds: age of the newest answer, averaged over time and then over queries.
    answers_known: of the answers given, the share whose content the recording holds; accuracy rests on these.
    """

    policy: str
    seconds: float
    due: int
    in_time: int
    late: int
    skipped: int
    in_time_fraction: float | None
    staleness_seconds: float | None
    loads_per_hour: float
    inferences: int
    decisions: int
    answers_known: float
    accuracy: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Comparison:
    """The recorded run beside the replayed one. `identical`: every recorded decision came again, at the same time."""

    recorded: RunFigures
    replayed: RunFigures
    costs: str
    identical: bool


def replay(
    recording: Recording,
    policy: str,
    costs: Literal["recorded", "median"] = "recorded",
    truths: Mapping[str, Truth] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Run the recording's arrivals through `policy`.

    truths: ground truth by camera; labels: class names by query, as the truth names them.
    Raises ConfigError for an unknown policy, LogError for a recording without events.
    """
    chosen = policy_named(policy)
    if not recording.events:
        raise LogError(f"{recording.path} holds no events yet; let the box run for a while")
    charged = RecordedCosts(recording.state, recording.events) if costs == "recorded" else MedianCosts(recording.events)
    until_ns = recording.events[-1].time_ns
    run = simulate(recording.state, outside(recording.events), chosen, charged, until_ns)
    live = _fold(recording)
    known = _known_results(recording.state, recording.events)
    recorded_policy = str(recording.config.get("policy", "recorded"))
    figures = [
        run_figures(name, recording.state, each, known, truths or {}, labels or {})
        for name, each in ((recorded_policy, live), (policy, run))
    ]
    return Comparison(figures[0], figures[1], costs, same_decisions(live, run))


def same_decisions(recorded: Simulated, again: Simulated) -> bool:
    """Whether every recorded decision came again, in order, at the same nanosecond."""
    return again.decisions[: len(recorded.decisions)] == recorded.decisions


def run_figures(
    policy: str,
    start: State,
    run: Simulated,
    known: Known,
    truths: Mapping[str, Truth],
    labels: Mapping[str, Sequence[str]],
) -> RunFigures:
    """Figures of one run from `start`; `known` are the results that the recording holds."""
    end_ns = run.events[-1].time_ns
    span_ns = max(end_ns - start.now_ns, 1)
    totals = {
        field: sum(
            getattr(query, field) - getattr(start.queries[name], field) for name, query in run.state.queries.items()
        )
        for field in ("due", "in_time", "late", "skipped")
    }
    settled = totals["in_time"] + totals["late"] + totals["skipped"]
    answers = [asked for _, each in _answers(start, run.events) for asked in each]
    found = sum(asked in known for asked in answers)
    return RunFigures(
        policy=policy,
        seconds=to_seconds(span_ns),
        **totals,
        in_time_fraction=totals["in_time"] / settled if settled else None,
        staleness_seconds=_staleness(start, run, end_ns),
        loads_per_hour=sum(isinstance(event, Loaded) for event in run.events) * HOUR_NS / span_ns,
        inferences=sum(isinstance(event, Inferred) for event in run.events),
        decisions=len(run.decisions),
        answers_known=found / len(answers) if answers else 1.0,
        accuracy=_accuracy(start, run, known, truths, labels),
    )


def _fold(recording: Recording) -> Simulated:
    state = recording.state
    for event in recording.events:
        state = apply(state, event)
    return Simulated(state, recording.events)


def _answers(start: State, events: Iterable[Event]) -> Iterator[tuple[Inferred, list[Asked]]]:
    """Every inference, with what each of its jobs asked of which model."""
    variants: dict[int, str] = {}
    for event in (*under_way(start), *events):
        if isinstance(event, Decided) and isinstance(event.action, Infer):
            variants[event.number] = event.action.variant
        elif isinstance(event, Inferred):
            by = (event.model, variants.pop(event.number, ""), event.part)
            yield event, [Asked(job.query, job.camera, job.frame, *by) for job in event.jobs]


def _known_results(start: State, events: Iterable[Event]) -> Known:
    return {
        asked: result
        for event, each in _answers(start, events)
        for asked, result in zip(each, event.results, strict=False)
    }


def _staleness(start: State, run: Simulated, end_ns: int) -> float | None:
    """Mean over queries of the mean age of their newest answer, in seconds."""
    newest: dict[str, list[tuple[int, int]]] = {query: [] for query in start.queries}
    for event in run.events:
        for job in event.jobs if isinstance(event, Inferred) else ():
            answers = newest[job.query]
            if not answers or job.arrived_ns > answers[-1][1]:
                answers.append((event.time_ns, job.arrived_ns))
    ages = [mean_age_ns(answers, end_ns) for answers in newest.values() if answers and answers[0][0] < end_ns]
    return sum(ages) / len(ages) / NS if ages else None


def mean_age_ns(answers: Sequence[tuple[int, int]], end_ns: int) -> float:
    """Age of the newest answer, averaged over the time from the first answer to `end_ns`.

    answers: (finished, arrived) nanoseconds, both rising. Between two answers the age grows with time.
    """
    ends = [finished for finished, _ in answers[1:]] + [end_ns]
    area = sum(
        (end - finished) * ((finished - arrived) + (end - arrived)) / 2
        for (finished, arrived), end in zip(answers, ends, strict=True)
    )
    return area / (end_ns - answers[0][0])


def _accuracy(
    start: State,
    run: Simulated,
    known: Known,
    truths: Mapping[str, Truth],
    labels: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
    """Scores by query, of the queries on cameras whose truth is known."""
    scores, given = {}, list(_answers(start, run.events))
    for name, query in run.state.queries.items():
        truth = truths.get(query.spec.camera)
        if truth is None or name not in labels:
            continue
        arrivals = [
            event for event in run.events if isinstance(event, FrameArrived) and event.camera == query.spec.camera
        ]
        answers = []
        for event, each in given:
            for asked in each:
                record = known.get(asked) if asked.query == name else None
                result = result_from_json(record) if record is not None else None
                if isinstance(result, Detections):
                    answers.append(Answer(event.time_ns, asked.frame, result))
        scores[name] = accuracy(arrivals, answers, truth, labels[name], query.spec.forecast)
    return scores
