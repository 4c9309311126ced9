"""Which channels of which layers must go together, read off torch-pruning's dependency graph.

    units, fixed = couple(model, torch.zeros(1, 3, 224, 224)).units()
    units[0]                             # [("conv1", "out", 0), ("norm1", "out", 0), ("layer1.0.conv1", "in", 0), ...]

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3: removing one channel forces others,
transitively. The graph tells how indices map from layer to layer; here its closure is taken channel by channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch_pruning._helpers import _HybridIndex
from torch_pruning.ops import OPTYPE, DummyPruner

from edgeward.errors import PruneError
from edgeward.graph.trace import restored
from edgeward.prune.units import Axis, Coupling, Slot

__all__ = ["Slot", "couple"]

_SLICING = (OPTYPE.SPLIT, OPTYPE.UNBIND, OPTYPE.SLICE)


@dataclass(frozen=True)
class _Traced:
    """torch-pruning's graph, the names of what is in it, what the network returns, and what widens it with zeros."""

    graph: Any
    names: Mapping[Any, str]
    returned: frozenset[Any]
    widening: _Widening


class _Widening(DummyPruner):  # type: ignore[misc]
    """Padding modules that add channels of zeros; torch-pruning would take them for element-wise operations."""

    def __init__(self) -> None:
        self.widths: dict[nn.Module, int] = {}  # channels before the padding
        self.flat: set[nn.Module] = set()  # those whose input has no depth, so that the third pair is channels

    def record(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        """As a hook before the module runs."""
        self.widths[module] = given[0].shape[1]
        if given[0].dim() == 4:
            self.flat.add(module)

    def get_in_channels(self, layer: nn.Module) -> int:
        return self.widths[layer]

    def get_out_channels(self, layer: nn.Module) -> int:
        return self.widths[layer] + sum(self._added(layer))

    def ahead(self, node: Any) -> tuple[int, int]:
        """Channels of zeros in front, and channels that the padding is given."""
        return self._added(node.module)[0], self.widths[node.module]

    def _added(self, layer: nn.Module) -> tuple[int, int]:
        assert isinstance(layer, nn.ConstantPad3d)
        return (layer.padding[4], layer.padding[5]) if layer in self.flat else (0, 0)


def couple(model: nn.Module, example: Tensor, skip: frozenset[str] = frozenset()) -> Coupling:
    """The units of a model.

    example: one input. skip: layers whose outputs are treated elsewhere (projections of attention). The model is run
    once and left as it was. Raises PruneError when it cannot be traced.
    """
    with restored(model):
        traced = _trace(model, example)
        coupling = Coupling()
        for name, layer in model.named_modules():
            if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) or layer not in traced.graph.module2node:
                continue
            outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            if name not in skip and not all((name, "out", index) in coupling for index in range(outputs)):
                _follow(traced, coupling, layer, outputs)
        for name, module in model.named_modules():
            _couple_groups(coupling, name, module)
        _couple_tied(coupling, model)
    return coupling


def _trace(model: nn.Module, example: Tensor) -> _Traced:
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    returned: list[Any] = []
    widening = _Widening()
    pads = [pad for pad in model.modules() if isinstance(pad, nn.ConstantPad3d) and min(pad.padding) >= 0]

    def outputs(made: Any) -> list[Tensor]:
        tensors = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
        returned.extend(tensor.grad_fn for tensor in tensors)
        return tensors

    hooks = [pad.register_forward_pre_hook(widening.record) for pad in pads]
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad():
            for parameter in frozen:
                parameter.requires_grad_(parameter.is_floating_point())
            graph.build_dependency(
                model,
                example,
                forward_fn=lambda model, given: model(given),  # else a batch is taken for a list of arguments
                output_transform=outputs,
                customized_pruners={type(pad): widening for pad in pads},
                verbose=False,
            )
    except Exception as error:  # the model and the tracer may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PruneError(f"{type(model).__name__} cannot be traced with {list(example.shape)}: {reason}") from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for hook in hooks:
            hook.remove()
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    nodes = graph.module2node.values()
    return _Traced(graph, names, frozenset(node for node in nodes if node.grad_fn in returned), widening)


def _follow(traced: _Traced, coupling: Coupling, layer: nn.Module, outputs: int) -> None:
    """Join all that the outputs of one layer reach."""
    graph, origin = traced.graph, traced.names[layer]
    start = graph.module2node[layer]
    begin = [_HybridIndex(idx=index, root_idx=index) for index in range(outputs)]
    seen: dict[tuple[Any, Any], set[Any]] = defaultdict(set)
    pending = [(start, graph.get_pruner_of_module(layer).prune_out_channels, begin)]
    while pending:
        node, handler, given = pending.pop()
        known = seen[node, handler]
        pairs = [pair for pair in given if pair not in known]
        if not pairs or not _visit(traced, coupling, origin, (node, handler, pairs)):
            continue
        known.update(pairs)
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(handler):
                continue
            onward = _padded(traced.widening, node, dependency.target, pairs)
            for mapping in dependency.index_mapping:
                onward = onward if mapping is None else mapping(onward)
            if node.type in _SLICING and any(dependency.index_mapping):
                _fix(coupling, origin, pairs, "the model's own code slices these channels")
            pending.append((dependency.target, dependency.handler, onward))


