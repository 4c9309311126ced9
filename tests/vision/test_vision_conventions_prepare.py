"""Pictures into inputs and boxes back: against the definition, for every layout, colour order and fit."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeward.vision.card import ModelCard, Preprocess
from edgeward.vision.preprocess import Placement, prepare

RNG = np.random.default_rng(7)


@pytest.mark.parametrize(
    ("colour", "layout", "interpolation"), list(itertools.product(["bgr", "rgb"], ["nchw", "nhwc"], ["linear", "area"]))
)
def test_prepare_is_the_definition(colour, layout, interpolation):
    image = RNG.integers(0, 256, (97, 131, 3), np.uint8)
    spec = Preprocess(
        height=40, width=64, colour=colour, layout=layout, interpolation=interpolation,
        mean=(10.0, 20.0, 30.0), std=(2.0, 3.0, 4.0),
    )  # fmt: skip
    out = np.full(spec.shape, np.nan, np.float32)
    prepare(image, spec, out)
    flag = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[interpolation]
    resized = cv2.resize(image, (64, 40), interpolation=flag).astype(np.float64)
    expected = ((resized[..., ::-1] if colour == "rgb" else resized) - spec.mean) / spec.std
    np.testing.assert_allclose(out if layout == "nhwc" else out.transpose(1, 2, 0), expected, atol=1e-4)


def test_a_picture_of_the_right_size_is_only_normalised():
    image = RNG.integers(0, 256, (32, 48, 3), np.uint8)
    spec = Preprocess(height=32, width=48, colour="bgr", std=(1.0, 1.0, 1.0))
    out = np.empty(spec.shape, np.float32)
    prepare(image, spec, out)
    np.testing.assert_allclose(out.transpose(1, 2, 0), image, atol=1e-4)


def test_letterbox_keeps_the_shape_between_bars():
    image = np.full((100, 200, 3), 255, np.uint8)
    spec = Preprocess(height=64, width=64, fit="letterbox", pad=51)
    out = np.empty(spec.shape, np.float32)
    placement = prepare(image, spec, out)
    np.testing.assert_allclose(out[:, 16:48], 1.0, atol=1e-6)
    np.testing.assert_allclose(out[:, :16], 0.2, atol=1e-6)
    np.testing.assert_allclose(out[:, 48:], 0.2, atol=1e-6)
    np.testing.assert_allclose(placement.to_frame(np.array([[0, 16, 64, 48.0]])), [[0, 0, 200, 100]])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(8, 128), st.integers(8, 128),
    st.sampled_from(["stretch", "letterbox"]), st.tuples(*[st.floats(0, 1)] * 4),
)  # fmt: skip
def test_boxes_come_back_to_where_they_were(width, height, model_width, model_height, fit, corners):
    spec = Preprocess(height=model_height, width=model_width, fit=fit)
    out = np.empty(spec.shape, np.float32)
    placement = prepare(np.zeros((height, width, 3), np.uint8), spec, out)
    box = np.array([corners]) * [width, height, width, height]
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    offset = np.array([placement.offset_x, placement.offset_y] * 2)
    there = box * scale + offset
    assert (there >= -1e-6).all() and (there <= np.array([model_width, model_height] * 2) + 1e-6).all()
    np.testing.assert_allclose(placement.to_frame(there), box, atol=1e-3)


def test_boxes_are_clipped_to_the_frame():
    placement = Placement(100, 50, 10, 10, 0.1, 0.2)
    np.testing.assert_allclose(placement.to_frame(np.array([[-5.0, -5, 50, 50]])), [[0, 0, 100, 50]])


@pytest.mark.parametrize(
    ("image", "out"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((3, 8, 8), np.float32)),
        (np.zeros((4, 4, 3), np.float32), np.zeros((3, 8, 8), np.float32)),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((3, 8, 8), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((8, 8, 3), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((3, 8, 8), np.float64)),
    ],
)
def test_what_does_not_fit_is_refused(image, out):
    with pytest.raises(ValueError, match=r"uint8|float32"):
        prepare(image, Preprocess(height=8, width=8), out)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0, "width": 8}, {"height": 8, "width": 1 << 20}, {"height": 8, "width": 8, "std": (1, 0, 1)},
        {"height": 8, "width": 8, "mean": (float("nan"), 0, 0)}, {"height": 8, "width": 8, "colour": "grey"},
        {"height": 8, "width": 8, "unknown": 1},
    ],
)  # fmt: skip
def test_cards_are_validated(wrong):
    with pytest.raises(ValidationError):
        ModelCard(task="detection", convention="ssd", preprocess=wrong)
