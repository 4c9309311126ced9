"""The one file that describes a box: cameras, models, queries, budget, store.

    config = load_config(Path("box.yaml"), overrides=["budget.memory=64 MiB"])
    print(config.cameras[0].source)

Every value is checked before anything starts. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeward.errors import nearest
from edgeward.serve.modelconfig import GuardConfig, LadderConfig, ModelConfig, Name, Seconds, Section
from edgeward.units import parse_bytes

__all__ = [
    "BoxConfig",
    "BudgetConfig",
    "CameraConfig",
    "QueryConfig",
    "StoreConfig",
    "WebConfig",
    "ZoneConfig",
    "schema",
]

Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, json_schema_extra={"type": ["integer", "string"]})]
Point = tuple[float, float]


def _webcam_number(source: Any) -> Any:
    """`source: 0` in YAML is a number; it names the first webcam."""
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else source


class CameraConfig(Section):
    """Where frames come from."""

    name: Name
    source: Annotated[str, BeforeValidator(_webcam_number)] = Field(
        min_length=1, description="a file, rtsp://, http://, webcam:0, a folder of images, package://bikes, test://"
    )
    loop: bool = Field(False, description="start a file again when it ends")
    rate: Annotated[float, Field(gt=0, le=1000)] | Literal["max"] | None = Field(
        None, description="frames per second at which a file is played; its own when absent; 'max' is as fast as asked"
    )
    backpressure: Literal["freshest", "every_frame"] = Field(
        "freshest", description="freshest: a newer frame replaces one that waits; every_frame: the source waits"
    )
    max_staleness: Seconds = Field(1.0, description="seconds after which a waiting frame is given up (freshest)")


class ZoneConfig(Section):
    """A polygon in which tracked objects are counted; pixels, or fractions of the frame when all are in 0..1."""

    name: Name
    polygon: tuple[Point, ...] = Field(min_length=3, max_length=64)
    anchor: Literal["bottom", "centre"] = Field(
        "bottom", description="which point of a box must lie inside: where somebody stands, or its centre"
    )

    @model_validator(mode="after")
    def _inside(self) -> Self:
        outside = [corner for corner in self.polygon if min(corner) < 0 or 1 < max(corner) <= 2]
        if outside and max(max(corner) for corner in self.polygon) <= 2:
            raise ValueError(f"corner {list(outside[0])} lies outside the picture; fractions are from 0 to 1")
        return self


class QueryConfig(Section):
    """What is wanted: a camera, a model, how often, how soon."""

    name: Name | None = Field(None, description="<camera>-<model> when absent")
    camera: Name
    model: Name = Field(description="a model or a ladder")
    task: Literal["detection", "classification", "embedding"] | None = Field(
        None, description="when given, the model must be of this task"
    )
    rate: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="answers per second; every frame when absent"
    )
    deadline: Seconds = Field(0.5, description="seconds after its arrival within which a frame's answer is in time")
    classes: tuple[str, ...] | None = Field(None, description="keep only these classes")
    confidence: float = Field(0.3, ge=0, le=1)
    tracker: bool = Field(False, description="follow objects with ByteTrack (detection only)")
    forecast: bool = Field(False, description="show boxes where their tracks are by now, not where they were found")
    remember: bool = Field(False, description="let what was found in the last moments count, too (detection only)")
    zones: tuple[ZoneConfig, ...] = ()

    @property
    def key(self) -> str:
        """The query's name, given or made."""
        return self.name or f"{self.camera}-{self.model}"

    @model_validator(mode="after")
    def _zones_need_tracks(self) -> Self:
        if self.zones and not self.tracker:
            raise ValueError("zones count tracked objects: add 'tracker: true'")
        if self.forecast and not self.tracker:
            raise ValueError("a forecast follows tracked objects: add 'tracker: true'")
        return self


class BudgetConfig(Section):
    """What the box may use."""

    memory: Bytes = Field(256 << 20, description="bytes of model weights held at once")
    threads: int | None = Field(None, ge=1, le=256, description="compute threads; one core is left free when absent")
    device: Literal["auto", "cpu", "cuda", "openvino"] = "auto"

    @property
    def compute_threads(self) -> int:
        """The number of threads to compute with."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores - 1)


class StoreConfig(Section):
    """What is kept of results, and for how long."""

    enabled: bool = True
    keep_days: float = Field(7, gt=0)
    keep_bytes: Bytes = Field(1 << 30, description="bytes of the store; the oldest is dropped beyond")
    jsonl: bool = Field(False, description="also write results.jsonl beside the database")
    log_bytes: Bytes = Field(256 << 20, description="bytes of event log kept; the oldest segments are dropped beyond")


class WebConfig(Section):
    """The page and the API, on this machine's loopback address only."""

    enabled: bool = True
    port: int = Field(8080, ge=0, le=65535, description="0 takes any free port")


