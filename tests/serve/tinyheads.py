"""Small detectors with a stem in common, and what a runner answers with them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from tinymodel import save_detector

from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.runner import Runner


def detectors(folder, store, classes=(1, 2, 3)):
    """Heads for so many classes on one stem, whose boxes depend on the picture."""
    found = {}
    for count in classes:
        path = save_detector(folder / f"m{count}.onnx", classes=count)
        model, random = onnx.load(path), np.random.default_rng(count)
        [head] = [tensor for tensor in model.graph.initializer if tensor.name == "w2"]
        head.CopyFrom(numpy_helper.from_array(random.normal(0, 5, head.dims).astype(np.float32), "w2"))
        onnx.save(model, path)
        labels = tuple(f"c{index}" for index in range(count))
        config = ModelConfig(name=f"m{count}", file=path, convention="yolov8", labels=labels)
        found[config.name] = resolve_model(config, store, folder, "cpu")
    return found


def images(count):
    """Pictures of different brightness."""
    random = np.random.default_rng(0)
    return [random.integers(0, 10 + 200 * index // count, (48, 64, 3), np.uint8) for index in range(count)]


def loaded(models):
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)
    return runner


def answers(runner, name, pictures):
    return runner.infer(name, [runner.prepare(name, each) for each in pictures], 0.3)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-4)
        assert one.class_id.tolist() == other.class_id.tolist()
