"""Pruning early, measured small: masks for an MLP on tiny pictures, every method with the same final training.

    python early.py out.json --full         # resumes from out.json

Classes of Fashion-MNIST (Debian's dataset-fashion-mnist; else grey CIFAR-10 JPEG), brought to 8 x 8 and put at a random
place of a 10 x 10 canvas with uniform noise up to 0.5: 3,000 to learn from, up to 10,000 others to test.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.prune.checkpoint import state_of
from edgeward.prune.criteria import CRITERIA, parse_criterion
from edgeward.prune.data import Tensors
from edgeward.prune.find import FindOptions, find_mask
from edgeward.prune.imp import ImpOptions, imp
from edgeward.prune.training import TrainOptions, accuracy_of, steps_of, train
from edgeward.vision.labelled import Labelled

LEARN, TEST = 3000, 10_000  # as many of the latter as there are
SEEDS = 9  # in full: one pair of trainings differs by about 0.6 points for no other reason than its seed
KEEPS = (0.1, 0.05, 0.02, 0.01)
IMP_KEEPS = (0.6, 0.4, 0.25, 0.15, 0.1, 0.05, 0.035, 0.02, 0.01)
FINAL = TrainOptions(epochs=20)
WARM = TrainOptions(epochs=1, rate="constant", weight_decay=0.0)


@dataclass(frozen=True)
class Method:
    """A way to a mask: which criterion, how many steps, how many warm-up epochs, which scope, where it goes back to."""

    criterion: str
    iterations: int = 20
    warmup: int = 0
    scope: str = "global"
    rewind: str = "warm"

    @property
    def name(self) -> str:
        """Short and unique."""
        steps = "one-shot" if self.iterations == 1 else f"x{self.iterations}"
        parts = (self.criterion, f"@{self.warmup}", steps, self.scope, f"rewind {self.rewind}")
        return " ".join(part for part in parts if part not in ("global", "rewind warm"))


METHODS = (
    *(Method(f"drive:d{number}", warmup=1) for number in (1, 2, 3, 4, 5)),
    Method("snip", warmup=1),
    Method("grasp-abs", warmup=1),
    Method("magnitude", warmup=1),
    Method("snip", 1),
    Method("snip"),
    Method("synflow", 100),
    Method("synflow", 1),
    Method("grasp", 1),
    Method("grasp"),
    Method("magnitude", 1),
    Method("random", 1),
    Method("random", 1, scope="erk"),
)


def ablation() -> tuple[Method, ...]:
    """What decides the default, at one sparsity: each criterion with more or less warm-up, one step, and rewound.

    Against one warm-up epoch, 20 steps and warm weights, which are among `METHODS`. D2 is left out: its masks are SNIP's.
    """
    criteria = ("drive:d1", "drive:d3", "drive:d4", "drive:d5", "snip", "magnitude", "grasp-abs")
    return tuple(
        method
        for one in criteria
        for method in (Method(one), Method(one, warmup=3), Method(one, 1, 1), Method(one, warmup=1, rewind="init"))
        if method not in METHODS
    )


@functools.cache
def pictures(shared: Path | None, seed: int) -> tuple[Tensors, Tensors, str]:
    """To learn from and to test, as float32 [n, 100]; and what they are."""
    from harness import pictures_to_learn

    source, what = pictures_to_learn(shared)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source), generator=generator)[: LEARN + TEST].numpy()
    small = source.take(order).fitted((1, 8, 8))
    canvas = _placed(small, generator)
    labels = torch.from_numpy(small.labels)
    return Tensors(canvas[:LEARN], labels[:LEARN]), Tensors(canvas[LEARN:], labels[LEARN:]), what


def _placed(small: Labelled, generator: torch.Generator) -> Tensor:
    images = torch.from_numpy(small.images[..., 0]).float() / 255
    canvas = torch.rand(len(images), 10, 10, generator=generator) / 2
    places = torch.randint(0, 3, (len(images), 2), generator=generator)
    for row in range(3):
        for column in range(3):
            here = (places == torch.tensor([row, column])).all(1)
            canvas[here, row : row + 8, column : column + 8] += images[here]
    return canvas.clamp(0, 1).reshape(len(images), 100)


def network(seed: int) -> nn.Sequential:
    """100-200-100-64-10 with batch norms; the last layer is not pruned."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((100, 200), (200, 100), (100, 64)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def dead_units(model: nn.Sequential, data: Tensors) -> int:
    """Hidden units, of 364, whose output is the same for every example."""
    values, dead = data.inputs, 0
    model.eval()
    with torch.no_grad():
        for layer in model:
            values = layer(values)
            if isinstance(layer, nn.ReLU):
                dead += int((values.amax(0) - values.amin(0) == 0).sum())
    return dead


