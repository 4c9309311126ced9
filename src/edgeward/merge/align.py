"""The output channels of a layer in another order, with all that follows put right: the model computes the same.

    align(model, "features.0", reference, example)       # True: its channels are now in the reference's order

Which channel is which is arbitrary in a trained layer. Before two layers share weights, those of one are matched to
those of the other by the assignment that brings the weights closest (Ainsworth et al., "Git Re-Basin", ICLR 2023,
section 3.2), and the permutation is undone in the layers that read them. That is exact where channels meet nothing but
normalisation, activations and pooling before the next layers; elsewhere, as in a residual sum, the model is left alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgeward.errors import MissingExtra, TraceError
from edgeward.graph.trace import Example, restored, trace

__all__ = ["align", "matching"]

_NORMS = nn.modules.batchnorm._BatchNorm
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PER_CHANNEL = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Softplus,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_PLAIN = {"relu", "relu6", "silu", "gelu", "dropout", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}


def matching(own: Tensor, reference: Tensor) -> Tensor:
    """For each channel of `reference` the channel of `own` that goes there: int64 [channels].

    Both are weights [channels, ...]; the sum of inner products is the largest. Raises MissingExtra without SciPy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError as error:
        raise MissingExtra("scipy", "video") from error
    likeness = reference.detach().flatten(1).double().cpu() @ own.detach().flatten(1).double().cpu().T
    _, columns = linear_sum_assignment(likeness.numpy(), maximize=True)
    return torch.from_numpy(columns)


def align(
    model: nn.Module, layer: str, reference: Tensor, example: Tensor, fixed: frozenset[str] = frozenset()
) -> bool:
    """Permute the output channels of a layer towards a reference weight of its shape, in place.

    example: one input of the model. fixed: layers that must stay as they are, because others use their weights. Returns
    False, and changes nothing, where the permutation cannot be undone behind the layer.
    """
    if layer in fixed:
        return False
    try:
        graph = trace(model, Example((example,))).eval_graph
    except TraceError:
        return False
    plan = _plan(model, graph.graph, layer)
    if plan is None or fixed & {*plan.outputs, *plan.inputs}:
        return False
    own = model.get_submodule(layer).weight
    assert isinstance(own, Tensor)
    order = matching(own, reference)
    before = _answers(model, example)
    _permute(model, plan, order)
    # Sums run in another order now, hence the tolerance; a mistake would show as wholly other values.
    for one, two in zip(before, _answers(model, example), strict=True):
        if not torch.allclose(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max())):
            _permute(model, plan, order.argsort())
            return False
    return True


def _answers(model: nn.Module, example: Tensor) -> list[Tensor]:
    """What the model returns in eval mode."""
    with restored(model), torch.no_grad():
        return [one for one in pytree.tree_leaves(model.eval()(example)) if isinstance(one, Tensor)]


@dataclass
class _Plan:
    """Layers whose outputs are put in order, and those whose inputs are."""

    outputs: list[str]
    inputs: list[str] = field(default_factory=list)


def _plan(model: nn.Module, graph: fx.Graph, layer: str) -> _Plan | None:
    """What a permutation of the layer's outputs entails; None where it cannot be undone."""
    modules = dict(model.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    source = modules.get(layer)
    if calls[layer] != 1 or not isinstance(source, (*_CONVOLUTIONS, nn.Linear)):
        return None
    if isinstance(source, _CONVOLUTIONS) and source.groups != 1:
        return None
    channels = source.weight.shape[0]
    plan = _Plan([layer])
    start = next(node for node in graph.nodes if node.op == "call_module" and node.target == layer)
    pending: list[fx.Node] = [start]
    while pending:
        for user in pending.pop().users:
            passes = _visit(user, modules, channels, plan)
            own = str(user.target) in {*plan.outputs, *plan.inputs}
            if passes is None or (own and calls[str(user.target)] > 1):
                return None
            if passes:
                pending.append(user)
    return plan if plan.inputs else None


def _visit(node: fx.Node, modules: dict[str, nn.Module], channels: int, plan: _Plan) -> bool | None:
    """Whether channels go on behind this node in their order; False where they end, None where nothing is known."""
    if node.op == "call_module":
        path = str(node.target)
        module = modules[path]
        if isinstance(module, _PER_CHANNEL) or (isinstance(module, nn.Flatten) and module.start_dim == 1):
            return True
        depthwise = isinstance(module, _CONVOLUTIONS) and module.groups == channels == len(module.weight)
        if isinstance(module, _NORMS) or depthwise:
            plan.outputs.append(path)
            return True
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear)) and getattr(module, "groups", 1) == 1:
            width = module.weight.shape[1]
            if width % channels == 0:
                plan.inputs.append(path)
                return False
    elif node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if name in _PLAIN or (name == "flatten" and node.args[1:] in ((1,), (1, -1))):
            return True
    return None


@torch.no_grad()
def _permute(model: nn.Module, plan: _Plan, order: Tensor) -> None:
    """Put channels in order: rows of what makes them, columns of what reads them."""
    for path in plan.outputs:
        module = model.get_submodule(path)
        for name in ("weight", "bias", "running_mean", "running_var", "up"):
            rows = getattr(module, name, None)
            if isinstance(rows, Tensor):
                rows.copy_(rows[order.to(rows.device)])
    for path in plan.inputs:
        module = model.get_submodule(path)
        for name in ("weight", "down"):
            columns = getattr(module, name, None)
            if isinstance(columns, Tensor):
                blocks = columns.view(len(columns), len(order), -1)
                blocks.copy_(blocks[:, order.to(columns.device)].clone())
