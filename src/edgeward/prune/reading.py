"""What a node of a traced network is: its operation under one name, the layer it applies, whether it overwrites.

reading = Reading(model, traced)
reading.name(node)                   # "relu" for nn.ReLU, torch.relu, Tensor.relu_ and the exported operation
reading.layer(node)                  # ("head.classifier", the nn.Linear), also where the graph was exported
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import fx, nn

from edgeward.graph.liveness import operation
from edgeward.graph.trace import Traced

__all__ = ["JOINS", "MOVES", "POINTWISE", "SAME", "SIZES", "SPATIAL", "Reading"]

SAME = {"identity", "dropout", "dropout1d", "dropout2d", "dropout3d", "alphadropout", "contiguous", "clone", "detach"}
MOVES = {
    *("reshape", "view", "flatten", "permute", "transpose", "swapaxes", "movedim", "unbind", "getitem", "chunk"),
    *("split", "tensorsplit", "expand", "expandas", "squeeze", "unsqueeze", "narrow", "select", "slice", "unflatten"),
    *("pixelshuffle", "pixelunshuffle", "channelshuffle"),
}
JOINS = {"cat", "concat", "concatenate"}
POINTWISE = {
    *("relu", "relu6", "leakyrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("sigmoid", "tanh", "hardtanh", "softplus", "softsign", "logsigmoid", "clamp", "neg", "abs", "square", "pow"),
}
SPATIAL = {
    *(f"{kind}pool{rank}d" for kind in ("max", "avg", "adaptivemax", "adaptiveavg") for rank in (1, 2, 3)),
    *("interpolate", "upsample", "upsamplingnearest2d", "upsamplingbilinear2d"),
}
SIZES = {"getattr", "size", "dim", "numel", "symsize"}
_OF_WEIGHTS = {"linear", "conv1d", "conv2d", "conv3d", "batchnorm"}
_IN_PLACE = {"iadd", "isub", "imul", "itruediv", "setitem"}


class Reading:
    """Looks nodes of a traced model up."""

    def __init__(self, model: nn.Module, traced: Traced) -> None:
        self._network = traced.eval_graph
        self._modules = dict(model.named_modules())
        self._exported = traced.frontend == "torch.export"
        self._uses: Counter[int] = Counter()
        parameters = dict(self._network.named_parameters(remove_duplicate=False))
        for node in self._network.graph.nodes:
            if (module := self.module(node)) is not None:
                self._uses.update(id(one) for one in module.parameters())
            elif node.op == "get_attr" and str(node.target) in parameters:
                self._uses[id(parameters[str(node.target)])] += len(node.users)

    def name(self, node: fx.Node) -> str:
        """The operation in lower case, without underscores."""
        return operation(node, self._network).replace("_", "")

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls."""
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def options(self, node: fx.Node, *names: str) -> dict[str, Any]:
        """The arguments behind the first, by these names or their own."""
        return {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}

    def layer(self, node: fx.Node) -> tuple[str, nn.Module] | None:
        """The layer with weights that a node applies, and its path; None for what is none, or whose weights are shared.

        An exported graph calls functions; there the layer is the owner of the weights.
        """
        path = str(node.target) if node.op == "call_module" else ""
        if self._exported and self.name(node) in _OF_WEIGHTS:
            tensors = [one for one in node.all_input_nodes[1:] if one.op == "get_attr"]
            paths = {str(one.target).rpartition(".")[0] for one in tensors}
            path = paths.pop() if len(paths) == 1 else ""
        module = self._modules.get(path)
        if module is None or module._forward_hooks or module._forward_pre_hooks:
            return None
        return (path, module) if all(self._uses[id(one)] == 1 for one in module.parameters()) else None

    def overwrites(self, node: fx.Node) -> bool:
        """Whether something else still sees a tensor that this node changes in place."""
        name = operation(node, self._network)
        in_place = getattr(self.module(node), "inplace", False) or node.kwargs.get("inplace")
        if not (in_place or name in _IN_PLACE or name.endswith("_")):
            return False
        source = node.args[0] if node.args else None
        while isinstance(source, fx.Node):
            if len(source.users) > 1:
                return True
            source = source.args[0] if self.name(source) in SAME | MOVES and source.args else None
        return False