def _visit(traced: _Traced, coupling: Coupling, origin: str, reached: tuple[Any, Any, list[Any]]) -> bool:
    """Join one layer's slots to those of the origin; whether the search goes on behind it."""
    node, handler, pairs = reached
    pruner = traced.graph.get_pruner_of_module(node.module)
    sided = pruner.prune_in_channels != pruner.prune_out_channels
    axis: Axis = "in" if sided and handler == pruner.prune_in_channels else "out"
    if node in traced.returned and axis == "out":
        _fix(coupling, origin, pairs, "they are the network's output")
    name = traced.names.get(node.module)
    if node.type == OPTYPE.LSTM or (name is None and any(getattr(node.grad_fn, "_saved_pad", ())[4:])):
        _fix(coupling, origin, pairs, "they pass through an operation whose size cannot be changed")
    if name is None:
        return True
    pruner.pruning_dim = node.pruning_dim  # torch-pruning shares one pruner between all tensors of a kind
    size = pruner.get_out_channels(node.module) if axis == "out" else pruner.get_in_channels(node.module)
    if size is None:
        return True
    if any(pair.idx >= size for pair in pairs):
        _fix(coupling, origin, pairs, f"they do not line up with the channels of {name}")
        return False
    if pruner is traced.widening:  # its own channels are the added ones
        before, width = traced.widening.ahead(node)
        pairs = [pair for pair in pairs if not before <= pair.idx < before + width]
        pairs = [pair if pair.idx < before else pair._replace(idx=pair.idx - width) for pair in pairs]
    for pair in pairs:
        if isinstance(node.module, nn.MultiheadAttention):
            coupling.join((origin, "out", pair.root_idx), (name, "in", pair.idx))
            coupling.join((origin, "out", pair.root_idx), (f"{name}.out_proj", "out", pair.idx))
        else:
            coupling.join((origin, "out", pair.root_idx), (name, axis, pair.idx))
    return True


def _padded(widening: _Widening, node: Any, target: Any, pairs: list[Any]) -> list[Any]:
    """Indices behind, or before, a padding with channels of zeros: `node` and `target` are neighbours."""
    if target.module in widening.widths and target in node.outputs:
        before, _ = widening.ahead(target)
        return [pair._replace(idx=pair.idx + before) for pair in pairs]
    if node.module in widening.widths and target in node.inputs:
        before, width = widening.ahead(node)
        return [pair._replace(idx=pair.idx - before) for pair in pairs if before <= pair.idx < before + width]
    return pairs


def _fix(coupling: Coupling, origin: str, pairs: list[Any], reason: str) -> None:
    for pair in pairs:
        coupling.fix((origin, "out", pair.root_idx), reason)


def _couple_groups(coupling: Coupling, name: str, module: nn.Module) -> None:
    """Grouped convolutions and group norms stay even: the k-th channel of every group goes, or whole groups of one."""
    if isinstance(module, nn.GroupNorm) and 1 < module.num_groups < module.num_channels:
        _even(coupling, name, "out", module.num_channels, module.num_groups)
    if not isinstance(module, nn.modules.conv._ConvNd) or module.groups == 1:
        return
    inputs, outputs, groups = module.in_channels, module.out_channels, module.groups
    if module.transposed or (groups == outputs != inputs):
        for index in range(outputs):
            coupling.fix((name, "out", index), "grouped convolutions of this kind cannot be narrowed")
    elif inputs == groups != outputs:
        for index in range(outputs):
            coupling.join((name, "in", index // (outputs // groups)), (name, "out", index))
    elif inputs != groups:
        _even(coupling, name, "in", inputs, groups)
        _even(coupling, name, "out", outputs, groups)


def _couple_tied(coupling: Coupling, model: nn.Module) -> None:
    """Layers that share one weight lose the same channels."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer, _, kind = name.rpartition(".")
        other = first.setdefault(id(parameter), layer)
        if kind != "weight" or other == layer:
            continue
        axes: tuple[tuple[Axis, int], ...] = (
            ("out", parameter.shape[0]),
            ("in", parameter.shape[min(1, parameter.dim() - 1)]),
        )
        for axis, size in axes[: parameter.dim()]:
            for index in range(size):
                if (other, axis, index) in coupling or (layer, axis, index) in coupling:
                    coupling.join((other, axis, index), (layer, axis, index))


def _even(coupling: Coupling, name: str, axis: Axis, channels: int, groups: int) -> None:
    each = channels // groups
    for index in range(each, channels):
        if (name, axis, index) in coupling:
            coupling.join((name, axis, index % each), (name, axis, index))
