"""Abstract interpretation of a network: each operation's rule for labels and constants.

    traced = trace(model, Example((picture,)))
    flow = follow(model, traced, picture, Channels.of(model, picture))

The network is run once beside it, for shapes. An operation without a rule holds its inputs; so does one whose tensors
have channels in an order that its rule does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgeward.graph.trace import Traced
from edgeward.prune import rules
from edgeward.prune.channels import Channels
from edgeward.prune.constants import LAYERS, Mixer, Reads, constant_outputs
from edgeward.prune.field import Field, Labels, channels_of, compact, spread, varying
from edgeward.prune.flow import Flow, Layer
from edgeward.prune.reading import JOINS, MOVES, POINTWISE, SAME, SIZES, SPATIAL, Reading
from edgeward.prune.rules import UnknownError

__all__ = ["follow"]

_BINARY: Mapping[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("add", "iadd"), torch.add),
    **dict.fromkeys(("sub", "isub"), torch.sub),
    **dict.fromkeys(("mul", "imul"), torch.mul),
    **dict.fromkeys(("div", "truediv", "itruediv"), torch.div),
}
_PADS = {"pad", "zeropad1d", "zeropad2d", "zeropad3d"}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def follow(model: nn.Module, traced: Traced, example: Tensor, channels: Channels) -> Flow:
    """The channel flow of a traced model in eval mode.

    example: its input. channels: the groups of the same model; what they bind is bound here, and what they fix, or do
    not know, is pinned.
    """
    walk = _Walk(traced.eval_graph, Reading(model, traced))
    with torch.no_grad():
        walk.run(example)
    _agree(walk, channels)
    roots = walk.labels.roots()
    present = {}
    for node, field in walk.fields.items():
        present[node] = torch.zeros(len(roots), dtype=torch.bool)
        for part in pytree.tree_leaves(field):
            present[node][roots[compact(part.labels).flatten()]] = True
    layers = {
        layer.name: replace(layer, inputs=roots[layer.inputs], outputs=roots[layer.outputs]) for layer in walk.layers
    }
    return Flow(traced.eval_graph.graph, layers, present, frozenset(walk.held), walk.labels.pinned())


def _agree(walk: _Walk, channels: Channels) -> None:
    """Bind and pin labels as the groups say."""
    slots: dict[tuple[str, str, int], int] = {}
    for layer in walk.layers:
        slots |= {(layer.name, "in", index): label for index, label in enumerate(layer.inputs.tolist())}
        slots |= {(layer.name, "out", index): label for index, label in enumerate(layer.outputs.tolist())}
    unknown = {label for slot, label in slots.items() if slot[1] == "out"}
    for group in channels.groups:
        for unit in group.units:
            labels = [slots[slot] for slot in unit if slot in slots]
            walk.labels.bind(labels)
            if group.prunable:
                unknown -= {*labels}
    walk.labels.pin(torch.tensor(sorted(unknown), dtype=torch.int64))


class _Walk(fx.Interpreter):
    def __init__(self, network: fx.GraphModule, reading: Reading) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.reading = reading
        self.labels = Labels()
        self.fields: dict[Any, Any] = {}
        self.layers: list[Layer] = []
        self.held: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder":
            self.fields[n] = pytree.tree_map(self._opaque, value)
        elif self.reading.name(n) in SIZES and not isinstance(value, Tensor):
            return value
        elif any(one in self.fields for one in n.all_input_nodes):
            try:
                field = self._rule(n, value)
            except UnknownError:
                field = self._hold(n, value)
            if n.op != "output":
                self.fields[n] = field
        return value

    def _rule(self, n: fx.Node, value: Any) -> Any:
        name = self.reading.name(n)
        if n.op == "output" or self.reading.overwrites(n):
            raise UnknownError
        if name in MOVES:
            return self._moved(n)
        if not isinstance(value, Tensor):
            raise UnknownError
        if name in JOINS:
            return self._joined(n, value)
        if name in _BINARY:
            return self._combined(n, _BINARY[name])
        if name == "scaleddotproductattention":
            return self._attended(n, value.shape)
        if name in ("matmul", "bmm"):
            return self._product(n, value.shape)
        field = self.fields.get(n.args[0]) if n.args else None
        if not isinstance(field, Field) or any(one in self.fields for one in n.all_input_nodes[1:]):
            raise UnknownError
        if (layer := self.reading.layer(n)) is not None:
            path, module = layer
            if isinstance(module, LAYERS):
                return self._layer(n, (path, module), field, value.shape)
            if isinstance(module, _NORMS):
                return rules.normalised(module, field)
        if name in SAME:
            return field
        if name in POINTWISE:
            return rules.pointwise(lambda tensor: self._again(n, tensor), field)
        if name in SPATIAL:
            return rules.pooled(lambda tensor: self._again(n, tensor), field, value.shape)
        if name == "softmax":
            return self._weighed(n, field)
        if name == "mean":
            return self._mean(n, field, value.shape)
        if name in _PADS:
            return self._padded(n, field, value.shape)
        raise UnknownError

    def _opaque(self, value: Any) -> Any:
        """A field of which nothing is known, and whose channels stay; nothing for what is no tensor."""
        if not isinstance(value, Tensor):
            return ()
        label = self.labels.fresh(1, pinned=True)
        return Field(label.expand(value.shape), torch.tensor(torch.nan, dtype=torch.float64).expand(value.shape))

    def _hold(self, n: fx.Node, value: Any) -> Any:
        self.held.add(n)
        for source in n.all_input_nodes:
            for field in pytree.tree_leaves(self.fields.get(source, ())):
                self.labels.pin(field.labels)
        return pytree.tree_map(self._opaque, value)

    def _operand(self, argument: Any) -> Field | float:
        """A field of a tensor, of which a fixed one stays as it is; a number of a number."""
        if isinstance(argument, fx.Node) and argument in self.fields:
            found = self.fields[argument]
        else:
            found = self.env[argument] if isinstance(argument, fx.Node) else argument
            if isinstance(found, Tensor) and found.numel() == 1:
                found = found.item()
            elif isinstance(found, Tensor):
                found = Field(self.labels.fresh(1, pinned=True).expand(found.shape), found.detach().double())
        if not isinstance(found, Field | float | int):
            raise UnknownError
        return found

    def _again(self, n: fx.Node, first: Any) -> Any:
        """The node's own operation on another first argument."""
        rest, kwargs = fx.map_arg((n.args[1:], dict(n.kwargs)), lambda one: self.env[one])
        if (module := self.reading.module(n)) is not None:
            return module(first, *rest, **kwargs)
        if self.reading.name(n) == "view":  # the strides of a field need not allow one
            return first.reshape(*rest)
        if n.op == "call_method":
            return getattr(first, str(n.target))(*rest, **kwargs)
        assert callable(n.target)
        return n.target(first, *rest, **kwargs)

    def _moved(self, n: fx.Node) -> Any:
        given = self.fields.get(n.args[0])
        if given is None or sum(one in self.fields for one in n.all_input_nodes) > 1:
            raise UnknownError
        if not isinstance(given, Field):  # picking one of several
            return self._again(n, given)
        try:
            labels, values = self._again(n, given.labels), self._again(n, given.values)
        except (RuntimeError, TypeError) as error:
            raise UnknownError from error
        return Field(labels, values) if isinstance(labels, Tensor) else tuple(map(Field, labels, values))

    def _joined(self, n: fx.Node, value: Tensor) -> Field:
        parts = [self._operand(one) for one in pytree.tree_leaves(n.args[0])]
        axis = self.reading.options(n, "dim").get("dim", 0)
        if not isinstance(axis, int) or not all(isinstance(one, Field) for one in parts):
            raise UnknownError
        return rules.joined([one for one in parts if isinstance(one, Field)], axis % value.dim(), value.shape)

    def _combined(self, n: fx.Node, combine: Callable[..., Tensor]) -> Field:
        if len(n.args) != 2 or n.kwargs:
            raise UnknownError
        left, right = (self._operand(one) for one in n.args)
        return rules.combined(combine, left, right, self.labels)

    def _attended(self, n: fx.Node, shape: Sequence[int]) -> Field:
        query, key, value = self._known(n.args[:3])
        options = self.reading.options(n, "key", "value", "attn_mask", "dropout_p")
        if options.get("dropout_p") or options.get("enable_gqa") or not self._sees(options.get("attn_mask")):
            raise UnknownError
        turned = Field(key.labels.transpose(-2, -1), key.values.transpose(-2, -1))
        scores = rules.scored(query, turned, (*shape[:-1], key.labels.shape[-2]), self.labels)
        return rules.mixed(scores, value, shape, self.labels, means=True)

    def _product(self, n: fx.Node, shape: Sequence[int]) -> Field:
        left, right = self._known(n.args)
        try:
            return rules.scored(left, right, shape, self.labels)
        except UnknownError:
            weights = n.all_input_nodes[0]
            while self.reading.name(weights) in SAME:
                weights = weights.all_input_nodes[0]
            means = self.reading.name(weights) == "softmax"
            return rules.mixed(left, right, shape, self.labels, means=means)

    def _weighed(self, n: fx.Node, field: Field) -> Field:
        axis = getattr(self.reading.module(n), "dim", self.reading.options(n, "dim").get("dim"))
        rank = field.labels.dim()
        if axis not in (-1, rank - 1) or rank - 1 in varying(field.labels):
            raise UnknownError
        unknown = torch.tensor(torch.nan, dtype=torch.float64)
        return Field(field.labels, unknown.expand(field.values.shape))

    def _known(self, arguments: Sequence[Any]) -> list[Field]:
        fields = [field for one in arguments if isinstance(field := self.fields.get(one), Field)]
        if len(fields) != len(arguments):
            raise UnknownError
        return fields

    def _sees(self, mask: Any) -> bool:
        """Whether every query sees some key, the same ones in every head; otherwise a mean of constants is none."""
        if mask is None:
            return True
        fixed = self.env[mask] if isinstance(mask, fx.Node) and mask not in self.fields else None
        if not isinstance(fixed, Tensor) or (fixed.dim() > 2 and fixed.shape[-3] > 1):
            return False
        return bool((fixed if fixed.dtype == torch.bool else fixed.isfinite()).any(-1).all())

    def _mean(self, n: fx.Node, field: Field, shape: Sequence[int]) -> Field:
        options = self.reading.options(n, "dim", "keepdim")
        axes = options.get("dim")
        axes = [axes] if isinstance(axes, int) else axes
        if not isinstance(axes, tuple | list):
            raise UnknownError
        return rules.averaged(field, axes, bool(options.get("keepdim")), shape)

    def _padded(self, n: fx.Node, field: Field, shape: Sequence[int]) -> Field:
        module: Any = self.reading.module(n)
        if module is not None:  # it can pad with fewer channels, as they go
            return rules.padded(field, module.padding, 0.0, shape, self.labels.fresh)
        options = self.reading.options(n, "pad", "mode", "value")
        pads, value = options["pad"], options.get("value") or 0.0
        if options.get("mode", "constant") != "constant" or any(isinstance(one, fx.Node) for one in (*pads, value)):
            raise UnknownError
        return rules.padded(field, pads, value, shape, partial(self.labels.fresh, pinned=True))

    def _layer(self, n: fx.Node, layer: tuple[str, Mixer], field: Field, shape: Sequence[int]) -> Field:
        name, module = layer
        axis = len(shape) - 1 if isinstance(module, nn.Linear) else 1
        found = channels_of(field, axis) if isinstance(module, nn.Linear) or module.weight.dim() == len(shape) else None
        if found is None:
            raise UnknownError
        inputs, given = found
        reads = Reads.of(module)
        made = constant_outputs(module, reads, given)
        groups, outputs, fan_in = reads.any.shape
        if (outputs, fan_in) == (1, 1):
            labels = inputs
        elif groups == 1:
            labels = self.labels.fresh(outputs)
        elif fan_in == 1:  # several filters to each channel
            raise UnknownError
        else:  # all groups shrink alike
            labels = self.labels.fresh(outputs).repeat(groups)
            self.labels.unite(inputs.view(groups, -1)[:1].expand(groups, -1), inputs.view(groups, -1))
        self.layers.append(Layer(name, module, n, n.all_input_nodes[0], reads, inputs, given, labels, made))
        return spread(labels, made, shape, axis)
