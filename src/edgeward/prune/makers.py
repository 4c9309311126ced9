"""How a network loses a share of itself: the options, and one maker for each way.

    maker = maker_of(dense, example, ShrinkOptions(method="snip"), Sets(train, test))
    maker.candidate(0.5)                      # quickly
    maker.finished(0.5)                       # the same, tuned

`structure` "channels" removes whole channels by the summed scores of their weights; "weights" masks single weights,
trains with the mask, and converts exactly what that leaves empty (see `edgeward.prune.exact`). The method "reconvene"
chooses layers by their sparsity at initialisation instead, and re-initialises them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from edgeward.errors import ConfigError, PruneError, nearest
from edgeward.prune.channels import Channels
from edgeward.prune.criteria import CRITERIA, Random, parse_criterion
from edgeward.prune.cutting import Removed
from edgeward.prune.data import sample
from edgeward.prune.exact import Converted, convert
from edgeward.prune.mask import Mask
from edgeward.prune.narrow import narrow, rank, widths_at
from edgeward.prune.reconvene import ReconveneOptions, reconvene
from edgeward.prune.scope import prunable, select
from edgeward.prune.sites import Here, Site
from edgeward.prune.training import Progress, TrainOptions, train
from edgeward.vision.labelled import Labelled
from edgeward.zoo.pruned import Edits

__all__ = ["RECONVENE", "STRUCTURES", "Maker", "Sets", "ShrinkOptions", "maker_of", "methods"]

STRUCTURES = ("channels", "weights")
RECONVENE = "reconvene"


def methods() -> tuple[str, ...]:
    """Names that `ShrinkOptions.method` takes; those of criteria may have a reading, such as "drive:d1"."""
    return (*sorted(CRITERIA), RECONVENE)


@dataclass(frozen=True)
class Sets:
    """Pictures to score and tune with, and to judge with."""

    train: Labelled
    test: Labelled


@dataclass(frozen=True)
class ShrinkOptions:
    """How to shrink.

    method: see `methods`. allocation: how layers share the loss; see `edgeward.prune.narrow`. multiple: what large
    widths are rounded to. samples: pictures scored. rounds: of each timing; finally four times as many. tuning: epochs
    afterwards. sites: where latencies are measured, by the name in the goal.
    """

    method: str = "magnitude"
    structure: str = "channels"
    allocation: str = "lean"
    multiple: int = 8
    samples: int = 512
    rounds: int = 9
    seed: int = 0
    tuning: TrainOptions = field(default_factory=lambda: TrainOptions(epochs=0, learning_rate=0.01, augment=True))
    sites: Mapping[str, Site] = field(default_factory=lambda: {"": Here()})
    progress: Progress = lambda done, total, text: None

    def __post_init__(self) -> None:
        name = self.method.split(":")[0]
        if name not in methods():
            raise ConfigError(f"method {self.method!r} is unknown; {nearest(name, methods())}")
        if self.structure not in STRUCTURES:
            raise ConfigError(f"structure {self.structure!r} is unknown; choose one of {', '.join(STRUCTURES)}")
        for what, low, high in (("multiple", 1, 256), ("samples", 2, 1 << 20), ("rounds", 3, 1000)):
            if not low <= getattr(self, what) <= high:
                raise ConfigError(f"{what} is {getattr(self, what)}; choose from {low} to {high}")
        if self.method == RECONVENE and self.structure == "weights":
            raise ConfigError("reconvene removes filters; leave the structure at channels")


class Maker(ABC):
    """Makes the network without a share of itself: `candidate` quickly, `finished` with tuning."""

    most = 0.99

    def __init__(self, dense: nn.Module, example: Tensor, options: ShrinkOptions, sets: Sets | None) -> None:
        self.dense, self.example, self.options, self.sets = dense, example, options, sets
        self.notes: list[str] = []
        self.tuning = replace(options.tuning, progress=options.progress)

    @abstractmethod
    def candidate(self, share: float) -> Removed:
        """The network without this share."""

    def finished(self, share: float) -> Removed:
        """The same, tuned."""
        removed = self.candidate(share)
        if self.sets is not None and self.tuning.epochs:
            train(removed.module, self.sets.train, self.tuning)
        return removed

    def scores(self) -> Mapping[str, Tensor]:
        """Of the dense network's weights, by the method."""
        method, seed = self.options.method, self.options.seed
        criterion = Random(seed) if method == "random" else parse_criterion(method)
        batches = () if self.sets is None else sample(self.sets.train, self.options.samples, 128, self.options.seed)
        # Criteria without data only look at the shape of an input.
        given = batches if criterion.passes else ((self.example, torch.zeros(1, dtype=torch.int64)),)
        return criterion.score(self.dense, given, Mask.ones(self.dense, prunable(self.dense)))


class _ByChannels(Maker):
    def __init__(self, dense: nn.Module, example: Tensor, options: ShrinkOptions, sets: Sets | None) -> None:
        super().__init__(dense, example, options, sets)
        # Slopes of the loss compare between layers, magnitudes do not.
        relative = not parse_criterion(options.method).passes
        self.ranking = rank(dense, example, Channels.of(dense, example), self.scores(), relative=relative)

    def candidate(self, share: float) -> Removed:
        widths = widths_at(self.ranking, share, self.options.allocation, multiple=self.options.multiple, most=self.most)
        return narrow(self.dense, self.ranking, widths)


class _ByWeights(Maker):
    most = 0.9995

    def __init__(self, dense: nn.Module, example: Tensor, options: ShrinkOptions, sets: Sets | None) -> None:
        super().__init__(dense, example, options, sets)
        self.all = Mask.ones(dense, prunable(dense))
        self.weighed = self.scores()

    def candidate(self, share: float) -> Removed:
        converted = self._converted(self._masked(share))
        return Removed(converted.module, converted.edits)

    def finished(self, share: float) -> Removed:
        masked = self._masked(share)
        if self.sets is not None and self.tuning.epochs:
            train(masked, self.sets.train, self.tuning, self._mask(share))
        converted = self._converted(masked)
        if not converted.difference.exact:
            raise PruneError(f"the conversion is not exact: {converted.difference}; take --structure channels")
        self.notes += [f"{share:.2%} of the weights are zero; conversion: {converted.difference}", *converted.notes]
        return Removed(converted.module, converted.edits)

    def _mask(self, share: float) -> Mask:
        return select(self.weighed, self.all, 1 - share, floor=1) if share else self.all

    def _masked(self, share: float) -> nn.Module:
        masked = copy.deepcopy(self.dense)
        self._mask(share).apply_(masked)
        return masked

    def _converted(self, masked: nn.Module) -> Converted:
        return convert(masked, self.example)


class _ByReconvene(Maker):
    most = 0.9999

    def candidate(self, share: float) -> Removed:
        if not share:
            return Removed(copy.deepcopy(self.dense), Edits())
        options = ReconveneOptions(keep=1 - share, multiple=self.options.multiple, seed=self.options.seed)
        made = reconvene(self.dense, self.example, options)
        self.notes = [f"{len(made.resilient)} resilient layers narrowed and re-initialised: train it now", *made.notes]
        return Removed(made.module, made.edits)


_MAKERS: Mapping[str, type[Maker]] = {"channels": _ByChannels, "weights": _ByWeights, RECONVENE: _ByReconvene}


def maker_of(dense: nn.Module, example: Tensor, options: ShrinkOptions, sets: Sets | None) -> Maker:
    """The maker that the options' method and structure ask for."""
    return _MAKERS[RECONVENE if options.method == RECONVENE else options.structure](dense, example, options, sets)
