"""Packed models answer as plain sessions do, share their weights, and let them go."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeward.errors import ConfigError, ModelError, StoreError
from edgeward.weights.pack import pack
from edgeward.weights.session import Session, best_provider
from edgeward.weights.store import WeightStore


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(path, nodes, weights, output, **options):
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 3, 32, 32])], [value("y", output)], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path, **options)
    return path


def network(path, seed=0, **options):
    """Convolutions, one weight under two names, a matrix product, a branch with weights of its own."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=(32, 32, 3, 3)).astype(np.float32) / 20
    branch = helper.make_graph(
        [helper.make_node("Add", ["h", "inner"], ["t"])], "then", [], [value("t", None)],
        [numpy_helper.from_array(random.normal(size=(1, 10)).astype(np.float32), "inner")],
    )  # fmt: skip
    other = helper.make_graph([helper.make_node("Identity", ["h"], ["e"])], "else", [], [value("e", None)])
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["q"]),
        helper.make_node("If", ["q"], ["y"], then_branch=branch, else_branch=other),
    ]
    weights = {
        "w0": random.normal(size=(32, 3, 3, 3)).astype(np.float32),
        "w1": shared,
        "w2": shared,
        "m": random.normal(size=(32, 10)).astype(np.float32),
        "zero": np.float32(0),
    }
    return save(path, nodes, weights, ["n", 10], **options)


def plain(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_equal_the_plain_session(tmp_path, external, batch):
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0} if external else {}
    path = network(tmp_path / "m.onnx", **options)
    store = WeightStore(tmp_path / "store")
    packed = pack(path, store, external=[tmp_path / "w.bin"] if external else [])
    x = np.random.default_rng(1).random((batch, 3, 32, 32)).astype(np.float32)
    with Session(packed, store) as session:
        for feeds in (x, -x):
            [ours], [theirs] = session.run({"x": feeds}), plain(path).run(None, {"x": feeds})
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_accounting_is_exact_and_a_tensor_under_two_names_counts_once(tmp_path):
    store = WeightStore(tmp_path)
    packed = pack(network(tmp_path / "m.onnx"), store)
    held = sum(packed.tensor_bytes.values())
    assert held == sum(ref.nbytes for ref in store.index().values())
    assert held == sum(ref.nbytes for ref in {ref.digest: ref for ref in packed.tensors.values()}.values())
    assert len(packed.tensors) > len(packed.tensor_bytes)
    assert packed.inputs[0].name == "x"
    assert [port.name for port in packed.outputs] == ["y"]


