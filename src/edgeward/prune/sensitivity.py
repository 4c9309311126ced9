"""Which layers pruning hits hardest, read off each layer's sparsity after all weights were ranked together.

    found = sparsities(model, keep=0.1, criterion=Magnitude())
    resilient(found)                                   # ("conv6", "conv7", ...): sparser than the mean layer
    expected({"conv1": (64, 3, 3, 3), ...}, 0.1, "fan-in").shares    # the same without any weights

Reconvene (CCGrid 2024, arXiv 2404.16877) takes a layer that ends sparser than average for redundant. Its average is
not published; both readings of it are here. At initialisation the magnitudes' sparsities follow from the fans alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.criteria import Criterion
from edgeward.prune.data import Batch
from edgeward.prune.initialisers import check_initialiser, spread_of
from edgeward.prune.mask import Mask
from edgeward.prune.schedule import check_keep
from edgeward.prune.scope import prunable, select

__all__ = ["READINGS", "Sparsities", "convolutions", "expected", "resilient", "sparsities", "threshold"]

READINGS = ("layer-mean", "weighted")
_EQUAL = 1e-9  # shares nearer than this are the same: means of equal numbers round


@dataclass(frozen=True)
class Sparsities:
    """shares: by layer, the share of its weights that is pruned. sizes: how many weights it has.

    Raises PruneError when there is no layer, the two name other layers, or a share is outside 0 to 1.
    """

    shares: Mapping[str, float]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.shares or self.shares.keys() != self.sizes.keys():
            raise PruneError(f"{len(self.shares)} shares and {len(self.sizes)} sizes; give both for the same layers")
        for name, share in self.shares.items():
            if not 0 <= share <= 1 or self.sizes[name] < 1:
                raise PruneError(f"{name} has {self.sizes[name]} weights, {share} of them pruned; give 0 to 1 of some")
        for field in ("shares", "sizes"):
            object.__setattr__(self, field, MappingProxyType(dict(getattr(self, field))))

    @classmethod
    def of(cls, mask: Mask) -> Sparsities:
        """Those of a mask of weights, by layer ("conv1" for "conv1.weight")."""
        densities = mask.densities()
        layers = {name: name.removesuffix(".weight") for name in densities}
        return cls(
            {layers[name]: 1 - density for name, density in densities.items()},
            {layers[name]: one.numel() for name, one in mask.tensors.items()},
        )

    def average(self, reading: str = "layer-mean") -> float:
        """Of the layers, or "weighted" by their sizes: then it is the share pruned of all. Raises PruneError."""
        if reading not in READINGS:
            raise PruneError(f"there is no reading {reading!r} of the average; {nearest(reading, READINGS)}")
        return (
            self.of_group(self.shares) if reading == "weighted" else math.fsum(self.shares.values()) / len(self.sizes)
        )

    def of_group(self, layers: Iterable[str]) -> float:
        """The share that is pruned of these layers' weights together."""
        names = list(layers)
        return math.fsum(self.shares[one] * self.sizes[one] for one in names) / sum(self.sizes[one] for one in names)

    def of_readers(self, layers: Iterable[str]) -> float:
        """The share that is pruned of these layers, on average: 0 of those that were not ranked, and of none."""
        names = list(layers)
        return math.fsum(self.shares.get(one, 0.0) for one in names) / max(len(names), 1)


def convolutions(model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that are ranked unless others are named: all convolutions without groups.

    Raises PruneError when there is none.
    """
    modules = dict(model.named_modules())
    names = []
    for name in prunable(model, keep_last=False):
        layer = modules[name.rpartition(".")[0]]
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == 1:
            names.append(name)
    if not names:
        raise PruneError(f"{type(model).__name__} has no convolution without groups; name the weights to rank")
    return tuple(names)


def sparsities(
    model: nn.Module, keep: float, criterion: Criterion, batches: Iterable[Batch] = (), names: Sequence[str] = ()
) -> Sparsities:
    """Each layer's share of pruned weights when `keep` of all those named are kept, the highest scores anywhere.

    names: weights that are ranked, those of `convolutions` by default. Every layer keeps at least one weight. Raises
    PruneError for a share outside (0, 1), data that does not fit, or scores that are not finite.
    """
    alive = Mask.ones(model, names or convolutions(model))
    return Sparsities.of(select(criterion.score(model, batches, alive), alive, keep, floor=1))


def resilient(found: Sparsities, reading: str = "layer-mean", margin: float = 0.0) -> tuple[str, ...]:
    """Layers at least `margin` sparser than the average; the others are sensitive. Raises PruneError as `average`."""
    bar = found.average(reading) + margin
    return tuple(name for name, share in found.shares.items() if share >= bar - _EQUAL)


def threshold(shapes: Mapping[str, Sequence[int]], keep: float, initialiser: str) -> float:
    """The magnitude that a share `keep` of freshly drawn weights [out, in, ...] of these shapes exceeds.

    Solved for the expectation, by halving. Raises PruneError for a share outside (0, 1) or an unknown initialiser.
    """
    check_keep(keep)
    check_initialiser(initialiser)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    low, high = 0.0, 40 * max(spread_of(shape, initialiser) for shape in shapes.values())
    for _ in range(100):
        middle = (low + high) / 2
        pruned = math.fsum(sizes[name] * _below(middle, shape, initialiser) for name, shape in shapes.items())
        low, high = (middle, high) if pruned < (1 - keep) * sum(sizes.values()) else (low, middle)
    return high


def expected(shapes: Mapping[str, Sequence[int]], keep: float, initialiser: str) -> Sparsities:
    """What `sparsities` gives on average for magnitudes of freshly drawn weights. Raises as `threshold`."""
    limit = threshold(shapes, keep, initialiser)
    shares = {name: _below(limit, shape, initialiser) for name, shape in shapes.items()}
    return Sparsities(shares, {name: math.prod(shape) for name, shape in shapes.items()})


def _below(limit: float, shape: Sequence[int], initialiser: str) -> float:
    spread = spread_of(shape, initialiser)
    return min(1.0, limit / spread) if initialiser == "default" else math.erf(limit / (spread * math.sqrt(2)))
