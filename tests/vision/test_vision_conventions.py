"""Decoding: a box that is encoded by hand is found where it was put; rubbish from a model does no harm."""

from __future__ import annotations

import numpy as np
import pytest

from edgeward.errors import ConfigError, ModelError
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import CONVENTIONS, convention
from edgeward.vision.conventions.ssd import anchors
from edgeward.vision.labels import COCO, IMAGENET
from edgeward.vision.preprocess import Placement
from edgeward.vision.results import Detections

SIDE = 128
CLASSES = 3
BOX = (36.0, 44.0, 84.0, 100.0)
CLASS = 2


def placement(width=SIDE, height=SIDE):
    return Placement(width, height, SIDE, SIDE, SIDE / width, SIDE / height)


def blank(name, batch=1):
    """Outputs that say nothing, in the shapes that the convention has for 128 x 128 pixels and three classes."""
    shapes = {
        "centernet": [(CLASSES, 32, 32), (4, 32, 32)],
        "fastestdet": [(5 + CLASSES, 8, 8)],
        "nanodet": [(336, CLASSES), (336, 44)],
        "ssd": [(len(anchors((SIDE, SIDE))), 4), (len(anchors((SIDE, SIDE))), 1 + CLASSES)],
        "yolov8": [(4 + CLASSES, 336)],
        "yolox": [(336, 5 + CLASSES)],
        "logits": [(CLASSES,)],
        "embedding": [(CLASSES,)],
    }[name]
    outputs = [np.zeros((batch, *shape), np.float32) for shape in shapes]
    if name == "ssd":
        outputs[1][...] = -20
    return outputs


def put_centernet(outputs):
    outputs[0][0, CLASS, 18, 15] = 0.9
    outputs[0][0, CLASS, 18, 16] = 0.8
    outputs[1][0, :, 18, 15] = (60 - 36, 72 - 44, 84 - 60, 100 - 72)


def put_fastestdet(outputs):
    outputs[0][0, 0, 4, 3] = 0.9
    outputs[0][0, 5 + CLASS, 4, 3] = 0.9
    outputs[0][0, 1:3, 4, 3] = np.arctanh([60 / 16 - 3, 72 / 16 - 4])
    width, height = 48 / SIDE, 56 / SIDE
    outputs[0][0, 3:5, 4, 3] = np.log([width / (1 - width), height / (1 - height)])


def put_nanodet(outputs):
    row = 256 + 4 * 8 + 3
    outputs[0][0, row, CLASS] = 0.9
    centre = (3.5 * 16, 4.5 * 16)
    sides = np.array([centre[0] - 36, centre[1] - 44, 84 - centre[0], 100 - centre[1]]) / 16
    for side, distance in enumerate(sides):
        low = int(distance)
        logits = np.full(11, -60.0)
        logits[low : low + 2] = np.log(np.maximum([1 - (distance - low), distance - low], 1e-20))
        outputs[1][0, row, 11 * side : 11 * side + 11] = logits


def put_ssd(outputs):
    anchor = anchors((SIDE, SIDE))[210]
    centre, size = np.array([72, 60]) / SIDE, np.array([56, 48]) / SIDE
    outputs[0][0, 210] = [*(10 * (centre - anchor[:2]) / anchor[2:]), *(5 * np.log(size / anchor[2:]))]
    outputs[1][0, 210, 1 + CLASS] = np.log(9)


def put_yolov8(outputs):
    outputs[0][0, :4, 100] = (60, 72, 48, 56)
    outputs[0][0, 4:, 100] = (0.1, 0.2, 0.9)
    outputs[0][0, :4, 101] = (61, 72, 48, 56)
    outputs[0][0, 4 + CLASS, 101] = 0.8


def put_yolox(outputs):
    row = 256 + 4 * 8 + 3
    outputs[0][0, row] = (60 / 16 - 3, 72 / 16 - 4, np.log(48 / 16), np.log(56 / 16), 1.0, 0.1, 0.2, 0.9)


PUT = {
    "centernet": put_centernet, "fastestdet": put_fastestdet, "nanodet": put_nanodet, "ssd": put_ssd,
    "yolov8": put_yolov8, "yolox": put_yolox,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUT))
def test_a_box_is_found_where_it_was_put(name):
    outputs = blank(name)
    PUT[name](outputs)
    [found] = convention(name).decode(outputs, [placement(640, 256)], 0.3)
    assert len(found) == 1
    np.testing.assert_allclose(found.xyxy[0], np.array(BOX) * [5, 2, 5, 2], atol=0.1)
    assert found.class_id.tolist() == [CLASS]
    assert found.confidence[0] == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("name", sorted(PUT))
