"""From a model's entry in the box file to something that can be served.

    served = resolve_model(config.models[0], store, cache, provider="cpu")
    print(served.card.task, served.tensors)
    engine = served.open(threads=1)

Packaged models are exported once; every model is optimised and packed into the weight store once
per machine. After that a start reads two small files and imports neither torch nor onnx. A model that runs
elsewhere is another `ServedModel` (see `edgeward.engine.deployed`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import platformdirs

from edgeward.errors import ConfigError, ModelError
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.state import ModelSpec
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import CONVENTIONS, convention
from edgeward.vision.conventions.base import Shape
from edgeward.vision.labels import COCO
from edgeward.vision.results import FloatArray
from edgeward.weights.pack import PackedModel, pack
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore
from edgeward.zoo.exits import one_exit
from edgeward.zoo.export import portable_onnx
from edgeward.zoo.onnxfile import OnnxFile, user_onnx

__all__ = ["Engine", "ServedModel", "StoredModel", "check_card", "default_cache", "resolve_model", "user_card"]

MAX_LABELS_BYTES = 1 << 20


class Engine(Protocol):
    """What runs one model. `run` and the others may be called from different threads."""

    def attach(self) -> None:
        """Bring the model into memory; nothing happens when it is there. Raises EdgewardError when it cannot."""

    def run(self, batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        """The model's outputs, batch first, for pictures [n, ...]. Raises EdgewardError, also when not attached."""

    def detach(self) -> None:
        """Let go of the memory, without waiting. Safe to call twice."""

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""


@dataclass(frozen=True)
class ServedModel(ABC):
    """A model that is ready to be loaded.

    tensors: bytes that it holds in this machine's memory when it is loaded, by tensor; what models share counts once.
    """

    name: str
    card: ModelCard
    max_batch: int
    tensors: Mapping[str, int]

    @abstractmethod
    def open(self, threads: int) -> Engine:
        """What runs it, not attached yet. Raises EdgewardError when it cannot be run here."""

    def in_memory(self) -> object:
        """Whatever keeps those of its tensors that are in memory now there, for as long as it is held itself."""
        return None

    @property
    def spec(self) -> ModelSpec:
        """What the loop needs to know of it."""
        return ModelSpec(self.name, dict(self.tensors), self.max_batch)


@dataclass(frozen=True)
class StoredModel(ServedModel):
    """A model that runs in this process on weights of the store."""

    packed: PackedModel
    store: WeightStore = field(repr=False, compare=False)

    def open(self, threads: int) -> Engine:
        return _SessionEngine(self.packed, self.store, threads)

    def in_memory(self) -> object:
        return self.store.borrowed(self.packed.tensors.values())


