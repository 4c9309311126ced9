"""A portfolio from one training campaign: sparse networks at several levels, each converted to a smaller dense one.

    portfolio = campaign(network, example, Sets(train, test), CampaignOptions(keeps=(0.5, 0.1, 0.02)), Path("people"))

After Eccles et al., "DNNShifter", Future Generation Computer Systems 2024 (arXiv 2309.06973): iterative magnitude
pruning with rewinding, then structured conversion without loss, then the variants that no other beats in accuracy,
latency and memory at once. Structure "channels" narrows and tunes instead, which also gains where few weights go.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import ConfigError, PruneError, StoreError
from edgeward.graph.onnx import export_module
from edgeward.profile.variant import (
    PORTFOLIO_FILE,
    Accuracy,
    LatencyFigure,
    Portfolio,
    Variant,
    load_portfolio,
    save_portfolio,
)
from edgeward.prune.channels import Channels
from edgeward.prune.checkpoint import state_of
from edgeward.prune.criteria import Magnitude
from edgeward.prune.exact import convert
from edgeward.prune.figures import figures_of
from edgeward.prune.imp import ImpOptions, imp
from edgeward.prune.latency import measure
from edgeward.prune.makers import STRUCTURES, Sets
from edgeward.prune.mask import Mask
from edgeward.prune.narrow import narrow, rank, widths_at
from edgeward.prune.portfolio import pareto
from edgeward.prune.scope import prunable
from edgeward.prune.training import Progress, TrainOptions, train
from edgeward.vision.classification import correct
from edgeward.zoo.artefact import Extras, check_place, save_network
from edgeward.zoo.network import Network
from edgeward.zoo.pruned import Edits

__all__ = ["CampaignOptions", "Made", "campaign"]

DEVICE = "here"
"""What this machine's latencies are called in a portfolio."""


@dataclass(frozen=True)
class CampaignOptions:
    """What to make.

    keeps: falling shares of what is pruned (weights, or channels) that stay. train: of every level; of a network that
    is trained already, tuning. rewind: the step that weights go back to. rounds: of the timing of all together.
    all: also variants that others beat. work: folder for what an interrupted campaign goes on from.
    """

    keeps: tuple[float, ...] = (0.5, 0.25, 0.1, 0.05, 0.02)
    structure: str = "weights"
    train: TrainOptions = field(default_factory=lambda: TrainOptions(augment=True))
    rewind: int = 0
    rounds: int = 30
    all: bool = False
    work: Path | None = field(default=None, compare=False)
    progress: Progress = field(default=lambda done, total, text: None, compare=False)

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES:
            raise ConfigError(f"structure {self.structure!r} is unknown; choose one of {', '.join(STRUCTURES)}")
        if not 3 <= self.rounds <= 1000:
            raise ConfigError(f"rounds is {self.rounds}; choose from 3 to 1000")
        falling = all(after < before for before, after in zip(self.keeps, self.keeps[1:], strict=False))
        if not self.keeps or not falling or not 0 < self.keeps[-1] <= self.keeps[0] < 1:
            raise ConfigError(
                f"levels keep {list(self.keeps)}; give falling shares between 0 and 1, such as 0.5,0.1,0.02"
            )


@dataclass(frozen=True)
class Made:
    """One variant before it is measured. keep: the share of its level. edits: against the dense network."""

    name: str
    keep: float
    module: nn.Module
    edits: Edits
    notes: tuple[str, ...] = ()


