"""Small ONNX detectors, made on the spot: real graphs of the yolov8 convention, a few kilobytes each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_detector(path, *, classes=2, boxes=8, size=32, width=16, seed=0, outputs=None):
    """A detector [N, 3, size, size] -> [N, 4 + classes, boxes] with one confident box; `outputs` overrides its rows."""
    random = np.random.default_rng(seed)
    rows = outputs or 4 + classes
    bias = np.zeros((rows, boxes), np.float32)
    bias[:4, 0] = (size / 2, size / 2, size / 4, size / 2)
    bias[4:5, 0] = 0.9
    weights = {
        "w1": random.normal(0, 0.01, (width, 3, 3, 3)).astype(np.float32),
        "w2": np.zeros((rows * boxes, width, 1, 1), np.float32),
        "b2": bias.reshape(-1),
        "shape": np.array([-1, rows, boxes], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Conv", ["p", "w2", "b2"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", rows, boxes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def box_text(folder, cameras, *, queries=None, models=1, extra="", entry=""):
    """A box file over tiny detectors m0, m1, ... and `cameras` (name: source)."""
    lines = ["cameras:"]
    lines += [f"  - {{name: {name}, source: '{source}', rate: 25}}" for name, source in cameras.items()]
    lines += ["models:"]
    for index in range(models):
        path = save_detector(folder / f"m{index}.onnx", seed=index, width=16 + index)
        lines.append(f"  - {{name: m{index}, file: '{path}', convention: yolov8, labels: [cat, dog]{entry}}}")
    lines += ["queries:"]
    lines += queries or [f"  - {{camera: {name}, model: m{i % models}}}" for i, name in enumerate(cameras)]
    lines += [f"data: '{folder}/data'", f"cache: '{folder}/cache'", "web: {port: 0}", extra]
    return "\n".join(lines)
