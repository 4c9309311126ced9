"""What every node of a graph costs, found by running it once on the example.

    costs = measure(traced, inputs)
    costs[node].macs, costs[node].bytes

Multiply-accumulates are half of what torch's own counter reports (convolutions, matrix products, attention;
element-wise work counts as none). Bytes saved for the backward pass are those that autograd keeps, without parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from edgeward.graph.liveness import Flow, operation

__all__ = ["NodeCost", "measure"]

_NONLINEAR = re.compile(
    r"relu|elu|gelu|silu|swish|sigmoid|tanh|softmax|mish|softplus|hardtanh|max_?pool|maxpool|clamp|attention|activation|log|exp"
)


@dataclass(frozen=True)
class NodeCost:
    """Costs of one node.

    macs: multiply-accumulates. bytes: of the output. shape: of an output that is one tensor. saved_bytes: kept for the
    backward pass. hidden: 0 where the input can be read off the value, 1 after a trainable layer, 2 after a non-linear
    one behind it. tensors: how many the value holds, a plain size none. storage: its memory, which views share.
    """

    macs: int
    bytes: int
    shape: tuple[int, ...] | None
    saved_bytes: int
    hidden: int
    tensors: int
    storage: int
    parameters: frozenset[str]


class _Meter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, flow: Flow) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.flow = flow
        self.costs: dict[fx.Node, NodeCost] = {}
        self.counter = FlopCounterMode(display=False)
        self.own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        self.saved_storages: set[int] = set()
        self.saved_now = 0

    def pack(self, tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in self.own and place not in self.saved_storages:
            self.saved_storages.add(place)
            self.saved_now += tensor.untyped_storage().nbytes()
        return tensor

    def run_node(self, n: fx.Node) -> Any:
        before, self.saved_now = self.counter.get_total_flops(), 0
        value = super().run_node(n)
        if n.op == "output":
            return value
        macs = (self.counter.get_total_flops() - before) // 2
        tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        self.costs[n] = NodeCost(
            macs=macs,
            bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            shape=tuple(value.shape) if isinstance(value, Tensor) else None,
            saved_bytes=self.saved_now,
            hidden=self._hidden(n, macs),
            tensors=len(tensors),
            storage=tensors[0].untyped_storage().data_ptr() if tensors else 0,
            parameters=self._parameters(n),
        )
        return value

    def _hidden(self, node: fx.Node, macs: int) -> int:
        assert isinstance(self.module, fx.GraphModule)
        if node in self.flow.fixed:
            return 2
        given = [
            self.costs[one].hidden
            for one in node.all_input_nodes
            if one not in self.flow.fixed and self.costs[one].tensors
        ]
        # A sum hides its terms as well as the best hidden one, unless one of them is the input itself.
        sums = operation(node, self.module) in ("add", "iadd", "add_") and min(given, default=0) >= 1
        level = max(given) if sums else min(given, default=0)
        name = operation(node, self.module)
        if node.op == "placeholder" or not given:
            return 0 if node.op == "placeholder" else 2
        if (macs or "embedding" in name) and self._parameters(node):
            level = max(level, 1)
        return 2 if level >= 1 and _NONLINEAR.search(name) else level

    def _parameters(self, node: fx.Node) -> frozenset[str]:
        assert isinstance(self.module, nn.Module)
        if node.op == "call_module":
            inner = self.module.get_submodule(str(node.target))
            return frozenset(f"{node.target}.{name}" for name, _ in inner.named_parameters())
        return frozenset(
            str(one.target)
            for one in self.flow.needs([node])
            if one.op == "get_attr" and isinstance(self.fetch_attr(str(one.target)), nn.Parameter)
        )


def measure(module: fx.GraphModule, flow: Flow, inputs: Sequence[Any]) -> dict[fx.Node, NodeCost]:
    """Costs of all nodes but the output. Buffers may change: the caller restores them."""
    meter = _Meter(module, flow)
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda tensor: tensor),
        meter.counter,
    ):
        meter.run(*inputs)
    return meter.costs
