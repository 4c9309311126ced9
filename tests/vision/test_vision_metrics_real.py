"""The metric gives the figures that the data's own page states for a real detector on real pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edgeward.vision.metrics import average_precision
from edgeward.vision.truth import load_truth


@pytest.fixture(scope="module")
def people(shared_data):
    """A function from a picture to FastestDet's people, from a score of 0.05."""
    runtime = pytest.importorskip("onnxruntime")
    conventions = pytest.importorskip("edgeward.vision.conventions")
    from edgeward.vision.preprocess import prepare

    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    path = shared_data / "detectors/FastestDet/FastestDet.onnx"
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    family = conventions.convention("fastestdet")

    def find(image):
        given = np.zeros(family.usual.shape, np.float32)
        placement = prepare(image, family.usual, given)
        [boxes] = family.decode(session.run(None, {"input.1": given[None]}), [placement], 0.05)
        return boxes[boxes.class_id == 0]

    return find


@pytest.mark.parametrize(("iou", "stated"), [(0.5, 0.784), (0.3, 0.844)])
def test_street_from_the_side(shared_data, people, street, iou, stated):
    truth = load_truth(shared_data / "mot/TUD-Stadtmitte/gt/gt.txt")
    assert average_precision(street, truth, iou) == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize(("iou", "stated"), [(0.5, 0.767), (0.3, 0.899)])
def test_campus_from_above(shared_data, people, campus, iou, stated):
    truth = load_truth(shared_data / "multicam/pets2009_s2l1/view_001_gt_mot15.txt")
    assert average_precision(campus, truth, iou, frames=sorted(campus)) == pytest.approx(stated, abs=0.01)


@pytest.fixture(scope="module")
def street(shared_data, people):
    """People in all 179 pictures."""
    cv2 = pytest.importorskip("cv2")
    paths = sorted((shared_data / "mot/TUD-Stadtmitte/img1").glob("*.jpg"))
    return {index: people(cv2.imread(str(path))) for index, path in enumerate(paths)}


@pytest.fixture(scope="module")
def campus(shared_data, people):
    """People in every fifth frame."""
    av = pytest.importorskip("av")
    with av.open(str(shared_data / "video/vtest.avi")) as video:
        return {
            index: people(frame.to_ndarray(format="bgr24"))
            for index, frame in enumerate(video.decode(video=0))
            if index % 5 == 0
        }
