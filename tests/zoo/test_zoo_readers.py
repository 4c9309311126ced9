"""Reading model files: what was written is read; what is damaged ends in ModelError and in nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeward.errors import ModelError
from edgeward.zoo.graphdef import parse_graphdef, read_graphdef
from edgeward.zoo.packaged import packaged
from edgeward.zoo.protobuf import fields
from edgeward.zoo.tensorflow import TensorFlowGraph, element_count
from edgeward.zoo.tfjs import read_tfjs


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """One protobuf field: an int as a varint, bytes or text with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def const(name, code, shape, body):
    dims = b"".join(field(2, field(1, size)) for size in shape)
    tensor = field(1, code) + field(2, dims) + body
    attribute = field(1, "value") + field(2, field(8, tensor))
    return field(1, field(1, name) + field(2, "Const") + field(5, attribute))


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
SMALL = (
    const("raw", 1, (2, 3), field(4, VALUES.tobytes()))
    + const("listed", 1, (3,), field(5, np.array([1, 2, 3], "<f4").tobytes()))
    + const("splat", 1, (2, 2), field(5, np.array([7], "<f4").tobytes()))
    + const("integers", 3, (2,), field(7, varint(5) + varint(-2)))
    + const("halves", 19, (2,), field(13, varint(0x3C00) + varint(0xC000)))
    + const("text", 7, (), field(8, b"abc"))
    + field(1, field(1, "sum") + field(2, "Add") + field(3, "raw") + field(3, "listed"))
)


def test_a_graph_is_read_as_it_was_written():
    graph = parse_graphdef(SMALL)
    np.testing.assert_array_equal(graph.constants["raw"], VALUES)
    assert {name: value.tolist() for name, value in graph.constants.items() if name != "raw"} == {
        "listed": [1, 2, 3], "splat": [[7, 7], [7, 7]], "integers": [5, -2], "halves": [1, -2],
    }  # fmt: skip
    assert (graph.nodes[-1].name, graph.nodes[-1].op, graph.nodes[-1].inputs) == ("sum", "Add", ("raw", "listed"))


def test_constants_are_asked_for_by_name_and_shape():
    graph = parse_graphdef(SMALL)
    assert graph.constant("halves", (2,)).dtype == np.float32
    with pytest.raises(ModelError, match=r"\[2, 3\], expected \[3, 2\]"):
        graph.constant("raw", (3, 2))
    with pytest.raises(ModelError, match="did you mean 'raw'"):
        graph.constant("rew", (2, 3))
    with pytest.raises(ModelError, match="not finite"):
        TensorFlowGraph((), {"bad": np.array([np.nan])}).constant("bad", (1,))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
@example(b"")
@example(const("huge", 1, (1 << 40, 1 << 40), b""))
@example(const("negative", 1, (-1,), b""))
@example(const("deep", 1, (1,) * 50, b""))
@example(const("short", 1, (4,), field(4, b"1234")))
@example(const("odd", 1, (2,), field(5, b"12345")))
@example(const("some", 3, (5,), field(7, varint(1) + varint(2))))
@example(field(1, field(1, b"\xff\xfe")))
@example(field(1, 3))
@example(b"\xff" * 40)
def test_any_bytes_are_a_graph_or_a_model_error(data):
    try:
        graph = parse_graphdef(data)
    except ModelError:
        return
    assert graph.nodes


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255), st.integers(0, len(SMALL)))
def test_a_flipped_byte_or_a_cut_is_survived(position, byte, end):
    data = bytearray(SMALL)
    data[position] = byte
    for damaged in (bytes(data), bytes(data[:end])):
        try:
            parse_graphdef(damaged)
        except ModelError as error:
            assert str(error)


def test_a_claimed_size_allocates_nothing():
    graph = parse_graphdef(const("big", 1, (1 << 14, 1 << 14), field(5, np.array([1], "<f4").tobytes())))
    assert graph.constants["big"].strides == (0, 0)
    with pytest.raises(ModelError, match="sizes are"):
        element_count((0, 1 << 20, 1 << 20), "x")
    assert element_count((0, 7), "x") == 0


