"""`edgeward serve`: run a box from one YAML file.

edgeward serve box.yaml --set budget.memory="64 MiB"
edgeward serve                       # the bundled street clip
edgeward serve calibrate box.yaml    # what the models of its ladders are worth on this device
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeward.cli.calibrate import calibrate
from edgeward.cli.group import usually
from edgeward.cli.output import note, percent, print_json, seconds, show_table, split_truths
from edgeward.errors import ConfigError, SourceError
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from edgeward.serve.box import Box
    from edgeward.serve.config import BoxConfig
    from edgeward.serve.modelconfig import ModelConfig
    from edgeward.serve.models import ServedModel
    from edgeward.serve.report import BoxReport

__all__ = ["app", "serve"]

app = typer.Typer(
    cls=usually("run", help_too=True), help="Serve models on cameras: edgeward serve box.yaml.", rich_markup_mode=None
)
app.command("calibrate")(calibrate)


@app.command("run")
def serve(
    config: Annotated[Path | None, typer.Argument(help="The box file; the bundled street clip when absent.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: cameras.street.rate=5.")] = None,
    truth: Annotated[
        list[str] | None, typer.Option(help="Score a camera: camera=gt.txt (MOTChallenge text or COCO JSON).")
    ] = None,
    seconds_: Annotated[float | None, typer.Option("--seconds", min=0, help="Stop after this long.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the box file and exit.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check the file and its models, then exit.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the final report as JSON.")] = False,
) -> None:
    """Serve models on cameras within a memory budget, and show it on a page.

    `edgeward serve calibrate` measures the models of a ladder, among which the box then chooses.
    """
    if schema:
        from edgeward.serve.config import schema as box_schema

        print_json(box_schema())
        return
    from edgeward.serve.configfile import load_config

    if seconds_ is not None and not math.isfinite(seconds_):
        raise ConfigError(f"--seconds is {seconds_}; give a number, or leave it away to go on until Ctrl-C")
    settings = load_config(config, set_ or [])
    box = _prepared(settings, split_truths(truth or []))
    if check:
        box.close()
        note(f"{config or 'the bundled default'}: {len(settings.queries)} queries can be served")
        return
    with _page(box, settings), box:
        _announce(box)
        with _stopped_by_signals(box):
            box.run(seconds_)
        endings = box.state.cameras.values()
    report = box.report()
    if all(camera.status == "ended" for camera in endings):
        note("all recordings have ended")
    if json_:
        print_json(report.model_dump(mode="json"))
    else:
        _summary(report)
    if not any(camera.frames for camera in report.cameras):
        raise SourceError("no camera delivered a single frame; see above for what is wrong with each")


def _prepared(config: BoxConfig, truths: dict[str, Path]) -> Box:
    from edgeward.serve.box import Box
    from edgeward.vision.truth import load_truth

    loaded = {camera: load_truth(path) for camera, path in truths.items()}
    return Box(config, loaded, progress=note, open_plan=_planned)


def _planned(model: ModelConfig) -> ServedModel:
    """A model that runs on several hosts; torch is imported only for a box that has one."""
    from edgeward.cli.split import crew_options
    from edgeward.engine.deployed import open_plan

    return open_plan(model, reach=crew_options, note=note)


@contextmanager
def _page(box: Box, config: BoxConfig) -> Iterator[None]:
    """The web server, started before the cameras so that a port in use is found first."""
    if not config.web.enabled:
        yield
        return
    from edgeward.web.server import WebServer

    server = WebServer(box, port=config.web.port)
    try:
        server.start()
    except BaseException:
        box.close()
        raise
    note(f"edgeward is at {server.url}   (Ctrl-C stops it)")
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _stopped_by_signals(box: Box) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C drain the box instead of killing it."""

    def stop(number: int, frame: Any) -> None:
        box.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(box: Box) -> None:
    """Say what becomes of each camera, and how long it took until the first answer: what a newcomer waits for."""
    from edgeward.serve.events import CameraChanged, Event, Inferred
    from edgeward.serve.state import State

    said = threading.Event()

    def observe(event: Event, state: State) -> None:
        if isinstance(event, CameraChanged) and event.status != "connecting":
            note(f"camera {event.camera}: {event.status}{f', {event.detail}' if event.detail else ''}")
        if isinstance(event, Inferred) and not said.is_set():
            said.set()
            note(f"first result after {box.clock.now_ns() / 1e9:.1f} s")

    box.observe(observe)


def _summary(report: BoxReport) -> None:
    note(f"served for {report.uptime_seconds:.1f} s on {report.device}")
    show_table(
        "Queries",
        ["query", "camera", "model", "due", "in time", "late", "skipped", "fps"],
        [
            [q.name, q.camera, q.model, q.due, percent(q.in_time_fraction), q.late, q.skipped, f"{q.fps:.1f}"]
            for q in report.queries
        ],
    )
    show_table(
        "Cameras",
        ["camera", "source", "size", "frames", "skipped"],
        [[c.name, c.source, f"{c.width}x{c.height}", c.frames, c.skipped] for c in report.cameras],
    )
    show_table(
        "Models",
        ["model", "memory", "loads", "load", "inferences", "median", "95 %"],
        [
            [m.name, format_bytes(m.bytes), m.loads, seconds(m.load_seconds_median)]
            + [m.inferences, seconds(m.seconds_median), seconds(m.seconds_p95)]
            for m in report.models
        ],
    )
    scored = [query for query in report.queries if query.accuracy]
    for query in scored:
        figures = query.accuracy or {}
        show_table(f"Accuracy of {query.name}", list(figures), [[f"{value:.3f}" for value in figures.values()]])
