"""Exits of networks that have several: what is cut answers as the whole does, and computes nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeward.errors import ModelError, StoreError
from edgeward.zoo.exits import one_exit
from edgeward.zoo.onnxfile import user_onnx
from edgeward.zoo.onnxgraph import behind

SHAPE = ("n", 4)


def value(name, kind=TensorProto.FLOAT, shape=SHAPE):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, nodes, outputs, weights=(), *, inputs=("x",), **options):
    """A network of values [n, 4] with the weights [4, 4] of these names."""
    random = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(random.normal(size=(4, 4)).astype(np.float32), name) for name in weights]
    entered = [value(name, shape=SHAPE if name == "x" else (4, 4)) for name in inputs]
    graph = helper.make_graph(nodes, "exits", entered, [value(name) for name in outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, **options)
    return user_onnx(path)


def chain(path, depth=3, **options):
    """One value after another, h0 to h(depth - 1); each is an output, too."""
    names = ["x", *(f"h{place}" for place in range(depth))]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"n{i}") for i in range(depth)]
    return saved(path, nodes, names[1:], [f"w{i}" for i in range(depth)], **options)


def answers(path, names=None):
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(names, {"x": np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)})
    return [each.name for each in session.get_outputs()], found


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_an_exit_answers_as_the_whole_does_and_computes_nothing_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("exits")
    count = data.draw(st.integers(1, 7), label="nodes")
    names, nodes = ["x"], []
    for place in range(count):
        left, right = (data.draw(st.sampled_from(names)) for _ in range(2))
        nodes.append(helper.make_node(data.draw(st.sampled_from(["Add", "Mul"])), [left, right], [f"h{place}"]))
        names.append(f"h{place}")
    outputs = data.draw(st.lists(st.sampled_from(names[1:]), min_size=1, unique=True), label="outputs")
    wanted = data.draw(st.permutations(outputs).map(lambda each: each[: max(len(each) // 2, 1)]), label="wanted")
    file = saved(folder / "m.onnx", nodes, outputs)
    path = one_exit(file, wanted, folder / "cache")
    given_names, found = answers(path)
    assert given_names == list(wanted)
    for one, other in zip(found, answers(file.path, list(wanted))[1], strict=True):
        np.testing.assert_array_equal(one, other)
    kept = onnx.load(path).graph.node
    for node in kept:  # each serves what is wanted: without it something is missing
        without = [each for each in kept if each is not node]
        assert set(node.output) & (behind(without, wanted).left - {"x"})


@pytest.mark.parametrize("beside", [False, True])
def test_weights_of_other_exits_stay_behind_also_where_they_lie_beside_the_file(tmp_path, beside):
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if beside else {}
    file = chain(tmp_path / "m.onnx", **options)
    assert bool(file.external) == beside
    path = one_exit(file, ["h1"], tmp_path / "cache")
    assert [each.name for each in onnx.load(path).graph.initializer] == ["w0", "w1"]
    assert not user_onnx(path).external
    np.testing.assert_array_equal(answers(path)[1][0], answers(file.path, ["h1"])[1][0])


def test_weights_in_linked_files_are_read_and_those_of_other_exits_are_not(tmp_path):
    file = chain(tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").rename(tmp_path / "kept.bin")
    (tmp_path / "weights.bin").hardlink_to(tmp_path / "kept.bin")
    model = onnx.load(file.path, load_external_data=False)
    lengths = {
        tensor.name: [each for each in tensor.external_data if each.key == "length"]
        for tensor in model.graph.initializer
    }
    lengths["w2"][0].value = str(1 << 60)  # nobody asks for it
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    path = one_exit(file, ["h1"], tmp_path / "cache")
    assert [numpy_helper.to_array(each).shape for each in onnx.load(path).graph.initializer] == [(4, 4), (4, 4)]
    with pytest.raises(ModelError, match=r"cut at h2 has .* an ONNX file has at most 2 GiB"):
        one_exit(file, ["h2"], tmp_path / "cache")
    lengths["w2"][0].value = str(1 << 20)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"weights.bin ends before byte \d+; copy it beside the model again"):
        one_exit(file, ["h2"], tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_old_file_lists_its_weights_as_inputs_too(tmp_path):
    nodes = [helper.make_node("MatMul", [a, b], [c]) for a, b, c in (("x", "w0", "h0"), ("h0", "w1", "h1"))]
    graph = helper.make_graph(
        nodes,
        "old",
        [value("x"), value("w0", shape=(4, 4)), value("w1", shape=(4, 4))],
        [value("h0"), value("h1")],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32) * k, f"w{k}") for k in range(2)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3), tmp_path / "m.onnx")
    path = one_exit(user_onnx(tmp_path / "m.onnx"), ["h0"], tmp_path)
    assert [each.name for each in onnx.load(path).graph.input] == ["x", "w0"]
    assert answers(path)[0] == ["h0"]


def test_what_a_branch_reads_from_outside_is_needed_too(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h0"]),
        helper.make_node("MatMul", ["x", "w1"], ["h1"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["chosen"],
            then_branch=helper.make_graph([helper.make_node("Neg", ["h0"], ["a"])], "then", [], [value("a")]),
            else_branch=helper.make_graph([helper.make_node("Abs", ["h0"], ["b"])], "else", [], [value("b")]),
        ),
    ]
    weights = [numpy_helper.from_array(np.full((4, 4), k + 1.0, np.float32), f"w{k}") for k in range(2)]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    graph = helper.make_graph(nodes, "branches", [value("x")], [value("chosen"), value("h1")], [*weights, zero])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    path = one_exit(user_onnx(tmp_path / "m.onnx"), ["chosen"], tmp_path)
    assert {each.name for each in onnx.load(path).graph.initializer} == {"w0", "zero"}
    np.testing.assert_array_equal(answers(path)[1][0], answers(tmp_path / "m.onnx", ["chosen"])[1][0])


def test_a_cut_is_made_once_and_anew_for_other_weights_or_outputs(tmp_path):
    first = chain(tmp_path / "m.onnx")
    path = one_exit(first, ["h0"], tmp_path / "cache")
    again = (
        "import sys, pathlib; from edgeward.zoo.exits import one_exit; from edgeward.zoo.onnxfile import user_onnx;"
        "print(one_exit(user_onnx(pathlib.Path(sys.argv[1])), ['h0'], pathlib.Path(sys.argv[2])));"
        "assert 'onnx' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", again, str(first.path), str(tmp_path / "cache")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(path)
    assert one_exit(first, ["h1"], tmp_path / "cache") != path
    assert one_exit(first, ["h0", "h1"], tmp_path / "cache") != one_exit(first, ["h1", "h0"], tmp_path / "cache")
    model = onnx.load(first.path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((4, 4), np.float32), "w0"))
    onnx.save(model, first.path)
    assert one_exit(user_onnx(first.path), ["h0"], tmp_path / "cache") != path
    assert len(list((tmp_path / "cache").iterdir())) == 5  # and nothing half


def test_what_cannot_be_cut_is_refused(tmp_path):
    file = chain(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no output 'h9'; known: h0, h1, h2"):
        one_exit(file, ["h9"], tmp_path)
    (tmp_path / "full").write_text("a file where the cache should be")
    with pytest.raises(StoreError, match="free some space or choose another 'cache'"):
        one_exit(file, ["h0"], tmp_path / "full")
    assert (tmp_path / "full").read_text() == "a file where the cache should be"
