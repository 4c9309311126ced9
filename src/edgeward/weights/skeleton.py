"""The optimised graph of a packed model, looked into: which of its values others compute too, and what they cost.

    ours, theirs = Skeleton(packed, store), Skeleton(other, store)
    common = ours.computed & theirs.computed
    print(ours.work(ours.after(common)) / ours.work())      # what is left to do

A value's digest says how it comes about: the operation, its attributes, and the digests of what it reads, down to the
bytes of the weights and the model's input. Equal digests are equal values for equal pictures, whatever they are called
and wherever they stand in the file, and what a common value reads is common too.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from edgeward.errors import ModelError
from edgeward.weights.pack import PackedModel, Port, example, loaded, ports, session_options
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore, write_atomically
from edgeward.zoo.onnxgraph import behind, reads

__all__ = ["Rest", "Skeleton"]

BY_CHANCE = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
BY_CHANCE |= {"RandomUniformLike"}
"""Operations that give something else each time."""

PRODUCTS = dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "ConvTranspose", "MatMul", "FusedMatMul"), 1)
PRODUCTS |= dict.fromkeys(("Gemm", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), 1)
PRODUCTS |= dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), 3)
"""Operations that multiply and add, by which of their inputs is the second factor."""

KINDS = {
    f"tensor({name})": int(getattr(onnx.TensorProto, name.upper()))
    for width in (8, 16, 32, 64)
    for name in (f"int{width}", f"uint{width}")
} | {"tensor(float16)": 10, "tensor(float)": 1, "tensor(double)": 11, "tensor(bool)": 9}
"""Types of values that can cross a cut, as the runtime calls them, and their numbers in ONNX."""


@dataclass(frozen=True)
class Rest:
    """What is left of a model when values are given. given: their names; nodes: the positions of what is computed."""

    given: tuple[str, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class _Shapes:
    """Of every value, for one picture; `by_picture`: values with one row for each picture."""

    of: Mapping[str, tuple[int, ...]]
    by_picture: frozenset[str]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A packed model with one input, whose weights are bound to it. Raises ModelError when it cannot be run."""

    packed: PackedModel
    store: WeightStore = field(repr=False)

    @cached_property
    def model(self) -> Any:
        return onnx.load(self.packed.graph)

    @cached_property
    def makers(self) -> dict[str, int]:
        """The position of the node that computes each value."""
        return {name: place for place, node in enumerate(self.model.graph.node) for name in node.output if name}

    @cached_property
    def digests(self) -> dict[str, str]:
        """How each value comes about, by name; without those that are not the same each time or cannot be compared."""
        versions = {each.domain: each.version for each in self.model.opset_import}
        [port] = self.packed.inputs
        found = {port.name: f"input {port.type} {port.shape[1:]}", "": ""}
        found |= {name: ref.digest for name, ref in self.packed.tensors.items()}
        for tensor in self.model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            # An array of strings holds their addresses.
            content = tensor.string_data if array.dtype == object else [array.tobytes()]
            found[tensor.name] = _sha(str(array.dtype), str(array.shape), *content)
        for node in self.model.graph.node:
            plain = all(not each.HasField("g") and not each.graphs for each in node.attribute)
            if plain and node.op_type not in BY_CHANCE and all(name in found for name in node.input):
                attributes = sorted(each.SerializeToString(deterministic=True) for each in node.attribute)
                what = f"{node.domain} {versions.get(node.domain)} {node.op_type} {len(node.output)}"
                made = _sha(what, *(found[name] for name in node.input), "", *attributes)
                found |= {name: f"{made} {place}" for place, name in enumerate(node.output) if name}
        return found

    @cached_property
    def computed(self) -> frozenset[str]:
        """Digests of the values that may be computed elsewhere and given: they have one row for each picture."""
        return frozenset(
            self.digests[name] for name in self.makers if name in self.digests and name in self._shapes.by_picture
        )

    def after(self, known: Collection[str]) -> Rest:
        """What is left to do when the values with these digests need not be computed."""
        return self._walk((port.name for port in self.packed.outputs), lambda name: self.digests.get(name) in known)

    def before(self, names: Iterable[str]) -> Rest:
        """What computes the values of these names."""
        return self._walk(names, lambda name: False)

    def named(self, digests: Collection[str]) -> dict[str, str]:
        """A name for each of these digests; of values that come about alike, the first."""
        return {digest: name for name, digest in reversed(self.digests.items()) if digest in digests}

    def work(self, rest: Rest | None = None) -> int:
        """Multiply-adds for one picture, of a part or of the whole; other operations count each result once."""
        return sum(self._costs) if rest is None else sum(self._costs[place] for place in rest.nodes)

    def piece(self, rest: Rest, outputs: Sequence[str], given: Sequence[Port] = ()) -> PackedModel:
        """Some of the nodes as a model of its own on the same weights, written into the store."""
        part = onnx.ModelProto()
        part.CopyFrom(self.model)
        graph = part.graph
        nodes = [graph.node[place] for place in rest.nodes]
        used = {name for node in nodes for name in reads(node)} | set(outputs)
        entered = [each for each in self.packed.inputs if each.name in used]
        kept = {key: [each for each in getattr(graph, key) if each.name in used] for key in ("initializer", "input")}
        del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept["initializer"])
        graph.input.extend(kept["input"])
        graph.input.extend(_declared(each) for each in given)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        content = part.SerializeToString(deterministic=True)
        path = self.store.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.onnx"
        write_atomically(path, [content])
        tensors = {name: ref for name, ref in self.packed.tensors.items() if name in used}
        held = {ref.digest: ref.nbytes for ref in tensors.values()}
        return replace(
            self.packed,
            graph=path,
            tensors=tensors,
            tensor_bytes=held,
            inputs=(*entered, *given),
            outputs=_outputs(path),
        )

    def _walk(self, outputs: Iterable[str], known: Callable[[str], bool]) -> Rest:
        needed = behind(self.model.graph.node, outputs, known)
        return Rest(tuple(sorted(needed.known)), needed.places)

    @cached_property
    def _costs(self) -> list[int]:
        shapes = {name: ref.shape for name, ref in self.packed.tensors.items()}
        shapes |= {each.name: tuple(each.dims) for each in self.model.graph.initializer} | dict(self._shapes.of)
        return [_cost(node, shapes) for node in self.model.graph.node]

    @cached_property
    def _shapes(self) -> _Shapes:
        """Measured: what the runtime's own operations give is known to the runtime only."""
        names, [port] = list(self.makers), self.packed.inputs
        probe = onnx.ModelProto()
        probe.CopyFrom(self.model)
        asked = {f"edgeward shape of {name}": name for name in names}
        probe.graph.node.extend(helper.make_node("Shape", [name], [shape]) for shape, name in asked.items())
        del probe.graph.output[:]
        probe.graph.output.extend(onnx.ValueInfoProto(name=shape) for shape in asked)
        random = np.random.default_rng(0)
        fixed = isinstance(port.shape[0], int)
        with tempfile.TemporaryDirectory(dir=self.store.folder, prefix=".probing-") as scratch:
            path = Path(scratch) / "probe.onnx"
            path.write_bytes(probe.SerializeToString())
            outputs = tuple(Port(shape, "tensor(int64)", (None,)) for shape in asked)
            with Session(replace(self.packed, graph=path, outputs=outputs), self.store) as session:
                batches = [
                    session.run({port.name: example(port, random, batch)}) for batch in ((1,) if fixed else (1, 3))
                ]
        runs = [dict(zip(names, (tuple(map(int, each)) for each in batch), strict=True)) for batch in batches]
        one = runs[0] | {port.name: example(port, random).shape}
        rows = {
            name for name, shape in runs[0].items() if shape[:1] == (1,) and (fixed or runs[1][name] == (3, *shape[1:]))
        }
        return _Shapes(one, frozenset(rows))


def _cost(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type not in PRODUCTS:
        return sum(prod(shapes[name]) for name in node.output if name)
    left, right = shapes[node.input[0]], shapes[node.input[PRODUCTS[node.op_type]]]
    if node.op_type == "ConvTranspose":
        return prod(left) * prod(right[1:])
    if "Conv" in node.op_type:
        return prod(shapes[node.output[0]]) * prod(right[1:])
    across = any(each.name == "transA" and each.i for each in node.attribute)
    return prod(shapes[node.output[0]]) * left[-2 if across and len(left) > 1 else -1]


def _declared(port: Port) -> Any:
    """A value that is given from outside. Raises ModelError for one that arrays cannot hold."""
    kind = KINDS.get(port.type)
    if kind is None:
        raise ModelError(f"{port.name!r} is a {port.type}; what crosses a cut is one of {', '.join(KINDS)}")
    return helper.make_tensor_value_info(port.name, kind, None)


def _outputs(path: Path) -> tuple[Port, ...]:
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ports(loaded(path, options, ["CPUExecutionProvider"]).get_outputs())


def _sha(*pieces: str | bytes) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        content = piece.encode() if isinstance(piece, str) else piece
        sha.update(len(content).to_bytes(8, "little") + content)
    return sha.hexdigest()
