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

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgeward.errors import nearest
from edgeward.units import parse_bytes

__all__ = [
    "BoxConfig",
    "BudgetConfig",
    "CameraConfig",
    "InputConfig",
    "ModelConfig",
    "QueryConfig",
    "StoreConfig",
    "WebConfig",
    "ZoneConfig",
    "schema",
]

Name = Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$", description="letters, digits, '_', '.', '-'; at most 64")]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0, json_schema_extra={"type": ["integer", "string"]})]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Point = tuple[float, float]
PLAN_KEYS = ("network", "weights", "fleet", "profile", "certs", "standby")
"""Of a model's entry, what only a plan makes use of."""


def _webcam_number(source: Any) -> Any:
    """`source: 0` in YAML is a number; it names the first webcam."""
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else source


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CameraConfig(_Section):
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


class InputConfig(_Section):
    """How a frame becomes the model's input; what is left out follows the model's convention."""

    height: int | None = Field(None, ge=8, le=8192)
    width: int | None = Field(None, ge=8, le=8192)
    colour: Literal["bgr", "rgb"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    fit: Literal["stretch", "letterbox"] | None = None


class ModelConfig(_Section):
    """A packaged model by name (`use`), an ONNX file (`file`, `convention`), variants of which the box chooses
    (`portfolio`, `convention`), or a network on several hosts (`plan`)."""

    name: Name
    use: str | None = Field(None, description="a packaged model or architecture: see `edgeward models`")
    file: Path | None = Field(None, description="an ONNX file, or the weights of the architecture named by `use`")
    task: Literal["detection", "classification", "embedding"] | None = None
    convention: str | None = Field(None, description="how the outputs are to be read: yolov8, ssd, fastestdet, ...")
    labels: tuple[str, ...] | Path | Literal["coco"] | None = Field(
        None, description="class names: a list, a text file with one a line, or 'coco'"
    )
    input: InputConfig = InputConfig()
    max_batch: int = Field(4, ge=1, le=64, description="frames of different cameras run together at most")
    portfolio: Path | None = Field(
        None, description="a folder by `edgeward prune portfolio`: the box changes between its variants by load"
    )
    plan: Path | None = Field(None, description="a plan by `edgeward plan -o`: the model runs split, on several hosts")
    network: str | None = Field(None, description="of a plan: its network, when the plan's own name does not find it")
    weights: Path | None = Field(None, description="of a plan: the network's weights, safetensors or a state_dict")
    fleet: Path | None = Field(None, description="of a plan: where its nodes are; worker processes when absent")
    profile: Path | None = Field(None, description="of a plan: with it, plans follow what is measured")
    certs: Path | None = Field(None, description="of a plan: folder of certificates for nodes beyond this machine")
    standby: bool | None = Field(None, description="of a plan: keep the whole network ready here; true when absent")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("use", "file", "portfolio") if getattr(self, key) is not None]
        if self.plan is not None and given:
            raise ValueError(f"'plan' and '{given[0]}' exclude each other; keep one of them")
        of_plan = [key for key in PLAN_KEYS if getattr(self, key) is not None]
        if self.plan is None and of_plan:
            raise ValueError(f"'{of_plan[0]}' belongs to a 'plan'; add the plan or take '{of_plan[0]}' away")
        if self.portfolio is not None and len(given) > 1:
            raise ValueError(f"'portfolio' and '{given[0]}' exclude each other; keep one of them")
        if self.plan is None and not given:
            raise ValueError(
                "give either 'use' (a packaged model), 'file' (an ONNX file), 'portfolio' (variants of one) "
                "or 'plan' (several hosts)"
            )
        if given in (["file"], ["portfolio"]) and self.convention is None:
            raise ValueError("an ONNX file needs 'convention', how its outputs are to be read")
        return self

    def resolved(self, base: Path) -> ModelConfig:
        """The same with paths of files taken relative to `base`."""
        update: dict[str, Any] = {
            key: base / value.expanduser()
            for key in ("file", "labels", "portfolio", "plan", "weights", "fleet", "profile", "certs")
            if isinstance(value := getattr(self, key), Path)
        }
        if self.network is not None:
            update["network"] = _located_network(self.network, base)
        return self.model_copy(update=update)


