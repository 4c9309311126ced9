"""A model of the box with several variants, of which one answers at a time.

    served = resolve_portfolio(config.models[0], store, cache, provider="cpu")
    engine = served.open(threads=1)
    engine.attach()                    # the active variant
    engine.switch("people-0.25x")      # while `run` goes on

The entry names a folder with `portfolio.json`; every variant's folder holds its `model.onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import EdgewardError, ModelError
from edgeward.profile.variant import Portfolio, Variant, load_portfolio
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import Engine, ServedModel, StoredModel, resolve_model
from edgeward.serve.state import ModelSpec, VariantSpec
from edgeward.vision.results import FloatArray
from edgeward.weights.handover import Handover
from edgeward.weights.store import WeightStore

__all__ = ["PortfolioEngine", "PortfolioModel", "resolve_portfolio"]


@dataclass(frozen=True)
class PortfolioModel(ServedModel):
    """Variants that answer the same, better or sooner, cheapest first. `tensors`: those of the most accurate."""

    variants: tuple[StoredModel, ...] = field(repr=False)
    costs: tuple[int, ...]

    def open(self, threads: int) -> PortfolioEngine:
        """What runs it, on the most accurate variant until told otherwise."""
        return PortfolioEngine({each.name: each.open(threads) for each in self.variants}, self._example())

    @property
    def spec(self) -> ModelSpec:
        """What the loop needs to know of it."""
        costs = zip(self.variants, self.costs, strict=True)
        variants = tuple(VariantSpec(each.name, dict(each.tensors), cost) for each, cost in costs)
        return ModelSpec(self.name, dict(self.tensors), self.max_batch, variants)

    def _example(self) -> FloatArray:
        return np.zeros((1, *self.card.preprocess.shape), np.float32)


class PortfolioEngine:
    """Engines of the variants. Attaching, switching and detaching are for one thread, `run` for another."""

    def __init__(self, engines: Mapping[str, Engine], example: FloatArray) -> None:
        self._engines = engines
        self._example = example
        self._active = list(engines)[-1]
        self._serving = Handover(engines[self._active])

    @property
    def variants(self) -> tuple[str, ...]:
        """Their names, cheapest first."""
        return tuple(self._engines)

    def attach(self) -> None:
        self._engines[self._active].attach()

    def choose(self, variant: str) -> None:
        """Which variant `attach` brings into memory; while none is."""
        self._active = variant
        self._serving.replace(self._engines[variant])

    def switch(self, variant: str) -> None:
        """Answer with another variant from now on; returns when the one before is out of memory.

        It has run once before it takes over. When it cannot, its error is raised and the old one goes on.
        """
        if variant == self._active:
            return
        engine = self._engines[variant]
        try:
            engine.attach()
            engine.run(self._example)
        except BaseException:
            engine.detach()
            raise
        self._active = variant
        self._serving.replace(engine).drained().detach()

    def run(self, batch: FloatArray) -> Sequence[npt.NDArray[Any]]:
        with self._serving.using() as engine:
            return engine.run(batch)

    def detach(self) -> None:
        self._engines[self._active].detach()

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


def resolve_portfolio(config: ModelConfig, store: WeightStore, cache: Path, provider: str) -> PortfolioModel:
    """Check and pack every variant worth having: those that a cheaper one equals in accuracy are left out.

    Raises ModelError or ConfigError, naming the model, when the portfolio or a variant's file is missing or damaged,
    when a variant was not scored, or when two differ in input or kind of output.
    """
    assert config.portfolio is not None
    try:
        chosen = _worthwhile(load_portfolio(config.portfolio))
    except ModelError as error:
        raise ModelError(f"model {config.name!r}: {error}") from error
    resolved = []
    for variant, _ in chosen:
        folder = config.portfolio if config.portfolio.is_dir() else config.portfolio.parent
        file = folder / variant.folder / "model.onnx"
        entry = config.model_copy(update={"portfolio": None, "file": file})
        try:
            stored = resolve_model(entry, store, cache, provider)
        except EdgewardError as error:
            raise type(error)(f"variant {variant.name!r} of {error}") from error
        resolved.append(StoredModel(variant.name, stored.card, stored.max_batch, stored.tensors, stored.packed, store))
    best = resolved[-1]
    other = next((each for each in resolved if each.card != best.card), None)
    if other is not None:
        raise ModelError(
            f"model {config.name!r}: variants {other.name!r} and {best.name!r} differ in input or output; "
            "a portfolio holds variants of one network"
        )
    batch = min(each.max_batch for each in resolved)
    costs = tuple(cost for _, cost in chosen)
    return PortfolioModel(config.name, best.card, batch, best.tensors, tuple(resolved), costs)


def _worthwhile(portfolio: Portfolio) -> list[tuple[Variant, int]]:
    """Variants with their relative cost, cheapest first, each more accurate than the one before.

    The cost is the median latency on the first device that all were measured on, else the multiply-accumulates.
    """
    first = portfolio.variants[0]
    shared = [name for name in first.latency if all(name in each.latency for each in portfolio.variants)]
    costs = {
        each.name: max(round(1e9 * each.latency[shared[0]].median) if shared else each.macs, 1)
        for each in portfolio.variants
    }
    found: list[tuple[Variant, int]] = []
    for variant in sorted(portfolio.variants, key=lambda each: (costs[each.name], -_accuracy(each))):
        if not found or _accuracy(variant) > _accuracy(found[-1][0]):
            found.append((variant, costs[variant.name]))
    return found


def _accuracy(variant: Variant) -> float:
    if variant.accuracy is None:
        raise ModelError(f"variant {variant.name!r} has no accuracy; score it on data before serving it by choice")
    return variant.accuracy.value
