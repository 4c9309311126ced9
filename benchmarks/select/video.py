"""Choosing a detector on real video, through the box's own loop on a virtual clock: all see the same frames.

    film = Film.of([Piece(pets, 0, 132), Piece(tud, 0, 60)])
    print(play(film, Fixed("nano"), Machine(seconds, lambda time: 2.0)).precision())
    shown = play_cameras({"gate": film, "yard": other}, choosers, Machine(seconds))

An answer takes the measured seconds times the load. See `film.py` for how what is on screen is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from costs import FilmCosts, Machine, arrivals
from film import NOTHING, Film, Shown

from edgeward.clock import NS, to_seconds
from edgeward.serve.choosers import AnyChooser
from edgeward.serve.config import QueryConfig
from edgeward.serve.events import Event, FrameArrived, Inferred
from edgeward.serve.modelconfig import looks_of
from edgeward.serve.policies import policy_named
from edgeward.serve.simulate import Simulated, simulate
from edgeward.serve.state import ModelSpec, QuerySpec, State
from edgeward.vision.forecast import Forecast
from edgeward.vision.results import Detections

CAMERA = "camera"
RAW = QueryConfig(camera=CAMERA, model="people", confidence=0.0)
"""All boxes are shown as they were found: precision over all recalls needs the faint ones, too."""
REMEMBERED = QueryConfig(camera=CAMERA, model="people", confidence=0.0, remember=True)
"""With what was found in the last moments."""
TRACKED = QueryConfig(camera=CAMERA, model="people", tracker=True)
MOVED = QueryConfig(camera=CAMERA, model="people", tracker=True, forecast=True)
"""As a box shows them by default, followed and moved to the present."""


def play(film: Film, chooser: AnyChooser, machine: Machine, query: QueryConfig = RAW) -> Shown:
    """One chooser through one film."""
    return play_cameras({CAMERA: film}, {CAMERA: chooser}, machine, query)[CAMERA]


def play_cameras(
    films: Mapping[str, Film],
    choosers: Mapping[str, AnyChooser],
    machine: Machine,
    query: QueryConfig = RAW,
    policy: str = "edf-lru",
) -> dict[str, Shown]:
    """What each camera's screen shows, until the shortest film ends; the rest of the others counts as not seen."""
    until = min(float(film.times[-1]) for film in films.values())
    run = simulate(
        _state(choosers, machine, query), arrivals(films, until), policy_named(policy), FilmCosts(films, machine, query)
    )
    return {name: on_screen(run, name, film, query) for name, film in films.items()}


def on_screen(run: Simulated, camera: str, film: Film, query: QueryConfig) -> Shown:
    """What a camera's screen showed in a run of the box."""
    sources, boxes = screened(run.events, camera, Forecast.start() if query.forecast else None)
    rest = len(film.times) - len(sources)
    in_turn = any(looks_of(name) > 1 for name, _ in filter(None, sources))
    return Shown(
        film,
        (*sources, *[None] * rest),
        (*boxes, *[NOTHING] * rest) if query.tracker or query.remember or in_turn else None,
        run.state.queries[camera].skipped,
    )


def screened(
    events: Iterable[Event], camera: str, forecast: Forecast | None = None
) -> tuple[list[tuple[str, int] | None], list[Detections]]:
    """At each frame that arrived: the newest answer's model and frame, and its boxes, moved with a forecast.

    None and no boxes before the first answer in a view.
    """
    sources: list[tuple[str, int] | None] = []
    shown: list[Detections] = []
    newest: tuple[str, int] | None = None
    boxes, arrived, begun = NOTHING, {}, (0, 0)
    for event in events:
        if isinstance(event, FrameArrived) and event.camera == camera:
            arrived[event.frame] = to_seconds(event.time_ns)
            begun = begun if event.view == begun[0] else (event.view, event.frame)
            seen = newest is not None and newest[1] >= begun[1]
            sources.append(newest if seen else None)
            moved = boxes if forecast is None else forecast.at(to_seconds(event.time_ns))
            shown.append(moved if seen else NOTHING)
        elif isinstance(event, Inferred):
            for job, result in zip(event.jobs, event.results, strict=True):
                if job.camera == camera and (newest is None or job.frame >= newest[1]):
                    if forecast and newest and newest[1] < begun[1] <= job.frame:
                        forecast = Forecast.start()
                    newest, boxes = (event.model, job.frame), Detections.from_json(result)
                    forecast = forecast and forecast.observe(boxes, arrived[job.frame])
    return sources, shown


def _state(choosers: Mapping[str, AnyChooser], machine: Machine, query: QueryConfig) -> State:
    """A box before its first frame; without a memory limit all models fit."""
    names = tuple(machine.seconds)
    queries = [
        QuerySpec(name, name, query.model, 0, NS // 2, NS, ladder=names, forecast=query.forecast) for name in choosers
    ]
    models = [ModelSpec(name, {name: machine.bytes.get(name, 1)}) for name in names]
    room = sum(model.bytes for model in models)
    return State.start(queries, models, room if machine.memory is None else machine.memory, choosers)
