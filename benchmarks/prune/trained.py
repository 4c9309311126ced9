"""Portfolios of a trained network on real pictures: what every variant costs and keeps, and how long it took to make."""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import row

from edgeward.profile.variant import Portfolio, load_portfolio
from edgeward.prune.campaign import CampaignOptions, campaign
from edgeward.prune.exact import convert
from edgeward.prune.makers import Sets
from edgeward.prune.mask import Mask
from edgeward.prune.scope import prunable, select
from edgeward.prune.training import TrainOptions, train
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.network import Network, open_network
from edgeward.zoo.pretrained import load_pretrained

Rows = list[dict[str, Any]]
ANEW = 20
"""Epochs that a network trained anew is given here; the recipes of the literature take 160 and more."""
CAMPAIGNS = {"weights": (0.3, 0.1, 0.05), "channels": (0.75, 0.5, 0.35)}


def portfolio(full: bool, shared: Path | None) -> Rows:
    """Two campaigns from the published ResNet-20, and the seconds of a variant against training it anew."""
    if shared is None or not full:
        note = "needs the pictures and the full run"
        return [row("portfolio.accuracy", "see the full run", baseline="dense", ours=None, unit="points", note=note)]
    torch.set_num_threads(1)
    folder = shared / "cifar10"
    network = open_network("cifar-resnet20")
    load_pretrained(network.module, folder / "resnet20-12fca82f.th")
    sets = Sets(*(load_labelled(folder / f"cifar10_jpeg_{part}.npz") for part in ("train5k", "test1k")))
    rows = []
    for structure, keeps in CAMPAIGNS.items():
        rows += campaigned(network, sets, structure, keeps)
    return [*rows, anew(network, sets)]


def campaigned(network: Network, sets: Sets, structure: str, keeps: tuple[float, ...]) -> Rows:
    options = CampaignOptions(
        keeps, structure, TrainOptions(epochs=1, learning_rate=0.01, weight_decay=1e-4, augment=True), all=True
    )
    example = torch.zeros(1, 3, 32, 32)
    with tempfile.TemporaryDirectory() as name:
        campaign(network, example, sets, options, Path(name))
        made = load_portfolio(Path(name))
    return [line for number in range(1, len(made.variants)) for line in variant_rows(made, number, structure)]


def variant_rows(made: Portfolio, number: int, structure: str) -> Rows:
    dense, one = made.variants[0], made.variants[number]
    assert one.accuracy is not None
    assert dense.accuracy is not None
    share = one.name.rpartition("-")[2]
    where = (
        f"ResNet-20, CIFAR-10 (JPEG q75), {share} of its {structure} kept, one epoch on 5,000 pictures at every level, "
        "1,000 test pictures"
    )
    times = [variant.on("here") for variant in (dense, one)]
    note = f"{one.parameters:,} of {dense.parameters:,} parameters; {one.macs / dense.macs:.2f} of the MACs"
    return [
        row(f"portfolio.{structure}.{share}.points", f"points of accuracy lost: {where}", baseline=f"dense, {100 * dense.accuracy.value:.1f} %",
            ours=100 * (dense.accuracy.value - one.accuracy.value), unit="points", note=f"{note}; standard error {100 * one.accuracy.error:.1f} points"),
        row(f"portfolio.{structure}.{share}.speedup", f"latency of the dense network / of the variant, ONNX Runtime: {where}",
            baseline=f"dense, {1000 * times[0].median:.3g} ms", ours=times[0].median / times[1].median, unit="x"),
    ]  # fmt: skip


def anew(network: Network, sets: Sets) -> dict[str, Any]:
    """Seconds to make a variant from a mask, against those of training the same variant from scratch."""
    masked, example = copy.deepcopy(network.module), torch.zeros(1, 3, 32, 32)
    names = prunable(masked)
    scores = {name: dict(masked.named_parameters())[name].detach().abs() for name in names}
    select(scores, Mask.ones(masked, names), 0.05, floor=1).apply_(masked)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        made = convert(masked, example)
        taken.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    train(made.module, sets.train, TrainOptions(epochs=1, learning_rate=0.1))
    epoch = time.perf_counter() - begun
    return row(
        "portfolio.made_vs_trained_anew",
        f"seconds of {ANEW} epochs of training the variant from scratch on 5,000 pictures (one epoch measured) / of making it from its mask",
        baseline=f"training, {epoch:.1f} s an epoch", ours=ANEW * epoch / min(taken), unit="x", bar=">= 93",
        note=f"making it takes {min(taken):.2f} s; one epoch alone is {epoch / min(taken):.0f} x that. The campaign's own training comes before and is not counted, as in the paper",
    )  # fmt: skip
