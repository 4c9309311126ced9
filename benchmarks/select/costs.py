"""What the box's decisions lead to when it serves recordings: measured seconds times the load, and the boxes found.

    costs = FilmCosts({"gate": film}, Machine(measured(data), load=lambda time: 2.0))
    run = simulate(state, arrivals(films), policy_named("edf-lru"), costs)

What comes after a model is the box's own: `edgeward.serve.analysis`, fed as its workers feed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from calibrated import turns
from film import Film

from edgeward.clock import to_ns, to_seconds
from edgeward.serve.actions import Infer, Load, Wait
from edgeward.serve.analysis import Analysis
from edgeward.serve.certainty import UNCHANGED, Dialect
from edgeward.serve.config import QueryConfig
from edgeward.serve.events import Decided, FrameArrived, Inferred, Second
from edgeward.serve.inturn import Turns
from edgeward.serve.modelconfig import looks_of
from edgeward.serve.simulate import Costs, Outcome, ending
from edgeward.vision.frames import Frame
from edgeward.vision.results import Detections

PERSON = ("person",)
LoadAt = Callable[[float], float]
"""Factor on every latency at a moment, seconds."""


@dataclass(frozen=True)
class Machine:
    """Seconds of one answer of each model; the load; bytes of each model and seconds until it is in memory; memory.

    Without `memory` there is room for all models, and none takes time to load.
    """

    seconds: Mapping[str, float]
    load: LoadAt = lambda time: 1.0
    bytes: Mapping[str, int] = field(default_factory=dict)
    load_seconds: Mapping[str, float] = field(default_factory=dict)
    memory: int | None = None

    def took(self, model: str, now: float, part: str = "") -> float:
        """Seconds of an answer that begins now; part: of models in turn, whose turn it is."""
        return (turns(model, self.seconds)[part] if part else self.seconds[model]) * self.load(now)

    def worked(self, model: str, now: float, part: str = "") -> float:
        """Seconds of it in which the processor worked for nobody else: all, on one that is slow but has no others."""
        return self.took(model, now, part)


class FilmCosts(Costs):
    """Cameras that play films.

    query: what is asked of each camera's boxes: confidence, tracker, forecast.
    """

    def __init__(self, films: Mapping[str, Film], machine: Machine, query: QueryConfig) -> None:
        self._films, self._machine = films, machine
        named = {name: query.model_copy(update={"camera": name, "name": name}) for name in films}
        dialects = {name: Dialect(PERSON) for name in machine.seconds}
        certainty = next(iter(films.values())).frames[0][0].certainty
        dialects |= {name: Dialect(PERSON, certainty.get(name, UNCHANGED)) for name in dialects if looks_of(name) > 1}
        self._analyses = {name: Analysis(each, PERSON, dialects) for name, each in named.items()}
        self._turns = Turns()

    def outcome(self, decided: Decided) -> Outcome | None:
        match decided.action:
            case Infer() as infer:
                return self._inferred(decided, infer)
            case Load(model=model) if self._machine.memory is not None:
                seconds = self._machine.load_seconds[model] * self._machine.load(to_seconds(decided.time_ns))
                return ending(decided, decided.time_ns + to_ns(seconds))
            case Wait(until_ns=until_ns):
                return ending(decided, max(until_ns, decided.time_ns))
            case _:
                return ending(decided, decided.time_ns)

    def _inferred(self, decided: Decided, action: Infer) -> Inferred:
        now, also = decided.time_ns, []
        for model in action.also:
            part = self._part(model, action)
            took = self._took(model, now, action.batch, part)
            seen = [
                self._analyses[job.camera].seen(
                    self._frame(job.camera, job.frame), self._found(part or model, job.camera, job.frame), model, part
                )
                for job in action.jobs
            ]
            worked = self._worked(model, now, action.batch, part)
            also.append(Second(model, took, tuple(each.to_json() for each in seen), part=part, worked_ns=worked))
            now += took
        part = self._part(action.model, action)
        worked = self._worked(action.model, now, action.batch, part)
        now += self._took(action.model, now, action.batch, part)
        results, expected, found = [], [], []
        for job in action.jobs:
            analysis, boxes = self._analyses[job.camera], self._found(part or action.model, job.camera, job.frame)
            results.append(analysis.take(self._frame(job.camera, job.frame), boxes, action.model, part).to_json())
            expected.append(None if analysis.expected is None else analysis.expected.to_json())
            found.append(None if analysis.found is None else analysis.found.to_json())
        known, alone = (tuple(each) if any(each) else () for each in (expected, found))
        return Inferred(
            now, decided.number, action.model, action.jobs, tuple(results), tuple(also), known, alone, part=part,
            worked_ns=worked,
        )  # fmt: skip

    def _part(self, model: str, action: Infer) -> str:
        """Of models in turn, whose turn it is."""
        queries = {job.query for job in action.jobs}
        due = self._turns.due(model, queries)
        self._turns.looked(due, queries)
        return "" if due == model else due

    def _took(self, model: str, now_ns: int, batch: int, part: str) -> int:
        return to_ns(self._machine.took(model, to_seconds(now_ns), part)) * batch

    def _worked(self, model: str, now_ns: int, batch: int, part: str) -> int:
        return to_ns(self._machine.worked(model, to_seconds(now_ns), part)) * batch

    def _found(self, model: str, camera: str, frame: int) -> Detections:
        recording, index = self._films[camera].frames[frame]
        return recording.boxes[model][index]

    def _frame(self, camera: str, frame: int) -> Frame:
        film = self._films[camera]
        recording, _ = film.frames[frame]
        picture = np.broadcast_to(np.zeros(1, np.uint8), (recording.height, recording.width, 3))
        return Frame(frame, float(film.times[frame]), picture, frame, film.views[frame])


def arrivals(films: Mapping[str, Film], until: float = np.inf) -> list[FrameArrived]:
    """The frames of all cameras up to a moment, in order of time."""
    found = [
        FrameArrived(to_ns(float(time)), camera, index, index, recording.width, recording.height, film.views[index])
        for camera, film in films.items()
        for index, ((recording, _), time) in enumerate(zip(film.frames, film.times, strict=True))
        if time <= until
    ]
    return sorted(found, key=lambda event: event.time_ns)
