"""Export and ONNX files: the same numbers as torch for any batch, found again without torch, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from edgeward.errors import ConfigError, ModelError, StoreError
from edgeward.vision.conventions import convention
from edgeward.zoo.export import portable_onnx
from edgeward.zoo.onnxedit import finish
from edgeward.zoo.onnxfile import user_onnx
from edgeward.zoo.packaged import PACKAGED, packaged


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache") / "models"


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, batch):
    return session(path).run(None, {"image": batch.numpy()})


@pytest.mark.parametrize("name", ["efficientnet-lite0", "mobilenetv2-embedder", "ssdlite-person"])
def test_exported_networks_answer_like_torch(cache, name):
    assert_same(cache, name, None)


@pytest.mark.parametrize("name", ["centernet", "nanodet"])
def test_exported_networks_of_named_files_answer_like_torch(cache, shared_data, name):
    assert_same(cache, name, shared_data / "detectors" / name / f"{name}.json")


def assert_same(cache, name, file):
    path, card = portable_onnx(name, file, cache)
    assert card == PACKAGED[name].card
    found = user_onnx(path)
    assert found.input_shape == ("batch", *card.preprocess.shape)
    assert all(isinstance(size, int) for shape in found.output_shapes for size in shape[1:])
    convention(card.convention).check(found.output_shapes, card)
    torch.manual_seed(0)
    batch = torch.rand(2, *card.preprocess.shape)
    batch = batch * 255 if card.preprocess.std == (1.0,) * 3 else batch * 2 - 1
    with torch.no_grad():
        expected = packaged(name).load(file)(batch)
    for one, other in zip(run(path, batch), expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4 * other.abs().max().item())
    for one, other in zip(run(path, batch[1:]), run(path, batch), strict=True):
        np.testing.assert_allclose(one[0], other[1], atol=1e-4 * np.abs(other).max())
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    assert {one.data_type for one in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    if name != "centernet":
        assert "Pad" not in {node.op_type for node in model.graph.node}


def test_the_second_call_needs_no_torch(cache):
    path, _ = portable_onnx("mobilenetv2-embedder", None, cache)
    before = path.stat().st_mtime_ns
    code = (
        "import sys, pathlib; from edgeward.zoo.export import portable_onnx; from edgeward.zoo.onnxfile import user_onnx;"
        "path, card = portable_onnx('mobilenetv2-embedder', None, pathlib.Path(sys.argv[1])); user_onnx(path);"
        "assert not {'torch', 'onnx'} & set(sys.modules); print(path)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(path)
    assert path.stat().st_mtime_ns == before


def test_other_weights_are_another_file_and_a_failure_leaves_none(tmp_path):
    weights = tmp_path / "weights.pt"
    state = torch.load(packaged("mobilenetv2-embedder").locate(), weights_only=True)
    torch.save({name: tensor * 1 for name, tensor in state.items()}, weights)
    first, _ = portable_onnx("mobilenetv2-embedder", weights, tmp_path / "cache")
    last = list(state)[-2]
    torch.save(state | {last: state[last] + 1}, weights)
    second, _ = portable_onnx("mobilenetv2-embedder", weights, tmp_path / "cache")
    assert first != second
    weights.write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="weights"):
        portable_onnx("mobilenetv2-embedder", weights, tmp_path / "cache")
    assert sorted((tmp_path / "cache").iterdir()) == sorted([first, second])


def test_two_processes_may_export_at_once(tmp_path):
    code = (
        "import sys, pathlib, torch; torch.set_num_threads(1); from edgeward.zoo.export import portable_onnx;"
        "print(portable_onnx('mobilenetv2-embedder', None, pathlib.Path(sys.argv[1]))[0])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert {error for _, error in results} == {""}, "the export is silent"
    [only] = tmp_path.iterdir()
    assert {text.strip() for text, _ in results} == {str(only)}
    user_onnx(only)


def test_a_cache_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cache"):
        portable_onnx("mobilenetv2-embedder", None, tmp_path / "file" / "cache")
    with pytest.raises(ConfigError, match="no packaged model"):
        portable_onnx("resnet", None, tmp_path)


def tiny(inputs=(("x", TensorProto.FLOAT, ["batch", 3, 8, "w"]),), location=None):
    """A model that adds a constant to its input; with `location` the constant's bytes are said to be there."""
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    if location is not None:
        constant.ClearField("float_data")
        constant.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "4")):
            constant.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", [inputs[0][0] if inputs else "c", "c"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [constant],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_a_users_file_says_what_it_takes_and_gives(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny())
    found = user_onnx(path)
    assert (found.input_name, found.input_shape) == ("x", ("batch", 3, 8, "w"))
    assert (found.output_names, found.output_shapes) == (("y",), (("batch", 3, 8, "w"),))


def test_external_data_beside_the_file_is_read(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny(location="c.bin"))
    (tmp_path / "c.bin").write_bytes(np.float32(5).tobytes())
    assert user_onnx(path).input_name == "x"
    assert session(path).run(None, {"x": np.zeros((1, 3, 8, 2), np.float32)})[0].max() == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "more than none"),
        (b"rubbish", "rubbish.onnx"),
        (b"\x00" * 64, "rubbish.onnx"),
        (tiny()[:-20], "rubbish.onnx"),
        (tiny(location="../secret.bin"), "outside its own folder"),
        (tiny(location="/etc/hostname"), "outside its own folder"),
        (tiny(location="link.bin"), "outside its own folder"),
        (tiny(location="absent.bin"), "missing"),
        (tiny([("x", TensorProto.FLOAT16, [1])]), "rubbish.onnx"),
        (tiny([("x", TensorProto.FLOAT, [1]), ("z", TensorProto.FLOAT, [1])]), "exactly one"),
        (tiny([]), "exactly one"),
    ],
)
def test_bad_onnx_files_are_refused(tmp_path, content, message):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.float32(5).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "rubbish.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        user_onnx(path)
    with pytest.raises(ModelError, match="no file"):
        user_onnx(folder / "absent.onnx")


def test_damaged_onnx_files_are_refused_or_read(tmp_path):
    rng = np.random.default_rng(11)
    whole = tiny()
    path = tmp_path / "damaged.onnx"
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]) if rng.random() < 0.3 else bytes(data))
        try:
            user_onnx(path)
        except ModelError as error:
            assert "damaged.onnx" in str(error)


@pytest.mark.filterwarnings("ignore")  # the exporter's chatter, which `portable_onnx` silences
@pytest.mark.parametrize("side", [9, 10])
def test_padding_becomes_part_of_the_convolution(tmp_path, side):
    from edgeward.zoo.layers import SameConv2d

    torch.manual_seed(2)
    network = torch.nn.Sequential(SameConv2d(3, 4, 3, 2), torch.nn.ReLU6(), SameConv2d(4, 4, 5, 2, groups=4)).eval()
    x = torch.randn(1, 3, side, side)
    path = tmp_path / "padded.onnx"
    torch.onnx.export(network, (x,), path, dynamo=False, input_names=["image"], output_names=["y"])
    expected = network(x).detach().numpy()
    finish(path, {"y": expected.shape})
    assert [node.op_type for node in onnx.load(path).graph.node if node.op_type in ("Pad", "Conv")] == ["Conv", "Conv"]
    np.testing.assert_allclose(run(path, x)[0], expected, atol=1e-5)