def test_a_later_pack_reads_what_is_there_and_needs_neither_onnx_nor_torch(tmp_path):
    path = network(tmp_path / "m.onnx")
    first = pack(path, WeightStore(tmp_path / "store"))
    script = (
        "import sys; from pathlib import Path; from edgeward.weights.pack import pack;"
        "from edgeward.weights.store import WeightStore;"
        "p = pack(Path(sys.argv[1]), WeightStore(Path(sys.argv[2])));"
        "print(p.graph.name, sorted({'onnx', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "store")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"{first.graph.name} []"


@pytest.mark.parametrize("damage", ["manifest", "graph", "segment"])
def test_damage_is_repaired_by_the_next_pack(tmp_path, damage):
    path = network(tmp_path / "m.onnx")
    store = WeightStore(tmp_path / "store")
    packed = pack(path, store)
    victim = {
        "manifest": packed.graph.with_suffix(".json"),
        "graph": packed.graph,
        "segment": store.folder / next(iter(packed.tensors.values())).segment,
    }[damage]
    if damage == "graph":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    again = pack(path, store)
    with Session(again, store) as session:
        assert session.run({"x": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 10)


def test_a_changed_model_is_packed_anew(tmp_path):
    store = WeightStore(tmp_path / "store")
    first = pack(network(tmp_path / "m.onnx", seed=0), store)
    second = pack(network(tmp_path / "m.onnx", seed=1), store)
    assert first.graph != second.graph
    assert first.tensor_bytes.keys() != second.tensor_bytes.keys()


def test_detaching_frees_the_weights_and_attaching_brings_them_back(tmp_path):
    store = WeightStore(tmp_path / "store")
    packed = pack(network(tmp_path / "m.onnx"), store)
    session = Session(packed, store)
    feeds = {"x": np.ones((1, 3, 32, 32), np.float32)}
    with pytest.raises(ModelError, match="attach"):
        session.run(feeds)
    session.attach()
    [before] = session.run(feeds)
    segment = next(iter(packed.tensors.values())).segment
    assert segment in Path("/proc/self/maps").read_text()
    session.detach()
    session.detach()
    gc.collect()
    assert segment not in Path("/proc/self/maps").read_text()
    session.attach()
    [after] = session.run(feeds)
    assert np.array_equal(before, after)
    session.close()
    session.close()


def test_four_sessions_hold_the_same_memory(tmp_path):
    store = WeightStore(tmp_path / "store")
    packed = pack(network(tmp_path / "m.onnx"), store)
    sessions = [Session(packed, store) for _ in range(4)]
    for session in sessions:
        session.attach()
    addresses = [[view.ctypes.data for view in session._views] for session in sessions]
    assert addresses[0] == addresses[1] == addresses[2] == addresses[3]
    feeds = {"x": np.ones((1, 3, 32, 32), np.float32)}
    answers = [session.run(feeds)[0] for session in sessions]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_an_attach_that_fails_leaves_nothing_attached(tmp_path):
    store = WeightStore(tmp_path / "store")
    packed = pack(network(tmp_path / "m.onnx"), store)
    session = Session(packed, store)
    segment = store.folder / next(iter(packed.tensors.values())).segment
    segment.rename(tmp_path / "away")
    with pytest.raises(StoreError, match="cannot be read"):
        session.attach()
    assert not session.attached
    (tmp_path / "away").rename(segment)
    session.attach()
    assert session.attached


def test_a_model_whose_weights_must_be_constants_is_kept_whole(tmp_path):
    """Where the runtime insists on a constant, binding would fail: the packed model falls back to its own weights."""
    random = np.random.default_rng(0)
    scale = np.full(512, 0.02, np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node(
            "MatMulNBits", ["f", "q", "scale"], ["y"], domain="com.microsoft", K=3, N=512, bits=4, block_size=16
        ),
    ]
    weights = {"q": random.integers(0, 255, (512, 1, 8), np.uint8), "scale": scale}
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 3, 32, 32])], [value("y", ["n", 512])], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    store = WeightStore(tmp_path / "store")
    packed = pack(path, store)
    x = random.random((2, 3, 32, 32)).astype(np.float32)
    with Session(packed, store) as session:
        np.testing.assert_allclose(session.run({"x": x})[0], plain(path).run(None, {"x": x})[0], rtol=1e-5)
    assert sum(packed.tensor_bytes.values()) >= weights["q"].nbytes


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_file_that_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx cannot be loaded"):
        pack(path, WeightStore(tmp_path / "store"))
    with pytest.raises(ModelError, match="cannot read"):
        pack(tmp_path / "none.onnx", WeightStore(tmp_path / "store"))


def test_inputs_that_do_not_fit_are_named(tmp_path):
    store = WeightStore(tmp_path / "store")
    with (
        Session(pack(network(tmp_path / "m.onnx"), store), store) as session,
        pytest.raises(ModelError, match="inference failed"),
    ):
        session.run({"x": np.zeros((1, 4, 32, 32), np.float32)})


def test_devices_that_are_not_there_are_named():
    assert best_provider("cpu") == "cpu"
    missing = next(name for name in ("cuda", "openvino") if name != best_provider("auto"))
    with pytest.raises(ConfigError, match=f"'{missing}', but this onnxruntime offers only"):
        best_provider(missing)


def test_nothing_is_sent_home(tmp_path):
    """The runtime's usage upload leaves a device identifier in the cache folder; with edgeward it must not."""
    script = (
        "import edgeward, onnxruntime, sys;"
        "onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    )
    path = network(tmp_path / "m.onnx")
    hidden = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "ORT_DISABLE_TELEMETRY")
    environment = {key: text for key, text in os.environ.items() if key not in hidden}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/.cache")}
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, env=environment)
    assert json.dumps([str(found) for found in (tmp_path / "home").rglob("*")]) == "[]"
