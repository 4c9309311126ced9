"""What a box needs to serve the benchmark's models: entries of its file, and recordings of pictures as cameras show them.

entries, said = served("high", full=True, folder=folder, frames=360)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from memory import KINDS, files
from pressure import DWELL
from sharing import found

from edgeward.weights.pack import pack
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore

FloatArray = npt.NDArray[np.floating[Any]]
Classes = dict[str, npt.NDArray[np.int64]]
"""Of each camera, a class by picture."""


def served(
    name: str, full: bool, folder: Path, frames: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Classes]]:
    """Of both kinds, entries of the box file, and what each model says of the pictures that its camera shows.

    Models, their weights packed in `cache`, and recordings of held-out pictures are written to the folder.
    """
    source, held_out = files(name, full), found(name, full).workload.held_out
    store = WeightStore(folder / "cache/weights")
    entries: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    said: dict[str, Classes] = {kind: {} for kind in KINDS}
    for model, samples in held_out.items():
        pixels, mean, std = _quantised(samples.inputs[: -(-frames // DWELL)].numpy())
        _film(pixels, folder / model, frames)
        inputs = ((pixels - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        for kind in KINDS:
            file = folder / kind / f"{model}.onnx"
            file.parent.mkdir(exist_ok=True)
            onnx.save(_of_colour(onnx.load(source / kind / f"{model}.onnx")), file)
            packed_model = pack(file, store)
            with Session(packed_model, store) as session:
                said[kind][model] = session.run({packed_model.inputs[0].name: inputs})[0].argmax(1)
            entries[kind].append(
                {"name": model, "file": str(file), "convention": "logits", "max_batch": 1,
                 "input": {"colour": "rgb", "mean": mean.tolist(), "std": std.tolist()}}
            )  # fmt: skip
    return entries, said


def _quantised(inputs: FloatArray) -> tuple[npt.NDArray[np.uint8], FloatArray, FloatArray]:
    """Models' inputs [n, c, h, w] as pictures [n, h, w, 3], and mean and std with which these are inputs again."""
    inputs = np.repeat(inputs, 3, axis=1) if inputs.shape[1] == 1 else inputs
    low, high = inputs.min((0, 2, 3)).astype(np.float64), inputs.max((0, 2, 3)).astype(np.float64)
    std = 255 / np.maximum(high - low, 1e-6)
    return np.rint((inputs.transpose(0, 2, 3, 1) - low) * std).astype(np.uint8), -low * std, std


def _film(pixels: npt.NDArray[np.uint8], folder: Path, frames: int) -> None:
    """Write a recording in which each picture is seen for DWELL frames."""
    folder.mkdir()
    for frame in range(frames):
        first = folder / f"{frame // DWELL * DWELL}.png"
        if frame % DWELL == 0:
            cv2.imwrite(str(first), pixels[frame // DWELL % len(pixels)][..., ::-1])
        else:
            os.link(first, folder / f"{frame}.png")


def _of_colour(model: onnx.ModelProto) -> onnx.ModelProto:
    """The box feeds three channels: a model of one takes the first of them."""
    [port] = model.graph.input
    channels = port.type.tensor_type.shape.dim[1]
    if channels.dim_value != 1:
        return model
    channels.dim_value = 3
    inner, port.name = port.name, "picture"
    first = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "first_channel")
    model.graph.initializer.append(first)
    model.graph.node.insert(0, onnx.helper.make_node("Gather", [port.name, first.name], [inner], axis=1))
    return model
