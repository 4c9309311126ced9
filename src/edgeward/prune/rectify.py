"""Fewer filters in chosen layers: how many, which ones, and new weights where inputs or outputs became fewer.

    widths = schedule({"conv1": 64, "conv2": 64}, {"conv2": 0.8})            # {"conv2": 13}
    small = rectified(model, example, channels, widths, worth(model, mask))
    changed(small)                                                          # ("conv2", "conv3")

The part of Reconvene (arXiv 2404.16877) that its authors call the resilient layer rectifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.channels import Channels, Group
from edgeward.prune.cutting import Removed
from edgeward.prune.mask import Mask
from edgeward.prune.remove import remove
from edgeward.prune.widths import rounded

__all__ = ["ORDERS", "RATIOS", "changed", "lost", "rectified", "refusal", "schedule", "worth"]

ORDERS = ("l1", "survivors", "random")
RATIOS = ("ends", "layer", "mean")


def lost(ratio: str, own: float, readers: float, average: float) -> float:
    """The share of its outputs that a layer loses, given what pruning took of it, of its readers, and of all layers.

    "layer": its own share; "mean": the average; "ends": what leaves it the geometric mean of what it and its readers
    kept. Raises PruneError for another ratio, or shares outside 0 to 1.
    """
    if ratio not in RATIOS:
        raise PruneError(f"there is no ratio {ratio!r}; {nearest(ratio, RATIOS)}")
    if not all(0 <= share <= 1 for share in (own, readers, average)):
        raise PruneError(f"shares of {own}, {readers} and {average} are pruned; give 0 to 1")
    if ratio == "ends":
        # A layer's weights are its inputs times its outputs: each channel narrows the layers at both of its ends.
        return 1 - math.sqrt((1 - own) * (1 - readers))
    return own if ratio == "layer" else average


def schedule(
    widths: Mapping[str, int], removed: Mapping[str, float], floor: int = 4, multiple: int = 1
) -> dict[str, int]:
    """The width of each layer that loses a share of its outputs: rounded up, then to `multiple`; at least `floor`.

    No layer gets wider than it was. Raises PruneError as `widths.rounded`, and for a share outside 0 to 1 or a layer
    without a width.
    """
    found = {}
    for name, share in removed.items():
        if name not in widths or not 0 <= share <= 1:
            raise PruneError(
                f"{name} shall lose a share of {share} of {widths.get(name, 'unknown')} outputs; give 0 to 1"
            )
        # Without the guard 10 * (1 - 0.7) would round up to 4.
        left = math.ceil(widths[name] * (1 - share) - 1e-9)
        found[name] = min(rounded(max(left, 0), multiple, floor), widths[name])
    return found


def worth(model: nn.Module, mask: Mask, order: str = "l1", seed: int = 0) -> dict[str, Tensor]:
    """For each layer of the mask, a number for each of its filters [out], float64; those with the lowest go first.

    "l1": the sum of the magnitudes of weights that the mask keeps; "survivors": how many it keeps; "random". Raises
    PruneError for another order, or a mask of another network.
    """
    if order not in ORDERS:
        raise PruneError(f"there is no order {order!r} of filters; {nearest(order, ORDERS)}")
    weights = dict(model.named_parameters(remove_duplicate=False))
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, kept in mask.tensors.items():
        if name not in weights or weights[name].shape != kept.shape:
            raise PruneError(
                f"the mask of {name} {list(kept.shape)} is of another network; use the one it was found for"
            )
        if order == "random":
            values = torch.rand(len(kept), generator=generator, dtype=torch.float64)
        else:
            values = (weights[name].detach().abs() * kept if order == "l1" else kept).double().flatten(1).sum(1).cpu()
        found[name.removesuffix(".weight")] = values
    return found


def rectified(
    model: nn.Module, example: Tensor, channels: Channels, widths: Mapping[str, int], values: Mapping[str, Tensor]
) -> Removed:
    """A copy with so many units left in each named group, those of the highest worth; of equal ones the first.

    values: by layer, per output channel; a unit is worth the sum over its layers. Where units lie in different layers,
    each kind keeps the same share, and at least one. The weights left are as they were.
    Raises PruneError for a group that is not there or must stay, or a width outside 1 to its size.
    """
    groups = {group.name: group for group in channels.groups}
    gone: dict[str, list[int]] = {}
    for name, width in widths.items():
        if name not in groups:
            raise PruneError(f"no group of channels {name!r}; {nearest(name, groups)}")
        size = groups[name].size
        if not 1 <= width <= size:
            raise PruneError(f"{name} cannot be {width} wide; it has {size} units, keep 1 or more")
        for layer, outputs in groups[name].channels(_surplus(groups[name], width, values)).items():
            gone.setdefault(layer, []).extend(outputs)
    return remove(model, example, gone, channels)


def changed(removed: Removed) -> tuple[str, ...]:
    """Convolutions and linear layers that have fewer inputs or outputs than before."""
    return tuple(
        path
        for path, module in removed.module.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and f"{path}.weight" in removed.edits.tensors
    )


def refusal(model: nn.Module, group: Group, coupled: bool) -> str:
    """Why the rule of single layers says nothing about these channels, or "" where it does.

    coupled: several layers that produce the channels together, depthwise and grouped convolutions are no obstacle.
    """
    if group.fixed:
        return group.fixed
    if any(axis == "heads" for unit in group.units for _, axis, _ in unit):
        return "these are the heads of an attention layer"
    modules = dict(model.named_modules())
    layers = [name for name in group.producers if isinstance(modules.get(name), nn.modules.conv._ConvNd | nn.Linear)]
    grouped = [name for name in layers if getattr(modules[name], "groups", 1) > 1]
    if coupled or (len(layers) < 2 and not grouped):
        return ""
    what = f"the depthwise or grouped convolution {grouped[0]}" if grouped else f"{len(layers)} layers together"
    return f"its channels are bound by {what}; narrow such groups too with coupled=True"


def _surplus(group: Group, width: int, values: Mapping[str, Tensor]) -> list[int]:
    known = {layer: values[layer].tolist() for layer in group.producers if layer in values}
    totals = [
        math.fsum(known[layer][index] for layer, axis, index in unit if axis == "out" and layer in known)
        for unit in group.units
    ]
    gone: list[int] = []
    for kind in group.kinds:
        kept = max(round(len(kind) * width / group.size), 1)
        gone += sorted(kind, key=lambda unit: (-totals[unit], unit))[kept:]
    return sorted(gone)