class ZoneConfig(_Section):
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


class QueryConfig(_Section):
    """What is wanted: a camera, a model, how often, how soon."""

    name: Name | None = Field(None, description="<camera>-<model> when absent")
    camera: Name
    model: Name
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
    zones: tuple[ZoneConfig, ...] = ()

    @property
    def key(self) -> str:
        """The query's name, given or made."""
        return self.name or f"{self.camera}-{self.model}"

    @model_validator(mode="after")
    def _zones_need_tracks(self) -> Self:
        if self.zones and not self.tracker:
            raise ValueError("zones count tracked objects: add 'tracker: true'")
        return self


class BudgetConfig(_Section):
    """What the box may use."""

    memory: Bytes = Field(256 << 20, description="bytes of model weights held at once")
    threads: int | None = Field(None, ge=1, le=256, description="compute threads; one core is left free when absent")
    device: Literal["auto", "cpu", "cuda", "openvino"] = "auto"

    @property
    def compute_threads(self) -> int:
        """The number of threads to compute with."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores - 1)


class StoreConfig(_Section):
    """What is kept of results, and for how long."""

    enabled: bool = True
    keep_days: float = Field(7, gt=0)
    keep_bytes: Bytes = Field(1 << 30, description="bytes of the store; the oldest is dropped beyond")
    jsonl: bool = Field(False, description="also write results.jsonl beside the database")
    log_bytes: Bytes = Field(256 << 20, description="bytes of event log kept; the oldest segments are dropped beyond")


class WebConfig(_Section):
    """The page and the API, on this machine's loopback address only."""

    enabled: bool = True
    port: int = Field(8080, ge=0, le=65535, description="0 takes any free port")


class BoxConfig(_Section):
    """The whole file."""

    cameras: tuple[CameraConfig, ...] = Field(min_length=1)
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    queries: tuple[QueryConfig, ...] = Field(min_length=1)
    budget: BudgetConfig = BudgetConfig()
    policy: str = "edf-lru"
    store: StoreConfig = StoreConfig()
    web: WebConfig = WebConfig()
    data: Path = Field(Path("box-data"), description="folder for the database and the event log")
    cache: Path | None = Field(None, description="folder for exported models and weights; the user's cache when absent")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for kind, names in (
            ("cameras", [camera.name for camera in self.cameras]),
            ("models", [model.name for model in self.models]),
            ("queries", [query.key for query in self.queries]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind}: two are named {twice[0]!r}; give each its own 'name'")
        for query in self.queries:
            _known("camera", query, [camera.name for camera in self.cameras])
            _known("model", query, [model.name for model in self.models])
        return self

    def resolved(self, base: Path) -> BoxConfig:
        """The same with paths of files taken relative to `base`, the folder of the YAML file."""
        models = tuple(model.resolved(base) for model in self.models)
        cameras = tuple(camera.model_copy(update={"source": _located(camera.source, base)}) for camera in self.cameras)
        cache = base / self.cache.expanduser() if self.cache else None
        data = base / self.data.expanduser()
        return self.model_copy(update={"models": models, "cameras": cameras, "data": data, "cache": cache})


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


def _located_network(network: str, base: Path) -> str:
    """The file that a network's name holds relative to `base`: nets.py:NAME, NAME=FILE, config.json; else as it is."""
    name, equals, file = network.rpartition("=")
    if equals or ".py:" in file or file.endswith(".json") or "/" in file:
        return f"{name}{equals}{base / Path(file).expanduser()}"
    return network


def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return BoxConfig.model_json_schema()
