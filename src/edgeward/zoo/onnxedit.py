"""Last touches to an exported ONNX file, for the sake of those who run it.

    finish(path, {"output0": (1, 1917, 4)})

Padding that differs from side to side comes out of the exporter as a node of its own, at which ONNX Runtime
leaves its blocked layout and comes back; a convolution can do the same by its own attribute. And what tracing
knows of the outputs' shapes is written down, so that they can be checked before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

__all__ = ["finish"]


def finish(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Fold zero padding into convolutions and state the outputs' `shapes`, whose first dimension stays free."""
    model = _simplified(path)
    _fold_padding(model.graph)
    for output in model.graph.output:
        for dimension, size in list(zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True))[1:]:
            dimension.dim_value = size
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _simplified(path: Path) -> ModelProto:
    """The model with what is constant computed: ONNX Runtime's basic level, whose result any runtime can read."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    for unused in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(unused)
    return model


def _fold_padding(graph: GraphProto) -> None:
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        amounts = _zeros_around(pad, constants)
        followers = users.get(pad.output[0], [])
        if amounts is None or [node.op_type for node in followers] != ["Conv"]:
            continue
        pads = next(attribute for attribute in followers[0].attribute if attribute.name == "pads")
        pads.ints[:] = [int(own + more) for own, more in zip(pads.ints, amounts, strict=True)]
        followers[0].input[0] = pad.input[0]
        graph.node.remove(pad)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for unused in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(unused)


def _zeros_around(pad: NodeProto, constants: Mapping[str, npt.NDArray[Any]]) -> list[int] | None:
    """Zeros that a node puts around height and width, as a convolution states them; None when it does anything else."""
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    amounts = constants.get(pad.input[1])
    value = constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if mode != b"constant" or amounts is None or value is None or np.any(value) or len(amounts) != 8:
        return None
    if np.any(amounts[[0, 1, 4, 5]]) or np.any(amounts < 0):
        return None
    return [int(amounts[index]) for index in (2, 3, 6, 7)]
