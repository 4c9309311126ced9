"""Any ONNX file from a user, looked at before it is trusted.

file = user_onnx(Path("detector.onnx"))
print(file.input_name, file.input_shape, file.output_shapes)
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeward.errors import ModelError
from edgeward.zoo.files import size
from edgeward.zoo.protobuf import fields, text, view

__all__ = ["MAX_ONNX_BYTES", "OnnxFile", "user_onnx"]

MAX_ONNX_BYTES = (1 << 31) - 1
"""The largest message that protocol buffers allow."""
MAX_DEPTH = 32
NOTHING = memoryview(b"")

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file takes and gives. A dimension that is not fixed is its name, or None.

    external: the files beside it that hold weights.
    """

    path: Path
    input_name: str
    input_shape: Dims
    output_names: tuple[str, ...]
    output_shapes: tuple[Dims, ...]
    external: tuple[Path, ...] = ()


def user_onnx(path: Path) -> OnnxFile:
    """Check an ONNX file and say what it takes and gives.

    Raises ModelError when the file is missing, too large or damaged, names external data outside its folder or
    absent, asks for operators that ONNX Runtime does not know, or has not exactly one input of float32.
    """
    import onnxruntime

    size(path, MAX_ONNX_BYTES)
    external = _external_data(path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        # Without the fallback, which prints and tries the same again.
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        inputs = [(one.name, one.type, tuple(one.shape)) for one in session.get_inputs()]
        outputs = [(one.name, tuple(one.shape)) for one in session.get_outputs()]
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be loaded: {reason}; check that it is a complete ONNX file") from error
    if len(inputs) != 1 or inputs[0][1] != "tensor(float)":
        found = ", ".join(f"{name} {kind}" for name, kind, _ in inputs) or "none"
        raise ModelError(f"{path} has the inputs {found}; exactly one of tensor(float) is served")
    [(name, _, shape)] = inputs
    names, shapes = tuple(name for name, _ in outputs), tuple(shape for _, shape in outputs)
    return OnnxFile(path, name, shape, names, shapes, external)


def _external_data(path: Path) -> tuple[Path, ...]:
    """The files that hold a model's weights. ModelError when one is outside its folder or absent."""
    folder = path.parent.resolve()
    try:
        with path.open("rb") as file:
            # Left to the garbage collector: a map cannot be closed while an error's traceback holds views of it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        locations = _locations(memoryview(content))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    for location in sorted(locations):
        if "\0" in location or not (target := (folder / location).resolve()).is_relative_to(folder):
            raise ModelError(f"{path} wants to read {location!r}, outside its own folder; such models are refused")
        if not target.is_file():
            raise ModelError(f"{path} keeps weights in {location!r}, which is missing; put it beside the model")
    return tuple(folder / location for location in sorted(locations))


def _locations(data: memoryview) -> set[str]:
    """Names of all files that hold external data, wherever in the graphs their tensors are."""
    found = set()
    for tensor in _walk(data, "model", 0):
        for number, value in fields(tensor):
            if number == 13:
                entry = dict(fields(view(value)))
                if text(entry.get(1, NOTHING)) == "location":
                    found.add(text(entry.get(2, NOTHING)))
    return found


# For each kind of message: the fields that lead to tensors, and the kind found there. Numbers as in onnx.proto3.
_PATHS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


def _walk(data: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    if depth > MAX_DEPTH:
        raise ModelError(f"graphs nest more than {MAX_DEPTH} levels deep; such models are not read")
    if kind == "tensor":
        yield data
        return
    for number, value in fields(data):
        if number in _PATHS[kind]:
            yield from _walk(view(value), _PATHS[kind][number], depth + 1)
