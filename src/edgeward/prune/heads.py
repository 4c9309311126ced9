"""Attention heads found by themselves: which rows and columns of which layers make up one head.

    for attention in attentions(model, torch.zeros(1, 3, 224, 224)):
        print(attention.path, attention.count, attention.slots(0))

Known are nn.MultiheadAttention, and modules that hold a number of heads next to linear layers for queries, keys and
values, apart or in one, as in timm and transformers; the layer that mixes the heads is the next one to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeward.graph.trace import restored
from edgeward.prune.units import Slot

__all__ = ["COUNTS", "INNER", "Attention", "attentions"]

COUNTS = re.compile(r"(num_|n_)?(attention_|attn_|key_value_)?heads?|nhead")
"""Attributes that hold the number of heads."""
INNER = re.compile(r"all_head_(size|dim)|inner_dim")
"""Attributes that hold the width of all heads together."""

_PART = re.compile(r"(to_)?(q|k|v|query|key|value)(_proj|_lin|_linear)?")


@dataclass(frozen=True)
class Attention:
    """`count` heads of `width` channels.

    parts: the layers for queries, keys, and values, in order, or one for all three; mix: the layer that reads the
    heads. interleaved: in the one layer each head's query, key and value lie together. trouble: why no head can be
    removed, or "".
    """

    path: str
    count: int
    width: int
    parts: tuple[str, ...]
    mix: str
    interleaved: bool = False
    trouble: str = ""

    def slots(self, head: int) -> Iterator[Slot]:
        """All that belongs to one head."""
        yield self.path, "heads", head
        for channel in range(head * self.width, (head + 1) * self.width):
            if self.mix:
                yield self.mix, "in", channel
            if len(self.parts) == 3:
                yield from ((part, "out", channel) for part in self.parts)
            elif self.parts:
                yield from ((self.parts[0], "out", index) for index in self._rows(channel))

    def _rows(self, channel: int) -> Iterator[int]:
        head, rest = divmod(channel, self.width)
        for part in range(3):
            if self.interleaved:
                yield (head * 3 + part) * self.width + rest
            else:
                yield (part * self.count + head) * self.width + rest


def attentions(model: nn.Module, example: Tensor) -> tuple[Attention, ...]:
    """All attention modules of a model that has separate heads; it is run once if there may be any."""
    found: list[Attention] = []
    holders = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found.append(_of_torch(path, module))
        elif (count := _count(module)) > 1 and (parts := _parts(module)):
            holders[path] = (count, parts)
    if not holders:
        return tuple(found)
    order = _order(model, example)
    names = {module: name for name, module in model.named_modules()}
    for path, (count, parts) in holders.items():
        layers = [part for part in parts if part in order]
        if len(layers) == len(parts):  # else this one does not run
            found.append(_matched(path, count, parts, order, names))
    return tuple(found)


def _of_torch(path: str, module: nn.MultiheadAttention) -> Attention:
    trouble = ""
    if module.in_proj_weight is None or module.bias_k is not None:
        trouble = "its queries, keys and values are of different widths, or have added biases"
    return Attention(
        path, module.num_heads, module.out_proj.in_features // module.num_heads, (), f"{path}.out_proj", trouble=trouble
    )


def _count(module: nn.Module) -> int:
    held = {v for name, v in vars(module).items() if COUNTS.fullmatch(name) and type(v) is int}
    return max(held) if held else 0


def _parts(module: nn.Module) -> list[nn.Linear]:
    layers = {name: child for name, child in module.named_children() if isinstance(child, nn.Linear)}
    apart = {match[2][0]: layers[name] for name in layers if (match := _PART.fullmatch(name))}
    if set(apart) == {"q", "k", "v"}:
        return [apart[letter] for letter in "qkv"]
    fused = [layer for name, layer in layers.items() if "qkv" in name.lower() or name in ("query_key_value", "in_proj")]
    return fused[:1]


def _order(model: nn.Module, example: Tensor) -> dict[nn.Module, int]:
    """Linear layers by when they ran first."""
    order: dict[nn.Module, int] = {}

    def note(layer: nn.Module, _: object) -> None:
        order.setdefault(layer, len(order))

    hooks = [layer.register_forward_pre_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        with restored(model), torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _matched(
    path: str, count: int, parts: list[nn.Linear], order: dict[nn.Module, int], names: dict[nn.Module, str]
) -> Attention:
    inner = parts[-1].out_features if len(parts) == 3 else parts[0].out_features // 3
    last = max(order[part] for part in parts)
    mix = next((layer for layer, place in order.items() if place > last), None)
    trouble = ""
    if len({part.out_features for part in parts}) > 1:
        trouble = "several heads share their keys and values"
    elif inner % count or (len(parts) == 1 and parts[0].out_features % 3):
        trouble = f"{count} heads do not share a width of {inner} evenly"
    elif not isinstance(mix, nn.Linear) or mix.in_features != inner:
        mix, trouble = None, "the layer that mixes the heads was not found"
    layers = tuple(names[part] for part in parts)
    return Attention(path, count, inner // count, layers, names[mix] if mix else "", trouble=trouble)
