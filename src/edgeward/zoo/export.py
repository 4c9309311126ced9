"""Networks of the zoo as portable ONNX files, made once and kept.

    path, card = portable_onnx("ssdlite-person", None, Path("~/.cache/edgeward/models").expanduser())

The file is float32 with a free batch dimension. It is found again by the content of the weights; a call
that finds it imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

from edgeward.vision.card import ModelCard
from edgeward.zoo.files import replacing, sha256
from edgeward.zoo.packaged import Packaged, packaged
from edgeward.zoo.tfjs import shards

__all__ = ["EXPORT_VERSION", "OPSET", "portable_onnx"]

EXPORT_VERSION = 1
"""Raised whenever the same weights give another file."""
OPSET = 18


def portable_onnx(
    architecture: str, file: Path | None, cache: Path, height: int | None = None, width: int | None = None
) -> tuple[Path, ModelCard]:
    """The ONNX file of a packaged model in `cache`, exported when it is not there yet, and its card.

    file: the weights, or None for those of the installed package. height, width: of the input in pixels, the usual ones
    when None. Safe to call from several processes at once. Raises ConfigError for an unknown name or a size that the
    model cannot have, ModelError when the weights are missing or damaged, StoreError when the cache cannot be written.
    """
    entry = packaged(architecture)
    card = entry.sized(height, width)
    weights = entry.locate(file)
    sides = "" if card == entry.card else f"-{card.preprocess.height}x{card.preprocess.width}"
    target = cache / f"{entry.name}{sides}-{_content(weights)[:20]}-v{EXPORT_VERSION}.onnx"
    if not target.is_file():
        _export(entry, weights, card, target)
    return target, card


def _content(weights: Path) -> str:
    """A hash of everything the weights consist of."""
    if weights.suffix != ".json":
        return sha256(weights)
    parts = [sha256(part) for part in (weights, *shards(weights))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _export(entry: Packaged, weights: Path, card: ModelCard, target: Path) -> None:
    import torch

    from edgeward.zoo.onnxedit import finish

    network = entry.load(weights)
    example = torch.zeros(1, 3, card.preprocess.height, card.preprocess.width)
    with torch.no_grad():
        outputs = network(example)
    shapes = {
        f"output{index}": tuple(output.shape)
        for index, output in enumerate(outputs if isinstance(outputs, tuple) else (outputs,))
    }
    # The exporter by tracing: it folds batch norms, writes one plain file and needs no package besides torch and onnx.
    with replacing(target) as temporary, _quiet():
        torch.onnx.export(
            network,
            (example,),
            temporary,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(shapes),
            dynamic_axes={name: {0: "batch"} for name in ("image", *shapes)},
        )
        finish(temporary, shapes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's chatter: it warns of every shape that tracing fixes, which is meant here."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