def test_a_cut_off_file_names_itself(tmp_path):
    whole = packaged("ssdlite-person").locate().read_bytes()
    for end in (1, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.pb"
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match="cut"):
            packaged("ssdlite-person").load(path)
    with pytest.raises(ModelError, match="no file"):
        read_graphdef(tmp_path / "absent.pb")
    with pytest.raises(ModelError, match="not a file"):
        read_graphdef(tmp_path)


def test_a_number_that_never_ends_is_refused():
    with pytest.raises(ModelError, match="too long"):
        list(fields(memoryview(b"\x80" * 20)))


def document(weights, paths=("w.bin",), nodes=()):
    return {
        "modelTopology": {"node": [{"name": "n", "op": "Placeholder"}, *nodes]},
        "weightsManifest": [{"paths": list(paths), "weights": list(weights)}],
    }


def write(folder, content, **shards):
    path = folder / "model.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for name, data in shards.items():
        (folder / f"{name}.bin").write_bytes(data)
    return path


def test_stored_types_are_converted(tmp_path):
    half = np.array([1.5, -2], "<f2")
    byte, word = np.array([[0, 255]], "u1"), np.array([1, 1000], "<u2")
    whole = np.array([3, -4], "<i4")
    weights = [
        {"name": "half", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "byte", "shape": [1, 2], "dtype": "float32",
         "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
        {"name": "word", "shape": [2], "dtype": "int32", "quantization": {"dtype": "uint16", "scale": 2.0, "min": 1.0}},
        {"name": "whole", "shape": [2], "dtype": "int32"},
        {"name": "none", "shape": [0], "dtype": "float32"},
        {"name": "scalar", "shape": [], "dtype": "float32"},
    ]  # fmt: skip
    data = b"".join([half.tobytes(), byte.tobytes(), word.tobytes(), whole.tobytes(), np.float32(9).tobytes()])
    # Cut in the middle of a tensor: shards of a group are one stream.
    graph = read_tfjs(write(tmp_path, document(weights, ["a.bin", "b.bin"]), a=data[:5], b=data[5:]))
    assert {name: value.tolist() for name, value in graph.constants.items()} == {
        "half": [1.5, -2], "byte": [[-1, 126.5]], "word": [3, 2001], "whole": [3, -4], "none": [], "scalar": 9,
    }  # fmt: skip
    assert graph.constants["half"].dtype == np.float32
    assert graph.constants["word"].dtype == np.int32


ONE = {"name": "x", "shape": [2], "dtype": "float32"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "more than none"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a TensorFlow.js graph model"),
        ("null", "not a TensorFlow.js graph model"),
        ({"modelTopology": {"node": []}}, "weightsManifest"),
        (document([ONE | {"shape": [1 << 40, 1 << 40]}]), "sizes are"),
        (document([ONE | {"shape": [-1]}]), "sizes are"),
        (document([ONE | {"shape": [1] * 99}]), "shape"),
        (document([ONE | {"shape": [1.5]}]), "shape"),
        (document([ONE | {"dtype": "string"}]), "dtype"),
        (document([ONE | {"shape": [3]}]), "cut off"),
        (document([ONE | {"shape": [1]}]), "belong to no tensor"),
        (document([ONE], nodes=[{"name": 3, "op": "x"}]), "node"),
        (document([ONE], ["../w.bin"]), "same folder"),
        (document([ONE], ["/etc/hostname"]), "same folder"),
        (document([ONE], ["..\\w.bin"]), "same folder"),
        (document([ONE], [".."]), "same folder"),
        (document([ONE], ["absent.bin"]), "no file"),
    ],
)
def test_bad_graph_models_are_refused(tmp_path, content, message):
    path = write(tmp_path, content, w=bytes(8))
    (tmp_path.parent / "w.bin").write_bytes(bytes(8))
    with pytest.raises(ModelError, match=message):
        read_tfjs(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["node", "name", "op", "paths", "weights", "shape", "dtype"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(JSON, JSON)
def test_any_json_is_a_graph_or_a_model_error(tmp_path_factory, topology, manifest):
    folder = tmp_path_factory.mktemp("json")
    path = write(folder, json.dumps({"modelTopology": topology, "weightsManifest": [manifest]}))
    try:
        read_tfjs(path)
    except ModelError as error:
        assert str(path) in str(error)
