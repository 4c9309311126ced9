"""Pruning at initialisation, measured small: widths by Reconvene and its rivals, each trained once from scratch.

    measure(Path("out.json"), seeds=3, full=True, shared=None)        # resumes

A VGG of 8 convolutions, widths 16 to 128, on Fashion-MNIST (Debian's dataset-fashion-mnist; else grey CIFAR-10 JPEG)
brought to 16 x 16. The budget of every arm is the number of parameters of the network that Reconvene makes.
"""

from __future__ import annotations

import functools
import json
import random
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import pictures_to_learn, row
from torch import nn

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.criteria import Magnitude, SynFlow
from edgeward.prune.cutting import parameters_without
from edgeward.prune.find import FindOptions, find_mask
from edgeward.prune.initialisers import initialise_
from edgeward.prune.mask import Mask
from edgeward.prune.reconvene import Reconvened, ReconveneOptions, for_target, reconvene
from edgeward.prune.rectify import changed, rectified, worth
from edgeward.prune.sensitivity import convolutions
from edgeward.prune.training import TrainOptions, accuracy_of, train
from edgeward.vision.labelled import Labelled

LEARN, TEST = 2000, 3000
DEGREES = (0.8, 0.9, 0.95)
WIDTHS = (16, 16, 32, 32, 64, 64, 128, 128)
CLAIM = 16.21
FINAL = TrainOptions(epochs=16, learning_rate=0.05)
DATA = f"16 x 16, {LEARN} to learn from, {TEST} to test, {FINAL.epochs} epochs"
EXAMPLE = torch.zeros(1, 1, 16, 16)
DENSE = "dense"
ARMS = {
    "reconvene": "Reconvene",
    "no-reinit": "Reconvene without new weights",
    "magnitude": "the largest magnitudes at initialisation, as many weights",
    "synflow": "SynFlow in 100 steps at initialisation, as many weights",
    "magnitude-degree": "the largest magnitudes at initialisation, at the same degree",
    "uniform": "one factor for all widths, as many parameters",
    "density": "widths as the root of each layer's density, as many parameters",
    "inverted": "Reconvene's shares given to the layers in opposite order, as many parameters",
    "random": "random widths, as many parameters",
}

ABLATION: dict[str, dict[str, Any]] = {
    "layer": {"ratio": "layer"},
    "weighted": {"reading": "weighted"},
    "mean": {"ratio": "mean"},
    "weighted-mean": {"reading": "weighted", "ratio": "mean"},
    "fan-out": {"initialiser": "fan-out"},
    "default": {"initialiser": "default"},
    "all-new": {"reinitialise": "all"},
    "survivors": {"order": "survivors"},
}
"""What differs from Reconvene's defaults; brought to as many parameters by the pruning degree."""
ABLATED = 0.9


@functools.cache
def pictures(shared: Path | None, seed: int) -> tuple[Labelled, Labelled, str]:
    """To learn from and to test; and what they are."""
    source, what = pictures_to_learn(shared)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[: LEARN + TEST].numpy()
    small = replace(source.take(order).fitted((1, 16, 16)), mean=(0.29,) * 3, std=(0.33,) * 3)
    return small.take(slice(0, LEARN)), small.take(slice(LEARN, None)), what


def network(seed: int, initialiser: str = "fan-in") -> nn.Sequential:
    """292 thousand parameters; a pool after every second convolution but the last."""
    layers: list[nn.Module] = []
    inputs = 1
    for index, outputs in enumerate(WIDTHS):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if index in (1, 3, 5) else []
        inputs = outputs
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))
    initialise_(net, initialiser, seed)
    return net


def weights_in(module: nn.Module) -> int:
    """Parameters."""
    return sum(one.numel() for one in module.parameters())


def budgeted(model: nn.Module, channels: Channels, shape: Mapping[str, float], budget: int) -> dict[str, int]:
    """Widths in proportion to `shape`, by one factor, the largest within a budget of parameters; none above its own."""
    groups = [group for group in channels.groups if group.prunable]

    def widths(factor: float) -> dict[str, int]:
        return {one.name: min(max(round(factor * shape[one.name]), 1), one.size) for one in groups}

    def count(factor: float) -> int:
        kept = widths(factor)
        return parameters_without(
            model, (slot for one in groups for unit in one.units[kept[one.name] :] for slot in unit)
        )

    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return widths(low)


def rival_widths(arm: str, model: nn.Module, made: Reconvened, seed: int) -> dict[str, int]:
    """The widths of an arm at as many parameters as `made` has."""
    channels, budget = Channels.of(model, EXAMPLE), weights_in(made.module)
    full = dict(zip(made.widths, WIDTHS, strict=True))
    shares = made.decision.sparsities.shares
    shape: dict[str, float]
    if arm == "uniform":
        shape = dict(full)
    elif arm == "density":
        shape = {name: full[name] * max(1 - share, 1e-6) ** 0.5 for name, share in shares.items()}
    elif arm == "inverted":
        kept = sorted(made.widths[name] / full[name] for name in full)
        order = sorted(full, key=lambda name: shares[name])  # the most sensitive keeps the least
        shape = {name: full[name] * share for name, share in zip(order, kept, strict=True)}
    else:
        draw = random.Random(seed)
        shape = {name: full[name] * draw.uniform(0.1, 1) for name in full}
    return budgeted(model, channels, shape, budget)


