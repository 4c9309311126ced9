"""What a box file says of its models, and of the ladders that they form.

    config = ModelConfig(name="people", use="ssdlite-person")
    ladder = LadderConfig(name="all", models=("people", "fast"), calibration="all.json")

See `edgeward.serve.config` for the whole file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeward.vision.tiles import Tiles

__all__ = [
    "IN_TURN",
    "LONGEST_RUNG",
    "TOGETHER",
    "GuardConfig",
    "InputConfig",
    "LadderConfig",
    "ModelConfig",
    "Name",
    "Seconds",
    "Section",
    "looks_of",
    "members_of",
]

Name = Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$", description="letters, digits, '_', '.', '-'; at most 64")]
LONGEST_RUNG = 512
"""Characters of all the names of a rung together."""
Rung = Annotated[
    str,
    Field(
        max_length=LONGEST_RUNG,
        pattern=r"^[\w.\-]{1,64}((\+[\w.\-]{1,64})*|(~[\w.\-]{1,64})*)$",
        description="a model's name, or several with '+' or '~' between",
    ),
]
Seconds = Annotated[float, Field(gt=0, le=3600)]
TOGETHER = "+"
"""Between the names of models that answer together."""
IN_TURN = "~"
"""Between the names of models that look at one frame after another."""
PLAN_KEYS = ("network", "weights", "fleet", "profile", "certs", "standby")
"""Of a model's entry, what only a plan makes use of."""


class Section(BaseModel):
    """A part of the file: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(Section):
    """How a frame becomes the model's input; what is left out follows the model's convention."""

    height: int | None = Field(None, ge=8, le=8192)
    width: int | None = Field(None, ge=8, le=8192)
    colour: Literal["bgr", "rgb"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    fit: Literal["stretch", "letterbox"] | None = None


class GuardConfig(Section):
    """What happens when a model that was merged, pruned or retrained stops agreeing with the one it was made from."""

    original: Name = Field(description="the model that it was made from, also in this file; it takes over then")
    agreement: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="least mean agreement: F1 of boxes at an overlap of 0.5, share of equal first classes, or cosine",
    )
    share: float = Field(0.02, gt=0, le=0.5, description="share of the time that comparisons of both may take")


class ModelConfig(Section):
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
    outputs: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="of an ONNX file with several exits, the outputs of one; else all",
    )
    input: InputConfig = InputConfig()
    tiles: Tiles | None = Field(None, description="a detector looks at the picture in so many tiles; whole when absent")
    max_batch: int = Field(4, ge=1, le=64, description="frames of different cameras run together at most")
    portfolio: Path | None = Field(
        None, description="a folder by `edgeward prune portfolio`: the box changes between its variants by load"
    )
    guard: GuardConfig | None = Field(None, description="return to the original when the two stop agreeing")
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
        if self.tiles is not None and (self.plan is not None or self.portfolio is not None):
            raise ValueError("'tiles' goes with 'use' or 'file' only; take 'tiles' away")
        if self.outputs is not None and given != ["file"]:
            raise ValueError("'outputs' goes with a 'file' of your own only; take 'outputs' away")
        if self.outputs is not None and len(set(self.outputs)) < len(self.outputs):
            raise ValueError("'outputs' names one twice; name each once")
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


class LadderConfig(Section):
    """Models that can answer the same question; the box takes the one that is most accurate on screen at the moment."""

    name: Name
    models: tuple[Rung, ...] = Field(
        min_length=1,
        description="names of models; one with a 'portfolio' stands for all its variants; ONE+TWO: what both find "
        "together; ONE~TWO: what they find in turn, one on each frame",
    )
    calibration: Path = Field(description="what `edgeward serve calibrate` measured of them on this device")
    rule: Literal["precision", "thresholds", "periodic", "random", "round-robin"] = Field(
        "precision",
        description="precision: expected accuracy on screen; thresholds: by the median size of boxes; periodic: the "
        "cheapest that agrees with the largest when all are compared; random and round-robin, to compare with",
    )
    margin: float = Field(0.03, ge=0, le=1, description="by how much better another model must be (precision)")
    dwell: float = Field(0.3, ge=0, le=3600, description="seconds a model stays at least (precision)")
    probe_share: float = Field(
        0.02, ge=0, lt=1, description="share of the accuracy on screen that looks of other models may cost (precision)"
    )
    thresholds: tuple[float, ...] | None = Field(
        None, description="falling sizes, square roots of a share of the frame, that part models (thresholds)"
    )
    period: Seconds = Field(4.0, description="seconds from one comparison to the next (periodic)")
    agreement: float = Field(0.8, ge=0, le=1, description="least agreement with the largest model (periodic)")
    seed: int = Field(0, ge=0, description="of the lot (random)")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        rungs = [(looks_of(name) > 1, frozenset(members_of(name))) for name in self.models]
        for place, (name, rung) in enumerate(zip(self.models, rungs, strict=True)):
            if len(rung[1]) < len(members_of(name)):
                raise ValueError(f"{name!r} holds a model twice; name each once")
            first = self.models[rungs.index(rung)]
            if first != name:
                raise ValueError(f"{first!r} and {name!r} are the same models; keep one of the two")
            if rung in rungs[:place]:
                raise ValueError(f"model {name!r} is listed twice")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """The models that the rungs consist of, each once."""
        return tuple(dict.fromkeys(member for name in self.models for member in members_of(name)))


def members_of(rung: str) -> tuple[str, ...]:
    """The names of the models that a rung consists of; of one model just its own."""
    return tuple(rung.split(IN_TURN if IN_TURN in rung else TOGETHER))


def looks_of(rung: str) -> int:
    """How many looks, one after another, an answer of a rung consists of: more than one when its models take turns."""
    return len(members_of(rung)) if IN_TURN in rung else 1


def _located_network(network: str, base: Path) -> str:
    """The file that a network's name holds relative to `base`: nets.py:NAME, NAME=FILE, config.json; else as it is."""
    name, equals, file = network.rpartition("=")
    if equals or ".py:" in file or file.endswith(".json") or "/" in file:
        return f"{name}{equals}{base / Path(file).expanduser()}"
    return network
