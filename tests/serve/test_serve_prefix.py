"""models of a box that begin alike answer as they would alone, and compute their beginning once for each picture."""

from __future__ import annotations

import gc
import threading

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tinyheads import answers, assert_same, detectors, images, loaded
from tinymodel import box_text, save_detector

from edgeward.errors import ModelError
from edgeward.serve import beginnings
from edgeward.serve.beginnings import ROOM, BegunModel, ByPicture, begin_together
from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.runner import Runner
from edgeward.weights import begun
from edgeward.weights.prefix import common_beginnings
from edgeward.weights.store import WeightStore
from edgeward.zoo.export import portable_onnx


@pytest.fixture
def store(tmp_path):
    return WeightStore(tmp_path / "weights")


@pytest.fixture
def begins(monkeypatch):
    """How many pictures each run of a beginning was for, those of the check before it is used left out."""
    counts, checking = [], []
    plain = begun.BegunSession.begin

    def counted(self, batch):
        if not checking:
            counts.append(len(batch))
        return plain(self, batch)

    def unseen(*asked):
        checking.append(True)
        found = common_beginnings(*asked)
        checking.clear()
        return found

    monkeypatch.setattr(begun.BegunSession, "begin", counted)
    monkeypatch.setattr(beginnings, "common_beginnings", unseen)
    return counts


def with_head(source, path, classes):
    """A copy of a classifier with another last layer, for so many classes."""
    model, random = onnx.load(source), np.random.default_rng(classes)
    weight, bias = model.graph.node[-1].input[1:]
    for tensor in model.graph.initializer:
        if tensor.name in (weight, bias):
            array = random.normal(0, 0.05, (classes, *tensor.dims[1:])).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    onnx.save(model, path)
    return path


def test_who_comes_later_finds_the_beginning_there(tmp_path, store, begins):
    models, said = detectors(tmp_path, store), []
    whole, together = loaded(models), loaded(begin_together(models, note=said.append))
    assert said == ["'m1', 'm2' and 'm3' begin alike: 99 %, 99 % and 99 % of their work is done once for each frame"]
    one, two, three, four = pictures = images(4)
    for name, asked, computed in [
        ("m1", [one, two], 2),
        ("m2", [one], 0),
        ("m3", [three, one, four], 2),
        ("m1", pictures, 0),
    ]:
        before = sum(begins)
        assert_same(answers(together, name, asked), answers(whole, name, asked))
        assert sum(begins) - before == computed
    assert together.prepare("m1", one).pixels is together.prepare("m3", one).pixels


def test_equal_pictures_in_other_arrays_are_other_pictures(tmp_path, store, begins):
    runner = loaded(begin_together(detectors(tmp_path, store)))
    [picture] = images(1)
    answers(runner, "m1", [picture])
    answers(runner, "m2", [picture.copy()])
    assert sum(begins) == 2


def test_a_model_comes_and_goes_and_the_others_go_on(tmp_path, store, begins):
    models = detectors(tmp_path, store)
    runner, [picture] = loaded(begin_together(models)), images(1)
    expected = answers(loaded(models), "m2", [picture])
    answers(runner, "m1", [picture])
    runner.evict("m1")
    with pytest.raises(ModelError, match="attach"):
        answers(runner, "m1", [picture])
    assert_same(answers(runner, "m2", [picture]), expected)
    assert sum(begins) == 1, "what an evicted model computed is of use to the others"
    runner.load("m1")
    answers(runner, "m1", [picture])
    assert sum(begins) == 1
    assert {name: model.spec for name, model in begin_together(models).items()} == {
        name: model.spec for name, model in models.items()
    }
    runner.close()


def test_what_was_made_goes_with_its_picture_and_never_outgrows_its_room(tmp_path):
    made, pictures = ByPicture(room=100), images(4)
    for picture in pictures[:3]:
        made.put(picture, "k", picture.shape, 40)
    assert [made.get(picture, "k") is None for picture in pictures] == [True, False, False, True]
    assert made.nbytes == 80
    made.put(pictures[3], "k", "large", 101)
    assert made.get(pictures[3], "k") is None
    assert made.nbytes <= 100
    made.put(pictures[0], "k", 1, 40)
    made.put(pictures[0], "other", 2, 40)
    assert (made.get(pictures[0], "k"), made.get(pictures[0], "other")) == (1, 2)
    del picture, pictures[0]
    gc.collect()
    made.put(pictures[0], "k", 3, 1)
    assert made.nbytes == 1
    made.clear()
    assert made.get(pictures[0], "k") is None


def at_one_of(places):
    """A picture where an earlier one has lain, if that one is gone: of very many new ones, one is there again."""
    made = [np.empty((48, 64, 3), np.uint8) for _ in range(2000)]
    return next((each for each in made if id(each) in places), made[0])


