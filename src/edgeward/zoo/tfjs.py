"""TensorFlow.js graph models: a JSON file and its shards of raw weights, read without TensorFlow.

    graph = read_tfjs(Path("nanodet.json"))      # nanodet.bin must lie beside it
    print(len(graph.nodes), len(graph.constants))

Format: https://github.com/tensorflow/tfjs/tree/master/tfjs-converter, files `graph-model` with a
weights manifest; weights may be stored as float16, or as uint8 or uint16 with scale and minimum.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from edgeward.errors import ModelError
from edgeward.zoo.files import read_bytes
from edgeward.zoo.tensorflow import MAX_FILE_BYTES, MAX_NODES, MAX_RANK, Node, TensorFlowGraph, element_count

__all__ = ["MAX_JSON_BYTES", "read_tfjs", "shards"]

MAX_JSON_BYTES = 64 << 20
_STORED = {"float32": "<f4", "int32": "<i4", "bool": "?", "float16": "<f2", "uint8": "u1", "uint16": "<u2"}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Quantization(_Part):
    dtype: Literal["float16", "uint8", "uint16"]
    scale: FiniteFloat = 1.0
    min: FiniteFloat = 0.0


class _Weight(_Part):
    name: str
    shape: list[int] = Field(max_length=MAX_RANK)
    dtype: Literal["float32", "int32", "bool"]
    quantization: _Quantization | None = None


class _Group(_Part):
    paths: list[str] = Field(max_length=10_000)
    weights: list[_Weight] = Field(max_length=MAX_NODES)


class _Node(_Part):
    name: str
    op: str
    input: list[str] = []


class _Topology(_Part):
    node: list[_Node] = Field(max_length=MAX_NODES)


class _Document(_Part):
    modelTopology: _Topology  # noqa: N815 - the key of the format
    weightsManifest: list[_Group] = Field(max_length=1000)  # noqa: N815 - the key of the format


def read_tfjs(path: Path) -> TensorFlowGraph:
    """The nodes and constants of a graph model, from its JSON file and the shards beside it.

    Raises ModelError when a file is missing, too large or damaged, or a shard lies outside the folder.
    """
    document = _document(path)
    constants: dict[str, npt.NDArray[Any]] = {}
    left = MAX_FILE_BYTES
    for group in document.weightsManifest:
        parts = []
        for name in group.paths:
            parts.append(read_bytes(_beside(path, name), max(left, 1)))
            left -= len(parts[-1])
        data, start = memoryview(b"".join(parts)), 0
        for weight in group.weights:
            stored = np.dtype(_STORED[weight.quantization.dtype if weight.quantization else weight.dtype])
            end = start + element_count(tuple(weight.shape), weight.name) * stored.itemsize
            if end > len(data):
                raise ModelError(f"{path}: the weights end before {weight.name!r}; the file beside it is cut off")
            constants[weight.name] = _value(np.frombuffer(data[start:end], stored), weight)
            start = end
        if start != len(data):
            raise ModelError(
                f"{path}: {len(data) - start} bytes of weights belong to no tensor; the files do not match"
            )
    nodes = tuple(Node(node.name, node.op, tuple(node.input)) for node in document.modelTopology.node)
    return TensorFlowGraph(nodes, constants)


def shards(path: Path) -> list[Path]:
    """The weight files of a graph model, in order. Raises ModelError as `read_tfjs` does."""
    return [_beside(path, name) for group in _document(path).weightsManifest for name in group.paths]


def _document(path: Path) -> _Document:
    data = read_bytes(path, MAX_JSON_BYTES)
    try:
        return _Document.model_validate(json.loads(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ModelError(f"{path} is not a TensorFlow.js graph model: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is not JSON ({error}); a TensorFlow.js model is a .json file with .bin files"
        ) from error


def _beside(path: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ModelError(f"{path} names the weight file {name!r}; only a file in the same folder is read")
    return path.parent / name


def _value(stored: npt.NDArray[Any], weight: _Weight) -> npt.NDArray[Any]:
    scheme = weight.quantization
    with np.errstate(all="ignore"):  # a value beyond its type becomes infinite or wraps; networks check what they load
        if scheme is not None and scheme.dtype != "float16":
            stored = stored.astype(np.float32) * np.float32(scheme.scale) + np.float32(scheme.min)
        if scheme is not None:
            stored = stored.astype(_STORED[weight.dtype])
    return stored.reshape(weight.shape)
