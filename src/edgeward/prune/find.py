"""Finding a mask early: a few dense epochs, then scoring and removing in steps (DRIVE's loop, arXiv 2404.03687).

    found = find_mask(model, parse_criterion("drive:d5"), data, FindOptions(keep=0.02))
    train(model, data, TrainOptions(epochs=20), found.mask)

What the paper leaves open (number of steps, schedule, batch, rewind point) is our choice, and an option.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import nn

from edgeward.errors import PruneError, StoreError
from edgeward.prune.checkpoint import identity_of, state_of
from edgeward.prune.criteria import Criterion
from edgeward.prune.data import Data, sample
from edgeward.prune.mask import Mask
from edgeward.prune.schedule import keeps
from edgeward.prune.scope import SCOPES, prunable, select
from edgeward.prune.training import Progress, TrainOptions, steps_of, train

__all__ = ["Cost", "FindOptions", "Found", "find_mask"]

REWINDS = ("warm", "init")
WARMUP = TrainOptions(epochs=1, rate="constant", weight_decay=0.0)


@dataclass(frozen=True)
class FindOptions:
    """How to find a mask.

    keep: share of the weights kept in the end. iterations: pruning steps. rewind: the weights that the model ends with,
    those after the warm-up or the initial ones. samples: fresh examples scored in each step, at most `batch` at once to
    bound memory (batch norms then use the statistics of each such batch). names: the parameters pruned, those of
    `prunable` by default. floor: weights that each of them keeps at least; 0 makes a layer that vanishes an error.
    warmup: the dense training before; 0 epochs for pruning at initialisation. checkpoint: file to go on from after an
    interruption (the warm-up's own lies beside it). progress: steps done, steps in all, what is going on.
    """

    keep: float = 0.1
    iterations: int = 20
    schedule: str = "exponential"
    scope: str = "global"
    floor: int = 0
    rewind: str = "warm"
    samples: int = 512
    batch: int = 512
    seed: int = 0
    names: tuple[str, ...] | None = None
    warmup: TrainOptions = WARMUP
    checkpoint: Path | None = field(default=None, compare=False)
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        keeps(self.schedule, self.keep, self.iterations)
        for name, choices in (("scope", SCOPES), ("rewind", REWINDS)):
            if getattr(self, name) not in choices:
                raise PruneError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        for name, low, high in (("floor", 0, 2**31), ("samples", 1, 2**31), ("batch", 1, 2**31), ("seed", 0, 2**31)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise PruneError(f"{name} is {value}; choose from {low} to {high}")


@dataclass(frozen=True)
class Cost:
    """What a mask cost: dense epochs, examples scored, the passes each took, and seconds of both.

    A pass is one forward and backward of one example.
    """

    epochs: float = 0.0
    scored: int = 0
    passes: int = 0
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """All together."""
        return self.training_seconds + self.scoring_seconds

    def epoch_equivalents(self, examples: int) -> float:
        """Epochs of a data set of so many examples, scoring counted by its passes."""
        return self.epochs + self.passes / examples


@dataclass(frozen=True)
class Found:
    """A mask and what it cost."""

    mask: Mask
    cost: Cost


def find_mask(model: nn.Module, criterion: Criterion, data: Data, options: FindOptions) -> Found:
    """Warm up, then score the weights alive and remove the lowest, step by step; the model ends rewound and masked.

    Its buffers are rewound with its weights. Resumed from a checkpoint, the result is the same. Raises PruneError for
    data that does not fit, scores that are not finite, or a layer that would vanish (without a floor); StoreError for
    a checkpoint of another run.
    """
    mask = Mask.ones(model, options.names or prunable(model))
    steps = keeps(options.schedule, options.keep, options.iterations)
    initial = state_of(model, copied=True) if options.rewind == "init" else {}
    path = options.checkpoint
    identity = _identity(model, criterion, data, options) if path is not None else ""
    progress = _Progress(options, options.warmup.epochs * steps_of(data, options.warmup), len(steps))
    beside = path.with_name(path.name + ".warmup") if path is not None else None
    history = train(model, data, replace(options.warmup, checkpoint=beside, progress=progress.training))
    cost = Cost(epochs=float(options.warmup.epochs), training_seconds=history.seconds)
    first = 0
    if path is not None and path.exists():
        mask, first, cost = _resumed(path, identity)
    for step in range(first, len(steps)):
        progress.scoring(step)
        started = time.perf_counter()
        count = options.samples if criterion.passes else 2
        batches = sample(data, count, options.batch, options.seed * 100_003 + step)
        scores = criterion.score(model, batches, mask)
        mask = select(scores, mask, steps[step], options.scope, floor=options.floor)
        scored = sum(len(labels) for _, labels in batches) if criterion.passes else 0
        cost = replace(
            cost,
            scored=cost.scored + scored,
            passes=cost.passes + scored * criterion.passes,
            scoring_seconds=cost.scoring_seconds + time.perf_counter() - started,
        )
        if path is not None:
            _save(path, identity, mask, step + 1, cost)
    with torch.no_grad():
        for name, tensor in initial.items():
            state_of(model)[name].copy_(tensor)
    mask = Mask(mask.tensors, _provenance(criterion, options))
    mask.apply_(model)
    return Found(mask, cost)


class _Progress:
    """One count of steps over the warm-up and the pruning."""

    def __init__(self, options: FindOptions, warmup: int, pruning: int) -> None:
        self.tell, self.warmup, self.pruning = options.progress, warmup, pruning

    def training(self, done: int, total: int, text: str) -> None:
        if self.tell is not None:
            self.tell(done, self.warmup + self.pruning, f"warm-up, {text}")

    def scoring(self, step: int) -> None:
        if self.tell is not None:
            self.tell(self.warmup + step, self.warmup + self.pruning, f"pruning step {step + 1} of {self.pruning}")


def _settings(options: FindOptions) -> dict[str, object]:
    kept = {one.name: getattr(options, one.name) for one in fields(options) if one.compare and one.name != "warmup"}
    warm = {one.name: getattr(options.warmup, one.name) for one in fields(options.warmup) if one.compare}
    return {**kept, "warmup": warm}


def _identity(model: nn.Module, criterion: Criterion, data: Data, options: FindOptions) -> str:
    chosen = {one.name: getattr(criterion, one.name) for one in fields(criterion) if one.compare}  # type: ignore[arg-type]
    loss = getattr(getattr(criterion, "loss", None), "__qualname__", "")
    return identity_of(model, (data,), (criterion.name, chosen, loss, _settings(options)))


def _provenance(criterion: Criterion, options: FindOptions) -> dict[str, str]:
    told = {name: json.dumps(value) for name, value in _settings(options).items() if name != "names"}
    return {"criterion": criterion.name, **told}


def _save(path: Path, identity: str, mask: Mask, step: int, cost: Cost) -> None:
    about = {"identity": identity, "step": str(step), "cost": json.dumps(asdict(cost))}
    Mask(mask.tensors, about).save(path)


def _resumed(path: Path, identity: str) -> tuple[Mask, int, Cost]:
    mask = Mask.load(path)
    if mask.provenance.get("identity") != identity:
        raise StoreError(f"{path} is of another search for a mask; delete it to begin anew")
    return mask, int(mask.provenance["step"]), Cost(**json.loads(mask.provenance["cost"]))