def campaign(network: Network, example: Tensor, sets: Sets, options: CampaignOptions, folder: Path) -> Portfolio:
    """Train, convert, measure and write a portfolio; the network's own weights are where training begins.

    example: one input, batch of 1. Raises PruneError when a level cannot be made or a conversion is not exact,
    StoreError when the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; choose another place for the portfolio")
    check_place(folder / _name(network, 1.0))
    earlier = load_portfolio(folder) if (folder / PORTFOLIO_FILE).exists() else None
    make = _by_weights if options.structure == "weights" else _by_channels
    found = list(make(network, example, sets, options))
    exported = {one.name: export_module(one.module, example) for one in found}
    timing = measure(exported, example.shape, rounds=options.rounds)
    measured = {}
    for one in found:
        variant, report = _measured(one, example, sets, options.structure, timing.figure(one.name))
        if one is not found[0]:
            report["speedup"] = str(timing.speedup(found[0].name, one.name))
        measured[one.name] = (one, variant, report)
    variants = [variant for _, variant, _ in measured.values()]
    kept = tuple(variants) if options.all else pareto(variants, DEVICE)
    for variant in kept:
        one, _, report = measured[variant.name]
        _save(network, example, folder / one.name, one, exported[one.name], report)
    portfolio = Portfolio(model=network.name, variants=kept)
    save_portfolio(portfolio, folder)
    for gone in {each.folder for each in earlier.variants} - {each.folder for each in kept} if earlier else ():
        shutil.rmtree(folder / gone, ignore_errors=True)  # of the portfolio that this one replaces
    return portfolio


def _by_weights(network: Network, example: Tensor, sets: Sets, options: CampaignOptions) -> Iterator[Made]:
    model = copy.deepcopy(network.module)
    levels = imp(
        model,
        sets.train,
        ImpOptions(
            options.keeps, options.train, options.rewind, floor=1, checkpoint=options.work, progress=options.progress
        ),
    )
    for level in levels:
        with torch.no_grad():
            for name, tensor in state_of(model).items():
                tensor.copy_(level.weights[name])
        level.mask.apply_(model)
        converted = convert(model.eval(), example)
        if not converted.difference.exact:
            raise PruneError(f"the variant that keeps {level.keep:g} is not exact: {converted.difference}")
        notes = (f"conversion: {converted.difference}", *converted.notes)
        yield Made(_name(network, level.keep), level.keep, converted.module, converted.edits, notes)


def _by_channels(network: Network, example: Tensor, sets: Sets, options: CampaignOptions) -> Iterator[Made]:
    dense = copy.deepcopy(network.module)
    train(dense, sets.train, _work(options, 1.0), held=None)
    yield Made(_name(network, 1.0), 1.0, dense, Edits())
    names = prunable(dense)
    scores = Magnitude().score(dense, (), Mask.ones(dense, names))
    ranking = rank(dense, example, Channels.of(dense, example), scores, relative=True)
    for keep in options.keeps:
        removed = narrow(dense, ranking, widths_at(ranking, 1 - keep))
        train(removed.module, sets.train, _work(options, keep))
        yield Made(_name(network, keep), keep, removed.module, removed.edits)


def _work(options: CampaignOptions, keep: float) -> TrainOptions:
    def tell(done: int, total: int, text: str) -> None:
        options.progress(done, total, f"keep {keep:g}: {text}")

    path = None
    if options.work is not None:
        path = options.work / f"keep-{keep:g}.safetensors"
    return replace(options.train, checkpoint=path, progress=tell)


def _name(network: Network, keep: float) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in network.name)[:48]
    return f"{plain}-{keep:g}"


def _measured(
    one: Made, example: Tensor, sets: Sets, structure: str, figure: LatencyFigure
) -> tuple[Variant, dict[str, Any]]:
    figures = figures_of(one.module, example)
    right = correct(one.module, sets.test).double()
    error = float(right.std()) / math.sqrt(len(right)) if len(right) > 1 else 1.0
    variant = Variant(
        name=one.name,
        folder=one.name,
        method="imp, exact conversion" if structure == "weights" else "magnitude, channels",
        parameters=figures.parameters,
        macs=figures.macs,
        bytes=figures.size,
        peak_bytes=figures.memory,
        latency={DEVICE: figure},
        accuracy=Accuracy(value=float(right.mean()), error=error, data=f"{len(right)} test pictures"),
        sparsity=1 - one.keep if structure == "weights" else None,
    )
    return variant, {"variant": variant.model_dump(), "notes": list(one.notes)}


def _save(
    network: Network, example: Tensor, folder: Path, one: Made, exported: bytes, report: Mapping[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as work:
        onnx = Path(work) / "model.onnx"
        onnx.write_bytes(exported)
        small = replace(network, module=one.module, sample_shape=tuple(example.shape[1:]))
        with torch.no_grad():
            save_network(small, folder, one.edits, Extras(report, onnx))