def test_a_picture_where_another_has_lain_is_not_taken_for_it(tmp_path, store):
    """Frames come and go at the same addresses; every answer must be that of its own picture."""
    models = detectors(tmp_path, store)
    whole, together = loaded(models), loaded(begin_together(models))
    places, seen = set(), {name: [] for name in models}
    for seed in range(30):
        picture = at_one_of(places)
        picture[:] = np.random.default_rng(seed).integers(0, 20 + 5 * seed, (48, 64, 3), np.uint8)
        places.add(id(picture))
        for name in models:
            raw = [runner._engines[name] for runner in (whole, together)]
            pixels = together.prepare(name, picture).pixels
            ours = raw[1].run_on([picture], pixels)
            expected = raw[0].run(whole.prepare(name, picture).pixels)
            np.testing.assert_allclose(ours[0], expected[0], rtol=1e-4, atol=1e-4)
            assert not any(np.allclose(expected[0], other, rtol=1e-3, atol=1e-3) for other in seen[name])
            seen[name].append(expected[0])
        del picture
    assert len(places) < 30, "no address was used again: the test showed nothing"
    assert together._models["m1"].made.nbytes <= ROOM


def test_many_threads_prepare_while_one_infers(tmp_path, store):
    models = detectors(tmp_path, store)
    whole, together, pictures, wrong = loaded(models), loaded(begin_together(models)), images(40), []

    def prepares(name):
        for picture in pictures:
            theirs = whole.prepare(name, picture).pixels
            wrong.extend([name] if not np.array_equal(together.prepare(name, picture).pixels, theirs) else [])

    threads = [threading.Thread(target=prepares, args=(name,)) for name in models for _ in range(2)]
    for thread in threads:
        thread.start()
    for picture in pictures:
        for name in models:
            assert_same(answers(together, name, [picture]), answers(whole, name, [picture]))
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_models_that_are_fed_alike_begin_together(tmp_path, store, monkeypatch):
    models = detectors(tmp_path, store)
    other = ModelConfig(
        name="brighter",
        file=tmp_path / "m1.onnx",
        convention="yolov8",
        labels=("a",),
        input={"mean": (1.0, 1.0, 1.0)},
    )
    models["brighter"] = resolve_model(other, store, tmp_path, "cpu")
    found = begin_together(models)
    assert [isinstance(model, BegunModel) for model in found.values()] == [True, True, True, False]
    assert begin_together({"m1": models["m1"]}) == {"m1": models["m1"]}


def test_a_box_with_two_questions_on_one_camera(tmp_path, begins):
    """Every frame is asked two questions: the box says what is shared, and begins no frame twice."""
    for index, classes in enumerate((2, 3)):
        save_detector(tmp_path / f"head{index}.onnx", classes=classes)
    video = "test://people?seed=1&fps=25&width=160&height=120&frames=40&objects=2"
    queries = ["  - {camera: a, model: h0}", "  - {camera: a, model: h1}"]
    text = box_text(tmp_path, {"a": video}, queries=queries, models=1)
    entries = "".join(
        f"  - {{name: h{index}, file: '{tmp_path}/head{index}.onnx', convention: yolov8, labels: [{labels}]}}\n"
        for index, labels in enumerate(("cat, dog", "cat, dog, cow"))
    )
    text = text.replace("queries:", f"{entries}queries:")
    said = []
    box = Box(parse_config(text, "box.yaml", ["cameras.a.backpressure=every_frame"]), progress=said.append)
    rehearsals = len(begins)
    with box:
        box.run()
        report = box.report()
    assert [(each.due, each.in_time + each.late) for each in report.queries] == [(40, 40)] * 2
    assert sum(begins[rehearsals:]) == 40
    assert [text for text in said if text.startswith("'h0' and 'h1' begin alike: 9")]


def test_three_heads_on_efficientnet_lite0_and_real_frames(tmp_path, store, begins, shared_data):
    """Real weights, real video: equal answers, one beginning a frame."""
    whole_file, card = portable_onnx("efficientnet-lite0", None, tmp_path)
    spec, models = card.preprocess.model_dump(include={"mean", "std"}), {}
    for classes in (1000, 10, 3):
        path = with_head(whole_file, tmp_path / f"lite{classes}.onnx", classes)
        config = ModelConfig(name=path.stem, file=path, convention="logits", input=spec)
        models[path.stem] = resolve_model(config, store, tmp_path, "cpu")
    together = begin_together(models)
    assert all(each.beginning.endings[each.place].share > 0.99 for each in together.values())
    engines = {name: (models[name].open(1), together[name].open(1)) for name in models}
    runner = Runner(together, threads=1)
    clip = cv2.VideoCapture(str(shared_data / "video" / "vtest.avi"))
    frames = [clip.read()[1] for _ in range(4)]
    for whole, ours in engines.values():
        whole.attach()
        ours.attach()
    for asked in ([frames[0]], frames[1:3], frames):
        for name, (whole, ours) in engines.items():
            batch = np.concatenate([runner.prepare(name, frame).pixels for frame in asked])
            [found], [expected] = ours.run_on(asked, batch), whole.run(batch)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
            assert found.argmax(1).tolist() == expected.argmax(1).tolist()
    assert sum(begins) == len(frames)
