"""What is cut out of layers' tensors when some of their outputs, inputs or heads go.

slice_of(model, "layer1.0.conv1", {"out": {3, 17}}).tensors     # {"layer1.0.conv1.weight": {0: (0, 1, 2, 4, ...)}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.heads import COUNTS, INNER
from edgeward.prune.units import Axis

__all__ = ["Slice", "slice_of"]

Kept = tuple[int, ...]
Sizes = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Slice:
    """tensors: by name and dimension, the indices to keep. attributes: new sizes. kept: the output channels left."""

    tensors: Mapping[str, Mapping[int, Kept]]
    attributes: Mapping[str, int | tuple[int, ...]]
    kept: Kept = ()


def slice_of(model: nn.Module, layer: str, gone: Mapping[Axis, set[int]]) -> Slice:
    """The cut through one layer (or bare parameter) that loses these outputs, inputs or heads.

    Raises PruneError when nothing of it would be left, or it is of a kind that cannot be cut.
    """
    module = attrgetter(layer)(model)
    outputs, inputs = gone.get("out", set()), gone.get("in", set())
    if isinstance(module, Tensor):
        dim = max(d for d, side in enumerate(module.shape) if side > 1)
        kept = _left(layer, "outputs", module.shape[dim], outputs)
        return Slice({layer: {dim: kept}}, {}, kept)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _conv(module, layer, outputs, inputs)
    if isinstance(module, nn.Linear):
        rows = _left(layer, "outputs", module.out_features, outputs)
        columns = _left(layer, "inputs", module.in_features, inputs)
        sizes: Sizes = {f"{layer}.out_features": len(rows), f"{layer}.in_features": len(columns)}
        return Slice(_tensors(module, layer, {0: rows, 1: columns}), sizes, rows if outputs else ())
    if isinstance(module, nn.ConstantPad3d):  # its channels are the added ones
        *sides, before, after = module.padding
        front = len([index for index in outputs if index < before])
        sizes = {f"{layer}.padding": (*sides, before - front, after - (len(outputs) - front))}
        return Slice({}, sizes, tuple(index for index in range(before + after) if index not in outputs))
    if isinstance(module, nn.MultiheadAttention):
        return _torch_attention(module, layer, inputs, gone.get("heads", set()))
    if "heads" in gone:
        return _attention(module, layer, gone["heads"])
    return _norm(module, layer, outputs)


def _attention(module: nn.Module, layer: str, gone: set[int]) -> Slice:
    counts = {name: value for name, value in vars(module).items() if COUNTS.fullmatch(name) and type(value) is int}
    count = max(counts.values())
    kept = _left(layer, "heads", count, gone)
    sizes: Sizes = {f"{layer}.{name}": len(kept) for name, value in counts.items() if value == count}
    for name, value in vars(module).items():
        if INNER.fullmatch(name) and type(value) is int:
            sizes[f"{layer}.{name}"] = value // count * len(kept)
    return Slice({}, sizes, kept)


def _torch_attention(module: nn.MultiheadAttention, layer: str, inputs: set[int], gone: set[int]) -> Slice:
    heads = _left(layer, "heads", module.num_heads, gone)
    columns = _left(layer, "inputs", module.embed_dim, inputs)
    inner = module.in_proj_weight.shape[0] // 3
    width = inner // module.num_heads
    rows = tuple(
        part * inner + head * width + channel for part in range(3) for head in heads for channel in range(width)
    )
    tensors: dict[str, Mapping[int, Kept]] = {f"{layer}.in_proj_weight": {0: rows, 1: columns}}
    if module.in_proj_bias is not None:
        tensors[f"{layer}.in_proj_bias"] = {0: rows}
    sizes: Sizes = dict.fromkeys((f"{layer}.{name}" for name in ("embed_dim", "kdim", "vdim")), len(columns))
    return Slice(tensors, {**sizes, f"{layer}.num_heads": len(heads)}, heads if gone else ())


def _conv(conv: nn.modules.conv._ConvNd, layer: str, outputs: set[int], inputs: set[int]) -> Slice:
    depthwise = conv.groups == conv.in_channels > 1
    if depthwise and conv.groups == conv.out_channels:
        inputs = outputs
    rows = _left(layer, "outputs", conv.out_channels, outputs)
    columns = _left(layer, "inputs", conv.in_channels, inputs)
    each = conv.in_channels // conv.groups
    within = tuple(index for index in columns if index < each)
    first, second = (1, 0) if conv.transposed else (0, 1)
    cut = {first: rows} if depthwise else {first: rows, second: within}
    sizes: Sizes = {f"{layer}.out_channels": len(rows), f"{layer}.in_channels": len(columns)}
    if depthwise:
        sizes[f"{layer}.groups"] = len(columns)
    return Slice(_tensors(conv, layer, cut), sizes, rows if outputs else ())


def _norm(module: nn.Module, layer: str, outputs: set[int]) -> Slice:
    for attribute in ("num_features", "num_channels", "normalized_shape", "num_parameters", "embedding_dim"):
        value = getattr(module, attribute, None)
        if value is None:
            continue
        size = value[-1] if isinstance(value, tuple) else value
        kept = _left(layer, "channels", size, outputs)
        sizes: Sizes = {f"{layer}.{attribute}": (*value[:-1], len(kept)) if isinstance(value, tuple) else len(kept)}
        if isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels:
            sizes[f"{layer}.num_groups"] = len(kept)
        tensors = {
            f"{layer}.{name}": {tensor.dim() - 1: kept}
            for name, tensor in {**module._parameters, **module._buffers}.items()
            if tensor is not None and tensor.dim() and tensor.shape[-1] == size
        }
        return Slice(tensors, sizes, kept)
    raise PruneError(f"channels of {layer} ({type(module).__name__}) cannot be removed; it is of no known kind")


def _tensors(module: nn.Module, layer: str, cut: Mapping[int, Kept]) -> dict[str, Mapping[int, Kept]]:
    if not isinstance(module._parameters.get("weight"), Tensor):
        raise PruneError(f"{layer} has no plain weight (weight norm or another parametrization); remove that first")
    tensors: dict[str, Mapping[int, Kept]] = {f"{layer}.weight": cut}
    if module.bias is not None:
        rows = cut[1] if getattr(module, "transposed", False) else cut[0]
        tensors[f"{layer}.bias"] = {0: rows}
    return tensors


def _left(layer: str, what: str, size: int, gone: set[int]) -> Kept:
    kept = tuple(index for index in range(size) if index not in gone)
    if not kept:
        raise PruneError(f"{layer} would lose all {size} of its {what}; keep at least one")
    return kept
