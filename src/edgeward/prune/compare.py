"""How far two networks are apart, and where they part.

difference = compare(masked, smaller, (pictures,), {}, tolerance=1e-5)
difference.exact, difference.largest, difference.layer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeward.graph.trace import restored

__all__ = ["Difference", "compare"]

Channels = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Difference:
    """largest: between two outputs, in their unit. scale: the largest output. layer: the first that differs, if any."""

    largest: float
    scale: float
    tolerance: float
    layer: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the outputs are equal to the tolerance, relative where they are beyond 1."""
        return self.largest <= self.tolerance * max(1.0, self.scale)

    def __str__(self) -> str:
        where = f", from {self.layer} on" if self.layer else ""
        return f"outputs differ by at most {self.largest:.3g} of {self.scale:.3g}{where}"


def compare(
    masked: nn.Module, smaller: nn.Module, inputs: Sequence[Tensor], channels: Channels, tolerance: float
) -> Difference:
    """Both networks in eval mode on `inputs`, and on a random one of the first's shape where that holds real numbers.

    channels: by layer, which of its outputs in `masked` equal which in `smaller`, int64 each; used to find the first
    layer that differs when the outputs do.
    """
    first = inputs[0]
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(first.shape, generator=generator).to(first)] if first.is_floating_point() else []
    with restored(masked), restored(smaller), torch.no_grad():
        masked.eval(), smaller.eval()
        worst = Difference(0.0, 0.0, tolerance)
        for one in (*inputs, *noise):
            found = _apart(masked(one), smaller(one), tolerance)
            if not found.exact and worst.exact:
                layer = _first_layer(masked, smaller, one, channels, tolerance)
                return Difference(found.largest, found.scale, tolerance, layer)
            worst = max(worst, found, key=lambda one: (one.largest / max(1.0, one.scale), one.scale))
    return worst


def _apart(ours: Any, theirs: Any, tolerance: float) -> Difference:
    pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
    largest, scale = 0.0, 0.0
    for mine, other in pairs:
        if isinstance(mine, Tensor) and mine.is_floating_point() and mine.numel():
            apart = (mine.double() - other.double()).abs()
            largest = max(largest, float(apart.max().nan_to_num(nan=float("inf"))))
            scale = max(scale, float(mine.abs().max()))
    return Difference(largest, scale, tolerance)


def _first_layer(
    masked: nn.Module, smaller: nn.Module, given: Tensor, channels: Channels, tolerance: float
) -> str | None:
    outputs: list[dict[str, Tensor]] = [{}, {}]
    hooks = [
        network.get_submodule(name).register_forward_hook(partial(_keep, outputs[index], name))
        for index, network in enumerate((masked, smaller))
        for name in channels
    ]
    try:
        masked(given), smaller(given)
    finally:
        for hook in hooks:
            hook.remove()
    for name, (old, new) in channels.items():
        axis = -1 if isinstance(masked.get_submodule(name), nn.Linear) else 1
        mine, theirs = outputs[0][name].index_select(axis, old), outputs[1][name].index_select(axis, new)
        if not _apart(mine, theirs, tolerance).exact:
            return name
    return None


def _keep(outputs: dict[str, Tensor], name: str, _module: nn.Module, _given: Any, made: Tensor) -> None:
    outputs[name] = made
