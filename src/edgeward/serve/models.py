"""From a model's entry in the box file to something that can be served.

    served = resolve_model(config.models[0], cache, device="auto")
    print(served.card.task, served.packed.tensor_bytes)

Packaged models are exported once; every model is optimised and packed into the weight store once
per machine. After that a start reads two small files and imports neither torch nor onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgeward.errors import ConfigError, ModelError
from edgeward.serve.config import ModelConfig
from edgeward.serve.state import ModelSpec
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import convention
from edgeward.vision.labels import COCO
from edgeward.weights.pack import PackedModel, pack
from edgeward.weights.store import WeightStore
from edgeward.zoo.export import portable_onnx
from edgeward.zoo.onnxfile import OnnxFile, user_onnx

__all__ = ["ServedModel", "default_cache", "resolve_model"]

MAX_LABELS_BYTES = 1 << 20


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready to be loaded."""

    name: str
    card: ModelCard
    packed: PackedModel
    max_batch: int

    @property
    def spec(self) -> ModelSpec:
        """What the loop needs to know of it."""
        return ModelSpec(self.name, dict(self.packed.tensor_bytes), self.max_batch)


def default_cache() -> Path:
    """Where exported models and weights are kept unless the box file says otherwise."""
    return Path(platformdirs.user_cache_dir("edgeward"))


def resolve_model(config: ModelConfig, store: WeightStore, cache: Path, provider: str) -> ServedModel:
    """Export, check and pack one model.

    Raises ModelError or ConfigError, naming the model, when its file is missing or damaged, is of
    another task than stated, or has outputs that its convention cannot have.
    """
    try:
        if config.use is not None:
            path, card = portable_onnx(config.use, config.file, cache / "models")
            file = user_onnx(path)
        else:
            assert config.file is not None
            _check_kind(config.file)
            path, file = config.file, user_onnx(config.file)
            card = _user_card(config, file)
        if config.task not in (None, card.task):
            raise ModelError(f"its task is {card.task}, not {config.task}; correct 'task' or choose another model")
        convention(card.convention).check(file.output_shapes, card)
        packed = pack(path, store, provider, file.external)
    except (ModelError, ConfigError) as error:
        raise type(error)(f"model {config.name!r}: {error}") from error
    dynamic = not isinstance(file.input_shape[0], int)
    return ServedModel(config.name, card, packed, config.max_batch if dynamic else 1)


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


def _user_card(config: ModelConfig, file: OnnxFile) -> ModelCard:
    assert config.convention is not None
    family = convention(config.convention)
    given = config.input.model_dump(exclude_none=True)
    shape = list(file.input_shape)
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
