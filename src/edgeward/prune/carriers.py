"""Which channels stay so that others, constant ones, can go: they carry the others' constants across zero padding.

    carriers = choose(flow)            # {layer: label}
    kept = flow.kept(flow.needs(carriers))

A zero-padded convolution sees less of a constant at the border, which no bias can say. One channel among its inputs
that is itself constant can: its kernel takes in all the others', in proportion. Residual sums couple the inputs of
many convolutions; the fewest channels that serve all of them are a set cover, found greedily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from edgeward.prune.flow import Flow, Layer

__all__ = ["choose", "column"]

# A constant that is small beside those it stands for is known less well than they: it may be a difference of large
# numbers, and its error would grow with the ratio.
_LEAST = 0.05


def choose(flow: Flow) -> dict[str, int]:
    """By layer, the label of the input that carries the constants which its kernel meets at the border."""
    carriers: dict[str, int] = {}
    while True:
        needs = flow.needs(carriers)
        demands = {
            name: _candidates(flow.layers[name], outer)
            for name, outer in needs.outer.items()
            if name not in carriers and bool(outer.any())
        }
        if not demands:
            return carriers
        carriers |= _cover(demands, flow.kept(needs))


def column(layer: Layer, label: int) -> int:
    """The input with this label whose constant is largest."""
    there = (layer.inputs == label) & ~layer.given.isnan()
    return int((layer.given.abs().nan_to_num() * there).argmax())


def _candidates(layer: Layer, outer: Tensor) -> dict[int, float]:
    """By label, how large its constant is; the largest first."""
    sizes = layer.given.abs().nan_to_num()
    enough = _LEAST * float(sizes[outer].max())
    found: dict[int, float] = {}
    for index in sizes.argsort(descending=True, stable=True).tolist():
        if float(sizes[index]) < enough or float(sizes[index]) == 0:
            break
        found.setdefault(int(layer.inputs[index]), float(sizes[index]))
    return found


def _cover(demands: Mapping[str, Mapping[int, float]], kept: Tensor) -> dict[str, int]:
    """A candidate for each layer: one that stays anyhow, or else as few as a greedy cover and a second look find."""
    chosen = {label for candidates in demands.values() for label in candidates if bool(kept[label])}
    open_ = [candidates for candidates in demands.values() if not chosen & candidates.keys()]
    added: list[int] = []
    while open_:
        # Ties go to the largest constant of the first layer.
        best = max(open_[0], key=lambda label: sum(label in candidates for candidates in open_))
        added.append(best)
        open_ = [candidates for candidates in open_ if best not in candidates]
    for label in list(added):
        others = chosen | {*added} - {label}
        if all(others & candidates.keys() for candidates in demands.values()):
            added.remove(label)
    return {name: _first(candidates, chosen | {*added}) for name, candidates in demands.items()}


def _first(candidates: Mapping[int, float], allowed: set[int] | Sequence[int]) -> int:
    return next(label for label in candidates if label in allowed)
