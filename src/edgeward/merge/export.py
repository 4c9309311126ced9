"""Merged models as ONNX files in which shared layers are the same bytes, so that a weight store holds them once.

    export_onnx(Path("merged"), "cars", Path("cars.onnx"))

Exporters and runtimes fold a batch norm into the convolution before it, which would make a private copy of a shared
weight. Behind shared layers a batch norm is therefore written as a convolution of its own, one channel at a time, which
nothing folds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import ModelError
from edgeward.graph.onnx import export_module
from edgeward.graph.trace import restored
from edgeward.merge.manifest import names, read_manifest
from edgeward.merge.store import Factory, load_one
from edgeward.profile.file import replace_bytes
from edgeward.zoo.network import Network, example_of

__all__ = ["export_onnx", "unfolded"]

_NORMS: dict[type[nn.Module], type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    nn.BatchNorm1d: nn.Conv1d,
    nn.BatchNorm2d: nn.Conv2d,
    nn.BatchNorm3d: nn.Conv3d,
}


def export_onnx(folder: Path, name: str, file: Path, factory: Factory | None = None) -> None:
    """Write one stored model as ONNX with a free batch dimension; input "input", outputs "output0" and so on.

    factory: builds the network where it has no recipe. Raises StoreError and ModelError as `load_one` does, ModelError
    when its input shape is not known, TraceError for an operation that ONNX lacks.
    """
    manifest = read_manifest(folder, name)
    module = load_one(folder, name, factory)
    if manifest.input_shape is None:
        raise ModelError(f"the input shape of {name} is not stored; give it when merging, with --input")
    network = Network(name, module, manifest.input_shape, manifest.tokens)
    others = [read_manifest(folder, one) for one in names(folder) if one != name]
    elsewhere = {digest for other in others for digest in other.parameters.values()}
    weights = {path: one for path, one in module.named_parameters(remove_duplicate=False) if one.dim() > 1}
    shared = {path.rpartition(".")[0] for path in weights if manifest.parameters[path] in elsewhere}
    example = example_of(network, None, 1)
    unfolded(module, frozenset(shared), example)
    replace_bytes(file, export_module(module, example))


def unfolded(module: nn.Module, shared: frozenset[str], example: Tensor) -> None:
    """Replace, in place, each batch norm that reads a shared layer by a depthwise convolution of the same effect."""
    made: list[Any] = []
    reading: dict[str, bool] = {}
    hooks = [
        module.get_submodule(path).register_forward_hook(lambda _, given, output: made.append(output))
        for path in shared
    ]
    paths = {one: path for path, one in module.named_modules() if type(one) in _NORMS}

    def look(norm: nn.Module, given: tuple[Any, ...]) -> None:
        if any(given[0] is one for one in made):
            reading[paths[norm]] = given[0].dim() == 2

    hooks += [norm.register_forward_pre_hook(look) for norm in paths]
    try:
        with restored(module), torch.no_grad():
            module.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    for path, flat in reading.items():
        made_of = _depthwise(module.get_submodule(path))
        module.set_submodule(path, _Flat(made_of) if flat else made_of)


class _Flat(nn.Module):
    """A convolution of sequences applied to [n, channels]."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.convolution(values.unsqueeze(-1)).squeeze(-1)
        return found


def _depthwise(norm: nn.Module) -> nn.Module:
    """A batch norm in eval mode as a convolution of every channel with one number."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    channels = norm.num_features
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.affine:
        shift = shift + norm.bias
    made = _NORMS[type(norm)](channels, channels, 1, groups=channels)
    with torch.no_grad():
        made.weight.copy_(scale.view_as(made.weight))
        assert made.bias is not None
        made.bias.copy_(shift)
    return made.eval()
