"""Which weights may be pruned, and which of them are kept by their scores: over the whole network or layer by layer.

names = prunable(model)                                      # ("conv1.weight", "fc1.weight")
mask = select(scores, Mask.ones(model, names), keep=0.1)     # the highest tenth of all
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.mask import Mask
from edgeward.prune.schedule import check_keep

__all__ = ["SCOPES", "erk_densities", "prunable", "select"]

SCOPES = ("global", "layer", "erk")
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def prunable(model: nn.Module, *, keep_first: bool = False, keep_last: bool = True) -> tuple[str, ...]:
    """Names of the weights of convolutions and linear layers, those inside nn.MultiheadAttention too, each once.

    Biases, norms and embeddings are left out, and so are the first and the last layer (in the order in which the model
    registers them) if kept. Raises PruneError when nothing is left.
    """
    found: dict[Tensor, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, (*_LAYERS, nn.MultiheadAttention)):
            continue
        wanted = ("weight",) if isinstance(module, _LAYERS) else _ATTENTION
        for name, weight in module.named_parameters(path, recurse=False):
            if name.rpartition(".")[2] in wanted:
                found.setdefault(weight, name)
    names = list(found.values())[int(keep_first) :]
    names = names[:-1] if keep_last else names
    if not names:
        raise PruneError(f"{type(model).__name__} has no weights to prune; allow its first and last layer too")
    return tuple(names)


def erk_densities(shapes: Sequence[Sequence[int]], keep: float) -> list[float]:
    """Densities by the Erdos-Renyi kernel rule for weights of these shapes, together `keep` of all; none above 1.

    In proportion to the sum of a weight's dimensions over their product; a layer that would be more than full is
    full, and the others share what is left (Evci et al., "Rigging the Lottery", arXiv 1911.11134, section 3).
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    full: set[int] = set()
    while True:
        rest = keep * sum(sizes) - sum(sizes[index] for index in full)
        scale = rest / sum(raw[index] * sizes[index] for index in range(len(sizes)) if index not in full)
        more = {index for index in range(len(sizes)) if index not in full and scale * raw[index] > 1}
        if not more:
            return [1.0 if index in full else scale * raw[index] for index in range(len(sizes))]
        full |= more


def select(scores: Mapping[str, Tensor], alive: Mask, keep: float, scope: str = "global", *, floor: int = 0) -> Mask:
    """Of the weights alive those with the highest scores: exactly round(keep x all weights of the mask).

    scores: finite, of the mask's shapes, higher is kept; of equal ones the first in the mask's order is. scope:
    "global" compares all weights; "layer" keeps the same share of each, "erk" that of `erk_densities`. floor: weights
    that each parameter keeps at least. Raises PruneError for scores that are not finite, too few weights alive, or,
    without a floor, a layer of which nothing would be left.
    """
    check_keep(keep)
    if scope not in SCOPES:
        raise PruneError(f"there is no scope {scope!r}; {nearest(scope, SCOPES)}")
    flat = _flat(scores, alive)
    held = [one.reshape(-1) for one in alive.tensors.values()]
    living = [int(one.sum()) for one in held]
    count = round(keep * alive.total)
    if count > sum(living):
        raise PruneError(
            f"{count} weights are to be kept and {sum(living)} are alive; choose a smaller share than {keep}"
        )
    least = [min(floor, number) for number in living]
    if sum(least) > count:
        raise PruneError(f"a floor of {floor} keeps {sum(least)} weights, above the {count} asked for; lower it")
    if scope == "global":
        chosen = _top_with_floor(flat, held, count, least)
    else:
        shapes = [one.shape for one in alive.tensors.values()]
        densities = erk_densities(shapes, keep) if scope == "erk" else [keep] * len(shapes)
        wanted = [share * one.numel() for share, one in zip(densities, held, strict=True)]
        counts = _whole(wanted, count, least, living)
        chosen = [_top(*parts) for parts in zip(flat, held, counts, strict=True)]
    kept = {name: one.reshape(alive.tensors[name].shape) for name, one in zip(alive.tensors, chosen, strict=True)}
    mask = Mask(kept, alive.provenance)
    if mask.collapsed():
        raise PruneError(
            f"nothing would be left of {', '.join(mask.collapsed())} at {keep:.3%}; keep more, prune in more steps, "
            "or give a floor of at least 1 weight"
        )
    return mask


def _flat(scores: Mapping[str, Tensor], alive: Mask) -> list[Tensor]:
    flat = []
    for name, held in alive.tensors.items():
        score = scores.get(name)
        if score is None or score.shape != held.shape:
            shown = "missing" if score is None else str(list(score.shape))
            raise PruneError(f"the scores of {name} are {shown}; give one for each of its weights, {list(held.shape)}")
        if not bool(torch.isfinite(score).all()):
            bad = int((~torch.isfinite(score)).sum())
            raise PruneError(
                f"{bad} of {score.numel()} scores of {name} are not finite; check its weights and the data, or use a "
                "smaller learning rate in the warm-up"
            )
        flat.append(score.detach().to(held.device).reshape(-1))
    return flat


def _top(values: Tensor, alive: Tensor, count: int) -> Tensor:
    """bool [n]: the `count` highest of `values` [n] among those `alive` [n]; of equal ones the first."""
    chosen = torch.zeros_like(alive)
    if count == 0:
        return chosen
    living = values[alive]
    threshold = torch.kthvalue(living, len(living) - count + 1).values
    kept = living > threshold
    kept[(living == threshold).nonzero()[:, 0][: count - int(kept.sum())]] = True
    chosen[alive] = kept
    return chosen


def _top_with_floor(flat: list[Tensor], held: list[Tensor], count: int, least: list[int]) -> list[Tensor]:
    sizes = [len(one) for one in held]
    device = held[0].device
    reserved = torch.cat([_top(*parts).to(device) for parts in zip(flat, held, least, strict=True)])
    # A common dtype that holds every score exactly: SynFlow's are float64.
    dtype = torch.float64 if any(one.dtype == torch.float64 for one in flat) else torch.float32
    values = torch.cat([one.to(device, dtype) for one in flat])
    alive = torch.cat([one.to(device) for one in held])
    chosen = reserved | _top(values, alive & ~reserved, count - int(reserved.sum()))
    return [one.to(was.device) for one, was in zip(torch.split(chosen, sizes), held, strict=True)]


def _whole(wanted: list[float], total: int, least: list[int], most: list[int]) -> list[int]:
    """Whole numbers near `wanted` that sum to `total`, within their bounds: largest remainders first."""
    counts = [min(max(math.floor(value), low), high) for value, low, high in zip(wanted, least, most, strict=True)]
    while (missing := total - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i, one in enumerate(counts) if (one < most[i] if step > 0 else one > least[i])]
        free.sort(key=lambda i: (step * (counts[i] - wanted[i]), i))
        for index in free[: abs(missing)]:
            counts[index] += step
    return counts