def prepare(arm: str, degree: float, seed: int, learn: Labelled) -> tuple[nn.Module, Mask | None, int]:
    """An untrained network of an arm, its mask if it has one, and how many of its parameters are not held at 0."""
    model = network(seed)
    options = ReconveneOptions(keep=1 - degree, seed=seed + 1)
    if arm == "no-reinit":
        options = replace(options, reinitialise="none")
    made = reconvene(model, EXAMPLE, options)
    if arm in ("reconvene", "no-reinit"):
        return made.module, None, weights_in(made.module)
    if arm in ("magnitude", "synflow", "magnitude-degree"):
        names = convolutions(model)
        ranked = Mask.ones(model, names).total
        rest = weights_in(model) - ranked  # norms and the last layer stay, and count
        keep = 1 - degree if arm == "magnitude-degree" else (weights_in(made.module) - rest) / ranked
        criterion, steps = (SynFlow(), 100) if arm == "synflow" else (Magnitude(), 1)
        how = FindOptions(keep=keep, iterations=steps, names=names, floor=1, warmup=replace(FINAL, epochs=0))
        mask = find_mask(model, criterion, learn, how).mask
        return model, mask, mask.kept + rest
    if arm in ABLATION:
        options, budget = replace(options, **ABLATION[arm]), weights_in(made.module)
        start = model if options.initialiser == "detect" else network(seed, options.initialiser)
        small = for_target(start, EXAMPLE, lambda net: weights_in(net) <= budget, options)
        return small.module, None, weights_in(small.module)
    widths = rival_widths(arm, model, made, seed)
    small = rectified(
        model, EXAMPLE, Channels.of(model, EXAMPLE), widths, worth(model, Mask.ones(model, convolutions(model)))
    )
    initialise_(small.module, "fan-in", seed + 1, changed(small))
    return small.module, None, weights_in(small.module)


def trained(arm: str, degree: float, seed: int, shared: Path | None, final: TrainOptions) -> dict[str, Any]:
    """One arm after its training."""
    learn, test, _ = pictures(shared, seed)
    try:
        model, mask, count = (network(seed), None, 0) if arm == DENSE else prepare(arm, degree, seed, learn)
    except PruneError as error:
        if "no pruning degree meets" not in str(error):
            raise
        return {"accuracy": None, "parameters": None, "ratio": None, "seconds": None}  # e.g. early layers stay whole
    whole = weights_in(network(seed))
    history = train(model, learn, replace(final, seed=seed), mask)
    return {
        "accuracy": accuracy_of(model, test), "parameters": count or whole, "ratio": whole / (count or whole),
        "seconds": history.seconds,
    }  # fmt: skip


def measure(path: Path, seeds: int, full: bool, shared: Path | None) -> dict[str, Any]:
    """Every (seed, arm, degree) once; what the file already has is not done again."""
    torch.set_num_threads(1)
    final = FINAL if full else replace(FINAL, epochs=1)
    identity = {"full": full, "torch": torch.__version__, "setting": DATA}
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    done = done if done.get("identity") == identity else {"identity": identity, "cells": {}}
    done["data"] = pictures(shared, 0)[2]
    tasks: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(seeds):
        tasks[f"{seed}/{DENSE}"] = functools.partial(trained, DENSE, 0.0, seed, shared, final)
        for degree in DEGREES if full else DEGREES[-1:]:
            for arm in (*ARMS, *(ABLATION if degree == ABLATED else ())):
                tasks[f"{seed}/{arm}/{degree}"] = functools.partial(trained, arm, degree, seed, shared, final)
    for number, (name, task) in enumerate(tasks.items(), start=1):
        if name not in done["cells"]:
            print(f"[reconvene {number}/{len(tasks)}] {name}", file=sys.stderr, flush=True)
            done["cells"][name] = task()
            path.write_text(json.dumps(done))
    return done


def stored(model: nn.Module, mask: Mask) -> dict[str, tuple[str, int]]:
    """Bytes of a masked float32 network: with its zeros, as rows of (column, value), and as a bit a weight."""
    rest = 4 * (weights_in(model) - mask.total)
    rows = sum(len(one) + 1 for one in mask.tensors.values())
    return {
        "dense": ("zeros written out", 4 * mask.total + rest),
        "csr": ("compressed sparse rows, 32-bit indices", 8 * mask.kept + 4 * rows + rest),
        "bits": ("a bit for each weight, then those kept", 4 * mask.kept + -(-mask.total // 8) + rest),
    }


def size_at_equal_accuracy(
    pairs: list[tuple[float, list[float], list[float]]], sizes: Mapping[float, list[float]], where: str, claim: float
) -> list[dict[str, Any]]:
    """The largest ratio of sizes, zeros stored, at which Reconvene is within a point of the same degree's unstructured."""
    gaps = {degree: 100 * (statistics.fmean(ours) - statistics.fmean(theirs)) for degree, ours, theirs in pairs}
    equal = [degree for degree, gap in gaps.items() if gap >= -1]
    best = max(equal, key=lambda degree: statistics.fmean(sizes[degree]), default=None)
    told = "; ".join(
        f"degree {one}: {statistics.fmean(sizes[one]):.2f} x, {gap:+.2f} points" for one, gap in gaps.items()
    )
    return [
        row("reconvene.size_at_equal_accuracy",
            "stored size of the network with zeros / Reconvene's at the same degree, the largest where accuracy is at most one "
            f"point lower (claimed: up to {claim} x): {where}",
            baseline="largest magnitudes at initialisation, zeros stored", unit="x", note=told,
            ours=None if best is None else statistics.fmean(sizes[best]),
            spread=[] if best is None else [min(sizes[best]), max(sizes[best])])
    ]  # fmt: skip