def by_method(method: Method, keep: float, seed: int, shared: Path | None, final: TrainOptions) -> dict[str, Any]:
    """One mask and its final training."""
    learn, test, _ = pictures(shared, seed)
    model = network(seed)
    options = FindOptions(
        keep=keep, iterations=method.iterations, scope=method.scope, rewind=method.rewind, seed=seed,
        warmup=replace(WARM, epochs=method.warmup, seed=seed),
    )  # fmt: skip
    try:
        found = find_mask(model, parse_criterion(method.criterion), learn, options)
    except PruneError as error:
        if "nothing would be left" not in str(error):
            raise
        return {"collapsed": True, "accuracy": 0.1, "dead": 364, "seconds": None, "epochs": None, "equivalents": None}
    train(model, learn, replace(final, seed=seed + 1), found.mask)
    return {
        "collapsed": False,
        "accuracy": accuracy_of(model, test),
        "dead": dead_units(model, test),
        "seconds": found.cost.seconds,
        "scoring_seconds": found.cost.scoring_seconds,
        "epochs": found.cost.epochs,
        "equivalents": found.cost.epoch_equivalents(len(learn)),
    }


def by_imp(seed: int, shared: Path | None, final: TrainOptions) -> dict[str, Any]:
    """All levels, and the dense network: one epoch, then `final` from there at each level."""
    learn, test, _ = pictures(shared, seed)
    model = network(seed)
    whole = replace(final, epochs=final.epochs + 1, seed=seed)
    rows: dict[str, Any] = {}
    for level in imp(model, learn, ImpOptions(IMP_KEEPS, whole, rewind=steps_of(learn, whole)), held=test):
        with torch.no_grad():
            for name, tensor in state_of(model).items():
                tensor.copy_(level.weights[name])
        rows[str(level.keep)] = {
            "collapsed": False, "accuracy": level.accuracy, "dead": dead_units(model, test),
            "seconds": level.seconds, "epochs": level.epochs, "equivalents": level.epochs,
        }  # fmt: skip
    return rows


def measure(path: Path, seeds: int, full: bool, shared: Path | None) -> dict[str, Any]:
    """Every (seed, method) once; what the file already has is not done again."""
    torch.set_num_threads(1)
    identity = {"full": full, "torch": torch.__version__}
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    done = done if done.get("identity") == identity else {"identity": identity, "cells": {}}
    _, test, what = pictures(shared, 0)
    done |= {"data": what, "test": len(test)}
    final = FINAL if full else replace(FINAL, epochs=2)
    tasks: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(seeds):
        tasks[f"{seed}/imp"] = lambda seed=seed: by_imp(seed, shared, final)  # type: ignore[misc]
        for method in METHODS:
            tasks[f"{seed}/{method.name}"] = lambda seed=seed, method=method: {  # type: ignore[misc]
                str(keep): by_method(method, keep, seed, shared, final) for keep in (KEEPS if full else (0.1, 0.01))
            }
        for method in ablation() if full else ():
            tasks[f"ablation/{seed}/{method.name}"] = lambda seed=seed, method=method: {  # type: ignore[misc]
                "0.02": by_method(method, 0.02, seed, shared, final)
            }
    for number, (name, task) in enumerate(tasks.items(), start=1):
        if name in done["cells"]:
            continue
        print(f"[early {number}/{len(tasks)}] {name}", file=sys.stderr, flush=True)
        done["cells"][name] = task()
        path.write_text(json.dumps(done))
    return done


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from harness import shared_data

    assert set(METHODS) and all(method.criterion in CRITERIA for method in METHODS)
    full_run = "--full" in sys.argv
    out = measure(Path(sys.argv[1]), SEEDS if full_run else 1, full_run, shared_data())
    print(json.dumps({name: cell for name, cell in out["cells"].items() if not name.startswith("ablation")}, indent=1))
