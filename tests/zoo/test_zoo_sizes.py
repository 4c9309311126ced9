"""Packaged networks at another input size: what they find, what the file is called, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeward.errors import ConfigError
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.runner import Runner
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.sources import open_source
from edgeward.weights.store import WeightStore
from edgeward.zoo.export import portable_onnx
from edgeward.zoo.packaged import packaged


def resolved(folder, **entry):
    return resolve_model(ModelConfig(name="m", **entry), WeightStore(folder / "weights"), folder, "cpu")


@pytest.mark.parametrize("name", ["nanodet", "centernet"])
def test_a_smaller_input_finds_much_the_same_persons(name, shared_data, tmp_path):
    torch.set_num_threads(1)
    file = shared_data / "detectors" / name / f"{name}.json"
    models = {
        "usual": resolved(tmp_path, use=name, file=file),
        "small": resolved(tmp_path, use=name, file=file, input={"height": 320, "width": 352}),
    }
    assert models["small"].card.preprocess.shape == (3, 320, 352)
    assert models["small"].card.labels == models["usual"].card.labels
    exported = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert len(exported) == 2
    assert exported[0].startswith(f"{name}-320x352-")
    assert exported[1] == exported[0].replace("-320x352", "")
    frame = next(iter(open_source(str(shared_data / "video" / "vtest.avi"))))
    runner, persons = Runner(models, threads=1), {}
    for key in models:
        runner.load(key)
        [boxes] = runner.infer(key, [runner.prepare(key, frame.image)], confidence=0.3)
        persons[key] = boxes[boxes.class_id == 0]
    runner.close()
    assert len(persons["usual"]) >= 3
    shared = overlap(persons["usual"].xyxy, persons["small"].xyxy, np.zeros(len(persons["small"]), bool))
    assert (shared.max(axis=1) > 0.5).mean() >= 0.6
    best = shared[shared.max(axis=1) > 0.5].max(axis=1)
    assert best.mean() > 0.75, "boxes lie where they lay, not scaled by the ratio of the sizes"


def test_the_usual_size_said_explicitly_is_the_usual_file(tmp_path):
    torch.set_num_threads(1)
    first, card = portable_onnx("ssdlite-person", None, tmp_path, 300, 300)
    second, same = portable_onnx("ssdlite-person", None, tmp_path)
    assert (first, card) == (second, same)


@pytest.mark.parametrize(
    ("name", "sides", "message"),
    [
        ("ssdlite-person", (320, 320), "works at 300 x 300 only"),
        ("efficientnet-lite0", (None, 256), "works at 224 x 224 only"),
        ("nanodet", (300, 320), "multiples of 32 up to 1536: take 288 for 300"),
        ("centernet", (512, 8), "take 32 for 8"),
        ("centernet", (8192, 512), "take 1536 for 8192"),
    ],
)
def test_sizes_that_a_network_cannot_have_are_refused(name, sides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        portable_onnx(name, None, tmp_path, *sides)


def test_one_side_alone_keeps_the_other():
    assert packaged("nanodet").sized(width=320).preprocess.shape == (3, 416, 320)


@pytest.mark.parametrize(("key", "value"), [("colour", "bgr"), ("mean", [0, 0, 0]), ("fit", "letterbox")])
def test_what_a_packaged_network_knows_itself_is_refused(key, value, tmp_path):
    with pytest.raises(ConfigError, match=rf"model 'm': 'input.{key}' does not go with 'use'"):
        resolved(tmp_path, use="ssdlite-person", input={key: value})
