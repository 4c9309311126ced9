"""Batch norms folded into the layers before them: fewer operations, the same outputs up to rounding.

    small = folded(model, torch.zeros(1, 3, 224, 224))
    small.edits.identities                                # ("norm1", "layer1.0.norm1", ...)

Ioffe and Szegedy, "Batch Normalization", ICML 2015, section 3.1: in evaluation the transform is linear,
w' = w g / sqrt(v + eps) and b' = beta + (b - mean) g / sqrt(v + eps). The result is for evaluation, not for training.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeward.graph.trace import Example, restored, trace
from edgeward.prune.cutting import Removed
from edgeward.zoo.pruned import Edits, edited

__all__ = ["folded"]

_Layer = nn.modules.conv._ConvNd | nn.Linear


def folded(model: nn.Module, example: Tensor) -> Removed:
    """A copy of `model` without the batch norms that directly follow a convolution or linear layer, and its edits.

    Norms stay where the layer's output is read elsewhere too, either runs more than once, or there are no running
    statistics; all stay when torch.fx cannot follow the model. Raises TraceError when nothing can.
    """
    tensors: dict[str, tuple[int, ...]] = {}
    values: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    norms: list[str] = []
    for path, norm_path in _pairs(model, example):
        layer, norm = model.get_submodule(path), model.get_submodule(norm_path)
        assert isinstance(layer, _Layer)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        weight, bias = _folded(layer, norm)
        norms.append(norm_path)
        values[f"{path}.weight"] = weight
        biases[f"{path}.bias"] = bias
        if layer.bias is None:
            tensors[f"{path}.bias"] = tuple(bias.shape)
    edits = Edits(tensors, {}, tuple(norms))
    module = edited(model, edits, values)
    with torch.no_grad():
        for name, bias in biases.items():
            module.get_parameter(name).copy_(bias)
    return Removed(module, edits)


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Paths of layers, each with the path of the norm that alone reads it."""
    graph = trace(model, Example((example,))).eval_graph
    runs = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    holders = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    found = []
    for node in graph.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = graph.get_submodule(str(before.target)), graph.get_submodule(str(node.target))
        alone = runs[before.target] == runs[node.target] == 1
        if alone and _foldable(layer, norm) and holders[id(layer.weight)] == 1:
            found.append((str(before.target), str(node.target)))
    ranks = _ranks(model, example)
    return [(path, norm) for path, norm in found if path not in ranks or ranks[path] == 2]


def _foldable(layer: nn.Module, norm: nn.Module) -> bool:
    return (
        isinstance(layer, _Layer)
        and isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.running_mean is not None
        and not (getattr(layer, "transposed", False) and getattr(layer, "groups", 1) > 1)
    )


def _ranks(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Dimensions that linear layers return: only of two is the second what a batch norm treats as channels."""
    ranks: dict[str, int] = {}

    def hook(path: str) -> Any:
        return lambda _, __, made: ranks.update({path: made.dim()})

    hooks = [layer.register_forward_hook(hook(p)) for p, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    try:
        with restored(model), torch.no_grad():
            model.eval()(example)
    finally:
        for one in hooks:
            one.remove()
    return ranks


def _folded(layer: _Layer, norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """The new weight and bias, computed in doubles."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if layer.bias is not None:
        shift = shift + layer.bias.detach().double() * scale
    weight = layer.weight.detach()
    sides = [1] * weight.dim()
    sides[1 if getattr(layer, "transposed", False) else 0] = -1
    return (weight.double() * scale.reshape(sides)).to(weight.dtype), shift.to(weight.dtype)