def test_nothing_is_found_in_nothing_and_beside_the_batch(name):
    outputs = blank(name, batch=2)
    PUT[name](outputs)
    first, second = convention(name).decode(outputs, [placement()] * 2, 0.3)
    assert (len(first), len(second)) == (1, 0)
    assert convention(name).decode([output[:0] for output in outputs], [], 0.3) == []


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
@pytest.mark.parametrize("confidence", [0.0, 0.3, 1.0])
def test_rubbish_is_survived(name, confidence):
    rng = np.random.default_rng(3)
    for spread in (1.0, 30.0, 1e37):
        outputs = [rng.normal(0, 1, output.shape).astype(np.float32) * np.float32(spread) for output in blank(name, 2)]
        for output in outputs:
            output[rng.random(output.shape) < 0.2] = np.nan
            output[rng.random(output.shape) < 0.1] = np.inf
            output[rng.random(output.shape) < 0.1] = -np.inf
        for found in convention(name).decode(outputs, [placement(320, 240)] * 2, confidence):
            if isinstance(found, Detections):
                assert np.isfinite(found.xyxy).all() and len(found) <= 300
                assert (found.xyxy >= 0).all() and (found.xyxy <= [320, 240, 320, 240]).all()
                assert (found.confidence >= confidence).all() and (found.confidence <= 1).all()
                assert ((found.class_id >= 0) & (found.class_id < CLASSES)).all()
            else:
                assert all(np.isfinite(value).all() for value in vars(found).values())


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_all_nan_is_no_answer(name):
    outputs = [np.full_like(output, np.nan) for output in blank(name)]
    [found] = convention(name).decode(outputs, [placement()], 0.3)
    if name == "embedding":
        np.testing.assert_array_equal(found.vector, 0)
    else:
        assert len(found.confidence) == 0


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_check_accepts_its_own_and_refuses_the_others(name):
    family = convention(name)
    spec = family.preprocess((1, 3, SIDE, SIDE))
    labels = () if name == "embedding" else COCO[:CLASSES]
    card = ModelCard(task=family.task, convention=name, labels=labels, preprocess=spec)
    shapes = [("batch", *output.shape[1:]) for output in blank(name)]
    family.check(shapes, card)
    family.check([("batch", *[None] * (len(shape) - 1)) for shape in shapes], card)
    with pytest.raises(ModelError, match="is for"):
        family.check(shapes, card.model_copy(update={"task": "embedding" if name != "embedding" else "detection"}))
    for wrong in ([], shapes * 3, [(1,)], [(1, 0)], [(1, 1 << 40)] * len(shapes), [(1, 7, 7, 7, 7)] * len(shapes)):
        with pytest.raises(ModelError, match="outputs"):
            family.check(wrong, card)
    if labels:
        with pytest.raises(ModelError, match="3 classes but 80 labels"):
            family.check(shapes, card.model_copy(update={"labels": COCO}))


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_outputs_of_other_shapes_than_declared_are_refused(name):
    outputs = blank(name)
    with pytest.raises(ModelError):
        convention(name).decode(outputs, [placement()] * 2, 0.3)
    with pytest.raises(ModelError):
        convention(name).decode([output.reshape(1, 1, 1, 1, -1) for output in outputs], [placement()], 0.3)


def test_one_output_of_nanodet_plus_is_read_around_corners():
    cells = 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2
    output = np.zeros((1, cells, CLASSES + 32), np.float32)
    output[0, 256 + 4 * 8 + 3, CLASS] = 0.9
    output[0, 256 + 4 * 8 + 3, CLASSES:].reshape(4, 8)[:, 1] = 60
    [found] = convention("nanodet").decode([output], [placement()], 0.3)
    np.testing.assert_allclose(found.xyxy, [[32, 48, 64, 80]], atol=1e-3)


def test_centernet_keeps_only_peaks():
    outputs = blank("centernet")
    rng = np.random.default_rng(5)
    outputs[0][...] = rng.random(outputs[0].shape)
    outputs[1][...] = 3
    heat = np.pad(outputs[0][0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(heat, (3, 3), axis=(1, 2)).max(axis=(3, 4))
    [found] = convention("centernet").decode(outputs, [placement()], 0.95)
    assert len(found) == ((outputs[0][0] == windows) & (outputs[0][0] >= 0.95)).sum()


def test_logits_become_the_five_likeliest():
    logits = np.array([[0.0, 3, 1, 2, -1, 4, 2.5]], np.float32)
    [found] = convention("logits").decode([logits], [placement()], 0.9)
    assert found.class_id.tolist() == [5, 1, 6, 3, 2]
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(found.confidence, expected[found.class_id], rtol=1e-5)
    [again] = convention("logits").decode([expected[None]], [placement()], 0.9)
    np.testing.assert_allclose(again.confidence, found.confidence, rtol=1e-5)


def test_embeddings_are_unit_vectors():
    [found] = convention("embedding").decode([np.array([[[[3.0]], [[4.0]]]], np.float32)], [placement()], 0.5)
    np.testing.assert_allclose(found.vector, [0.6, 0.8], rtol=1e-6)


def test_the_usual_input_follows_the_files_shape():
    assert convention("ssd").preprocess((1, 320, 256, 3)).shape == (320, 256, 3)
    assert convention("ssd").preprocess(("batch", 3, None, "w")).shape == (3, 300, 300)
    for wrong in ((1, 3, 7), (1, 5, 300, 300), (1, 3, 2, 300), (1, 3, 300, 1 << 20), (), (1, 3, 0, 0)):
        with pytest.raises(ModelError, match="input"):
            convention("ssd").preprocess(wrong)


def test_unknown_conventions_name_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'yolov8'"):
        convention("yolov9")
    assert list(CONVENTIONS) == sorted(CONVENTIONS)


def test_labels_have_no_namesakes():
    assert (len(set(COCO)), len(set(IMAGENET))) == (80, 1000)
    assert (COCO[0], COCO[79], IMAGENET[285], IMAGENET[967]) == ("person", "toothbrush", "Egyptian cat", "espresso")
