"""The box: cameras, models and queries wired to the loop.

    with Box(config) as box:
        box.run(seconds=60)
        print(box.report().queries)

Starting resolves models, opens the store and the log and starts a reader per camera; `run` is the
loop. A camera or model that fails at run time is retried while all others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from edgeward.clock import WallClock, to_ns
from edgeward.serve.actions import Choose
from edgeward.serve.analysis import Analysis
from edgeward.serve.answering import answering, device_name, with_variants
from edgeward.serve.beginnings import begin_together
from edgeward.serve.buffer import FrameBuffer
from edgeward.serve.config import BoxConfig, CameraConfig
from edgeward.serve.events import CameraChanged, Decided, Event, FrameArrived, Inferred
from edgeward.serve.executor import Executor, Observer
from edgeward.serve.fused import with_fused
from edgeward.serve.lock import hold_folder
from edgeward.serve.log import EventLog
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import ServedModel, default_cache
from edgeward.serve.policies import policy_named
from edgeward.serve.runner import Runner
from edgeward.serve.state import State
from edgeward.serve.store import ResultStore, StoredEvent, StoredResult
from edgeward.serve.telemetry import Telemetry
from edgeward.serve.view import View
from edgeward.serve.wiring import (
    check_camera,
    check_tasks,
    check_truths,
    every_frame_models,
    loggable,
    no_plans,
    query_spec,
    resolve,
    scorers,
)
from edgeward.serve.workers import Workers
from edgeward.vision.draw import thumbnail
from edgeward.vision.frames import Frame
from edgeward.vision.reader import CameraReader, Pace
from edgeward.vision.truth import Truth
from edgeward.weights.session import best_provider
from edgeward.weights.store import WeightStore

__all__ = ["Box"]

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 3.0
"""How long a stopping box goes on answering frames that have already arrived."""


class Box(View):
    """One running box; see `View` for what can be asked of it. Not restartable.

    truths: ground truth by camera, to score results against.
    progress: told in words what is being prepared.
    open_plan: makes a model of an entry that names a plan (see `edgeward.engine.deployed`).

    Raises an EdgewardError for whatever in the configuration cannot work, before anything starts.
    """

    def __init__(
        self,
        config: BoxConfig,
        truths: Mapping[str, Truth] | None = None,
        progress: Callable[[str], None] = lambda text: None,
        open_plan: Callable[[ModelConfig], ServedModel] = no_plans,
    ) -> None:
        policy = policy_named(config.policy)
        for camera in config.cameras:
            check_camera(camera)
        check_truths(config, truths or {})
        cache = config.cache or default_cache()
        provider = best_provider(config.budget.device)
        self._weights = WeightStore(cache / "weights")
        resolved: dict[str, ServedModel] = {}
        for model in config.models:
            progress(f"preparing model {model.name}")
            resolved[model.name] = resolve(model, self._weights, cache, provider) or open_plan(model)
        whole = with_fused(config, with_variants(config, resolved))
        self.asked = answering(config, whole, device_name(provider, config.budget.compute_threads))
        check_tasks(config, self.asked)
        for note in dict.fromkeys(note for each in self.asked.values() for note in each.notes):
            progress(note)
        cameras = {
            name: {query.camera for query in config.queries if name in self.asked[query.key].needed} for name in whole
        }
        self.models = begin_together(whole, cameras, progress)
        self.config = config
        self.status: Literal["starting", "running", "draining", "stopped"] = "starting"
        self.device = f"{provider}, {config.budget.compute_threads} thread(s)"
        self.analyses = {
            query.key: Analysis(query, self.asked[query.key].labels, self.asked[query.key].dialects)
            for query in config.queries
        }
        state = State.start(
            [query_spec(config, query, self.asked[query.key]) for query in config.queries],
            [model.spec for model in self.models.values()],
            config.budget.memory,
            {name: each.chooser for name, each in self.asked.items() if each.chooser is not None},
        )
        self.telemetry = Telemetry()
        self.scorers = scorers(config, self.asked, truths or {})
        self.buffer = FrameBuffer(
            [camera.name for camera in config.cameras],
            [camera.name for camera in config.cameras if camera.backpressure == "every_frame"],
        )
        self._runner = Runner(self.models, config.budget.compute_threads)
        for name in self.models:
            self._runner.rehearse(name)
        self.clock = WallClock()
        self.started_at = time.time()
        self._every_frame_models = {camera.name: every_frame_models(config, camera) for camera in config.cameras}
        self._workers = Workers(self._runner, self.buffer, self.analyses, self._post)
        self._executor = Executor(state, policy, self.clock, self._workers)
        self._lock = hold_folder(config.data)
        self.store = ResultStore(config.data, config.store) if config.store.enabled else None
        self.log = EventLog(config.data / "log", loggable(config, self.asked), state, config.store.log_bytes)
        self._executor.observers += [self.log.append, self.telemetry.observe, self._after]
        self._stopping = threading.Event()
        self.readers = {camera.name: self._reader(camera) for camera in config.cameras}

    def observe(self, observer: Observer) -> None:
        """Have `observer` told of every event, on the loop's thread; before `run`."""
        self._executor.observers.append(observer)

    def start(self) -> None:
        """Start the workers and a reader per camera."""
        self.clock.restart()
        self.started_at = time.time()
        self._workers.start()
        for reader in self.readers.values():
            reader.start()
        self.status = "running"

    def run(self, seconds: float | None = None) -> None:
        """Be the loop until `stop` is called, `seconds` have passed, or all cameras have ended.

        Then answers what has already arrived, for at most a few seconds, and returns.
        """
        end_ns = None if seconds is None else self.clock.now_ns() + to_ns(seconds)

        def finished() -> bool:
            over = end_ns is not None and self.clock.now_ns() >= end_ns
            return over or self._stopping.is_set() or (self._cameras_ended() and self._executor.idle)

        self._executor.run(finished)
        self._drain()

    def stop(self) -> None:
        """Ask `run` to end; from any thread or a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of everything; what is queued for the disk is written first."""
        self._stopping.set()
        for reader in self.readers.values():
            reader.stopping.set()
        for reader in self.readers.values():
            reader.stop(timeout=1.0)
        self._workers.stop(timeout=1.0)
        self._runner.close()
        for scorer in self.scorers.values():
            scorer.settle()
        if self.store is not None:
            self.store.close()
        self.log.close()
        self._lock.release()
        self.status = "stopped"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drain(self) -> None:
        self.status = "draining"
        for reader in self.readers.values():
            reader.stopping.set()
        end_ns = self.clock.now_ns() + to_ns(DRAIN_SECONDS)
        self._executor.run(lambda: self._executor.idle or self.clock.now_ns() >= end_ns)

    def _cameras_ended(self) -> bool:
        return all(self.state.cameras[query.camera].status == "ended" for query in self.config.queries)

    def _reader(self, camera: CameraConfig) -> CameraReader:
        return CameraReader(
            camera.name,
            camera.source,
            on_frame=partial(self._on_frame, camera.name),
            on_status=partial(self._on_status, camera.name),
            pace=Pace(rate=camera.rate, loop=camera.loop),
        )

    def _on_frame(self, camera: str, frame: Frame) -> None:
        inputs = {model: self._runner.prepare(model, frame.image) for model in self._every_frame_models[camera]}
        if self.buffer.put(camera, frame, self.readers[camera].stopping, inputs):
            height, width = frame.image.shape[:2]
            self._executor.post(FrameArrived(0, camera, frame.index, frame.content_index, width, height, frame.view))

    def _on_status(self, camera: str, status: Any, detail: str) -> None:
        self._executor.post(CameraChanged(0, camera, status, detail))

    def _post(self, event: Event) -> None:
        self._executor.post(event)

    def _after(self, event: Event, state: State) -> None:
        """What follows from an event outside the loop: frames let go, results stored and scored."""
        match event:
            case FrameArrived(camera=camera):
                self._release(camera, state)
                if camera in self.scorers:
                    self.scorers[camera].arrived(event)
                if event.view and camera in state.cameras and event.frame == state.cameras[camera].since:
                    self._tell(StoredEvent(time.time(), "camera", camera, None, f"{camera} shows another view"))
            case Inferred():
                for camera in {job.camera for job in event.jobs}:
                    self._release(camera, state)
                self._keep_results(event)
            case Decided(action=Choose() as choose) if not choose.probe:
                for query in choose.models:
                    camera = state.queries[query].spec.camera
                    self._tell(StoredEvent(time.time(), "model", camera, query, f"{query}: {choose.reason}"))
            case CameraChanged(camera=camera, status=status, detail=detail):
                self._tell(StoredEvent(time.time(), "camera", camera, None, f"{camera} {status} {detail}".strip()))
            case _:
                pass

    def _release(self, camera: str, state: State) -> None:
        wanted = {job.frame for query in state.queries.values() for job in query.jobs if job.camera == camera}
        running = state.processor.action if state.processor else None
        if running is not None and running.kind == "infer":
            wanted |= {job.frame for job in running.jobs if job.camera == camera}
        newest = state.cameras[camera].frame if camera in state.cameras else 1 << 62
        self.buffer.keep(camera, wanted, newest)

    def _keep_results(self, event: Inferred) -> None:
        now = time.time()
        for job, result in zip(event.jobs, event.results, strict=True):
            if job.camera in self.scorers:
                self.scorers[job.camera].answered(event, job, result)
            if self.store is not None:
                self.store.add(StoredResult(job.query, job.camera, job.frame, now, result))
            for happening in self.analyses[job.query].happenings():
                behind = self.store is None or self.store.behind
                picture = None if behind else partial(thumbnail, happening.frame.image, happening.box, 160)
                self._tell(StoredEvent(now, happening.kind, job.camera, job.query, happening.text, picture))

    def _tell(self, event: StoredEvent) -> None:
        logger.info(event.text)
        if self.store is not None:
            self.store.add(event)
