"""Beside Torch-Pruning at equal parameters: latency on ONNX Runtime, the two networks timed in one run."""

from __future__ import annotations

import copy
import statistics
import time
import types
import warnings
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from harness import row
from torch import Tensor, nn
from torch.nn import functional

from edgeward.graph.onnx import export_module
from edgeward.prune.channels import Channels
from edgeward.prune.criteria import parse_criterion
from edgeward.prune.cutting import Removed
from edgeward.prune.figures import figures_of
from edgeward.prune.goal import Goal
from edgeward.prune.latency import measure
from edgeward.prune.narrow import ALLOCATIONS, narrow, rank, widths_at
from edgeward.prune.search import Search, search
from edgeward.prune.training import TrainOptions, train
from edgeward.vision.classification import accuracy
from edgeward.vision.labelled import Labelled, load_labelled
from edgeward.zoo.pretrained import load_pretrained
from edgeward.zoo.reference import build
from edgeward.zoo.vit import Attention

Rows = list[dict[str, Any]]
NETWORKS = ("resnet18", "resnet50", "vgg16", "mobilenet-v2", "vit-tiny")
RATIO = 0.5
"""Share of the channels of every layer that Torch-Pruning is told to remove."""


def rivals(full: bool) -> Rows:
    """Per network the ratio of latencies at equal parameters, surgery seconds, and what had to be told by hand."""
    torch.set_num_threads(1)
    rows = []
    for name in NETWORKS if full else ("resnet18", "vit-tiny"):
        rows += beside(name, 24 if full else 6)
    return rows


def beside(name: str, rounds: int) -> Rows:
    example = torch.zeros(1, 3, 224, 224)
    dense = build(name).eval()
    theirs = torch_pruned(build(name).eval(), example)
    budget = sum(one.numel() for one in theirs.parameters())
    begun = time.perf_counter()
    ours = within(dense, example, budget)
    spent = time.perf_counter() - begun
    count = sum(one.numel() for one in ours.module.parameters())
    networks = {"theirs": theirs, "ours": ours.module, "dense": dense}
    timing = measure({key: export_module(one, example) for key, one in networks.items()}, example.shape, rounds=rounds)
    faster = timing.speedup("theirs", "ours")
    macs = {key: figures_of(one, example).macs for key, one in networks.items()}
    where = f"{name} at 224 x 224, ONNX Runtime, batch 1, magnitudes, random weights, no training"
    note = (
        f"dense {ms(timing, 'dense')}, theirs {ms(timing, 'theirs')}, ours {ms(timing, 'ours')}; MACs theirs "
        f"{macs['theirs'] / macs['dense']:.3f}x, ours {macs['ours'] / macs['dense']:.3f}x; noise {faster.noise:.3f}x"
        + (
            "; num_heads and an attention written with unbind given to Torch-Pruning by hand, ours finds the heads"
            if name.startswith("vit")
            else ""
        )
    )
    return [
        row(f"rival.{name}.latency", f"latency pruned by Torch-Pruning (half of every layer's channels) / by us at no more parameters: {where}",
            baseline="Torch-Pruning 1.6", ours=faster.ratio, spread=[faster.low, faster.high], unit="x", bar=">= 1", note=note),
        row(f"rival.{name}.parameters", "our parameters / theirs", baseline="Torch-Pruning 1.6", ours=count / budget, unit="x", bar="<= 1"),
        row(f"rival.{name}.search_seconds", "seconds of our search for these widths, groups, scores and about ten trial networks included", baseline="none", ours=spent, unit="s"),
    ]  # fmt: skip


def within(model: nn.Module, example: Tensor, budget: int, allocation: str = "lean") -> Removed:
    """Our network of at most so many parameters."""
    batch = (example, torch.zeros(1, dtype=torch.int64))
    scores = parse_criterion("magnitude").score(model, (batch,))
    ranking = rank(model, example, Channels.of(model, example), scores, relative=True)

    def candidate(share: float) -> Removed:
        return narrow(model, ranking, widths_at(ranking, share, allocation))

    goal = Goal("params", float(budget))
    return search(candidate, [goal], (model, example), lambda one, site: 0.0, Search(steps=14, close=0.002)).removed


