"""A detector that looks at a picture in tiles: what the runner makes of it, in a box, on real video, and when it cannot be."""

from __future__ import annotations

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tinymodel import box_text, save_detector

from edgeward.errors import ConfigError, ModelError
from edgeward.serve.answering import device_name
from edgeward.serve.beginnings import begin_together
from edgeward.serve.box import Box
from edgeward.serve.config import ModelConfig
from edgeward.serve.configfile import parse_config
from edgeward.serve.fused import fused_model
from edgeward.serve.ladder import Ladder, Rung, save_ladder
from edgeward.serve.models import resolve_model
from edgeward.serve.runner import Runner
from edgeward.vision.fusion import fused
from edgeward.vision.metrics.precision import average_precision
from edgeward.vision.tiles import Tiles, joined
from edgeward.vision.truth import load_truth
from edgeward.weights.store import WeightStore

TILES = Tiles(columns=3, rows=2)


def served(folder, path, **changed):
    entry = {
        "name": "m",
        "file": path,
        "convention": "yolov8",
        "labels": None if changed.get("convention") == "logits" else ("cat", "dog"),
        **changed,
    }
    return resolve_model(ModelConfig.model_validate(entry), WeightStore(folder / "store"), folder, "cpu")


def save_classifier(path):
    """A model [N, 3, 8, 8] of two classes: the mean of the first two colours."""
    pick = np.eye(2, 3, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Conv", ["mean", "pick"], ["flat"]),
        helper.make_node("Flatten", ["flat"], ["classes"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 3, 8, 8]), ("classes", ["n", 2]))
    ]
    graph = helper.make_graph(nodes, "classes", values[:1], values[1:], [numpy_helper.from_array(pick, "pick")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def fixed_batch(path):
    """The same model for one picture at a time."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [None, 4, 1])
def test_it_is_what_the_model_finds_in_each_tile_joined(tmp_path, batch):
    path = save_detector(tmp_path / "m.onnx")
    if batch is None:
        fixed_batch(path)
    models = {
        "whole": served(tmp_path, path),
        "tiled": served(tmp_path, path, tiles=TILES, max_batch=batch or 4),
    }
    assert models["tiled"].tensors == models["whole"].tensors  # in memory they are one
    runner = Runner(begin_together(models), threads=1)
    runner.load("whole")
    runner.load("tiled")
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, size, np.uint8) for size in ((90, 120, 3), (61, 47, 3))]
    found = runner.infer("tiled", [runner.prepare("tiled", image) for image in images[: batch or 1]], 0.3)
    for image, boxes in zip(images, found, strict=False):
        height, width = image.shape[:2]
        places = TILES.places(width, height)
        tiles = [image[top:bottom, left:right] for left, top, right, bottom in places]
        each = [runner.infer("whole", [runner.prepare("whole", tile)], 0.3)[0] for tile in tiles]
        expected = joined(each, places, width, height)
        assert len(expected) > 1
        np.testing.assert_allclose(boxes.xyxy, expected.xyxy, atol=0.01)
        np.testing.assert_allclose(boxes.confidence, expected.confidence, atol=1e-5)
    runner.close()


def test_a_box_answers_for_the_whole_picture(tmp_path):
    """The tiny detector sees one cat in the middle of whatever it looks at."""
    source = "test://people?seed=1&fps=25&width=160&height=120&frames=10&objects=2"
    tiles = ", tiles: {columns: 2, overlap: 0}"
    every = ["cameras.gate.backpressure=every_frame"]
    box = Box(parse_config(box_text(tmp_path, {"gate": source}, entry=tiles), "box.yaml", every))
    with box:
        box.run()
        assert box.report().memory.resident_bytes == served(tmp_path, tmp_path / "m0.onnx").spec.bytes
    results = [row["result"] for row in box.detections("gate-m0", limit=100)]
    assert len(results) == 10
    for result in results:
        assert sorted((x1 + x2) / 2 for x1, _, x2, _ in result["xyxy"]) == pytest.approx([40, 120], abs=4)


def test_a_fused_rung_of_a_model_whole_and_in_tiles(tmp_path):
    path = save_detector(tmp_path / "m.onnx")
    models = {name: served(tmp_path, path, name=name, tiles=tiles) for name, tiles in (("a", None), ("b", TILES))}
    rungs = tuple(Rung(name, (0.5,), 0.01) for name in models)
    ladder = Ladder("here", ("cat", "dog"), (0.0, 1.0), rungs)
    models["a+b"] = fused_model("a+b", {**models}, ladder)
    assert models["a+b"].spec.bytes == models["a"].spec.bytes
    runner = Runner(models, threads=1)
    for name in models:
        runner.load(name)
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    found = {name: runner.infer(name, [runner.prepare(name, image)], 0.1)[0] for name in models}
    expected = fused([found["a"], found["b"]])
    np.testing.assert_allclose(found["a+b"].xyxy, expected.xyxy, atol=0.01)
    runner.close()


def test_a_guard_compares_like_with_like(tmp_path):
    text = box_text(tmp_path, {"gate": "test://people?frames=5"}, models=2, queries=["  - {camera: gate, model: m0}"])
    guarded = text.replace("labels: [cat, dog]", "labels: [cat, dog], guard: {original: m1}, tiles: {columns: 2}", 1)
    with pytest.raises(ConfigError, match="looks at other tiles of a picture"):
        Box(parse_config(guarded, "box.yaml"))


def test_a_calibration_holds_for_what_was_looked_at(tmp_path):
    text = box_text(
        tmp_path,
        {"gate": "test://people?frames=5"},
        models=2,
        entry=", tiles: {columns: 2}",
        queries=["  - {camera: gate, model: both}"],
        extra=f"ladders: [{{name: both, models: [m0, m1], calibration: '{tmp_path}/both.json'}}]",
    )
    own = "2 x 1 tiles that overlap by 0.333, 32 x 32 pixels each"
    for fed in ("", own, "32 x 32 pixels"):
        rungs = (Rung("m0", (0.5,), 0.01), Rung("m1", (0.6,), 0.02, fed=fed))
        ladder = Ladder(device_name("cpu", 1), ("cat", "dog"), (0.0, 1.0), rungs)
        save_ladder(ladder, tmp_path / "both.json")
        if fed in ("", own):
            Box(parse_config(text, "box.yaml", ["budget.threads=1", "budget.device=cpu"])).close()
            continue
        with pytest.raises(
            ConfigError, match=f"'m1' was calibrated looking at {fed}, now it looks at {own}; calibrate"
        ):
            Box(parse_config(text, "box.yaml", ["budget.threads=1", "budget.device=cpu"]))


@pytest.mark.parametrize("tiles", [Tiles(columns=2), Tiles(columns=2, rows=2, overlap=0.1), Tiles(columns=3, rows=2)])
def test_faint_boxes_take_nothing_from_certain_ones(tmp_path, shared_data, tiles):
    """What is found at a confidence does not depend on the least that was asked for."""
    path = shared_data / "detectors/FastestDet/FastestDet.onnx"
    runner = Runner({"m": served(tmp_path, path, convention="fastestdet", labels="coco", tiles=tiles)}, threads=1)
    runner.load("m")
    counts = dict.fromkeys((0.05, 0.1, 0.3), 0)
    with av.open(str(shared_data / "video/vtest.avi")) as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index % 40 == 0:
                picture = frame.to_ndarray(format="bgr24")
                for floor in counts:
                    [boxes] = runner.infer("m", [runner.prepare("m", picture)], floor)
                    counts[floor] += int((boxes.confidence >= 0.3).sum())
    runner.close()
    assert min(counts.values()) >= 0.97 * max(counts.values())


def test_on_a_real_street_two_tiles_find_more(tmp_path, shared_data):
    path = shared_data / "detectors/FastestDet/FastestDet.onnx"
    models = {
        name: served(tmp_path, path, name=name, convention="fastestdet", labels="coco", tiles=tiles)
        for name, tiles in (("whole", None), ("tiled", Tiles(columns=2)))
    }
    runner = Runner(models, threads=1)
    truth = load_truth(shared_data / "multicam/pets2009_s2l1/view_001_gt_mot15.txt")
    found = {name: {} for name in models}
    with av.open(str(shared_data / "video/vtest.avi")) as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index % 20:
                continue
            picture = frame.to_ndarray(format="bgr24")
            for name in models:
                runner.load(name)
                [boxes] = runner.infer(name, [runner.prepare(name, picture)], 0.05)
                found[name][index] = boxes[boxes.class_id == 0]
    runner.close()
    whole, tiled = (average_precision(found[name], truth, frames=sorted(found[name])) for name in ("whole", "tiled"))
    assert tiled > whole + 0.05  # 0.77 and 0.86 on every fifth frame


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("file: m.onnx, convention: yolov8, tiles: {columns: 9}", "models.0.tiles.columns"),
        ("file: m.onnx, convention: yolov8, tiles: {colums: 2}", "did you mean 'columns'?"),
        ("file: m.onnx, convention: yolov8, tiles: {overlap: 0.7}", "less than or equal to 0.5 (given: 0.7)"),
        ("plan: plan.json, tiles: {columns: 2}", "'tiles' goes with 'use' or 'file' only"),
        ("portfolio: folder, convention: yolov8, tiles: {rows: 2}", "'tiles' goes with 'use' or 'file' only"),
    ],
)
def test_a_mistake_is_named(entry, message):
    text = f"""
        cameras: [{{name: a, source: 'test://people'}}]
        models: [{{name: m, {entry}}}]
        queries: [{{camera: a, model: m}}]
    """
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "box.yaml")
    assert message in str(caught.value)


def test_only_detectors_look_at_tiles(tmp_path):
    path = tmp_path / "classes.onnx"
    save_classifier(path)
    assert served(tmp_path, path, convention="logits").card.task == "classification"
    with pytest.raises(ModelError, match="model 'm': its task is classification; only detectors can look at 'tiles'"):
        served(tmp_path, path, convention="logits", tiles=TILES)
