"""What follows from a box's configuration before anything runs: checks, query specs, scorers.

for camera in config.cameras:
    check_camera(camera)
specs = [query_spec(config, query, asked[query.key]) for query in config.queries]
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeward.clock import to_ns
from edgeward.errors import ConfigError, EdgewardError, nearest
from edgeward.serve.answering import Answering
from edgeward.serve.config import BoxConfig, CameraConfig, QueryConfig
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import ServedModel, resolve_model
from edgeward.serve.portfolio import resolve_portfolio
from edgeward.serve.score import Scorer
from edgeward.serve.state import QuerySpec
from edgeward.vision.metrics.tracks import load_trackeval
from edgeward.vision.sources import check_source, redact
from edgeward.vision.truth import Truth
from edgeward.weights.store import WeightStore

__all__ = [
    "check_camera",
    "check_tasks",
    "check_truths",
    "detection_labels",
    "every_frame_models",
    "loggable",
    "no_plans",
    "query_spec",
    "resolve",
    "scorers",
]


def every_frame_models(config: BoxConfig, camera: CameraConfig) -> set[str]:
    """The models that are sure to answer every frame of a camera: its own thread prepares their inputs."""
    if camera.backpressure != "every_frame":
        return set()
    asked = {query.model for query in config.queries if query.camera == camera.name and query.rate is None}
    return asked - {ladder.name for ladder in config.ladders}


def check_tasks(config: BoxConfig, asked: Mapping[str, Answering]) -> None:
    """Refuse queries that ask a model for what it cannot do."""
    for query in config.queries:
        task = asked[query.key].task
        if query.task not in (None, task):
            raise ConfigError(f"query {query.key!r} wants {query.task}, but model {query.model!r} does {task}")
        for field, does in (("tracker", "follows"), ("remember", "keeps")):
            if getattr(query, field) and task != "detection":
                raise ConfigError(f"query {query.key!r}: {field!r} {does} boxes, but model {query.model!r} does {task}")


def resolve(model: ModelConfig, store: WeightStore, cache: Path, provider: str) -> ServedModel | None:
    """The model of an entry that runs in this process, None when a plan says that it runs elsewhere."""
    if model.plan is not None:
        return None
    served = resolve_model if model.portfolio is None else resolve_portfolio
    return served(model, store, cache, provider)


def no_plans(model: ModelConfig) -> ServedModel:
    """ConfigError: a box that was told of no other place runs all models in its own process."""
    raise ConfigError(
        f"model {model.name!r} names a plan, but this box runs models in its own process only; start it with "
        "`edgeward serve`, or give Box(open_plan=...) of edgeward.engine.deployed"
    )


def check_camera(camera: CameraConfig) -> None:
    """ConfigError, naming the camera, for a source that can never work; opens nothing."""
    try:
        check_source(camera.source)
    except ConfigError as error:
        raise ConfigError(f"camera {camera.name!r}: {error}") from error


def check_truths(config: BoxConfig, truths: Mapping[str, Truth]) -> None:
    """ConfigError for the truth of a camera that the box has not."""
    cameras = [camera.name for camera in config.cameras]
    for camera in truths:
        if camera not in cameras:
            raise ConfigError(f"--truth names camera {camera!r}, which the box has not; {nearest(camera, cameras)}")


def scorers(config: BoxConfig, asked: Mapping[str, Answering], truths: Mapping[str, Truth]) -> dict[str, Scorer]:
    """One scorer per camera whose truth is known."""
    if truths:
        with contextlib.suppress(EdgewardError):  # scores without it say so themselves
            load_trackeval()
    labels = detection_labels(asked)
    places = {query.key: query.camera for query in config.queries}
    forecasts = frozenset(query.key for query in config.queries if query.forecast)
    for query, names in labels.items():
        truth = truths.get(places[query])
        if truth is not None and not set(names) & set(truth.labels):
            raise ConfigError(
                f"the truth of camera {places[query]!r} annotates {', '.join(truth.labels)}, but query {query!r} "
                f"answers {', '.join(names[:5])}: nothing can match; correct 'labels' or leave the truth away"
            )
    return {
        camera: Scorer(truth, {query: names for query, names in labels.items() if places[query] == camera}, forecasts)
        for camera, truth in truths.items()
    }


def loggable(config: BoxConfig, asked: Mapping[str, Answering]) -> dict[str, Any]:
    """The configuration as the log's header holds it: without passwords in URLs, with the labels scores need."""
    record = config.model_dump(mode="json")
    for camera in record["cameras"]:
        camera["source"] = redact(camera["source"])
    record["labels"] = detection_labels(asked)
    return record


def detection_labels(asked: Mapping[str, Answering]) -> dict[str, tuple[str, ...]]:
    """The class names of each query whose answers are boxes."""
    return {query: each.labels for query, each in asked.items() if each.task == "detection"}


def query_spec(config: BoxConfig, query: QueryConfig, asked: Answering) -> QuerySpec:
    """A query as the loop sees it."""
    camera = next(camera for camera in config.cameras if camera.name == query.camera)
    return QuerySpec(
        name=query.key,
        camera=query.camera,
        model=query.model,
        period_ns=to_ns(1 / query.rate) if query.rate else 0,
        deadline_ns=to_ns(query.deadline),
        max_staleness_ns=to_ns(camera.max_staleness),
        every_frame=camera.backpressure == "every_frame",
        ladder=asked.ladder,
        forecast=query.forecast,
    )