def torch_pruned(model: nn.Module, example: Tensor) -> nn.Module:
    """Half of the channels of every layer by group magnitude, as its documentation recommends."""
    last = [one for one in model.modules() if isinstance(one, nn.Linear)][-1]
    blocks = [one for one in model.modules() if isinstance(one, Attention)]
    for block in blocks:  # its graph follows `unbind`, not the indices that ours is written with
        block.forward = types.MethodType(unbound, block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            ignored_layers=[last],
            num_heads={block.qkv: block.num_heads for block in blocks},
            round_to=8,
        )
        pruner.step()
    for block in blocks:
        block.num_heads = pruner.num_heads[block.qkv]
    return model.eval()


def unbound(self: Attention, x: Tensor) -> Tensor:
    count, tokens = x.shape[:2]
    parts = self.qkv(x).reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(*parts)
    return self.project(mixed.transpose(1, 2).reshape(count, tokens, -1))


def accuracies(full: bool, shared: Path | None) -> Rows:
    """What our allocations cost a trained network at a quarter of its parameters, all tuned alike."""
    if shared is None or not full:
        note = "needs the pictures and the full run"
        return [row("rival.accuracy", "see the full run", baseline="uniform", ours=None, unit="points", note=note)]
    folder, example = shared / "cifar10", torch.zeros(1, 3, 32, 32)
    learn, test = (load_labelled(folder / f"cifar10_jpeg_{part}.npz") for part in ("train5k", "test1k"))
    network = build("cifar-resnet20").eval()
    load_pretrained(network, folder / "resnet20-12fca82f.th")
    dense = figures_of(network, example)
    made = {kind: within(network, example, dense.parameters // 4, kind).module for kind in ALLOCATIONS}
    scores = {kind: [tuned(module, learn, test, seed) for seed in range(3)] for kind, module in made.items()}
    told = ", ".join(f"{kind} {100 * statistics.mean(values):.1f} %" for kind, values in scores.items())
    return [
        *(
            row(f"allocation.{kind}.points", f"points of accuracy above the uniform allocation, by allocation {kind}, at a quarter of the parameters: ResNet-20, CIFAR-10 (JPEG q75), two epochs of tuning on 5,000 pictures, 1,000 test pictures, mean of 3 seeds",
                baseline=f"uniform, {100 * statistics.mean(scores['uniform']):.1f} %", ours=100 * (statistics.mean(scores[kind]) - statistics.mean(scores["uniform"])), unit="points",
                spread=[100 * (one - statistics.mean(scores["uniform"])) for one in (min(scores[kind]), max(scores[kind]))],
                note=f"{told}; {figures_of(made[kind], example).macs / dense.macs:.3f} of the MACs")
            for kind in ("lean", "global")
        ),
        row("rival.runs", "whether Torch-Pruning's ResNet-20 with parameterless shortcuts (channels padded with zeros, as published) runs at all; ours does",
            baseline="ours, 1", ours=float(runs(torch_pruned(copy.deepcopy(network), example), example)), unit="of 1"),
    ]  # fmt: skip


def runs(module: nn.Module, example: Tensor) -> bool:
    try:
        module(example)
    except RuntimeError:
        return False
    return True


def tuned(module: nn.Module, learn: Labelled, test: Labelled, seed: int) -> float:
    own = copy.deepcopy(module)
    train(own, learn, TrainOptions(epochs=2, learning_rate=0.02, weight_decay=1e-4, augment=True, seed=seed))
    return accuracy(own, test)


def ms(timing: Any, name: str) -> str:
    return f"{1000 * statistics.median(timing.seconds[name]):.2f} ms"