class BoxConfig(Section):
    """The whole file."""

    cameras: tuple[CameraConfig, ...] = Field(min_length=1)
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    ladders: tuple[LadderConfig, ...] = ()
    queries: tuple[QueryConfig, ...] = Field(min_length=1)
    budget: BudgetConfig = BudgetConfig()
    policy: str = "edf"
    store: StoreConfig = StoreConfig()
    web: WebConfig = WebConfig()
    data: Path = Field(Path("box-data"), description="folder for the database and the event log")
    cache: Path | None = Field(None, description="folder for exported models and weights; the user's cache when absent")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for kind, names in (
            ("cameras", [camera.name for camera in self.cameras]),
            ("models and ladders", [*(model.name for model in self.models), *(ladder.name for ladder in self.ladders)]),
            ("queries", [query.key for query in self.queries]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind}: two are named {twice[0]!r}; give each its own 'name'")
        models = [model.name for model in self.models]
        for query in self.queries:
            _known("camera", query, [camera.name for camera in self.cameras])
            _known("model", query, [*models, *(ladder.name for ladder in self.ladders)])
        for model in self.models:
            taken = [name for name in models if model.portfolio is not None and name.startswith(f"{model.name}.")]
            if taken:
                raise ValueError(f"model {taken[0]!r} is named like a variant of portfolio {model.name!r}; rename it")
        for ladder in self.ladders:
            for name in ladder.members:
                if name in models:
                    continue
                of = next(
                    (each.name for each in self.models if each.portfolio and name.startswith(f"{each.name}.")), None
                )
                whole = "a portfolio is listed whole, and is no part of a rung of several models"
                why = nearest(name, models) if of is None else f"it is a variant of {of!r}; {whole}"
                raise ValueError(f"ladder {ladder.name!r} lists model {name!r}; {why}")
        return self

    @model_validator(mode="after")
    def _guards_fit(self) -> Self:
        models = {model.name: model for model in self.models}
        for model in self.models:
            if model.guard is None:
                continue
            original, where = model.guard.original, f"model {model.name!r}: guard"
            others = [name for name in models if name != model.name]
            if original == model.name:
                raise ValueError(f"{where} compares it with itself; 'original' names the model that it was made from")
            if original not in models:
                known = nearest(original, others) if others else "list the model that it was made from"
                raise ValueError(f"{where} names original {original!r}, which does not exist; {known}")
            if models[original].guard is not None:
                raise ValueError(
                    f"{where} names original {original!r}, which has a guard itself; take one of them away"
                )
            ladder = next((each.name for each in self.ladders if model.name in each.members), None)
            if ladder is not None:
                raise ValueError(
                    f"{where} does not go with ladder {ladder!r}, which chooses among its models itself; take the "
                    "guard away, or the model off the ladder"
                )
        return self

    def guard(self, name: str) -> GuardConfig | None:
        """The guard of the model of that name, None when it has none."""
        return next((model.guard for model in self.models if model.name == name), None)

    def ladder(self, name: str) -> LadderConfig | None:
        """The ladder of that name, None when there is none."""
        return next((ladder for ladder in self.ladders if ladder.name == name), None)

    def resolved(self, base: Path) -> BoxConfig:
        """The same with paths of files taken relative to `base`, the folder of the YAML file."""
        models = tuple(model.resolved(base) for model in self.models)
        ladders = tuple(
            ladder.model_copy(update={"calibration": base / ladder.calibration.expanduser()}) for ladder in self.ladders
        )
        cameras = tuple(camera.model_copy(update={"source": _located(camera.source, base)}) for camera in self.cameras)
        cache = base / self.cache.expanduser() if self.cache else None
        data = base / self.data.expanduser()
        update = {"models": models, "ladders": ladders, "cameras": cameras, "data": data, "cache": cache}
        return self.model_copy(update=update)


def _known(field: str, query: QueryConfig, names: Sequence[str]) -> None:
    wanted = getattr(query, field)
    if wanted not in names:
        raise ValueError(
            f"query {query.key!r} asks for {field} {wanted!r}, which does not exist; {nearest(wanted, names)}"
        )


def _located(source: str, base: Path) -> str:
    """A file path relative to `base`; URLs and webcam numbers as they are."""
    if re.match(r"^[a-z][a-z0-9+.\-]*:", source, re.IGNORECASE) or source.isdigit():
        return source
    return str(base / Path(source).expanduser())


def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return BoxConfig.model_json_schema()