class _SessionEngine:
    """A session as an engine: its one input has a name that only the file knows."""

    def __init__(self, packed: PackedModel, store: WeightStore, threads: int) -> None:
        self._input = packed.inputs[0].name
        self._session = Session(packed, store, threads)

    def attach(self) -> None:
        self._session.attach()

    def run(self, batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        return self._session.run({self._input: batch})

    def detach(self) -> None:
        self._session.detach()

    def close(self) -> None:
        self._session.close()


def default_cache() -> Path:
    """Where exported models and weights are kept unless the box file says otherwise."""
    return Path(platformdirs.user_cache_dir("edgeward"))


def resolve_model(config: ModelConfig, store: WeightStore, cache: Path, provider: str) -> StoredModel:
    """Export, check and pack one model.

    Raises ModelError or ConfigError, naming the model, when its file is missing or damaged, is of
    another task than stated, or has outputs that its convention cannot have.
    """
    try:
        if config.use is not None:
            path, card = portable_onnx(config.use, config.file, cache / "models", *_sides(config))
            file = user_onnx(path)
        else:
            assert config.file is not None
            _check_kind(config.file)
            file = user_onnx(config.file)
            if config.outputs is not None:
                file = user_onnx(one_exit(file, config.outputs, cache / "models"))
            path, card = file.path, user_card(config, file.input_shape)
        _check_outputs(config, card, file)
        card = _in_tiles(config, card)
        packed = pack(path, store, provider, file.external)
    except (ModelError, ConfigError) as error:
        raise type(error)(f"model {config.name!r}: {error}") from error
    dynamic = not isinstance(file.input_shape[0], int)
    return StoredModel(config.name, card, config.max_batch if dynamic else 1, packed.tensor_bytes, packed, store)


def _check_outputs(config: ModelConfig, card: ModelCard, file: OnnxFile) -> None:
    """As `check_card`; who has a file with several exits is told how to take one."""
    try:
        convention(card.convention).classes(file.output_shapes, (card.preprocess.height, card.preprocess.width))
    except ModelError as error:
        if config.use is not None or config.outputs is not None or len(file.output_names) == 1:
            raise
        names = ", ".join(file.output_names[:8]) + (", ..." if len(file.output_names) > 8 else "")
        raise ModelError(
            f"{error}; of a file with several exits name the outputs of one: 'outputs', of {names}"
        ) from error
    check_card(config, card, file.output_shapes)


def _in_tiles(config: ModelConfig, card: ModelCard) -> ModelCard:
    """The card of a model that looks at tiles, if its entry says so. Raises ModelError when it is no detector."""
    if config.tiles is None:
        return card
    if card.task != "detection":
        raise ModelError(f"its task is {card.task}; only detectors can look at 'tiles': take them away")
    return card.model_copy(update={"tiles": config.tiles})


def _sides(config: ModelConfig) -> tuple[int | None, int | None]:
    """Height and width that a packaged model is asked to have; ConfigError when it is asked to be fed otherwise."""
    fixed = sorted(config.input.model_dump(exclude_none=True).keys() - {"height", "width"})
    if fixed:
        raise ConfigError(
            f"'input.{fixed[0]}' does not go with 'use': {config.use!r} knows how it is fed; of 'input' keep 'height' "
            "and 'width' only"
        )
    return config.input.height, config.input.width


def check_card(config: ModelConfig, card: ModelCard, output_shapes: Sequence[Shape]) -> None:
    """Raise ModelError when a model with these outputs cannot be what its entry and its card say."""
    if config.task not in (None, card.task):
        raise ModelError(f"its task is {card.task}, not {config.task}; correct 'task' or choose another model")
    convention(card.convention).check(output_shapes, card)


OTHER_KINDS = {
    ".pt": "a PyTorch checkpoint; export it to ONNX first",
    ".pth": "a PyTorch checkpoint; export it to ONNX first",
    ".safetensors": "weights without a network; export the model to ONNX first",
    ".json": "not an ONNX file; for a TensorFlow.js detector write 'use: nanodet' or 'use: centernet' beside 'file'",
    ".pb": "a TensorFlow graph; of these only 'use: ssdlite-person' can be read",
    ".tflite": "a TensorFlow Lite model; convert it to ONNX first",
}


def _check_kind(path: Path) -> None:
    if path.suffix.lower() in OTHER_KINDS:
        raise ModelError(f"{path} is {OTHER_KINDS[path.suffix.lower()]}")


def user_card(config: ModelConfig, input_shape: Shape) -> ModelCard:
    """The card of a user's own model with this input, [batch, ...]. Raises ModelError when that is no picture."""
    if config.convention is None:
        raise ModelError(f"it needs 'convention', how its outputs are to be read: {', '.join(sorted(CONVENTIONS))}")
    family = convention(config.convention)
    given = config.input.model_dump(exclude_none=True)
    shape = list(input_shape)
    for axis, key in ((-2, "height"), (-1, "width")):
        if key in given and len(shape) == 4 and not isinstance(shape[axis], int):
            shape[axis] = given[key]
    preprocess = family.preprocess(tuple(shape)).model_copy(update=given)
    return ModelCard(task=family.task, convention=family.name, labels=_labels(config), preprocess=preprocess)


def _labels(config: ModelConfig) -> tuple[str, ...]:
    match config.labels:
        case None:
            return ()
        case "coco":
            return COCO
        case Path() as path:
            try:
                if path.stat().st_size > MAX_LABELS_BYTES:
                    raise ModelError(
                        f"{path} is larger than {MAX_LABELS_BYTES} bytes; labels are one short name a line"
                    )
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(f"cannot read the labels {path}: {error}") from error
            return tuple(line.strip() for line in lines if line.strip())
        case names:
            return names
