"""Frozen TensorFlow 1 graphs (`.pb`), read without TensorFlow.

    graph = read_graphdef(Path("frozen_inference_graph.pb"))
    print(len(graph.nodes), graph.constants["Preprocessor/mul/x"])

Field numbers follow tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape,types}.proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import ModelError
from edgeward.zoo.files import read_bytes
from edgeward.zoo.protobuf import Value, fields, signed, text, varints, view
from edgeward.zoo.tensorflow import MAX_FILE_BYTES, MAX_NODES, Node, TensorFlowGraph, element_count

__all__ = ["parse_graphdef", "read_graphdef"]

_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
_FLOAT_VALUES, _DOUBLE_VALUES, _INTEGER_VALUES, _HALF_VALUES = 5, 6, (7, 10, 11), 13


def read_graphdef(path: Path) -> TensorFlowGraph:
    """The nodes and constants of a frozen graph. ModelError when the file is missing, too large or damaged."""
    try:
        return parse_graphdef(read_bytes(path, MAX_FILE_BYTES))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def parse_graphdef(data: bytes) -> TensorFlowGraph:
    """As `read_graphdef`, from bytes."""
    nodes: list[Node] = []
    constants: dict[str, npt.NDArray[Any]] = {}
    for number, value in fields(memoryview(data)):
        if number != 1:
            continue
        if len(nodes) >= MAX_NODES:
            raise ModelError(f"more than {MAX_NODES} nodes in the graph; larger ones are not read")
        node, tensor = _node(view(value))
        nodes.append(node)
        if node.op == "Const" and tensor is not None:
            array = _tensor(tensor, node.name)
            if array is not None:
                constants[node.name] = array
    if not nodes:
        raise ModelError("no TensorFlow graph: it holds no node")
    return TensorFlowGraph(tuple(nodes), constants)


def _node(data: memoryview) -> tuple[Node, memoryview | None]:
    """A NodeDef, and the bytes of its `value` attribute's tensor when it has one."""
    name = op = ""
    inputs: list[str] = []
    tensor = None
    for number, value in fields(data):
        match number:
            case 1:
                name = text(value)
            case 2:
                op = text(value)
            case 3:
                inputs.append(text(value))
            case 5:
                key, attribute = _entry(view(value))
                if key == "value":
                    tensor = next((view(inner) for field, inner in fields(attribute) if field == 8), None)
    return Node(name, op, tuple(inputs)), tensor


def _entry(data: memoryview) -> tuple[str, memoryview]:
    """Key and value of one entry of a protobuf map."""
    key, content = "", memoryview(b"")
    for number, value in fields(data):
        if number == 1:
            key = text(value)
        elif number == 2:
            content = view(value)
    return key, content


def _tensor(data: memoryview, name: str) -> npt.NDArray[Any] | None:
    """A TensorProto; None when its type is not numeric."""
    code, content = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    values: list[npt.NDArray[Any]] = []
    for number, value in fields(data):
        match number:
            case 1:
                code = varints(value)[0] if isinstance(value, int) else 0
            case 2:
                shape = _shape(view(value))
            case 4:
                content = view(value)
            case _:
                values += _listed(number, value)
    if code not in _DTYPES:
        return None
    dtype, count = np.dtype(_DTYPES[code]), element_count(shape, name)
    if len(content):
        if len(content) != count * dtype.itemsize:
            raise ModelError(f"constant {name!r} of shape {list(shape)} has {len(content)} bytes of content")
        return np.frombuffer(content, dtype).reshape(shape)
    listed = np.concatenate(values) if values else np.zeros(0)
    if code == 19:
        listed = listed.astype(np.uint16).view(np.float16)
    if len(listed) == count:
        return listed.astype(dtype).reshape(shape)
    # A list shorter than the shape stands for its last value repeated; only the usual case of one value is read.
    if len(listed) <= 1:
        return np.broadcast_to(listed.astype(dtype) if len(listed) else np.zeros(1, dtype), shape)
    raise ModelError(f"constant {name!r} of shape {list(shape)} lists {len(listed)} values")


def _shape(data: memoryview) -> tuple[int, ...]:
    sizes = []
    for number, value in fields(data):
        if number == 2:
            listed = [signed(inner) for field, inner in fields(view(value)) if field == 1 and isinstance(inner, int)]
            sizes.append(listed[0] if listed else 0)
    return tuple(sizes)


def _listed(number: int, value: Value) -> list[npt.NDArray[Any]]:
    """Values that are listed one by one instead of as raw content."""
    if number in (_FLOAT_VALUES, _DOUBLE_VALUES):
        dtype = np.dtype("<f4" if number == _FLOAT_VALUES else "<f8")
        data = view(value)
        if len(data) % dtype.itemsize:
            raise ModelError("damaged model file: a list of values is cut off; obtain the file again")
        return [np.frombuffer(data, dtype)]
    if number in _INTEGER_VALUES:
        return [np.array([signed(one) for one in varints(value)], np.int64)]
    if number == _HALF_VALUES:
        return [np.array([one & 0xFFFF for one in varints(value)], np.int64)]
    return []
