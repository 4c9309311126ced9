"""The box's two hands: one thread that infers, one that loads.

    workers = Workers(runner, buffer, analyses, post=executor.post)
    workers.start(); ...; workers.stop()

Loading has its own thread so that it never holds up inference on models already in memory.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from edgeward.clock import Working
from edgeward.errors import EdgewardError
from edgeward.serve.actions import Evict, Infer, Load, Switch
from edgeward.serve.analysis import Analysis
from edgeward.serve.buffer import FrameBuffer, Held
from edgeward.serve.events import Event, Failed, Inferred, Loaded, Second, Switched
from edgeward.serve.inturn import Turns
from edgeward.serve.runner import PartError, Prepared, Runner, blaming
from edgeward.vision.results import Result

__all__ = ["Workers"]

Picture = tuple[str, int]
A = TypeVar("A", Infer, Load, Switch)

logger = logging.getLogger(__name__)


class Workers:
    """Carries out decisions (see `Hands`) and posts their outcomes."""

    def __init__(
        self, runner: Runner, buffer: FrameBuffer, analyses: Mapping[str, Analysis], post: Callable[[Event], None]
    ) -> None:
        self._runner = runner
        self._buffer = buffer
        self._analyses = analyses
        self._post = post
        self._turns = Turns()
        self._working: Working | None = None  # of the processor's thread, which makes it
        self._processor: _Lane = _Lane("edgeward-processor")
        self._loader: _Lane = _Lane("edgeward-loader")

    def start(self) -> None:
        """Start both threads."""
        self._processor.start()
        self._loader.start()

    def stop(self, timeout: float) -> None:
        """End both threads after what they are doing, waiting at most `timeout` seconds for each."""
        self._processor.stop(timeout)
        self._loader.stop(timeout)

    def infer(self, number: int, action: Infer) -> None:
        """Run a batch on the processor thread."""
        self._processor.do(lambda: self._attempt(number, action, self._infer))

    def load(self, number: int, action: Load) -> None:
        """Load a model on the loader thread."""
        self._loader.do(lambda: self._attempt(number, action, self._load))

    def switch(self, number: int, action: Switch) -> None:
        """Change a model's variant on the loader thread."""
        self._loader.do(lambda: self._attempt(number, action, self._switch))

    def evict(self, action: Evict) -> None:
        """Free a model at once, on the calling thread."""
        self._runner.evict(action.model, action.keep_for)

    def _infer(self, number: int, action: Infer) -> Event:
        self._working = working = self._working or Working()
        began = working.now_ns()
        held = {(job.camera, job.frame): self._buffer.get(job.camera, job.frame) for job in action.jobs}
        # The model in charge comes first: what it has in common with those beside it is part of its own time.
        by_frame, whole, part = self._answers(action.model, action, held)
        seconds = [self._second(model, action, held, working) for model in action.also]
        also = tuple(second for second in seconds if second is not None)
        results, expected, found = [], [], []
        for job in action.jobs:
            analysis, picture = self._analyses[job.query], (job.camera, job.frame)
            results.append(analysis.take(held[picture].frame, by_frame[picture], action.model, part).to_json())
            expected.append(None if analysis.expected is None else analysis.expected.to_json())
            found.append(None if analysis.found is None else analysis.found.to_json())
        return Inferred(
            0,
            number,
            action.model,
            action.jobs,
            tuple(results),
            also,
            expected=tuple(expected) if any(expected) else (),
            found=tuple(found) if any(found) else (),
            whole=whole,
            part=part,
            worked_ns=max(working.since(began) - sum(second.worked_ns for second in also), 0),
        )

    def _answers(
        self, model: str, action: Infer, held: Mapping[Picture, Held]
    ) -> tuple[dict[Picture, Result], bool, str]:
        """Also whether the model did all of the work itself, and of models in turn which one (see `Inferred`)."""
        queries = {job.query for job in action.jobs}
        due = self._turns.due(model, queries)
        part = "" if due == model else due
        floor = min(self._analyses[job.query].floor(model, part) for job in action.jobs)
        with blaming(due, model):
            pictures = [self._input(due, each) for each in held.values()]
            whole = not self._runner.begun(due, pictures)
            found = dict(zip(held, self._runner.infer(due, pictures, floor), strict=True))
        self._turns.looked(due, queries)
        return found, whole, part

    def _second(self, model: str, action: Infer, held: Mapping[Picture, Held], working: Working) -> Second | None:
        """What another model says of the same pictures; nothing when it fails, which is no fault of the main one."""
        started, began = time.perf_counter_ns(), working.now_ns()
        try:
            by_frame, whole, part = self._answers(model, action, held)
        except Exception as error:
            logger.warning("%s could not be compared: %s", model, error)
            return None
        results = []
        for job in action.jobs:
            picture = (job.camera, job.frame)
            seen = self._analyses[job.query].seen(held[picture].frame, by_frame[picture], model, part)
            results.append(seen.to_json())
        worked_ns, took_ns = working.since(began), time.perf_counter_ns() - started
        return Second(model, took_ns, tuple(results), whole, part, worked_ns)

    def _input(self, model: str, held: Held) -> Prepared:
        return held.inputs.get(model) or self._runner.prepare(model, held.frame.image)

    def _load(self, number: int, action: Load) -> Event:
        self._runner.load(action.model, action.variant)
        return Loaded(0, number, action.model)

    def _switch(self, number: int, action: Switch) -> Event:
        self._runner.switch(action.model, action.variant)
        return Switched(0, number, action.model, action.variant)

    def _attempt(self, number: int, action: A, work: Callable[[int, A], Event]) -> None:
        """Whatever goes wrong with one model must not stop the others: it becomes an event."""
        try:
            outcome = work(number, action)
        except Exception as error:
            part = error.part if isinstance(error, PartError) else ""
            why = str(error) if part else f"{type(error).__name__}: {error}"
            if not isinstance(error.__cause__ if part else error, EdgewardError):
                logger.exception("%s of %s failed", action.kind, action.model)
            outcome = Failed(0, number, action.model, action.kind, why[:500], part)
        self._post(outcome)


class _Lane:
    """A thread that does one thing after another."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def stop(self, timeout: float) -> None:
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
