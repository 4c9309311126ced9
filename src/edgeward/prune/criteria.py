"""What a weight is worth: pruning criteria, each one method that gives every weight a score, higher is kept.

    criterion = parse_criterion("drive:d5")
    scores = criterion.score(model, [(inputs, labels)])         # {"fc1.weight": [out, in], ...}

`CRITERIA` lists their names. DRIVE (arXiv 2404.03687) does not publish its score: d1 to d5 are readings of its text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.data import Batch, checked_batches, cross_entropy
from edgeward.prune.mask import Mask
from edgeward.prune.saliency import Loss, masked_weights, slopes
from edgeward.prune.scope import prunable
from edgeward.prune.synflow import flow

__all__ = ["CRITERIA", "Criterion", "Drive", "Grasp", "Magnitude", "Random", "Snip", "SynFlow", "parse_criterion"]

Scores = dict[str, Tensor]


class Criterion(ABC):
    """Scores weights.

    name: as `parse_criterion` knows it. passes: forward and backward passes for each example scored, a product with the
    Hessian counted as two; 0 where examples do not matter (SynFlow scores one input of ones).
    """

    name = ""
    passes = 0

    def score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask | None = None) -> Scores:
        """A score, float of the weight's shape, for each weight of the mask, computed with the mask applied.

        mask: which parameters, and what of them is alive; without one, all that `prunable` names. The model's weights,
        gradients, buffers, modes and the random state are as before. Raises PruneError for data that is empty or does
        not fit the network.
        """
        return self._score(model, batches, mask or Mask.ones(model, prunable(model)))

    @abstractmethod
    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        """The scores, with batches that need not be checked yet."""


@dataclass(frozen=True)
class Magnitude(Criterion):
    """abs(w)."""

    name = "magnitude"

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        return {name: one.abs() for name, one in masked_weights(model, mask).items()}


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random numbers, the same at each call."""

    seed: int = 0
    name = "random"

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        # Float64: with float32 a large network would have ties, which go to its first layers.
        return {
            name: torch.rand(one.shape, generator=generator, dtype=torch.float64).to(one.device)
            for name, one in mask.tensors.items()
        }


@dataclass(frozen=True)
class Snip(Criterion):
    """abs(w g): connection sensitivity (Lee et al., arXiv 1810.02340, section 4)."""

    loss: Loss = field(default=cross_entropy, compare=False)
    name = "snip"
    passes = 1

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        found = slopes(model, batches, mask, loss=self.loss)
        # Double holds a product of two float32 exactly, so that no ties arise by rounding.
        return {name: (one.double() * found.gradient[name].double()).abs() for name, one in found.weights.items()}


@dataclass(frozen=True)
class Grasp(Criterion):
    """w (H g): half of what the squared norm of the gradient loses, to first order, without the weight.

    The paper (Wang et al., arXiv 2002.07376, section 4) scores -w (H g) and keeps the lowest, which is the same.
    absolute: its absolute value. temperature: of the softmax, the paper's.
    """

    absolute: bool = False
    temperature: float = 200.0
    loss: Loss = field(default=cross_entropy, compare=False)
    passes = 3

    @property
    def name(self) -> str:  # type: ignore[override]
        """As `parse_criterion` knows it."""
        return "grasp-abs" if self.absolute else "grasp"

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        found = slopes(model, batches, mask, curvature=True, temperature=self.temperature, loss=self.loss)
        scores = {name: one * found.curvature[name] for name, one in found.weights.items()}
        return {name: one.abs() for name, one in scores.items()} if self.absolute else scores


@dataclass(frozen=True)
class SynFlow(Criterion):
    """abs(w dR/dw) of the network with absolute weights and an input of ones; see `prune.synflow`."""

    name = "synflow"

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        return flow(model, checked_batches(batches)[0][0][:1], mask)


READINGS = ("d1", "d2", "d3", "d4", "d5")


@dataclass(frozen=True)
class Drive(Criterion):
    """DRIVE: L1 norm, connection sensitivity abs(w g) and convergence sensitivity, each divided by its sum.

    With n() that division, over all weights of the mask that are alive:

        d1   n(abs(w)) + n(abs(w g)) + n(abs(g))            the literal "dual gradient"
        d2   n(abs(w)) n(abs(w g)) n(abs(g))                equals (w g)^2: ranks as SNIP does
        d3   n(abs(w)) + n(abs(w g)) + n(abs(w (H g)))      the last as in GraSP
        d4   n(abs(w)) n(abs(w g)) n(abs(w (H g)))
        d5   n(abs(w)) (n(abs(w g)) + weight n(abs(g)))     default: needs no second derivatives

    Raises PruneError for an unknown reading or a negative weight.
    """

    reading: str = "d5"
    weight: float = 1.0
    loss: Loss = field(default=cross_entropy, compare=False)

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise PruneError(f"DRIVE has no reading {self.reading!r}; {nearest(self.reading, READINGS)}")
        if not 0 <= self.weight <= 1e6:
            raise PruneError(f"the weight of the convergence term is {self.weight}; choose from 0 to 1000000")

    @property
    def name(self) -> str:  # type: ignore[override]
        """As `parse_criterion` knows it."""
        return f"drive:{self.reading}"

    @property
    def passes(self) -> int:  # type: ignore[override]
        """One, or three with the Hessian's product."""
        return 3 if self.reading in ("d3", "d4") else 1

    def _score(self, model: nn.Module, batches: Iterable[Batch], mask: Mask) -> Scores:
        found = slopes(model, batches, mask, curvature=self.passes > 1, loss=self.loss)

        def terms(name: str) -> tuple[Tensor, Tensor, Tensor]:
            # In double, lest products of shares underflow; of one layer at a time, to save memory.
            weight, gradient = found.weights[name].double(), found.gradient[name].double()
            third = weight * found.curvature[name] if found.curvature else gradient
            return weight.abs(), (weight * gradient).abs_(), third.abs()

        sums = [0.0, 0.0, 0.0]
        for name in mask.tensors:
            sums = [total + float(term.sum()) for total, term in zip(sums, terms(name), strict=True)]
        combine = _COMBINATIONS[self.reading]
        scores = {}
        for name in mask.tensors:
            size, connection, convergence = terms(name)
            for term, total in zip((size, connection, convergence), sums, strict=True):
                term.div_(total or 1)
            scores[name] = combine(size, connection, convergence, self.weight)
        return scores


_COMBINATIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {
        "d1": lambda size, connection, convergence, weight: size + connection + weight * convergence,
        "d2": lambda size, connection, convergence, weight: size * connection * convergence,
        "d3": lambda size, connection, convergence, weight: size + connection + weight * convergence,
        "d4": lambda size, connection, convergence, weight: size * connection * convergence,
        "d5": lambda size, connection, convergence, weight: size * (connection + weight * convergence),
    }
)


CRITERIA: Mapping[str, Callable[[], Criterion]] = MappingProxyType(
    {
        "magnitude": Magnitude,
        "random": Random,
        "snip": Snip,
        "grasp": Grasp,
        "grasp-abs": partial(Grasp, absolute=True),
        "synflow": SynFlow,
        "drive": Drive,
        **{f"drive:{reading}": partial(Drive, reading) for reading in READINGS},
    }
)


def parse_criterion(text: str) -> Criterion:
    """The criterion of that name; "drive" is "drive:d5". Raises PruneError for another."""
    if text not in CRITERIA:
        raise PruneError(f"there is no criterion {text!r}; {nearest(text, CRITERIA)}")
    return CRITERIA[text]()
