"""Small graphs built node by node, several heads on one trunk among them, and what their pieces must answer."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeward.weights.begun import BegunSession
from edgeward.weights.pack import pack
from edgeward.weights.session import Session

SIDE = 16


class Net:
    """Builds a graph node by node; `tag` is part of every name, so that no two nets share one by chance."""

    def __init__(self, tag="", entry="x"):
        self.tag, self.entry = tag, entry
        self.nodes, self.weights = [], {}

    def weight(self, seed, *shape):
        name = f"{self.tag}w{len(self.weights)}"
        array = np.random.default_rng(seed).normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))
        self.weights[name] = array.astype(np.float32)
        return name

    def constant(self, values):
        name = f"{self.tag}c{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def __call__(self, op, *inputs, **attributes):
        name = f"{self.tag}v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def conv(self, value, seed, channels=16, inputs=16):
        weight = self.weight(seed, channels, inputs, 3, 3)
        return self("Relu", self("Conv", value, weight, pads=[1, 1, 1, 1]))

    def head(self, value, seed, classes, channels=16):
        flat = self("Flatten", self("GlobalAveragePool", value))
        return self("MatMul", flat, self.weight(seed, channels, classes))

    def packed(self, folder, store, *outputs, batch="n"):
        initializers = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info(self.entry, TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], initializers,
        )  # fmt: skip
        path = folder / f"{self.tag}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return pack(path, store)


def trunk(net, seeds=(0, 1, 2, 3)):
    value = net.conv(net.entry, seeds[0], inputs=3)
    for seed in seeds[1:]:
        value = net.conv(value, seed)
    return value


def classifier(folder, store, tag, classes, seeds=(0, 1, 2, 3), head=100, **options):
    net = Net(tag, options.pop("entry", "x"))
    return net.packed(folder, store, net.head(trunk(net, seeds), head, classes), **options)


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, 3, SIDE, SIDE)).astype(np.float32)


def assert_answers_alike(beginning, models, store, count=3):
    """Bit for bit when the beginning has seen the same batch, up to rounding when it saw the pictures one by one."""
    batch = pictures(count)
    for place, index in enumerate(beginning.members):
        with Session(models[index], store) as whole:
            expected = whole.run({models[index].inputs[0].name: batch})
        pieces = BegunSession(beginning, place, store)
        pieces.attach()
        together = pieces.finish(pieces.begin(batch), batch)
        rows = [pieces.begin(batch[row : row + 1]) for row in range(count)]
        apart = pieces.finish([np.concatenate(each) for each in zip(*rows, strict=True)], batch)
        turned = pieces.begin(batch[::-1].copy())
        picked = pieces.finish(
            [np.concatenate([each[row : row + 1] for row in range(count)][::-1]) for each in turned], batch
        )
        pieces.close()
        for ours, theirs in zip(picked, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert len(together) == len(apart) == len(expected)
        for ours, alone, theirs in zip(together, apart, expected, strict=True):
            assert np.array_equal(ours, theirs)
            np.testing.assert_allclose(alone, theirs, rtol=1e-4, atol=1e-5)
