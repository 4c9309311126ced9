"""What a folder of merged models says about each of them.

    manifest = read_manifest(Path("merged"), "cars")
    manifest.accuracy, manifest.parameters["fc.weight"]          # 0.93, a digest

A manifest is JSON in models/NAME.json; see `merge.store` for the tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError

from edgeward.errors import ModelError, StoreError, nearest
from edgeward.zoo.files import read_bytes

__all__ = ["FORMAT", "VERSION", "Manifest", "names", "read_manifest", "write_manifest"]

FORMAT = "edgeward-merged"
VERSION = 1
_LARGEST_BYTES = 16 << 20
_MODELS = "models"


@dataclass(frozen=True)
class Manifest:
    """A stored model. parameters, buffers: digests of tensors by path; deltas: ranks of corrections by layer."""

    name: str
    recipe: dict[str, Any] | None
    input_shape: tuple[int, ...] | None
    tokens: int | None
    parameters: dict[str, str]
    buffers: dict[str, str]
    deltas: dict[str, int] = field(default_factory=dict)
    accuracy: float | None = None
    unmerged: float | None = None
    target: float | None = None
    format: str = FORMAT
    version: int = VERSION


_MANIFEST = TypeAdapter(Manifest)


def names(folder: Path) -> tuple[str, ...]:
    """Names of the models in a folder; none when it holds no merged models."""
    return tuple(sorted(unquote(path.stem) for path in (folder / _MODELS).glob("*.json")))


def read_manifest(folder: Path, name: str) -> Manifest:
    """What is known of a stored model. Raises StoreError when there is none, or it is damaged or of a newer version."""
    path = _file(folder, name)
    if not path.is_file():
        known = names(folder)
        hint = nearest(name, known) if known else "it holds no merged models"
        raise StoreError(f"{folder} has no model {name!r}; {hint}")
    try:
        record = json.loads(read_bytes(path, _LARGEST_BYTES))
        version = record.get("version") if isinstance(record, dict) and record.get("format") == FORMAT else 0
        if isinstance(version, int) and version > VERSION:
            raise StoreError(
                f"{path} is of version {version}; this edgeward reads up to {VERSION}: install a newer one"
            )
        manifest = _MANIFEST.validate_python(record)
        if version != VERSION or manifest.name != name:
            raise ValueError("format, version or name is another")
    except (ValueError, RecursionError, ModelError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"{path} is no manifest of a merged model ({reason}); obtain the folder again") from error
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write what is known of a stored model, in place of what was known before."""
    path = _file(folder, manifest.name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_MANIFEST.dump_json(manifest, indent=1))


def _file(folder: Path, name: str) -> Path:
    return folder / _MODELS / f"{quote(name, safe='')}.json"
