"""Exits of one network as models of a box: what they share, as rungs of a ladder, on real video, and when they cannot be."""

from __future__ import annotations

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edgeward.cli import app
from edgeward.errors import ConfigError, ModelError
from edgeward.serve.beginnings import begin_together
from edgeward.serve.box import Box
from edgeward.serve.configfile import load_config, parse_config
from edgeward.serve.ladder import load_ladder
from edgeward.serve.log import read_log
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.replay import replay
from edgeward.serve.runner import Runner
from edgeward.weights.skeleton import Skeleton
from edgeward.weights.store import WeightStore

SIDE, BOXES = 32, 8


def save_exits(path, width=16, classes=2):
    """A detector [N, 3, 32, 32] of the yolov8 convention with outputs "early" and "late"; the late one works longer."""
    random, rows = np.random.default_rng(0), 4 + classes
    weights = {
        "w1": random.normal(0, 0.1, (width, 3, 3, 3)),
        "w2": random.normal(0, 0.1, (width, width, 3, 3)),
        **{f"w_{name}": random.normal(0, 0.3, (rows * BOXES, width, 1, 1)) for name in ("early", "late")},
        "bias": np.zeros((rows, BOXES)),
    }
    weights["bias"][:4, 0], weights["bias"][4, 0] = (SIDE / 2, SIDE / 2, SIDE / 4, SIDE / 2), 0.8  # one cat
    weights["bias"] = weights["bias"].reshape(-1)
    tensors = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, rows, BOXES], np.int64), "shape"))

    def leave(name, stem):
        return [
            helper.make_node("GlobalAveragePool", [stem], [f"p_{name}"]),
            helper.make_node("Conv", [f"p_{name}", f"w_{name}", "bias"], [f"c_{name}"]),
            helper.make_node("Reshape", [f"c_{name}", "shape"], [name]),
        ]

    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["h1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h1"], ["stem"]),
        *leave("early", "stem"),
        helper.make_node("Conv", ["stem", "w2"], ["h2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h2"], ["deep"]),
        *leave("late", "deep"),
    ]
    entered = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", rows, BOXES]) for name in ("early", "late")]
    graph = helper.make_graph(nodes, "exits", [entered], given, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def exits(folder, path, names=("early", "late"), convention="yolov8", labels=("cat", "dog")):
    store = WeightStore(folder / "store")
    return {
        name: resolve_model(
            ModelConfig(name=name, file=path, outputs=(name,), convention=convention, labels=labels),
            store,
            folder,
            "cpu",
        )
        for name in names
    }


def test_exits_share_weights_and_the_early_one_leaves_out_the_rest(tmp_path):
    models = exits(tmp_path, save_exits(tmp_path / "m.onnx"))
    early, late = (set(model.tensors) for model in models.values())
    assert early & late, "the stem is in memory once"
    assert early - late, "each has a head of its own"
    assert late - early
    first, last = (Skeleton(model.packed, model.store) for model in models.values())
    assert 0.02 < first.work() / last.work() < 0.5


def test_together_they_compute_the_stem_once_and_answer_as_the_whole_file_does(tmp_path):
    path = save_exits(tmp_path / "m.onnx")
    whole = exits(tmp_path, path)
    said: list[str] = []
    models = begin_together(whole, note=said.append)
    assert "'early' and 'late' begin alike" in " ".join(said)
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    runners = [Runner(each, threads=1) for each in (whole, models)]
    answers = []
    for runner in runners:
        for name in models:
            runner.load(name)
        answers.append({name: runner.infer(name, [runner.prepare(name, image)], 0.0)[0] for name in models})
        runner.close()
    for name in models:
        assert len(answers[0][name])
        np.testing.assert_allclose(answers[1][name].xyxy, answers[0][name].xyxy, rtol=1e-3, atol=1e-3)
    assert not np.array_equal(answers[0]["early"].xyxy, answers[0]["late"].xyxy)


def test_from_calibration_to_a_box_that_chooses_between_exits(tmp_path):
    save_exits(tmp_path / "m.onnx")
    file = tmp_path / "box.yaml"
    file.write_text(f"""
        cameras: [{{name: gate, source: 'test://people?seed=1&fps=25&width=160&height=120&frames=50&objects=2', rate: 25}}]
        models:
          - {{name: early, file: m.onnx, outputs: [early], convention: yolov8, labels: [cat, dog]}}
          - {{name: late, file: m.onnx, outputs: [late], convention: yolov8, labels: [cat, dog]}}
        ladders: [{{name: exits, models: [early, late], calibration: exits.json}}]
        queries: [{{camera: gate, model: exits, confidence: 0.3}}]
        data: {tmp_path}/data
        cache: {tmp_path}/cache
        web: {{port: 0}}
        budget: {{threads: 1, device: cpu}}
    """)
    run = CliRunner().invoke(app, ["serve", "calibrate", str(file), "--frames", "20"])
    assert run.exit_code == 0, run.output
    assert {rung.name for rung in load_ladder(tmp_path / "exits.json").rungs} == {"early", "late"}
    with Box(load_config(file)) as box:
        box.run()
        models = {model.name: model for model in box.report().models}
    assert sum(models[name].inferences for name in ("early", "late")) >= 40
    (recording,) = read_log(tmp_path / "data" / "log")
    assert replay(recording, "edf").identical


def test_an_exit_of_a_real_detector_finds_what_the_detector_finds(tmp_path, shared_data):
    plain = shared_data / "detectors/FastestDet/FastestDet.onnx"
    model = onnx.load(plain)
    [last] = [each.name for each in model.graph.output]
    values = {each.name: each for each in onnx.shape_inference.infer_shapes(model).graph.value_info}
    model.graph.output.append(values["old_x.23"])  # from the middle of the backbone
    onnx.save(model, tmp_path / "more.onnx")
    store = WeightStore(tmp_path / "store")
    entry = {"name": "m", "convention": "fastestdet", "labels": "coco"}

    def served(**more):
        return resolve_model(ModelConfig.model_validate(entry | more), store, tmp_path, "cpu")

    hint = r"model 'm': the outputs have shapes .* name the outputs of one: 'outputs', of 758, old_x.23"
    with pytest.raises(ModelError, match=hint):
        served(file=tmp_path / "more.onnx")
    with pytest.raises(ModelError, match="model 'm': the model has 91 classes but 80 labels are given"):
        served(file=tmp_path / "more.onnx", outputs=["old_x.23"])
    models = {"plain": served(file=plain), "exit": served(file=tmp_path / "more.onnx", outputs=[last])}
    assert models["plain"].tensors == models["exit"].tensors
    runner, found = Runner(models, threads=1), dict.fromkeys(models, 0)
    for name in models:
        runner.load(name)
    with av.open(str(shared_data / "video/vtest.avi")) as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index % 100 == 0:
                picture = frame.to_ndarray(format="bgr24")
                one, other = (runner.infer(name, [runner.prepare(name, picture)], 0.3)[0] for name in models)
                np.testing.assert_array_equal(one.xyxy, other.xyxy)
                found = {name: found[name] + len(one) for name in found}
    runner.close()
    assert found["plain"] > 20


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("file: m.onnx, convention: yolov8, outputs: []", "models.0.outputs"),
        ("file: m.onnx, convention: yolov8, outputs: [a, a]", "'outputs' names one twice"),
        ("file: m.onnx, convention: yolov8, output: [a]", "did you mean 'outputs'?"),
        ("use: ssdlite-person, outputs: [a]", "'outputs' goes with a 'file' of your own only"),
        ("use: nanodet, file: nanodet.json, outputs: [a]", "'outputs' goes with a 'file' of your own only"),
        ("plan: plan.json, outputs: [a]", "'outputs' goes with a 'file' of your own only"),
        ("portfolio: folder, convention: yolov8, outputs: [a]", "'outputs' goes with a 'file' of your own only"),
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


def test_an_output_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"model 'erly': .*m.onnx has no output 'erly'; did you mean 'early'\?"):
        exits(tmp_path, save_exits(tmp_path / "m.onnx"), names=["erly"])
